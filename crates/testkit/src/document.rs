//! Reading a specification document: Markdown in, scenarios with their steps out. `spec/README.md` tells the format.

use std::path::{Path, PathBuf};

/// One `spec/*.md`, read.
#[derive(Debug)]
pub struct Document {
    /// Where it was read from; failures name it.
    pub path: PathBuf,
    /// `file` and `origin` blocks above the first configuration: every scenario has them.
    pub shared: Vec<Step>,
    /// One for each `nginx` block, in order.
    pub scenarios: Vec<Scenario>,
}

/// One configuration and what is tried on it.
#[derive(Debug)]
pub struct Scenario {
    /// The heading above it, for people.
    pub title: String,
    /// The `nginx` block.
    pub config: Block,
    /// When the whole scenario is left out.
    pub guard: Guard,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// Something a scenario does or checks.
#[derive(Debug)]
pub enum Step {
    /// Writes a file, or certificates, under the prefix.
    File(Block),
    /// A server behind the proxy.
    Origin(Block),
    /// A request and the responses to it.
    Exchange(Exchange),
    /// Lines that a log must come to hold; a second block may say what nginx writes instead.
    Log(Checked),
    /// What `-t` says of the configuration.
    Verdict(Checked),
    /// A signal to the server.
    Signal(Block),
}

/// An `http` block with its `response` blocks.
#[derive(Debug)]
pub struct Exchange {
    /// What is sent.
    pub request: Block,
    /// What must come back, in order.
    pub responses: Vec<Block>,
    /// When it is left out.
    pub guard: Guard,
}

/// A block that is a check by itself, with nginx's own version of it where the two differ.
#[derive(Debug)]
pub struct Checked {
    /// The expectation, one block or one for each program.
    pub blocks: Vec<Block>,
    /// When it is left out.
    pub guard: Guard,
}

/// One fenced block.
#[derive(Debug, Clone)]
pub struct Block {
    /// The first word behind the fence.
    pub kind: String,
    /// The other words behind the fence.
    pub words: Vec<String>,
    /// The line of the document on which the text begins (the fence is the line before), counted from 1.
    pub line: usize,
    /// The text, without the line end before the closing fence.
    pub text: String,
    /// No line at all between the fences, which an empty line is not.
    pub empty: bool,
}

impl Block {
    /// Whether the fence carries this word.
    pub fn has(&self, word: &str) -> bool {
        self.words.iter().any(|w| w == word)
    }

    /// The value of `name=value` on the fence.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.words.iter().find_map(|w| w.strip_prefix(name)?.strip_prefix('='))
    }

    /// The lines with their numbers in the document.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let text = (!self.empty).then_some(&self.text);
        text.into_iter().flat_map(|t| t.split('\n')).enumerate().map(move |(i, line)| (self.line + i, line))
    }

    /// Whether this expectation is for the program under test: a block marked `nginx` holds for the oracle alone, and
    /// takes the place of the unmarked one there.
    fn fits(&self, oracle: bool, has_twin: bool) -> bool {
        if self.has("nginx") { oracle } else { !(oracle && has_twin) }
    }
}

/// The blocks of a list that hold for the program under test.
pub fn for_program(blocks: &[Block], oracle: bool) -> Vec<&Block> {
    let has_twin = blocks.iter().any(|b| b.has("nginx"));
    blocks.iter().filter(|b| b.fits(oracle, has_twin)).collect()
}

/// The conditions above a block: `differs:`, `since:` and `needs:` lines of the prose.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Why Gapura does something else than nginx here.
    pub differs: Option<String>,
    /// The first nginx that behaves like this.
    pub since: Option<String>,
    /// A piece of `nginx -V` without which an oracle cannot do this.
    pub needs: Option<String>,
}

