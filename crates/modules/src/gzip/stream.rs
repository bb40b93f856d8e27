//! The gzip format (RFC 1952) around a compressor that is used again for later answers.

use super::Counts;
use engine::Transform;
use engine::flow::{Chunk, Chunks};
use flate2::{Compress, Compression, Crc, FlushCompress};
use std::cell::RefCell;

/// How many idle compressors a thread keeps, of some 300 KB each.
const IDLE_MAX: usize = 16;

/// How much output is made at once, bytes.
const OUTPUT_BYTES: usize = 16 * 1024;

/// Magic, deflate, no flags, no time, no hint, made on Unix.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];

thread_local! {
    static IDLE: RefCell<Vec<(u32, Compress)>> = const { RefCell::new(Vec::new()) };
}

/// The compression of one body.
pub struct Gzip {
    level: u32,
    compress: Option<Compress>,
    checksum: Crc,
    begun: bool,
    counts: Counts,
}

impl Gzip {
    /// A compression of this level, 1 to 9; counts what goes in and comes out.
    pub fn new(level: u32, counts: Counts) -> Gzip {
        let kept = IDLE.with_borrow_mut(|idle| {
            let at = idle.iter().position(|(known, _)| *known == level)?;
            Some(idle.swap_remove(at).1)
        });
        let compress = kept.unwrap_or_else(|| Compress::new(Compression::new(level), false));
        Gzip { level, compress: Some(compress), checksum: Crc::new(), begun: false, counts }
    }

    fn compress(&mut self, mut input: &[u8], flush: FlushCompress, out: &mut Chunks) {
        let Some(compress) = &mut self.compress else { return };
        let mut made = Vec::with_capacity(OUTPUT_BYTES.min(input.len() + 64));
        if !std::mem::replace(&mut self.begun, true) {
            made.extend_from_slice(&HEADER);
        }
        self.checksum.update(input);
        let taken = input.len() as u64;
        loop {
            if made.capacity() - made.len() < 64 {
                made.reserve(OUTPUT_BYTES);
            }
            let (read, room) = (compress.total_in(), made.capacity() - made.len());
            // The only error there is speaks of a dictionary, which is not used.
            let Ok(status) = compress.compress_vec(input, &mut made, flush) else { break };
            let taken = (compress.total_in() - read) as usize;
            input = input.get(taken..).unwrap_or_default();
            let is_full = made.len() == made.capacity() && room > 0;
            if status == flate2::Status::StreamEnd || input.is_empty() && !is_full {
                break;
            }
        }
        self.counts.add(taken, made.len() as u64);
        if !made.is_empty() {
            out.push(Chunk::Bytes(made));
        }
    }
}

impl Transform for Gzip {
    fn push(&mut self, chunk: Chunk, out: &mut Chunks) {
        match chunk {
            Chunk::Bytes(bytes) => self.compress(&bytes, FlushCompress::None, out),
            Chunk::Flush => {
                self.compress(&[], FlushCompress::Sync, out);
                out.push(Chunk::Flush);
            }
            // Files and inclusions are brought into memory before they come here.
            other => out.push(other),
        }
    }

    fn finish(&mut self, out: &mut Chunks) {
        self.compress(&[], FlushCompress::Finish, out);
        let mut trailer = Vec::with_capacity(8);
        trailer.extend_from_slice(&self.checksum.sum().to_le_bytes());
        trailer.extend_from_slice(&self.checksum.amount().to_le_bytes());
        self.counts.add(0, trailer.len() as u64);
        out.push(Chunk::Bytes(trailer));
    }
}

impl Drop for Gzip {
    fn drop(&mut self) {
        let Some(mut compress) = self.compress.take() else { return };
        IDLE.with_borrow_mut(|idle| {
            if idle.len() < IDLE_MAX {
                compress.reset();
                idle.push((self.level, compress));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_is_compressed_comes_back() {
        let text: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for (piece_bytes, level) in [(1 << 20, 1), (32 * 1024, 6), (1000, 9), (32 * 1024, 1)] {
            let counts = Counts::default();
            let mut out = Chunks::new();
            let mut gzip = Gzip::new(level, counts.clone());
            for piece in text.chunks(piece_bytes) {
                gzip.push(Chunk::Bytes(piece.to_vec()), &mut out);
                gzip.push(Chunk::Flush, &mut out);
            }
            gzip.finish(&mut out);
            let bytes = out.into_iter().flat_map(|chunk| match chunk {
                Chunk::Bytes(bytes) => bytes,
                _ => Vec::new(),
            });
            let packed: Vec<u8> = bytes.collect();
            assert_eq!(counts.0.get(), (text.len() as u64, packed.len() as u64));
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).expect("it is gzip");
            assert!(unpacked == text, "pieces of {piece_bytes}, level {level}");
        }
    }
}
