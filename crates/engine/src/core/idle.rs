//! Checks of directives that have nothing to tune here: a value that nginx refuses is refused all the same.

use conf::{Node, Word};
use schema::Problem;
use schema::value::{argument, number, offset, size};

/// nginx's smallest memory pool in bytes, and what the size of one must be a multiple of.
const POOL_BYTES: (usize, usize) = (112, 16);
/// What nginx's buffer of a connection of HTTP/2 begins with, bytes: it must be larger.
const FRAME_STATE_BYTES: usize = 16;
/// Event methods that nginx has on Linux.
const EVENT_METHODS: [&str; 3] = ["epoll", "poll", "select"];

pub(super) fn event_method(node: &Node) -> Result<(), Problem> {
    let word = argument(node, 0)?;
    if EVENT_METHODS.iter().any(|method| word.text == *method) {
        return Ok(());
    }
    Err(Problem::new(format!("invalid event type \"{}\"", word.text))
        .on(word)
        .help(format!("on this system it is one of: {}", EVENT_METHODS.join(", "))))
}

pub(super) fn debug_points(node: &Node) -> Result<(), Problem> {
    let word = argument(node, 0)?;
    if word.text.eq_ignore_ascii_case(b"stop") || word.text.eq_ignore_ascii_case(b"abort") {
        return Ok(());
    }
    Err(Problem::new(format!("invalid value \"{}\"", word.text)).on(word))
}

pub(super) fn debug_connection(node: &Node) -> Result<(), Problem> {
    argument(node, 0).map(drop)
}

pub(super) fn thread_pool(node: &Node) -> Result<(), Problem> {
    let mut has_threads = false;
    for word in &node.args[1..] {
        let value = |name: &str| word.text.strip_prefix(name.as_bytes());
        let invalid = |what: &str| Problem::new(format!("invalid {what} value \"{}\"", word.text)).on(word);
        if let Some(threads) = value("threads=") {
            number(threads).filter(|n| *n > 0).ok_or_else(|| invalid("threads"))?;
            has_threads = true;
        } else if let Some(queue) = value("max_queue=") {
            number(queue).ok_or_else(|| invalid("max_queue"))?;
        }
    }
    let name = argument(node, 0)?;
    if has_threads || name.text == "default" {
        return Ok(());
    }
    Err(Problem::new(format!("\"{}\" must have \"threads\" parameter", name.text)).on(name))
}

pub(super) fn pool_size(node: &Node) -> Result<(), Problem> {
    let word = argument(node, 0)?;
    let bytes = size(&word.text).unwrap_or_default();
    let (least, multiple) = POOL_BYTES;
    if bytes < least {
        return Err(Problem::new(format!("the pool size must be no less than {least}")).on(word));
    }
    if !bytes.is_multiple_of(multiple) {
        return Err(Problem::new(format!("the pool size must be a multiple of {multiple}")).on(word));
    }
    Ok(())
}

pub(super) fn receive_buffer_size(node: &Node) -> Result<(), Problem> {
    let word = argument(node, 0)?;
    let bytes = size(&word.text).ok_or_else(|| invalid_value(node, word))?;
    if bytes <= FRAME_STATE_BYTES {
        return Err(Problem::directive(&node.name, "value is too small").on(word));
    }
    Ok(())
}

pub(super) fn index_size(node: &Node) -> Result<(), Problem> {
    let word = argument(node, 0)?;
    let count = number(&word.text);
    let count = count.ok_or_else(|| Problem::directive(&node.name, "invalid number").on(word))?;
    if !count.is_power_of_two() {
        return Err(Problem::directive(&node.name, "must be a power of two").on(word));
    }
    Ok(())
}

pub(super) fn aio(node: &Node) -> Result<(), Problem> {
    let word = argument(node, 0)?;
    let threads = word.text.strip_prefix(b"threads");
    let is_known = word.text == "on" || word.text == "off";
    if is_known || threads.is_some_and(|pool| pool.is_empty() || pool.starts_with(b"=")) {
        return Ok(());
    }
    Err(invalid_value(node, word))
}

pub(super) fn directio(node: &Node) -> Result<(), Problem> {
    let word = argument(node, 0)?;
    if word.text == "off" || offset(&word.text).is_some() {
        return Ok(());
    }
    Err(invalid_value(node, word))
}

fn invalid_value(node: &Node, word: &Word) -> Problem {
    Problem::directive(&node.name, "invalid value").on(word)
}
