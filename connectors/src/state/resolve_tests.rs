//! Decisions about checkpoints, without any store.

use proptest::prelude::*;
use whisperer_schemas::checkpoint::MANIFEST_VERSION;

use super::*;

const KEEP_2: Retention = Retention { checkpoints: 2, merge_from: 1 };

fn claim(number: u64, generation: u64, restored: Option<u64>) -> Manifest {
    Manifest {
        version: MANIFEST_VERSION,
        number,
        generation,
        job: "job".into(),
        job_version: 1,
        fingerprint: "f".into(),
        written: 0,
        restored,
        cut: None,
    }
}

fn file(epoch: u64, generation: u64) -> FileFacts {
    FileFacts { name: delta_name(Epoch(epoch), generation, 0), epoch: Epoch(epoch), bytes: 1, xxh3: String::new() }
}

/// A checkpoint over `base` with one delta of generation 1 per epoch.
fn checkpoint(number: u64, generation: u64, base: u64, epochs: &[u64]) -> Manifest {
    let cut = Cut {
        epoch: Epoch(*epochs.last().unwrap()),
        base: Base { epoch: Epoch(base), files: Vec::new() },
        deltas: epochs.iter().map(|epoch| file(*epoch, generation)).collect(),
        ..Cut::default()
    };
    Manifest { cut: Some(cut), ..claim(number, generation, None) }
}

fn history(manifests: &[Manifest]) -> History {
    History::new(manifests.iter().map(|manifest| (manifest.number, Some(manifest.clone()))))
}

/// The picture of the module's docs.
fn forked() -> Vec<Manifest> {
    vec![
        claim(1, 1, None),
        checkpoint(2, 1, 0, &[10]),
        checkpoint(3, 1, 0, &[10, 20]),
        checkpoint(4, 1, 0, &[10, 20, 30]),
        claim(5, 2, Some(4)),
        checkpoint(6, 2, 0, &[10, 20, 30, 40]),
        checkpoint(7, 2, 0, &[10, 20, 30, 40, 50]),
        claim(8, 3, Some(3)),
        checkpoint(9, 3, 0, &[10, 20, 25]),
    ]
}

#[test]
fn the_live_line_is_walked_back_through_claims() {
    // Goal: a rollback abandons what lies between. Method: the picture, step by step.
    let all = forked();
    let live = |count: usize| history(&all[..count]).live();
    assert_eq!(live(0), [0_u64; 0]);
    assert_eq!(live(1), [0_u64; 0]);
    assert_eq!(live(4), [4, 3, 2]);
    assert_eq!(live(5), [4, 3, 2], "a claim goes on from what it restored");
    assert_eq!(live(7), [7, 6, 4, 3, 2]);
    assert_eq!(live(8), [3, 2]);
    assert_eq!(live(9), [9, 3, 2]);
    let standing = |number: u64| history(&all).standings()[number as usize - 1];
    assert_eq!(standing(6), (6, Standing::Abandoned));
    assert_eq!(standing(8), (8, Standing::Claim));
    assert_eq!(standing(3), (3, Standing::Live));
}

#[test]
fn a_straggler_is_never_live() {
    // Goal: a process of a dead generation that found its number free again changes nothing. Method: manifest 2 of generation 1 appears
    // after generation 2 has removed all that is below 5.
    let line = [checkpoint(2, 1, 0, &[99]), checkpoint(5, 2, 0, &[10, 20]), checkpoint(6, 2, 0, &[10, 20, 30])];
    let history = history(&line);
    assert_eq!(history.live(), [6, 5]);
    assert_eq!(choose(&history, None).unwrap().unwrap().number, 6);
    let removal = removable(&history, 2, KEEP_2, &[file(99, 1).name]);
    assert_eq!(removal, Removal { manifests: vec![2], files: vec![file(99, 1).name] });
}

#[test]
fn the_newest_or_a_given_checkpoint_is_chosen() {
    // Goal: what is restored is what was asked for, and errors say what can be. Method: each kind of number.
    let all = forked();
    let chosen = |count: usize, wanted| {
        let history = history(&all[..count]);
        choose(&history, wanted).map(|chosen| chosen.map(|manifest| manifest.number)).map_err(|error| error.to_string())
    };
    assert_eq!(chosen(0, None), Ok(None));
    assert_eq!(chosen(1, None), Ok(None));
    assert_eq!(chosen(4, None), Ok(Some(4)));
    assert_eq!(chosen(8, None), Ok(Some(3)));
    assert_eq!(chosen(9, Some(6)), Ok(Some(6)), "an abandoned one can be restored as long as it is there");
    assert!(chosen(9, Some(5)).unwrap_err().contains("only claims"));
    assert_eq!(
        chosen(4, Some(7)),
        Err("checkpoint 7 cannot be restored: there is no such checkpoint; these can: 2, 3, 4".into())
    );
}

