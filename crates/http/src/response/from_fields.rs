//! An answer's head out of a field list, as HTTP/2 sends it (RFC 9113, section 8.3.2).

use super::{ResponseHead, parse_length};
use crate::request::check_field;
use crate::request_line::Version;
use crate::status::Status;

/// Takes the fields of one list, in order.
pub(crate) struct ResponseFields<'h> {
    head: &'h mut ResponseHead,
    in_fields: bool,
    fault: Option<&'static str>,
}

impl<'h> ResponseFields<'h> {
    /// Begins a head; `head` must be clear.
    pub fn new(head: &'h mut ResponseHead) -> ResponseFields<'h> {
        ResponseFields { head, in_fields: false, fault: None }
    }

    /// Takes one field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        if self.fault.is_none() {
            self.fault = self.take(name, value).err();
        }
    }

    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        check_field(name, value, true).map_err(|_| "upstream sent invalid header")?;
        if name.first() == Some(&b':') {
            if name == b":status" && self.head.status.0 != 0 {
                return Err("upstream sent duplicate :status header");
            }
            if name != b":status" || self.in_fields {
                return Err("upstream sent invalid pseudo-header");
            }
            let &[a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] = value else {
                return Err("upstream sent invalid :status");
            };
            let digit = |byte: u8| u16::from(byte - b'0');
            self.head.status = Status(digit(a) * 100 + digit(b) * 10 + digit(c));
            self.head.version = Version::HTTP_2;
            return Ok(());
        }
        self.in_fields = true;
        match name {
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
                return Err("upstream sent a field that is about connections");
            }
            b"content-length" => {
                let length = parse_length(value).ok_or("upstream sent invalid \"Content-Length\" header")?;
                if self.head.content_length.is_some_and(|before| before != length) {
                    return Err("upstream sent duplicate \"Content-Length\" header");
                }
                self.head.content_length = Some(length);
            }
            _ => {}
        }
        self.head.fields.push(name, value);
        Ok(())
    }

    /// What is wrong with the fields so far.
    pub fn fault(&self) -> Option<&'static str> {
        self.fault
    }

    /// The list is over: what is wrong with it.
    pub fn finish(self) -> Option<&'static str> {
        self.fault.or((self.head.status.0 == 0).then_some("upstream sent no :status header"))
    }
}
