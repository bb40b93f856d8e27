//! Carries out what [`engine::acme::vault`] asks for: in the master, which alone may read what is kept, or in the one
//! process there is. Whoever asks may be a worker that was taken over, so that nothing outside of the folders that the
//! configuration names is touched, whatever it asks for.

use crate::files::file_error;
use engine::acme::vault::{
    Action, Answer, FILE_BYTES_MAX, FILES_MAX, LOCK, LOCK_SECONDS_MAX, NAME_BYTES_MAX, Request, is_name,
    read_lock, write_lock,
};
use net::errno::{Errno, ErrnoMessage};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;

/// Whose eyes alone see files.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Makes a folder for what is kept, where there is none.
///
/// # Errors
/// In nginx's words.
pub fn make_folder(folder: &[u8]) -> Result<(), String> {
    match rustix::fs::mkdir(folder, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => {
            Err(format!("mkdir() \"{}\" failed ({})", bstr::BStr::new(folder), ErrnoMessage(errno)))
        }
    }
}

/// Does what is asked for in one of these folders. What was written is told to `written`, by path.
pub fn carry_out(
    folders: &[Vec<u8>],
    request: &Request,
    now: i64,
    mut written: impl FnMut(Vec<u8>, Option<&[u8]>),
) -> Answer {
    let Request { folder, action } = request;
    if !folders.contains(folder) {
        return Answer::Failed(format!("\"{}\" is no state path", bstr::BStr::new(folder)));
    }
    let done = match action {
        Action::Read(name) => check(name).and_then(|()| read(folder, name)).map(Answer::Done),
        Action::Write(files) => write(folder, files).map(|()| {
            for (name, content) in files {
                let path = [folder, &b"/"[..], name.as_bytes()].concat();
                written(path, Some(&content[..]).filter(|content| !content.is_empty()));
            }
            Answer::Done(None)
        }),
        Action::Lock(owner) => lock(folder, owner, now, true),
        Action::Unlock(owner) => lock(folder, owner, now, false),
    };
    done.unwrap_or_else(Answer::Failed)
}

fn check(name: &str) -> Result<(), String> {
    if is_name(name) { Ok(()) } else { Err(format!("\"{name}\" is no name of a file")) }
}

fn open_folder(folder: &[u8]) -> Result<OwnedFd, String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(folder, flags, Mode::empty());
    opened.map_err(|errno| format!("open() \"{}\" failed ({})", bstr::BStr::new(folder), ErrnoMessage(errno)))
}

fn failed(call: &str, folder: &[u8], name: &str, errno: Errno) -> String {
    format!("{call}() \"{}/{name}\" failed ({})", bstr::BStr::new(folder), ErrnoMessage(errno))
}

fn errno_of(error: &std::io::Error) -> Errno {
    net::errno::errno_of(error)
}

fn read(folder: &[u8], name: &str) -> Result<Option<Vec<u8>>, String> {
    let directory = open_folder(folder)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(&directory, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed("open", folder, name, errno)),
    };
    let mut content = Vec::new();
    let read = file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut content);
    read.map_err(|error| failed("read", folder, name, errno_of(&error)))?;
    match content.len() > FILE_BYTES_MAX {
        true => Err(format!("\"{}/{name}\" is too large", bstr::BStr::new(folder))),
        false => Ok(Some(content)),
    }
}

/// Writes all files beside their places first, so that they change together, and whole.
fn write(folder: &[u8], files: &[(String, Vec<u8>)]) -> Result<(), String> {
    let written = write_files(folder, files);
    if written.is_err()
        && let Ok(directory) = open_folder(folder)
    {
        // What is left of them would only take room.
        for number in 0..files.len().min(FILES_MAX) {
            let _ = rustix::fs::unlinkat(&directory, temporary(number), AtFlags::empty());
        }
    }
    written
}

fn write_files(folder: &[u8], files: &[(String, Vec<u8>)]) -> Result<(), String> {
    if files.len() > FILES_MAX {
        return Err("too many files at once".to_owned());
    }
    for (name, content) in files {
        check(name)?;
        if content.len() > FILE_BYTES_MAX {
            return Err(format!("\"{name}\" is too large"));
        }
    }
    let directory = open_folder(folder)?;
    let full = files.iter().filter(|(_, content)| !content.is_empty());
    for (number, (name, content)) in full.clone().enumerate() {
        let temporary = temporary(number);
        // What an interrupted run has left is nobody's.
        let _ = rustix::fs::unlinkat(&directory, &temporary, AtFlags::empty());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&directory, &temporary, flags, FILE_MODE);
        let mut file = File::from(opened.map_err(|errno| failed("open", folder, &temporary, errno))?);
        let stored = file.write_all(content).and_then(|()| file.sync_all());
        stored.map_err(|error| failed("write", folder, name, errno_of(&error)))?;
    }
    for (number, (name, _)) in full.enumerate() {
        let renamed = rustix::fs::renameat(&directory, temporary(number), &directory, name.as_str());
        renamed.map_err(|errno| failed("rename", folder, name, errno))?;
    }
    for (name, _) in files.iter().filter(|(_, content)| content.is_empty()) {
        match rustix::fs::unlinkat(&directory, name.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed("unlink", folder, name, errno)),
        }
    }
    rustix::fs::fsync(&directory).map_err(|errno| failed("fsync", folder, ".", errno))
}

/// The name under which a file is written; it begins with a dot, which no other name does.
fn temporary(number: usize) -> String {
    format!(".{}-{number}", std::process::id())
}

