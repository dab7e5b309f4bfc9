//! Features become lanes and slots; features that accumulate the same thing share a slot.

use whisperer_schemas::time::{DAY, HOUR, MINUTE, Micros, format_duration};

use super::identity::{self, Statement};
use crate::{
    cells::{Slot, SlotKind},
    features::{Feature, Read, spread},
    intake::{Intake, IntakeBuilder, LaneRequest, OfType, ValueKind},
    record::LaneMask,
    spec::{Aggregate, FeatureSpec, JobError, JobSpec, Located, Span, ValueType, ViewKind, ViewSpec},
    window::{DAYS_MAX, PANES_MAX, Window, WindowError},
};

/// Longest gap between events of one session where the job does not say.
const SESSION_GAP: Micros = 30 * MINUTE;

/// Times that are kept of each step of a funnel, for each user: the earliest different ones.
pub const STEP_TIMES_MAX: u32 = 256;

/// The job's features, compiled.
pub(crate) struct Features {
    pub(crate) features: Vec<Feature>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) lane_slots: Vec<Vec<usize>>,
    pub(crate) intake: Intake,
    /// For each feature, the slot whose cells are the panes with content.
    pub(crate) content: Vec<usize>,
    /// What each lane takes, as text.
    pub(crate) lanes: Vec<String>,
    /// For each view, the slots that keep facts of history for it, and whose lanes they take.
    pub(crate) ledgers: Vec<Vec<usize>>,
    /// The lanes of all of those.
    pub(crate) ledger_lanes: LaneMask,
    /// What events say about links between ids.
    pub(crate) statements: Vec<Statement>,
}

pub(crate) fn compile(spec: &JobSpec, errors: &mut Vec<JobError>) -> Features {
    let mut compiler = Compiler {
        intake: IntakeBuilder::new(spec.entity, spec.event_types.clone()),
        distinct_max: spec.distinct_max,
        slots: Vec::new(),
        features: Vec::new(),
        content: Vec::new(),
        lanes: Vec::new(),
        ledgers: Vec::new(),
        statements: Vec::new(),
    };
    for feature in &spec.features {
        if let Err(found) = compiler.feature(feature) {
            errors.extend(found);
            // Keeps the numbering of features, so that the rest of the job can be checked too.
            compiler.features.push(placeholder(feature));
            compiler.content.push(0);
        }
    }
    for view in &spec.views {
        let ledger = compiler.ledger(view).unwrap_or_else(|found| {
            errors.extend(found);
            Vec::new()
        });
        compiler.ledgers.push(ledger);
    }
    compiler.statements = identity::statements(spec, &mut compiler.intake, errors);
    for lane in compiler.statements.iter().map(|statement| statement.lane) {
        // Nothing but links is read of it.
        compiler.lanes.resize(compiler.lanes.len().max(lane + 1), String::new());
    }
    compiler.finish()
}

fn placeholder(spec: &FeatureSpec) -> Feature {
    let text = matches!(spec.aggregate, Aggregate::Last | Aggregate::First);
    let name = spec.name.value.clone();
    Feature { name, read: Read::Count { slot: 0 }, window: None, divide_by: None, text, spread: 0.0 }
}

struct Compiler {
    intake: IntakeBuilder,
    distinct_max: u32,
    slots: Vec<Slot>,
    features: Vec<Feature>,
    content: Vec<usize>,
    lanes: Vec<String>,
    ledgers: Vec<Vec<usize>>,
    statements: Vec<Statement>,
}

/// What a slot of a feature takes, besides its kind.
#[derive(Clone, Copy)]
struct Input {
    lane: usize,
    window: Option<Window>,
    text: bool,
}

