//! `history`: files first, then a live source that overlaps with them.
//!
//! The files are partitions of history ([`PartitionId::HISTORY`]); nothing of the live source is handed out before all of them have come
//! to their end on all workers, so that the events of a key stay in the order of time. Where the live source begins is settled when it
//! is opened, and what it then repeats of the files is for the job's dedup to find.

use std::sync::Arc;

use whisperer_schemas::{Epoch, PartitionId, Position};

use crate::{
    file::FileSource,
    source::{Chunk, GlobalWatermark, Lag, Positions, RawRecord, Reader, Size, Source, SourceError},
};

/// Files, then a live source.
pub struct HistoryThenLive {
    history: FileSource,
    live: Arc<dyn Source>,
    watermark: Arc<GlobalWatermark>,
}

impl HistoryThenLive {
    /// `watermark` says when history has ended. Each partition of `history` has to be read by one worker: its epochs hold records, not
    /// bytes.
    #[must_use]
    pub fn new(history: FileSource, live: Arc<dyn Source>, watermark: Arc<GlobalWatermark>) -> HistoryThenLive {
        HistoryThenLive { history, live, watermark }
    }
}

impl Source for HistoryThenLive {
    fn partitions(&self) -> u32 {
        self.live.partitions()
    }

    fn history(&self) -> u32 {
        self.history.partitions()
    }

    fn size(&self) -> Option<Size> {
        None
    }

    fn live(&self) -> bool {
        self.live.live()
    }

    fn ends(&self) -> Positions {
        self.live.ends()
    }

    fn open(&self, worker: usize, workers: usize, positions: &Positions) -> Result<Box<dyn Reader>, SourceError> {
        let (of_files, of_live): (Positions, Positions) =
            positions.iter().map(|(partition, offset)| (*partition, *offset)).partition(|(at, _)| at.is_history());
        let history = match self.watermark.history_ended() {
            // The files may be gone by now.
            true => None,
            false => {
                let own =
                    |(partition, offset): (PartitionId, u64)| (PartitionId(partition.0 - PartitionId::HISTORY), offset);
                Some(self.history.open(worker, workers, &of_files.into_iter().map(own).collect())?)
            }
        };
        let live = self.live.open(worker, workers, &of_live)?;
        Ok(Box::new(HandOver { history, live, watermark: self.watermark.clone() }))
    }
}

/// One worker's view of both.
struct HandOver {
    /// None once its share is read.
    history: Option<Box<dyn Reader>>,
    live: Box<dyn Reader>,
    watermark: Arc<GlobalWatermark>,
}

fn of_history(partition: PartitionId) -> PartitionId {
    PartitionId(PartitionId::HISTORY + partition.0)
}

impl Reader for HandOver {
    fn read(
        &mut self,
        epoch: Epoch,
        each: &mut dyn FnMut(RawRecord<'_>),
        chunks: &mut Vec<Chunk>,
    ) -> Result<bool, SourceError> {
        if let Some(history) = &mut self.history {
            let first = chunks.len();
            let mut each = |raw: RawRecord<'_>| {
                let position = Position { partition: of_history(raw.position.partition), ..raw.position };
                each(RawRecord { position, ..raw });
            };
            let more = history.read(epoch, &mut each, chunks)?;
            chunks[first..].iter_mut().for_each(|chunk| chunk.partition = of_history(chunk.partition));
            if !more {
                self.history = None;
            }
            return Ok(true);
        }
        // Other workers may still be at their share.
        if self.watermark.history_ended() { self.live.read(epoch, each, chunks) } else { Ok(true) }
    }

    fn committed(&mut self, positions: &Positions) {
        let live = positions.iter().filter(|(partition, _)| !partition.is_history());
        self.live.committed(&live.map(|(partition, offset)| (*partition, *offset)).collect());
    }

    fn positions(&self) -> Positions {
        self.live.positions()
    }

    fn lags(&self, each: &mut dyn FnMut(PartitionId, Lag)) {
        // Before the hand-over nothing is known of it: not caught up.
        if self.history.is_none() && self.watermark.history_ended() {
            self.live.lags(each);
        }
    }

