//! The tokens of a JSON text (RFC 8259): strings, numbers, literals and white space.
//!
//! Written by hand because it is the hottest loop of a job: inlined into the walk over a record, it takes half the time of the
//! walk by a deserializer of another crate, whose calls are not inlined and whose vector code needs instructions newer than those that every
//! machine has. What it must agree on with other parsers is in the tests, which compare it with one.
//!
//! Strings are searched 64 bytes at a time: [`mark`] notes once for the whole text which bytes can end a string or do not belong into
//! one, a bit for each byte, and from then on the end of a string is a count of zeros.

/// A number, as exactly as it is known.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Unsigned(u64),
    /// Less than zero.
    Signed(i64),
    /// An integer of more than 64 bits or a negative zero.
    Long,
    Float(f64),
}

/// A text, and what was found in it. Its steps take the place at which they begin and give the one behind what they went over; they give
/// none where something is wrong, which then stands in `fault`.
#[derive(Debug)]
pub(super) struct Scanner<'a, 's> {
    pub(super) text: &'a str,
    pub(super) bytes: &'a [u8],
    /// What [`mark`] made of the text.
    pub(super) marks: &'s [u64],
    pub(super) scratch: &'s mut String,
    /// What is wrong, and at which byte.
    pub(super) fault: (&'static str, usize),
}

impl Scanner<'_, '_> {
    /// Notes what is wrong.
    #[cold]
    pub(super) fn fault<T>(&mut self, what: &'static str, at: usize) -> Option<T> {
        self.fault = (what, at);
        None
    }

    /// The byte at a place; 0, which no token begins with, at the end.
    #[inline]
    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    #[inline]
    pub(super) fn is_quote(&self, at: usize) -> bool {
        self.byte(at) == b'"'
    }

    /// The next byte that is no white space, and its place.
    #[inline]
    pub(super) fn token(&self, mut at: usize) -> (usize, u8) {
        let mut byte = self.byte(at);
        while matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
            at += 1;
            byte = self.byte(at);
        }
        (at, byte)
    }

    pub(super) fn literal(&mut self, at: usize, literal: &[u8]) -> Option<usize> {
        if !self.bytes[at..].starts_with(literal) {
            return self.fault("not a value", at);
        }
        Some(at + literal.len())
    }

    /// A string with escapes, or none, whose quote stands here. Its content is appended to the scratch buffer, where it begins at the
    /// second place that is returned.
    pub(super) fn escaped(&mut self, quote: usize) -> Option<(usize, usize)> {
        let from = self.scratch.len();
        let mut plain = quote + 1;
        loop {
            let at = self.special(plain);
            self.scratch.push_str(&self.text[plain..at]);
            if !self.goes_on(at)? {
                return Some((at + 1, from));
            }
            let (end, character) = self.escape(at)?;
            self.scratch.push(character);
            plain = end;
        }
    }

    /// The same for a string that nobody wants.
    pub(super) fn skip_escaped(&mut self, quote: usize) -> Option<usize> {
        let mut at = self.special(quote + 1);
        while self.goes_on(at)? {
            let (end, _) = self.escape(at)?;
            at = self.special(end);
        }
        Some(at + 1)
    }

    /// Whether an escape stands here; if not, it is the string's last quote.
    #[inline]
    fn goes_on(&mut self, at: usize) -> Option<bool> {
        match self.bytes.get(at) {
            Some(b'\\') => Some(true),
            Some(b'"') => Some(false),
            Some(_) => self.fault("a control character in a string", at),
            None => self.fault("a string that does not end", at),
        }
    }

    /// The first quote, backslash or control character at `at` or behind it; the end where there is none.
    #[inline]
    pub(super) fn special(&self, at: usize) -> usize {
        let mut block = at / BLOCK;
        let bits = self.marks[block] >> (at % BLOCK);
        if bits != 0 {
            return at + bits.trailing_zeros() as usize;
        }
        loop {
            block += 1;
            let bits = self.marks[block];
            if bits != 0 {
                return block * BLOCK + bits.trailing_zeros() as usize;
            }
        }
    }

    #[inline]
    fn escape(&mut self, at: usize) -> Option<(usize, char)> {
        let character = match self.byte(at + 1) {
            b'u' => return self.code_point(at),
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            _ => return self.fault("not an escape", at),
        };
        Some((at + 2, character))
    }

