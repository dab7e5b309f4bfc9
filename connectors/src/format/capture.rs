//! One walk over a JSON text: checks all of it, and keeps the values of the wanted members.
//!
//! Nothing is skipped unchecked: an unwanted string is decoded and an unwanted number parsed like any other, because a record with
//! a lone surrogate or a number beyond f64 anywhere is no valid record. Text without escapes is borrowed from the input, text with
//! escapes is copied to a scratch buffer.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::members::{Members, UNWANTED};

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
    slots.clear();
    slots.resize(members.slots(), Captured::Absent);
    scratch.clear();
    let mut walk = Walk { members, slots, scratch };
    let mut deserializer = sonic_rs::Deserializer::from_slice(json);
    let result = Value { walk: &mut walk, slot: 0, depth: 0 }.deserialize(&mut deserializer);
    result.and_then(|()| deserializer.end()).map_err(|error| one_line(&error))?;
    match slots[0] {
        Captured::Object => Ok(()),
        _ => Err("not an object".into()),
    }
}

/// The parser's errors go on with an excerpt of the input, which the dead letter holds anyway.
#[cold]
fn one_line(error: &sonic_rs::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or("not JSON").to_owned()
}

struct Walk<'w, 'a> {
    members: &'w Members,
    slots: &'w mut Vec<Captured<'a>>,
    scratch: &'w mut String,
}

impl<'a> Walk<'_, 'a> {
    #[inline]
    fn set(&mut self, slot: u16, value: Captured<'a>) {
        if slot != UNWANTED {
            self.slots[usize::from(slot)] = value;
        }
    }

    /// The slot of a member; of a repeated one, the values kept so far are forgotten.
    #[inline]
    fn enter(&mut self, slot: u16, name: &str) -> u16 {
        let child = self.members.child(slot, name);
        if child != UNWANTED && self.slots[usize::from(child)] != Captured::Absent {
            self.slots[self.members.subtree(child)].fill(Captured::Absent);
        }
        child
    }

    fn has_children(&self, slot: u16) -> bool {
        slot != UNWANTED && self.members.has_children(slot)
    }
}

/// A value of the member in `slot`, below `depth` arrays and objects.
struct Value<'v, 'w, 'a> {
    walk: &'v mut Walk<'w, 'a>,
    slot: u16,
    depth: u8,
}

impl Value<'_, '_, '_> {
    fn deeper<E: Error>(&self) -> Result<u8, E> {
        match self.depth {
            DEPTH_MAX => Err(E::custom(format_args!("more than {DEPTH_MAX} arrays and objects inside one another"))),
            depth => Ok(depth + 1),
        }
    }
}

impl<'a> DeserializeSeed<'a> for Value<'_, '_, 'a> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Value<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    #[inline]
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.walk.set(self.slot, Captured::Null);
        Ok(())
    }

    #[inline]
    fn visit_bool<E: Error>(self, truth: bool) -> Result<(), E> {
        self.walk.set(self.slot, Captured::Bool(truth));
        Ok(())
    }

    #[inline]
    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.walk.set(self.slot, Captured::Unsigned(number));
        Ok(())
    }

    #[inline]
    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.walk.set(self.slot, Captured::Signed(number));
        Ok(())
    }

    #[inline]
    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        if !number.is_finite() {
            return Err(E::custom("a number beyond the range of f64"));
        }
        self.walk.set(self.slot, Captured::Float(number));
        Ok(())
    }

    #[inline]
    fn visit_borrowed_str<E: Error>(self, text: &'a str) -> Result<(), E> {
        self.walk.set(self.slot, Captured::Text(text));
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if self.slot != UNWANTED {
            let start = self.walk.scratch.len();
            self.walk.scratch.push_str(text);
            self.walk.set(self.slot, Captured::Escaped(start, self.walk.scratch.len()));
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut elements: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        self.walk.set(self.slot, Captured::Array);
        while elements.next_element_seed(Value { walk: self.walk, slot: UNWANTED, depth })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'a>>(self, mut members: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        self.walk.set(self.slot, Captured::Object);
        let wanted = if self.walk.has_children(self.slot) { self.slot } else { UNWANTED };
        while let Some(slot) = members.next_key_seed(Name { walk: self.walk, object: wanted })? {
            members.next_value_seed(Value { walk: self.walk, slot, depth })?;
        }
        Ok(())
    }
}

/// A member's name; gives its slot.
struct Name<'v, 'w, 'a> {
    walk: &'v mut Walk<'w, 'a>,
    object: u16,
}

impl<'a> DeserializeSeed<'a> for Name<'_, '_, 'a> {
    type Value = u16;

    #[inline]
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<u16, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Name<'_, '_, 'a> {
    type Value = u16;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    #[inline]
    fn visit_str<E: Error>(self, name: &str) -> Result<u16, E> {
        Ok(match self.object {
            UNWANTED => UNWANTED,
            object => self.walk.enter(object, name),
        })
    }
}

/// The text of an integer too large for 64 bits, as it stands at `path`; none where something else stands there.
#[cold]
pub(super) fn integer_text(json: &[u8], path: &[String]) -> Option<String> {
    let mut text = String::from_utf8(json.to_vec()).ok()?;
    for name in path {
        let members = sonic_rs::to_object_iter(text.as_str()).filter_map(Result::ok);
        let value = members.filter(|(member, _)| member == name).last()?.1.as_raw_str().to_owned();
        text = value;
    }
    let digits = text.strip_prefix('-').unwrap_or(&text);
    let integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    integer.then_some(text)
}
