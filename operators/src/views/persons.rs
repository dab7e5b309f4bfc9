//! Persons: what the ids of one person come to together.
//!
//! ```text
//! parts (id, cells) ──┐
//!                     ├─ join ──▶ (canonical id, part) ──▶ merge, read, score ──▶ answers
//! identities ─────────┘
//! ```
//! Each id says what its state holds as a part, and takes it back when it changes. Parts are kept by id, so two persons that become one,
//! and one that becomes two, are the same work: nothing is ever taken apart but the set of parts.

use std::{cell::RefCell, sync::Arc};

use compact_str::CompactString;
use differential_dataflow::VecCollection;
use serde::{Deserialize, Serialize};
use whisperer_schemas::Micros;

use super::{Answer, Identity, NONE, Part};
use crate::{
    cells::Cells,
    evaluate::Values,
    features::{CellsView, Read},
    interner::Interner,
    job::{CompiledJob, NameSlot, View, ViewPlan, Word},
    keys::decode_cells,
};

/// What is known of a person: its ids, and their parts, in the order in which they are merged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Piece {
    Id(Identity),
    Part((Micros, CompactString), Part),
}

/// The rows of views that list persons of several ids.
pub(super) fn person_profiles<'scope>(
    parts: VecCollection<'scope, u64, Part>,
    identities: VecCollection<'scope, u64, Identity>,
    job: Arc<CompiledJob>,
) -> VecCollection<'scope, u64, Answer> {
    let ids = identities.clone().map(|identity| (identity.canonical_hash, Piece::Id(identity)));
    let by_id =
        identities.map(|identity| (identity.hash, (identity.canonical_hash, (identity.first_seen, identity.id))));
    let parts = parts.map(|part| (part.id, part));
    let parts =
        by_id.join_map(parts, |_, (canonical, order), part| (*canonical, Piece::Part(order.clone(), part.clone())));
    let reader = RefCell::new(Reader { values: Values::new(&job), texts: Interner::default(), job });
    let persons = ids.concat(parts).reduce_named("Persons", move |_, pieces, answers| {
        let mut reader = reader.borrow_mut();
        answers.extend(reader.person(pieces.iter().map(|(piece, _)| *piece)).into_iter().map(|answer| (answer, 1)));
    });
    persons.map(|(_, answer)| answer)
}

/// Reads what merged parts say.
struct Reader {
    job: Arc<CompiledJob>,
    values: Values,
    texts: Interner,
}

impl Reader {
    /// The rows of a person, one for each view that lists persons; none where there is but one id, or no event of any.
    fn person<'a>(&mut self, pieces: impl Iterator<Item = &'a Piece>) -> Vec<Answer> {
        let (mut ids, mut parts) = (Vec::new(), Vec::new());
        for piece in pieces {
            match piece {
                Piece::Id(identity) => ids.push(identity),
                Piece::Part(order, part) => parts.push((order, part)),
            }
        }
        let Some(now) = parts.iter().map(|(_, part)| part.now).max().filter(|_| ids.len() > 1) else {
            return Vec::new();
        };
        parts.sort_unstable();
        let job = self.job.clone();
        let decoded = parts.iter().map(|(_, part)| decode_cells(&mut self.texts, &job.state_layout, &part.cells));
        let keys: Result<Vec<Vec<u64>>, _> = decoded.collect();
        let cells = Cells::merged(&job.layout, &keys.expect("a part is encoded by the job that reads it"));
        let (words, texts) = self.read(&cells, now, ids.len());
        let views = (0..).zip(&job.views.each).filter(|(_, view)| view.plan == ViewPlan::Profiles);
        let answer = |(number, view): (u16, &View)| {
            let mut own = vec![ids[0].app.clone(), ids[0].canonical.clone()];
            // Where users are not told apart by application, its column is not there.
            own.drain(..usize::from(view.words[1] != Word::OwnText));
            own.extend_from_slice(&texts);
            Answer { view: number, words: words.clone(), texts: own }
        };
        views.map(answer).collect()
    }

    /// The values of the job's columns, in the order of [`crate::job::View::words`].
    fn read(&mut self, cells: &Cells, now: Micros, ids: usize) -> (Vec<u64>, Vec<CompactString>) {
        let Reader { job, values, texts: interner } = self;
        let mut starts = Vec::new();
        cells.starts(&job.layout, &mut starts);
        let view = CellsView { words: cells.words(), starts: &starts, layout: &job.layout };
        values.read(job, &job.all_features, view, now);
        values.compute(job, &job.steps, interner);
        values.take_nulls();
        let (mut words, mut texts) = (vec![ids as u64, now as u64], Vec::new());
        let number = |number: f64| if number.is_nan() { NONE } else { (number + 0.0).to_bits() };
        let place = |slot| values.place(slot).map_or(NONE, u64::from);
        for (at, score) in job.scores.iter().enumerate() {
            words.push(number(values.number(NameSlot::Score(at))));
            words.extend((!score.levels.is_empty()).then(|| place(NameSlot::Level(at))));
        }
        for (at, feature) in job.features.iter().enumerate() {
            let slot = NameSlot::Feature(at);
            if feature.text {
                let text = values.place(slot).map(|text| interner.get(text).into());
                words.push(text.as_ref().map_or(NONE, |_| 0));
                texts.extend(text);
            } else {
                words.push(number(values.number(slot)));
            }
            if matches!(feature.read, Read::Distinct { .. }) {
                words.push(u64::from(feature.capped(view, now)));
            }
        }
        words.extend((!job.stages.is_empty()).then(|| place(NameSlot::Stage)));
        (words, texts)
    }
}
