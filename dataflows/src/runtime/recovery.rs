//! Recovery: what a run starts from, and how each worker comes to its share of it.
//!
//! ```text
//! process 0   all manifests ─▶ choose ─▶ claim the next number ─▶ Start ──▶ every worker
//! each worker Start ─▶ manifest ─▶ base and deltas of its key groups, positions, clocks, sinks
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{OnceLock, PoisonError},
    time::Duration,
};

use whisperer_connectors::{
    Positions, StateStore,
    state::{
        Loading,
        load::read_history,
        resolve::{Standing, check_outputs, choose, next_claim, parse_delta_name},
    },
};
use whisperer_operators::{
    job::CompiledJob,
    keyed::{CutPlan, KeyedCut, KeyedSetup},
    keys::{Keys, Outputs as KeyedOutputs, Removed, RestoreError},
    layout::StateLayout,
};
use whisperer_schemas::{
    KeyHash, Micros, PartitionId,
    checkpoint::{Cut, FileFacts, Manifest},
};
use whisperer_sinks::{OutboxSink, Removal, SinkError, lake::Recovery, log::taken_over};

use super::{
    Run, RunError, StateSettings,
    checkpoints::sink_key,
    control::Start,
    coordinator::{Header, Origin, parse_staged},
    counts,
    erasures::{self, Erasing, Matching, of_entries, secret},
    outputs::{Opening, WorkerTables},
    reading::wall_clock_epoch,
    tables::Way,
};

/// Whether there is something left to do, for a process that decides nothing.
pub(super) fn refuse_finished(run: &Run, state: &StateSettings) -> Result<(), RunError> {
    let history = read_history(&*state.store)?;
    choose(&history, state.restore)?.map_or(Ok(()), |manifest| unless_finished(run, state, manifest))
}

fn unless_finished(run: &Run, state: &StateSettings, manifest: &Manifest) -> Result<(), RunError> {
    if erasures::are_due(&*state.store, manifest.number)? {
        return Ok(());
    }
    match manifest.cut.as_ref().filter(|cut| cut.finished) {
        Some(cut) if run.outputs.are_finished(&cut.run) => Err(RunError::Finished { number: manifest.number }),
        _ => Ok(()),
    }
}

/// Decides what the run starts from and claims the next manifest for it. Only the process that coordinates does so.
pub(super) fn claim(run: &Run, state: &StateSettings) -> Result<Origin, RunError> {
    let store = &*state.store;
    let mut history = read_history(store)?;
    let chosen = choose(&history, state.restore)?.cloned();
    let header =
        Header { job: run.job.name.clone(), job_version: run.job.version, fingerprint: state.spec.fingerprint() };
    if let Some(manifest) = &chosen {
        if manifest.job != header.job {
            return Err(RunError::OtherJob { found: manifest.job.clone(), job: header.job });
        }
        unless_finished(run, state, manifest)?;
        if manifest.fingerprint != header.fingerprint {
            tracing::info!(
                number = manifest.number,
                "the job has changed since the checkpoint: what is new starts empty"
            );
        }
    }
    let newest = history.live().first().copied();
    if let (Some(wanted), Some(newest)) = (state.restore, newest) {
        // Before the claim: a start that is refused must not send the job back.
        let recorded = BTreeMap::from([("the outputs".to_owned(), newest)]);
        check_outputs(&history, wanted, &recorded, state.repeat_outputs)?;
    }
    // A claim that no checkpoint follows is that of a start which sent the job back, or that died: it has accepted what comes again.
    let sent_back = history.standings().last().is_some_and(|(_, standing)| *standing == Standing::Claim);
    let repeats = state.repeat_outputs || sent_back;
    let (number, generation) = next_claim(&history);
    let mut claim = header.manifest(number, generation);
    claim.restored = chosen.as_ref().map(|manifest| manifest.number);
    if !store.create_manifest(&claim)? {
        return Err(RunError::Fenced { number, generation });
    }
    history.add(claim);
    let restored = chosen.as_ref().map(|manifest| manifest.number);
    let cut = chosen.and_then(|manifest| manifest.cut);
    let deliver_from = cut.as_ref().map_or(run.news.deliver_from, |cut| cut.deliver_from);
    let name = cut.as_ref().map_or(run.name.as_str(), |cut| cut.run.as_str()).to_owned();
    let finished = cut.as_ref().is_some_and(|cut| cut.finished);
    let from = if run.source.live() { wall_clock_epoch(run.epoch_interval) } else { 0 };
    let erasing = Erasing::default();
    let start =
        Start { generation, claim: number, run: name, restored, finished, repeats, deliver_from, from, erasing };
    tracing::info!(generation, restored, "generation claimed");
    Ok(Origin { header, history, start, cut, erasing_took: Duration::ZERO })
}