impl Document {
    /// Reads the document at `path`.
    ///
    /// # Errors
    /// In words with the line: the file cannot be read, or it does not follow the format.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Self::parse(path, &text)
    }

    /// As [`Document::read`], from text.
    ///
    /// # Errors
    /// As there.
    pub fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let mut reader = Reader::default();
        let mut lines = text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            let fence = line.bytes().take_while(|b| *b == b'`').count();
            let result = if fence >= 3 {
                let mut body = Vec::new();
                let closed = lines.by_ref().map(|(_, l)| l).any(|l| {
                    let closing = l.trim_end() == &line[..fence];
                    if !closing {
                        body.push(l);
                    }
                    closing
                });
                if closed {
                    reader.block(&line[fence..], index + 2, &body)
                } else {
                    Err("a fence is not closed".to_owned())
                }
            } else {
                reader.prose(line);
                Ok(())
            };
            result.map_err(|message| format!("{}:{}: {message}", path.display(), index + 1))?;
        }
        reader.end_of_section();
        let Reader { shared, scenarios, guard, .. } = reader;
        if guard.differs.is_some() || guard.since.is_some() || guard.needs.is_some() {
            return Err(format!(
                "{}: the last differs:/since:/needs: line stands above no block",
                path.display()
            ));
        }
        Ok(Self { path: path.to_owned(), shared, scenarios })
    }
}

/// What is known while the lines go by.
#[derive(Default)]
struct Reader {
    shared: Vec<Step>,
    scenarios: Vec<Scenario>,
    title: String,
    guard: Guard,
    /// Files and origins of this section that wait for its configuration.
    waiting: Vec<Step>,
    /// Whether this section has had its configuration.
    configured: bool,
}

impl Reader {
    fn prose(&mut self, line: &str) {
        if let Some(title) = line.strip_prefix('#') {
            self.end_of_section();
            self.title = title.trim_start_matches('#').trim().to_owned();
        }
        for (mark, place) in [
            ("differs:", &mut self.guard.differs),
            ("since:", &mut self.guard.since),
            ("needs:", &mut self.guard.needs),
        ] {
            if let Some(rest) = line.strip_prefix(mark) {
                *place = Some(rest.trim().to_owned());
            }
        }
    }

    /// Files and origins that found no configuration in their section belong to the running scenario, or to all.
    fn end_of_section(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        match self.scenarios.last_mut() {
            Some(scenario) => scenario.steps.extend(waiting),
            None => self.shared.extend(waiting),
        }
        self.configured = false;
    }

    fn block(&mut self, info: &str, line: usize, body: &[&str]) -> Result<(), String> {
        let mut words = info.split_whitespace().map(str::to_owned);
        let kind = words.next().unwrap_or_default();
        let text = body.join("\n");
        let block = Block { kind, words: words.collect(), line, text, empty: body.is_empty() };
        match block.kind.as_str() {
            "nginx" => {
                let guard = std::mem::take(&mut self.guard);
                let steps = std::mem::take(&mut self.waiting);
                self.scenarios.push(Scenario { title: self.title.clone(), config: block, guard, steps });
                self.configured = true;
            }
            "file" | "certificates" | "origin" => {
                let step = if block.kind == "origin" { Step::Origin(block) } else { Step::File(block) };
                match self.scenarios.last_mut() {
                    Some(scenario) if self.configured => scenario.steps.push(step),
                    _ => self.waiting.push(step),
                }
            }
            "http" => {
                let guard = std::mem::take(&mut self.guard);
                self.steps()?.push(Step::Exchange(Exchange { request: block, responses: Vec::new(), guard }));
            }
            "response" => match self.steps()?.last_mut() {
                Some(Step::Exchange(exchange)) => exchange.responses.push(block),
                _ => return Err("a response block must follow an http block".to_owned()),
            },
            "log" | "config-error" | "config-warning" => self.checked(block)?,
            "signal" => self.steps()?.push(Step::Signal(block)),
            "" | "text" | "sh" | "console" | "json" | "html" => {}
            other => return Err(format!("unknown kind of block \"{other}\"")),
        }
        Ok(())
    }

