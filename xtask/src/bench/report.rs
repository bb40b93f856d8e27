//! The result of a run: a table for people, JSON for programs.

use super::Sample;
use super::workload::{Figure, Workload};
use std::fmt::Write as _;

/// A server in a workload.
pub struct Entry {
    /// Its name and version.
    pub label: String,
    /// One for each round.
    pub samples: Vec<Sample>,
    /// Why it could not take part.
    pub failure: Option<String>,
    /// What strace and perf saw.
    pub looks: Vec<String>,
}

/// The result of a run.
pub struct Report {
    rounds: u32,
    seconds: u32,
    /// The workloads; Gapura is the first entry of each.
    pub workloads: Vec<(&'static Workload, Vec<Entry>)>,
}

/// A median with what lies around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The lowest value.
    pub low: f64,
    /// The median.
    pub median: f64,
    /// The highest value.
    pub high: f64,
}

impl Spread {
    /// Of some values; none when there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(*values.get(middle.checked_sub(1)?)?, *values.get(middle)?)
        } else {
            *values.get(middle)?
        };
        Some(Self { low: *values.first()?, median, high: *values.last()? })
    }
}

impl Entry {
    /// A figure over all rounds.
    pub fn figure(&self, figure: Figure) -> Option<Spread> {
        Spread::of(self.samples.iter().filter_map(|sample| sample.get(&figure).copied()))
    }

    /// What this server needs of what another one needs, round by round.
    pub fn ratio_to(&self, other: &Entry, figure: Figure) -> Option<Spread> {
        let pairs = self.samples.iter().zip(&other.samples);
        Spread::of(pairs.filter_map(|(one, other)| {
            let (one, other) = (one.get(&figure)?, other.get(&figure)?);
            (*other > 0.0).then_some(one / other)
        }))
    }
}

impl Report {
    /// An empty one.
    pub fn new(rounds: u32, seconds: u32) -> Self {
        Self { rounds, seconds, workloads: Vec::new() }
    }

    /// Adds a workload.
    pub fn add(&mut self, workload: &'static Workload, entries: Vec<Entry>) {
        self.workloads.push((workload, entries));
    }

    /// The table.
    pub fn table(&self) -> String {
        let mut out = String::new();
        for (workload, entries) in &self.workloads {
            let title = workload.figure.title();
            let _ = writeln!(out, "\n{}: {}", workload.name, workload.about);
            let _ = writeln!(
                out,
                "  {:<28} {title:>16}  {:>15} {:>6} {:>9} {:>8} {:>8} {:>9} {:>6}  gapura to it",
                "", "spread", "user", "req/s", "p50 us", "p99 us", "memory", "failed"
            );
            for entry in entries {
                let _ = writeln!(out, "  {}", row(workload, entries, entry));
            }
            for entry in entries.iter().filter(|entry| !entry.looks.is_empty()) {
                for look in &entry.looks {
                    let _ = writeln!(out, "\n  {}: {}", entry.label, look.trim_end().replace('\n', "\n    "));
                }
            }
        }
        let _ = writeln!(
            out,
            "\nmedians of {} rounds of {} s, spread and ratios with the lowest and the highest round",
            self.rounds, self.seconds
        );
        out
    }

    /// The same for programs: every sample of every round.
    pub fn json(&self) -> String {
        let mut workloads = Vec::new();
        for (workload, entries) in &self.workloads {
            let servers: Vec<String> =
                entries.iter().map(|entry| server_json(workload, entries, entry)).collect();
            workloads.push(format!(
                "    {{\"workload\": {}, \"about\": {}, \"figure\": {}, \"servers\": [\n{}\n    ]}}",
                quoted(workload.name),
                quoted(workload.about),
                quoted(workload.figure.name()),
                servers.join(",\n")
            ));
        }
        format!(
            "{{\n  \"rounds\": {},\n  \"seconds\": {},\n  \"workloads\": [\n{}\n  ]\n}}\n",
            self.rounds,
            self.seconds,
            workloads.join(",\n")
        )
    }
}

