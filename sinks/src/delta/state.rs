//! What a writer knows of a table: read once through the library, then followed commit by commit.

use std::{
    fs,
    path::{Path, PathBuf},
};

use deltalake_core::{
    DeltaResult, DeltaTable,
    kernel::{Metadata, Protocol, StructType, Transaction},
};
use serde_json::Value as Json;

use super::LOG;
use crate::error::{SinkError, io};

/// The newest writer's protocol that asks nothing of us but to add files with their sizes and partitions.
const WRITER_VERSION_MAX: u64 = 2;

/// A table after one of its commits.
#[derive(Clone, Debug)]
pub(super) struct TableState {
    pub(super) version: u64,
    pub(super) metadata: Metadata,
    pub(super) schema: StructType,
    protocol: Json,
    /// The run whose progress is known.
    pub(super) app: String,
    /// How far it is.
    pub(super) committed: Option<u64>,
}

impl TableState {
    pub(super) async fn read(table: &DeltaTable, app: &str) -> DeltaResult<TableState> {
        let snapshot = table.snapshot()?;
        let log = table.log_store();
        let committed = snapshot.transaction_version(log.as_ref(), app).await?;
        Ok(TableState {
            version: snapshot.version(),
            metadata: snapshot.metadata().clone(),
            schema: snapshot.schema().as_ref().clone(),
            protocol: serde_json::to_value(snapshot.protocol())?,
            app: app.into(),
            committed: committed.and_then(|number| u64::try_from(number).ok()),
        })
    }

    /// The state after the commits that came since; none if some of them are not there as files of their own any more.
    pub(super) fn followed(mut self, folder: &Path) -> Result<Option<TableState>, SinkError> {
        let newest = newest(folder)?.unwrap_or_default();
        if newest < self.version {
            return Ok(None);
        }
        for version in self.version + 1..=newest {
            let path = commit_path(folder, version);
            if !path.exists() {
                return Ok(None);
            }
            let lines = fs::read_to_string(&path).map_err(io("read", &path))?;
            for line in lines.lines().filter(|line| !line.trim().is_empty()) {
                self.follow(line).map_err(|source| SinkError::Json { doing: "read", path: path.clone(), source })?;
            }
            self.version = version;
        }
        Ok(Some(self))
    }

    fn follow(&mut self, line: &str) -> Result<(), serde_json::Error> {
        let mut action: Json = serde_json::from_str(line)?;
        if let Some(metadata) = action.get_mut("metaData") {
            self.metadata = serde_json::from_value(metadata.take())?;
            self.schema = self.metadata.parse_schema().map_err(serde::de::Error::custom)?;
        } else if let Some(protocol) = action.get_mut("protocol") {
            let protocol: Protocol = serde_json::from_value(protocol.take())?;
            self.protocol = serde_json::to_value(protocol)?;
        } else if let Some(transaction) = action.get_mut("txn") {
            let Transaction { app_id, version, .. } = serde_json::from_value(transaction.take())?;
            if app_id == self.app {
                self.committed = u64::try_from(version).ok();
            }
        }
        Ok(())
    }

    /// # Errors
    /// A table that another program has given features which we know nothing of.
    pub(super) fn check_writable(&self, folder: &Path) -> Result<(), SinkError> {
        let version = self.protocol.get("minWriterVersion").and_then(Json::as_u64);
        if version.is_some_and(|version| version <= WRITER_VERSION_MAX) {
            return Ok(());
        }
        let found = version.unwrap_or_default();
        let detail = format!("it asks its writers for protocol {found}, this release knows {WRITER_VERSION_MAX}");
        Err(SinkError::Log { doing: "write", path: folder.into(), detail })
    }
}

/// The number of the newest commit.
pub(super) fn newest(folder: &Path) -> Result<Option<u64>, SinkError> {
    let log = folder.join(LOG);
    let mut newest = None;
    for entry in fs::read_dir(&log).map_err(io("list", &log))? {
        let name = entry.map_err(io("list", &log))?.file_name();
        let number = name.to_string_lossy().strip_suffix(".json").and_then(|number| number.parse().ok());
        newest = newest.max(number);
    }
    Ok(newest)
}

fn commit_path(folder: &Path, version: u64) -> PathBuf {
    folder.join(LOG).join(format!("{version:020}.json"))
}
