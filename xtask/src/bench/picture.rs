//! The result as a picture: one group of bars for each workload, the shorter the better.

use super::report::{Entry, Report};
use super::workload::Workload;
use std::fmt::Write as _;

const WIDTH: usize = 860;
const BAR_FROM: usize = 230;
const BAR_WIDTH_MAX: f64 = 440.0;
const BAR_HEIGHT: usize = 16;
const ROW_HEIGHT: usize = 21;
const GROUP_HEAD: usize = 38;
const MARGIN: usize = 24;

/// Gapura's colour, then those of the peers.
const COLOURS: &[&str] = &["#b5482a", "#5b7b9a", "#8a9a5b", "#9a7b5b", "#7a6a9a", "#808080"];

/// An SVG document.
pub fn bars(report: &Report) -> String {
    let mut body = String::new();
    let mut y = MARGIN;
    for (workload, entries) in &report.workloads {
        y = group(&mut body, workload, entries, y);
    }
    let height = y + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

/// Draws a workload; where the next one begins.
fn group(body: &mut String, workload: &Workload, entries: &[Entry], top: usize) -> usize {
    let values: Vec<(usize, &Entry, f64)> = entries
        .iter()
        .enumerate()
        .filter_map(|(number, entry)| Some((number, entry, entry.figure(workload.figure)?.median)))
        .collect();
    let Some(longest) = values.iter().map(|(_, _, value)| *value).max_by(f64::total_cmp) else { return top };
    let _ = writeln!(
        body,
        "<text x=\"{MARGIN}\" y=\"{}\" font-weight=\"600\">{}</text>\
         <text x=\"{BAR_FROM}\" y=\"{}\" fill=\"#666\">{}, {}</text>",
        top + 18,
        escaped(workload.name),
        top + 18,
        escaped(workload.about),
        escaped(workload.figure.title())
    );
    let mut y = top + GROUP_HEAD - 10;
    for (number, entry, value) in values {
        let width = if longest > 0.0 { value / longest * BAR_WIDTH_MAX } else { 0.0 };
        let colour = COLOURS[number % COLOURS.len()];
        let first = entries.first().filter(|_| number > 0);
        let ratio = first.and_then(|first| first.ratio_to(entry, workload.figure));
        let note = ratio.map_or(String::new(), |ratio| format!("  (gapura: {:.2} of it)", ratio.median));
        let digits = if value >= 1000.0 { 0 } else { 2 };
        let text_y = y + 13;
        let _ = writeln!(
            body,
            "<text x=\"{}\" y=\"{text_y}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{BAR_FROM}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{text_y}\" fill=\"#333\">{value:.digits$}{note}</text>",
            BAR_FROM - 8,
            escaped(&entry.label),
            BAR_FROM as f64 + width + 6.0,
        );
        y += ROW_HEIGHT;
    }
    y + 8
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
