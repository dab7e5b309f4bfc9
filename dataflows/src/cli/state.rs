//! Opening a state folder, for the verbs that look into it between runs.

use whisperer_connectors::state::{Role, StateStore};

use super::{Exit, Failure, launch::open_store};
use crate::job_file::CheckpointSettings;

/// Opens the store of a job's checkpoints.
pub(super) fn open_state(settings: &CheckpointSettings) -> Result<Box<dyn StateStore>, Failure> {
    let invalid = |error: anyhow::Error| Failure::Other(Exit::Invalid, error);
    let Some(dir) = &settings.dir else {
        let error = anyhow::anyhow!("the job keeps no checkpoints: give it [checkpoint] dir, or say --state DIR");
        return Err(invalid(error));
    };
    if !dir.is_dir() {
        return Err(invalid(anyhow::anyhow!("there is no state folder \"{}\"", dir.display())));
    }
    let store = open_store(settings, Role::Reader).map_err(|error| Failure::Other(Exit::Failed, error.into()))?;
    store.ok_or_else(|| invalid(anyhow::anyhow!("the job keeps no checkpoints")))
}
