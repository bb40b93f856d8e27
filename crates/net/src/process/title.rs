//! The title of a process: what `ps` and `/proc/PID/cmdline` show.
//!
//! The kernel shows the memory that held the arguments when the program began. A longer title runs on into the
//! memory of the environment behind it, which therefore moves elsewhere first.

use std::ffi::{CString, OsString, c_char};
use std::sync::atomic::{AtomicU8, Ordering};

unsafe extern "C" {
    /// The C library's environment, which Rust's is too.
    static mut environ: *mut *mut c_char;
}

/// The right to write the title; there is at most one in a process.
#[derive(Debug)]
pub struct Title {
    area: Option<&'static [AtomicU8]>,
    /// How much of the area is written: what held the arguments, and what longer titles took.
    written_bytes: usize,
}

/// Where the kernel put the arguments and the environment, from `/proc/self/stat` (proc(5), fields 20, 48 to 51).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    threads: u64,
    arguments_start: usize,
    arguments_end: usize,
    environment_start: usize,
    environment_end: usize,
}

impl Title {
    /// Reads the arguments and takes over the memory that holds them. To be called first in `main`: where
    /// another thread runs already, or `/proc` does not tell, titles stay as they are. Nothing may ask the system
    /// for the arguments afterwards.
    pub fn take() -> (Vec<OsString>, Title) {
        let arguments = std::env::args_os().collect();
        let stat = std::fs::read("/proc/self/stat").unwrap_or_default();
        let layout = Layout::of_stat(&stat).filter(|layout| layout.threads == 1);
        let written_bytes =
            layout.map_or(0, |layout| layout.arguments_end.saturating_sub(layout.arguments_start));
        (arguments, Title { area: layout.and_then(take_area), written_bytes })
    }

    /// Shows a title, cut to the room there is.
    pub fn set(&mut self, title: &[u8]) {
        let Some(area) = self.area else { return };
        let title = &title[..title.len().min(area.len().saturating_sub(1))];
        self.written_bytes = self.written_bytes.max(title.len() + 1);
        let padded = title.iter().copied().chain(std::iter::repeat(0));
        for (cell, byte) in area.iter().zip(padded).take(self.written_bytes) {
            cell.store(byte, Ordering::Relaxed);
        }
    }
}

/// Names the process as `ps -o comm`, `top` and journald's `_COMM` show it; the kernel cuts it at 15 bytes.
pub fn set_process_name(name: &str) {
    if let Ok(name) = CString::new(name) {
        // It is only a name: where the kernel refuses, the old one stays.
        let _ = rustix::thread::set_name(&name);
    }
}

fn take_area(layout: Layout) -> Option<&'static [AtomicU8]> {
    if layout.arguments_start == 0 || layout.arguments_start >= layout.arguments_end {
        return None;
    }
    let mut end = layout.arguments_end;
    let contiguous = layout.environment_start == layout.arguments_end;
    if contiguous && layout.environment_end > end && move_environment() {
        end = layout.environment_end;
    }
    let length = end - layout.arguments_start;
    // SAFETY: the kernel reports this range as the writable part of the initial stack into which it copied the
    // strings of the arguments (and behind them, of the environment). It lives as long as the process. Other
    // users of the memory: the C library's and Rust's argument pointers, read by `args_os` alone, which the
    // contract of `take` rules out from here on; and the environment's, which no longer point here if `end`
    // includes them. `AtomicU8` has the layout of `u8` and allows any value.
    let area = unsafe { std::slice::from_raw_parts(layout.arguments_start as *const AtomicU8, length) };
    Some(area)
}

/// Copies the environment elsewhere. False where there is none.
fn move_environment() -> bool {
    // SAFETY: `take_area` runs with one thread, so nobody writes `environ` meanwhile; reading the pointer itself
    // is a plain copy.
    let old = unsafe { environ };
    if old.is_null() {
        return false;
    }
    let mut copies = Vec::new();
    // Bound: the kernel accepts at most a quarter of the stack's limit for arguments and environment.
    for index in 0.. {
        // SAFETY: `environ` is an array of C strings that ends with a null pointer (environ(7)); the loop reads
        // no further than that pointer.
        let entry = unsafe { *old.add(index) };
        if entry.is_null() {
            break;
        }
        // SAFETY: an entry before the null pointer is a C string, and nobody changes it meanwhile (one thread).
        copies.push(unsafe { std::ffi::CStr::from_ptr(entry) }.to_owned().into_raw());
    }
    copies.push(std::ptr::null_mut());
    // Given away for good: the environment is used until the process ends.
    let copies = Vec::leak(copies).as_mut_ptr();
    // SAFETY: one thread, so nobody reads meanwhile; the new value has the form environ(7) asks for and lives
    // until the process ends.
    unsafe { environ = copies };
    true
}

impl Layout {
    fn of_stat(stat: &[u8]) -> Option<Layout> {
        // The second field is the name in brackets and may hold spaces and brackets itself.
        let after_name = stat.iter().rposition(|&byte| byte == b')')? + 2;
        let text = std::str::from_utf8(stat.get(after_name..)?).ok()?;
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let place = |field: usize| usize::try_from(number(field)?).ok();
        Some(Layout {
            threads: number(20)?,
            arguments_start: place(48)?,
            arguments_end: place(49)?,
            environment_start: place(50)?,
            environment_end: place(51)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_counted_from_the_end_of_the_name() {
        let mut stat = b"77 (a ) b) S".to_vec();
        for field in 4..=52 {
            stat.extend_from_slice(format!(" {field}").as_bytes());
        }
        stat.push(b'\n');
        let expected = Layout {
            threads: 20,
            arguments_start: 48,
            arguments_end: 49,
            environment_start: 50,
            environment_end: 51,
        };
        assert_eq!(Layout::of_stat(&stat), Some(expected));
        for broken in [&b""[..], b"1 (x", b"1 (x)", b"1 (x) S 4 5", b"1 (x) S x"] {
            assert_eq!(Layout::of_stat(broken), None);
        }
    }

    #[test]
    fn with_other_threads_the_title_stays() {
        // The test runner has several threads, so nothing may be taken here.
        let before = std::fs::read("/proc/self/cmdline").expect("a process has arguments");
        let (arguments, mut title) = Title::take();
        title.set(b"never shown");
        assert!(!arguments.is_empty());
        assert_eq!(std::fs::read("/proc/self/cmdline").expect("still"), before);
    }
}
