//! `KafkaReader`: one worker's partitions of a topic.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::{
    Message, Offset, Timestamp, TopicPartitionList,
    consumer::{CommitMode, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
};
use whisperer_schemas::{Epoch, Micros, PartitionId, Position};

use super::{
    client::{self, Consumer},
    lag,
    options::KafkaOptions,
    partition::{Joining, Partition},
    source::{Clock, check_positions, topic_error},
    watch::{self, Ends, Watch},
};
use crate::{
    source::{Chunk, EpochSize, GlobalWatermark, Lag, Payload, Positions, RawRecord, Reader, SourceError},
    ticks::{Tick, TickWriter},
};

/// Records that one call takes at most: at 100 epochs a second far more than a worker can process.
const READ_RECORDS_MAX: u64 = 16_384;

/// Bytes of records that one call takes at most, one record more or less: what an epoch on its way may hold.
const READ_BYTES_MAX: u64 = 8 << 20;

/// How long a bounded reading waits for the first record of an epoch, lest it spins through empty epochs.
const BOUNDED_WAIT: Duration = Duration::from_millis(5);

/// How long brokers may take to help explaining an error.
const EXPLANATION_TIMEOUT: Duration = Duration::from_secs(5);

/// One worker's consumer, and what it is to do with what it consumes.
pub(super) struct KafkaReader {
    pub(super) consumer: Consumer,
    pub(super) share: Share,
}

/// One worker's share of the topic.
pub(super) struct Share {
    /// For questions.
    pub(super) asking: Arc<Consumer>,
    pub(super) options: Arc<KafkaOptions>,
    pub(super) watch: Arc<Watch>,
    pub(super) clock: Clock,
    pub(super) watermark: Arc<GlobalWatermark>,
    pub(super) ticks: Box<dyn TickWriter>,
    pub(super) worker: usize,
    pub(super) workers: usize,
    /// How many partitions the topic had when it was last looked at.
    pub(super) known: u32,
    pub(super) partitions: Vec<Partition>,
    /// The number of the last answer of the watch that was looked at.
    pub(super) seen: u64,
}

impl Reader for KafkaReader {
    fn read(
        &mut self,
        epoch: Epoch,
        each: &mut dyn FnMut(RawRecord<'_>),
        chunks: &mut Vec<Chunk>,
    ) -> Result<bool, SourceError> {
        let KafkaReader { consumer, share } = self;
        share.look_for_new_partitions()?;
        let messages = share.poll(consumer)?;
        let advances = share.advance(epoch, &messages, consumer)?;
        for at in 0..share.partitions.len() {
            share.hand_out(at, &messages, &advances, each, chunks)?;
        }
        drop(messages);
        share.leave_ended(consumer)?;
        Ok(!share.options.until_end || !share.partitions.is_empty())
    }

    fn positions(&self) -> Positions {
        let known = self.share.partitions.iter().filter(|partition| partition.joining.is_none());
        known.map(|partition| (partition.id, partition.next_offset)).collect()
    }

    fn caught_up(&self) -> bool {
        self.reached_ends()
    }

    fn lags(&self, each: &mut dyn FnMut(PartitionId, Lag)) {
        let share = &self.share;
        if share.options.until_end {
            return;
        }
        let (ends, now) = (share.watch.ends(), (share.clock)());
        for partition in &share.partitions {
            if let Some(lag) = lag::of(partition, &ends, now) {
                each(partition.id, lag);
            }
        }
    }

    fn committed(&mut self, positions: &Positions) {
        let mine = self.share.partitions.iter().filter_map(|partition| positions.get_key_value(&partition.id));
        let list = list(&self.share.options.topic, mine.map(|(partition, offset)| (*partition, Some(*offset))));
        let committed = list
            .and_then(|list| if list.count() == 0 { Ok(()) } else { self.consumer.commit(&list, CommitMode::Async) });
        if let Err(error) = committed {
            tracing::debug!(%error, "offsets were not committed to the group");
        }
    }
}

impl KafkaReader {
    /// Whether every partition has been at its end since the opening.
    fn reached_ends(&self) -> bool {
        self.share.partitions.iter().all(|partition| partition.reached_end)
    }

