//! Dates: of HTTP, of logs, of cookies. Times are seconds since 1970 (UTC) and come from the caller.

const DAYS: [&[u8; 3]; 7] = [b"Sun", b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat"];
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// The last second of the year 9999; later times are shown as that.
const SECONDS_MAX: i64 = 253_402_300_799;
const DAY_SECONDS: i64 = 86_400;

/// A moment taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// The year, from 1970.
    pub year: u32,
    /// The month, from 1.
    pub month: u32,
    /// The day of the month, from 1.
    pub day: u32,
    /// The day of the week, from Sunday, 0.
    pub weekday: u32,
    /// Hours.
    pub hour: u32,
    /// Minutes.
    pub minute: u32,
    /// Seconds.
    pub second: u32,
}

impl Civil {
    /// The moment `seconds` after 1970. Times before that, and after 9999, are cut.
    pub fn new(seconds: i64) -> Civil {
        let seconds = seconds.clamp(0, SECONDS_MAX);
        let days = seconds / DAY_SECONDS;
        let clock = (seconds % DAY_SECONDS) as u32;
        // Counted from the first of March of year 0, so that a leap day is the last day of its year.
        let since_march = days + 719_468;
        let era = since_march / 146_097;
        let day_of_era = since_march % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Civil {
            year: (year_of_era + era * 400 + i64::from(month <= 2)) as u32,
            month: month as u32,
            day: day as u32,
            weekday: ((days + 4) % 7) as u32,
            hour: clock / 3600,
            minute: clock / 60 % 60,
            second: clock % 60,
        }
    }

    fn month_name(&self) -> &'static [u8; 3] {
        MONTHS.get(self.month as usize - 1).unwrap_or(&MONTHS[0])
    }

    fn day_name(&self) -> &'static [u8; 3] {
        DAYS.get(self.weekday as usize).unwrap_or(&DAYS[0])
    }
}

/// Writes bytes into a buffer of known size, one after another; what does not fit is cut.
struct Writer<'a> {
    rest: &'a mut [u8],
}

impl Writer<'_> {
    fn text(&mut self, text: &[u8]) -> &mut Self {
        let length = text.len().min(self.rest.len());
        let (here, rest) = std::mem::take(&mut self.rest).split_at_mut(length);
        here.copy_from_slice(text.get(..length).unwrap_or_default());
        self.rest = rest;
        self
    }

    fn two(&mut self, number: u32) -> &mut Self {
        self.text(&[b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8])
    }

    fn four(&mut self, number: u32) -> &mut Self {
        self.two(number / 100).two(number % 100)
    }

    fn clock(&mut self, civil: &Civil) -> &mut Self {
        self.two(civil.hour).text(b":").two(civil.minute).text(b":").two(civil.second)
    }

    fn zone(&mut self, offset_minutes: i32, separator: &[u8]) -> &mut Self {
        let minutes = offset_minutes.unsigned_abs();
        self.text(if offset_minutes < 0 { b"-" } else { b"+" })
            .two(minutes / 60)
            .text(separator)
            .two(minutes % 60)
    }
}

/// The moment as a place with that offset from UTC shows it.
fn local(seconds: i64, offset_minutes: i32) -> Civil {
    Civil::new(seconds.saturating_add(i64::from(offset_minutes) * 60))
}

/// Writes the date of HTTP, `Sun, 22 Nov 2026 10:00:00 GMT` (RFC 9110, section 5.6.7).
pub fn format_http(seconds: i64, out: &mut [u8; 29]) {
    let civil = Civil::new(seconds);
    let mut writer = Writer { rest: out };
    writer.text(civil.day_name()).text(b", ").two(civil.day).text(b" ").text(civil.month_name()).text(b" ");
    writer.four(civil.year).text(b" ").clock(&civil).text(b" GMT");
}

/// Appends the date of HTTP; see [`format_http`].
pub fn append_http(seconds: i64, out: &mut Vec<u8>) {
    let mut text = [0; 29];
    format_http(seconds, &mut text);
    out.extend_from_slice(&text);
}

/// Writes `$time_local`, `22/Nov/2026:10:00:00 +0000`.
pub fn format_log(seconds: i64, offset_minutes: i32, out: &mut [u8; 26]) {
    let civil = local(seconds, offset_minutes);
    let mut writer = Writer { rest: out };
    writer
        .two(civil.day)
        .text(b"/")
        .text(civil.month_name())
        .text(b"/")
        .four(civil.year)
        .text(b":")
        .clock(&civil);
    writer.text(b" ").zone(offset_minutes, b"");
}