/// Rolls forward what the checkpoint says about files, and clears up after the generation before. Only the process that coordinates does so.
pub(super) fn recover_lakes(run: &Run, store: &dyn StateStore, origin: &Origin) -> Result<(), RunError> {
    let erased = erasures::were_applied(store, origin.start.restored.unwrap_or(0))?;
    for lake in run.outputs.lakes() {
        let cut = origin.cut.as_ref();
        let listed = cut.and_then(|cut| cut.staged.get(&lake.root().display().to_string()));
        let files = parse_staged(listed.map_or(&[][..], Vec::as_slice))?;
        lake.recover(&Recovery {
            checkpoint: origin.start.restored.unwrap_or(0),
            listed: &files,
            claimed: origin.start.claim,
            repeat_outputs: origin.start.repeats,
            erased,
        })?;
    }
    Ok(())
}

/// What the workers of a process prepare once, together.
#[derive(Default)]
pub(super) struct Once {
    prepared: OnceLock<Result<(), String>>,
}

/// One worker's share of what the run starts from.
pub(super) struct Restored {
    pub(super) cut: Cut,
    pub(super) positions: Positions,
    /// The keyed operator's start; its cuts are planned.
    pub(super) setup: KeyedSetup,
    /// Whether the states have to be written again as a whole, since the job is another one now.
    pub(super) full: bool,
    /// Users whose states were removed.
    pub(super) removed: Vec<Removed>,
}

impl Restored {
    /// A start from nothing.
    pub(super) fn from_nothing(setup: KeyedSetup) -> Restored {
        Restored { cut: Cut::default(), positions: Positions::new(), setup, full: false, removed: Vec::new() }
    }
}

/// Loads a worker's share.
pub(super) fn restore(
    run: &Run,
    state: &StateSettings,
    (worker, workers): (usize, usize),
    (start, once): (&Start, &Once),
) -> Result<Restored, RunError> {
    let store = &*state.store;
    let cut = start.restored.map(|number| store.manifest(number)).transpose()?.and_then(|manifest| manifest.cut);
    let prepare = || once_prepared(run, state, start, cut.as_ref()).map_err(|error| chain(&error));
    once.prepared.get_or_init(prepare).clone().map_err(RunError::Prepare)?;
    let after = cut.as_ref().map_or(0, |cut| cut.epoch.0);
    let plan = CutPlan { every: state.every, after, from: start.from };
    let mut setup = run.keyed_setup();
    setup.plan = Some(plan);
    setup.keys.keep_cuts();
    run.make_cold(worker, &mut setup.keys)?;
    let restored_at = cut.as_ref().map(|cut| cut.positions.clone()).unwrap_or_default();
    setup.keys.suppress(of_entries(secret(store)?, &start.erasing.entries), restored_at);
    setup.settled = start.finished;
    if start.erasing.applied().next().is_some() {
        // So that what they have shown can go.
        setup.keys.begin_views(&|table| table.user_columns().next().is_some());
    }
    let Some(cut) = cut else {
        // A cut before the first record: what sinks say then lets a crash before the first checkpoint repeat nothing.
        setup.cuts.borrow_mut().push_back(KeyedCut {
            epoch: 0,
            clocks: setup.clocks.clone(),
            counts: setup.keys.numbers().clone(),
            layout: setup.keys.layout(),
            states: Some(Vec::new()),
            last: false,
            noted: Vec::new(),
        });
        return Ok(Restored::from_nothing(setup));
    };
    setup.clocks.restore(cut.clocks.clone(), cut.ended.iter().copied());
    setup.clocks.hold(cut.watermark);
    let watermark = setup.clocks.watermark();
    let mut loaded = Loaded { keys: &mut setup.keys, outputs: &mut setup.outputs };
    let full = loaded.load(store, &cut, (state, watermark), &|group| group % workers as u64 == worker as u64)?;
    let removed = erase(&mut setup)?;
    if worker == 0 {
        setup.keys.add_counts(&counts::keyed(&cut.counts, &run.job.triggers));
    }
    let history = PartitionId::HISTORY..PartitionId::HISTORY + run.source.history();
    let positions = cut.positions.iter().map(|(partition, offset)| (PartitionId(*partition), *offset));
    let (positions, gone): (Positions, Positions) =
        positions.partition(|(partition, _)| !partition.is_history() || history.contains(&partition.0));
    if let Some((partition, _)) = gone.iter().find(|(partition, _)| !cut.ended.contains(&partition.0)) {
        return Err(RunError::HistoryLeft { partition: partition.0 - PartitionId::HISTORY });
    }
    Ok(Restored { cut, positions, setup, full, removed })
}

