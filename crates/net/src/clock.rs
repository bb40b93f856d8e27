//! The time of day and the monotonic time, read once per turn of the event loop.
//!
//! nginx keeps one cached time per turn of its loop; so does each thread here. The event loop marks the cache stale
//! with each turn; the first reader of the turn asks the system, the others get the same answer. The trade: within one
//! turn time stands still, so a stamp may be older than the event by the length of the turn, usually well under a
//! millisecond. Threads without an event loop (tests, start-up code) read the system each time.
//!
//! Texts that change once a second (the `Date` header, the times in logs) are formatted once a second per thread.

use rustix::time::{ClockId, clock_gettime};
use std::cell::{Cell, RefCell};

/// The time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wall {
    /// Seconds since 1970-01-01 00:00:00 UTC.
    pub seconds: i64,
    /// Milliseconds within the second, 0 to 999.
    pub millis: u32,
}

thread_local! {
    static HOOKED: Cell<bool> = const { Cell::new(false) };
    static TURN: Cell<u64> = const { Cell::new(0) };
    static IS_FRESH: Cell<bool> = const { Cell::new(false) };
    static MONOTONIC_MS: Cell<u64> = const { Cell::new(0) };
    static WALL: Cell<Wall> = const { Cell::new(Wall { seconds: 0, millis: 0 }) };
    static TEXTS: RefCell<Texts> = const { RefCell::new(Texts::EMPTY) };
}

/// Milliseconds of a clock that never goes back; its zero has no meaning.
pub fn now_ms() -> u64 {
    keep_fresh();
    MONOTONIC_MS.get()
}

/// The time of day.
pub fn wall() -> Wall {
    keep_fresh();
    WALL.get()
}

/// Reads the system's clocks now, and returns the monotonic milliseconds.
pub fn refresh() -> u64 {
    read_system();
    MONOTONIC_MS.get()
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7) for the present second.
pub fn http_date() -> [u8; 29] {
    with_texts(|texts| texts.http_date)
}

/// `28/Sep/1970:12:00:00 +0600`, nginx's `$time_local`, for the present second.
pub fn time_local() -> [u8; 26] {
    with_texts(|texts| texts.time_local)
}

/// `1970-09-28T12:00:00+06:00`, nginx's `$time_iso8601`, for the present second.
pub fn time_iso8601() -> [u8; 25] {
    with_texts(|texts| texts.time_iso8601)
}

/// `1970/09/28 12:00:00`, the time in front of an error-log line, for the present second.
pub fn error_log_time() -> [u8; 19] {
    with_texts(|texts| texts.error_log)
}

/// `Sep 28 12:00:00` (RFC 3164 section 4.1.2) for the present second.
pub fn syslog_time() -> [u8; 15] {
    with_texts(|texts| texts.syslog)
}

/// A moment as a `Date`-like header value, `Sun, 06 Nov 1994 08:49:37 GMT`. Years beyond 9999 do not fit the
/// format and are shown as 9999.
pub fn http_date_of(seconds: i64) -> [u8; 29] {
    let civil = Civil::of(seconds);
    let mut out = *b"Sun, 06 Nov 1994 08:49:37 GMT";
    out[0..3].copy_from_slice(DAYS[civil.weekday]);
    two_digits(&mut out[5..7], civil.day);
    out[8..11].copy_from_slice(MONTHS[civil.month0]);
    four_digits(&mut out[12..16], civil.year);
    clock_digits(&mut out[17..25], &civil);
    out
}

/// Seconds to add to UTC to get local time at the given moment, by the `TZ` variable or `/etc/localtime`.
pub fn local_offset_seconds(seconds: i64) -> i32 {
    local::offset_seconds(seconds)
}

/// Counts the turns of this thread's event loop; always the same on a thread without one.
pub fn turn() -> u64 {
    TURN.get()
}

/// Marks the cached time stale; the event loop calls it whenever the thread has asked for events.
pub(crate) fn turn_began() {
    TURN.set(TURN.get() + 1);
    IS_FRESH.set(false);
}

/// From here on this thread's event loop tells when a turn begins (`true`), or no longer does (`false`).
pub(crate) fn set_hooked(hooked: bool) {
    HOOKED.set(hooked);
    IS_FRESH.set(false);
}

fn keep_fresh() {
    if !IS_FRESH.get() {
        read_system();
    }
}