impl Compiler {
    fn feature(&mut self, spec: &FeatureSpec) -> Result<(), Vec<JobError>> {
        let mut errors = Vec::new();
        check_settings(spec, &mut errors);
        let window = window(spec).map_err(|error| errors.push(error)).unwrap_or_default();
        let of = spec.of.as_ref().map(|of| (of, of_type(spec)));
        let lane = self.intake.lane(&LaneRequest { filter: spec.filter.as_ref(), of });
        let (lane, value) = match lane {
            Ok(lane) if errors.is_empty() => lane,
            Ok(_) => return Err(errors),
            Err(found) => {
                errors.extend(found);
                return Err(errors);
            }
        };
        self.describe_lane(lane, spec.filter.as_ref(), spec.of.as_ref().map(|of| (of, of_type(spec))));
        let text = value == Some(ValueKind::Text);
        let (read, content) = self.read(spec, Input { lane, window, text });
        let spread = window.map_or(0.0, spread);
        let name = spec.name.value.clone();
        self.features.push(Feature { name, read, window, divide_by: spec.divide_by, text, spread });
        self.content.push(content);
        Ok(())
    }

    fn describe_lane(&mut self, lane: usize, filter: Option<&Located<String>>, of: Option<(&Located<String>, OfType)>) {
        if self.lanes.len() <= lane {
            let plain = |text: &Located<String>| text.value.clone();
            self.lanes.resize(lane + 1, String::new());
            let (of, kind) = (of.map(|(of, _)| plain(of)), of.map(|(_, kind)| kind));
            self.lanes[lane] = format!("{:?} {of:?} {kind:?}", filter.map(plain));
        }
    }

    /// The slots that keep facts of history for a view.
    fn ledger(&mut self, view: &ViewSpec) -> Result<Vec<usize>, Vec<JobError>> {
        match &view.kind {
            ViewKind::Cohorts { period, begins, active } => Ok(vec![
                self.history(SlotKind::Earliest, begins.as_ref())?,
                self.history(SlotKind::Periods { period: *period }, active.as_ref())?,
            ]),
            ViewKind::Funnel { steps, .. } => {
                let times = SlotKind::Times { max: STEP_TIMES_MAX };
                steps.iter().map(|step| self.history(times, Some(&step.filter))).collect()
            }
            _ => Ok(Vec::new()),
        }
    }

    fn history(&mut self, kind: SlotKind, filter: Option<&Located<String>>) -> Result<usize, Vec<JobError>> {
        let (lane, _) = self.intake.lane(&LaneRequest { filter, of: None })?;
        self.describe_lane(lane, filter, None);
        Ok(self.slot(kind, Input { lane, window: None, text: false }))
    }

    /// The slots of a feature: how it is read, and which slot's cells are the panes with content.
    fn read(&mut self, spec: &FeatureSpec, input: Input) -> (Read, usize) {
        let mut slot = |kind| self.slot(kind, input);
        let simple = |slot, read: fn(usize) -> Read| (read(slot), slot);
        match spec.aggregate {
            Aggregate::Count => simple(slot(SlotKind::Count), |slot| Read::Count { slot }),
            Aggregate::Rate => simple(slot(SlotKind::Count), |slot| Read::Rate { slot }),
            Aggregate::Streak => simple(self.days(input), |slot| Read::Streak { slot }),
            Aggregate::Sum => simple(slot(SlotKind::Sum), |slot| Read::Sum { slot }),
            Aggregate::Min => simple(slot(SlotKind::Min), |slot| Read::Min { slot }),
            Aggregate::Max => simple(slot(SlotKind::Max), |slot| Read::Max { slot }),
            Aggregate::Last => simple(slot(SlotKind::Last), |slot| Read::Last { slot }),
            Aggregate::First => simple(slot(SlotKind::First), |slot| Read::First { slot }),
            Aggregate::Recency => simple(slot(SlotKind::Latest), |slot| Read::Recency { slot }),
            Aggregate::Mean => {
                let (sum, count) = (slot(SlotKind::Sum), slot(SlotKind::Count));
                (Read::Mean { sum, count }, count)
            }
            Aggregate::Trend if spec.of.is_some() => {
                simple(slot(SlotKind::Sum), |slot| Read::Trend { slot, counts: false })
            }
            Aggregate::Trend => simple(slot(SlotKind::Count), |slot| Read::Trend { slot, counts: true }),
            Aggregate::Distinct => {
                let content = slot(SlotKind::Count);
                (Read::Distinct { slot: self.values(input) }, content)
            }
            Aggregate::Ewma => {
                let half_life = spec.half_life.unwrap_or(DAY);
                let weighted = spec.of.is_some();
                let kind = if weighted { SlotKind::DecayOf { half_life } } else { SlotKind::Decay { half_life } };
                let slot = slot(kind);
                (Read::Ewma { slot, half_life, weighted }, slot)
            }
            Aggregate::Sessions | Aggregate::SessionMinutes => {
                let slot = slot(SlotKind::Sessions { gap: spec.gap.unwrap_or(SESSION_GAP) });
                let minutes = spec.aggregate == Aggregate::SessionMinutes;
                (if minutes { Read::SessionMinutes { slot } } else { Read::Sessions { slot } }, slot)
            }
        }
    }

