//! `KafkaSource`: finds the topic, settles where each partition begins, and opens readers.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rdkafka::{
    Offset,
    error::{KafkaError, RDKafkaErrorCode},
};
use whisperer_schemas::{Micros, PartitionId};

use super::{
    client::{self, Consumer, Health},
    options::{KafkaOptions, Start},
    partition::Partition,
    reader::{KafkaReader, Share},
    watch::{self, Watch},
};
use crate::{
    source::{GlobalWatermark, Positions, Reader, Size, Source, SourceError},
    ticks::{MemoryTickLog, Tick, TickLog},
};

/// How long one question may take while the opening still has time for another.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a topic may be unknown: brokers hear of a new one one after the other.
const UNKNOWN_PATIENCE: Duration = Duration::from_secs(3);

/// The wall clock, in microseconds since the Unix epoch.
pub(super) type Clock = Arc<dyn Fn() -> Micros + Send + Sync>;

/// What a source has around it beside its settings.
#[derive(Clone)]
pub struct Surroundings {
    /// The wall clock, which idle partitions follow.
    pub clock: Arc<dyn Fn() -> Micros + Send + Sync>,
    /// Where their advances are recorded.
    pub ticks: Arc<dyn TickLog>,
    /// The global watermark, kept up to date by the workers; new partitions wait for it.
    pub watermark: Arc<GlobalWatermark>,
}

impl Default for Surroundings {
    /// The system's clock, and ticks that are kept in memory only.
    fn default() -> Surroundings {
        let since_epoch = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Surroundings {
            clock: Arc::new(move || since_epoch().as_micros() as Micros),
            ticks: Arc::new(MemoryTickLog::default()),
            watermark: Arc::default(),
        }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("watermark", &self.watermark).finish_non_exhaustive()
    }
}

/// A topic.
pub struct KafkaSource {
    options: Arc<KafkaOptions>,
    surroundings: Surroundings,
    health: Arc<Health>,
    /// For questions that may wait: at the opening, and to explain an error.
    consumer: Arc<Consumer>,
    watch: Arc<Watch>,
    /// Records between the ends of a bounded topic, as it was found.
    size: Option<u64>,
    ends: BTreeMap<u32, u64>,
}

impl fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource").field("options", &self.options).finish_non_exhaustive()
    }
}

impl KafkaSource {
    /// Connects to the brokers and finds the topic.
    ///
    /// # Errors
    /// Where a property is wrong, no broker answers in time, the brokers refuse the client, or there is no such topic.
    pub fn new(options: KafkaOptions, surroundings: Surroundings) -> Result<KafkaSource, SourceError> {
        let health = Arc::<Health>::default();
        let consumer = Arc::new(client::asking(&options, &health)?);
        let opening = Opening { consumer: &consumer, options: &options, health: &health };
        let count = opening.count()?;
        let (mut ends, mut size) = (BTreeMap::new(), None);
        if options.until_end {
            let starts = opening.offsets(&(0..count).collect::<Vec<_>>(), Offset::Beginning)?;
            ends = opening.offsets(&(0..count).collect::<Vec<_>>(), Offset::End)?;
            size = Some(ends.iter().map(|(partition, end)| end - starts[partition].min(*end)).sum());
        }
        let clock = Arc::clone(&surroundings.clock);
        let watch = Watch::start(Arc::clone(&consumer), &options, clock, Arc::clone(&health), count)?;
        let (options, watch) = (Arc::new(options), Arc::new(watch));
        Ok(KafkaSource { options, surroundings, health, consumer, watch, size, ends })
    }

    /// Positions must be those of this topic, as it is.
    fn check_partitions(&self, positions: &Positions) -> Result<(), SourceError> {
        let found = self.partitions();
        if let Some((partition, offset)) = positions.range(PartitionId(found)..).next() {
            let topic = &self.options.topic;
            let detail = format!("the topic \"{topic}\" has {found} partitions; was it deleted and made anew?");
            return Err(SourceError::NoSuchOffset { partition: *partition, offset: *offset, detail });
        }
        let known = positions.len() as u32;
        if self.live() && known > 0 && known < found && !self.options.allow_repartition {
            return Err(SourceError::Repartitioned { topic: self.options.topic.clone(), known, found });
        }
        Ok(())
    }

