//! h2load, the load generator for HTTP/2: how it is called and what it says.

use super::Sample;
use super::process::bound_to_us;
use super::turns::Program;
use super::workload::Figure;

/// Puts load on a server for some seconds.
pub fn begin(url: &str, connections: u32, streams: u32, seconds: u32) -> Result<Program, String> {
    let mut command = bound_to_us("h2load", "KILL");
    command.args(["-t1", &format!("-c{connections}"), &format!("-m{streams}"), &format!("-D{seconds}")]);
    Program::start(&format!("h2load {url}"), command.arg(url), parse)
}

/// Reads h2load's report, which knows neither median nor percentiles.
fn parse(text: &str) -> Option<Sample> {
    let line = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label));
    let count = |line: &str, label: &str| {
        let words = line.split(", ").find_map(|part| part.trim().strip_suffix(label))?;
        words.trim().parse::<f64>().ok()
    };
    let requests = line("requests:")?;
    let done = count(requests, " done")?;
    let lost = count(requests, " failed")?;
    let wrong = line("status codes:")
        .map_or(0.0, |codes| count(codes, " 4xx").unwrap_or(0.0) + count(codes, " 5xx").unwrap_or(0.0));
    let rate = line("finished in ")?.split(", ").find_map(|part| part.strip_suffix(" req/s"))?;
    let mut sample = Sample::new();
    sample.insert(Figure::Requests, done);
    sample.insert(Figure::Rate, rate.parse().ok()?);
    sample.insert(Figure::Failed, lost + wrong);
    (done > 0.0).then_some(sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let text = "\
finished in 3.02s, 6956.00 req/s, 638.79KB/s
requests: 20868 total, 21028 started, 20868 done, 20860 succeeded, 8 failed, 1 errored, 0 timeout
status codes: 20850 2xx, 10 3xx, 3 4xx, 5 5xx
traffic: 618B (618) total, 0B (0) headers (space savings 0.00%), 0B (0) data
";
        let sample = parse(text).expect("a report");
        for (figure, value) in [(Figure::Requests, 20_868.0), (Figure::Rate, 6956.0), (Figure::Failed, 16.0)]
        {
            assert_eq!(sample.get(&figure), Some(&value), "{figure:?}");
        }
        assert!(parse("could not connect to host").is_none());
    }
}
