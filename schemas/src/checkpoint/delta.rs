//! The form of a delta file, version 1.
//!
//! ```text
//! header    "WHISPDLT", version u32
//! blocks    states, sorted by (key group, key): key as 16 bytes, big-endian; varint, 0 for a removed key, else 1 + length; the state
//! sections  parts, and the outbox of each sink, as they are
//! index     epoch u64, generation u64, worker u32, full u8, layout;
//!           blocks: key group u16, length u32, states u32, xxh3-128; sections: kind u8, name, length u64, xxh3-128
//! trailer   offset of the index u64, its length u64, xxh3-128 of header, index and these two, "WHISPEND"
//! ```
//! Numbers are little-endian; layouts and names are preceded by their length as u32, blocks and sections by their count. A block holds one
//! key group and about a mebibyte at most, so that a reader of some groups reads, checks and holds only those. Blocks, sections, index and
//! trailer lie end to end: no byte is outside of every checksum, and a file that was cut anywhere has no trailer.
//!
//! Nothing is compressed: states are varints of numbers that differ, under keys that are hashes.
//!
//! Nothing here reads or writes files: the encoder appends to a buffer that its caller empties, the index says which ranges to read.

use std::ops::Range;

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::Delta;
use crate::{Epoch, KeyHash, SchemaError};

mod bytes;

use bytes::{Cursor, put_bytes, put_varint};

/// The version of delta files.
pub const DELTA_VERSION: u32 = 1;

/// Length of the header.
pub const HEADER_BYTES: usize = MAGIC.len() + 4;
/// Length of the trailer.
pub const TRAILER_BYTES: usize = 8 + 8 + 16 + END.len();

const MAGIC: &[u8; 8] = b"WHISPDLT";
const END: &[u8; 8] = b"WHISPEND";
/// A block is closed once it is this long: what a reader holds at a time, and small beside what a system call costs.
const BLOCK_BYTES: usize = 1 << 20;
/// The longest state: a block's length is a u32, and the last state of a block may follow almost [`BLOCK_BYTES`] of others.
const STATE_BYTES_MAX: usize = 1 << 31;

/// What a delta file says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeltaHead {
    /// The epoch of the checkpoint.
    pub epoch: Epoch,
    /// The generation that wrote it.
    pub generation: u64,
    /// The worker, over all processes.
    pub worker: u32,
    /// Whether it holds all states of the worker's key groups.
    pub full: bool,
    /// The layout of the states.
    pub layout: Vec<u8>,
}

/// Where states of one key group are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The key group.
    pub group: u64,
    /// Their place in the file.
    pub range: Range<u64>,
    /// How many there are, removals included.
    pub states: u32,
    xxh3: u128,
}

/// Where a part or an outbox is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Whether it is the outbox of a sink.
    pub outbox: bool,
    /// The name of the part, or of the sink.
    pub name: String,
    /// Its place in the file.
    pub range: Range<u64>,
    xxh3: u128,
}

/// What is where in a delta file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeltaIndex {
    /// What the file says of itself.
    pub head: DeltaHead,
    /// Blocks of states, in the order of key groups and keys.
    pub blocks: Vec<Block>,
    /// Parts and outboxes.
    pub sections: Vec<Section>,
}

/// Writes a delta file piece by piece: states first, then parts and outboxes, then the end.
#[derive(Debug)]
pub struct DeltaEncoder {
    index: DeltaIndex,
    block: Vec<u8>,
    /// Key group of the open block, and states in it.
    group: u64,
    states: u32,
    last: Option<(u64, KeyHash)>,
    /// Bytes of the file that are finished.
    offset: u64,
}

impl DeltaEncoder {
    /// Begins a file; its finished bytes are appended to `out`, here as in all other functions.
    pub fn new(head: DeltaHead, out: &mut Vec<u8>) -> DeltaEncoder {
        out.extend(header());
        let index = DeltaIndex { head, ..DeltaIndex::default() };
        DeltaEncoder { index, block: Vec::new(), group: 0, states: 0, last: None, offset: HEADER_BYTES as u64 }
    }