/// Writes `$time_iso8601`, `2026-11-22T10:00:00+00:00`.
pub fn format_iso8601(seconds: i64, offset_minutes: i32, out: &mut [u8; 25]) {
    let civil = local(seconds, offset_minutes);
    let mut writer = Writer { rest: out };
    writer.four(civil.year).text(b"-").two(civil.month).text(b"-").two(civil.day).text(b"T").clock(&civil);
    writer.zone(offset_minutes, b":");
}

/// Writes the start of an error-log line, `2026/11/22 10:00:00`.
pub fn format_error_log(seconds: i64, offset_minutes: i32, out: &mut [u8; 19]) {
    let civil = local(seconds, offset_minutes);
    let mut writer = Writer { rest: out };
    writer.four(civil.year).text(b"/").two(civil.month).text(b"/").two(civil.day).text(b" ").clock(&civil);
}

/// Writes the time of a syslog message, `Nov  2 10:00:00`.
pub fn format_syslog(seconds: i64, offset_minutes: i32, out: &mut [u8; 15]) {
    let civil = local(seconds, offset_minutes);
    let mut writer = Writer { rest: out };
    writer.text(civil.month_name()).text(b" ");
    if civil.day < 10 {
        writer.text(b" ").text(&[b'0' + civil.day as u8]);
    } else {
        writer.two(civil.day);
    }
    writer.text(b" ").clock(&civil);
}

/// Appends the date of a cookie as nginx writes it, `Sun, 22-Nov-26 10:00:00 GMT`, with four digits of the year after
/// 2037.
pub fn append_cookie(seconds: i64, out: &mut Vec<u8>) {
    let civil = Civil::new(seconds);
    let mut text = [0; 29];
    let mut writer = Writer { rest: &mut text };
    writer.text(civil.day_name()).text(b", ").two(civil.day).text(b"-").text(civil.month_name()).text(b"-");
    if civil.year > 2037 {
        writer.four(civil.year);
    } else {
        writer.two(civil.year % 100);
    }
    writer.text(b" ").clock(&civil).text(b" GMT");
    let length = 29 - writer.rest.len();
    out.extend_from_slice(text.get(..length).unwrap_or_default());
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    /// `Sun, 06 Nov 1994 08:49:37 GMT`
    Internet,
    /// `Sunday, 06-Nov-94 08:49:37 GMT`
    Rfc850,
    /// `Sun Nov  6 08:49:37 1994`
    Asctime,
}

/// A text that is read from the left; beyond its end there are zeros.
struct Reader<'a> {
    text: &'a [u8],
    place: usize,
}

impl Reader<'_> {
    fn left(&self) -> usize {
        self.text.len().saturating_sub(self.place)
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.place + ahead).copied().unwrap_or_default()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek(0) == byte).then(|| self.place += 1)
    }

    fn number(&mut self, digits: usize) -> Option<u32> {
        let mut number = 0;
        for _ in 0..digits {
            let digit = self.peek(0).wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            number = number * 10 + u32::from(digit);
            self.place += 1;
        }
        Some(number)
    }

    /// The month, from 0. As in nginx the letters that tell it apart from the others suffice.
    fn month(&mut self) -> Option<u32> {
        let month = match (self.peek(0), self.peek(1), self.peek(2)) {
            (b'J', b'a', _) => 0,
            (b'J', _, b'n') => 5,
            (b'J', _, _) => 6,
            (b'F', _, _) => 1,
            (b'M', _, b'r') => 2,
            (b'M', _, _) => 4,
            (b'A', b'p', _) => 3,
            (b'A', _, _) => 7,
            (b'S', _, _) => 8,
            (b'O', _, _) => 9,
            (b'N', _, _) => 10,
            (b'D', _, _) => 11,
            _ => return None,
        };
        self.place += 3;
        Some(month)
    }
}