    /// The days with content, all of them where there is no window.
    fn days(&mut self, input: Input) -> usize {
        let panes = input.window.map_or(i64::MAX, |window| window.panes);
        self.slot_of(SlotKind::Count, input, DAY, panes)
    }

    fn slot(&mut self, kind: SlotKind, input: Input) -> usize {
        let pane = input.window.map_or(0, |window| window.pane);
        let panes = input.window.map_or(i64::MAX, |window| window.panes);
        self.slot_of(kind, input, pane, panes)
    }

    fn slot_of(&mut self, kind: SlotKind, input: Input, pane: Micros, panes: i64) -> usize {
        let (pane, panes) = kept_panes(kind, pane, panes);
        // An accumulator serves any shorter window of the same panes; sessions know when they began, so they serve any shorter window.
        let sessions = matches!(kind, SlotKind::Sessions { .. });
        let same = |slot: &Slot| slot.kind == kind && slot.lane == input.lane && (sessions || slot.pane == pane);
        if let Some(at) = self.slots.iter().position(same) {
            let slot = &mut self.slots[at];
            let reach = |pane: Micros, panes: i64| if pane == 0 { Micros::MAX } else { pane.saturating_mul(panes) };
            if reach(pane, panes) > reach(slot.pane, slot.panes) {
                (slot.pane, slot.panes) = (pane, panes);
            }
            return at;
        }
        self.slots.push(Slot { kind, lane: input.lane, pane, panes, value: 0, text: input.text });
        self.slots.len() - 1
    }

    /// The set of a distinct count and, right behind it, the panes with refused values. Never shared between windows: what fits
    /// into the set depends on what its window has dropped.
    fn values(&mut self, input: Input) -> usize {
        let pane = input.window.map_or(0, |window| window.pane);
        let panes = input.window.map_or(i64::MAX, |window| window.panes);
        let set = Slot {
            kind: SlotKind::Values { max: self.distinct_max },
            lane: input.lane,
            pane,
            panes,
            value: 0,
            text: false,
        };
        if let Some(at) = self.slots.iter().position(|slot| *slot == set) {
            return at;
        }
        self.slots.push(set.clone());
        self.slots.push(Slot { kind: SlotKind::Refused, ..set });
        self.slots.len() - 2
    }