/// Once a turn: kept out of the many places that look.
#[cold]
#[inline(never)]
fn read_system() {
    let monotonic = clock_gettime(ClockId::Monotonic);
    let real = clock_gettime(ClockId::Realtime);
    MONOTONIC_MS.set(monotonic.tv_sec.unsigned_abs() * 1000 + monotonic.tv_nsec.unsigned_abs() / 1_000_000);
    WALL.set(Wall { seconds: real.tv_sec, millis: (real.tv_nsec / 1_000_000) as u32 });
    IS_FRESH.set(HOOKED.get());
}

#[derive(Clone, Copy)]
struct Texts {
    seconds: i64,
    http_date: [u8; 29],
    time_local: [u8; 26],
    time_iso8601: [u8; 25],
    error_log: [u8; 19],
    syslog: [u8; 15],
}

fn with_texts<T>(pick: impl FnOnce(&Texts) -> T) -> T {
    let seconds = wall().seconds;
    TEXTS.with_borrow_mut(|texts| {
        if texts.seconds != seconds {
            *texts = Texts::of(seconds, local::offset_seconds(seconds));
        }
        pick(texts)
    })
}

impl Texts {
    const EMPTY: Texts = Texts {
        seconds: i64::MIN,
        http_date: [0; 29],
        time_local: [0; 26],
        time_iso8601: [0; 25],
        error_log: [0; 19],
        syslog: [0; 15],
    };

    fn of(seconds: i64, offset: i32) -> Texts {
        let civil = Civil::of(seconds + i64::from(offset));
        let sign = if offset < 0 { b'-' } else { b'+' };
        let minutes = offset.unsigned_abs() / 60;

        let mut time_local = *b"28/Sep/1970:12:00:00 +0600";
        two_digits(&mut time_local[0..2], civil.day);
        time_local[3..6].copy_from_slice(MONTHS[civil.month0]);
        four_digits(&mut time_local[7..11], civil.year);
        clock_digits(&mut time_local[12..20], &civil);
        time_local[21] = sign;
        two_digits(&mut time_local[22..24], minutes / 60);
        two_digits(&mut time_local[24..26], minutes % 60);

        let mut time_iso8601 = *b"1970-09-28T12:00:00+06:00";
        four_digits(&mut time_iso8601[0..4], civil.year);
        two_digits(&mut time_iso8601[5..7], civil.month0 as u32 + 1);
        two_digits(&mut time_iso8601[8..10], civil.day);
        clock_digits(&mut time_iso8601[11..19], &civil);
        time_iso8601[19] = sign;
        two_digits(&mut time_iso8601[20..22], minutes / 60);
        two_digits(&mut time_iso8601[23..25], minutes % 60);

        let mut error_log = *b"1970/09/28 12:00:00";
        four_digits(&mut error_log[0..4], civil.year);
        two_digits(&mut error_log[5..7], civil.month0 as u32 + 1);
        two_digits(&mut error_log[8..10], civil.day);
        clock_digits(&mut error_log[11..19], &civil);

        let mut syslog = *b"Sep 28 12:00:00";
        syslog[0..3].copy_from_slice(MONTHS[civil.month0]);
        two_digits(&mut syslog[4..6], civil.day);
        if syslog[4] == b'0' {
            syslog[4] = b' ';
        }
        clock_digits(&mut syslog[7..15], &civil);

        Texts { seconds, http_date: http_date_of(seconds), time_local, time_iso8601, error_log, syslog }
    }
}

