//! Loads that go on without a pause, and how several servers are measured with them: all loads are there at the same
//! time and have turns of a few hundredths of a second, one after the other.
//!
//! What else the machine does comes and goes over seconds and moves what a request costs by a tenth and more. In short
//! turns every server has its share of good and bad moments, so that the ratio of two of them stays where it is.

use super::load::Spent;
use super::peer::Running;
use super::workload::{Figure, Workload};
use super::{Sample, load};
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a load goes on before it is the next one's turn: long against what a server still has to do for a load
/// that was halted (a millisecond), short against what disturbs the machine.
const TURN: Duration = Duration::from_millis(50);

/// How long each server is asked without turns for the times that its answers take: a halted client would count its
/// own pause.
const ALONE_SECONDS: u32 = 1;

/// A load that goes on by itself for some seconds of the clock, whether or not it is halted meanwhile.
pub trait Generator {
    /// Stops it where it is. What is under way stays so.
    fn halt(&mut self);
    /// Lets it go on.
    fn go_on(&mut self);
    /// Lets it go on until its seconds are over; what it counted.
    fn finish(self: Box<Self>) -> Result<Sample, String>;
}

/// A program that makes a load and says at its end what it counted. It is ended when this is dropped.
pub struct Program {
    name: String,
    child: Child,
    read: fn(&str) -> Option<Sample>,
}

impl Program {
    /// Starts a program whose report `read` understands; `name` is what it is called in complaints.
    pub fn start(
        name: &str,
        command: &mut Command,
        read: fn(&str) -> Option<Sample>,
    ) -> Result<Self, String> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|e| format!("{name}: {e}"))?;
        Ok(Self { name: name.to_owned(), child, read })
    }

    /// It may have ended by itself: then its report tells why.
    fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }
}

impl Generator for Program {
    fn halt(&mut self) {
        self.signal(Signal::STOP);
    }

    fn go_on(&mut self) {
        self.signal(Signal::CONT);
    }

