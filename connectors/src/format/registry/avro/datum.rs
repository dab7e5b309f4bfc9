//! One Avro message: the binary encoding of the Avro specification, read front to back.

use whisperer_schemas::time::DAY;

use super::{Integer, Type, Unit};
use crate::format::{
    capture::{Captured, DEPTH_MAX},
    members::UNWANTED,
    registry::filling::Filling,
};

/// Bytes of a decimal: no f64 has more.
const DECIMAL_BYTES_MAX: usize = 128;

const ENDS: &str = "it ends too early";

/// A place in a message.
pub(super) struct Datum<'t, 'a> {
    types: &'t [Type],
    bytes: &'a [u8],
}

impl<'t, 'a> Datum<'t, 'a> {
    pub(super) fn new(types: &'t [Type], bytes: &'a [u8]) -> Datum<'t, 'a> {
        Datum { types, bytes }
    }

    /// Reads the whole message as one value of a type.
    pub(super) fn read(mut self, root: usize, filling: &mut Filling<'_, 'a>) -> Result<(), String> {
        self.value(root, 0, DEPTH_MAX, filling)?;
        match self.bytes.len() {
            0 => Ok(()),
            more => Err(format!("{more} bytes follow it")),
        }
    }

    /// A value of the member in `slot`, which may hold as many others inside one another as `depth` says.
    fn value(&mut self, place: usize, slot: u16, depth: u8, filling: &mut Filling<'_, 'a>) -> Result<(), String> {
        let depth = depth.checked_sub(1).ok_or("more than 128 values inside one another")?;
        let types = self.types;
        match &types[place] {
            Type::Null => filling.set(slot, Captured::Null),
            Type::Boolean => {
                let truth = self.boolean()?;
                filling.set(slot, Captured::Bool(truth));
            }
            Type::Integer(integer) => integer.fill(self.long()?, slot, filling),
            Type::Float => return filling.float(slot, f64::from(f32::from_le_bytes(self.array()?))),
            Type::Double => return filling.float(slot, f64::from_le_bytes(self.array()?)),
            Type::Bytes => filling.bytes(slot, self.sized()?),
            Type::Text => {
                let text = self.text()?;
                filling.set(slot, Captured::Text(text));
            }
            Type::Fixed(size) => filling.bytes(slot, self.take(*size)?),
            Type::Decimal(scale, size) => {
                let bytes = match size {
                    Some(size) => self.take(*size)?,
                    None => self.sized()?,
                };
                return decimal(bytes, *scale, slot, filling);
            }
            Type::Uuid { sized } => {
                let bytes = if *sized { self.sized()? } else { self.take(16)? };
                filling.uuid(slot, bytes.try_into().map_err(|_| "a UUID that is not 16 bytes".to_owned())?);
            }
            Type::Enum(symbols) => {
                let symbol = usize::try_from(self.long()?).ok().and_then(|index| symbols.get(index));
                filling.text(slot, format_args!("{}", symbol.ok_or("a symbol that the enum does not have")?));
            }
            Type::Union(variants) => {
                let variant = usize::try_from(self.long()?).ok().and_then(|index| variants.get(index));
                return self.value(*variant.ok_or("a type that the union does not have")?, slot, depth, filling);
            }
            Type::Record(fields) => {
                filling.set(slot, Captured::Object);
                for (name, field) in fields {
                    self.value(*field, filling.child(slot, name), depth, filling)?;
                }
            }
            Type::Map(values) => {
                filling.set(slot, Captured::Object);
                return self.blocks(|datum| {
                    let child = filling.child(slot, datum.text()?);
                    datum.value(*values, child, depth, filling)
                });
            }
            Type::Array(items) => {
                filling.set(slot, Captured::Array);
                return self.blocks(|datum| datum.value(*items, UNWANTED, depth, filling));
            }
        }
        Ok(())
    }

    /// The items of an array or a map: blocks with their counts, and an empty one at the end.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), String>) -> Result<(), String> {
        loop {
            let mut count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // The block's size in bytes, for readers that skip it.
                self.long()?;
                count = count.checked_neg().ok_or("a block of too many items")?;
            }
            for _ in 0..count {
                let before = self.bytes.len();
                item(self)?;
                if self.bytes.len() == before {
                    // Items without content could be counted in quintillions.
                    return Err("items without content".to_owned());
                }
            }
        }
    }

    fn take(&mut self, size: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.bytes.split_at_checked(size).ok_or(ENDS)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(ENDS)?;
        self.bytes = rest;
        Ok(*taken)
    }

    /// Bytes with their length before them.
    fn sized(&mut self) -> Result<&'a [u8], String> {
        let size = self.long()?;
        self.take(usize::try_from(size).map_err(|_| "a length below zero".to_owned())?)
    }

    fn text(&mut self) -> Result<&'a str, String> {
        std::str::from_utf8(self.sized()?).map_err(|_| "a text that is not UTF-8".to_owned())
    }

    fn boolean(&mut self) -> Result<bool, String> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(format!("{other} is not a truth value")),
        }
    }

    /// A number of up to 64 bits: seven in each byte, the lowest ones first, signs in the lowest bit.
    fn long(&mut self) -> Result<i64, String> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err("a number of more than 64 bits".to_owned())
    }
}

