//! What the demo shows: which addresses to open, which servers there are, who answered, and what to try.

use std::collections::VecDeque;
use std::path::Path;

use super::screen::{Line, Style};
use super::server::{Server, State};
use super::traffic::Seen;
use super::tree::Doors;

/// Requests kept for the list.
pub const RECENT_MAX: usize = 60;

/// Lines of the last message kept.
pub const MESSAGE_LINES_MAX: usize = 24;

/// Everything that is shown.
pub struct View<'a> {
    /// The process of the gateway.
    pub gateway: &'a Server,
    /// Where it listens.
    pub doors: Doors,
    /// The app servers, with the number of answers each gave.
    pub apps: &'a [(Server, u64)],
    /// The last requests, newest last.
    pub recent: &'a VecDeque<Seen>,
    /// Requests in all.
    pub total: u64,
    /// Those among them that no server answered.
    pub failed: u64,
    /// The last thing to say.
    pub message: &'a [String],
    /// The file to edit.
    pub file: &'a Path,
}

/// The addresses to open and what each shows, for the screen and for plain output.
pub fn addresses(doors: Doors) -> [(String, &'static str); 3] {
    let (scheme, port) = doors.around_a_name();
    [
        (format!("{scheme}mydomain.localhost{port}/"), "a reverse proxy: always the first server"),
        (format!("{scheme}loadbalance.localhost{port}/"), "load balancing: each server in turn"),
        (format!("{scheme}localhost{port}/"), "a page that watches the servers"),
    ]
}

impl View<'_> {
    /// The picture for a terminal of this size.
    pub fn picture(&self, columns: usize, rows: usize) -> Vec<Line> {
        let mut lines = vec![self.title(), Line::new()];
        for (address, what) in addresses(self.doors) {
            lines.push(Line::new().and(Style::Strong, format!("  {address:<40}")).and(Style::Soft, what));
        }
        lines.push(Line::new());
        let most = self.apps.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
        for (index, (app, count)) in self.apps.iter().enumerate() {
            lines.push(app_line(index, app, *count, most, columns));
        }
        lines.push(Line::new());

        let keys = self.keys();
        let message = self.message.iter().take(MESSAGE_LINES_MAX);
        let message: Vec<Line> =
            message.map(|line| Line::new().and(Style::Plain, format!("  {line}"))).collect();
        let taken = lines.len() + message.len() + keys.len() + 3;
        let room = rows.saturating_sub(taken).min(self.recent.len());
        let style = if self.failed == 0 { Style::Soft } else { Style::Bad };
        lines.push(
            Line::new()
                .and(Style::Plain, format!("  {} requests, ", self.total))
                .and(style, format!("{} failed", self.failed)),
        );
        let shown = self.recent.iter().skip(self.recent.len() - room);
        lines.extend(shown.map(|seen| self.request_line(seen, columns)));
        lines.push(Line::new());
        if !message.is_empty() {
            lines.extend(message);
            lines.push(Line::new());
        }
        lines.extend(keys);
        lines
    }

    /// One request in one line of plain text.
    pub fn plain(&self, seen: &Seen) -> String {
        let tried: Vec<String> = seen.tried.iter().map(|address| self.name_of(address).0).collect();
        format!(
            "{} {} {} {} {} {} s\n",
            seen.time,
            seen.host,
            seen.short_request(200),
            seen.status,
            if tried.is_empty() { "gateway".to_owned() } else { tried.join(" -> ") },
            seen.took
        )
    }

    fn title(&self) -> Line {
        let line = Line::new().and(Style::Strong, "  Gapura demo");
        match self.gateway.state {
            State::Running => line,
            State::Starting => line.and(Style::Soft, "  the gateway is starting"),
            State::Stopped | State::Ended(_) => line.and(Style::Bad, "  the gateway has ended: press r"),
        }
    }

    fn keys(&self) -> Vec<Line> {
        let key = |line: Line, key: &str, what: &str| {
            line.and(Style::Strong, format!("  {key}")).and(Style::Soft, format!(" {what}"))
        };
        let servers = if self.apps.len() == 1 { "1".to_owned() } else { format!("1-{}", self.apps.len()) };
        let line = key(Line::new(), &servers, "stop or start a server");
        let line = key(key(line, "+", "add one"), "space", "ask 10 times");
        vec![
            key(key(line, "r", "reload"), "q", "quit"),
            Line::new().and(Style::Soft, "  Edit this file and press r; break it and press r:"),
            Line::new().and(Style::Plain, format!("  {}", self.file.display())),
        ]
    }

    fn request_line(&self, seen: &Seen, columns: usize) -> Line {
        let what = columns.saturating_sub(64).clamp(12, 40);
        let mut line = Line::new()
            .and(Style::Soft, format!("  {}  ", seen.time))
            .and(Style::Plain, format!("{:<22} {:<what$} ", seen.host, seen.short_request(what)))
            .and(if seen.is_good() { Style::Plain } else { Style::Bad }, format!("{}  ", seen.status));
        for (place, address) in seen.tried.iter().enumerate() {
            let (name, style) = self.name_of(address);
            if place > 0 {
                line = line.and(Style::Soft, " -> ");
            }
            let answered = place + 1 == seen.tried.len() && seen.is_good();
            line = line.and(if answered { style } else { Style::Bad }, name);
        }
        line.and(Style::Soft, format!("  {} s", seen.took))
    }

    fn name_of(&self, address: &str) -> (String, Style) {
        let found = self.apps.iter().position(|(app, _)| app.address.to_string() == address);
        found.map_or((address.to_owned(), Style::Plain), |index| {
            (self.apps[index].0.name.clone(), Style::App(index))
        })
    }
}

fn app_line(index: usize, app: &Server, count: u64, most: u64, columns: usize) -> Line {
    let (state, style) = match app.state {
        State::Starting => ("starting".to_owned(), Style::Soft),
        State::Running => ("running".to_owned(), Style::Plain),
        State::Stopped => ("stopped".to_owned(), Style::Bad),
        State::Ended(code) => (code.map_or("ended".to_owned(), |code| format!("ended ({code})")), Style::Bad),
    };
    let room = columns.saturating_sub(52).min(40) as u64;
    let bar = usize::try_from((count * room).div_ceil(most)).unwrap_or(0);
    Line::new()
        .and(Style::Strong, format!("  {}  ", index + 1))
        .and(Style::App(index), format!("{:<6}", app.name))
        .and(Style::Soft, format!("{:<17}", app.address))
        .and(style, format!("{state:<11}"))
        .and(Style::Plain, format!("{count:>8} "))
        .and(Style::App(index), "\u{2588}".repeat(bar))
}