    fn open_partition(
        &self,
        partition: u32,
        positions: &Positions,
        starts: &BTreeMap<u32, u64>,
        ticks: &[Tick],
    ) -> Partition {
        let id = PartitionId(partition);
        let start = starts.get(&partition).copied().unwrap_or(0);
        let mut opened = match positions.get(&id) {
            Some(position) => Partition::new(id, *position, ticks),
            None if self.live() && !positions.is_empty() => Partition::joining(id, start, ticks),
            None => Partition::new(id, start, ticks),
        };
        opened.end = self.ends.get(&partition).copied();
        if opened.end.is_some() {
            // A bounded reading has nobody to wait for.
            opened.joining = None;
        }
        opened
    }
}

impl Source for KafkaSource {
    fn partitions(&self) -> u32 {
        self.watch.partitions()
    }

    fn size(&self) -> Option<Size> {
        self.size.map(Size::Records)
    }

    fn live(&self) -> bool {
        !self.options.until_end
    }

    fn ends(&self) -> Positions {
        let ends = self.watch.ends();
        ends.offsets.iter().map(|(partition, end)| (PartitionId(*partition), *end)).collect()
    }

    fn open(&self, worker: usize, workers: usize, positions: &Positions) -> Result<Box<dyn Reader>, SourceError> {
        self.check_partitions(positions)?;
        let known = self.partitions();
        let mine: Vec<u32> = (0..known).filter(|partition| *partition as usize % workers == worker).collect();
        let opening = Opening { consumer: &self.consumer, options: &self.options, health: &self.health };
        let lows = opening.offsets(&mine, Offset::Beginning)?;
        let highs = opening.offsets(&mine, Offset::End)?;
        check_positions(&self.options.topic, positions, &lows, &highs)?;
        let starts = match self.options.start {
            Start::Earliest => lows,
            Start::Latest => highs,
            Start::Time(time) => opening.offsets_of_time(&mine, time, &highs)?,
        };
        let ticks = self.surroundings.ticks.ticks()?;
        let partitions =
            mine.iter().map(|partition| self.open_partition(*partition, positions, &starts, &ticks)).collect();
        let share = Share {
            asking: Arc::clone(&self.consumer),
            options: Arc::clone(&self.options),
            watch: Arc::clone(&self.watch),
            clock: Arc::clone(&self.surroundings.clock),
            watermark: Arc::clone(&self.surroundings.watermark),
            ticks: self.surroundings.ticks.writer(worker)?,
            worker,
            workers,
            known,
            partitions,
            seen: 0,
        };
        let reader = KafkaReader { consumer: client::reading(&self.options, &self.health)?, share };
        reader.assign_all()?;
        Ok(Box::new(reader))
    }
}

/// A position must lie between the ends of its partition.
pub(super) fn check_positions(
    topic: &str,
    positions: &Positions,
    lows: &BTreeMap<u32, u64>,
    highs: &BTreeMap<u32, u64>,
) -> Result<(), SourceError> {
    for (&partition, &offset) in positions {
        let (Some(&low), Some(&high)) = (lows.get(&partition.0), highs.get(&partition.0)) else { continue };
        if (low..=high).contains(&offset) {
            continue;
        }
        let why = match offset < low {
            true => {
                "the broker removed records before they were read (retention.ms or retention.bytes is too short for the pause)"
            }
            false => "the broker lost records that were read, or the topic was deleted and made anew",
        };
        let detail = format!("the topic \"{topic}\" holds {low} to {high} of it: {why}");
        return Err(SourceError::NoSuchOffset { partition, offset, detail });
    }
    Ok(())
}

/// Questions at the opening, asked until they are answered or time is up.
struct Opening<'a> {
    consumer: &'a Consumer,
    options: &'a KafkaOptions,
    health: &'a Health,
}

