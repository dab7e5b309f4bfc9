//! The tokens of a JSON text (RFC 8259): strings, numbers, literals and white space.
//!
//! Written by hand because it is the hottest loop of a job: inlined into the walk over a record, it takes half the time of the
//! walk by a deserializer of another crate, whose calls are not inlined and whose vector code needs instructions newer than those that every
//! machine has. What it must agree on with other parsers is in the tests, which compare it with one.
//!
//! Strings are searched eight bytes at a time, in a register.

/// What is wrong, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) what: &'static str,
    pub(super) at: usize,
}

/// A string's content: a range of the text, or of the scratch buffer if it had escapes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Text {
    Plain(usize, usize),
    Escaped(usize, usize),
}

/// A number, as exactly as it is known.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Unsigned(u64),
    /// Less than zero.
    Signed(i64),
    /// An integer of more than 64 bits or a negative zero, which begins here.
    Long(usize),
    Float(f64),
}

/// A place in a text.
#[derive(Debug)]
pub(super) struct Scanner<'a, 's> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    pub(super) scratch: &'s mut String,
}

impl Scanner<'_, '_> {
    #[cold]
    pub(super) fn fault(&self, what: &'static str) -> Fault {
        Fault { what, at: self.at }
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is no white space; it is not consumed.
    #[inline]
    pub(super) fn peek_token(&mut self) -> Option<u8> {
        loop {
            match self.peek() {
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.at += 1,
                other => return other,
            }
        }
    }

    pub(super) fn literal(&mut self, literal: &str) -> Result<(), Fault> {
        if !self.text.as_bytes()[self.at..].starts_with(literal.as_bytes()) {
            return Err(self.fault("not a value"));
        }
        self.at += literal.len();
        Ok(())
    }

    /// A string; the scanner stands on its quote.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Text, Fault> {
        let start = self.at + 1;
        self.at = special(self.text.as_bytes(), start);
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                Ok(Text::Plain(start, self.at - 1))
            }
            Some(b'\\') => self.escaped(start),
            Some(_) => Err(self.fault("a control character in a string")),
            None => Err(self.fault("a string that does not end")),
        }
    }

    /// The rest of a string that begins at `start` and has its first escape here; its content goes to the scratch buffer.
    #[cold]
    fn escaped(&mut self, start: usize) -> Result<Text, Fault> {
        let from = self.scratch.len();
        self.scratch.push_str(&self.text[start..self.at]);
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    let character = self.escape()?;
                    self.scratch.push(character);
                }
                Some(_) => return Err(self.fault("a control character in a string")),
                None => return Err(self.fault("a string that does not end")),
            }
            let plain = self.at;
            self.at = special(self.text.as_bytes(), plain);
            self.scratch.push_str(&self.text[plain..self.at]);
        }
        self.at += 1;
        Ok(Text::Escaped(from, self.scratch.len()))
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let letter = self.text.as_bytes().get(self.at + 1).copied();
        let character = match letter {
            Some(b'u') => return self.code_point(),
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            _ => return Err(self.fault("not an escape")),
        };
        self.at += 2;
        Ok(character)
    }

    /// `\u` and four hex digits, or two of them where they are a surrogate pair; a surrogate alone is no character.
    fn code_point(&mut self) -> Result<char, Fault> {
        let mut code = self.code_unit()?;
        if (0xd800..0xdc00).contains(&code) {
            let low = self.code_unit()?;
            if !(0xdc00..0xe000).contains(&low) {
                return Err(self.fault("a lone surrogate"));
            }
            code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
        char::from_u32(code).ok_or_else(|| self.fault("a lone surrogate"))
    }

    fn code_unit(&mut self) -> Result<u32, Fault> {
        let unit = self.text.as_bytes().get(self.at..self.at + 6);
        let digits = unit.and_then(|unit| unit.strip_prefix(b"\\u")).unwrap_or_default();
        let digit = |sum: Option<u32>, digit: &u8| Some((sum? << 4) | char::from(*digit).to_digit(16)?);
        match digits.iter().fold(Some(0), digit) {
            Some(code) if digits.len() == 4 => {
                self.at += 6;
                Ok(code)
            }
            _ => Err(self.fault("not an escape or a lone surrogate")),
        }
    }

    /// A number; the scanner stands on its sign or first digit.
    #[inline]
    pub(super) fn number(&mut self) -> Result<Number, Fault> {
        let start = self.at;
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let first = self.at;
        let mut digits = self.digits(0)?;
        let whole = self.at - first;
        if whole > 1 && self.text.as_bytes()[first] == b'0' {
            return Err(self.fault("a number that begins with 0"));
        }
        match self.peek() {
            Some(b'.') => self.at += 1,
            Some(b'e' | b'E') => return self.long_float(start),
            _ => return Ok(integer(digits, negative, whole, start)),
        }
        let point = self.at;
        digits = self.digits(digits)?;
        let fraction = self.at - point;
        // Up to 2^53 and 10^22 both sides of the division are exact, so its result is the nearest f64 (Clinger 1990).
        if whole + fraction > 15 || matches!(self.peek(), Some(b'e' | b'E')) {
            return self.long_float(start);
        }
        let number = digits as f64 / POWERS_OF_TEN[fraction];
        Ok(Number::Float(if negative { -number } else { number }))
    }

    /// One digit or more, appended to `number`. Beyond 19 digits the result means nothing.
    #[inline]
    fn digits(&mut self, mut number: u64) -> Result<u64, Fault> {
        let start = self.at;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        if self.at == start { Err(self.fault("not a number")) } else { Ok(number) }
    }

    /// A number with an exponent or many digits, which begins at `start`; the scanner stands behind its digits.
    #[cold]
    fn long_float(&mut self, start: usize) -> Result<Number, Fault> {
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits(0)?;
        }
        match self.text[start..self.at].parse() {
            Ok(number) if f64::is_finite(number) => Ok(Number::Float(number)),
            _ => Err(self.fault("a number beyond the range of f64")),
        }
    }
}