    fn checked(&mut self, block: Block) -> Result<(), String> {
        let guard = std::mem::take(&mut self.guard);
        let verdict = block.kind != "log";
        let steps = self.steps()?;
        if block.has("nginx") {
            return match steps.last_mut() {
                Some(Step::Log(checked) | Step::Verdict(checked)) => {
                    checked.blocks.push(block);
                    Ok(())
                }
                _ => Err("a block marked nginx must follow the one it replaces".to_owned()),
            };
        }
        let checked = Checked { blocks: vec![block], guard };
        steps.push(if verdict { Step::Verdict(checked) } else { Step::Log(checked) });
        Ok(())
    }

    /// The steps of the running scenario; files and origins of a section without a configuration join it first.
    fn steps(&mut self) -> Result<&mut Vec<Step>, String> {
        let waiting = std::mem::take(&mut self.waiting);
        let scenario = self.scenarios.last_mut().ok_or("no nginx block above this one")?;
        scenario.steps.extend(waiting);
        Ok(&mut scenario.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(text: &str) -> Result<String, String> {
        let document = Document::parse(Path::new("x.md"), text)?;
        let mut out = String::new();
        let step = |s: &Step| match s {
            Step::File(b) => format!("file@{}", b.line),
            Step::Origin(b) => format!("origin@{}", b.line),
            Step::Exchange(e) => format!("http@{}+{}", e.request.line, e.responses.len()),
            Step::Log(c) => format!("log x{}", c.blocks.len()),
            Step::Verdict(c) => format!("verdict x{}", c.blocks.len()),
            Step::Signal(_) => "signal".to_owned(),
        };
        out += &document.shared.iter().map(step).collect::<Vec<_>>().join(",");
        for scenario in &document.scenarios {
            let steps: Vec<_> = scenario.steps.iter().map(step).collect();
            out += &format!(" | {}: {}", scenario.title, steps.join(","));
        }
        Ok(out)
    }

    #[test]
    fn blocks_find_their_scenario() {
        let f = |kind: &str| format!("```{kind}\nx\n```\n");
        for (text, expected) in [
            (
                format!("# T\n{}{}{}{}", f("file a"), f("nginx"), f("http"), f("response")),
                " | T: file@3,http@9+1",
            ),
            (format!("{}# A\n{}", f("file a"), f("nginx")), "file@2 | A: "),
            (format!("# A\n{}# B\n{}{}", f("nginx"), f("origin"), f("http")), " | A: origin@7,http@10+0"),
            (format!("# A\n{}# B\n{}{}", f("nginx"), f("origin"), f("nginx")), " | A:  | B: origin@7"),
            (format!("# A\n{}{}{}", f("nginx"), f("log"), f("log error.log nginx")), " | A: log x2"),
        ] {
            assert_eq!(outline(&text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_does_not_follow_the_format_is_refused_with_its_line() {
        for (text, message) in [
            ("```http\nx\n```\n", "x.md:1: no nginx block above this one"),
            ("\n```respons\nx\n```\n", "x.md:2: unknown kind of block \"respons\""),
            ("```nginx\n", "x.md:1: a fence is not closed"),
            ("```nginx\n```\n```response\n```\n", "x.md:3: a response block must follow an http block"),
            ("since: 1.2\n", "x.md: the last differs:/since:/needs: line stands above no block"),
        ] {
            assert_eq!(outline(text).unwrap_err(), message);
        }
    }

    #[test]
    fn an_empty_block_is_not_a_block_with_an_empty_line() {
        let document = Document::parse(Path::new("x.md"), "```nginx\n```\n```nginx\n\n```\n").unwrap();
        let lines: Vec<usize> = document.scenarios.iter().map(|s| s.config.lines().count()).collect();
        assert_eq!(lines, [0, 1]);
    }
}