impl Opening<'_> {
    /// How many partitions the topic has.
    fn count(&self) -> Result<u32, SourceError> {
        self.until_answered(|timeout| watch::count(self.consumer, &self.options.topic, timeout).map(Some))
    }

    /// The numbers of the offsets at an end of each partition.
    fn offsets(&self, partitions: &[u32], at: Offset) -> Result<BTreeMap<u32, u64>, SourceError> {
        self.until_answered(|timeout| {
            let answers = watch::ask(self.consumer, &self.options.topic, partitions.iter().copied(), at, timeout)?;
            // A leader that does not know yet has not answered: to take it for an empty partition would leave its records out.
            let known = |(partition, offset): (u32, Offset)| Some((partition, watch::number(offset)?));
            let known: BTreeMap<u32, u64> = answers.into_iter().filter_map(known).collect();
            Ok((known.len() == partitions.len()).then_some(known))
        })
    }

    /// Where the records of a time begin; a partition without any begins at its end.
    fn offsets_of_time(
        &self,
        partitions: &[u32],
        time: Micros,
        highs: &BTreeMap<u32, u64>,
    ) -> Result<BTreeMap<u32, u64>, SourceError> {
        let offsets = self.answers(partitions, Offset::Offset(time.div_euclid(1_000).max(0)))?;
        let number = |(partition, offset)| (partition, watch::number(offset).unwrap_or(highs[&partition]));
        Ok(offsets.into_iter().map(number).collect())
    }

    fn answers(&self, partitions: &[u32], at: Offset) -> Result<BTreeMap<u32, Offset>, SourceError> {
        self.until_answered(|timeout| {
            let ids = partitions.iter().copied();
            let answers = watch::ask(self.consumer, &self.options.topic, ids, at, timeout)?;
            Ok((answers.len() == partitions.len()).then_some(answers))
        })
    }

    fn until_answered<T>(
        &self,
        question: impl Fn(Duration) -> Result<Option<T>, KafkaError>,
    ) -> Result<T, SourceError> {
        let start = Instant::now();
        let deadline = start + self.options.open_timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = question(left.min(QUESTION_TIMEOUT).max(Duration::from_millis(1)));
            if let Ok(Some(answer)) = answer {
                return Ok(answer);
            }
            // Complaints come as events, which somebody has to take.
            while self.consumer.poll(Duration::ZERO).is_some() {}
            let refused = self.health.last().filter(|(code, _)| client::is_refusal(*code));
            let code = answer.as_ref().err().and_then(KafkaError::rdkafka_error_code);
            let is_final = |code| !client::is_unknown(code) || start.elapsed() >= UNKNOWN_PATIENCE;
            let is_hopeless = code.is_some_and(|code| client::is_of_topic(code) && is_final(code));
            if refused.is_some() || left.is_zero() || is_hopeless {
                return Err(self.explain(code));
            }
            // Some refusals come at once; not so many questions a second that a broker minds.
            self.consumer.poll(Duration::from_millis(100));
        }
    }

    fn explain(&self, code: Option<RDKafkaErrorCode>) -> SourceError {
        let brokers = self.options.brokers.clone();
        let said = self.health.last();
        if let Some((_, reason)) = said.as_ref().filter(|(code, _)| client::is_refusal(*code)) {
            let detail = format!(
                "they refuse this client: {reason}; look at security.protocol, sasl.* and ssl.* in [source.properties]"
            );
            return SourceError::Brokers { brokers, detail };
        }
        if let Some(code) = code.filter(|code| client::is_of_topic(*code)) {
            return topic_error(&self.options.topic, code);
        }
        let reason = said.map_or_else(|| "no answer".to_owned(), |(_, reason)| reason);
        let seconds = self.options.open_timeout.as_secs_f64();
        SourceError::Brokers { brokers, detail: format!("nothing heard from them for {seconds} s: {reason}") }
    }
}

/// Says what is the matter with the topic.
pub(super) fn topic_error(topic: &str, code: RDKafkaErrorCode) -> SourceError {
    use RDKafkaErrorCode as Code;
    let detail = match code {
        code if client::is_unknown(code) => {
            "the brokers do not have it; a topic is made before a job reads it, or its name is misspelt".to_owned()
        }
        Code::TopicAuthorizationFailed => "the brokers do not allow this client to read it".to_owned(),
        Code::BadMessage | Code::BadCompression | Code::InvalidMessage => {
            format!("a record is damaged, which going on would leave out: {code}")
        }
        other => other.to_string(),
    };
    SourceError::Topic { topic: topic.to_owned(), detail }
}