    fn finish(self) -> Features {
        let lanes = self.intake.lanes().to_vec();
        let intake = self.intake.finish();
        // In the order of lanes, so that a record's lanes touch slots in ascending order.
        let mut order: Vec<usize> = (0..self.slots.len()).collect();
        order.sort_by_key(|at| self.slots[*at].lane);
        let mut place = vec![0; order.len()];
        for (to, from) in order.iter().enumerate() {
            place[*from] = to;
        }
        let mut slots: Vec<Slot> = order.iter().map(|at| self.slots[*at].clone()).collect();
        let mut lane_slots = vec![Vec::new(); lanes.len()];
        for (at, slot) in slots.iter_mut().enumerate() {
            lane_slots[slot.lane].push(at);
            slot.value = lanes[slot.lane].value.map_or(0, |value| intake.value_slot(value));
        }
        let place = |at: usize| place.get(at).copied().unwrap_or_default();
        let features =
            self.features.into_iter().map(|feature| Feature { read: moved(feature.read, &place), ..feature });
        let features = features.collect();
        let content = self.content.into_iter().map(place).collect();
        let ledgers: Vec<Vec<usize>> =
            self.ledgers.into_iter().map(|ledger| ledger.into_iter().map(place).collect()).collect();
        let ledger_lanes = ledgers.iter().flatten().fold(0, |lanes, at| lanes | 1 << slots[*at].lane);
        let mut statements = self.statements;
        for statement in &mut statements {
            statement.text = lanes[statement.lane].value.map_or(0, |value| intake.value_slot(value));
        }
        Features { features, slots, lane_slots, intake, content, lanes: self.lanes, ledgers, ledger_lanes, statements }
    }
}

/// The panes in which a window's content is kept. Counts in days are kept in quarters of days, from which whole numbers add up exactly:
/// most keys have events in one quarter of a day or none, so that windows of days and of weeks share one slot in half the room. It
/// is the same for a window whatever other features there are, or an edited job could not go on with its cells.
fn kept_panes(kind: SlotKind, pane: Micros, panes: i64) -> (Micros, i64) {
    const QUARTERS: i64 = 4;
    let shared = kind == SlotKind::Count && pane == DAY && panes <= PANES_MAX;
    if shared { (DAY / QUARTERS, panes * QUARTERS) } else { (pane, panes) }
}

fn moved(read: Read, place: &impl Fn(usize) -> usize) -> Read {
    let mut read = read;
    match &mut read {
        Read::Mean { sum, count } => (*sum, *count) = (place(*sum), place(*count)),
        Read::Count { slot }
        | Read::Rate { slot }
        | Read::Sum { slot }
        | Read::Min { slot }
        | Read::Max { slot }
        | Read::Last { slot }
        | Read::First { slot }
        | Read::Distinct { slot }
        | Read::Recency { slot }
        | Read::Streak { slot }
        | Read::Ewma { slot, .. }
        | Read::Trend { slot, .. }
        | Read::Sessions { slot }
        | Read::SessionMinutes { slot } => *slot = place(*slot),
    }
    read
}

fn of_type(spec: &FeatureSpec) -> OfType {
    match (spec.aggregate, spec.value_type) {
        (Aggregate::Last | Aggregate::First, Some(ValueType::Number)) => OfType::Number,
        (Aggregate::Last | Aggregate::First, Some(ValueType::Text)) => OfType::Text,
        (Aggregate::Last | Aggregate::First, None) => OfType::Declared,
        (Aggregate::Distinct, _) => OfType::Hash,
        (Aggregate::Sum | Aggregate::Mean | Aggregate::Min | Aggregate::Max, _) => OfType::Number,
        (Aggregate::Ewma | Aggregate::Trend, _) => OfType::Number,
        _ => OfType::Presence,
    }
}

fn window(spec: &FeatureSpec) -> Result<Option<Window>, JobError> {
    let Some(length) = &spec.window else { return Ok(None) };
    let error = |message: String, hint: Option<String>| JobError { span: length.span.clone(), message, hint };
    let window = match Window::of(length.value) {
        Ok(_) if spec.aggregate == Aggregate::Streak => streak_window(length)?,
        Ok(window) => window,
        Err(WindowError::Empty) => return Err(error("a window is longer than nothing".into(), None)),
        Err(WindowError::TooLong) => {
            return Err(error(
                format!("a window is at most {DAYS_MAX} days long"),
                Some("leave it out for lifetime".into()),
            ));
        }
        Err(WindowError::Ragged { .. }) if spec.aggregate == Aggregate::Streak => streak_window(length)?,
        Err(WindowError::Ragged { below, above }) => {
            let nearest = match below {
                Some(below) => format!("the nearest are {} and {}", format_duration(below), format_duration(above)),
                None => format!("the shortest is {}", format_duration(above)),
            };
            let pane = if length.value > 60 * HOUR { "six hours or days" } else { "minutes or hours" };
            let message = format!("a window of {} is not a whole number of its panes", format_duration(length.value));
            return Err(error(message, Some(format!("{nearest}; a window of this length has panes of {pane}"))));
        }
    };
    if spec.aggregate == Aggregate::Trend && window.panes < 2 {
        return Err(error("a trend needs a window of at least two panes".into(), None));
    }
    Ok(Some(window))
}

