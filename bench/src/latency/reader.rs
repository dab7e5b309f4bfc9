//! Who reads: numbers of events or messages, and when each became readable.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use serde::Deserialize;

use super::{broker::Broker, load::Counter, pool::number_of};

/// How long a poll waits; how long a reader takes to hear that it shall end.
const POLL: Duration = Duration::from_millis(50);

/// A number that was read, and when.
pub type Seen = (u64, Instant);

/// A reader at work.
pub struct Reader {
    /// How many numbers it has seen.
    pub seen: Counter,
    ended: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<Seen>>,
}

/// What is looked at of a decision.
#[derive(Deserialize)]
struct Decision<'a> {
    trigger: &'a str,
    cause: &'a str,
}

/// The event that a marked decision names as its cause; none of other decisions.
#[must_use]
pub fn cause(payload: &[u8]) -> Option<u64> {
    let decision: Decision<'_> = serde_json::from_slice(payload).ok()?;
    if decision.trigger == super::engine::TRIGGER { number_of(decision.cause) } else { None }
}

/// The number of a message of the echo.
#[must_use]
pub fn echoed(payload: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*payload.first_chunk()?))
}

impl Reader {
    /// Reads `topic` from its beginning, as readers do who wait for commits; `number` tells what is looked for.
    ///
    /// # Errors
    /// What the client library or the broker says.
    pub fn start(
        broker: &Broker,
        topic: &str,
        partitions: i32,
        number: fn(&[u8]) -> Option<u64>,
    ) -> anyhow::Result<Reader> {
        let mut config = broker.client();
        config.set("group.id", "whisperer-bench").set("enable.auto.commit", "false");
        config.set("isolation.level", "read_committed").set("auto.offset.reset", "earliest");
        let consumer: BaseConsumer = config.create().context("cannot open a consumer")?;
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::Beginning).context("cannot read a topic")?;
        }
        consumer.assign(&list).context("cannot read a topic")?;
        let (seen, ended) = (Counter::default(), Arc::new(AtomicBool::new(false)));
        let (counter, end) = (seen.clone(), ended.clone());
        let thread = thread::spawn(move || {
            let mut seen = Vec::new();
            while !end.load(Ordering::Relaxed) {
                // Errors of a broker that is busy pass; what does not come is missed, and told.
                let Some(Ok(message)) = consumer.poll(POLL) else { continue };
                let now = Instant::now();
                if let Some(number) = message.payload().and_then(number) {
                    seen.push((number, now));
                    counter.add();
                }
            }
            seen
        });
        Ok(Reader { seen, ended, thread })
    }

    /// Ends it; gives what it has seen, in the order of the seeing.
    #[must_use]
    pub fn end(self) -> Vec<Seen> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}
