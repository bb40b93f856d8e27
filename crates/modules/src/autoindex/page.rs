//! The texts of a listing, byte for byte as nginx writes them.

use http::date::{Civil, append_http};
use http::escape::{Escape, escape_html, escape_uri};
use std::io::Write;

/// One name in the list.
pub struct Entry {
    /// The name.
    pub name: Vec<u8>,
    /// It is a folder.
    pub is_directory: bool,
    /// It is a regular file.
    pub is_file: bool,
    /// Last modification in seconds since 1970.
    pub modified: i64,
    /// Length in bytes.
    pub size: u64,
}

/// How an HTML listing looks.
pub struct Look {
    /// Added to times.
    pub offset_seconds: i64,
    /// Sizes are exact.
    pub exact_size: bool,
    /// Names are in UTF-8: characters are counted, not bytes.
    pub utf8: bool,
}

/// How many characters of a name are shown.
const NAME_WIDTH: usize = 50;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The list as an HTML page.
pub fn html(uri: &[u8], entries: &[Entry], look: &Look, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<html>\r\n<head><title>Index of ");
    escape_html(uri, out);
    out.extend_from_slice(b"</title></head>\r\n<body>\r\n<h1>Index of ");
    escape_html(uri, out);
    out.extend_from_slice(b"</h1><hr><pre><a href=\"../\">../</a>\r\n");
    for entry in entries {
        html_line(entry, look, out);
    }
    out.extend_from_slice(b"</pre><hr></body>\r\n</html>\r\n");
}

fn html_line(entry: &Entry, look: &Look, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<a href=\"");
    escape_uri(Escape::UriComponent, &entry.name, out);
    if entry.is_directory {
        out.push(b'/');
    }
    out.extend_from_slice(b"\">");
    let text = std::str::from_utf8(&entry.name).ok().filter(|_| look.utf8);
    let mut shown = text.map_or(entry.name.len(), |text| text.chars().count());
    if shown > NAME_WIDTH {
        let cut = NAME_WIDTH - 3;
        let cut = text.and_then(|text| text.char_indices().nth(cut)).map_or(cut, |(at, _)| at);
        escape_html(&entry.name[..cut], out);
        out.extend_from_slice(b"..&gt;</a>");
        shown = NAME_WIDTH;
    } else {
        escape_html(&entry.name, out);
        if entry.is_directory && shown < NAME_WIDTH {
            out.push(b'/');
            shown += 1;
        }
        out.extend_from_slice(b"</a>");
    }
    out.resize(out.len() + NAME_WIDTH - shown + 1, b' ');
    let time = Civil::new(entry.modified.saturating_add(look.offset_seconds));
    let month = MONTHS.get(time.month.saturating_sub(1) as usize).unwrap_or(&MONTHS[0]);
    let (day, year, hour, minute) = (time.day, time.year, time.hour, time.minute);
    // Writing into a Vec cannot fail.
    let _ = write!(out, "{day:02}-{month}-{year} {hour:02}:{minute:02} ");
    let _ = match (look.exact_size, entry.is_directory) {
        (true, true) => write!(out, "{:>19}", "-"),
        (true, false) => write!(out, "{:>19}", entry.size),
        (false, true) => write!(out, "{:>7}", "-"),
        (false, false) => write!(out, "{:>7}", rounded(entry.size)),
    };
    out.extend_from_slice(b"\r\n");
}

/// `9999`, `10K`, `3M`, `2G`: rounded to the nearest, halves up.
fn rounded(size: u64) -> String {
    const K: u64 = 1 << 10;
    const M: u64 = 1 << 20;
    const G: u64 = 1 << 30;
    let round = |unit: u64| size / unit + u64::from(size % unit > unit / 2 - 1);
    match size {
        G.. => format!("{}G", round(G)),
        M.. => format!("{}M", round(M)),
        10_000.. => format!("{}K", round(K)),
        _ => format!("{size}"),
    }
}

