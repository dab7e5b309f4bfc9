//! A partition as its reader keeps it: where it stands, the ticks to replay, and the chunks that these cut.

use std::collections::VecDeque;

use whisperer_schemas::{Epoch, Micros, PartitionId};

use super::quiet::Quiet;
use crate::{source::Chunk, ticks::Tick};

/// One partition of a reader.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) id: PartitionId,
    /// Everything before it was handed out.
    pub(super) next_offset: u64,
    /// Where a bounded reading ends.
    pub(super) end: Option<u64>,
    /// Whether the end of the partition was seen, and no record since.
    pub(super) is_at_end: bool,
    /// Whether it has been at its end since the opening.
    pub(super) reached_end: bool,
    /// When its last record was written, where the log says; none before the first one here.
    pub(super) last_written: Option<Micros>,
    pub(super) ended: bool,
    pub(super) joining: Option<Joining>,
    pub(super) quiet: Quiet,
    /// Recorded ticks that have not been handed out again yet, by offset and time.
    replayed: VecDeque<Tick>,
    /// The chunk of the epoch at hand.
    chunk: u32,
    /// How many chunks of the reading's list were there before this partition's first.
    first_chunk: usize,
}

/// How far a partition is that was not there before: its clock begins at the global watermark. It is announced first, which holds the
/// watermark, then takes it when all workers have heard of it: so no timer fires in between that its records could still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joining {
    /// Nobody has heard of it.
    New,
    /// It was announced with this epoch.
    Announced(Epoch),
}

impl Partition {
    /// A partition that is read from `next_offset` on, with what the tick log holds of it.
    pub(super) fn new(id: PartitionId, next_offset: u64, ticks: &[Tick]) -> Partition {
        let replayed: VecDeque<Tick> =
            ticks.iter().filter(|tick| tick.partition == id && tick.offset >= next_offset).copied().collect();
        let advanced = replayed.iter().map(|tick| tick.time).max().unwrap_or(Micros::MIN);
        let here = replayed.iter().filter(|tick| tick.offset == next_offset);
        // Announced before a crash, and nothing since.
        let is_joining = here.map(|tick| tick.time).max() == Some(Micros::MIN);
        Partition {
            id,
            next_offset,
            end: None,
            is_at_end: false,
            reached_end: false,
            last_written: None,
            ended: false,
            joining: is_joining.then_some(Joining::New),
            quiet: Quiet::new(advanced),
            replayed,
            chunk: 0,
            first_chunk: 0,
        }
    }

    /// A partition that was not there before; one that joined before a crash has its clock in the log.
    pub(super) fn joining(id: PartitionId, next_offset: u64, ticks: &[Tick]) -> Partition {
        let mut partition = Partition::new(id, next_offset, ticks);
        let is_new = partition.replayed.is_empty();
        partition.joining = partition.joining.or(is_new.then_some(Joining::New));
        partition
    }

    /// Whether a recorded tick still lies ahead; no new one is made then.
    pub(super) fn is_replaying(&self) -> bool {
        !self.replayed.is_empty()
    }

    pub(super) fn begin_epoch(&mut self, chunks: &[Chunk]) {
        self.chunk = 0;
        self.first_chunk = chunks.len();
    }

    /// Passes over what a bounded reading does not want and gives the chunk that the record at `offset` belongs to; recorded ticks that
    /// come before it close the chunk at hand.
    pub(super) fn take(&mut self, offset: u64, chunks: &mut Vec<Chunk>) -> Option<u32> {
        if self.end.is_some_and(|end| offset >= end) {
            self.is_at_end = true;
            return None;
        }
        if let Some(tick) = self.replay(offset) {
            self.next_offset = self.next_offset.max(tick.offset);
            self.close(Some(tick.time).filter(|time| *time != Micros::MIN), chunks);
            self.chunk += 1;
        }
        self.next_offset = offset + 1;
        Some(self.chunk)
    }

    /// Closes the epoch's last chunk, with the advance that follows it.
    pub(super) fn end_epoch(&mut self, advance_to: Option<Micros>, chunks: &mut Vec<Chunk>) {
        let replayed = self.replay(self.next_offset).map(|tick| tick.time).filter(|time| *time != Micros::MIN);
        self.close(advance_to.max(replayed), chunks);
        self.ended = self.end.is_some_and(|end| self.is_at_end || self.next_offset >= end);
        chunks[self.first_chunk..].iter_mut().for_each(|chunk| chunk.ended = self.ended);
    }

