//! The demo on a terminal: a picture drawn in place, and keys read one by one.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios};

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As the terminal has it.
    Plain,
    /// Headings, addresses.
    Strong,
    /// What is there to be looked up.
    Soft,
    /// What went wrong.
    Bad,
    /// The colour of the app server of that number.
    App(usize),
}

/// A line of the picture: pieces of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(Vec<(Style, String)>);

impl Line {
    /// A line with nothing on it.
    pub fn new() -> Line {
        Line::default()
    }

    /// The line with one more piece.
    #[must_use]
    pub fn and(mut self, style: Style, text: impl Into<String>) -> Line {
        self.0.push((style, text.into()));
        self
    }

    /// The first `columns` characters, in colour or not. Control characters, which could come from a log or from a
    /// program's output, are left out.
    fn draw(&self, columns: usize, colour: bool, out: &mut String) {
        let mut left = columns;
        for (style, text) in &self.0 {
            let shown: String = text.chars().filter(|character| !character.is_control()).take(left).collect();
            left -= shown.chars().count();
            match (colour, style) {
                (false, _) | (_, Style::Plain) => out.push_str(&shown),
                (true, style) => {
                    let _ = write!(out, "\x1b[{}m{shown}\x1b[0m", code(*style));
                }
            }
        }
    }
}

/// The parameters of "select graphic rendition" (ECMA-48 8.3.117).
fn code(style: Style) -> &'static str {
    // As near as sixteen colours come to those of the pages.
    const APPS: [&str; 6] = ["35", "33", "32", "36", "34", "95"];
    match style {
        Style::Plain => "0",
        Style::Strong => "1",
        Style::Soft => "2",
        Style::Bad => "1;31",
        Style::App(index) => APPS[index % APPS.len()],
    }
}

/// The terminal while the demo draws on it. Dropping it gives the terminal back as it was.
pub struct Screen {
    colour: bool,
    last: String,
}

impl Screen {
    /// Takes the terminal when the standard output is one that can be drawn on.
    pub fn take() -> Option<Screen> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if dumb || !io::stdout().is_terminal() {
            return None;
        }
        // The other screen of the terminal, without a cursor: what was there before comes back at the end.
        say("\x1b[?1049h\x1b[?25l").ok()?;
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Some(Screen { colour, last: String::new() })
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
        let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
        size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()))
    }

    /// Draws the picture, if it is another one than last time.
    pub fn draw(&mut self, lines: &[Line]) -> io::Result<()> {
        let (columns, rows) = self.size();
        let mut picture = String::from("\x1b[H");
        for (row, line) in lines.iter().take(rows).enumerate() {
            if row > 0 {
                picture += "\r\n";
            }
            line.draw(columns, self.colour, &mut picture);
            picture += "\x1b[K";
        }
        picture += "\x1b[J";
        if picture != self.last {
            say(&picture)?;
            self.last = picture;
        }
        Ok(())
    }

    /// The next picture is drawn whatever was there before.
    pub fn forget(&mut self) {
        self.last.clear();
        let _ = say("\x1b[?1049h\x1b[?25l");
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = say("\x1b[?25h\x1b[?1049l");
    }
}

/// Writes to the standard output at once.
pub fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The keyboard while keys are read one by one. Dropping it gives lines back.
pub struct Keyboard {
    before: Termios,
    keys: Termios,
}

impl Keyboard {
    /// Takes the keyboard when the standard input is one.
    pub fn take() -> Option<Keyboard> {
        let before = rustix::termios::tcgetattr(io::stdin()).ok()?;
        let mut keys = before.clone();
        keys.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        keys.special_codes[SpecialCodeIndex::VMIN] = 1;
        keys.special_codes[SpecialCodeIndex::VTIME] = 0;
        let keyboard = Keyboard { before, keys };
        keyboard.again();
        Some(keyboard)
    }

    /// Takes it again after the shell had it (Ctrl-Z and `fg`).
    pub fn again(&self) {
        let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.keys);
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_and_is_clean() {
        let line = Line::new().and(Style::Strong, "app1").and(Style::Plain, " went\x1b[2J\n up");
        for (columns, colour, drawn) in [
            (80, false, "app1 went[2J up"),
            (6, false, "app1 w"),
            (2, true, "\x1b[1map\x1b[0m"),
            (80, true, "\x1b[1mapp1\x1b[0m went[2J up"),
        ] {
            let mut out = String::new();
            line.draw(columns, colour, &mut out);
            assert_eq!(out, drawn);
        }
    }
}
