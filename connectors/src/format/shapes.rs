//! Shapes: how the records of a log were written so far, to go through the next one without looking for its members.
//!
//! ```text
//! {"event_id":"evt_1","properties":{"duration":7,"page":"/"}}
//! └─ segment ─┘     └────── segment ──────────┘└ segment ┘ └┘
//! ```
//! Between two values that are no objects stands a *segment*: punctuation, names, white space. Programs write the same few segments
//! again and again, so a segment is compared as a whole with those that followed the same value before, and only values are looked at.
//! Each segment knows which members it opens and which slot the value behind it fills.
//!
//! The values are the states of a graph, told apart by their full paths as they are written, so whatever way a record takes through
//! the graph, brackets match and every value is the one that its segment says. A record that leaves the graph, or that fills a slot
//! twice, goes through the walk that understands everything, and is learnt. What is learnt is bounded; where it does not help, the
//! shapes sleep for a while.

use std::collections::HashMap;

use super::{
    capture::Captured,
    members::{Members, UNWANTED},
    scan::{Number, Scanner},
};

/// States and segments of a state that are learnt: programs that write one log differ in a few orders and a few optional members.
const STATES_MAX: usize = 512;
const SEGMENTS_MAX: usize = 24;
/// Longest segment.
const SEGMENT_BYTES_MAX: usize = 256;
/// Records after which it is asked whether the shapes help.
const JUDGED_EVERY: u32 = 1024;
/// Longest sleep, in records.
const SLEEP_MAX: u32 = 1 << 20;

/// The shapes that were met.
#[derive(Debug)]
pub(super) struct Shapes {
    states: Vec<Vec<Segment>>,
    /// States by the layout, which is the state of a record's first value, and the path.
    known: HashMap<(u16, Box<[u8]>), u16>,
    records: u32,
    misses: u32,
    /// Records that are left to sleep, and how long the last sleep was.
    asleep: u32,
    slept: u32,
}

/// What may stand between two values.
#[derive(Debug)]
struct Segment {
    /// Its first eight bytes, or all of them, and which of these bits count.
    first: u64,
    mask: u64,
    /// Its last eight bytes, if it has so many.
    last: u64,
    /// How often it stood since the shapes were last judged.
    stood: u32,
    text: Box<[u8]>,
    /// Slots of the objects that begin in it.
    opens: Box<[u16]>,
    next: Next,
    /// The slot that the value fills.
    slot: u16,
    /// The state behind the value.
    to: u16,
}

/// What follows a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// A string; the segment ends with its quote.
    Text,
    /// A number or a literal; a string where the same member held something else before.
    Other,
    /// Nothing.
    End,
}

impl Default for Shapes {
    fn default() -> Self {
        Shapes { states: vec![Vec::new()], known: HashMap::new(), records: 0, misses: 0, asleep: 0, slept: 0 }
    }
}

impl Shapes {
    /// Whether it is worth trying to follow the next record.
    #[inline]
    pub(super) fn is_awake(&mut self) -> bool {
        if self.asleep > 0 {
            self.asleep -= 1;
            return false;
        }
        self.records += 1;
        if self.records == JUDGED_EVERY {
            self.judge();
        }
        true
    }

