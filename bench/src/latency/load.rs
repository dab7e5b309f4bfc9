//! Who sends: the load, and the probe whose messages only go to the broker and back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use rdkafka::{
    ClientConfig, ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};
use whisperer_schemas::Micros;

use super::{broker::Broker, pool::Pool, schedule::Schedule};

/// How long a sender sleeps when nothing is due: little beside a broker's millisecond.
const PAUSE: Duration = Duration::from_micros(500);

/// Events between two looks at what the broker says.
const SENT_BETWEEN_POLLS: u64 = 1_024;

/// How long a sender may go on after its schedule has ended.
const OVERTIME: Duration = Duration::from_secs(10);

/// Bytes of a message of the echo: about those of a decision.
const ECHO_BYTES: usize = 1_500;

/// Messages of the echo a second: enough for a p99.9, little beside the load.
pub const ECHO_RATE: u64 = 500;

/// What became of messages.
#[derive(Default)]
struct Deliveries {
    failed: AtomicU64,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.failed.fetch_add(u64::from(result.is_err()), Ordering::Relaxed);
    }
}

/// What the senders and readers of a row agree on.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// When the schedules begin.
    pub start: Instant,
    /// The same by the wall clock.
    pub wall: Micros,
}

impl Clock {
    /// One that begins now.
    #[must_use]
    pub fn now() -> Clock {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { start: Instant::now(), wall: since.as_micros() as Micros }
    }

    fn wall_at(self, after: Duration) -> Micros {
        self.wall + after.as_micros() as Micros
    }
}

/// What a load has come to.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Events sent.
    pub events: u64,
    /// The furthest that the sending fell behind the schedule.
    pub behind_max: Duration,
    /// Messages that the broker did not take.
    pub failed: u64,
    /// Numbers of events that decisions will name, in order.
    pub deciding: Vec<u64>,
}

/// Sends events to a topic.
pub struct Load {
    producer: BaseProducer<Deliveries>,
    pool: Pool,
    topic: String,
    sent: Sent,
}

impl Load {
    /// A sender of these events, for an engine that knows none of them.
    ///
    /// # Errors
    /// What the client library says.
    pub fn new(broker: &Broker, topic: &str, mut pool: Pool) -> anyhow::Result<Load> {
        pool.forget();
        let mut config = client(broker);
        config.set("queue.buffering.max.messages", "1000000").set("queue.buffering.max.kbytes", "524288");
        let producer = config.create_with_context(Deliveries::default()).context("cannot open a producer")?;
        Ok(Load { producer, pool, topic: topic.to_owned(), sent: Sent::default() })
    }

    /// Sends the next event, which happened at `time`, and waits until the broker has it.
    ///
    /// # Errors
    /// Where the broker does not take it.
    pub fn hello(&mut self, time: Micros) -> anyhow::Result<u64> {
        self.send(time);
        self.producer.flush(Duration::from_secs(30)).context("the broker takes no events")?;
        Ok(self.sent.events - 1)
    }

    /// Sends `events` more by the schedule, each as one that happened at its time; then waits until the broker has them.
    pub fn run(mut self, schedule: Schedule, events: u64, clock: Clock) -> (Sent, Pool) {
        let (first, end) = (self.sent.events, schedule.time_of(events) + OVERTIME);
        loop {
            let (done, elapsed) = (self.sent.events - first, clock.start.elapsed());
            if done == events || elapsed >= end {
                break;
            }
            let due = schedule.due(elapsed).min(events);
            if done < due {
                let behind = elapsed.saturating_sub(schedule.time_of(done));
                self.sent.behind_max = self.sent.behind_max.max(behind);
            }
            for event in done..due {
                self.send(clock.wall_at(schedule.time_of(event)));
            }
            self.producer.poll(Duration::ZERO);
            thread::sleep(PAUSE);
        }
        self.end()
    }

    /// Sends `events` as fast as the broker takes them, as if they had come at `rate` up to now.
    pub fn fill(mut self, schedule: Schedule, events: u64, clock: Clock) -> (Sent, Pool) {
        let start = clock.wall - schedule.time_of(events).as_micros() as Micros;
        for event in 0..events {
            self.send(start + schedule.time_of(event).as_micros() as Micros);
        }
        self.end()
    }

    fn end(mut self) -> (Sent, Pool) {
        let flushed = self.producer.flush(Duration::from_secs(60));
        let failed = self.producer.context().failed.load(Ordering::Relaxed);
        self.sent.failed = failed + if flushed.is_err() { self.producer.in_flight_count() as u64 } else { 0 };
        (self.sent, self.pool)
    }

    /// Waits where too much is on its way: the schedule goes on meanwhile.
    fn send(&mut self, time: Micros) {
        let number = self.sent.events;
        let event = self.pool.event(number, time);
        if event.decides {
            self.sent.deciding.push(number);
        }
        let record = BaseRecord::to(&self.topic).key(event.user).payload(event.line).timestamp(time / 1_000);
        persist(&self.producer, record);
        self.sent.events += 1;
        if self.sent.events.is_multiple_of(SENT_BETWEEN_POLLS) {
            self.producer.poll(Duration::ZERO);
        }
    }
}

/// Sends numbers to `topic` by the schedule until `end`; gives how many.
///
/// # Errors
/// What the client library says.
pub fn echo(broker: &Broker, topic: &str, clock: Clock, end: Duration) -> anyhow::Result<thread::JoinHandle<u64>> {
    let producer: BaseProducer<Deliveries> =
        client(broker).create_with_context(Deliveries::default()).context("cannot open a producer")?;
    let (topic, schedule) = (topic.to_owned(), Schedule { rate: ECHO_RATE });
    Ok(thread::spawn(move || {
        let mut sent = 0;
        let mut message = vec![b'x'; ECHO_BYTES];
        while clock.start.elapsed() < end {
            let due = schedule.due(clock.start.elapsed());
            for number in sent..due {
                message[..8].copy_from_slice(&number.to_be_bytes());
                persist(&producer, BaseRecord::<[u8], [u8]>::to(&topic).payload(&message));
            }
            sent = due;
            producer.poll(Duration::ZERO);
            thread::sleep(PAUSE);
        }
        // What is not acknowledged will be missed.
        let _ = producer.flush(Duration::from_secs(30));
        sent
    }))
}

/// Settings of both senders: the client library's own lingering of 5 ms, as most have it. Nothing is tried again, so order is kept without
/// idempotence, whose five requests in flight let the library's thread spin when a broker is busy.
fn client(broker: &Broker) -> ClientConfig {
    let mut config = broker.client();
    config.set("acks", "all").set("linger.ms", "5").set("message.send.max.retries", "0");
    config.set("partitioner", "murmur2_random").set("delivery.report.only.error", "true");
    config.set("message.timeout.ms", "120000");
    config
}

fn persist(producer: &BaseProducer<Deliveries>, record: BaseRecord<'_, [u8], [u8]>) {
    let mut sent = producer.send(record);
    while let Err((error, record)) = sent {
        if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
            producer.context().failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        producer.poll(Duration::from_millis(5));
        sent = producer.send(record);
    }
}

/// Counts up what others wait for.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there are.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
