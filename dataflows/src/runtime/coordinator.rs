//! The coordinator: turns the acknowledgements of all workers into manifests, and announces what is committed.
//!
//! It is a part of worker 0. Manifests are created, and staged files published, by one thread; merging into the base and clearing up
//! is done by another, so that it holds up no checkpoint.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tracing::Span;

use whisperer_connectors::{
    StateStore, StoreError,
    state::resolve::{History, Retention, above, mergeable, removable},
};
use whisperer_schemas::{
    Digest, Epoch, Micros,
    checkpoint::{Cut, FileFacts, MANIFEST_VERSION, Manifest},
};
use whisperer_sinks::{Lake, StagedFile};

use super::{
    RunError,
    checkpoints::COORDINATOR,
    control::{Ack, Committed, Control, Message, Start},
    erasures::{self, Watch},
    recovery::chain,
};
use crate::operations::{CheckpointFacts, Operations, Spans, traces};

/// What stands in every manifest of a run.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) job: String,
    pub(super) job_version: u32,
    pub(super) fingerprint: String,
}

impl Header {
    /// A manifest with this header.
    pub(super) fn manifest(&self, number: u64, generation: u64) -> Manifest {
        Manifest {
            version: MANIFEST_VERSION,
            number,
            generation,
            job: self.job.clone(),
            job_version: self.job_version,
            fingerprint: self.fingerprint.clone(),
            written: wall_clock(),
            restored: None,
            cut: None,
        }
    }
}

/// What a run starts from, as the process that coordinates has found it.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) header: Header,
    pub(super) history: History,
    pub(super) start: Start,
    /// The checkpoint that is restored.
    pub(super) cut: Option<Cut>,
    /// How long it took to apply erasures.
    pub(super) erasing_took: Duration,
}

/// What a coordinator works with.
pub(super) struct Tools {
    pub(super) store: Arc<dyn StateStore>,
    pub(super) lakes: BTreeMap<PathBuf, Arc<Lake>>,
    pub(super) retention: Retention,
    pub(super) workers: usize,
    /// Whether there are sinks whose rows wait for commits.
    pub(super) outboxes: bool,
    pub(super) operations: Option<Arc<Operations>>,
    pub(super) spans: Arc<Spans>,
}

/// The coordinator.
pub(super) struct Coordinator {
    origin: Origin,
    tools: Tools,
    /// The number of the next manifest.
    number: u64,
    /// The last checkpoint.
    last: Cut,
    /// Deltas of this generation with rows that are in no file, by worker, oldest first.
    rows: BTreeMap<usize, Vec<FileFacts>>,
    /// Acknowledgements of cuts that are not committed, by epoch.
    acks: BTreeMap<u64, Vec<Ack>>,
    /// Cuts that are being committed, oldest first.
    committing: VecDeque<Committing>,
    committer: Committer,
    keeper: Keeper,
    watch: Watch,
    /// The last checkpoint whose outboxes a worker has published, by worker.
    published: BTreeMap<usize, u64>,
    /// The epoch from which on a cut is the last one.
    stop: Option<u64>,
    /// Whether the committed state has not been looked over since the last commit.
    untidy: bool,
}

/// A cut that is being committed.
struct Committing {
    manifest: Manifest,
    /// Whether everything that was there when the run began has been read by all readers.
    caught_up: bool,
    /// When this worker took it.
    taken: Micros,
    /// Bytes that were written for it.
    bytes: u64,
}

impl Coordinator {
    pub(super) fn new(origin: Origin, tools: Tools) -> Coordinator {
        let committer = Committer::start(tools.store.clone(), tools.lakes.clone());
        let keeper = Keeper::start(tools.store.clone(), tools.retention, origin.start.generation);
        let watch = Watch::start(tools.store.clone(), origin.erasing_took);
        Coordinator {
            number: origin.start.claim + 1,
            last: origin.cut.clone().unwrap_or_default(),
            // What the checkpoint before lists is taken over, and closed with the first cut.
            rows: BTreeMap::new(),
            acks: BTreeMap::new(),
            committing: VecDeque::new(),
            committer,
            keeper,
            watch,
            published: BTreeMap::new(),
            stop: None,
            untidy: false,
            origin,
            tools,
        }
    }

