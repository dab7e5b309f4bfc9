//! The members of a line that job J needs, found without looking at what lies between them more than it must.
//!
//! No JSON parser: it trusts that a line is valid, and gives up where a member that it needs is not written as clients of this
//! input write it; such a line goes to a parser that understands everything.

/// The members, as they stand in the line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Members<'a> {
    pub(super) event_id: &'a [u8],
    pub(super) user_id: &'a [u8],
    pub(super) event_type: &'a [u8],
    pub(super) timestamp: &'a [u8],
    /// Of the properties; 0 where it is missing, which leaves the sum as it is.
    pub(super) duration: f64,
}

/// Finds the members in a line; those that are missing are empty.
pub(super) fn scan(line: &[u8]) -> Option<Members<'_>> {
    let mut members = Members::default();
    let mut cursor = Cursor { line, at: 0 };
    cursor.object(|cursor, name| {
        match name {
            b"event_id" => members.event_id = cursor.text()?,
            b"user_id" => members.user_id = cursor.text()?,
            b"event_type" => members.event_type = cursor.text()?,
            b"timestamp" => members.timestamp = cursor.text()?,
            b"properties" => cursor.object(|cursor, name| match name {
                b"duration" => cursor.number().map(|number| members.duration = number),
                _ => cursor.skip(),
            })?,
            _ => cursor.skip()?,
        }
        Some(())
    })?;
    Some(members)
}

struct Cursor<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Gives each member's name to `each`, which goes over its value.
    fn object(&mut self, mut each: impl FnMut(&mut Self, &'a [u8]) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        if self.next()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            self.next()?;
            let name = self.text()?;
            self.next()?;
            self.expect(b':')?;
            self.next()?;
            each(self, name)?;
            let end = self.next()?;
            self.at += 1;
            match end {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    /// The next byte that is no white space.
    #[inline]
    fn next(&mut self) -> Option<u8> {
        loop {
            match *self.line.get(self.at)? {
                b' ' | b'\t' | b'\r' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Option<()> {
        (*self.line.get(self.at)? == byte).then(|| self.at += 1)
    }

    /// A text without escapes.
    #[inline]
    fn text(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let rest = &self.line[self.at..];
        let end = memchr::memchr2(b'"', b'\\', rest)?;
        self.at += end + 1;
        (rest[end] == b'"').then_some(&rest[..end])
    }

    fn number(&mut self) -> Option<f64> {
        let rest = &self.line[self.at..];
        let end = rest.iter().position(|byte| matches!(byte, b',' | b'}' | b' '))?;
        self.at += end;
        std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
    }

    /// Goes over any value.
    fn skip(&mut self) -> Option<()> {
        match *self.line.get(self.at)? {
            b'"' => self.skip_text(),
            b'{' | b'[' => self.skip_nested(),
            _ => {
                self.at += self.line[self.at..].iter().position(|byte| matches!(byte, b',' | b'}' | b']' | b' '))?;
                Some(())
            }
        }
    }

    #[inline]
    fn skip_text(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            let end = memchr::memchr2(b'"', b'\\', &self.line[self.at..])?;
            self.at += end + 1;
            if self.line[self.at - 1] == b'"' {
                return Some(());
            }
            // The byte after a backslash belongs to it, a quotation mark too.
            self.at += 1;
            self.line.get(self.at)?;
        }
    }

    fn skip_nested(&mut self) -> Option<()> {
        let mut depth = 0;
        loop {
            match *self.line.get(self.at)? {
                b'"' => {
                    self.skip_text()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_in_any_order() {
        // Goal: white space, nesting, escapes beside and gaps do not hide the members.
        let line = br#"{ "context": {"a": ["}", {"b": "\"}\\"}]}, "timestamp": "T", "properties":{"label":"x\"duration\":1","duration":2.5 },
            "user_id":"u","n":null,"event_type":"e", "event_id":"i"}"#;
        let line: Vec<u8> = line.iter().copied().filter(|byte| *byte != b'\n').collect();
        let wanted = Members { event_id: b"i", user_id: b"u", event_type: b"e", timestamp: b"T", duration: 2.5 };
        assert_eq!(scan(&line), Some(wanted));
        assert_eq!(scan(br#"{"properties":{},"user_id":"u"}"#).map(|members| members.user_id), Some(&b"u"[..]));
    }

    #[test]
    fn what_is_uncommon_is_left_to_the_parser() {
        // Goal: an escape in a member that is needed, another type, or a line that is cut off gives nothing, and never a panic.
        let lines = [
            r#"{"user_id":"\u0075"}"#,
            r#"{"user_id":1}"#,
            r#"{"properties":null}"#,
            r#"{"user_id":"u","x":"\"#,
            "{",
            "",
        ];
        for line in lines {
            assert_eq!(scan(line.as_bytes()), None, "{line}");
        }
    }
}
