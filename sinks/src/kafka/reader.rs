//! Reading a topic by hand: where its partitions end, and what stands in a stretch of them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{BorrowedMessage, Headers},
};

use super::{
    config::{KafkaOptions, REQUEST_TIMEOUT},
    connection::{Logs, late, refused},
    message::{Header, Message},
};
use crate::error::SinkError;

/// Offsets by partition.
pub(super) type Offsets = BTreeMap<i32, i64>;

/// How long a poll waits for something to come.
const POLL: Duration = Duration::from_millis(100);

/// How long one question may take while there is time for another: one that was asked of a broker that is gone finds the new one no sooner.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads one topic.
pub(super) struct Reader {
    consumer: BaseConsumer<Logs>,
    topic: String,
    /// How long brokers may be away.
    patience: Duration,
}

impl Reader {
    /// Opens `topic`; `isolation` is `read_committed` or `read_uncommitted`.
    pub(super) fn open(options: &KafkaOptions, topic: &str, isolation: &str) -> Result<Reader, SinkError> {
        let consumer = BaseConsumer::from_config_and_context(&options.consumer(isolation), Logs);
        let consumer = consumer.map_err(|error| refused("open", topic, &error))?;
        Ok(Reader { consumer, topic: topic.into(), patience: REQUEST_TIMEOUT })
    }

    /// From now on brokers may be away for as long as it may take to write.
    pub(super) fn wait_for(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// The first offsets that there are.
    pub(super) fn begins(&self) -> Result<Offsets, SinkError> {
        self.offsets(Offset::Beginning)
    }

    /// The offsets that come next: of what is committed, where only that is read.
    pub(super) fn ends(&self) -> Result<Offsets, SinkError> {
        self.offsets(Offset::End)
    }

    /// Hands what stands between `begins` and `ends` to `take`, in the order of each partition.
    pub(super) fn read(
        &self,
        begins: &Offsets,
        ends: &Offsets,
        mut take: impl FnMut(&BorrowedMessage<'_>) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        let begin = |partition: &i32| begins.get(partition).copied().unwrap_or_default();
        let mut left: Offsets = ends.clone();
        left.retain(|partition, end| begin(partition) < *end);
        let mut list = TopicPartitionList::new();
        for partition in left.keys() {
            let added = list.add_partition_offset(&self.topic, *partition, Offset::Offset(begin(partition)));
            added.map_err(|error| self.refused(&error))?;
        }
        self.consumer.assign(&list).map_err(|error| self.refused(&error))?;
        let result = self.read_assigned(left, &mut take);
        // Nothing is fetched ahead while nobody reads.
        let unassigned = self.consumer.unassign().map_err(|error| self.refused(&error));
        result.and(unassigned)
    }

    fn read_assigned(
        &self,
        mut left: Offsets,
        take: &mut impl FnMut(&BorrowedMessage<'_>) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        let mut heard = Instant::now();
        let mut last_error = None;
        while !left.is_empty() {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some(end) = left.get(&partition).copied() else { continue };
                    if offset < end {
                        take(&message)?;
                    }
                    if offset + 1 >= end {
                        left.remove(&partition);
                    }
                }
                // The last offsets of a partition may be marks of transactions, which are never handed out.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    heard = Instant::now();
                    left.remove(&partition);
                }
                Some(Err(error)) if hopeless(&error) => return Err(self.refused(&error)),
                Some(Err(error)) => last_error = Some(error),
                None => {}
            }
            if heard.elapsed() >= REQUEST_TIMEOUT {
                let late = || late("read", &self.topic, REQUEST_TIMEOUT);
                return Err(last_error.map_or_else(late, |error| self.refused(&error)));
            }
        }
        Ok(())
    }

    fn offsets(&self, which: Offset) -> Result<Offsets, SinkError> {
        let started = Instant::now();
        loop {
            match self.try_offsets(which) {
                Ok(offsets) => return Ok(offsets),
                // A leader that is just being elected, a broker that has not heard of a new topic: the library asks again only for some.
                Err(error) if hopeless(&error) || started.elapsed() >= self.patience => {
                    return Err(self.refused(&error));
                }
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }

    fn try_offsets(&self, which: Offset) -> Result<Offsets, KafkaError> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), QUESTION_TIMEOUT)?;
        let found = metadata.topics().first().ok_or(KafkaError::MetadataFetch(Code::UnknownTopic))?;
        if let Some(error) = found.error() {
            return Err(KafkaError::MetadataFetch(error.into()));
        }
        let mut list = TopicPartitionList::new();
        for partition in found.partitions() {
            list.add_partition_offset(&self.topic, partition.id(), which)?;
        }
        if list.count() == 0 {
            return Err(KafkaError::MetadataFetch(Code::LeaderNotAvailable));
        }
        // All partitions in one request to each broker.
        let list = self.consumer.offsets_for_times(list, QUESTION_TIMEOUT)?;
        list.elements()
            .iter()
            .map(|element| {
                element.error()?;
                let offset = element.offset().to_raw().filter(|offset| *offset >= 0);
                Ok((element.partition(), offset.ok_or(KafkaError::OffsetFetch(Code::LeaderNotAvailable))?))
            })
            .collect()
    }

    fn refused(&self, error: &KafkaError) -> SinkError {
        refused("read", &self.topic, error)
    }
}

/// Whether asking again is useless.
fn hopeless(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumptionFatal(_))
        || matches!(
            error.rdkafka_error_code(),
            Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::Authentication | Code::Fatal)
        )
}

/// A message that was read, in the form of those that are sent.
pub(super) fn view<'m>(message: &'m BorrowedMessage<'_>) -> Message<'m, Vec<Header<'m>>> {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    let headers = headers.map(|header| (header.key, header.value.unwrap_or_default())).collect();
    Message { key: message.key(), value: message.payload(), headers }
}