/// Drops the states that this start erases.
fn erase(setup: &mut KeyedSetup) -> Result<Vec<Removed>, RunError> {
    let mut erased = KeyedOutputs::default();
    let removed = setup.keys.erase_restored(&mut erased)?;
    setup.taken_back = erased.facts;
    setup.outputs.stages.append(&mut erased.stages);
    setup.outputs.texts.append(&mut erased.texts);
    Ok(removed)
}

/// Tells whose rows go with this start.
pub(super) fn matching(state: &StateSettings, start: &Start) -> Result<Matching, RunError> {
    Ok(Matching::new(of_entries(secret(&*state.store)?, start.erasing.applied())))
}

/// Tells whose records are left out where they are no events.
pub(super) fn suppressed(state: &StateSettings, start: &Start) -> Result<Matching, RunError> {
    Ok(Matching::new(of_entries(secret(&*state.store)?, &start.erasing.entries)))
}

/// The users whose rows this worker takes out of changelogs.
pub(super) fn removals(
    run: &Run,
    start: &Start,
    (worker, workers): (usize, usize),
    (removed, cut): (&[Removed], &Cut),
) -> Vec<Removal> {
    let joined = run.job.intake.joins_applications();
    let own = |app: &str, user: &str| {
        let key = if joined { KeyHash::of(&[user]) } else { KeyHash::of(&[app, user]) };
        key.group() % workers as u64 == worker as u64
    };
    let asked = start.erasing.users.iter().filter(|(app, user)| own(app, user)).cloned();
    let removed = removed.iter().map(|key| (key.app_id.to_string(), key.user_id.to_string()));
    let users: BTreeSet<(String, String)> = asked.chain(removed).collect();
    let at = cut.clocks.values().copied().max().unwrap_or_default();
    users.into_iter().map(|(app_id, user_id)| Removal { app_id, user_id, at }).collect()
}

/// What one worker of a process does for all of them.
fn once_prepared(run: &Run, state: &StateSettings, start: &Start, cut: Option<&Cut>) -> Result<(), RunError> {
    state.store.prepare(cut)?;
    let process = run.cluster.as_ref().map_or(0, |cluster| cluster.process);
    if process > 0 {
        let (generation, fresh) = (start.generation, start.restored.is_none());
        run.outputs.open(&run.job, &Opening { run: start.run.clone(), generation, process, fresh })?;
    }
    if let Some(ticks) = &state.ticks {
        ticks.open(start.generation, process == 0)?;
    }
    Ok(())
}

struct Loaded<'a> {
    keys: &'a mut Keys,
    outputs: &'a mut KeyedOutputs,
}

impl Loaded<'_> {
    /// Loads states; gives whether they are of another layout.
    fn load(
        &mut self,
        store: &dyn StateStore,
        cut: &Cut,
        (state, watermark): (&StateSettings, Micros),
        groups: &dyn Fn(u64) -> bool,
    ) -> Result<bool, RunError> {
        let mut loading = Loading::open(store, cut)?;
        if loading.layout().is_empty() {
            return Ok(false);
        }
        let old = StateLayout::from_bytes(loading.layout()).map_err(RestoreError::from)?;
        let mut restoring = self.keys.restore(old, &state.spec, (watermark, cut.epoch.0));
        let mut failed = None;
        let outputs = &mut *self.outputs;
        loading.states(groups, &mut |key, bytes| {
            if failed.is_none() {
                failed = restoring.state(key, bytes, outputs).err();
            }
        })?;
        failed.map_or(Ok(restoring.changes_layout()), |error| Err(error.into()))
    }
}