    /// Goes through a record that is written like earlier ones; true if that filled the slots. If not, they are to be filled anew.
    #[inline]
    pub(super) fn follow<'a>(&mut self, scan: &mut Scanner<'a, '_>, slots: &mut [Captured<'a>]) -> bool {
        let (mut state, mut at) = (0, 0);
        loop {
            let Some(segment) = self.find(state, scan.bytes, at) else { return false };
            segment.stood += 1;
            for slot in &segment.opens {
                if !fill(slots, *slot, Captured::Object) {
                    return false;
                }
            }
            at += segment.text.len();
            let value = match segment.next {
                Next::Text => text(scan, at, segment.slot != UNWANTED),
                Next::Other => other(scan, at, segment.slot != UNWANTED),
                Next::End => return true,
            };
            let Some((end, captured)) = value else { return false };
            if segment.slot != UNWANTED && !fill(slots, segment.slot, captured) {
                return false;
            }
            (state, at) = (usize::from(segment.to), end);
        }
    }

    #[inline]
    fn find(&mut self, state: usize, bytes: &[u8], at: usize) -> Option<&mut Segment> {
        let rest = bytes.get(at..)?;
        let first = first_word(rest);
        let mut segments = self.states[state].iter_mut();
        segments.find(|segment| (first ^ segment.first) & segment.mask == 0 && segment.stands(rest))
    }

    /// Learns a record that is valid and was not followed.
    pub(super) fn learn(&mut self, scan: &mut Scanner<'_, '_>, members: &Members) {
        self.misses += 1;
        let mut learner =
            Learner { shapes: self, scan, members, state: 0, from: 0, layout: 0, opens: vec![], path: vec![] };
        // Where it cannot be learnt as a whole, what was learnt of it is right all the same.
        learner.record();
    }

    /// Forgets everything where most records are not followed: the log may have come to look otherwise. Where that does not help
    /// either, each time for longer, it is not tried.
    #[cold]
    fn judge(&mut self) {
        if self.misses > JUDGED_EVERY / 2 {
            self.asleep = self.slept;
            self.slept = (2 * self.slept).clamp(JUDGED_EVERY, SLEEP_MAX);
            self.states = vec![Vec::new()];
            self.known.clear();
        } else {
            self.slept = 0;
            for segments in &mut self.states {
                // Segments are tried in this order.
                segments.sort_by_key(|segment| std::cmp::Reverse(segment.stood));
                segments.iter_mut().for_each(|segment| segment.stood = 0);
            }
        }
        (self.records, self.misses) = (0, 0);
    }
}

impl Segment {
    /// Whether this is how `rest` begins, its first eight bytes being as they should.
    #[inline]
    fn stands(&self, rest: &[u8]) -> bool {
        let bytes = self.text.len();
        match self.next {
            Next::End => *rest == *self.text,
            // Settled by their first bytes.
            _ if bytes <= 8 => true,
            _ if bytes <= 16 => {
                let last = rest.get(bytes - 8..bytes).and_then(|last| last.first_chunk());
                last.is_some_and(|last| u64::from_le_bytes(*last) == self.last)
            }
            _ => rest.starts_with(&self.text),
        }
    }
}

/// The first eight bytes, little-endian; zeros where there are fewer.
#[inline]
fn first_word(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(eight) => u64::from_le_bytes(*eight),
        None => bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

#[inline]
fn fill<'a>(slots: &mut [Captured<'a>], slot: u16, value: Captured<'a>) -> bool {
    let slot = &mut slots[usize::from(slot)];
    let empty = matches!(slot, Captured::Absent);
    *slot = value;
    empty
}

/// A string that begins behind its quote.
#[inline]
fn text<'a>(scan: &mut Scanner<'a, '_>, start: usize, wanted: bool) -> Option<(usize, Captured<'a>)> {
    let end = scan.special(start);
    if !scan.is_quote(end) {
        return escaped(scan, start, wanted);
    }
    // Where nobody wants it, the slice is not even made.
    let captured = if wanted { Captured::Text(&scan.text[start..end]) } else { Captured::Absent };
    Some((end + 1, captured))
}

#[inline(never)]
fn escaped<'a>(scan: &mut Scanner<'a, '_>, start: usize, wanted: bool) -> Option<(usize, Captured<'a>)> {
    if !wanted {
        return scan.skip_escaped(start - 1).map(|end| (end, Captured::Absent));
    }
    let (end, from) = scan.escaped(start - 1)?;
    Some((end, Captured::Escaped(from, scan.scratch.len())))
}

/// A number or a literal. Numbers that are kept as their text are left to the walk.
#[inline]
fn other<'a>(scan: &mut Scanner<'a, '_>, at: usize, wanted: bool) -> Option<(usize, Captured<'a>)> {
    let literal = |end: usize, captured| Some((end, captured));
    match scan.bytes.get(at)? {
        b'-' | b'0'..=b'9' => {
            let (end, number) = scan.number(at)?;
            let captured = match number {
                Number::Unsigned(number) => Captured::Unsigned(number),
                Number::Signed(number) => Captured::Signed(number),
                Number::Float(number) => Captured::Float(number),
                Number::Long => return None,
            };
            Some((end, captured))
        }
        b'"' => text(scan, at + 1, wanted),
        b't' => literal(scan.literal(at, b"true")?, Captured::Bool(true)),
        b'f' => literal(scan.literal(at, b"false")?, Captured::Bool(false)),
        b'n' => literal(scan.literal(at, b"null")?, Captured::Null),
        _ => None,
    }
}