#[test]
fn what_cannot_be_read_is_never_passed_over() {
    // Goal: damage is no reason to begin anew, or further back, in silence. Method: the newest manifest, then the restored one, is lost.
    let entries = |lost: u64| forked().into_iter().map(move |one| (one.number, (one.number != lost).then_some(one)));
    let history = History::new(entries(9));
    assert!(matches!(choose(&history, None), Err(StoreError::Damaged { .. })));
    assert_eq!(choose(&history, Some(7)).unwrap().unwrap().number, 7);
    assert_eq!(next_claim(&history), (10, 5), "what cannot be read may be the claim of generation 4");
    assert_eq!(mergeable(&history, &Base::default(), KEEP_2, Some(9)), None);
    assert_eq!(removable(&history, 3, KEEP_2, &[file(50, 2).name]), Removal::default());
    let history = History::new(entries(3).filter(|(number, _)| *number != 9));
    assert!(matches!(choose(&history, None), Err(StoreError::NotRestorable { number: 3, .. })));
    let history = History::new([(8, Some(claim(8, 3, Some(3))))]);
    assert!(matches!(choose(&history, None), Err(StoreError::NotRestorable { number: 3, .. })));
}

#[test]
fn a_claim_takes_the_next_number_and_generation() {
    // Goal: no two incarnations share a generation. Method: the picture, and nothing.
    assert_eq!(next_claim(&History::default()), (1, 1));
    assert_eq!(next_claim(&history(&forked())), (10, 4));
}

#[test]
fn deltas_above_the_base_are_needed() {
    // Goal: what the base holds is not read again, and a base that does not fit is told. Method: a checkpoint and bases around it.
    let manifest = checkpoint(9, 1, 20, &[30, 40]);
    let cut = manifest.cut.unwrap();
    let epochs = |base| above(&cut, Epoch(base)).iter().map(|file| file.epoch.0).collect::<Vec<_>>();
    assert_eq!(epochs(20), [40, 30]);
    assert_eq!(epochs(30), [40]);
    assert_eq!(epochs(40), [0_u64; 0]);
    assert!([20, 30, 40].iter().all(|base| base_serves(&cut, Epoch(*base))));
    assert!(![10, 41].iter().any(|base| base_serves(&cut, Epoch(*base))));
}

#[test]
fn the_base_stays_behind_what_is_kept_and_what_is_out() {
    // Goal: a kept checkpoint can be restored, an outbox that is not out is kept. Method: retention and publication move on.
    let line = [
        claim(1, 1, None),
        checkpoint(2, 1, 0, &[10]),
        checkpoint(3, 1, 0, &[10, 20]),
        checkpoint(4, 1, 0, &[10, 20, 30]),
        checkpoint(5, 1, 0, &[10, 20, 30, 40]),
    ];
    let merged = |from: usize, base, retention, published| {
        let base = Base { epoch: Epoch(base), files: Vec::new() };
        mergeable(&history(&line[from..]), &base, retention, published).map(|merge| (merge.deltas.len(), merge.epoch.0))
    };
    assert_eq!(merged(3, 0, KEEP_2, Some(5)), Some((3, 30)));
    assert_eq!(merged(3, 10, KEEP_2, Some(5)), Some((2, 30)));
    assert_eq!(merged(3, 30, KEEP_2, Some(5)), None, "nothing is left to merge");
    assert_eq!(merged(0, 0, KEEP_2, Some(5)), Some((1, 10)), "2 can still be restored");
    assert_eq!(merged(2, 0, KEEP_2, Some(3)), Some((2, 20)));
    assert_eq!(merged(3, 0, KEEP_2, Some(3)), None, "the outbox of 4 is not out");
    assert_eq!(merged(3, 0, KEEP_2, None), None);
    assert_eq!(merged(3, 0, Retention { merge_from: 4, ..KEEP_2 }, Some(5)), None, "not worth it yet");
    assert_eq!(mergeable(&history(&line[..1]), &Base::default(), KEEP_2, Some(1)), None);
}

