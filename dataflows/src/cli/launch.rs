//! From a job file and the flags of a run to a [`Run`]: opens the source, the state folder and what watches over the process.

use std::{sync::Arc, time::Duration};

use whisperer_connectors::{
    file::FileSource,
    history::HistoryThenLive,
    source::GlobalWatermark,
    state::{FolderStore, RemoteStore, Role, StateStore, StoreError, remote::open_remote, resolve::Retention},
};
use whisperer_operators::job::CompiledJob;
use whisperer_schemas::Micros;
use whisperer_sinks::Existing;

use super::{Failure, open_source, wall_clock};
use crate::{
    job_file::{CheckpointSettings, DeliverFrom, JobFile, Remote, SourceSettings},
    operations::{JobNames, Operations, RunFlags, Stop},
    runtime::{ColdSettings, GenerationTicks, News, Outputs, Progress, Run, RunError, StateSettings},
};

/// Checkpoints that gather before they are merged into the base: a merge writes every state that it touches once more.
const MERGED_FROM: usize = 4;

/// What a run is made of.
pub(super) struct Launch<'a> {
    pub(super) file: &'a JobFile,
    pub(super) job: Arc<CompiledJob>,
    pub(super) flags: &'a RunFlags,
    /// What names the run, if it goes on from nothing.
    pub(super) name: String,
    pub(super) existing: Existing,
    pub(super) progress: Arc<Progress>,
}

impl Launch<'_> {
    /// Opens everything.
    pub(super) fn run(&self) -> Result<Run, Failure> {
        let (file, flags) = (self.file, self.flags);
        let stop = Stop::on_signals()?;
        let names = JobNames {
            job: self.job.name.clone(),
            version: self.job.version,
            triggers: self.job.triggers.iter().map(|trigger| trigger.name.clone()).collect(),
        };
        let operations = Operations::start(&file.operations, names, flags.workers, stop.clone())?;
        let ticks =
            file.operations.checkpoint.dir.as_ref().map(|dir| Arc::new(GenerationTicks::new(dir.join("ticks"))));
        let watermark = Arc::<GlobalWatermark>::default();
        let mut source = open_source(&file.source, (flags.until_end, ticks.clone(), watermark.clone()))?;
        if let Some(history) = &file.history {
            let files = FileSource::new(history.files.clone())?;
            source = Arc::new(HistoryThenLive::new(files, source, watermark.clone()));
        }
        let outputs = Outputs::new(file.sinks.clone(), self.existing, source_name(&file.source));
        let mut run = Run::new(self.job.clone(), source, file.format.clone(), outputs);
        run.name = self.name.clone();
        run.workers = flags.workers;
        run.pin = flags.pin;
        run.cluster = flags.cluster.clone();
        run.epoch_interval = Duration::from_millis(file.epoch.interval_ms);
        run.state = self.state(ticks)?;
        run.cold = self.cold();
        run.news = self.news();
        run.stop = stop;
        run.operations = Some(Arc::new(operations));
        run.progress = self.progress.clone();
        run.watermark = watermark;
        run.history_until = file.history.as_ref().map(|history| history.until);
        Ok(run)
    }

    fn state(&self, ticks: Option<Arc<GenerationTicks>>) -> Result<Option<StateSettings>, Failure> {
        let settings = &self.file.operations.checkpoint;
        let role = match &self.flags.cluster {
            Some(cluster) if cluster.process > 0 => Role::Member(cluster.process as u32),
            _ => Role::Coordinator,
        };
        let Some(store) = open_store(settings, role).map_err(RunError::from)? else { return Ok(None) };
        Ok(Some(StateSettings {
            store: store.into(),
            spec: Arc::new(self.file.spec.clone()),
            every: (settings.interval_ms / self.file.epoch.interval_ms).max(1),
            retention: Retention {
                checkpoints: usize::try_from(settings.retain).unwrap_or(usize::MAX),
                merge_from: MERGED_FROM,
            },
            restore: self.flags.restore,
            repeat_outputs: self.flags.repeat_outputs,
            ticks,
        }))
    }

    #[cfg(feature = "rocksdb")]
    fn cold(&self) -> Option<ColdSettings> {
        use whisperer_connectors::state::cold::RocksCold;
        let bytes_max = self.file.operations.state.memory_bytes_max?;
        let folder = self.file.operations.checkpoint.dir.clone().unwrap_or_else(std::env::temp_dir);
        let process = self.flags.cluster.as_ref().map_or(0, |cluster| cluster.process);
        let open = move |worker: usize| Ok(Box::new(RocksCold::open(&folder, process, worker)?) as Box<_>);
        Some(ColdSettings { bytes_max, open: Arc::new(open) })
    }

    /// Reading the job file has refused a budget already.
    #[cfg(not(feature = "rocksdb"))]
    fn cold(&self) -> Option<ColdSettings> {
        None
    }

    fn news(&self) -> News {
        let delivery = &self.file.delivery;
        let deliver_from: Option<Micros> = match delivery.deliver_from {
            DeliverFrom::Now => Some(wall_clock()),
            DeliverFrom::Beginning => None,
            DeliverFrom::At(time) => Some(time),
        };
        News { deliver_from, expires_after: delivery.expires_after }
    }
}

/// Opens the store of a job's checkpoints; none where it keeps none.
pub(super) fn open_store(settings: &CheckpointSettings, role: Role) -> Result<Option<Box<dyn StateStore>>, StoreError> {
    let Some(dir) = &settings.dir else { return Ok(None) };
    let store: Box<dyn StateStore> = match &settings.remote {
        None => Box::new(FolderStore::open(dir, role)?),
        Some(remote) => Box::new(RemoteStore::open(open_remote(&url(remote))?, dir, role)?),
    };
    Ok(Some(store))
}

fn url(remote: &Remote) -> String {
    match remote {
        Remote::ObjectStore(url) => url.clone(),
        Remote::Folder(folder) => {
            let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
            format!("file://{}", absolute.display())
        }
    }
}

/// What dead letters say they come from.
fn source_name(source: &SourceSettings) -> String {
    match source {
        SourceSettings::Kafka(options) => options.topic.clone(),
        SourceSettings::File(options) => options.path.clone(),
        SourceSettings::Generator(_) => "generator".to_owned(),
    }
}

/// A name for a run: when it started, and which process it is.
pub(super) fn run_name() -> String {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3f");
    format!("{now}-{}", std::process::id())
}
