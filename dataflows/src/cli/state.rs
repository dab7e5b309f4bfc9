//! Opening a state folder, for the verbs that look into it between runs.

use whisperer_connectors::state::StateStore;

use super::{Exit, Failure};
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
    Err(invalid(anyhow::anyhow!("the state folder \"{}\" cannot be opened by this build", dir.display())))
}
