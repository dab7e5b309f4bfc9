//! Fills the slots of a record from values that are not JSON text.

use std::fmt::{self, Write};

use whisperer_schemas::time::{Micros, format_micros};

use crate::format::{
    capture::Captured,
    members::{Members, UNWANTED},
    time::in_range,
};

/// The slots of a record on their way.
pub(super) struct Filling<'w, 'a> {
    pub(super) members: &'w Members,
    pub(super) slots: &'w mut [Captured<'a>],
    pub(super) scratch: &'w mut String,
}

impl<'a> Filling<'_, 'a> {
    /// The slot of a member of the object in `slot`.
    pub(super) fn child(&self, slot: u16, name: &str) -> u16 {
        if slot == UNWANTED { UNWANTED } else { self.members.child(slot, name.as_bytes()) }
    }

    pub(super) fn set(&mut self, slot: u16, value: Captured<'a>) {
        if slot != UNWANTED {
            self.slots[usize::from(slot)] = value;
        }
    }

    pub(super) fn integer(&mut self, slot: u16, number: i64) {
        self.set(slot, u64::try_from(number).map_or(Captured::Signed(number), Captured::Unsigned));
    }

    /// A number with a fraction.
    ///
    /// # Errors
    /// Where it is NaN or infinite, which no record may hold anywhere.
    pub(super) fn float(&mut self, slot: u16, number: f64) -> Result<(), String> {
        if !number.is_finite() {
            return Err(format!("{number} is not a number"));
        }
        self.set(slot, Captured::Float(number));
        Ok(())
    }

    /// A text that does not live as long as the record.
    pub(super) fn text(&mut self, slot: u16, text: fmt::Arguments<'_>) {
        if slot != UNWANTED {
            let start = self.scratch.len();
            self.scratch.write_fmt(text).expect("a String takes every write");
            self.set(slot, Captured::Escaped(start, self.scratch.len()));
        }
    }

    /// An instant as RFC 3339; one before the year 0 or after 9999 stays the number that it is.
    pub(super) fn instant(&mut self, slot: u16, micros: i128) {
        match in_range(micros) {
            Some(time) => self.text(slot, format_args!("{}", format_micros(time))),
            None => self.set(slot, Captured::Float(micros as f64)),
        }
    }

    /// A time without an offset.
    pub(super) fn local(&mut self, slot: u16, micros: i128) {
        match in_range(micros) {
            Some(time) => self.text(slot, format_args!("{}", civil(time))),
            None => self.set(slot, Captured::Float(micros as f64)),
        }
    }

    /// Bytes as Base64 (RFC 4648), which is how JSON forms of other formats write them.
    pub(super) fn bytes(&mut self, slot: u16, bytes: &[u8]) {
        if slot != UNWANTED {
            self.text(slot, format_args!("{}", base64(bytes)));
        }
    }

    /// The 16 bytes of a UUID.
    pub(super) fn uuid(&mut self, slot: u16, bytes: [u8; 16]) {
        let number = u128::from_be_bytes(bytes);
        let part = |shift: u32, digits: u32| (number >> shift) & ((1 << (4 * digits)) - 1);
        let (a, b, c, d, e) = (part(96, 8), part(80, 4), part(64, 4), part(48, 4), part(0, 12));
        self.text(slot, format_args!("{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}"));
    }
}

fn civil(time: Micros) -> String {
    let mut text = format_micros(time).to_string();
    text.truncate(text.trim_end_matches('Z').len());
    text
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        // Goal: the test vectors of RFC 4648, section 10, and bytes beyond ASCII.
        let vectors = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (length, expected) in vectors.iter().enumerate() {
            assert_eq!(base64(&b"foobar"[..length]), *expected);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }

    #[test]
    fn uuids_times_and_long_texts_have_their_forms() {
        // Goal: every part of a UUID with its zeros; local times without an offset; what no calendar has stays a number.
        let members = Members::new(&[vec!["a".to_owned()]]);
        let (mut slots, mut scratch) = (vec![Captured::Absent; 2], String::new());
        let mut filling = Filling { members: &members, slots: &mut slots, scratch: &mut scratch };
        let mut bytes = [0; 16];
        (bytes[3], bytes[8], bytes[15]) = (1, 0xab, 0xf);
        filling.uuid(1, bytes);
        filling.local(1, 1_500_000);
        filling.instant(1, -1);
        assert_eq!(
            scratch,
            "00000001-0000-0000-ab00-00000000000f1970-01-01T00:00:01.5000001969-12-31T23:59:59.999999Z"
        );
        let mut filling = Filling { members: &members, slots: &mut slots, scratch: &mut scratch };
        filling.instant(1, i128::from(i64::MAX));
        assert_eq!(slots[1], Captured::Float(i64::MAX as f64));
    }
}
