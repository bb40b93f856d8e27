//! Users and groups by name, and becoming one for good.
//!
//! Names are looked up through the C library, so that whatever the machine asks for them (LDAP, systemd) counts.

use crate::errno::{Errno, errno_of};
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::null_mut;

/// Who a worker runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name, for `initgroups()`.
    pub name: Vec<u8>,
    /// Its number.
    pub uid: u32,
    /// The group it works in; the user's own one unless the configuration names another.
    pub gid: u32,
}

/// A step of [`become_user`] that failed; prints as nginx logs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BecomeError {
    /// The call and its arguments: `setgid(33)`.
    pub call: String,
    /// Why.
    pub errno: Errno,
    /// nginx goes on without the supplementary groups; everything else ends the worker.
    pub is_fatal: bool,
}

/// `struct passwd` of the C library (getpwnam(3)).
#[repr(C)]
struct Passwd {
    name: *mut c_char,
    password: *mut c_char,
    uid: u32,
    gid: u32,
    gecos: *mut c_char,
    directory: *mut c_char,
    shell: *mut c_char,
}

/// `struct group` of the C library (getgrnam(3)).
#[repr(C)]
struct Group {
    name: *mut c_char,
    password: *mut c_char,
    gid: u32,
    members: *mut *mut c_char,
}

unsafe extern "C" {
    fn getpwnam_r(
        name: *const c_char,
        entry: *mut Passwd,
        buffer: *mut c_char,
        length: usize,
        result: *mut *mut Passwd,
    ) -> c_int;
    fn getgrnam_r(
        name: *const c_char,
        entry: *mut Group,
        buffer: *mut c_char,
        length: usize,
        result: *mut *mut Group,
    ) -> c_int;
    fn setgid(gid: u32) -> c_int;
    fn setuid(uid: u32) -> c_int;
    fn initgroups(user: *const c_char, gid: u32) -> c_int;
}

/// An entry may have many members; the library asks for more room until this.
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// The user of that name with its own group. `Ok(None)`: there is none; an error: the system could not tell.
pub fn user_by_name(name: &[u8]) -> Result<Option<User>, Errno> {
    let Ok(name_text) = CString::new(name) else { return Ok(None) };
    with_growing_buffer(|buffer| {
        let mut entry = Passwd {
            name: null_mut(),
            password: null_mut(),
            uid: 0,
            gid: 0,
            gecos: null_mut(),
            directory: null_mut(),
            shell: null_mut(),
        };
        let mut result = null_mut();
        // SAFETY: the name is a C string, the buffer's pointer and length belong together, and the other
        // pointers are to live values of the library's own layout.
        let failed = unsafe {
            let start = buffer.as_mut_ptr().cast();
            getpwnam_r(name_text.as_ptr(), &raw mut entry, start, buffer.len(), &raw mut result)
        };
        let user = User { name: name.to_vec(), uid: entry.uid, gid: entry.gid };
        (failed, (!result.is_null()).then_some(user))
    })
}

/// The number of the group of that name.
pub fn group_by_name(name: &[u8]) -> Result<Option<u32>, Errno> {
    let Ok(name_text) = CString::new(name) else { return Ok(None) };
    with_growing_buffer(|buffer| {
        let mut entry = Group { name: null_mut(), password: null_mut(), gid: 0, members: null_mut() };
        let mut result = null_mut();
        // SAFETY: as in `user_by_name`.
        let failed = unsafe {
            let start = buffer.as_mut_ptr().cast();
            getgrnam_r(name_text.as_ptr(), &raw mut entry, start, buffer.len(), &raw mut result)
        };
        (failed, (!result.is_null()).then_some(entry.gid))
    })
}

/// Becomes the user in every thread, for good: group, supplementary groups, user, in nginx's order. Returns what
/// failed without being fatal, too.
pub fn become_user(user: &User) -> Result<Option<BecomeError>, BecomeError> {
    let failure = |call: String, is_fatal: bool| {
        let errno = errno_of(&std::io::Error::last_os_error());
        BecomeError { call, errno, is_fatal }
    };
    // SAFETY: plain numbers.
    if unsafe { setgid(user.gid) } != 0 {
        return Err(failure(format!("setgid({})", user.gid), true));
    }
    let name: &CStr = &CString::new(&user.name[..]).unwrap_or_default();
    // SAFETY: the name is a C string.
    let groups = unsafe { initgroups(name.as_ptr(), user.gid) };
    let warning = (groups != 0).then(|| {
        let name = bstr::BStr::new(&user.name);
        failure(format!("initgroups({name}, {})", user.gid), false)
    });
    // SAFETY: plain numbers.
    if unsafe { setuid(user.uid) } != 0 {
        return Err(failure(format!("setuid({})", user.uid), true));
    }
    Ok(warning)
}

/// Calls `look` with more and more room until the library is content with it.
fn with_growing_buffer<T>(mut look: impl FnMut(&mut [u8]) -> (c_int, Option<T>)) -> Result<Option<T>, Errno> {
    let mut buffer = vec![0; 1024];
    loop {
        let (failed, found) = look(&mut buffer);
        if failed == 0 {
            return Ok(found);
        }
        match Errno::from_raw_os_error(failed) {
            Errno::INTR => {}
            Errno::RANGE if buffer.len() < ENTRY_BYTES_MAX => buffer.resize(buffer.len() * 4, 0),
            // What the library answers where a name is unknown differs from system to system (getpwnam(3)).
            Errno::NOENT | Errno::SRCH | Errno::BADF | Errno::PERM => return Ok(None),
            errno => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_or_not() {
        let root = user_by_name(b"root").expect("the system can tell").expect("everyone has root");
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(group_by_name(b"root"), Ok(Some(0)));
        for missing in [&b"no-such-name-here"[..], b"", b"a\0b"] {
            assert_eq!(user_by_name(missing), Ok(None));
            assert_eq!(group_by_name(missing), Ok(None));
        }
    }
}