#[test]
fn only_what_nothing_names_is_removed() {
    // Goal: files and manifests of kept checkpoints stay, as do those under way. Method: a line with leftovers of every kind.
    let mut line = forked();
    line.push(checkpoint(10, 3, 20, &[25, 35]));
    let names = [file(10, 1), file(20, 1), file(20, 3), file(25, 3), file(35, 3), file(45, 3), file(45, 2), file(5, 4)];
    let mut names: Vec<String> = names.into_iter().map(|file| file.name).collect();
    names.extend(["base/0f-000001.sst".into(), "ticks/0".into(), "deltas/strange".into()]);
    let removal = removable(&history(&line), 3, KEEP_2, &names);
    assert_eq!(removal.manifests, [1, 2, 3, 4, 5, 6, 7]);
    // 10-1 and 20-1 were of generation 1: the checkpoints that are kept name files of their own generation only, in this test.
    let gone = [0, 1, 6, 8].map(|at| names[at].clone());
    assert_eq!(removal.files, gone);
    assert_eq!(removable(&history(&line), 2, KEEP_2, &names), Removal::default(), "a fenced process removes nothing");
    let few = Retention { checkpoints: 9, ..KEEP_2 };
    assert_eq!(removable(&history(&line), 3, few, &names).manifests, [0_u64; 0], "everything is kept");
}

#[test]
fn the_newest_claim_is_kept() {
    // Goal: a process of the generation before finds its next number taken. Method: a generation that lives long.
    let mut line = vec![claim(1, 1, None), checkpoint(2, 1, 0, &[10]), claim(3, 2, Some(2))];
    line.extend((4..9).map(|number| checkpoint(number, 2, 0, &[number * 10])));
    assert_eq!(removable(&history(&line), 2, KEEP_2, &[]).manifests, [1, 2, 4, 5, 6]);
}

#[test]
fn outputs_are_repeated_only_on_demand() {
    // Goal: nobody repeats outputs unawares, and who was told to is not asked again. Method: a sink that has recorded checkpoint 7.
    let all = forked();
    let check = |count: usize, number, recorded, repeat| {
        let recorded = BTreeMap::from([("decisions".to_string(), recorded)]);
        check_outputs(&history(&all[..count]), number, &recorded, repeat).is_ok()
    };
    assert!(check(7, 7, 7, false));
    assert!(!check(7, 6, 7, false));
    assert!(check(7, 6, 7, true));
    assert!(check(8, 3, 7, false), "the claim says that 3 was restored, after 7");
    assert!(!check(8, 2, 7, false), "but not 2");
    assert!(!check(9, 3, 9, false));
}

#[test]
fn names_of_deltas_are_read_back() {
    // Goal: the age and writer of a file are known from its name, and nothing else passes for one. Method: there and back.
    let name = delta_name(Epoch(u64::MAX), 7, 3);
    assert_eq!(parse_delta_name(&name), Some((Epoch(u64::MAX), 7, 3)));
    let wrong = ["deltas/", "deltas/1-1-1.delta", &name[1..], &name.replace(".delta", ""), &name.replace('-', "+")];
    assert!(wrong.iter().all(|name| parse_delta_name(name).is_none()));
}

/// What may happen to a store.
#[derive(Clone, Copy, Debug)]
enum Step {
    Checkpoint,
    Restart,
    /// Back to one of the restorable checkpoints.
    Rollback(usize),
    /// Merge what may be, up to so many checkpoints behind the newest.
    Merge(u64),
    Remove,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
        1 => (0..9_usize).prop_map(Step::Rollback),
        2 => (0..4_u64).prop_map(Step::Merge),
        2 => Just(Step::Remove),
    ]
}

/// A store as a set of names, and a base as the list of deltas that went into it.
#[derive(Default)]
struct Model {
    history: History,
    files: BTreeSet<String>,
    base: Base,
    in_base: Vec<FileFacts>,
    current: Option<Cut>,
    generation: u64,
    /// Per checkpoint, all deltas since the beginning.
    whole: BTreeMap<u64, Vec<FileFacts>>,
    line: Vec<FileFacts>,
}

impl Model {
    fn start(&mut self, wanted: Option<u64>) {
        let chosen = choose(&self.history, wanted).unwrap().cloned();
        let (number, generation) = next_claim(&self.history);
        let restored = chosen.as_ref().map(|manifest| manifest.number);
        self.history.add(claim(number, generation, restored));
        self.generation = generation;
        self.line = restored.map_or_else(Vec::new, |number| self.whole[&number].clone());
        self.current = chosen.and_then(|manifest| manifest.cut);
        if self.current.is_none() {
            (self.base, self.in_base) = (Base::default(), Vec::new());
        }
    }