const POWERS_OF_TEN: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

#[inline]
fn integer(number: u64, negative: bool, digits: usize, start: usize) -> Number {
    match negative {
        _ if digits > 19 => Number::Long(start),
        false => Number::Unsigned(number),
        true if number == 0 => Number::Long(start),
        true => 0_i64.checked_sub_unsigned(number).map_or(Number::Long(start), Number::Signed),
    }
}

/// The first quote, backslash or control character at `at` or behind it; the end where there is none.
#[inline]
fn special(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let found = specials(u64::from_le_bytes(*chunk));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    bytes[at..].iter().position(is_special).map_or(bytes.len(), |ahead| at + ahead)
}

/// A bit in each byte that is special; bits above the lowest one may be wrong. After "Bit Twiddling Hacks" (Anderson), `haszero`
/// and `hasless`.
#[inline]
fn specials(chunk: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (quote, backslash) = (chunk ^ (ONES * u64::from(b'"')), chunk ^ (ONES * u64::from(b'\\')));
    let below = |bytes: u64, bound: u64| bytes.wrapping_sub(ONES * bound) & !bytes;
    (below(quote, 1) | below(backslash, 1) | below(chunk, 0x20)) & (ONES << 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_bytes_are_found_at_every_place() {
        // Goal: each of the 256 bytes, alone at each place of two words, among neighbours that are near to special ones.
        for neighbour in [b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xff] {
            for byte in 0..=255_u8 {
                for place in 0..19 {
                    let mut bytes = [neighbour; 19];
                    bytes[place] = byte;
                    let expected = if byte < 0x20 || byte == b'"' || byte == b'\\' { place } else { 19 };
                    assert_eq!(special(&bytes, 0), expected, "{byte} at {place} among {neighbour}");
                }
            }
        }
    }
}