    /// Adds a state; none for a key that was removed.
    ///
    /// # Errors
    /// A key that does not come after the last one, by (key group, key), and a state of more than 2 GiB.
    pub fn state(&mut self, key: KeyHash, state: Option<&[u8]>, out: &mut Vec<u8>) -> Result<(), SchemaError> {
        let group = key.group();
        if self.last.is_some_and(|last| last >= (group, key)) || !self.index.sections.is_empty() {
            return Err(broken(format!("state {:032x} is out of order", key.0)));
        }
        let bytes = state.map_or(0, <[u8]>::len);
        if bytes > STATE_BYTES_MAX {
            return Err(broken(format!("state {:032x} is {bytes} bytes long", key.0)));
        }
        if self.group != group || self.block.len() >= BLOCK_BYTES {
            self.close_block(out);
        }
        (self.last, self.group) = (Some((group, key)), group);
        self.states += 1;
        self.block.extend(key.0.to_be_bytes());
        put_varint(&mut self.block, state.map_or(0, |state| state.len() as u64 + 1));
        self.block.extend_from_slice(state.unwrap_or_default());
        Ok(())
    }

    fn close_block(&mut self, out: &mut Vec<u8>) {
        if self.states == 0 {
            return;
        }
        let range = self.advance(self.block.len());
        self.index.blocks.push(Block { group: self.group, range, states: self.states, xxh3: xxh3_128(&self.block) });
        out.append(&mut self.block);
        self.states = 0;
    }

    /// Adds a part.
    pub fn part(&mut self, name: &str, bytes: &[u8], out: &mut Vec<u8>) {
        self.section(false, name, bytes, out);
    }

    /// Adds the outbox of a sink.
    pub fn outbox(&mut self, sink: &str, bytes: &[u8], out: &mut Vec<u8>) {
        self.section(true, sink, bytes, out);
    }

    fn section(&mut self, outbox: bool, name: &str, bytes: &[u8], out: &mut Vec<u8>) {
        self.close_block(out);
        let range = self.advance(bytes.len());
        self.index.sections.push(Section { outbox, name: name.into(), range, xxh3: xxh3_128(bytes) });
        out.extend_from_slice(bytes);
    }

    fn advance(&mut self, bytes: usize) -> Range<u64> {
        let from = self.offset;
        self.offset += bytes as u64;
        from..self.offset
    }

    /// Ends the file.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        self.close_block(out);
        let from = out.len();
        self.index.encode(out);
        let bytes = out.len() - from;
        let mut ends = [0; 16];
        ends[..8].copy_from_slice(&self.offset.to_le_bytes());
        ends[8..].copy_from_slice(&(bytes as u64).to_le_bytes());
        let xxh3 = index_checksum(&header(), &out[from..], &ends);
        out.extend(ends);
        out.extend(xxh3.to_le_bytes());
        out.extend(END);
    }
}

fn header() -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    header[MAGIC.len()..].copy_from_slice(&DELTA_VERSION.to_le_bytes());
    header
}

fn index_checksum(header: &[u8], index: &[u8], ends: &[u8]) -> u128 {
    let mut hasher = Xxh3::new();
    [header, index, ends].into_iter().for_each(|bytes| hasher.update(bytes));
    hasher.digest128()
}

fn broken(detail: impl Into<String>) -> SchemaError {
    SchemaError::Delta { detail: detail.into() }
}

/// Where the index of a file of `bytes` bytes is, by its first [`HEADER_BYTES`] and its last [`TRAILER_BYTES`].
///
/// # Errors
/// What is no delta file, or one that was cut, or one of a later version.
pub fn find_index(bytes: u64, header: &[u8], trailer: &[u8]) -> Result<Range<u64>, SchemaError> {
    let Some((magic, version)) = header.split_at_checked(MAGIC.len()) else { return Err(broken("it is too short")) };
    if magic != MAGIC || version.len() != 4 || trailer.len() != TRAILER_BYTES {
        return Err(broken("it is no delta file"));
    }
    let version = Cursor::new(version).u32()?;
    if version > DELTA_VERSION {
        return Err(SchemaError::DeltaVersion { found: version, known: DELTA_VERSION });
    }
    let mut cursor = Cursor::new(trailer);
    let (offset, length) = (cursor.u64()?, cursor.u64()?);
    let end = offset.checked_add(length).and_then(|end| end.checked_add(TRAILER_BYTES as u64));
    if version == 0
        || trailer[TRAILER_BYTES - END.len()..] != *END
        || end != Some(bytes)
        || offset < HEADER_BYTES as u64
    {
        return Err(broken("its end is missing"));
    }
    Ok(offset..offset + length)
}