    /// The last and largest of the recorded ticks up to an offset.
    fn replay(&mut self, offset: u64) -> Option<Tick> {
        let mut last: Option<Tick> = None;
        while let Some(tick) = self.replayed.front().copied().filter(|tick| tick.offset <= offset) {
            self.replayed.pop_front();
            let time = last.map_or(tick.time, |last| last.time.max(tick.time));
            last = Some(Tick { time, ..tick });
        }
        last
    }

    fn close(&mut self, advance_to: Option<Micros>, chunks: &mut Vec<Chunk>) {
        let next_offset = self.next_offset;
        chunks.push(Chunk { partition: self.id, chunk: self.chunk, next_offset, ended: false, advance_to });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: PartitionId = PartitionId(3);

    fn tick(offset: u64, time: Micros) -> Tick {
        Tick { partition: ID, offset, time }
    }

    /// Of each record its chunk, then of each chunk its end and its advance.
    type Cuts = (Vec<Option<u32>>, Vec<(u64, Option<Micros>)>);

    /// What an epoch of these offsets gives.
    fn epoch(partition: &mut Partition, offsets: &[u64]) -> Cuts {
        let mut chunks = Vec::new();
        partition.begin_epoch(&chunks);
        let taken = offsets.iter().map(|offset| partition.take(*offset, &mut chunks)).collect();
        partition.end_epoch(None, &mut chunks);
        assert!(chunks.iter().enumerate().all(|(at, chunk)| chunk.chunk as usize == at && chunk.partition == ID));
        (taken, chunks.iter().map(|chunk| (chunk.next_offset, chunk.advance_to)).collect())
    }

    #[test]
    fn a_recorded_tick_comes_exactly_before_the_record_at_its_offset() {
        // Goal: whatever the epochs of the replay, a tick divides the same records as it did the first time.
        let ticks = [tick(4, 1), tick(5, 10), tick(5, 20), tick(8, 30), tick(9, 40)];
        let mut partition = Partition::new(ID, 5, &ticks);
        assert_eq!(epoch(&mut partition, &[]), (vec![], vec![(5, Some(20))]));
        let (taken, chunks) = epoch(&mut partition, &[5, 6, 7, 8, 9, 10]);
        assert_eq!(taken, [0, 0, 0, 1, 2, 2].map(Some));
        assert_eq!(chunks, [(8, Some(30)), (9, Some(40)), (11, None)]);

        let mut other = Partition::new(ID, 5, &ticks);
        let (taken, chunks) = epoch(&mut other, &[5, 6, 7]);
        assert_eq!(taken, [1, 1, 1].map(Some));
        assert_eq!(chunks, [(5, Some(20)), (8, Some(30))]);
        assert_eq!(epoch(&mut other, &[8]), (vec![Some(0)], vec![(9, Some(40))]));
        assert!(!other.is_replaying());
    }

    #[test]
    fn gaps_in_the_offsets_move_no_tick() {
        // Goal: where a tick lies at an offset that holds no record, it comes before the next one that does.
        let mut partition = Partition::new(ID, 0, &[tick(4, 10), tick(6, 20)]);
        assert_eq!(epoch(&mut partition, &[2]), (vec![Some(0)], vec![(3, None)]));
        assert_eq!(epoch(&mut partition, &[9]), (vec![Some(1)], vec![(6, Some(20)), (10, None)]));
    }

    #[test]
    fn a_bounded_reading_ends_once_and_all_chunks_say_so() {
        // Goal: records past the end are not taken, and the chunks of the last epoch agree.
        let mut partition = Partition::new(ID, 0, &[tick(1, 10)]);
        partition.end = Some(2);
        let mut chunks = Vec::new();
        partition.begin_epoch(&chunks);
        assert_eq!([0, 1, 2].map(|offset| partition.take(offset, &mut chunks)), [Some(0), Some(1), None]);
        partition.end_epoch(None, &mut chunks);
        assert!(partition.ended && chunks.len() == 2 && chunks.iter().all(|chunk| chunk.ended));
        assert_eq!(partition.next_offset, 2);
    }

    #[test]
    fn a_partition_that_joined_before_a_crash_keeps_its_clock() {
        // Goal: announced only, it joins again; with a recorded clock it does not.
        assert_eq!(Partition::new(ID, 0, &[]).joining, None);
        assert_eq!(Partition::joining(ID, 0, &[]).joining, Some(Joining::New));
        assert_eq!(Partition::new(ID, 0, &[tick(0, Micros::MIN)]).joining, Some(Joining::New));
        let mut joined = Partition::joining(ID, 0, &[tick(0, Micros::MIN), tick(0, 70)]);
        assert_eq!(joined.joining, None);
        assert_eq!(epoch(&mut joined, &[0]), (vec![Some(1)], vec![(0, Some(70)), (1, None)]));
    }
}