/// A valid record on its way into the graph.
struct Learner<'l, 'a, 's> {
    shapes: &'l mut Shapes,
    scan: &'l mut Scanner<'a, 's>,
    members: &'l Members,
    state: u16,
    /// Where the segment begins.
    from: usize,
    layout: u16,
    opens: Vec<u16>,
    /// The names from the root as they are written, quotes included.
    path: Vec<u8>,
}

impl Learner<'_, '_, '_> {
    fn record(&mut self) -> Option<()> {
        let (at, _) = self.scan.token(0);
        self.object(at, 0)?;
        self.segment(self.scan.bytes.len(), Next::End, UNWANTED)
    }

    /// The object that begins here; gives the place behind it.
    fn object(&mut self, at: usize, slot: u16) -> Option<usize> {
        let wanted = slot != UNWANTED && self.members.has_children(slot);
        if slot != UNWANTED {
            self.opens.push(slot);
        }
        let (mut at, byte) = self.scan.token(at + 1);
        if byte == b'}' {
            return Some(at + 1);
        }
        loop {
            let end = self.scan.special(at + 1);
            // Names with escapes are not worth it.
            let name = self.scan.is_quote(end).then(|| &self.scan.bytes[at + 1..end])?;
            let member = if wanted { self.members.child(slot, name) } else { UNWANTED };
            let above = self.path.len();
            self.path.extend_from_slice(&self.scan.bytes[at..=end]);
            let (colon, _) = self.scan.token(end + 1);
            let end = self.value(colon + 1, member)?;
            self.path.truncate(above);
            let (comma, byte) = self.scan.token(end);
            if byte == b'}' {
                return Some(comma + 1);
            }
            (at, _) = self.scan.token(comma + 1);
        }
    }

    fn value(&mut self, at: usize, member: u16) -> Option<usize> {
        let (at, byte) = self.scan.token(at);
        let end = match byte {
            b'{' => return self.object(at, member),
            // Arrays have no names that would tell their elements apart.
            b'[' => return None,
            b'"' => {
                self.segment(at + 1, Next::Text, member)?;
                text(self.scan, at + 1, false)?.0
            }
            _ => {
                self.segment(at, Next::Other, member)?;
                other(self.scan, at, false)?.0
            }
        };
        self.from = end;
        Some(end)
    }

    /// Goes over the segment that ends here, which is noted if it is new and there is room.
    fn segment(&mut self, until: usize, next: Next, slot: u16) -> Option<()> {
        let text = &self.scan.bytes[self.from..until];
        let opens = std::mem::take(&mut self.opens);
        let to = if next == Next::End { 0 } else { self.target()? };
        let same = |known: &&Segment| *known.text == *text && known.next == next;
        let segments = &self.shapes.states[usize::from(self.state)];
        if segments.iter().find(same).is_none() {
            if segments.len() >= SEGMENTS_MAX || text.len() > SEGMENT_BYTES_MAX {
                return None;
            }
            let mask = u64::MAX >> (64 - 8 * text.len().clamp(1, 8));
            let mask = if text.is_empty() { 0 } else { mask };
            let last = text.last_chunk().map_or(0, |last| u64::from_le_bytes(*last));
            let (first, opens) = (first_word(text), opens.into());
            let segment = Segment { first, mask, last, stood: 0, text: text.into(), opens, next, slot, to };
            self.shapes.states[usize::from(self.state)].push(segment);
        }
        self.state = to;
        Some(())
    }

    /// The state of the value at the path.
    fn target(&mut self) -> Option<u16> {
        let key = (self.layout, self.path.as_slice().into());
        let Shapes { states, known, .. } = &mut *self.shapes;
        let to = match known.get(&key) {
            Some(to) => *to,
            None if states.len() < STATES_MAX => {
                states.push(Vec::new());
                let to = (states.len() - 1) as u16;
                known.insert(key, to);
                to
            }
            None => return None,
        };
        if self.layout == 0 {
            self.layout = to;
        }
        Some(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::capture::{Scratch, capture};

    /// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.0;
            word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            (word ^ word >> 31) % bound
        }

        fn one_of(&mut self, texts: &[&'static str]) -> &'static str {
            texts[self.below(texts.len() as u64) as usize]
        }

        fn value(&mut self, depth: u64) -> String {
            match self.below(9) {
                0 if depth > 0 => self.object(depth - 1),
                1 if depth > 0 => format!("[{},{}]", self.value(0), self.value(0)),
                2 => self.one_of(&["{}", "[]", "{ }"]).to_owned(),
                3 => self.one_of(&["null", "true", "false"]).to_owned(),
                4 => self
                    .one_of(&["0", "-1", "1.5", "1e3", "12345678901234567890123", "-0", "01", "1.", "1e999"])
                    .to_owned(),
                5 => self.one_of(&[r#""\u00e9\n""#, r#""a\"b""#, r#""\ud800""#, "\"\u{1}\"", r#""\x""#]).to_owned(),
                _ => self.one_of(&["\"\"", "\"text\"", "\"a longer text, of more than sixteen bytes\""]).to_owned(),
            }
        }

        /// Mostly in one of two orders, with members missing, repeated and unknown, and with brackets where they do not belong.
        fn object(&mut self, depth: u64) -> String {
            let mut names = vec!["id", "properties", "value", "a_rather_long_name", "other", "properties"];
            if self.below(2) == 0 {
                names.reverse();
            }
            names.retain(|_| self.below(3) > 0);
            let colon = self.one_of(&[":", ": ", ":"]);
            let members: Vec<String> =
                names.iter().map(|name| format!("\"{name}\"{colon}{}", self.value(depth))).collect();
            let comma = self.one_of(&[",", ",", ", ", ",,", "}"]);
            format!("{{{}}}", members.join(comma))
        }
    }

    /// What a record gives: the slots with texts resolved, or what is wrong with it.
    fn filled(json: &str, members: &Members, scratch: &mut Scratch) -> Result<String, String> {
        let mut slots = Vec::new();
        capture(json.as_bytes(), members, &mut slots, scratch)?;
        let resolved = slots.iter().map(|slot| match slot {
            Captured::Escaped(start, end) => format!("{:?}", Captured::Text(&scratch.texts[*start..*end])),
            other => format!("{other:?}"),
        });
        Ok(resolved.collect())
    }

    #[test]
    fn a_followed_record_is_read_like_any_other() {
        // Goal: whatever was learnt before, a record gives what it gives to a reader that has learnt nothing. Objects of few names,
        // valid and not, so that most segments are known and most records leave the graph somewhere.
        let path = |dotted: &str| dotted.split('.').map(str::to_owned).collect::<Vec<_>>();
        let wanted = ["id", "properties", "properties.value", "properties.properties.id", "a_rather_long_name"];
        let members = Members::new(&wanted.map(path));
        for seed in 0..20 {
            let (mut random, mut scratch) = (Random(seed), Scratch::default());
            for _ in 0..3_000 {
                let json = random.object(2);
                let expected = filled(&json, &members, &mut Scratch::default());
                assert_eq!(filled(&json, &members, &mut scratch), expected, "{json}");
            }
        }
    }

    #[test]
    fn known_shapes_are_followed_and_unknown_ones_learnt() {
        // Goal: the second record of a shape is followed, with other values, an escape among them; what repeats a slot is not.
        let members = Members::new(&[vec!["id".to_owned()], vec!["duration".to_owned()]]);
        let mut scratch = Scratch::default();
        let mut follows = |json: &str| {
            let before = scratch.shapes.misses;
            filled(json, &members, &mut scratch).expect("valid");
            scratch.shapes.misses == before
        };
        assert!(!follows(r#"{"id":"a","duration":1}"#));
        assert!(follows(r#"{"id":"b","duration":-22.5}"#));
        assert!(follows(r#"{"id":"\"","duration":null}"#));
        assert!(!follows(r#"{"id":"b"}"#));
        assert!(follows(r#"{"id":"c"}"#));
        for _ in 0..3 {
            assert!(!follows(r#"{"id":"c","id":"d"}"#));
        }
    }

    #[test]
    fn shapes_that_do_not_help_sleep_longer_and_longer() {
        // Goal: records that are all different are not learnt for ever, and a log that settles is followed again.
        let members = Members::new(&[vec!["id".to_owned()]]);
        let mut scratch = Scratch::default();
        for index in 0..200_000 {
            let json = format!("{{\"id\":1,\"n{index}\":2}}");
            filled(&json, &members, &mut scratch).expect("valid");
            assert!(scratch.shapes.states.len() <= STATES_MAX);
        }
        assert!(scratch.shapes.slept > JUDGED_EVERY);
        for _ in 0..400_000 {
            filled("{\"id\":1}", &members, &mut scratch).expect("valid");
        }
        assert_eq!((scratch.shapes.slept, scratch.shapes.asleep), (0, 0));
    }
}
