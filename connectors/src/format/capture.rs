//! One walk over a JSON text: checks all of it, and keeps the values of the wanted members.
//!
//! Nothing is skipped unchecked: an unwanted string is decoded and an unwanted number parsed like any other, because a record with
//! a lone surrogate or a number beyond f64 anywhere is no valid record. Text without escapes is borrowed from the input, text with
//! escapes is copied to a scratch buffer.

use super::{
    members::{Members, UNWANTED},
    scan::{Number, Scanner, mark},
    shapes::Shapes,
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

/// What a walk writes besides the slots; reused from record to record.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Texts with escapes.
    pub(super) texts: String,
    marks: Vec<u64>,
    pub(super) shapes: Shapes,
}

/// Reads `json` and fills `slots`, one for each member.
///
/// # Errors
/// Where `json` is not one valid object: what is wrong, in one line.
pub(super) fn capture<'a>(
    json: &'a [u8],
    members: &Members,
    slots: &mut Vec<Captured<'a>>,
    scratch: &mut Scratch,
) -> Result<(), String> {
    let text = std::str::from_utf8(json).map_err(|error| error.to_string())?;
    let Scratch { texts, marks, shapes } = scratch;
    mark(json, marks);
    texts.clear();
    slots.clear();
    slots.resize(members.slots(), Captured::Absent);
    let mut scan = Scanner { text, bytes: json, marks, scratch: texts, fault: ("", 0) };
    let awake = shapes.is_awake();
    if awake && shapes.follow(&mut scan, slots) {
        return Ok(());
    }
    scan.scratch.clear();
    slots.fill(Captured::Absent);
    let mut walk = Walk { members, slots, scan };
    let end = walk.record(0);
    let (what, at) = walk.scan.fault;
    if end.is_none() {
        return Err(format!("{what} at byte {at}"));
    }
    if awake {
        shapes.learn(&mut walk.scan, members);
    }
    Ok(())
}

/// [`capture`] without the shapes of earlier records, where only texts are kept between records.
pub(super) fn capture_plain<'a>(
    json: &'a [u8],
    members: &Members,
    slots: &mut Vec<Captured<'a>>,
    texts: &mut String,
) -> Result<(), String> {
    empty(members, slots, texts);
    capture_below(0, json, members, slots, texts)
}

/// Makes the slots of a record that holds nothing yet.
pub(super) fn empty(members: &Members, slots: &mut Vec<Captured<'_>>, texts: &mut String) {
    slots.clear();
    slots.resize(members.slots(), Captured::Absent);
    texts.clear();
}

/// Reads `json` as the object of the member in `slot`; the other slots stay as they are.
///
/// # Errors
/// Where `json` is not one valid object: what is wrong, in one line.
pub(super) fn capture_below<'a>(
    slot: u16,
    json: &'a [u8],
    members: &Members,
    slots: &mut [Captured<'a>],
    texts: &mut String,
) -> Result<(), String> {
    let text = std::str::from_utf8(json).map_err(|error| error.to_string())?;
    let mut marks = Vec::new();
    mark(json, &mut marks);
    let scan = Scanner { text, bytes: json, marks: &marks, scratch: texts, fault: ("", 0) };
    let mut walk = Walk { members, slots, scan };
    let end = walk.record(slot);
    let (what, at) = walk.scan.fault;
    end.map(drop).ok_or_else(|| format!("{what} at byte {at}"))
}

/// A walk. Its steps take the place at which they begin and give the one behind what they went over, none where something is wrong, so
/// that the place stays in a register.
struct Walk<'w, 'a> {
    members: &'w Members,
    slots: &'w mut [Captured<'a>],
    scan: Scanner<'a, 'w>,
}

