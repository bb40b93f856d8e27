//! The pid file, and what else the master does to files in nginx's words.

use crate::identity::path_of;
use net::errno::{Errno, ErrnoMessage, errno_of};
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use std::io::Write;

/// What a pid file is called while a new binary has taken its name.
pub fn old_name(pid: &[u8]) -> Vec<u8> {
    [pid, b".oldbin"].concat()
}

/// Writes this process's number; a test only makes sure that the file can be opened. The error is nginx's message.
pub fn create(path: &[u8], is_test: bool) -> Result<(), String> {
    let fails =
        |call: &str, errno| format!("{call} \"{}\" failed ({})", bstr::BStr::new(path), ErrnoMessage(errno));
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let flags = if is_test { flags } else { flags | OFlags::TRUNC };
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    let file = rustix::fs::open(path, flags, mode).map_err(|errno| fails("open()", errno))?;
    if !is_test {
        let mut file = std::fs::File::from(file);
        let written = writeln!(file, "{}", std::process::id());
        written.map_err(|error| fails("pwrite()", errno_of(&error)))?;
    }
    Ok(())
}

/// Reads the number of a running master. The error is nginx's message.
pub fn read(path: &[u8]) -> Result<Pid, String> {
    let name = bstr::BStr::new(path);
    let text = std::fs::read(path_of(path));
    let text =
        text.map_err(|error| format!("open() \"{name}\" failed ({})", ErrnoMessage(errno_of(&error))))?;
    let length = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    // nginx reads no more than a number and its line feed can take.
    let text = &text[..length.min(NUMBER_BYTES_MAX)];
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(text).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
    let pid = number.and_then(Pid::from_raw);
    pid.ok_or_else(|| format!("invalid PID number \"{}\" in \"{name}\"", bstr::BStr::new(text)))
}

/// nginx's `NGX_INT64_LEN` and two more.
const NUMBER_BYTES_MAX: usize = 22;

/// Makes a user the owner of a log file, with the right to read and write, if it is not so already. The error is the
/// call and why it failed.
pub fn give_to(path: &[u8], uid: u32) -> Result<(), (String, Errno)> {
    let name = bstr::BStr::new(path);
    let stat = rustix::fs::stat(path).map_err(|errno| (format!("stat() \"{name}\""), errno))?;
    if stat.st_uid != uid {
        let owner = rustix::process::Uid::from_raw(uid);
        let given = rustix::fs::chown(path, Some(owner), None);
        given.map_err(|errno| (format!("chown(\"{name}\", {uid})"), errno))?;
    }
    let mode = Mode::from_raw_mode(stat.st_mode);
    let owners = Mode::RUSR | Mode::WUSR;
    if !mode.contains(owners) {
        let set = rustix::fs::chmod(path, mode | owners);
        set.map_err(|errno| (format!("chmod() \"{name}\""), errno))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn numbers_are_read_as_nginx_reads_them() {
        let path = std::env::temp_dir().join(format!("gapura-pid-{}", std::process::id()));
        let bytes = path.as_os_str().as_bytes();
        let name = path.display();
        let missing = format!("open() \"{name}\" failed (2: No such file or directory)");
        assert_eq!(read(bytes).map(|_| ()), Err(missing));
        for (text, expected) in [
            ("12\n", Ok(12)),
            ("12", Ok(12)),
            ("12\r\n\n", Ok(12)),
            ("", Err("")),
            ("\n", Err("")),
            ("x1\n", Err("x1")),
            ("1 2\n", Err("1 2")),
            ("-1\n", Err("-1")),
            ("0\n", Err("0")),
            ("123456789012345678901234567890", Err("1234567890123456789012")),
        ] {
            std::fs::write(&path, text).expect("the temporary folder is writable");
            let expected = expected.map_err(|text| format!("invalid PID number \"{text}\" in \"{name}\""));
            assert_eq!(read(bytes).map(Pid::as_raw_pid), expected, "{text:?}");
        }
        create(bytes, true).expect("it can be opened");
        assert!(read(bytes).is_err(), "a test writes nothing");
        create(bytes, false).expect("it can be written");
        assert_eq!(read(bytes), Ok(rustix::process::getpid()));
        std::fs::remove_file(path).expect("it is ours");
    }
}
