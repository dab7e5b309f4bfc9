//! The rows of a CSV file (RFC 4180): a header, then rows whose quoted cells may hold commas, quotes and line feeds.
//!
//! A row ends at a line feed outside of quotes; a carriage return before it is cut off. Empty lines are no rows. A row that is too large,
//! such as all that follows a quote that is never closed, is not held.

use std::io::{self, Read};

use csv::ByteRecord;
use csv_core::{ReadRecordResult, ReaderBuilder, Terminator};

use super::window::{Line, Window};
use crate::source::Payload;

pub(super) struct Rows {
    core: csv_core::Reader,
    header: ByteRecord,
    cells: ByteRecord,
    /// The text of all cells, without quotes, and where each cell ends in it.
    text: Vec<u8>,
    ends: Vec<usize>,
    bytes_max: u64,
}

/// How much of the window a row takes, and what was found.
struct Extent {
    /// Bytes of the window that the row's end lies behind; the whole row, unless it is too large.
    bytes: usize,
    /// Bytes of the row that were let go because it is too large.
    gone: u64,
    text: usize,
    cells: usize,
}

impl Rows {
    /// Reads the header of a file; a file without one has no rows.
    pub(super) fn new(window: &mut Window<Box<dyn Read>>) -> io::Result<Rows> {
        let core = ReaderBuilder::new().terminator(Terminator::Any(b'\n')).build();
        let (header, cells) = (ByteRecord::new(), ByteRecord::new());
        let bytes_max = window.bytes_max();
        let mut rows = Rows { core, header, cells, text: vec![0; 1 << 10], ends: vec![0; 32], bytes_max };
        rows.next_row(window)?;
        rows.header = rows.cells.clone();
        Ok(rows)
    }

    /// The next row, or none at the end of the text.
    pub(super) fn next_row<'a>(&'a mut self, window: &'a mut Window<Box<dyn Read>>) -> io::Result<Option<Line<'a>>> {
        self.cells.clear();
        while window.held().first() == Some(&b'\n') || window.held().is_empty() {
            if window.is_at_end()? {
                return Ok(None);
            }
            window.consume(usize::from(window.held()[0] == b'\n'));
        }
        let offset = window.offset();
        let extent = self.find_end(window)?;
        let raw = strip_end(&window.held()[..extent.bytes]);
        let bytes = raw.len() as u64 + extent.gone;
        let stripped = raw.len() < strip_feed(&window.held()[..extent.bytes]).len();
        if extent.gone == 0 {
            self.split(&extent, stripped);
        }
        window.consume(extent.bytes);
        let raw = strip_end(window.consumed(extent.bytes));
        let payload = match bytes > self.bytes_max {
            true if extent.gone > 0 => Payload::TooLarge { head: window.head(), bytes },
            true => Payload::TooLarge { head: &raw[..self.bytes_max as usize], bytes },
            false => Payload::Csv { header: &self.header, cells: &self.cells, raw },
        };
        Ok(Some(Line { offset, payload }))
    }

    /// Feeds the splitter until it has a row.
    fn find_end(&mut self, window: &mut Window<Box<dyn Read>>) -> io::Result<Extent> {
        let mut extent = Extent { bytes: 0, gone: 0, text: 0, cells: 0 };
        loop {
            if extent.bytes == window.held().len() {
                // At the end of the text the splitter is given nothing, and hands out what it has.
                window.more()?;
            }
            let input = &window.held()[extent.bytes..];
            let (result, bytes, text, cells) =
                self.core.read_record(input, &mut self.text[extent.text..], &mut self.ends[extent.cells..]);
            extent.bytes += bytes;
            extent.text += text;
            extent.cells += cells;
            match result {
                ReadRecordResult::Record | ReadRecordResult::End => return Ok(extent),
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::InputEmpty => {}
            }
            if extent.gone > 0 || extent.bytes as u64 > self.bytes_max.saturating_add(2) {
                let_go(&mut extent, window);
            }
        }
    }

    /// Makes the cells of a whole row. The splitter takes a carriage return at the row's end for part of the last cell.
    fn split(&mut self, extent: &Extent, stripped: bool) {
        let mut start = 0;
        for (cell, end) in self.ends[..extent.cells].iter().enumerate() {
            let cut = stripped && cell + 1 == extent.cells && self.text[start..*end].ends_with(b"\r");
            self.cells.push_field(&self.text[start..end - usize::from(cut)]);
            start = *end;
        }
    }
}

/// Drops what was read of a row that is too large; only its head, its length and the last two bytes remain, which may turn out to be its
/// end.
#[cold]
fn let_go(extent: &mut Extent, window: &mut Window<Box<dyn Read>>) {
    if extent.gone == 0 {
        window.keep_head();
    }
    let gone = extent.bytes.saturating_sub(2);
    extent.gone += gone as u64;
    window.consume(gone);
    (extent.bytes, extent.text, extent.cells) = (extent.bytes - gone, 0, 0);
}

fn strip_feed(row: &[u8]) -> &[u8] {
    row.strip_suffix(b"\n").unwrap_or(row)
}

fn strip_end(row: &[u8]) -> &[u8] {
    let row = strip_feed(row);
    row.strip_suffix(b"\r").unwrap_or(row)
}