    /// Begins to fetch, each partition from where it stands; those that are joining wait.
    pub(super) fn assign_all(&self) -> Result<(), SourceError> {
        let options = &self.share.options;
        let ready = self.share.partitions.iter().filter(|partition| partition.joining.is_none());
        let list = list(&options.topic, ready.map(|partition| (partition.id, Some(partition.next_offset))));
        list.and_then(|list| self.consumer.assign(&list)).map_err(|error| failed(options, &error))
    }
}

impl Share {
    /// What new partitions mean is for the job to say.
    fn look_for_new_partitions(&mut self) -> Result<(), SourceError> {
        let found = self.watch.partitions();
        let known = std::mem::replace(&mut self.known, found);
        if found <= known {
            return Ok(());
        }
        let topic = &self.options.topic;
        if !self.options.allow_repartition {
            return Err(SourceError::Repartitioned { topic: topic.clone(), known, found });
        }
        tracing::info!(topic, known, found, "the topic has new partitions");
        let mine = (known..found).filter(|partition| *partition as usize % self.workers == self.worker);
        self.partitions.extend(mine.map(|partition| Partition::joining(PartitionId(partition), 0, &[])));
        Ok(())
    }

    /// Takes what was fetched, by partition and offset, and notes which partitions are at their end.
    fn poll<'a>(&mut self, consumer: &'a Consumer) -> Result<Vec<BorrowedMessage<'a>>, SourceError> {
        let (records_max, bytes_max) = self.limits();
        let mut messages: Vec<BorrowedMessage<'a>> = Vec::new();
        let mut bytes = 0;
        let mut wait = if self.options.until_end { BOUNDED_WAIT } else { Duration::ZERO };
        while (messages.len() as u64) < records_max && bytes < bytes_max {
            let event = consumer.poll(std::mem::take(&mut wait));
            match event {
                None => break,
                Some(Ok(message)) => {
                    self.note_end(message.partition(), false);
                    bytes += message.payload_len() as u64;
                    messages.push(message);
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => self.note_end(partition, true),
                Some(Err(error)) => self.judge(&error)?,
            }
        }
        messages.sort_by_key(BorrowedMessage::partition);
        Ok(messages)
    }

    fn limits(&self) -> (u64, u64) {
        let partitions = self.partitions.len().max(1) as u64;
        match self.options.epoch_size {
            EpochSize::Records(most) if self.options.until_end => {
                (most.saturating_mul(partitions).min(READ_RECORDS_MAX), READ_BYTES_MAX)
            }
            EpochSize::Bytes(most) if self.options.until_end => {
                (READ_RECORDS_MAX, most.saturating_mul(partitions).min(READ_BYTES_MAX))
            }
            _ => (READ_RECORDS_MAX, READ_BYTES_MAX),
        }
    }

    fn note_end(&mut self, partition: i32, is_at_end: bool) {
        // They are in order: new ones have larger numbers.
        if let Ok(at) = self.partitions.binary_search_by_key(&partition, |found| found.id.0 as i32) {
            self.partitions[at].is_at_end = is_at_end;
            self.partitions[at].reached_end |= is_at_end;
        }
    }

    /// An outage passes; what is wrong with the topic does not.
    fn judge(&self, error: &KafkaError) -> Result<(), SourceError> {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        let is_fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        if !is_fatal && !client::is_of_topic(code) {
            return Ok(());
        }
        if matches!(code, RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) {
            self.explain_offsets()?;
        }
        Err(topic_error(&self.options.topic, code))
    }

