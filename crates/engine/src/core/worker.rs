//! How urgently the worker's threads run, and on which processors: `worker_priority` and `worker_cpu_affinity`.

use conf::{Node, Word};
use schema::value::{argument, number};
use schema::{Problem, Services, Value};

/// The highest number of processors a mask may speak of (the C library's `CPU_SETSIZE`).
const PROCESSORS_MAX: usize = 1024;

/// `worker_priority`: what the worker's nice value becomes; 0 leaves it alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Priority(pub i32);

impl Value for Priority {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        let word = argument(node, 0)?;
        let (digits, sign) = match word.text.split_first() {
            Some((b'-', digits)) => (digits, -1),
            Some((b'+', digits)) => (digits, 1),
            _ => (&word.text[..], 1),
        };
        let value = number(digits).and_then(|value| i32::try_from(value).ok());
        value
            .map(|value| Priority(sign * value))
            .ok_or_else(|| Problem::directive(&node.name, "invalid number").on(word))
    }
}

/// `worker_cpu_affinity`: each thread's processors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// One processor a thread, out of these; all there are where none is named.
    Auto(Option<Vec<usize>>),
    /// The processors of the first thread, of the second, and so on; the last ones are for all further threads.
    Masks(Vec<Vec<usize>>),
}

impl Affinity {
    /// The processors of a thread on a machine with so many; none leaves the choice to the kernel.
    pub fn of_thread(&self, thread: usize, processors: usize) -> Vec<usize> {
        match self {
            Affinity::Auto(None) => vec![thread % processors.max(1)],
            Affinity::Auto(Some(allowed)) if allowed.is_empty() => Vec::new(),
            Affinity::Auto(Some(allowed)) => vec![allowed[thread % allowed.len()]],
            Affinity::Masks(masks) => masks.get(thread).or(masks.last()).cloned().unwrap_or_default(),
        }
    }

    /// Is there neither one mask for all of so many threads nor one for each?
    pub fn is_uneven(&self, threads: usize) -> bool {
        matches!(self, Affinity::Masks(masks) if masks.len() != 1 && masks.len() != threads)
    }
}

impl Value for Affinity {
    fn parse(node: &Node, _services: &mut dyn Services) -> Result<Self, Problem> {
        if argument(node, 0)?.text != "auto" {
            return node.args.iter().map(mask).collect::<Result<_, _>>().map(Affinity::Masks);
        }
        if let Some(extra) = node.args.get(2) {
            let text = "invalid number of arguments in \"worker_cpu_affinity\" directive";
            return Err(Problem::new(text).on(extra));
        }
        node.args.get(1).map(mask).transpose().map(Affinity::Auto)
    }
}

/// Reads a mask from its end: the last digit is processor 0. Spaces part digits for the eye.
fn mask(word: &Word) -> Result<Vec<usize>, Problem> {
    if word.text.len() > PROCESSORS_MAX {
        let text = format!("\"worker_cpu_affinity\" supports up to {PROCESSORS_MAX} CPUs only");
        return Err(Problem::new(text).on(word));
    }
    let mut processors = Vec::new();
    for (processor, digit) in word.text.iter().rev().filter(|digit| **digit != b' ').enumerate() {
        match digit {
            b'0' => {}
            b'1' => processors.push(processor),
            bad => {
                let text = format!("invalid character \"{}\" in \"worker_cpu_affinity\"", char::from(*bad));
                return Err(Problem::new(text).on(word));
            }
        }
    }
    Ok(processors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_find_their_processors() {
        let masks = Affinity::Masks(vec![vec![0], vec![1, 2]]);
        let cases = [
            (&Affinity::Auto(None), 5, vec![1]),
            (&Affinity::Auto(Some(vec![1, 3])), 3, vec![3]),
            (&Affinity::Auto(Some(vec![])), 0, vec![]),
            (&masks, 0, vec![0]),
            (&masks, 1, vec![1, 2]),
            (&masks, 7, vec![1, 2]),
        ];
        for (affinity, thread, expected) in cases {
            assert_eq!(affinity.of_thread(thread, 4), expected, "thread {thread} of {affinity:?}");
        }
        assert_eq!([1, 2, 3].map(|threads| masks.is_uneven(threads)), [true, false, true]);
        assert!(!Affinity::Auto(None).is_uneven(3));
    }
}
