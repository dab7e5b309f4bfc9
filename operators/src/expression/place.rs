//! Where things stand: from the parser's lines and columns to bytes of the job file.

use std::ops::Range;

use sqlparser::tokenizer::{Location, Span as Lines};

use crate::spec::{Located, Span};

/// An expression's text and its place in the job file.
pub(super) struct Place<'a> {
    text: &'a str,
    /// Where each line begins.
    lines: Vec<usize>,
    file: u16,
    /// Where the text begins in the file.
    base: usize,
}

impl<'a> Place<'a> {
    pub(super) fn new(text: &'a Located<String>) -> Place<'a> {
        let breaks = text.value.match_indices('\n').map(|(at, _)| at + 1);
        Place {
            text: &text.value,
            lines: std::iter::once(0).chain(breaks).collect(),
            file: text.span.file,
            base: text.span.bytes.start,
        }
    }

    /// The place in the job file of bytes of the text.
    pub(super) fn span(&self, bytes: Range<usize>) -> Span {
        Span { file: self.file, bytes: self.base + bytes.start..self.base + bytes.end }
    }

    /// All of the text.
    pub(super) fn whole(&self) -> Range<usize> {
        0..self.text.len()
    }

    /// The text from a byte on.
    pub(super) fn rest(&self, start: usize) -> &str {
        &self.text[start..]
    }

    /// The bytes between two locations; the whole text where the parser knows none.
    pub(super) fn bytes(&self, lines: Lines) -> Range<usize> {
        match (self.byte(lines.start), self.byte(lines.end)) {
            (Some(start), Some(end)) if start <= end => start..end,
            _ => self.whole(),
        }
    }

    /// The byte of a location. Lines and columns count from 1, columns in characters.
    pub(super) fn byte(&self, location: Location) -> Option<usize> {
        let line = usize::try_from(location.line).ok()?.checked_sub(1)?;
        let column = usize::try_from(location.column).ok()?.checked_sub(1)?;
        let start = *self.lines.get(line)?;
        let after = self.text[start..].char_indices().nth(column);
        Some(after.map_or(self.text.len(), |(at, _)| start + at))
    }

    /// With the parentheses around, if there are any.
    pub(super) fn with_parentheses(&self, bytes: Range<usize>) -> Range<usize> {
        let before = self.text[..bytes.start].trim_end();
        let after = self.text[bytes.end..].trim_start();
        if before.ends_with('(') && after.starts_with(')') {
            return before.len() - 1..self.text.len() - after.len() + 1;
        }
        bytes
    }

    /// With the parenthesis behind, if there is one.
    pub(super) fn with_closing(&self, bytes: Range<usize>) -> Range<usize> {
        let after = self.text[bytes.end..].trim_start();
        let end = if after.starts_with(')') { self.text.len() - after.len() + 1 } else { bytes.end };
        bytes.start..end
    }

    /// With this sign before, if it is there.
    pub(super) fn with_sign(&self, sign: char, bytes: Range<usize>) -> Range<usize> {
        let before = self.text[..bytes.start].trim_end();
        let start = if before.ends_with(sign) { before.len() - sign.len_utf8() } else { bytes.start };
        start..bytes.end
    }
}
