//! Messages, and their compact form in the outbox of a checkpoint.
//!
//! An outbox begins with a byte for the version of its layout. Then comes message after message:
//!
//! ```text
//! key        varint: 0 for none, else length + 1; bytes
//! value      the same
//! headers    varint: how many; of each its name and its value: varint length, bytes
//! ```
//! A varint has seven bits a byte, the lowest first, the highest bit telling that more follow.

/// The version of the layout.
const VERSION: u8 = 2;

/// What is sent, or was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Message<'a, H> {
    pub key: Option<&'a [u8]>,
    /// None makes it a tombstone.
    pub value: Option<&'a [u8]>,
    pub headers: H,
}

/// A header: its name and value.
pub(super) type Header<'a> = (&'a str, &'a [u8]);

/// Appends `message` to an outbox.
pub(super) fn append(message: &Message<'_, &[Header<'_>]>, outbox: &mut Vec<u8>) {
    if outbox.is_empty() {
        outbox.push(VERSION);
    }
    for part in [message.key, message.value] {
        append_varint(part.map_or(0, |bytes| bytes.len() as u64 + 1), outbox);
        outbox.extend_from_slice(part.unwrap_or_default());
    }
    append_varint(message.headers.len() as u64, outbox);
    for (name, value) in message.headers {
        for bytes in [name.as_bytes(), value] {
            append_varint(bytes.len() as u64, outbox);
            outbox.extend_from_slice(bytes);
        }
    }
}

/// The messages of an outbox, in order.
pub(super) struct Messages<'a> {
    left: &'a [u8],
}

impl<'a> Messages<'a> {
    /// Of `outbox`, which may be empty.
    pub(super) fn of(outbox: &'a [u8]) -> Result<Messages<'a>, String> {
        match outbox.split_first() {
            None => Ok(Messages { left: &[] }),
            Some((&VERSION, left)) => Ok(Messages { left }),
            Some((version, _)) => Err(format!("the outbox has version {version}; this release reads {VERSION}")),
        }
    }

    fn read(&mut self) -> Option<Message<'a, Vec<Header<'a>>>> {
        let key = self.optional()?;
        let value = self.optional()?;
        let count = self.varint()?;
        let headers = (0..count).map(|_| self.header()).collect::<Option<_>>()?;
        Some(Message { key, value, headers })
    }

    fn optional(&mut self) -> Option<Option<&'a [u8]>> {
        match self.varint()?.checked_sub(1) {
            None => Some(None),
            Some(length) => Some(Some(self.bytes(length)?)),
        }
    }

    fn header(&mut self) -> Option<Header<'a>> {
        let length = self.varint()?;
        let name = str::from_utf8(self.bytes(length)?).ok()?;
        let length = self.varint()?;
        Some((name, self.bytes(length)?))
    }

    fn bytes(&mut self, length: u64) -> Option<&'a [u8]> {
        let (bytes, left) = self.left.split_at_checked(usize::try_from(length).ok()?)?;
        self.left = left;
        Some(bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (byte, left) = self.left.split_first()?;
            self.left = left;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a, Vec<Header<'a>>>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let message = self.read().ok_or_else(|| "the outbox ends inside a message".to_owned());
        if message.is_err() {
            self.left = &[];
        }
        Some(message)
    }
}

fn append_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Message<'static, &'static [Header<'static>]>> {
        vec![
            Message { key: Some(b"k"), value: Some(b"{}"), headers: &[("id", b"7"), ("", b"")] },
            Message { key: None, value: Some(b""), headers: &[] },
            Message { key: Some(&[7; 300]), value: None, headers: &[("gr\u{fc}n", &[0, 255])] },
        ]
    }

    fn encoded() -> Vec<u8> {
        let mut outbox = Vec::new();
        samples().iter().for_each(|message| append(message, &mut outbox));
        outbox
    }

    /// Goal: messages come back as they were, nulls and empty parts told apart.
    #[test]
    fn messages_come_back() {
        let outbox = encoded();
        let read: Vec<_> = Messages::of(&outbox).unwrap().map(Result::unwrap).collect();
        assert_eq!(read.len(), samples().len());
        for (read, sample) in read.iter().zip(samples()) {
            let Message { key, value, headers } = read;
            assert_eq!((*key, *value, headers.as_slice()), (sample.key, sample.value, sample.headers));
        }
        assert_eq!(Messages::of(&[]).unwrap().count(), 0);
    }

    /// Goal: an outbox of this release stays readable by later ones; its first message's bytes are fixed.
    #[test]
    fn bytes_do_not_change() {
        let mut outbox = Vec::new();
        append(&samples()[0], &mut outbox);
        assert_eq!(outbox, [2, 2, b'k', 3, b'{', b'}', 2, 2, b'i', b'd', 1, b'7', 0, 0]);
    }

    /// Goal: an outbox that is cut or of another version is an error, wherever it is cut, and never a shorter list of messages.
    #[test]
    fn damage_is_an_error() {
        let outbox = encoded();
        let mut ends = Vec::new();
        let mut messages = Messages::of(&outbox).unwrap();
        while messages.next().is_some() {
            ends.push(outbox.len() - messages.left.len());
        }
        for length in (1..outbox.len()).filter(|length| *length > 1 && !ends.contains(length)) {
            let whole = Messages::of(&outbox[..length]).unwrap().all(|message| message.is_ok());
            assert!(!whole, "cut at {length} of {}", outbox.len());
        }
        assert!(Messages::of(&[9, 1]).is_err());
    }
}
