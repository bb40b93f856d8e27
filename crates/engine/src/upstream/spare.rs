//! Buffers and heads that calls to upstreams need for a moment: made once, lent again and again by their thread.

use http::ResponseHead;
use std::cell::RefCell;

/// The most of either that wait for the next call.
const SPARE_MAX: usize = 64;
/// A buffer larger than this is not kept, bytes.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// What is lent.
#[derive(Default)]
pub struct Spare {
    buffers: RefCell<Vec<Vec<u8>>>,
    // Heads are lent in their boxes, so that eight bytes move and not two hundred.
    #[expect(clippy::vec_box)]
    heads: RefCell<Vec<Box<ResponseHead>>>,
}

impl Spare {
    /// An empty buffer, often with room.
    pub fn buffer(&self) -> Vec<u8> {
        self.buffers.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub fn keep_buffer(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.buffers.borrow_mut();
        if (1..=BUFFER_BYTES_MAX).contains(&buffer.capacity()) && buffers.len() < SPARE_MAX {
            buffer.clear();
            buffers.push(buffer);
        }
    }

    /// A clear head.
    pub fn head(&self) -> Box<ResponseHead> {
        self.heads.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a head back.
    pub fn keep_head(&self, mut head: Box<ResponseHead>) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < SPARE_MAX {
            head.clear();
            heads.push(head);
        }
    }
}