static DAYS: [&[u8; 3]; 7] = [b"Sun", b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat"];
static MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// A moment in the proleptic Gregorian calendar.
struct Civil {
    year: u32,
    month0: usize,
    day: u32,
    weekday: usize,
    second_of_day: u32,
}

impl Civil {
    fn of(seconds: i64) -> Civil {
        // The last second of the year 9999: nothing later has a four-digit year.
        let seconds = seconds.clamp(0, 253_402_300_799);
        let days = seconds / 86_400;
        // Years are counted from March, so that the leap day is the last day of its year; an era is the 400
        // years after which the calendar repeats, 146 097 days.
        let from_march = days + 719_468;
        let era = from_march / 146_097;
        let day_of_era = from_march % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month0 = (month_from_march + 2) % 12;
        Civil {
            year: (era * 400 + year_of_era + i64::from(month0 < 2)) as u32,
            month0: month0 as usize,
            day: (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32,
            weekday: ((days + 4) % 7) as usize,
            second_of_day: (seconds % 86_400) as u32,
        }
    }
}

fn two_digits(out: &mut [u8], value: u32) {
    out[0] = b'0' + (value / 10 % 10) as u8;
    out[1] = b'0' + (value % 10) as u8;
}

fn four_digits(out: &mut [u8], value: u32) {
    two_digits(&mut out[0..2], value / 100);
    two_digits(&mut out[2..4], value % 100);
}

fn clock_digits(out: &mut [u8], civil: &Civil) {
    two_digits(&mut out[0..2], civil.second_of_day / 3600);
    two_digits(&mut out[3..5], civil.second_of_day / 60 % 60);
    two_digits(&mut out[6..8], civil.second_of_day % 60);
}

/// The C library's idea of local time: the one call here that needs it.
mod local {
    use std::ffi::{c_char, c_int, c_long};
    use std::mem::MaybeUninit;

    /// `struct tm` as glibc and musl lay it out on Linux.
    #[repr(C)]
    struct Tm {
        fields: [c_int; 9],
        gmtoff: c_long,
        zone: *const c_char,
    }

    unsafe extern "C" {
        fn localtime_r(time: *const i64, result: *mut Tm) -> *mut Tm;
    }

    pub fn offset_seconds(seconds: i64) -> i32 {
        let mut tm = MaybeUninit::<Tm>::uninit();
        // SAFETY: both pointers are valid for the call, `time_t` is 64 bits on every target this is built for
        // (checked below), `Tm` is the C library's layout, and the library takes its own lock around the time
        // zone data. The program never changes its environment once threads run.
        let filled = unsafe { localtime_r(&seconds, tm.as_mut_ptr()) };
        if filled.is_null() {
            return 0;
        }
        // SAFETY: a result that is not null says that the structure was filled.
        unsafe { tm.assume_init() }.gmtoff as i32
    }

    const _: () = assert!(cfg!(target_pointer_width = "64"), "localtime_r is declared for a 64-bit time_t");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_in_every_format() {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("ASCII");
        for (seconds, offset, http, local, iso, error, syslog) in [
            (
                784_111_777,
                0,
                "Sun, 06 Nov 1994 08:49:37 GMT",
                "06/Nov/1994:08:49:37 +0000",
                "1994-11-06T08:49:37+00:00",
                "1994/11/06 08:49:37",
                "Nov  6 08:49:37",
            ),
            (
                951_782_400, // the leap day of a year divisible by 400
                7 * 3600,
                "Tue, 29 Feb 2000 00:00:00 GMT",
                "29/Feb/2000:07:00:00 +0700",
                "2000-02-29T07:00:00+07:00",
                "2000/02/29 07:00:00",
                "Feb 29 07:00:00",
            ),
            (
                0,
                0,
                "Thu, 01 Jan 1970 00:00:00 GMT",
                "01/Jan/1970:00:00:00 +0000",
                "1970-01-01T00:00:00+00:00",
                "1970/01/01 00:00:00",
                "Jan  1 00:00:00",
            ),
            (
                4_107_542_400, // 2100 is not a leap year
                -(3 * 3600 + 1800),
                "Mon, 01 Mar 2100 00:00:00 GMT",
                "28/Feb/2100:20:30:00 -0330",
                "2100-02-28T20:30:00-03:30",
                "2100/02/28 20:30:00",
                "Feb 28 20:30:00",
            ),
        ] {
            let texts = Texts::of(seconds, offset);
            assert_eq!(text(&texts.http_date), http);
            assert_eq!(text(&texts.time_local), local);
            assert_eq!(text(&texts.time_iso8601), iso);
            assert_eq!(text(&texts.error_log), error);
            assert_eq!(text(&texts.syslog), syslog);
        }
        assert_eq!(text(&http_date_of(i64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn a_turn_keeps_one_time() {
        set_hooked(true);
        turn_began();
        let first = wall();
        WALL.set(Wall { seconds: 1, millis: 0 });
        assert_eq!(wall().seconds, 1, "the cache answers within the turn");
        turn_began();
        assert!(wall() >= first, "a new turn asks the system");
        set_hooked(false);
        WALL.set(Wall { seconds: 1, millis: 0 });
        assert!(wall() >= first, "and so does each look on a thread without turns");
    }
}
