//! Rows as messages: which column becomes key, value and header.

use whisperer_schemas::{Row, TableSchema, row_hash, time::format_micros};

use super::{
    changes::ChangeEncoder,
    config::KafkaOptions,
    message::{Header, Message},
};
use crate::{error::SinkError, log::Removal, ndjson::Lines};

/// Header of a decision: its id.
pub(super) const DECISION_ID: &str = "decision_id";
/// Header of a profile: as of when it is.
pub(super) const AS_OF: &str = "as_of";
/// Header of a profile: hash of its columns, or [`REMOVED`].
pub(super) const ROW_ID: &str = "row_id";
/// The [`ROW_ID`] of a tombstone.
pub(super) const REMOVED: &str = "removed";
/// Header of a dead letter: the topic that it stands in.
pub(super) const ERROR_TOPIC: &str = "__connect.errors.topic";
/// Header of a dead letter: its partition there.
pub(super) const ERROR_PARTITION: &str = "__connect.errors.partition";
/// Header of a dead letter: its offset there.
pub(super) const ERROR_OFFSET: &str = "__connect.errors.offset";

/// Bytes that a message takes beside its key, value and headers: the batch's head, and the lengths of the parts.
const FRAME_BYTES: usize = 512;

/// The tables that there are topics for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Decisions {
        id: usize,
    },
    Profiles {
        app_id: usize,
        user_id: usize,
        as_of: usize,
    },
    DeadLetters {
        reason: usize,
        detail: usize,
        partition: usize,
        offset: usize,
        raw: usize,
        raw_bytes: usize,
    },
    /// Of a view: those of a cut become messages together.
    Changes,
}

impl Table {
    fn of(schema: &TableSchema) -> Option<Table> {
        let at = |name| schema.column_index(name);
        Some(match schema.name {
            "decisions" => Table::Decisions { id: at("decision_id")? },
            "profiles" => Table::Profiles { app_id: at("app_id")?, user_id: at("user_id")?, as_of: at("as_of")? },
            "dead_letters" => Table::DeadLetters {
                reason: at("reason")?,
                detail: at("detail")?,
                partition: at("partition")?,
                offset: at("offset")?,
                raw: at("raw")?,
                raw_bytes: at("raw_bytes")?,
            },
            _ if schema.diff_index().is_some() => Table::Changes,
            _ => return None,
        })
    }
}

/// What the topic of a table needs to be made with: in a changelog only the last message of a key counts.
pub(super) fn topic_config(schema: &TableSchema) -> &'static [(&'static str, &'static str)] {
    let changelog = matches!(Table::of(schema), Some(Table::Profiles { .. } | Table::Changes));
    if changelog { &[("cleanup.policy", "compact")] } else { &[] }
}

/// Makes messages of a table's rows.
#[derive(Debug)]
pub(super) struct Encoder {
    lines: Lines,
    table: Table,
    job: String,
    /// Where the records come from: a topic, or what stands for it.
    source: String,
    /// The largest message that the topic takes.
    message_bytes_max: usize,
    changes: Option<ChangeEncoder>,
}

impl Encoder {
    pub(super) fn new(schema: TableSchema, options: &KafkaOptions) -> Result<Encoder, SinkError> {
        let Some(table) = Table::of(&schema) else {
            let detail = "there is no form for it in Kafka".to_owned();
            return Err(SinkError::Row { table: schema.name.into(), detail });
        };
        let changes = ChangeEncoder::new(&schema, &options.job, options.changes);
        let (job, source) = (options.job.clone(), options.source.clone());
        Ok(Encoder {
            lines: Lines::new(schema),
            table,
            job,
            source,
            message_bytes_max: options.message_bytes_max(),
            changes,
        })
    }

    /// What makes messages of the changes of a view; none for other tables.
    pub(super) fn changes(&self) -> Option<&ChangeEncoder> {
        self.changes.as_ref()
    }

    pub(super) fn table(&self) -> Table {
        self.table
    }

