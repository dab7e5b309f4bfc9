//! One walk over a JSON text: checks all of it, and keeps the values of the wanted members.
//!
//! Nothing is skipped unchecked: an unwanted string is decoded and an unwanted number parsed like any other, because a record with
//! a lone surrogate or a number beyond f64 anywhere is no valid record. Text without escapes is borrowed from the input, text with
//! escapes is copied to a scratch buffer.

use super::{
    members::{Members, UNWANTED},
    scan::{Fault, Number, Scanner, Text},
};

/// Arrays and objects inside one another that a record may have; deeper ones are invalid. It bounds the stack.
pub(super) const DEPTH_MAX: u8 = 128;

/// What stood in a wanted member.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Captured<'a> {
    /// There is no such member.
    #[default]
    Absent,
    /// `null`
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    /// An integer that does not fit into 64 bits, or `-0`: its text.
    Integer(&'a str),
    Float(f64),
    Text(&'a str),
    /// Text with escapes: a range of the scratch buffer, until the walk is done.
    Escaped(usize, usize),
    /// A cell of a CSV row that is not empty.
    Cell(&'a str),
    Array,
    Object,
}

/// Reads `json` and fills `slots`, one for each member.
///
/// # Errors
/// Where `json` is not one valid object: what is wrong, in one line.
pub(super) fn capture<'a>(
    json: &'a [u8],
    members: &Members,
    slots: &mut Vec<Captured<'a>>,
    scratch: &mut String,
) -> Result<(), String> {
    empty(members, slots, scratch);
    capture_below(0, json, members, slots, scratch)
}

/// Makes the slots of a record that holds nothing yet.
pub(super) fn empty(members: &Members, slots: &mut Vec<Captured<'_>>, scratch: &mut String) {
    slots.clear();
    slots.resize(members.slots(), Captured::Absent);
    scratch.clear();
}

/// Reads `json` as the object of the member in `slot`; the other slots stay as they are.
///
/// # Errors
/// Where `json` is not one valid object: what is wrong, in one line.
#[inline]
pub(super) fn capture_below<'a>(
    slot: u16,
    json: &'a [u8],
    members: &Members,
    slots: &mut [Captured<'a>],
    scratch: &mut String,
) -> Result<(), String> {
    let text = std::str::from_utf8(json).map_err(|error| error.to_string())?;
    let mut walk = Walk { members, slots, scan: Scanner { text, at: 0, scratch } };
    walk.record(slot).map_err(|fault| format!("{} at byte {}", fault.what, fault.at))
}

struct Walk<'w, 'a> {
    members: &'w Members,
    slots: &'w mut [Captured<'a>],
    scan: Scanner<'a, 'w>,
}

impl<'a> Walk<'_, 'a> {
    /// The whole text: one object and white space.
    fn record(&mut self, slot: u16) -> Result<(), Fault> {
        if self.scan.peek_token() != Some(b'{') {
            return Err(self.scan.fault("not an object"));
        }
        self.object(slot, DEPTH_MAX)?;
        match self.scan.peek_token() {
            Some(_) => Err(self.scan.fault("more than one value")),
            None => Ok(()),
        }
    }

    /// A value of the member in `slot`, which may hold as many arrays and objects inside one another as `depth` says.
    fn value(&mut self, slot: u16, depth: u8) -> Result<(), Fault> {
        let captured = match self.scan.peek_token() {
            Some(b'"') => return self.string(slot),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b'{') => return self.object(slot, depth),
            Some(b'[') => return self.array(slot, depth),
            Some(b't') => self.scan.literal("true").map(|()| Captured::Bool(true))?,
            Some(b'f') => self.scan.literal("false").map(|()| Captured::Bool(false))?,
            Some(b'n') => self.scan.literal("null").map(|()| Captured::Null)?,
            _ => return Err(self.scan.fault("not a value")),
        };
        self.set(slot, captured);
        Ok(())
    }

    #[inline]
    fn set(&mut self, slot: u16, value: Captured<'a>) {
        if slot != UNWANTED {
            self.slots[usize::from(slot)] = value;
        }
    }

    #[inline]
    fn string(&mut self, slot: u16) -> Result<(), Fault> {
        match self.scan.string()? {
            // Where nobody wants it, the slice is not even made.
            Text::Plain(..) | Text::Escaped(..) if slot == UNWANTED => {}
            Text::Plain(start, end) => self.set(slot, Captured::Text(&self.scan.text[start..end])),
            Text::Escaped(start, end) => self.set(slot, Captured::Escaped(start, end)),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Captured<'a>, Fault> {
        Ok(match self.scan.number()? {
            Number::Unsigned(number) => Captured::Unsigned(number),
            Number::Signed(number) => Captured::Signed(number),
            Number::Float(number) => Captured::Float(number),
            Number::Long(start) => {
                let text = &self.scan.text[start..self.scan.at];
                match text.parse() {
                    Ok(number) if f64::is_finite(number) => Captured::Integer(text),
                    _ => return Err(self.scan.fault("a number beyond the range of f64")),
                }
            }
        })
    }

    fn array(&mut self, slot: u16, depth: u8) -> Result<(), Fault> {
        let depth = self.enter(depth)?;
        self.set(slot, Captured::Array);
        if self.scan.peek_token() == Some(b']') {
            self.scan.at += 1;
            return Ok(());
        }
        loop {
            self.value(UNWANTED, depth)?;
            match self.scan.peek_token() {
                Some(b',') => self.scan.at += 1,
                Some(b']') => break,
                _ => return Err(self.scan.fault("neither , nor ] after an element")),
            }
        }
        self.scan.at += 1;
        Ok(())
    }

    fn object(&mut self, slot: u16, depth: u8) -> Result<(), Fault> {
        let depth = self.enter(depth)?;
        self.set(slot, Captured::Object);
        let wanted = if slot != UNWANTED && self.members.has_children(slot) { slot } else { UNWANTED };
        if self.scan.peek_token() == Some(b'}') {
            self.scan.at += 1;
            return Ok(());
        }
        loop {
            let member = self.name(wanted)?;
            if self.scan.peek_token() != Some(b':') {
                return Err(self.scan.fault("no : after a name"));
            }
            self.scan.at += 1;
            self.value(member, depth)?;
            match self.scan.peek_token() {
                Some(b',') => self.scan.at += 1,
                Some(b'}') => break,
                _ => return Err(self.scan.fault("neither , nor } after a member")),
            }
        }
        self.scan.at += 1;
        Ok(())
    }

    /// Goes past the bracket of an array or object.
    fn enter(&mut self, depth: u8) -> Result<u8, Fault> {
        let below =
            depth.checked_sub(1).ok_or_else(|| self.scan.fault("more than 128 arrays and objects inside one another"));
        self.scan.at += 1;
        below
    }

    /// A member's name in the object of slot `object`; gives the member's slot.
    #[inline]
    fn name(&mut self, object: u16) -> Result<u16, Fault> {
        if self.scan.peek_token() != Some(b'"') {
            return Err(self.scan.fault("not a name"));
        }
        let text = self.scan.string()?;
        let member = match text {
            _ if object == UNWANTED => UNWANTED,
            Text::Plain(start, end) => self.members.child(object, &self.scan.text[start..end]),
            Text::Escaped(start, end) => self.members.child(object, &self.scan.scratch[start..end]),
        };
        if member != UNWANTED && self.slots[usize::from(member)] != Captured::Absent {
            // A repeated member: what the earlier one held is forgotten.
            self.slots[self.members.subtree(member)].fill(Captured::Absent);
        }
        Ok(member)
    }
}