    /// Takes in a worker's part of a cut.
    pub(super) fn acknowledge(&mut self, ack: Ack) -> Result<(), RunError> {
        self.acks.entry(ack.epoch).or_default().push(ack);
        while let Some(entry) = self.acks.first_entry().filter(|entry| entry.get().len() == self.tools.workers) {
            let acks = entry.remove();
            self.commit(acks)?;
        }
        Ok(())
    }

    pub(super) fn published(&mut self, worker: usize, number: u64) {
        self.published.insert(worker, number);
    }

    /// Decides at which epoch the job stops; none where that is decided already.
    pub(super) fn stop(&mut self, epoch: u64, again: bool) -> Option<Message> {
        if self.stop.is_some() {
            return None;
        }
        self.stop = Some(epoch);
        Some(Message::Stop { epoch, again })
    }

    /// Whether an erasure waits for the job to start again.
    pub(super) fn is_asked_to_erase(&self) -> bool {
        self.stop.is_none() && self.watch.found()
    }

    /// Announces what has been committed since the last turn.
    pub(super) fn turn(&mut self, control: &mut Control) -> Result<(), RunError> {
        while let Some(outcome) = self.committer.outcome() {
            let committing = self.committing.pop_front().expect("manifests are created in their order");
            self.tell(&committing, &outcome);
            outcome?;
            let Committing { manifest, caught_up, .. } = committing;
            let epoch = self.last_epoch(&manifest);
            let finished = manifest.cut.as_ref().is_some_and(|cut| cut.finished);
            let last = finished || self.stop.is_some_and(|stop| epoch >= stop);
            // What events asked for at the end of the input is applied to the tables too, and what is left of it is cleared.
            let applied = !self.origin.start.erasing.applies.is_empty();
            let again = finished && (applied || erasures::waits(&*self.tools.store)?);
            tracing::info!(number = manifest.number, epoch, last, "checkpoint committed");
            control.broadcast(&Message::Committed(Committed {
                number: manifest.number,
                epoch,
                last,
                again,
                caught_up,
            }));
            self.origin.history.add(manifest);
            self.untidy = true;
        }
        if let Some(removed) = self.keeper.outcome()? {
            self.origin.history.forget(&removed);
        }
        if self.untidy && self.keeper.idle {
            self.untidy = false;
            self.keeper.look(self.origin.history.clone(), self.published_by_all());
        }
        Ok(())
    }

    /// Tells those who look on of a checkpoint.
    fn tell(&self, committing: &Committing, outcome: &Outcome) {
        let Committing { manifest, taken, bytes, .. } = committing;
        let metrics = self.tools.operations.as_ref().map(|operations| &operations.metrics);
        if outcome.is_err() {
            metrics.inspect(|metrics| metrics.checkpoint_failed());
            return;
        }
        self.tools.spans.committed(self.last_epoch(manifest), manifest.number, *bytes);
        let took = Duration::from_micros(wall_clock().saturating_sub(*taken).max(0).unsigned_abs());
        let facts = CheckpointFacts { number: manifest.number, bytes: *bytes, took };
        metrics.inspect(|metrics| metrics.checkpoint_committed(facts));
    }

    /// Waits until the store is tidy; gives the last checkpoint.
    pub(super) fn finish(self) -> Result<Cut, RunError> {
        self.committer.finish();
        self.keeper.finish()?;
        Ok(self.last)
    }

    fn last_epoch(&self, manifest: &Manifest) -> u64 {
        manifest.cut.as_ref().map_or(0, |cut| cut.epoch.0)
    }

    fn published_by_all(&self) -> Option<u64> {
        if !self.tools.outboxes {
            return Some(u64::MAX);
        }
        let all = self.published.len() == self.tools.workers;
        if all { self.published.values().min().copied() } else { None }
    }