    /// Finds the partition whose position is gone.
    fn explain_offsets(&self) -> Result<(), SourceError> {
        let ask = |at| {
            let ids = self.partitions.iter().map(|partition| partition.id.0);
            let answers = watch::ask(&self.asking, &self.options.topic, ids, at, EXPLANATION_TIMEOUT);
            let answers = answers.unwrap_or_default().into_iter();
            answers
                .filter_map(|(partition, offset)| Some((partition, watch::number(offset)?)))
                .collect::<BTreeMap<_, _>>()
        };
        let positions = self.partitions.iter().map(|partition| (partition.id, partition.next_offset)).collect();
        check_positions(&self.options.topic, &positions, &ask(Offset::Beginning), &ask(Offset::End))
    }

    /// The advances that are due, durable.
    fn advance(
        &mut self,
        epoch: Epoch,
        messages: &[BorrowedMessage<'_>],
        consumer: &Consumer,
    ) -> Result<BTreeMap<PartitionId, Micros>, SourceError> {
        let news = self.watch.news(&mut self.seen);
        let watermark = self.watermark.get();
        let (mut ticks, mut joined) = (Vec::new(), Vec::new());
        for partition in &mut self.partitions {
            let due = match partition.joining {
                Some(Joining::New) => {
                    partition.joining = Some(Joining::Announced(epoch));
                    Some(Micros::MIN)
                }
                Some(Joining::Announced(announced)) => {
                    let time = watermark.filter(|(heard, _)| *heard >= announced).map(|(_, time)| time);
                    time.map(|time| {
                        partition.joining = None;
                        joined.push((partition.id, Some(partition.next_offset)));
                        // Later than an announcement also where no watermark is known.
                        time.saturating_add(self.options.out_of_orderness).max(Micros::MIN + 1)
                    })
                }
                None if !of(messages, partition.id).is_empty() => {
                    partition.quiet.broken();
                    None
                }
                None => news.as_ref().and_then(|ends| idle_advance(partition, ends, consumer, &self.options)),
            };
            ticks.extend(due.map(|time| Tick { partition: partition.id, offset: partition.next_offset, time }));
        }
        self.ticks.append(&ticks)?;
        if !joined.is_empty() {
            let list = list(&self.options.topic, joined.into_iter());
            list.and_then(|list| consumer.incremental_assign(&list)).map_err(|error| failed(&self.options, &error))?;
        }
        let real = ticks.into_iter().filter(|tick| tick.time != Micros::MIN);
        Ok(real.map(|tick| (tick.partition, tick.time)).collect())
    }

    /// Hands out one partition's records of the epoch.
    fn hand_out(
        &mut self,
        at: usize,
        messages: &[BorrowedMessage<'_>],
        advances: &BTreeMap<PartitionId, Micros>,
        each: &mut dyn FnMut(RawRecord<'_>),
        chunks: &mut Vec<Chunk>,
    ) -> Result<(), SourceError> {
        let partition = &mut self.partitions[at];
        let needs_key = self.options.keyed && self.known > 1;
        partition.begin_epoch(chunks);
        let messages = of(messages, partition.id);
        if let Some(last) = messages.last() {
            partition.last_written = written(last).or(partition.last_written);
        }
        for message in messages {
            let offset = message.offset() as u64;
            if needs_key && message.key().is_none() {
                return Err(unkeyed(&self.options.topic, partition.id, offset));
            }
            if let Some(chunk) = partition.take(offset, chunks) {
                let position = Position { partition: partition.id, offset };
                hand(message, position, chunk, &self.options, each);
            }
        }
        partition.end_epoch(advances.get(&partition.id).copied(), chunks);
        Ok(())
    }

    fn leave_ended(&mut self, consumer: &Consumer) -> Result<(), SourceError> {
        let ended = self.partitions.iter().filter(|partition| partition.ended);
        let list = list(&self.options.topic, ended.map(|partition| (partition.id, None)));
        let left = list.and_then(|list| if list.count() == 0 { Ok(()) } else { consumer.incremental_unassign(&list) });
        self.partitions.retain(|partition| !partition.ended);
        left.map_err(|error| failed(&self.options, &error))
    }
}

/// The messages of one partition, of a list in order of partitions.
fn of<'a, 'm>(messages: &'a [BorrowedMessage<'m>], partition: PartitionId) -> &'a [BorrowedMessage<'m>] {
    let id = partition.0 as i32;
    let start = messages.partition_point(|message| message.partition() < id);
    let end = messages.partition_point(|message| message.partition() <= id);
    &messages[start..end]
}

/// The advance of a partition that had no record, on a new answer of the watch.
fn idle_advance(partition: &mut Partition, ends: &Ends, consumer: &Consumer, options: &KafkaOptions) -> Option<Micros> {
    let Some(&end) = ends.offsets.get(&partition.id.0) else {
        partition.quiet.broken();
        return None;
    };
    if partition.is_at_end && partition.next_offset < end {
        pass_markers(partition, consumer, options);
    }
    if partition.next_offset < end || partition.is_replaying() {
        partition.quiet.broken();
        return None;
    }
    partition.quiet.at_end(ends.asked_at, options.idle_timeout)
}

/// Moves on over what is no record: a transaction ends with a marker, which only the consumer sees.
fn pass_markers(partition: &mut Partition, consumer: &Consumer, options: &KafkaOptions) {
    let Ok(positions) = consumer.position() else { return };
    let found = positions.find_partition(&options.topic, partition.id.0 as i32);
    if let Some(position) = found.and_then(|found| watch::number(found.offset())) {
        partition.next_offset = partition.next_offset.max(position);
    }
}

/// Hands out one record.
fn hand(
    message: &BorrowedMessage<'_>,
    position: Position,
    chunk: u32,
    options: &KafkaOptions,
    each: &mut dyn FnMut(RawRecord<'_>),
) {
    let bytes = message.payload().unwrap_or(b"null");
    let payload = match bytes.len() as u64 {
        length if length > options.event_bytes_max => {
            Payload::TooLarge { head: &bytes[..options.event_bytes_max as usize], bytes: length }
        }
        _ => Payload::Json(bytes),
    };
    let ingest_time = written(message);
    let found = if options.headers { message.headers() } else { None };
    let headers = found.map(headers).unwrap_or_default();
    each(RawRecord { position, chunk, ingest_time, headers: &headers, payload });
}

/// When a record was written, as the log says.
fn written(message: &BorrowedMessage<'_>) -> Option<Micros> {
    match message.timestamp() {
        Timestamp::CreateTime(millis) | Timestamp::LogAppendTime(millis) => Some(millis.saturating_mul(1_000)),
        Timestamp::NotAvailable => None,
    }
}

/// The headers of a record; one without a value has an empty one.
fn headers<H: Headers>(headers: &H) -> Vec<(&str, &[u8])> {
    headers.iter().map(|header| (header.key, header.value.unwrap_or_default())).collect()
}

fn list(
    topic: &str,
    partitions: impl Iterator<Item = (PartitionId, Option<u64>)>,
) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in partitions {
        let offset = offset.map_or(Offset::Invalid, |offset| Offset::Offset(offset as i64));
        list.add_partition_offset(topic, partition.0 as i32, offset)?;
    }
    Ok(list)
}

fn failed(options: &KafkaOptions, error: &KafkaError) -> SourceError {
    SourceError::Topic { topic: options.topic.clone(), detail: error.to_string() }
}

fn unkeyed(topic: &str, partition: PartitionId, offset: u64) -> SourceError {
    let detail = format!(
        "the record {partition}:{offset} has no key, so nothing keeps the events of a user in one of its partitions and in order; \
         give the records keys, or, if their writer sees to that without keys, set keyed = false in [source]"
    );
    SourceError::Topic { topic: topic.to_owned(), detail }
}