impl Integer {
    fn fill(self, number: i64, slot: u16, filling: &mut Filling<'_, '_>) {
        match self {
            Integer::Number => filling.integer(slot, number),
            Integer::Date => {
                let start = filling.scratch.len();
                filling.local(slot, i128::from(number) * i128::from(DAY));
                // The day alone: its time of day says nothing.
                if let Some(middle) = filling.scratch[start..].find('T') {
                    filling.scratch.truncate(start + middle);
                    filling.set(slot, Captured::Escaped(start, start + middle));
                }
            }
            Integer::Instant(unit) => filling.instant(slot, unit.micros(number)),
            Integer::Local(unit) => filling.local(slot, unit.micros(number)),
        }
    }
}

impl Unit {
    fn micros(self, number: i64) -> i128 {
        match self {
            Unit::Millis => i128::from(number) * 1_000,
            Unit::Micros => i128::from(number),
            Unit::Nanos => i128::from(number).div_euclid(1_000),
        }
    }
}

/// A decimal as the nearest f64, or as an integer where it has no fraction and fits into 64 bits.
fn decimal(bytes: &[u8], scale: usize, slot: u16, filling: &mut Filling<'_, '_>) -> Result<(), String> {
    if bytes.len() > DECIMAL_BYTES_MAX {
        return Err(format!("a decimal of {} bytes", bytes.len()));
    }
    let text = decimal_text(bytes);
    match text.parse::<i64>() {
        Ok(number) if scale == 0 => filling.integer(slot, number),
        // The standard library's parse is correctly rounded, and the text is exact.
        _ => filling.float(slot, format!("{text}e-{scale}").parse().unwrap_or(f64::NAN))?,
    }
    Ok(())
}

/// The decimal digits of a big-endian two's complement number.
fn decimal_text(bytes: &[u8]) -> String {
    let negative = bytes.first().is_some_and(|first| *first >= 0x80);
    // Of a negative number, the digits of its complement, which is one less than its absolute value.
    let mut digits: Vec<u8> = vec![0];
    let add = |digits: &mut Vec<u8>, factor: u32, mut carry: u32| {
        for digit in digits.iter_mut() {
            carry += u32::from(*digit) * factor;
            *digit = (carry % 10) as u8;
            carry /= 10;
        }
        while carry > 0 {
            digits.push((carry % 10) as u8);
            carry /= 10;
        }
    };
    for byte in bytes {
        add(&mut digits, 256, u32::from(if negative { !*byte } else { *byte }));
    }
    add(&mut digits, 1, u32::from(negative));
    let sign = if negative { "-" } else { "" };
    digits.iter().rev().fold(sign.to_owned(), |text, digit| text + &digit.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_in_digits() {
        // Goal: signs, carries, sign extension and more than 128 bits; the measure is i128 where it reaches.
        for number in [0, 1, -1, 127, 128, -128, -129, 255, 256, 12_345, -99_999_999_999, i128::MAX, i128::MIN] {
            assert_eq!(decimal_text(&number.to_be_bytes()), number.to_string());
        }
        assert_eq!(decimal_text(&[]), "0");
        assert_eq!(decimal_text(&[0xff]), "-1");
        let mut large = vec![1];
        large.extend([0; 17]);
        assert_eq!(decimal_text(&large), "87112285931760246646623899502532662132736");
    }

    #[test]
    fn long_numbers_are_zigzag() {
        // Goal: the examples of the Avro specification, both ends of the range, and what is no number.
        let long = |bytes: &[u8]| Datum::new(&[], bytes).long();
        for (bytes, number) in [(&[0_u8][..], 0), (&[1], -1), (&[2], 1), (&[0x7f], -64), (&[0x80, 1], 64)] {
            assert_eq!(long(bytes), Ok(number));
        }
        let mut most = [0xff; 10];
        most[9] = 1;
        assert_eq!(long(&most), Ok(i64::MIN));
        most[0] = 0xfe;
        assert_eq!(long(&most), Ok(i64::MAX));
        assert!(long(&[0x80]).is_err() && long(&[0x80; 11]).is_err() && long(&[]).is_err());
    }
}
