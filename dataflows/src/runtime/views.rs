//! The tables of views on one worker: changes are gathered until a cut, and written there as what they come to.
//!
//! ```text
//! facts ──▶ answer_views ──▶ answers ──▶ net changes since the last cut ──cut──▶ rows with `_diff` ──▶ sinks
//! texts ──broadcast──▶ the texts behind the hashes
//! ```
//! So a table holds the changes from checkpoint to checkpoint, or its contents where there is no checkpoint, and its digest is that of what
//! they add up to. What restored keys say again is in the tables already, unless the view is another one since then: its rows begin anew, with
//! the epoch of that checkpoint as `_since`.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    rc::Rc,
    sync::Arc,
};

use timely::dataflow::{
    StreamVec,
    operators::{Inspect, Probe, probe::Handle, vec::Broadcast},
};
use whisperer_operators::{
    job::CompiledJob,
    keyed::CutPlan,
    views::{Answer, AnswerViews, FactUpdate, TextUpdate, Texts, row},
};
use whisperer_schemas::{Epoch, Micros, Row};

use super::{filing::Cuts, tables::TableSinks};

/// The changes of all views that a worker has the rows of.
#[derive(Clone)]
pub(super) struct Changes(Rc<RefCell<Gathered>>);

struct Gathered {
    job: Arc<CompiledJob>,
    /// The epoch of the cut that the run goes on from.
    restored: Option<u64>,
    /// For each view, since which epoch it is what it is.
    since: Vec<u64>,
    plan: Option<CutPlan>,
    /// The cut that changes belong to now.
    open_until: u64,
    net: HashMap<Answer, i64>,
    /// Changes of later epochs.
    waiting: BTreeMap<u64, Vec<(Answer, i64)>>,
    texts: Texts,
}

impl Changes {
    pub(super) fn new(job: Arc<CompiledJob>, cuts: Option<Cuts>, since: Vec<u64>) -> Changes {
        Changes(Rc::new(RefCell::new(Gathered {
            job,
            restored: cuts.map(|cuts| cuts.plan.after),
            since,
            plan: cuts.map(|cuts| cuts.plan),
            open_until: cuts.map_or(u64::MAX, Cuts::first),
            net: HashMap::new(),
            waiting: BTreeMap::new(),
            texts: Texts::new(),
        })))
    }

    /// Whether a view's rows begin anew with this run.
    pub(super) fn begins(&self, view: usize) -> bool {
        let gathered = self.0.borrow();
        gathered.restored.is_none_or(|restored| gathered.since[view] == restored)
    }

    /// Follows the facts of all keys, and the texts of all workers.
    pub(super) fn follow(
        &self,
        facts: StreamVec<'_, u64, FactUpdate>,
        texts: StreamVec<'_, u64, TextUpdate>,
        probe: &Handle<u64>,
    ) {
        let job = self.0.borrow().job.clone();
        if job.views.is_empty() {
            return;
        }
        let known = self.clone();
        let note = move |(hash, text): &TextUpdate| drop(known.0.borrow_mut().texts.insert(*hash, text.clone()));
        texts.broadcast().inspect(note).probe_with(probe);
        let changes = self.clone();
        let note = move |(answer, epoch, diff): &(Answer, u64, isize)| {
            changes.0.borrow_mut().accept(answer, *epoch, *diff as i64);
        };
        facts.answer_views(job).inner.inspect(note).probe_with(probe);
    }

    /// Writes what the changes up to a cut come to, all of which are here, when the global watermark stands at `as_of`.
    pub(super) fn write(&self, epoch: u64, as_of: Option<Micros>, tables: &[TableSinks]) {
        let gathered = &mut *self.0.borrow_mut();
        let mut rows: Vec<Vec<Row>> = vec![Vec::new(); tables.len()];
        for (answer, diff) in gathered.net.drain().filter(|(_, diff)| *diff != 0) {
            let view = usize::from(answer.view);
            let facts = (Epoch(epoch), as_of, gathered.since[view], diff);
            rows[view].push(row(&gathered.job, &gathered.texts, &answer, facts));
        }
        for (table, rows) in tables.iter().zip(&mut rows) {
            table.accept(epoch, rows, false);
        }
        gathered.open_until = gathered.plan.map_or(u64::MAX, |plan| plan.next_after(epoch));
        while let Some(entry) = gathered.waiting.first_entry().filter(|entry| *entry.key() <= gathered.open_until) {
            for (answer, diff) in entry.remove() {
                *gathered.net.entry(answer).or_default() += diff;
            }
        }
    }
}

impl Gathered {
    fn accept(&mut self, answer: &Answer, epoch: u64, diff: i64) {
        let view = usize::from(answer.view);
        let said_again = self.restored.is_some_and(|restored| epoch <= restored && self.since[view] != restored);
        if said_again {
            return;
        }
        if epoch > self.open_until {
            self.waiting.entry(epoch).or_default().push((answer.clone(), diff));
        } else {
            *self.net.entry(answer.clone()).or_default() += diff;
        }
    }
}
