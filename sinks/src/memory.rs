//! Sinks that keep their rows in memory: the models that the others are held to, and what tests read.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use whisperer_schemas::{Row, TableSchema, row_hash};

use crate::{
    error::SinkError,
    log::{LogSink, OutboxEncoder, OutboxSink, Removal, taken_over},
    ndjson::Lines,
    sink::{CommitFacts, StagedFile, TableSink, WrittenFile},
};

/// Rows in memory. Clones share what is visible, so a test keeps one and gives one away.
#[derive(Clone, Debug, Default)]
pub struct MemoryTable {
    written: Vec<Row>,
    staged: Vec<Row>,
    replaces: bool,
    visible: Arc<Mutex<Vec<Row>>>,
}

impl MemoryTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> MemoryTable {
        MemoryTable::default()
    }

    /// Another writer to the same table, with nothing written yet; its rows add to those of others.
    #[must_use]
    pub fn writer(&self) -> MemoryTable {
        MemoryTable { visible: Arc::clone(&self.visible), ..MemoryTable::default() }
    }

    /// A writer whose first commit takes the place of what is there.
    #[must_use]
    pub fn replacing(&self) -> MemoryTable {
        MemoryTable { replaces: true, ..self.writer() }
    }

    /// The rows committed so far.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        self.visible.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl TableSink for MemoryTable {
    fn write(&mut self, mut rows: Vec<Row>) -> Result<(), SinkError> {
        self.written.append(&mut rows);
        Ok(())
    }

    fn stage(&mut self, _facts: &CommitFacts) -> Result<Vec<StagedFile>, SinkError> {
        self.staged.append(&mut self.written);
        Ok(Vec::new())
    }

    fn publish(&mut self, _staged: &[StagedFile]) -> Result<Vec<WrittenFile>, SinkError> {
        let mut visible = self.visible.lock().unwrap_or_else(PoisonError::into_inner);
        if mem::take(&mut self.replaces) {
            visible.clear();
        }
        visible.append(&mut self.staged);
        Ok(Vec::new())
    }
}

/// A log in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryTopic(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    /// Rows as JSON, each with the hash that tells it from others.
    rows: Vec<(u128, String)>,
    /// How often each identity was taken over.
    owners: BTreeMap<String, u64>,
    /// The number of the last checkpoint that is out, by identity.
    recorded: BTreeMap<String, u64>,
}

impl MemoryTopic {
    /// An empty log.
    #[must_use]
    pub fn new() -> MemoryTopic {
        MemoryTopic::default()
    }

