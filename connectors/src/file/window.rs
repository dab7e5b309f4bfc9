//! A window on a text that is read block by block: finds lines without copying them.
//!
//! ```text
//!  ── consumed ──┬────────── held ──────────┬── not yet read ──▶
//!                offset                     offset + held().len()
//! ```
//! Only the unfinished line at the end of a block is moved, to the front of the buffer. A line longer than the limit is not held:
//! its head is kept, the rest only counted.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

use memchr::memchr;

use super::Limits;
use crate::source::Payload;

/// What is read past the place up to which a reader is known to need the text: one line or a few.
const TAIL_BYTES: u64 = 16 << 10;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[derive(Debug)]
pub(super) struct Window<R> {
    input: R,
    limits: Limits,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Offset in the file's text of `buffer[start]`.
    offset: u64,
    /// Where the text ends, as far as it is known.
    text_bytes: u64,
    /// Up to where the text will be needed, as far as it is known.
    needed: u64,
    /// The head of a line that is too long to be held.
    head: Vec<u8>,
}

/// A line, without its end.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// Where it begins in the file's text.
    pub(super) offset: u64,
    pub(super) payload: Payload<'a>,
}

impl<R: Read> Window<R> {
    /// A window on `input`, which stands at `offset` of a text of `text_bytes` (`u64::MAX` where that is not known).
    pub(super) fn new(input: R, offset: u64, text_bytes: u64, limits: Limits) -> Window<R> {
        Window { input, limits, buffer: vec![], start: 0, end: 0, offset, text_bytes, needed: u64::MAX, head: vec![] }
    }

    /// Where the next line begins.
    #[inline]
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    #[inline]
    pub(super) fn held(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    #[inline]
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
    }

    /// The bytes consumed last; they stay in the buffer until the next block is read.
    pub(super) fn consumed(&self, bytes: usize) -> &[u8] {
        &self.buffer[self.start - bytes..self.start]
    }

    /// Longest record that is held as a whole.
    pub(super) fn bytes_max(&self) -> u64 {
        self.limits.event_bytes_max
    }

    /// Says up to which offset the text will be needed, so that not much more is read.
    pub(super) fn need(&mut self, offset: u64) {
        self.needed = offset;
    }

    /// True where nothing is left, held or unread.
    pub(super) fn is_at_end(&mut self) -> io::Result<bool> {
        Ok(self.start == self.end && !self.more()?)
    }

    /// Reads a block more behind what is held; false at the end of the text.
    pub(super) fn more(&mut self) -> io::Result<bool> {
        let position = self.offset + self.held().len() as u64;
        let missing = self.needed.saturating_sub(position).saturating_add(TAIL_BYTES);
        let want = missing.min(self.limits.block_bytes as u64).min(self.text_bytes - position) as usize;
        if want == 0 {
            return Ok(false);
        }
        if self.buffer.len() - self.end < want {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            let bytes = self.buffer.len().max(self.end + want);
            self.buffer.resize(bytes, 0);
        }
        let read = read_some(&mut self.input, &mut self.buffer[self.end..self.end + want])?;
        if read == 0 && self.text_bytes != u64::MAX {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the file became shorter while it was read"));
        }
        self.end += read;
        Ok(read > 0)
    }

    /// The next line, or none at the end of the text.
    #[inline]
    pub(super) fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        let offset = self.offset;
        let mut searched = 0;
        let ended = loop {
            if let Some(at) = memchr(b'\n', &self.buffer[self.start + searched..self.end]) {
                searched += at;
                break 1;
            }
            searched = self.held().len();
            // Two bytes more: the line's carriage return and one that settles that it is too long.
            if searched as u64 > self.limits.event_bytes_max.saturating_add(2) {
                return self.long_line().map(Some);
            }
            if !self.more()? {
                break 0;
            }
        };
        if searched + ended == 0 {
            return Ok(None);
        }
        let line = self.start..self.start + searched;
        self.consume(searched + ended);
        let mut text = &self.buffer[line];
        text = text.strip_suffix(b"\r").unwrap_or(text);
        if offset == 0 {
            text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        }
        Ok(Some(Line { offset, payload: bounded(text, self.limits.event_bytes_max) }))
    }

    /// A line that is longer than what may be held.
    #[cold]
    fn long_line(&mut self) -> io::Result<Line<'_>> {
        let offset = self.offset;
        if offset == 0 && self.held().starts_with(BYTE_ORDER_MARK) {
            self.consume(BYTE_ORDER_MARK.len());
        }
        self.keep_head();
        let (mut bytes, mut last) = (0, 0);
        loop {
            let found = memchr(b'\n', self.held());
            let part = found.unwrap_or(self.held().len());
            last = if part > 0 { self.held()[part - 1] } else { last };
            bytes += part as u64;
            self.consume(part + usize::from(found.is_some()));
            if found.is_some() || !self.more()? {
                break;
            }
        }
        bytes -= u64::from(last == b'\r');
        Ok(Line { offset, payload: Payload::TooLarge { head: &self.head, bytes } })
    }

    /// Keeps the first bytes of what is held, as the head of a record that is too large.
    pub(super) fn keep_head(&mut self) {
        let bytes = usize::try_from(self.limits.event_bytes_max).unwrap_or(usize::MAX).min(self.end - self.start);
        self.head.clear();
        self.head.extend_from_slice(&self.buffer[self.start..self.start + bytes]);
    }

    /// What [`Window::keep_head`] kept.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Goes to the beginning of the next line, or to `limit` or further where none begins before it. True at the beginning of a
    /// line or the end of the text.
    pub(super) fn skip_line(&mut self, limit: u64) -> io::Result<bool> {
        loop {
            if let Some(at) = memchr(b'\n', self.held()) {
                self.consume(at + 1);
                return Ok(true);
            }
            self.consume(self.held().len());
            if self.offset >= limit {
                return Ok(false);
            }
            if !self.more()? {
                return Ok(true);
            }
        }
    }
}

impl<R: Read + Seek> Window<R> {
    /// Goes to any offset of the text.
    pub(super) fn seek(&mut self, offset: u64) -> io::Result<()> {
        if let Some(ahead) = offset.checked_sub(self.offset)
            && ahead <= self.held().len() as u64
        {
            self.consume(ahead as usize);
            return Ok(());
        }
        self.input.seek(SeekFrom::Start(offset))?;
        (self.start, self.end, self.offset) = (0, 0, offset);
        Ok(())
    }
}

/// A record that is held, which may still be a few bytes too long.
pub(super) fn bounded(text: &[u8], bytes_max: u64) -> Payload<'_> {
    if text.len() as u64 > bytes_max {
        return Payload::TooLarge { head: &text[..bytes_max as usize], bytes: text.len() as u64 };
    }
    Payload::Json(text)
}

fn read_some(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