    fn checkpoint(&mut self) {
        let before = self.current.take().unwrap_or_default();
        let delta = file(before.epoch.0 + 10, self.generation);
        self.files.insert(delta.name.clone());
        self.line.push(delta.clone());
        let mut deltas: Vec<FileFacts> = above(&before, self.base.epoch).into_iter().rev().cloned().collect();
        let epoch = delta.epoch;
        deltas.push(delta);
        let cut = Cut { epoch, base: self.base.clone(), deltas, ..Cut::default() };
        let (number, _) = next_claim(&self.history);
        self.history.add(Manifest { cut: Some(cut.clone()), ..claim(number, self.generation, None) });
        self.whole.insert(number, self.line.clone());
        self.current = Some(cut);
    }

    fn merge(&mut self, behind: u64) {
        let newest = self.history.entries.last_key_value().map_or(0, |(number, _)| *number);
        if let Some(merge) = mergeable(&self.history, &self.base, KEEP_2, Some(newest.saturating_sub(behind))) {
            assert!(merge.deltas.iter().all(|file| self.files.contains(&file.name)), "merges what is there");
            self.in_base.extend(merge.deltas);
            self.base.epoch = merge.epoch;
        }
    }

    fn remove(&mut self) {
        let files: Vec<String> = self.files.iter().cloned().collect();
        let removal = removable(&self.history, self.generation, KEEP_2, &files);
        self.history.forget(&removal.manifests);
        self.files.retain(|name| !removal.files.contains(name));
    }

    /// Every checkpoint that is there can be restored: base and deltas make up its line, and each file exists.
    fn check(&self) {
        for (number, manifest) in &self.history.entries {
            let Some(cut) = manifest.as_ref().and_then(|manifest| manifest.cut.as_ref()) else { continue };
            assert!(base_serves(cut, self.base.epoch), "the base serves checkpoint {number}");
            let mut deltas = above(cut, self.base.epoch);
            deltas.reverse();
            assert!(
                deltas.iter().all(|file| self.files.contains(&file.name)),
                "files of checkpoint {number} are there"
            );
            let whole: Vec<&FileFacts> = self.in_base.iter().chain(deltas).collect();
            assert_eq!(whole, self.whole[number].iter().collect::<Vec<_>>(), "checkpoint {number}");
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_what_is_kept_can_be_restored(steps in prop::collection::vec(step(), 0..60)) {
        // Goal: invariants 2 to 4 of the module. Method: random lives of a store that is a set of names; after each step every checkpoint
        // that is there is put together from base and deltas and compared with all deltas since the beginning.
        let mut model = Model::default();
        model.start(None);
        for step in steps {
            match step {
                Step::Checkpoint => model.checkpoint(),
                Step::Restart => model.start(None),
                Step::Rollback(at) => {
                    let entries = model.history.entries.values().flatten();
                    let cuts: Vec<u64> = entries.filter(|one| one.cut.is_some()).map(|one| one.number).collect();
                    let wanted = (!cuts.is_empty()).then(|| cuts[at % cuts.len()]);
                    model.start(wanted);
                }
                Step::Merge(behind) => model.merge(behind),
                Step::Remove => model.remove(),
            }
            model.check();
            prop_assert!(model.history.live().len() <= 1 || model.history.live().windows(2).all(|pair| {
                model.history.cut(pair[0]).unwrap().epoch > model.history.cut(pair[1]).unwrap().epoch
            }), "epochs ascend along the live line");
        }
    }
}

#[test]
fn deltas_stay_for_their_rows() {
    // Goal: a delta whose states are in the base is kept as long as a checkpoint that is kept lists its rows, and goes with the last one.
    let with_rows = |number: u64, base: u64, epochs: &[u64], rows: &[u64]| {
        let mut manifest = checkpoint(number, 1, base, epochs);
        manifest.cut.as_mut().unwrap().rows = rows.iter().map(|epoch| file(*epoch, 1)).collect();
        manifest
    };
    let mut line =
        vec![claim(1, 1, None), with_rows(2, 20, &[30], &[20, 30]), with_rows(3, 20, &[30, 40], &[20, 30, 40])];
    let files: Vec<String> = [10, 20, 30, 40].map(|epoch| file(epoch, 1).name).to_vec();
    assert_eq!(removable(&history(&line), 1, KEEP_2, &files).files, [file(10, 1).name]);
    line.extend([with_rows(4, 30, &[40, 50], &[]), with_rows(5, 40, &[50, 60], &[60])]);
    let gone = [10, 20, 30].map(|epoch| file(epoch, 1).name);
    assert_eq!(removable(&history(&line), 1, KEEP_2, &files).files, gone);
}