    fn caught_up(&self) -> bool {
        self.history.is_none() && self.watermark.history_ended() && self.live.caught_up()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use whisperer_schemas::Micros;

    use super::*;
    use crate::{
        file::FileOptions,
        memory::{MemoryPartition, MemorySource},
        source::EpochSize,
    };

    fn source(folder: &std::path::Path, watermark: &Arc<GlobalWatermark>) -> HistoryThenLive {
        fs::write(folder.join("a.ndjson"), "{\"file\":1}\n{\"file\":2}\n").expect("written");
        fs::write(folder.join("b.ndjson"), "{\"file\":3}\n").expect("written");
        let options = FileOptions {
            path: "*.ndjson".into(),
            root: folder.to_owned(),
            partitioned: true,
            epoch_size: EpochSize::Records(1),
            event_bytes_max: 1000,
        };
        let records = vec![(7, b"{\"topic\":7}".to_vec()), (8, b"{\"topic\":8}".to_vec())];
        let live = MemorySource::new(vec![MemoryPartition { records, cuts: vec![vec![1]] }]);
        HistoryThenLive::new(FileSource::new(options).expect("files"), Arc::new(live), watermark.clone())
    }

    /// Reads a number of epochs; gives positions and contents.
    fn read(reader: &mut dyn Reader, epochs: u64) -> (Vec<(String, String)>, Vec<Chunk>, bool) {
        let (mut seen, mut chunks, mut more) = (Vec::new(), Vec::new(), true);
        for epoch in 0..epochs {
            let mut each = |raw: RawRecord<'_>| {
                let crate::source::Payload::Json(bytes) = raw.payload else { panic!("{raw:?}") };
                seen.push((raw.position.to_string(), String::from_utf8_lossy(bytes).into_owned()));
            };
            more = reader.read(Epoch(epoch), &mut each, &mut chunks).expect("readable");
        }
        (seen, chunks, more)
    }

    #[test]
    fn the_live_source_waits_for_the_end_of_history_on_all_workers() {
        // Goal: a worker without a file, or done with it, hands out nothing before history has ended everywhere; then the live source.
        let folder = tempfile::tempdir().expect("a temporary folder");
        let watermark = Arc::<GlobalWatermark>::default();
        let source = source(folder.path(), &watermark);
        assert_eq!((source.partitions(), source.history()), (1, 2));
        let mut readers = [0, 1, 2].map(|worker| source.open(worker, 3, &Positions::new()).expect("opens"));
        let texts = |seen: &[(String, String)]| seen.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>();
        let (first, chunks, more) = read(&mut *readers[0], 5);
        assert_eq!((texts(&first), more), (vec!["{\"file\":1}".to_owned(), "{\"file\":2}".to_owned()], true));
        assert_eq!(first[0].0, format!("{}:0", PartitionId::HISTORY));
        assert!(chunks.iter().all(|chunk| chunk.partition.0 == PartitionId::HISTORY));
        assert_eq!(chunks.iter().filter(|chunk| chunk.ended).count(), 1);
        let (none, chunks, _) = read(&mut *readers[2], 5);
        assert!(none.is_empty() && chunks.is_empty() && !readers[2].caught_up());
        read(&mut *readers[1], 5);
        watermark.set(Epoch(9), Micros::MIN);
        watermark.end_history();
        let (live, _, more) = read(&mut *readers[0], 3);
        assert_eq!((texts(&live), more), (vec!["{\"topic\":7}".to_owned(), "{\"topic\":8}".to_owned()], false));
    }

    #[test]
    fn each_part_resumes_from_its_own_positions() {
        // Goal: a checkpoint amid the files resumes there; one after them opens no file any more.
        let folder = tempfile::tempdir().expect("a temporary folder");
        let watermark = Arc::<GlobalWatermark>::default();
        let source = source(folder.path(), &watermark);
        let amid = Positions::from([(PartitionId(PartitionId::HISTORY), 11), (PartitionId(0), 8)]);
        let (seen, ..) = read(&mut *source.open(0, 2, &amid).expect("opens"), 3);
        assert_eq!(seen, [(format!("{}:11", PartitionId::HISTORY), "{\"file\":2}".to_owned())]);
        watermark.end_history();
        fs::remove_file(folder.path().join("a.ndjson")).expect("removed");
        let (seen, ..) = read(&mut *source.open(0, 1, &amid).expect("opens"), 3);
        assert_eq!(seen, [("0:8".to_owned(), "{\"topic\":8}".to_owned())]);
    }
}