/// Lets a worker's sinks go on where the checkpoint left off, and puts out what was committed and is not out.
pub(super) fn recover_sinks(
    run: &Run,
    (state, start): (&StateSettings, &Start),
    (worker, tables): (usize, &WorkerTables),
    cut: &Cut,
) -> Result<(), RunError> {
    if worker == 0 {
        unless_replaced(&*state.store, start)?;
        let begun = (0..tables.views.len()).filter(|view| tables.changes.begins(*view));
        let begun: Vec<&str> = begun.map(|view| tables.views[view].name()).collect();
        for (name, sinks) in tables.all().filter(|(name, _)| !begun.contains(name)) {
            let mut digest = cut.digests.get(name).copied().unwrap_or_default();
            digest.take_out(start.erasing.corrections.get(name).copied().unwrap_or_default());
            sinks.start_digest(digest);
        }
    }
    let repeats = state.repeat_outputs;
    let mut outboxes = Outboxes { state, start, job: &run.job, worker };
    for (_, table) in tables.all() {
        let mut failed = None;
        table.each(|way| {
            match way {
                Way::Staged { .. } | Way::Lake { .. } => {}
                Way::Log { name, sink } => {
                    let positions = if repeats { Vec::new() } else { of_sink(cut, name) };
                    sink.recover(&positions)?;
                }
                Way::Outbox { name, sink, identities, .. } => {
                    let sink = &mut **sink.lock().unwrap_or_else(PoisonError::into_inner);
                    failed = outboxes.recover((name, identities), sink, cut)?.err();
                }
            }
            Ok(())
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(())
}

/// A generation that slept since it claimed its turn, and has been replaced meanwhile, must not begin with its outputs.
fn unless_replaced(store: &dyn StateStore, start: &Start) -> Result<(), RunError> {
    let history = read_history(store)?;
    if history.generation() > Some(start.generation) {
        return Err(RunError::Fenced { number: start.claim + 1, generation: start.generation });
    }
    Ok(())
}

/// What the writers of a sink gave to the checkpoint.
fn of_sink(cut: &Cut, name: &str) -> Vec<String> {
    let prefix = sink_key(name.to_owned(), 0);
    let prefix = prefix.trim_end_matches('0');
    cut.sinks.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(_, position)| position.clone()).collect()
}

/// Puts out what was committed before the last generation ended and is not out.
struct Outboxes<'a> {
    state: &'a StateSettings,
    start: &'a Start,
    job: &'a CompiledJob,
    worker: usize,
}

impl Outboxes<'_> {
    fn recover(
        &mut self,
        (name, identities): (&str, &[String]),
        sink: &mut dyn OutboxSink,
        cut: &Cut,
    ) -> Result<Result<(), RunError>, SinkError> {
        let earlier = of_sink(cut, name);
        let known = sink.recover(&earlier)?;
        if self.state.repeat_outputs {
            sink.forget()?;
            return Ok(Ok(()));
        }
        if let Err(lost) = self.refuse_lost(name, &known) {
            return Ok(Err(lost));
        }
        let identity = |worker: u32| identities[worker as usize].clone();
        let makers = taken_over(&earlier, self.worker as u32, identities.len() as u32, identity);
        let out = |maker: String| {
            let number = known.get(&maker).copied().unwrap_or(0);
            (maker, number)
        };
        Ok(self.publish_rest(name, sink, &makers.into_iter().map(out).collect(), cut))
    }

    /// Numbers are claimed in order, so a sink that has recorded one which this run has not got to was fed from another state.
    fn refuse_lost(&self, name: &str, known: &BTreeMap<String, u64>) -> Result<(), RunError> {
        let recorded = known.values().copied().max().unwrap_or(0);
        if recorded < self.start.claim {
            return Ok(());
        }
        Err(RunError::LostState { sink: name.to_owned(), recorded, known: self.start.claim - 1 })
    }

    /// Publishes, oldest first, what checkpoints have of the makers that were taken over and is not recorded as out.
    fn publish_rest(
        &self,
        name: &str,
        sink: &mut dyn OutboxSink,
        recorded: &BTreeMap<String, u64>,
        cut: &Cut,
    ) -> Result<(), RunError> {
        let Some(restored) = self.start.restored else { return Ok(()) };
        let history = read_history(&*self.state.store)?;
        let mut live = history.live();
        live.retain(|number| *number <= restored);
        live.reverse();
        for (maker, out) in recorded {
            let key = cut.sinks.iter().find(|(key, identity)| *identity == maker && key.starts_with(name));
            let worker = key.and_then(|(key, _)| key.rsplit_once('#')?.1.parse::<u32>().ok());
            for number in live.iter().filter(|number| *number > out) {
                let cut = history.manifest(*number).and_then(|manifest| manifest.cut.as_ref());
                let Some(file) = cut.and_then(|cut| delta_of(cut, worker?)) else { continue };
                let delta = self.state.store.read_rest(file)?;
                if let Some(outbox) = delta.outbox.get(name) {
                    tracing::info!(job = self.job.name, sink = name, number, maker, "an outbox goes out now");
                    sink.publish(maker, *number, outbox)?;
                }
            }
        }
        Ok(())
    }
}

/// The delta that a worker wrote for a checkpoint.
fn delta_of(cut: &Cut, worker: u32) -> Option<&FileFacts> {
    let own = |file: &&FileFacts| {
        parse_delta_name(&file.name).is_some_and(|(epoch, _, of)| epoch == cut.epoch && of == worker)
    };
    cut.deltas.iter().find(own)
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