impl DeltaIndex {
    /// Reads the index; `header` and `trailer` are those of [`find_index`], `index` what lies between.
    ///
    /// # Errors
    /// An index that is not as it was written.
    pub fn decode(header: &[u8], index: &[u8], trailer: &[u8]) -> Result<DeltaIndex, SchemaError> {
        let mut cursor = Cursor::new(trailer);
        let offset = cursor.u64()?;
        let _length = cursor.u64()?;
        if cursor.u128()? != index_checksum(header, index, &trailer[..16]) {
            return Err(broken("the checksum of its index does not fit"));
        }
        let mut cursor = Cursor::new(index);
        let head = DeltaHead {
            epoch: Epoch(cursor.u64()?),
            generation: cursor.u64()?,
            worker: cursor.u32()?,
            full: cursor.u8()? != 0,
            layout: cursor.bytes()?.to_vec(),
        };
        let mut at = HEADER_BYTES as u64;
        let blocks = (0..cursor.u32()?).map(|_| Block::decode(&mut cursor, &mut at)).collect::<Result<_, _>>()?;
        let sections = (0..cursor.u32()?).map(|_| Section::decode(&mut cursor, &mut at)).collect::<Result<_, _>>()?;
        if at != offset || !cursor.is_empty() {
            return Err(broken("its index does not fit its length"));
        }
        Ok(DeltaIndex { head, blocks, sections })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.head.epoch.0.to_le_bytes());
        out.extend(self.head.generation.to_le_bytes());
        out.extend(self.head.worker.to_le_bytes());
        out.push(u8::from(self.head.full));
        put_bytes(out, &self.head.layout);
        out.extend((self.blocks.len() as u32).to_le_bytes());
        for block in &self.blocks {
            out.extend((block.group as u16).to_le_bytes());
            out.extend(((block.range.end - block.range.start) as u32).to_le_bytes());
            out.extend(block.states.to_le_bytes());
            out.extend(block.xxh3.to_le_bytes());
        }
        out.extend((self.sections.len() as u32).to_le_bytes());
        for section in &self.sections {
            out.push(u8::from(section.outbox));
            put_bytes(out, section.name.as_bytes());
            out.extend((section.range.end - section.range.start).to_le_bytes());
            out.extend(section.xxh3.to_le_bytes());
        }
    }

    /// Blocks of one key group.
    pub fn group(&self, group: u64) -> &[Block] {
        let from = self.blocks.partition_point(|block| block.group < group);
        let until = self.blocks.partition_point(|block| block.group <= group);
        &self.blocks[from..until]
    }

    /// States in the file, removals included.
    #[must_use]
    pub fn states(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.states)).sum()
    }
}

impl Block {
    fn decode(cursor: &mut Cursor<'_>, at: &mut u64) -> Result<Block, SchemaError> {
        let (group, bytes, states) = (u64::from(cursor.u16()?), u64::from(cursor.u32()?), cursor.u32()?);
        let range = *at..*at + bytes;
        *at = range.end;
        Ok(Block { group, range, states, xxh3: cursor.u128()? })
    }

    /// Checks the bytes of the block and hands its states to `each`.
    ///
    /// # Errors
    /// Bytes that are not as they were written.
    pub fn states(&self, bytes: &[u8], each: &mut dyn FnMut(KeyHash, Option<&[u8]>)) -> Result<(), SchemaError> {
        if xxh3_128(bytes) != self.xxh3 {
            return Err(broken(format!("the checksum of its states at {} does not fit", self.range.start)));
        }
        let mut cursor = Cursor::new(bytes);
        for _ in 0..self.states {
            let key = KeyHash(u128::from_be_bytes(cursor.array()?));
            let length = cursor.varint()?;
            let state = if length == 0 { None } else { Some(cursor.take(length as usize - 1)?) };
            each(key, state);
        }
        if cursor.is_empty() { Ok(()) } else { Err(broken("a block of states is longer than it says")) }
    }
}