    /// `\u` and four hex digits, or two of them where they are a surrogate pair; a surrogate alone is no character.
    fn code_point(&mut self, at: usize) -> Option<(usize, char)> {
        let mut code = self.code_unit(at)?;
        let mut end = at + UNIT_BYTES;
        if (0xd800..0xdc00).contains(&code) {
            let low = self.code_unit(end)?;
            end += UNIT_BYTES;
            if !(0xdc00..0xe000).contains(&low) {
                return self.fault("a lone surrogate", end);
            }
            code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
        match char::from_u32(code) {
            Some(character) => Some((end, character)),
            None => self.fault("a lone surrogate", end),
        }
    }

    fn code_unit(&mut self, at: usize) -> Option<u32> {
        let unit = self.bytes.get(at..at + UNIT_BYTES);
        let digits = unit.and_then(|unit| unit.strip_prefix(b"\\u")).unwrap_or_default();
        let digit = |sum: Option<u32>, digit: &u8| Some((sum? << 4) | char::from(*digit).to_digit(16)?);
        match digits.iter().fold(Some(0), digit) {
            Some(code) if digits.len() == 4 => Some(code),
            _ => self.fault("not an escape or a lone surrogate", at),
        }
    }

    /// A number; its sign or first digit stands here.
    #[inline]
    pub(super) fn number(&mut self, start: usize) -> Option<(usize, Number)> {
        let negative = self.byte(start) == b'-';
        let first = start + usize::from(negative);
        let (end, digits) = self.digits(first, 0)?;
        let whole = end - first;
        if whole > 1 && self.byte(first) == b'0' {
            return self.fault("a number that begins with 0", end);
        }
        match self.byte(end) {
            b'.' => {}
            b'e' | b'E' => return self.long_float(start, end),
            _ => return Some((end, integer(digits, negative, whole))),
        }
        let point = end + 1;
        let (end, digits) = self.digits(point, digits)?;
        let fraction = end - point;
        // Up to 2^53 and 10^22 both sides of the division are exact, so its result is the nearest f64 (Clinger 1990).
        if whole + fraction > 15 || matches!(self.byte(end), b'e' | b'E') {
            return self.long_float(start, end);
        }
        let number = digits as f64 / POWERS_OF_TEN[fraction];
        Some((end, Number::Float(if negative { -number } else { number })))
    }

    /// One digit or more, appended to `number`. Beyond 19 digits the result means nothing.
    #[inline]
    fn digits(&mut self, start: usize, mut number: u64) -> Option<(usize, u64)> {
        let mut at = start;
        loop {
            let digit = self.byte(at).wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
            at += 1;
        }
        if at == start { self.fault("not a number", at) } else { Some((at, number)) }
    }

    /// A number with an exponent or many digits, which begins at `start` and whose digits end here.
    #[cold]
    fn long_float(&mut self, start: usize, mut at: usize) -> Option<(usize, Number)> {
        if matches!(self.byte(at), b'e' | b'E') {
            at += 1;
            at += usize::from(matches!(self.byte(at), b'+' | b'-'));
            (at, _) = self.digits(at, 0)?;
        }
        match self.text[start..at].parse() {
            Ok(number) if f64::is_finite(number) => Some((at, Number::Float(number))),
            _ => self.fault("a number beyond the range of f64", at),
        }
    }
}

/// Bytes of `\u` and its four digits.
const UNIT_BYTES: usize = 6;

const POWERS_OF_TEN: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

#[inline]
fn integer(number: u64, negative: bool, digits: usize) -> Number {
    match negative {
        _ if digits > 19 => Number::Long,
        false => Number::Unsigned(number),
        true if number == 0 => Number::Long,
        true => 0_i64.checked_sub_unsigned(number).map_or(Number::Long, Number::Signed),
    }
}

/// Bytes that share a word of marks.
const BLOCK: usize = 64;

/// Fills `marks` with a bit for each byte: whether it is a quote, a backslash or a control character. Bytes behind the end are marked.
pub(super) fn mark(text: &[u8], marks: &mut Vec<u64>) {
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    // Zeros are control characters; at least one follows the text, at which every search ends.
    let mut last = [0; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    marks.clear();
    marks.extend(blocks.iter().chain([&last]).map(specials));
}

/// Two loops, since compilers know how to compare sixteen bytes at once, and not how to gather a bit of each.
#[inline]
fn specials(block: &[u8; BLOCK]) -> u64 {
    let is_special = block.map(|byte| u8::from((byte < 0x20) | (byte == b'"') | (byte == b'\\')));
    // The product has the lowest bits of the eight bytes side by side in its highest byte.
    let bits = |eight: &[u8; 8]| u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    is_special.as_chunks::<8>().0.iter().enumerate().fold(0, |all, (at, eight)| all | bits(eight) << (8 * at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_bytes_are_found_at_every_place() {
        // Goal: each of the 256 bytes, alone at each place of a block, among neighbours that are near to special ones.
        for neighbour in [b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xff] {
            for byte in 0..=255_u8 {
                for place in 0..BLOCK {
                    let mut bytes = [neighbour; BLOCK];
                    bytes[place] = byte;
                    let special = byte < 0x20 || byte == b'"' || byte == b'\\';
                    let expected = u64::from(special) << place;
                    assert_eq!(specials(&bytes), expected, "{byte} at {place} among {neighbour}");
                }
            }
        }
    }

    #[test]
    fn a_search_ends_with_the_text() {
        // Goal: from every place of texts around the length of a block, without and with a quote near the end.
        let mut marks = Vec::new();
        for length in [0_usize, 1, 63, 64, 65, 127, 128, 129] {
            for quote in [None, length.checked_sub(1)] {
                let mut text = vec![b'x'; length];
                quote.into_iter().for_each(|at| text[at] = b'"');
                mark(&text, &mut marks);
                let text = String::from_utf8(text).expect("ASCII");
                let scanner = Scanner {
                    text: &text,
                    bytes: text.as_bytes(),
                    marks: &marks,
                    scratch: &mut String::new(),
                    fault: ("", 0),
                };
                for at in 0..=length {
                    let expected = quote.filter(|quote| *quote >= at).unwrap_or(length);
                    assert_eq!(scanner.special(at), expected, "from {at} of {length}");
                }
            }
        }
    }
}
