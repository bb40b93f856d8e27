//! Error numbers of the system, with the texts nginx prints for them.
//!
//! nginx asks the C library once at start and prints `(111: Connection refused)`; the texts are part of what
//! people search their logs for. They are written down here so that they do not depend on which C library the
//! program was linked with.

use std::fmt;

pub use rustix::io::Errno;

/// The text of a Linux error number, as the GNU C library words it in the C locale; `Unknown error` outside
/// the range this table knows.
pub fn errno_text(errno: i32) -> &'static str {
    usize::try_from(errno).ok().and_then(|index| TEXTS.get(index)).copied().unwrap_or("Unknown error")
}

/// Prints an error number as nginx does inside its brackets: `111: Connection refused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrnoMessage(
    /// The error number.
    pub Errno,
);

impl fmt::Display for ErrnoMessage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0.raw_os_error();
        write!(out, "{number}: {}", errno_text(number))
    }
}

/// The error number inside an `io::Error`; `EIO` where the error did not come from the system.
pub fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Indexed by error number; 41 and 58 are not used on Linux.
#[rustfmt::skip]
static TEXTS: [&str; 134] = [
    "Success",
    "Operation not permitted",
    "No such file or directory",
    "No such process",
    "Interrupted system call",
    "Input/output error",
    "No such device or address",
    "Argument list too long",
    "Exec format error",
    "Bad file descriptor",
    "No child processes",
    "Resource temporarily unavailable",
    "Cannot allocate memory",
    "Permission denied",
    "Bad address",
    "Block device required",
    "Device or resource busy",
    "File exists",
    "Invalid cross-device link",
    "No such device",
    "Not a directory",
    "Is a directory",
    "Invalid argument",
    "Too many open files in system",
    "Too many open files",
    "Inappropriate ioctl for device",
    "Text file busy",
    "File too large",
    "No space left on device",
    "Illegal seek",
    "Read-only file system",
    "Too many links",
    "Broken pipe",
    "Numerical argument out of domain",
    "Numerical result out of range",
    "Resource deadlock avoided",
    "File name too long",
    "No locks available",
    "Function not implemented",
    "Directory not empty",
    "Too many levels of symbolic links",
    "Unknown error 41",
    "No message of desired type",
    "Identifier removed",
    "Channel number out of range",
    "Level 2 not synchronized",
    "Level 3 halted",
    "Level 3 reset",
    "Link number out of range",
    "Protocol driver not attached",
    "No CSI structure available",
    "Level 2 halted",
    "Invalid exchange",
    "Invalid request descriptor",
    "Exchange full",
    "No anode",
    "Invalid request code",
    "Invalid slot",
    "Unknown error 58",
    "Bad font file format",
    "Device not a stream",
    "No data available",
    "Timer expired",
    "Out of streams resources",
    "Machine is not on the network",
    "Package not installed",
    "Object is remote",
    "Link has been severed",
    "Advertise error",
    "Srmount error",
    "Communication error on send",
    "Protocol error",
    "Multihop attempted",
    "RFS specific error",
    "Bad message",
    "Value too large for defined data type",
    "Name not unique on network",
    "File descriptor in bad state",
    "Remote address changed",
    "Can not access a needed shared library",
    "Accessing a corrupted shared library",
    ".lib section in a.out corrupted",
    "Attempting to link in too many shared libraries",
    "Cannot exec a shared library directly",
    "Invalid or incomplete multibyte or wide character",
    "Interrupted system call should be restarted",
    "Streams pipe error",
    "Too many users",
    "Socket operation on non-socket",
    "Destination address required",
    "Message too long",
    "Protocol wrong type for socket",
    "Protocol not available",
    "Protocol not supported",
    "Socket type not supported",
    "Operation not supported",
    "Protocol family not supported",
    "Address family not supported by protocol",
    "Address already in use",
    "Cannot assign requested address",
    "Network is down",
    "Network is unreachable",
    "Network dropped connection on reset",
    "Software caused connection abort",
    "Connection reset by peer",
    "No buffer space available",
    "Transport endpoint is already connected",
    "Transport endpoint is not connected",
    "Cannot send after transport endpoint shutdown",
    "Too many references: cannot splice",
    "Connection timed out",
    "Connection refused",
    "Host is down",
    "No route to host",
    "Operation already in progress",
    "Operation now in progress",
    "Stale file handle",
    "Structure needs cleaning",
    "Not a XENIX named type file",
    "No XENIX semaphores available",
    "Is a named type file",
    "Remote I/O error",
    "Disk quota exceeded",
    "No medium found",
    "Wrong medium type",
    "Operation canceled",
    "Required key not available",
    "Key has expired",
    "Key has been revoked",
    "Key was rejected by service",
    "Owner died",
    "State not recoverable",
    "Operation not possible due to RF-kill",
    "Memory page has hardware error",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_sit_at_their_numbers() {
        for (errno, text) in [
            (Errno::NOENT, "2: No such file or directory"),
            (Errno::ACCESS, "13: Permission denied"),
            (Errno::NOSPC, "28: No space left on device"),
            (Errno::PIPE, "32: Broken pipe"),
            (Errno::CONNRESET, "104: Connection reset by peer"),
            (Errno::TIMEDOUT, "110: Connection timed out"),
            (Errno::CONNREFUSED, "111: Connection refused"),
            (Errno::HOSTUNREACH, "113: No route to host"),
            (Errno::HWPOISON, "133: Memory page has hardware error"),
        ] {
            assert_eq!(ErrnoMessage(errno).to_string(), text);
        }
        assert_eq!(errno_text(-1), "Unknown error");
        assert_eq!(errno_text(4096), "Unknown error");
    }
}
