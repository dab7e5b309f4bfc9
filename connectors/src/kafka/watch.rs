//! The watch: a thread that asks the brokers where the partitions end and how many there are, so that no dataflow has to wait for it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::Consumer as _,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};
use whisperer_schemas::{Micros, time::SECOND};

use super::{
    client::{Consumer, Health},
    options::KafkaOptions,
    source::Clock,
};
use crate::source::SourceError;

/// How often the ends are asked for: the clock of an idle partition advances in steps of a second.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// How often the number of partitions is asked for, unless `topic.metadata.refresh.interval.ms` says otherwise.
const COUNT_INTERVAL: Duration = Duration::from_secs(30);

/// How long an answer may take. A partition without one counts as not silent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the partitions ended, open transactions included.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// When the brokers were asked, on the wall clock.
    pub(super) asked_at: Micros,
    /// By partition; those whose broker did not answer are missing.
    pub(super) offsets: BTreeMap<u32, u64>,
}

/// What the brokers said last; the thread that asks ends when this is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    heard: Arc<Heard>,
    _stop: mpsc::Sender<()>,
}

#[derive(Debug)]
struct Heard {
    partitions: AtomicU32,
    /// How many answers there were.
    answers: AtomicU64,
    ends: Mutex<Arc<Ends>>,
}

impl Watch {
    /// Watches a topic of `partitions` partitions; where nothing can change, no thread does.
    pub(super) fn start(
        consumer: Arc<Consumer>,
        options: &KafkaOptions,
        clock: Clock,
        health: Arc<Health>,
        partitions: u32,
    ) -> Result<Watch, SourceError> {
        let partitions = AtomicU32::new(partitions);
        let heard = Arc::new(Heard { partitions, answers: AtomicU64::new(0), ends: Mutex::default() });
        let (stop, stopped) = mpsc::channel();
        if !options.until_end {
            let watcher = Watcher {
                consumer,
                health,
                clock,
                heard: Arc::clone(&heard),
                topic: options.topic.clone(),
                ask_interval: ask_interval(options.idle_timeout),
                count_interval: count_interval(options),
            };
            let thread = thread::Builder::new().name("kafka-watch".to_owned()).spawn(move || watcher.run(&stopped));
            thread.map_err(|error| SourceError::Settings(format!("cannot start a thread: {error}")))?;
        }
        Ok(Watch { heard, _stop: stop })
    }

    /// How many partitions the topic has.
    pub(super) fn partitions(&self) -> u32 {
        self.heard.partitions.load(Ordering::Relaxed)
    }

    /// The last answer.
    pub(super) fn ends(&self) -> Arc<Ends> {
        Arc::clone(&self.heard.locked())
    }

    /// The last answer, where it came after the answer with number `seen`, which is moved on.
    pub(super) fn news(&self, seen: &mut u64) -> Option<Arc<Ends>> {
        let answers = self.heard.answers.load(Ordering::Acquire);
        (std::mem::replace(seen, answers) < answers).then(|| self.ends())
    }
}

impl Heard {
    fn locked(&self) -> std::sync::MutexGuard<'_, Arc<Ends>> {
        // A pointer is whole at any moment.
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Silence shorter than a few questions cannot be told, so a short timeout asks more often.
fn ask_interval(idle_timeout: Micros) -> Duration {
    let quarter = Duration::from_micros((idle_timeout / 4).clamp(SECOND / 100, SECOND) as u64);
    quarter.min(ASK_INTERVAL)
}

fn count_interval(options: &KafkaOptions) -> Duration {
    let set = options.properties.get("topic.metadata.refresh.interval.ms").and_then(|text| text.parse().ok());
    set.map_or(COUNT_INTERVAL, |millis: u64| Duration::from_millis(millis.max(10)))
}

struct Watcher {
    consumer: Arc<Consumer>,
    health: Arc<Health>,
    clock: Clock,
    heard: Arc<Heard>,
    topic: String,
    ask_interval: Duration,
    count_interval: Duration,
}

impl Watcher {
    fn run(self, stopped: &mpsc::Receiver<()>) {
        let mut counted = Instant::now();
        while stopped.recv_timeout(self.ask_interval) == Err(mpsc::RecvTimeoutError::Timeout) {
            while self.consumer.poll(Duration::ZERO).is_some() {}
            self.ask_ends();
            if counted.elapsed() >= self.count_interval {
                counted = Instant::now();
                self.ask_count();
            }
        }
    }

    fn ask_ends(&self) {
        let asked_at = (self.clock)();
        let partitions = self.heard.partitions.load(Ordering::Relaxed);
        let offsets = ask(&self.consumer, &self.topic, 0..partitions, Offset::End, ANSWER_TIMEOUT).unwrap_or_default();
        let numbers = offsets.iter().filter_map(|(partition, offset)| Some((*partition, number(*offset)?)));
        let ends = Ends { asked_at, offsets: numbers.collect() };
        if ends.offsets.len() == partitions as usize {
            self.health.answered();
        }
        *self.heard.locked() = Arc::new(ends);
        self.heard.answers.fetch_add(1, Ordering::Release);
    }

    /// Partitions are only ever added. One that is deleted with its topic shows where it is read.
    fn ask_count(&self) {
        match count(&self.consumer, &self.topic, ANSWER_TIMEOUT) {
            Ok(count) => drop(self.heard.partitions.fetch_max(count, Ordering::Relaxed)),
            Err(error) => {
                tracing::debug!(%error, topic = self.topic, "the brokers did not say how many partitions there are")
            }
        }
    }
}

/// How many partitions a topic has.
pub(super) fn count(consumer: &Consumer, topic: &str, timeout: Duration) -> KafkaResult<u32> {
    let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let unknown = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition);
    let found = found.ok_or(unknown.clone())?;
    match found.error() {
        Some(error) => Err(KafkaError::MetadataFetch(error.into())),
        None if found.partitions().is_empty() => Err(unknown),
        None => Ok(found.partitions().len() as u32),
    }
}

/// Asks the leaders of all these partitions at once for the offsets at `at`: an end of the log, or a time in milliseconds as a plain
/// offset. Partitions without an answer are left out.
pub(super) fn ask(
    consumer: &Consumer,
    topic: &str,
    partitions: impl Iterator<Item = u32>,
    at: Offset,
    timeout: Duration,
) -> KafkaResult<BTreeMap<u32, Offset>> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic, partition as i32, at)?;
    }
    if list.count() == 0 {
        return Ok(BTreeMap::new());
    }
    let answer = consumer.offsets_for_times(list, timeout)?;
    let elements = answer.elements();
    let answered = elements.iter().filter(|element| element.error().is_ok());
    Ok(answered.map(|element| (element.partition() as u32, element.offset())).collect())
}

/// An offset that is a number.
pub(super) fn number(offset: Offset) -> Option<u64> {
    match offset {
        Offset::Offset(number) => u64::try_from(number).ok(),
        _ => None,
    }
}