impl<'a> Walk<'_, 'a> {
    /// The whole text: one object and white space.
    fn record(&mut self, slot: u16) -> Option<usize> {
        let (at, byte) = self.scan.token(0);
        if byte != b'{' {
            return self.scan.fault("not an object", at);
        }
        let end = self.object(at, slot, DEPTH_MAX)?;
        let (at, _) = self.scan.token(end);
        if at < self.scan.bytes.len() { self.scan.fault("more than one value", at) } else { Some(at) }
    }

    /// A value of the member in `slot`, which may hold as many arrays and objects inside one another as `depth` says.
    #[inline]
    fn value(&mut self, at: usize, slot: u16, depth: u8) -> Option<usize> {
        let (at, byte) = self.scan.token(at);
        if byte == b'"' { self.string(at, slot) } else { self.other_value(at, byte, slot, depth) }
    }

    fn other_value(&mut self, at: usize, byte: u8, slot: u16, depth: u8) -> Option<usize> {
        let (end, captured) = match byte {
            b'-' | b'0'..=b'9' => self.number(at)?,
            b'{' => return self.object(at, slot, depth),
            b'[' => return self.array(at, slot, depth),
            b't' => (self.scan.literal(at, b"true")?, Captured::Bool(true)),
            b'f' => (self.scan.literal(at, b"false")?, Captured::Bool(false)),
            b'n' => (self.scan.literal(at, b"null")?, Captured::Null),
            _ => return self.scan.fault("not a value", at),
        };
        self.set(slot, captured);
        Some(end)
    }

    #[inline]
    fn set(&mut self, slot: u16, value: Captured<'a>) {
        if slot != UNWANTED {
            self.slots[usize::from(slot)] = value;
        }
    }

    #[inline]
    fn string(&mut self, at: usize, slot: u16) -> Option<usize> {
        let (start, end) = (at + 1, self.scan.special(at + 1));
        if !self.scan.is_quote(end) {
            return self.escaped_string(at, slot);
        }
        // Where nobody wants it, the slice is not even made.
        if slot != UNWANTED {
            self.slots[usize::from(slot)] = Captured::Text(&self.scan.text[start..end]);
        }
        Some(end + 1)
    }

    #[inline(never)]
    fn escaped_string(&mut self, at: usize, slot: u16) -> Option<usize> {
        if slot == UNWANTED {
            return self.scan.skip_escaped(at);
        }
        let (end, from) = self.scan.escaped(at)?;
        self.set(slot, Captured::Escaped(from, self.scan.scratch.len()));
        Some(end)
    }

    #[inline]
    fn number(&mut self, at: usize) -> Option<(usize, Captured<'a>)> {
        let (end, number) = self.scan.number(at)?;
        let captured = match number {
            Number::Unsigned(number) => Captured::Unsigned(number),
            Number::Signed(number) => Captured::Signed(number),
            Number::Float(number) => Captured::Float(number),
            Number::Long => {
                let text = &self.scan.text[at..end];
                match text.parse() {
                    Ok(number) if f64::is_finite(number) => Captured::Integer(text),
                    _ => return self.scan.fault("a number beyond the range of f64", end),
                }
            }
        };
        Some((end, captured))
    }

    fn array(&mut self, at: usize, slot: u16, depth: u8) -> Option<usize> {
        let depth = self.enter(at, depth)?;
        self.set(slot, Captured::Array);
        let (mut at, byte) = self.scan.token(at + 1);
        if byte == b']' {
            return Some(at + 1);
        }
        loop {
            let end = self.value(at, UNWANTED, depth)?;
            let (next, byte) = self.scan.token(end);
            match byte {
                b',' => at = next + 1,
                b']' => return Some(next + 1),
                _ => return self.scan.fault("neither , nor ] after an element", next),
            }
        }
    }

    fn object(&mut self, at: usize, slot: u16, depth: u8) -> Option<usize> {
        let depth = self.enter(at, depth)?;
        self.set(slot, Captured::Object);
        if slot != UNWANTED && self.members.has_children(slot) {
            self.members_of::<true>(at + 1, slot, depth)
        } else {
            self.members_of::<false>(at + 1, UNWANTED, depth)
        }
    }

    /// The members of the object of a slot; where none of them is `WANTED`, their names are only checked.
    #[inline]
    fn members_of<const WANTED: bool>(&mut self, at: usize, slot: u16, depth: u8) -> Option<usize> {
        let (mut at, mut byte) = self.scan.token(at);
        if byte == b'}' {
            return Some(at + 1);
        }
        loop {
            if byte != b'"' {
                return self.scan.fault("not a name", at);
            }
            let (end, member) = self.name::<WANTED>(at, slot)?;
            let (colon, byte_there) = self.scan.token(end);
            if byte_there != b':' {
                return self.scan.fault("no : after a name", colon);
            }
            let end = self.value(colon + 1, member, depth)?;
            let (comma, byte_there) = self.scan.token(end);
            match byte_there {
                b',' => (at, byte) = self.scan.token(comma + 1),
                b'}' => return Some(comma + 1),
                _ => return self.scan.fault("neither , nor } after a member", comma),
            }
        }
    }

    /// How many arrays and objects a value inside the one that begins here may hold.
    #[inline]
    fn enter(&mut self, at: usize, depth: u8) -> Option<u8> {
        match depth.checked_sub(1) {
            Some(below) => Some(below),
            None => self.scan.fault("more than 128 arrays and objects inside one another", at),
        }
    }

    /// A member's name in the object of slot `object`; gives the member's slot, too.
    #[inline]
    fn name<const WANTED: bool>(&mut self, at: usize, object: u16) -> Option<(usize, u16)> {
        let (start, end) = (at + 1, self.scan.special(at + 1));
        if !self.scan.is_quote(end) {
            return self.escaped_name(at, object);
        }
        if !WANTED {
            return Some((end + 1, UNWANTED));
        }
        let member = self.members.child(object, &self.scan.bytes[start..end]);
        self.forget(member);
        Some((end + 1, member))
    }

    #[cold]
    fn escaped_name(&mut self, at: usize, object: u16) -> Option<(usize, u16)> {
        if object == UNWANTED {
            return self.scan.skip_escaped(at).map(|end| (end, UNWANTED));
        }
        let (end, from) = self.scan.escaped(at)?;
        let member = self.members.child(object, &self.scan.scratch.as_bytes()[from..]);
        self.forget(member);
        Some((end, member))
    }

    /// Where a member is repeated, what the earlier one held is forgotten.
    #[inline]
    fn forget(&mut self, member: u16) {
        if member != UNWANTED && self.slots[usize::from(member)] != Captured::Absent {
            self.slots[self.members.subtree(member)].fill(Captured::Absent);
        }
    }
}
