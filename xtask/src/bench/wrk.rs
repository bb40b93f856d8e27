//! wrk, the load generator: how it is called and what it says.

use super::Sample;
use super::load::PATIENCE;
use super::process::bound_to_us;
use super::turns::Program;
use super::workload::Figure;
use crate::spec::root;

/// Puts load on a server for some seconds.
pub fn begin(
    url: &str,
    connections: u32,
    close: bool,
    script: Option<&str>,
    seconds: u32,
) -> Result<Program, String> {
    let mut command = bound_to_us("wrk", "KILL");
    command.args(["-t1", "--latency", &format!("-c{connections}"), &format!("-d{seconds}s")]);
    // Answers are under way while wrk is halted, too.
    command.arg(format!("--timeout={}s", PATIENCE.as_secs()));
    if close {
        command.args(["-H", "Connection: close"]);
    }
    if let Some(script) = script {
        command.arg("-s").arg(root().join("bench/load").join(script));
    }
    Program::start(&format!("wrk {url}"), command.arg(url), parse)
}

/// Reads wrk's report.
fn parse(text: &str) -> Option<Sample> {
    let after = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
    let mut sample = Sample::new();
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")).map(|(n, _)| n)?;
    let requests: f64 = requests.parse().ok()?;
    sample.insert(Figure::Requests, requests);
    sample.insert(Figure::Rate, after("Requests/sec:")?.parse().ok()?);
    sample.insert(Figure::Half, microseconds(after("50%")?)?);
    sample.insert(Figure::Tail, microseconds(after("99%")?)?);
    let wrong: f64 = after("Non-2xx or 3xx responses:").and_then(|n| n.parse().ok()).unwrap_or(0.0);
    let broken: f64 = after("Socket errors:").map_or(0.0, |line| {
        line.split(", ").filter_map(|part| part.split(' ').nth(1)?.parse::<f64>().ok()).sum()
    });
    sample.insert(Figure::Failed, wrong + broken);
    (requests > 0.0).then_some(sample)
}

/// `93.00us`, `1.25ms`, `1.05s`.
fn microseconds(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 60e6)];
    let (number, scale) = units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
    Some(number.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let text = "\
Running 2s test @ http://127.0.0.1:8080/small
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.20ms  310.00us   9.00ms   90.00%
    Req/Sec    50.00k     1.00k   52.00k    75.00%
  Latency Distribution
     50%    1.10ms
     75%    1.30ms
     90%    1.50ms
     99%  930.00us
  100123 requests in 2.00s, 20.00MB read
  Socket errors: connect 1, read 2, write 0, timeout 3
  Non-2xx or 3xx responses: 4
Requests/sec:  50012.34
Transfer/sec:     10.00MB
";
        let sample = parse(text).expect("a report");
        for (figure, value) in [
            (Figure::Requests, 100_123.0),
            (Figure::Rate, 50_012.34),
            (Figure::Half, 1100.0),
            (Figure::Tail, 930.0),
            (Figure::Failed, 10.0),
        ] {
            assert_eq!(sample.get(&figure), Some(&value), "{figure:?}");
        }
        assert!(parse("unable to connect").is_none());
    }
}