/// The list as JSON, or as a call of a JavaScript function.
pub fn json(entries: &[Entry], callback: Option<&[u8]>, out: &mut Vec<u8>) {
    if let Some(callback) = callback {
        out.extend_from_slice(b"/* callback */\r\n");
        out.extend_from_slice(callback);
        out.push(b'(');
    }
    out.push(b'[');
    for (n, entry) in entries.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"\r\n{ \"name\":\"");
        escape_json(&entry.name, out);
        out.extend_from_slice(b"\", \"type\":\"");
        out.extend_from_slice(kind(entry).as_bytes());
        out.extend_from_slice(b"\", \"mtime\":\"");
        append_http(entry.modified, out);
        out.push(b'"');
        if entry.is_file {
            let _ = write!(out, ", \"size\":{}", entry.size);
        }
        out.extend_from_slice(b" }");
    }
    out.extend_from_slice(b"\r\n]");
    if callback.is_some() {
        out.extend_from_slice(b");");
    }
}

/// The list as XML.
pub fn xml(entries: &[Entry], out: &mut Vec<u8>) {
    out.extend_from_slice(b"<?xml version=\"1.0\"?>\r\n<list>\r\n");
    for entry in entries {
        let (kind, time) = (kind(entry), Civil::new(entry.modified));
        let (year, month, day) = (time.year, time.month, time.day);
        let (hour, minute, second) = (time.hour, time.minute, time.second);
        let _ =
            write!(out, "<{kind} mtime=\"{year:4}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z\"");
        if entry.is_file {
            let _ = write!(out, " size=\"{}\"", entry.size);
        }
        out.push(b'>');
        escape_html(&entry.name, out);
        let _ = write!(out, "</{kind}>\r\n");
    }
    out.extend_from_slice(b"</list>\r\n");
}

fn kind(entry: &Entry) -> &'static str {
    match (entry.is_directory, entry.is_file) {
        (true, _) => "directory",
        (false, true) => "file",
        (false, false) => "other",
    }
}

/// Escapes what a JSON string may not hold (RFC 8259 section 7).
fn escape_json(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            0..0x20 => _ = write!(out, "\\u00{byte:02X}"),
            _ => out.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, is_directory: bool, size: u64) -> Entry {
        let name = name.as_bytes().to_vec();
        Entry { name, is_directory, is_file: !is_directory, modified: 536_407_200, size }
    }

    #[test]
    fn lines_of_html() {
        let long = "a".repeat(51);
        let cut = format!("<a href=\"{long}\">{}..&gt;</a>", &long[..47]);
        for (entry, exact_size, expected) in [
            (
                entry("dir", true, 0),
                true,
                "<a href=\"dir/\">dir/</a>                                               31-Dec-1986 10:00                   -\r\n".to_owned(),
            ),
            (
                entry("a&b c", false, 12345),
                false,
                "<a href=\"a%26b%20c\">a&amp;b c</a>                                              31-Dec-1986 10:00     12K\r\n".to_owned(),
            ),
            (entry(&long, false, 7), false, format!("{cut} 31-Dec-1986 10:00       7\r\n")),
        ] {
            let mut out = Vec::new();
            html_line(&entry, &Look { offset_seconds: 0, exact_size, utf8: false }, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }

    #[test]
    fn sizes_are_rounded() {
        for (size, expected) in [
            (0, "0"),
            (9999, "9999"),
            (10000, "10K"),
            (1024 * 1024 - 1, "1024K"),
            (1024 * 1024 * 3 / 2, "2M"),
            (1024 * 1024 * 3 / 2 - 1, "1M"),
            (1024 * 1024 * 1024, "1G"),
        ] {
            assert_eq!(rounded(size), expected, "{size}");
        }
    }

    #[test]
    fn lists_of_json_and_xml() {
        let entries = [entry("d", true, 0), entry("q\"\x01\n", false, 3)];
        let mut out = Vec::new();
        json(&entries, Some(b"f"), &mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "/* callback */\r\nf([\r\n{ \"name\":\"d\", \"type\":\"directory\", \"mtime\":\"Wed, 31 Dec 1986 10:00:00 GMT\" },\r\n{ \"name\":\"q\\\"\\u0001\\n\", \"type\":\"file\", \"mtime\":\"Wed, 31 Dec 1986 10:00:00 GMT\", \"size\":3 }\r\n]);"
        );
        out.clear();
        xml(&entries[..1], &mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "<?xml version=\"1.0\"?>\r\n<list>\r\n<directory mtime=\"1986-12-31T10:00:00Z\">d</directory>\r\n</list>\r\n"
        );
    }
}