    fn commit(&mut self, acks: Vec<Ack>) -> Result<(), RunError> {
        let staged = staged_files(&acks)?;
        let caught_up = acks.iter().all(|ack| ack.caught_up);
        let bytes = acks.iter().map(|ack| ack.file.bytes).sum();
        // Clocks of other machines may differ.
        let own = acks.iter().find(|ack| ack.worker == COORDINATOR);
        let taken = own.map_or_else(wall_clock, |ack| ack.taken);
        acks.iter().for_each(|ack| self.note_rows(ack));
        let cut = self.cut(acks)?;
        let span = self.tools.spans.checkpoint(cut.epoch.0);
        let mut manifest = self.origin.header.manifest(self.number, self.origin.start.generation);
        self.last = cut.clone();
        manifest.cut = Some(cut);
        self.number += 1;
        self.committing.push_back(Committing { manifest: manifest.clone(), caught_up, taken, bytes });
        self.committer.commit((manifest, staged, span));
        Ok(())
    }

    /// Keeps account of the deltas of a worker with rows that are in no file.
    fn note_rows(&mut self, ack: &Ack) {
        let files = self.rows.entry(ack.worker).or_default();
        files.retain(|file| ack.rows_after.is_some_and(|after| file.epoch.0 > after));
        files.extend(ack.holds_rows.then(|| ack.file.clone()));
    }

    fn cut(&self, acks: Vec<Ack>) -> Result<Cut, StoreError> {
        let base = self.tools.store.base()?;
        let mut deltas: Vec<_> = above(&self.last, base.epoch).into_iter().cloned().collect();
        deltas.reverse();
        let first = acks.first();
        let mut cut = Cut {
            epoch: Epoch(first.map_or(0, |ack| ack.epoch)),
            workers: self.tools.workers as u32,
            // A partition that nobody has read since keeps its position.
            positions: self.last.positions.clone(),
            clocks: first.map(|ack| ack.clocks.clone()).unwrap_or_default(),
            ended: first.map(|ack| ack.ended.clone()).unwrap_or_default(),
            watermark: first.and_then(|ack| ack.watermark),
            rows: self.rows.values().flatten().cloned().collect(),
            base,
            run: self.origin.start.run.clone(),
            deliver_from: self.origin.start.deliver_from,
            finished: first.is_some_and(|ack| ack.last),
            ..Cut::default()
        };
        for ack in acks {
            deltas.push(ack.file);
            for (partition, offset) in ack.positions {
                let position = cut.positions.entry(partition).or_default();
                *position = offset.max(*position);
            }
            cut.sinks.extend(ack.sinks);
            for (lake, files) in ack.staged {
                cut.staged.entry(lake).or_default().extend(files);
            }
            for (table, digest) in ack.digests {
                let sum: &mut Digest = cut.digests.entry(table).or_default();
                sum.merge(digest);
            }
            for (name, count) in ack.counts {
                let sum: &mut u64 = cut.counts.entry(name).or_default();
                *sum = sum.wrapping_add(count);
            }
        }
        cut.deltas = deltas;
        Ok(cut)
    }
}

/// Files that all workers have staged, by lake.
fn staged_files(acks: &[Ack]) -> Result<BTreeMap<PathBuf, Vec<StagedFile>>, RunError> {
    let mut staged: BTreeMap<PathBuf, Vec<StagedFile>> = BTreeMap::new();
    for (lake, files) in acks.iter().flat_map(|ack| &ack.staged) {
        staged.entry(lake.into()).or_default().extend(parse_staged(files)?);
    }
    Ok(staged)
}

/// Staged files as a manifest lists them.
pub(super) fn parse_staged(files: &[String]) -> Result<Vec<StagedFile>, RunError> {
    let parse = |file: &String| serde_json::from_str(file).map_err(|error| RunError::Manifest(error.to_string()));
    files.iter().map(parse).collect()
}

type Outcome = Result<(), RunError>;
type Job = (Manifest, BTreeMap<PathBuf, Vec<StagedFile>>, Span);

/// Creates manifests and publishes what was staged for them, one after the other.
struct Committer {
    manifests: Sender<Job>,
    outcomes: Receiver<Outcome>,
    thread: thread::JoinHandle<()>,
}

impl Committer {
    fn start(store: Arc<dyn StateStore>, lakes: BTreeMap<PathBuf, Arc<Lake>>) -> Committer {
        let (manifests, received) = mpsc::channel::<Job>();
        let (tell, outcomes) = mpsc::channel();
        let worker = thread::current();
        let thread = thread::spawn(move || {
            for job in received {
                let outcome = commit(&*store, &lakes, &job);
                drop(job);
                let failed = outcome.is_err();
                if tell.send(outcome).is_err() || failed {
                    return;
                }
                worker.unpark();
            }
        });
        Committer { manifests, outcomes, thread }
    }

