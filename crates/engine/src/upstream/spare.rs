//! Buffers, heads and shared files that requests and calls to upstreams need for a moment: made once, lent again and again by their thread.

use http::ResponseHead;
use net::file::Opened;
use net::splice::Pipe;
use std::cell::RefCell;
use std::rc::Rc;

/// The most of either that wait for the next call.
const SPARE_MAX: usize = 64;
/// A buffer larger than this is a large one, bytes.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// The most large buffers that wait for the next body.
const LARGE_SPARE_MAX: usize = 4;
/// A buffer larger than this is not kept, bytes.
const LARGE_BYTES_MAX: usize = 1024 * 1024;

/// What is lent.
#[derive(Default)]
pub struct Spare {
    buffers: RefCell<Vec<Vec<u8>>>,
    large: RefCell<Vec<Vec<u8>>>,
    /// For bodies that go from socket to socket; made for the first of them.
    pipe: RefCell<Option<Pipe>>,
    // Heads are lent in their boxes, so that eight bytes move and not two hundred.
    #[expect(clippy::vec_box)]
    heads: RefCell<Vec<Box<ResponseHead>>>,
    files: RefCell<Vec<Rc<Opened>>>,
}

impl Spare {
    /// An empty buffer, often with room.
    pub fn buffer(&self) -> Vec<u8> {
        self.buffers.borrow_mut().pop().unwrap_or_default()
    }

    /// Makes room for so many bytes behind what a buffer holds; where that is much, in a large buffer.
    pub fn make_room(&self, buffer: &mut Vec<u8>, bytes: usize) {
        let wanted = buffer.len() + bytes;
        if wanted <= buffer.capacity().max(BUFFER_BYTES_MAX) {
            return buffer.reserve(bytes);
        }
        let mut large = self.large.borrow_mut().pop().unwrap_or_default();
        large.extend_from_slice(buffer);
        large.reserve(bytes);
        self.keep_buffer(std::mem::replace(buffer, large));
    }

    /// Takes a buffer back.
    pub fn keep_buffer(&self, mut buffer: Vec<u8>) {
        if !(1..=LARGE_BYTES_MAX).contains(&buffer.capacity()) {
            return;
        }
        let is_large = buffer.capacity() > BUFFER_BYTES_MAX;
        let most = if is_large { LARGE_SPARE_MAX } else { SPARE_MAX };
        let mut buffers = if is_large { &self.large } else { &self.buffers }.borrow_mut();
        if buffers.len() < most {
            buffer.clear();
            buffers.push(buffer);
        }
    }

    /// A file, to be shared by those who send it.
    pub fn file(&self, opened: Opened) -> Rc<Opened> {
        let Some(mut place) = self.files.borrow_mut().pop() else { return Rc::new(opened) };
        match Rc::get_mut(&mut place) {
            Some(room) => {
                *room = opened;
                place
            }
            None => Rc::new(opened),
        }
    }

    /// Takes a file back, which is closed here where nobody else shares it.
    pub fn keep_file(&self, mut file: Rc<Opened>) {
        let mut files = self.files.borrow_mut();
        if let Some(opened) = Rc::get_mut(&mut file)
            && files.len() < SPARE_MAX
        {
            opened.file = None;
            files.push(file);
        }
    }

    /// Is there an empty pipe, or can there be one?
    pub fn has_pipe(&self) -> bool {
        let mut pipe = self.pipe.borrow_mut();
        if pipe.is_none() {
            *pipe = Pipe::new().ok();
        }
        pipe.is_some()
    }

    /// The pipe. Whoever has left nothing in it gives it back.
    pub fn pipe(&self) -> Option<Pipe> {
        self.pipe.borrow_mut().take()
    }

    /// Takes the pipe back.
    pub fn keep_pipe(&self, pipe: Pipe) {
        *self.pipe.borrow_mut() = Some(pipe);
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