/// Takes, renews or gives back the lock. Its file is changed by one process at a time (flock(2)) and never goes away, so
/// that there is no moment in which two have it.
fn lock(folder: &[u8], owner: &str, now: i64, takes: bool) -> Result<Answer, String> {
    if owner.is_empty()
        || owner.len() > NAME_BYTES_MAX
        || !owner.bytes().all(|byte| (0x21..0x7f).contains(&byte))
    {
        return Err("the lock's owner has no name".to_owned());
    }
    let directory = open_folder(folder)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(&directory, LOCK, flags, FILE_MODE);
    let opened = opened.map_err(|errno| failed("open", folder, LOCK, errno))?;
    match rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        // Another gateway is at it, for a moment.
        Err(Errno::WOULDBLOCK) => return Ok(Answer::Held("another process".to_owned(), 0)),
        Err(errno) => return Err(failed("flock", folder, LOCK, errno)),
    }
    let mut file = File::from(opened);
    let mut text = Vec::new();
    let io = |error: std::io::Error| failed("write", folder, LOCK, errno_of(&error));
    (&file).take(NAME_BYTES_MAX as u64 * 2).read_to_end(&mut text).map_err(io)?;
    let holder = read_lock(&text).filter(|(_, since)| (0..LOCK_SECONDS_MAX).contains(&(now - since)));
    match holder {
        Some((other, since)) if other != owner => {
            return Ok(Answer::Held(other, u32::try_from(now - since).unwrap_or(0)));
        }
        None if !takes => return Ok(Answer::Done(None)),
        _ => {}
    }
    let text = if takes { write_lock(owner, now) } else { String::new() };
    file.rewind().and_then(|()| file.set_len(0)).map_err(io)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(io)?;
    Ok(Answer::Done(None))
}

/// What [`crate::files::RecordedFiles`] is to answer for a file that was written or removed.
pub fn recorded(content: Option<&[u8]>) -> Result<std::sync::Arc<[u8]>, conf::FileError> {
    content.map(Into::into).ok_or_else(|| file_error(Errno::NOENT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;

    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("gapura-vault-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            make_folder(path.as_os_str().as_bytes()).expect("the temporary folder is writable");
            Folder(path)
        }

        fn ask_at(&self, now: i64, action: Action) -> Answer {
            let folder = self.0.as_os_str().as_bytes().to_vec();
            let folders = [folder.clone()];
            carry_out(&folders, &Request { folder, action }, now, |_, _| {})
        }

        fn ask(&self, action: Action) -> Answer {
            self.ask_at(1000, action)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn file(name: &str, content: &str) -> (String, Vec<u8>) {
        (name.to_owned(), content.as_bytes().to_vec())
    }

    #[test]
    fn files_are_written_whole_and_for_one_alone() {
        let folder = Folder::new("files");
        let read = |name: &str| folder.ask(Action::Read(name.to_owned()));
        assert_eq!(read("a.key"), Answer::Done(None));
        let written = folder.ask(Action::Write(vec![file("a.key", "one"), file("a.crt", "two")]));
        assert_eq!(written, Answer::Done(None));
        assert_eq!(read("a.key"), Answer::Done(Some(b"one".to_vec())));
        for name in ["a.key", "a.crt"] {
            let mode = std::fs::metadata(folder.0.join(name)).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let mode = std::fs::metadata(&folder.0).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(folder.ask(Action::Write(vec![file("a.crt", ""), file("b", "")])), Answer::Done(None));
        let names: Vec<_> = std::fs::read_dir(&folder.0).expect("it is there").flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn nothing_else_is_touched() {
        let folder = Folder::new("elsewhere");
        let outside = folder.0.with_extension("secret");
        std::fs::write(&outside, "secret").expect("the temporary folder is writable");
        std::os::unix::fs::symlink(&outside, folder.0.join("link")).expect("links can be made");
        let name = format!("../{}", outside.file_name().expect("a name").display());
        for name in [name.as_str(), "/etc/passwd", "", ".", "..", "link", "lock"] {
            let read = folder.ask(Action::Read(name.to_owned()));
            assert!(matches!(read, Answer::Failed(_)), "{name}: {read:?}");
        }
        // A link is replaced, not followed.
        assert_eq!(folder.ask(Action::Write(vec![file("link", "x")])), Answer::Done(None));
        assert_eq!(std::fs::read(&outside).expect("it is there"), b"secret");
        let elsewhere = Request { folder: b"/tmp".to_vec(), action: Action::Read("x".to_owned()) };
        let answer = carry_out(&[], &elsewhere, 0, |_, _| {});
        assert!(matches!(answer, Answer::Failed(_)), "{answer:?}");
        std::fs::remove_file(&outside).expect("it is ours");
    }

    #[test]
    fn one_has_the_lock_until_it_gives_it_back_or_is_gone() {
        let folder = Folder::new("lock");
        let lock = |now, owner: &str| folder.ask_at(now, Action::Lock(owner.to_owned()));
        let unlock = |now, owner: &str| folder.ask_at(now, Action::Unlock(owner.to_owned()));
        let held = |owner: &str, seconds| Answer::Held(owner.to_owned(), seconds);
        let done = Answer::Done(None);
        assert_eq!(lock(100, "one"), done);
        assert_eq!(lock(110, "two"), held("one", 10));
        assert_eq!(unlock(110, "two"), held("one", 10));
        assert_eq!(lock(200, "one"), done);
        assert_eq!(lock(200 + LOCK_SECONDS_MAX - 1, "two"), held("one", 179));
        assert_eq!(unlock(300, "one"), done);
        assert_eq!(lock(300, "two"), done);
        // One that does not renew it has it no more; nor does one from the future.
        assert_eq!(lock(300 + LOCK_SECONDS_MAX, "one"), done);
        assert_eq!(lock(10, "two"), done);
        assert!(matches!(lock(10, "no name"), Answer::Failed(_)));
    }
}