    fn commit(&self, job: Job) {
        // A committer that came down has said why.
        let _ = self.manifests.send(job);
    }

    fn outcome(&self) -> Option<Outcome> {
        self.outcomes.try_recv().ok()
    }

    fn finish(self) {
        drop(self.manifests);
        // A thread that panicked has aborted the process.
        let _ = self.thread.join();
    }
}

fn commit(store: &dyn StateStore, lakes: &BTreeMap<PathBuf, Arc<Lake>>, job: &Job) -> Outcome {
    let (manifest, staged, checkpoint) = job;
    if !traces::commit(checkpoint, manifest.number).in_scope(|| store.create_manifest(manifest))? {
        return Err(RunError::Fenced { number: manifest.number, generation: manifest.generation });
    }
    let _publishing = traces::publish(checkpoint, manifest.number).entered();
    for (root, lake) in lakes {
        lake.publish(staged.get(root).map_or(&[][..], Vec::as_slice))?;
    }
    Ok(())
}

/// Merges what no checkpoint needs alone into the base, and removes what nothing needs.
struct Keeper {
    histories: Sender<(History, Option<u64>)>,
    outcomes: Receiver<Result<Vec<u64>, StoreError>>,
    thread: thread::JoinHandle<()>,
    idle: bool,
}

impl Keeper {
    fn start(store: Arc<dyn StateStore>, retention: Retention, generation: u64) -> Keeper {
        let (histories, received) = mpsc::channel::<(History, Option<u64>)>();
        let (tell, outcomes) = mpsc::channel();
        let thread = thread::spawn(move || {
            for (history, published) in received {
                if tell.send(tidy(&*store, history, (retention, generation), published)).is_err() {
                    return;
                }
                // The ids of who is erased for good; the next checkpoint brings another attempt.
                if let Err(error) = erasures::settle(&*store) {
                    tracing::warn!(error = chain(&error), "erasures are not settled for now");
                }
            }
        });
        Keeper { histories, outcomes, thread, idle: true }
    }

    fn look(&mut self, history: History, published: Option<u64>) {
        self.idle = false;
        // A keeper that came down has said why.
        let _ = self.histories.send((history, published));
    }

    /// Numbers of manifests that are gone.
    fn outcome(&mut self) -> Result<Option<Vec<u64>>, StoreError> {
        let Ok(outcome) = self.outcomes.try_recv() else { return Ok(None) };
        self.idle = true;
        match outcome {
            // Checkpoints do not depend on it; the next one brings another attempt.
            Err(error) if error.retry() => {
                tracing::warn!(%error, "the state is not tidied up for now");
                Ok(None)
            }
            outcome => outcome.map(Some),
        }
    }

    fn finish(self) -> Result<(), StoreError> {
        drop(self.histories);
        // A thread that panicked has aborted the process.
        let _ = self.thread.join();
        let failed = |outcome: Result<Vec<u64>, StoreError>| outcome.err().filter(|error| !error.retry());
        self.outcomes.try_iter().find_map(failed).map_or(Ok(()), Err)
    }
}

fn tidy(
    store: &dyn StateStore,
    mut history: History,
    (retention, generation): (Retention, u64),
    published: Option<u64>,
) -> Result<Vec<u64>, StoreError> {
    let mut removed = Vec::new();
    // An ended job takes no next checkpoint that would go on with it.
    let times = if retention == Retention::LAST { 3 } else { 1 };
    for _ in 0..times {
        if let Some(merge) = mergeable(&history, &store.base()?, retention, published) {
            store.merge(&merge.deltas, merge.epoch)?;
        }
        let removal = removable(&history, generation, retention, &store.files()?);
        store.remove(&removal.manifests, &removal.files)?;
        history.forget(&removal.manifests);
        removed.extend(removal.manifests);
    }
    Ok(removed)
}

/// The wall clock in microseconds.
pub(super) fn wall_clock() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as Micros
}