fn streak_window(length: &Located<Micros>) -> Result<Window, JobError> {
    if length.value % DAY == 0 {
        return Ok(Window { pane: DAY, panes: length.value / DAY });
    }
    let message = "the window of a streak is a whole number of days".into();
    Err(JobError { span: length.span.clone(), message, hint: None })
}

fn check_settings(spec: &FeatureSpec, errors: &mut Vec<JobError>) {
    use Aggregate::{Count, Distinct, Ewma, First, Last, Max, Mean, Min, Rate, Recency, Sessions, Streak, Sum, Trend};
    let name = aggregate_name(spec.aggregate);
    let mut error = |span: &Span, message: String| {
        errors.push(JobError { span: span.clone(), message, hint: None });
    };
    let needs_of = matches!(spec.aggregate, Sum | Mean | Min | Max | Last | First | Distinct);
    let takes_of = needs_of || matches!(spec.aggregate, Count | Recency | Rate | Streak | Ewma | Trend);
    match &spec.of {
        None if needs_of => error(&spec.aggregate_span, format!("`{name}` needs `of`: the value that it is taken of")),
        Some(of) if !takes_of => error(&of.span, format!("`{name}` takes no `of`")),
        _ => {}
    }
    if matches!(spec.aggregate, Rate | Trend) && spec.window.is_none() {
        error(&spec.aggregate_span, format!("`{name}` needs a `window`"));
    }
    match spec.half_life {
        None if spec.aggregate == Ewma => error(&spec.aggregate_span, "`ewma` needs `half_life`".into()),
        Some(_) if spec.aggregate != Ewma => error(&spec.aggregate_span, format!("`{name}` takes no `half_life`")),
        Some(span) if span <= 0 => error(&spec.aggregate_span, "`half_life` must be longer than nothing".into()),
        _ => {}
    }
    let session = matches!(spec.aggregate, Sessions | Aggregate::SessionMinutes);
    match spec.gap {
        Some(_) if !session => error(&spec.aggregate_span, format!("`{name}` takes no `gap`")),
        Some(gap) if gap <= 0 => error(&spec.aggregate_span, "`gap` must be longer than nothing".into()),
        _ => {}
    }
    if spec.value_type.is_some() && !matches!(spec.aggregate, Last | First) {
        error(&spec.aggregate_span, format!("`{name}` takes no `type`"));
    }
    match spec.divide_by {
        Some(by) if !(by.is_finite() && by > 0.0) => {
            error(&spec.aggregate_span, "`divide_by` must be a positive number".into());
        }
        Some(_) if matches!(of_type(spec), OfType::Declared | OfType::Text) => {
            error(&spec.aggregate_span, "`divide_by` needs a number: say `type = \"number\"`".into());
        }
        _ => {}
    }
}

/// The aggregate as job files write it.
#[must_use]
pub(crate) fn aggregate_name(aggregate: Aggregate) -> &'static str {
    match aggregate {
        Aggregate::Count => "count",
        Aggregate::Sum => "sum",
        Aggregate::Mean => "mean",
        Aggregate::Min => "min",
        Aggregate::Max => "max",
        Aggregate::Last => "last",
        Aggregate::First => "first",
        Aggregate::Distinct => "distinct",
        Aggregate::Recency => "recency",
        Aggregate::Rate => "rate",
        Aggregate::Streak => "streak",
        Aggregate::Ewma => "ewma",
        Aggregate::Trend => "trend",
        Aggregate::Sessions => "sessions",
        Aggregate::SessionMinutes => "session_minutes",
    }
}