/// Reads a date in any of the three formats of HTTP (RFC 9110, section 5.6.7), as leniently as nginx: the name of
/// the day and the zone are not looked at.
pub fn parse_http(text: &[u8]) -> Option<i64> {
    let mut reader = Reader { text, place: 0 };
    let mut format = Format::Internet;
    while reader.left() > 0 && reader.peek(0) != b',' {
        if reader.peek(0) == b' ' {
            format = Format::Asctime;
            break;
        }
        reader.place += 1;
    }
    reader.place += 1;
    while reader.left() > 0 && reader.peek(0) == b' ' {
        reader.place += 1;
    }
    if reader.left() < 18 {
        return None;
    }
    let (mut day, mut year) = (0, 0);
    if format != Format::Asctime {
        day = reader.number(2)?;
        format = match reader.peek(0) {
            b' ' if reader.left() >= 18 => Format::Internet,
            b'-' => Format::Rfc850,
            _ => return None,
        };
        reader.place += 1;
    }
    let month = reader.month()?;
    match format {
        Format::Internet => {
            reader.expect(b' ')?;
            year = reader.number(4)?;
        }
        Format::Rfc850 => {
            reader.expect(b'-')?;
            year = reader.number(2)?;
            year += if year < 70 { 2000 } else { 1900 };
        }
        Format::Asctime => {
            reader.place += 1;
            if reader.peek(0) == b' ' {
                reader.place += 1;
            }
            day = reader.number(1)?;
            if reader.peek(0) != b' ' {
                day = day * 10 + reader.number(1)?;
            }
            if reader.left() < 14 {
                return None;
            }
        }
    }
    reader.expect(b' ')?;
    let hour = reader.number(2)?;
    reader.expect(b':')?;
    let minute = reader.number(2)?;
    reader.expect(b':')?;
    let second = reader.number(2)?;
    if format == Format::Asctime {
        reader.expect(b' ')?;
        year = reader.number(4)?;
    }
    if hour > 23 || minute > 59 || second > 59 || !day_exists(year, month, day) {
        return None;
    }
    Some(days_from_civil(year, month, day) * DAY_SECONDS + i64::from(hour * 3600 + minute * 60 + second))
}

/// Does that day exist? As in nginx, day 0 is the day before day 1.
fn day_exists(year: u32, month: u32, day: u32) -> bool {
    const LENGTHS: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    if day == 29 && month == 1 {
        return year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    }
    LENGTHS.get(month as usize).is_some_and(|&length| day <= length)
}

/// Days from 1970 to a day; the month counts from 0.
fn days_from_civil(year: u32, month: u32, day: u32) -> i64 {
    // As in `Civil::new`, years start in March here.
    let (year, month) = (i64::from(year), i64::from(month));
    let year = if month < 2 { year - 1 } else { year };
    let from_march = (month + 10) % 12;
    let day_of_year = (153 * from_march + 2) / 5 + i64::from(day) - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_341_600; // 2026-11-22 10:00:00 UTC, a Sunday

    #[test]
    fn a_moment_in_every_format() {
        let mut http = [0; 29];
        format_http(NOW, &mut http);
        assert_eq!(&http, b"Sun, 22 Nov 2026 10:00:00 GMT");
        let mut log = [0; 26];
        format_log(NOW, 0, &mut log);
        assert_eq!(&log, b"22/Nov/2026:10:00:00 +0000");
        format_log(NOW, -210, &mut log);
        assert_eq!(&log, b"22/Nov/2026:06:30:00 -0330");
        let mut iso = [0; 25];
        format_iso8601(NOW, 480, &mut iso);
        assert_eq!(&iso, b"2026-11-22T18:00:00+08:00");
        let mut error = [0; 19];
        format_error_log(NOW, 0, &mut error);
        assert_eq!(&error, b"2026/11/22 10:00:00");
        let mut syslog = [0; 15];
        format_syslog(NOW - 20 * DAY_SECONDS, 0, &mut syslog);
        assert_eq!(&syslog, b"Nov  2 10:00:00");
        let mut cookie = Vec::new();
        append_cookie(NOW, &mut cookie);
        cookie.push(b'|');
        append_cookie(2_145_916_800, &mut cookie);
        assert_eq!(cookie, b"Sun, 22-Nov-26 10:00:00 GMT|Fri, 01-Jan-2038 00:00:00 GMT");
    }

    #[test]
    fn dates_as_nginx_reads_them() {
        let cases: &[(&str, Option<i64>)] = &[
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Sun Nov 16 08:49:37 1994", Some(784_975_777)),
            (",06 Nov 1994 08:49:37", Some(784_111_777)),
            ("x,   06 Nov 1994 08:49:37 UTC", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Thu, 31 Dec 1969 23:59:59 GMT", Some(-1)),
            ("Tue, 29 Feb 2028 00:00:00 GMT", Some(1_835_395_200)),
            ("Mon, 29 Feb 2027 00:00:00 GMT", None),
            ("Mon, 31 Nov 2026 00:00:00 GMT", None),
            ("Mon, 22 Nov 2026 24:00:00 GMT", None),
            ("Mon, 22 Xov 2026 10:00:00 GMT", None),
            ("Mon, 22 Nov 2026 10:00", None),
            ("Mon, 2 Nov 2026 10:00:00 GMT", None),
            ("", None),
            ("1795341600", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_http(text.as_bytes()), *expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0..=SECONDS_MAX) {
            let mut text = [0; 29];
            format_http(seconds, &mut text);
            proptest::prop_assert_eq!(parse_http(&text), Some(seconds));
        }

        #[test]
        fn any_bytes_are_survived(text in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            let _ = parse_http(&text);
        }
    }
}