impl Section {
    fn decode(cursor: &mut Cursor<'_>, at: &mut u64) -> Result<Section, SchemaError> {
        let outbox = cursor.u8()? != 0;
        let name = String::from_utf8(cursor.bytes()?.to_vec()).map_err(|_| broken("a name is not UTF-8"))?;
        let end = at.checked_add(cursor.u64()?).ok_or_else(|| broken("a section has no end"))?;
        let range = *at..end;
        *at = end;
        Ok(Section { outbox, name, range, xxh3: cursor.u128()? })
    }

    /// Checks the bytes of the section.
    ///
    /// # Errors
    /// Bytes that are not as they were written.
    pub fn check(&self, bytes: &[u8]) -> Result<(), SchemaError> {
        if xxh3_128(bytes) == self.xxh3 {
            return Ok(());
        }
        Err(broken(format!("the checksum of \"{}\" does not fit", self.name)))
    }
}

impl Delta {
    /// What the head of its file says.
    #[must_use]
    pub fn head(&self, generation: u64) -> DeltaHead {
        DeltaHead { epoch: self.epoch, generation, worker: self.worker, full: self.full, layout: self.layout.clone() }
    }

    /// Without states, parts and outbox, as its file says of itself.
    #[must_use]
    pub fn from_head(head: &DeltaHead) -> Delta {
        Delta {
            epoch: head.epoch,
            worker: head.worker,
            full: head.full,
            layout: head.layout.clone(),
            ..Delta::default()
        }
    }

    /// Writes the file; `flush` is called whenever there is something to write, and empties the buffer.
    ///
    /// # Errors
    /// States out of order, and what `flush` answers.
    pub fn encode<E: From<SchemaError>>(
        &self,
        generation: u64,
        flush: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut out = Vec::new();
        let mut encoder = DeltaEncoder::new(self.head(generation), &mut out);
        for (key, state) in &self.states {
            encoder.state(*key, state.as_deref(), &mut out)?;
            if out.len() >= BLOCK_BYTES {
                flush(&mut out)?;
            }
        }
        for (name, bytes) in &self.parts {
            encoder.part(name, bytes, &mut out);
            flush(&mut out)?;
        }
        for (sink, bytes) in &self.outbox {
            encoder.outbox(sink, bytes, &mut out);
            flush(&mut out)?;
        }
        encoder.finish(&mut out);
        flush(&mut out)
    }

    /// Reads a file that is in memory as a whole; gives its generation too.
    ///
    /// # Errors
    /// What is not as it was written.
    pub fn decode(file: &[u8]) -> Result<(Delta, u64), SchemaError> {
        let header = file.get(..HEADER_BYTES).ok_or_else(|| broken("it is too short"))?;
        let trailer = file.len().checked_sub(TRAILER_BYTES).map(|from| &file[from..]);
        let trailer = trailer.ok_or_else(|| broken("it is too short"))?;
        let part = |range: &Range<u64>| &file[range.start as usize..range.end as usize];
        let index = part(&find_index(file.len() as u64, header, trailer)?);
        let index = DeltaIndex::decode(header, index, trailer)?;
        let mut delta = Delta::from_head(&index.head);
        for block in &index.blocks {
            let each =
                &mut |key, state: Option<&[u8]>| delta.states.push((key, state.map(::bytes::Bytes::copy_from_slice)));
            block.states(part(&block.range), each)?;
        }
        for section in &index.sections {
            section.check(part(&section.range))?;
            delta.add(section, part(&section.range).to_vec());
        }
        Ok((delta, index.head.generation))
    }

    /// Adds what a section holds.
    pub fn add(&mut self, section: &Section, bytes: Vec<u8>) {
        let sections = if section.outbox { &mut self.outbox } else { &mut self.parts };
        sections.insert(section.name.clone(), bytes);
    }
}

#[cfg(test)]
mod tests;