    fn finish(mut self: Box<Self>) -> Result<Sample, String> {
        self.go_on();
        let pipes = (self.child.stdout.take(), self.child.stderr.take());
        let (Some(mut out), Some(mut err)) = pipes else { return Err("its report is gone".to_owned()) };
        let text = std::io::read_to_string(&mut out).map_err(|e| format!("{}: {e}", self.name))?;
        let complaint = std::io::read_to_string(&mut err).unwrap_or_default();
        let said: Vec<&str> =
            [&text, &complaint].map(|text| text.trim()).into_iter().filter(|t| !t.is_empty()).collect();
        (self.read)(&text).ok_or_else(|| match said.is_empty() {
            true => format!("{} said nothing", self.name),
            false => format!("{} said: {}", self.name, said.join(": ")),
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A load, and how long it had its turn.
struct Turns {
    generator: Box<dyn Generator>,
    time: Duration,
}

impl Turns {
    /// The first turn begins with the start of the load.
    fn begin(generator: Box<dyn Generator>) -> Self {
        let mut turns = Self { generator, time: Duration::ZERO };
        turns.take_one();
        turns
    }

    fn take_one(&mut self) {
        let begin = Instant::now();
        self.generator.go_on();
        std::thread::sleep(TURN);
        self.generator.halt();
        self.time += begin.elapsed();
    }

    /// The last turn, which ends by itself. Requests per second are those of all turns.
    fn finish(self) -> Result<Sample, String> {
        let begin = Instant::now();
        let mut sample = self.generator.finish()?;
        let time = self.time + begin.elapsed();
        if let Some(requests) = sample.get(&Figure::Requests).copied() {
            sample.insert(Figure::Rate, requests / time.as_secs_f64());
        }
        Ok(sample)
    }
}

/// A server's part of a round.
struct Part<'a> {
    running: &'a Running,
    before: Spent,
    turns: Turns,
}

impl<'a> Part<'a> {
    fn begin(workload: &Workload, running: &'a Running, seconds: u32) -> Result<Self, String> {
        let before = Spent::until_now(running);
        let turns = Turns::begin(begin_load(workload, running, seconds)?);
        Ok(Self { running, before, turns })
    }

    fn finish(self) -> Result<Sample, String> {
        let mut sample = self.turns.finish()?;
        self.before.add_cost(&mut sample, self.running)?;
        load::add_memory(&mut sample, self.running);
        Ok(sample)
    }
}

fn begin_load(workload: &Workload, running: &Running, seconds: u32) -> Result<Box<dyn Generator>, String> {
    let generator = load::begin(workload, &running.places.listen, seconds)?;
    generator.ok_or_else(|| format!("the load of {} has no turns", workload.name))
}

/// Measures one round of some servers, for so many seconds each; the samples in their order.
pub fn round(workload: &Workload, servers: &[&Running], seconds: u32) -> Vec<Result<Sample, String>> {
    let all_seconds = seconds * u32::try_from(servers.len()).unwrap_or(u32::MAX);
    let end = Instant::now() + Duration::from_secs(all_seconds.into());
    let mut parts: Vec<_> =
        servers.iter().map(|running| Part::begin(workload, running, all_seconds)).collect();
    while Instant::now() < end && parts.iter().any(Result::is_ok) {
        parts.iter_mut().flatten().for_each(|part| part.turns.take_one());
    }
    let samples: Vec<_> = parts.into_iter().map(|part| part?.finish()).collect();
    // Only now, when the others are quiet.
    let with_times = |(sample, running): (Result<Sample, String>, &&Running)| {
        let mut sample = sample?;
        if sample.contains_key(&Figure::Tail) {
            take_times(&mut sample, &begin_load(workload, running, ALONE_SECONDS)?.finish()?);
        }
        Ok(sample)
    };
    samples.into_iter().zip(servers).map(with_times).collect()
}

/// Takes the times of answers from a load without turns, and counts what failed there.
fn take_times(sample: &mut Sample, alone: &Sample) {
    let figure = |sample: &Sample, figure| sample.get(&figure).copied().unwrap_or(0.0);
    sample.insert(Figure::Half, figure(alone, Figure::Half));
    sample.insert(Figure::Tail, figure(alone, Figure::Tail));
    sample.insert(Figure::Failed, figure(sample, Figure::Failed) + figure(alone, Figure::Failed));
}

#[cfg(test)]
mod tests {
    use super::super::process::bound_to_us;
    use super::*;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    fn program(script: &str) -> Box<Program> {
        let mut command = bound_to_us("sh", "KILL");
        let read = |text: &str| Some(Sample::from([(Figure::Requests, text.trim().parse().ok()?)]));
        Box::new(Program::start("sh", command.args(["-c", script]), read).expect("a shell"))
    }

    #[test]
    fn a_halted_program_goes_on_to_its_end() {
        for (script, expected) in [
            ("echo 7", Ok(Sample::from([(Figure::Requests, 7.0)]))),
            ("echo none; echo why >&2", Err("sh said: none: why".to_owned())),
            ("kill -KILL $$", Err("sh said nothing".to_owned())),
        ] {
            let mut program = program(script);
            program.halt();
            assert_eq!(program.finish(), expected, "{script}");
        }
    }

    #[test]
    fn a_halted_program_that_is_dropped_leaves_nothing_behind() {
        let mut program = program("exec sleep 600");
        let place = format!("/proc/{}", program.child.id());
        program.halt();
        assert!(Path::new(&place).exists());
        drop(program);
        assert!(!Path::new(&place).exists());
    }

    /// Writes down what happens to it.
    struct Noted(&'static str, Arc<Mutex<String>>);

    impl Noted {
        fn note(&self, what: &str) {
            *self.1.lock().expect("notes") += &format!("{}{what} ", self.0);
        }
    }

    impl Generator for Noted {
        fn halt(&mut self) {
            self.note("-");
        }
        fn go_on(&mut self) {
            self.note("+");
        }
        fn finish(self: Box<Self>) -> Result<Sample, String> {
            self.note("!");
            Ok(Sample::from([(Figure::Requests, 10.0), (Figure::Rate, 1e9)]))
        }
    }

    #[test]
    fn one_load_goes_on_at_a_time_and_the_rate_is_that_of_its_turns() {
        let notes = Arc::default();
        let begin = |name| Turns::begin(Box::new(Noted(name, Arc::clone(&notes))));
        let mut both = [begin("a"), begin("b")];
        both.iter_mut().for_each(Turns::take_one);
        let times = both.each_ref().map(|turns| turns.time);
        let rates = both.map(|turns| turns.finish().expect("a sample")[&Figure::Rate]);
        assert_eq!(*notes.lock().expect("notes"), "a+ a- b+ b- a+ a- b+ b- a! b! ");
        for (time, rate) in times.into_iter().zip(rates) {
            assert!(time >= 2 * TURN && rate <= 10.0 / time.as_secs_f64(), "{time:?} {rate}");
        }
    }

    #[test]
    fn times_are_those_of_a_load_without_turns() {
        let mut sample = Sample::from([(Figure::Cpu, 7.0), (Figure::Tail, 100_000.0), (Figure::Failed, 1.0)]);
        take_times(
            &mut sample,
            &Sample::from([(Figure::Half, 1.0), (Figure::Tail, 9.0), (Figure::Failed, 2.0)]),
        );
        let figures = [Figure::Cpu, Figure::Half, Figure::Tail, Figure::Failed];
        assert_eq!(figures.map(|figure| sample[&figure]), [7.0, 1.0, 9.0, 3.0]);
    }
}