    /// What readers see, in order.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.held().rows.iter().map(|(_, line)| line.clone()).collect()
    }

    /// A writer of `schema`'s rows that are readable at once.
    #[must_use]
    pub fn log(&self, schema: TableSchema) -> MemoryLog {
        MemoryLog {
            lines: Lines::new(schema),
            topic: self.clone(),
            tail: HashMap::new(),
            begin: None,
            caught_up: false,
            passed_over: 0,
        }
    }

    /// A writer of `schema`'s rows that are readable with their checkpoint: number `worker` of `workers`.
    #[must_use]
    pub fn outbox(&self, schema: TableSchema, worker: u32, workers: u32) -> MemoryOutbox {
        let lines = Arc::new(Lines::new(schema));
        MemoryOutbox { lines, topic: self.clone(), worker, workers, turns: BTreeMap::new() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The model of a [`LogSink`].
#[derive(Debug)]
pub struct MemoryLog {
    lines: Lines,
    topic: MemoryTopic,
    /// How often each row stands in the log beyond the checkpoint.
    tail: HashMap<u128, u32>,
    /// Where that stretch begins.
    begin: Option<usize>,
    caught_up: bool,
    passed_over: u64,
}

impl MemoryLog {
    fn put(&mut self, id: u128, line: String) {
        match self.tail.get_mut(&id).filter(|times| **times > 0) {
            Some(times) => {
                *times -= 1;
                self.passed_over += 1;
            }
            None => self.topic.held().rows.push((id, line)),
        }
    }
}

impl LogSink for MemoryLog {
    fn recover(&mut self, positions: &[String]) -> Result<(), SinkError> {
        let recorded = |position: &String| {
            let wrong = |_| SinkError::Recorded { topic: "memory".into(), detail: format!("\"{position}\"") };
            position.parse::<usize>().map_err(wrong)
        };
        let positions: Vec<usize> = positions.iter().map(recorded).collect::<Result<_, _>>()?;
        self.begin = positions.into_iter().min();
        let begin = self.begin.unwrap_or(usize::MAX);
        self.topic.held().rows.iter().skip(begin).for_each(|(id, _)| *self.tail.entry(*id).or_default() += 1);
        Ok(())
    }

    fn write(&mut self, rows: Vec<Row>) -> Result<(), SinkError> {
        for row in &rows {
            let line = text(&self.lines, row)?;
            self.put(row_hash(self.lines.schema(), &row.values), line);
        }
        Ok(())
    }

    fn remove(&mut self, keys: &[Removal]) -> Result<(), SinkError> {
        let keys = if self.lines.schema().name == "profiles" { keys } else { &[] };
        for key in keys {
            let line = tombstone(key);
            self.put(xxhash_rust::xxh3::xxh3_128(line.as_bytes()), line);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<String, SinkError> {
        if mem::take(&mut self.caught_up) || self.tail.values().all(|times| *times == 0) {
            self.tail.clear();
            self.begin = None;
        }
        let end = self.topic.held().rows.len();
        Ok(self.begin.unwrap_or(end).to_string())
    }

    fn caught_up(&mut self) {
        self.caught_up = true;
    }

    fn passed_over(&self) -> u64 {
        self.passed_over
    }
}

/// The model of an [`OutboxSink`].
#[derive(Debug)]
pub struct MemoryOutbox {
    lines: Arc<Lines>,
    topic: MemoryTopic,
    worker: u32,
    workers: u32,
    /// Of the identities taken over, how often they had been.
    turns: BTreeMap<String, u64>,
}

impl MemoryOutbox {
    fn identity_of(worker: u32) -> String {
        format!("memory.{worker}")
    }
}

impl OutboxEncoder for Lines {
    fn encode(&self, rows: &[Row], outbox: &mut Vec<u8>) -> Result<(), SinkError> {
        rows.iter().try_for_each(|row| {
            outbox.extend_from_slice(text(self, row)?.as_bytes());
            outbox.push(b'\n');
            Ok(())
        })
    }

    fn encode_removals(&self, keys: &[Removal], outbox: &mut Vec<u8>) -> Result<(), SinkError> {
        for key in keys.iter().filter(|_| self.schema().name == "profiles") {
            outbox.extend_from_slice(tombstone(key).as_bytes());
            outbox.push(b'\n');
        }
        Ok(())
    }
}

impl OutboxSink for MemoryOutbox {
    fn recover(&mut self, earlier: &[String]) -> Result<BTreeMap<String, u64>, SinkError> {
        let share = taken_over(earlier, self.worker, self.workers, MemoryOutbox::identity_of);
        let mut held = self.topic.held();
        for identity in share {
            let turns = held.owners.entry(identity.clone()).or_default();
            *turns += 1;
            self.turns.insert(identity, *turns);
        }
        let number_of = |identity: &String| held.recorded.get(identity).copied().unwrap_or_default();
        Ok(self.turns.keys().map(|identity| (identity.clone(), number_of(identity))).collect())
    }

    fn identity(&self) -> String {
        MemoryOutbox::identity_of(self.worker)
    }

    fn encoder(&self) -> Arc<dyn OutboxEncoder> {
        self.lines.clone()
    }

    fn publish(&mut self, maker: &str, number: u64, outbox: &[u8]) -> Result<(), SinkError> {
        let mut held = self.topic.held();
        let turn = self.turns.get(maker);
        if turn.is_none() || held.owners.get(maker) != turn {
            return Err(SinkError::TakenOver { topic: "memory".into(), writer: maker.into() });
        }
        if outbox.is_empty() || held.recorded.get(maker).is_some_and(|recorded| number <= *recorded) {
            return Ok(());
        }
        let lines = outbox.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        held.rows.extend(lines.map(|line| (0, String::from_utf8_lossy(line).into_owned())));
        held.recorded.insert(maker.to_owned(), number);
        Ok(())
    }

    fn forget(&mut self) -> Result<(), SinkError> {
        let mut held = self.topic.held();
        held.recorded.retain(|identity, _| !self.turns.contains_key(identity));
        Ok(())
    }
}

fn text(lines: &Lines, row: &Row) -> Result<String, SinkError> {
    let mut line = Vec::new();
    lines.append(row, &mut line)?;
    Ok(String::from_utf8(line).expect("JSON is UTF-8"))
}

fn tombstone(key: &Removal) -> String {
    format!("removed {:?} {:?}", key.app_id, key.user_id)
}
