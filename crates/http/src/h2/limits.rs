//! What a peer may make us do: every bound of an HTTP/2 connection, and the buckets that watch what is cheap to ask
//! for and not to answer.

use super::frame::{PAYLOAD_BYTES_MAX, WINDOW_BYTES_DEFAULT};
use super::hpack::FieldBounds;

/// The bounds that a configuration sets.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams at a time: `http2_max_concurrent_streams`. A stream counts until its request is worked off, however it
    /// ended for the client.
    pub streams_max: u32,
    /// What a frame may carry: SETTINGS_MAX_FRAME_SIZE, bytes. Bodies are read as they come, however large it is.
    pub frame_bytes_max: usize,
    /// What a stream may send before anybody reads it, bytes: `http2_body_preread_size`.
    pub stream_window_bytes: u32,
    /// What all streams together may send before anybody reads it, bytes.
    pub connection_window_bytes: u32,
    /// One name or value as it is sent, bytes: one of `large_client_header_buffers`.
    pub header_string_bytes_max: usize,
    /// Names and values of one field list, bytes: `large_client_header_buffers`, all of them.
    pub header_list_bytes_max: usize,
    /// What may wait to be written before nothing more is read or sent, bytes.
    pub output_bytes_max: usize,
}

impl Default for Limits {
    /// What nginx does when nothing is configured.
    fn default() -> Limits {
        Limits {
            streams_max: 128,
            frame_bytes_max: PAYLOAD_BYTES_MAX,
            stream_window_bytes: 65_536,
            connection_window_bytes: 4 << 20,
            header_string_bytes_max: 8192,
            header_list_bytes_max: 4 * 8192,
            output_bytes_max: 64 * 1024,
        }
    }
}

impl Limits {
    /// The bounds of a field list.
    pub(super) fn field_bounds(&self) -> FieldBounds {
        FieldBounds {
            string_bytes_max: self.header_string_bytes_max,
            list_bytes_max: self.header_list_bytes_max,
        }
    }

    /// How much larger than the list its encoded form may be, bytes.
    pub(super) fn block_bytes_max(&self) -> usize {
        self.header_list_bytes_max.saturating_add(4096)
    }

    /// The window of a stream before the peer has acknowledged ours, bytes.
    pub(super) fn first_window_bytes(&self) -> u32 {
        self.stream_window_bytes.max(WINDOW_BYTES_DEFAULT)
    }
}

/// The most a SETTINGS frame may hold, bytes.
pub const SETTINGS_BYTES_MAX: usize = 16_384;
/// The most frames one field list may be spread over.
pub const CONTINUATION_FRAMES_MAX: u32 = 64;
/// How many ended streams are remembered, to tell late frames from wrong ones.
pub const CLOSED_STREAMS_MAX: usize = 256;
/// Frames that ask for work and bring nothing (PING, SETTINGS, PRIORITY, unknown types, empty DATA, WINDOW_UPDATE
/// beyond what was sent): how many may come at once.
pub const IDLE_FRAMES_MAX: u32 = 1000;
/// As [`IDLE_FRAMES_MAX`], per second over time.
pub const IDLE_FRAMES_PER_SECOND_MAX: u32 = 100;
/// Streams that end before their answer, by either side's doing: how many may at once, beside one for each answer
/// that went out whole.
pub const BROKEN_STREAMS_MAX: u32 = 256;
/// As [`BROKEN_STREAMS_MAX`], per second over time.
pub const BROKEN_STREAMS_PER_SECOND_MAX: u32 = 32;
/// The window of a stream whose body is being read, bytes.
pub const READING_WINDOW_BYTES: i64 = 256 * 1024;
/// How much data pays for a WINDOW_UPDATE, bytes.
pub const PAID_WINDOW_BYTES: usize = 512;

/// A bucket that leaks at a steady rate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    /// What is in it, thousandths.
    level: u64,
    filled_ms: u64,
}

impl Bucket {
    /// Adds one; false when that is more than fits.
    pub fn add(&mut self, now_ms: u64, per_second: u32, max: u32) -> bool {
        let passed_ms = now_ms.saturating_sub(self.filled_ms);
        self.filled_ms = now_ms;
        self.level = self.level.saturating_sub(passed_ms.saturating_mul(u64::from(per_second)));
        self.level += 1000;
        self.level <= u64::from(max) * 1000
    }

    /// Takes so many out.
    pub fn pay(&mut self, count: usize) {
        self.level = self.level.saturating_sub(count as u64 * 1000);
    }
}