    /// Hands the message of `row` to `take`.
    pub(super) fn with_message<T>(
        &self,
        row: &Row,
        take: impl FnOnce(&Message<'_, &[Header<'_>]>) -> Result<T, SinkError>,
    ) -> Result<T, SinkError> {
        if row.values.len() != self.lines.schema().columns.len() {
            // Says what is wrong with it.
            self.lines.append(row, &mut Vec::new())?;
        }
        match self.table {
            Table::Decisions { id } => self.decision(row, id, take),
            Table::Profiles { app_id, user_id, as_of } => self.profile(row, app_id, user_id, as_of, take),
            Table::DeadLetters { .. } => self.dead_letter(row, take),
            Table::Changes => Err(self.misfit("changes of a view leave with a checkpoint")),
        }
    }

    /// Hands the tombstone of a key to `take`; none where the table is no changelog.
    pub(super) fn with_tombstone(
        &self,
        removal: &Removal,
        take: impl FnOnce(&Message<'_, &[Header<'_>]>) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        if !matches!(self.table, Table::Profiles { .. }) {
            return Ok(());
        }
        let key = profile_key(&removal.app_id, &removal.user_id);
        let at = format_micros(removal.at).to_string();
        let headers = [(AS_OF, at.as_bytes()), (ROW_ID, REMOVED.as_bytes())];
        take(&Message { key: Some(&key), value: None, headers: &headers })
    }

    fn decision<T>(
        &self,
        row: &Row,
        id: usize,
        take: impl FnOnce(&Message<'_, &[Header<'_>]>) -> Result<T, SinkError>,
    ) -> Result<T, SinkError> {
        let id = self.text(row, id)?;
        let value = self.line(row)?;
        let headers = [(DECISION_ID, id.as_bytes())];
        take(&Message { key: Some(id.as_bytes()), value: Some(&value), headers: &headers })
    }

    fn profile<T>(
        &self,
        row: &Row,
        app_id: usize,
        user_id: usize,
        as_of: usize,
        take: impl FnOnce(&Message<'_, &[Header<'_>]>) -> Result<T, SinkError>,
    ) -> Result<T, SinkError> {
        let key = profile_key(self.text(row, app_id)?, self.text(row, user_id)?);
        let value = self.line(row)?;
        let as_of = row.values[as_of].as_time().ok_or_else(|| self.misfit("it has no \"as_of\""))?;
        let time = format_micros(as_of).to_string();
        let id = format!("{:032x}", row_hash(self.lines.schema(), &row.values));
        let headers = [(AS_OF, time.as_bytes()), (ROW_ID, id.as_bytes())];
        take(&Message { key: Some(&key), value: Some(&value), headers: &headers })
    }

    /// The headers are those of Kafka Connect's dead letter queues, all of them text.
    fn dead_letter<T>(
        &self,
        row: &Row,
        take: impl FnOnce(&Message<'_, &[Header<'_>]>) -> Result<T, SinkError>,
    ) -> Result<T, SinkError> {
        let Table::DeadLetters { reason, detail, partition, offset, raw, raw_bytes } = self.table else {
            unreachable!("called for dead letters only")
        };
        let number = |at: usize| row.values[at].as_int().map(|number: i64| number.to_string());
        let missing = || self.misfit("it has no position");
        let (partition, offset) = (number(partition).ok_or_else(missing)?, number(offset).ok_or_else(missing)?);
        let (raw_bytes, raw) = (number(raw_bytes).unwrap_or_default(), row.values[raw].as_bytes().unwrap_or_default());
        let headers: [Header<'_>; 9] = [
            (ERROR_TOPIC, self.source.as_bytes()),
            (ERROR_PARTITION, partition.as_bytes()),
            (ERROR_OFFSET, offset.as_bytes()),
            ("__connect.errors.connector.name", self.job.as_bytes()),
            ("__connect.errors.stage", b"VALUE_CONVERTER"),
            ("__connect.errors.class.name", b"whisperer"),
            ("__connect.errors.exception.class.name", self.text(row, reason)?.as_bytes()),
            ("__connect.errors.exception.message", self.text(row, detail)?.as_bytes()),
            ("whisperer.raw.bytes", raw_bytes.as_bytes()),
        ];
        // A record may be longer than the topic of dead letters takes: better its beginning than none of it.
        let beside: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 10).sum();
        let room = self.message_bytes_max.saturating_sub(beside + FRAME_BYTES);
        let raw = &raw[..raw.len().min(room)];
        take(&Message { key: None, value: Some(raw), headers: &headers })
    }

    fn line(&self, row: &Row) -> Result<Vec<u8>, SinkError> {
        let mut line = Vec::new();
        self.lines.append(row, &mut line)?;
        Ok(line)
    }

    fn text<'r>(&self, row: &'r Row, column: usize) -> Result<&'r str, SinkError> {
        let name = || &self.lines.schema().columns[column].name;
        row.values[column].as_text().ok_or_else(|| self.misfit(&format!("its \"{}\" is no text", name())))
    }

    fn misfit(&self, detail: &str) -> SinkError {
        SinkError::Row { table: self.lines.schema().name.into(), detail: detail.into() }
    }
}

/// The key of a profile: a JSON array of `app_id` and `user_id`.
pub(super) fn profile_key(app_id: &str, user_id: &str) -> Vec<u8> {
    serde_json::to_vec(&[app_id, user_id]).expect("texts always have a JSON form")
}