fn row(workload: &Workload, entries: &[Entry], entry: &Entry) -> String {
    if let Some(failure) = &entry.failure {
        return format!("{:<28} left out: {failure}", entry.label);
    }
    let median = |figure, digits: usize| {
        entry.figure(figure).map_or(String::new(), |spread| format!("{:.digits$}", spread.median))
    };
    let main = entry.figure(workload.figure);
    let digits = if main.is_some_and(|spread| spread.median >= 1000.0) { 0 } else { 2 };
    let spread = main.map_or(String::new(), |s| format!("{:.digits$}-{:.digits$}", s.low, s.high));
    let memory = entry
        .figure(Figure::Memory)
        .map_or(String::new(), |memory| format!("{:.1} MiB", memory.median / 1024.0));
    let failed: f64 = entry.samples.iter().filter_map(|sample| sample.get(&Figure::Failed)).sum();
    let ratio = entries
        .first()
        .filter(|first| first.label != entry.label)
        .and_then(|first| first.ratio_to(entry, workload.figure))
        .map_or(String::new(), |r| format!("{:.2} ({:.2}-{:.2})", r.median, r.low, r.high));
    let line = format!(
        "{:<28} {:>16}  {spread:>15} {:>6} {:>9} {:>8} {:>8} {memory:>9} {failed:>6}  {ratio}",
        entry.label,
        median(workload.figure, digits),
        median(Figure::User, 2),
        median(Figure::Rate, 0),
        median(Figure::Half, 0),
        median(Figure::Tail, 0),
    );
    line.trim_end().to_owned()
}

fn server_json(workload: &Workload, entries: &[Entry], entry: &Entry) -> String {
    let samples: Vec<String> = entry
        .samples
        .iter()
        .map(|sample| {
            let figures = sample.iter().filter(|(_, value)| value.is_finite());
            let figures: Vec<String> =
                figures.map(|(figure, value)| format!("{}: {value:.3}", quoted(figure.name()))).collect();
            format!("{{{}}}", figures.join(", "))
        })
        .collect();
    let spread = |spread: Option<Spread>| {
        spread.map_or("null".to_owned(), |s| {
            format!("{{\"low\": {:.4}, \"median\": {:.4}, \"high\": {:.4}}}", s.low, s.median, s.high)
        })
    };
    let ratio = entries.first().and_then(|first| first.ratio_to(entry, workload.figure));
    format!(
        "      {{\"server\": {}, \"failure\": {}, \"figure\": {}, \"gapura_to_it\": {}, \"rounds\": [{}]}}",
        quoted(&entry.label),
        entry.failure.as_ref().map_or("null".to_owned(), |failure| quoted(failure)),
        spread(entry.figure(workload.figure)),
        spread(ratio),
        samples.join(", ")
    )
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        for (values, expected) in [
            (vec![], None),
            (vec![2.0], Some((2.0, 2.0, 2.0))),
            (vec![3.0, 1.0], Some((1.0, 2.0, 3.0))),
            (vec![9.0, 1.0, 2.0], Some((1.0, 2.0, 9.0))),
            (vec![f64::NAN, 1.0], Some((1.0, 1.0, 1.0))),
        ] {
            let spread = Spread::of(values.clone()).map(|s| (s.low, s.median, s.high));
            assert_eq!(spread, expected, "{values:?}");
        }
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let entry = |values: &[f64]| Entry {
            label: String::new(),
            samples: values.iter().map(|value| Sample::from([(Figure::Cpu, *value)])).collect(),
            failure: None,
            looks: Vec::new(),
        };
        // The machine was slower in the second round, for both.
        let ratio = entry(&[9.0, 18.0, 9.9]).ratio_to(&entry(&[10.0, 20.0, 10.0]), Figure::Cpu);
        assert_eq!(ratio.map(|r| r.median), Some(0.9));
    }

    #[test]
    fn strings_are_quoted() {
        assert_eq!(quoted("a \"b\"\n"), r#""a \"b\"\u000a""#);
    }
}
