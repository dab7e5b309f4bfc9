//! `[[view]]`: what is asked about all users at once.

use whisperer_schemas::Micros;

use super::{Located, Span};

/// One `[[view]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewSpec {
    /// Its name; its table is `views/NAME`.
    pub name: Located<String>,
    /// What it computes.
    pub kind: ViewKind,
    /// Where `aggregate` was written, for errors.
    pub kind_span: Span,
    /// The names by which users are grouped.
    pub group_by: Vec<Located<String>>,
    /// The users that count; all where there is none.
    pub when: Option<Located<String>>,
}

impl ViewSpec {
    /// A view of all users in one group.
    #[must_use]
    pub fn new(name: &str, kind: ViewKind) -> ViewSpec {
        ViewSpec { name: name.into(), kind, kind_span: Span::default(), group_by: Vec::new(), when: None }
    }

    /// The same by these names.
    #[must_use]
    pub fn by(mut self, names: &[&str]) -> ViewSpec {
        self.group_by = names.iter().map(|name| (*name).into()).collect();
        self
    }

    /// The same of the users for whom a condition holds.
    #[must_use]
    pub fn when(mut self, condition: &str) -> ViewSpec {
        self.when = Some(condition.into());
        self
    }
}

/// What a view computes; `docs/views.md` defines each.
#[derive(Clone, Debug, PartialEq)]
pub enum ViewKind {
    /// Users by group.
    Count,
    /// The sum of a number over the users of a group that have one.
    Sum {
        /// The number.
        of: Located<String>,
    },
    /// Different user ids by group, whatever the applications.
    Distinct,
    /// The users of a group with the greatest numbers.
    Top {
        /// The number.
        of: Located<String>,
        /// How many users.
        limit: u32,
    },
    /// Percentiles of a number in a group.
    Percentiles {
        /// The number.
        of: Located<String>,
        /// Which, from 0 to 1, ascending.
        at: Vec<f64>,
        /// Numbers are rounded to a multiple of this before they are ranked.
        resolution: f64,
    },
    /// Changes of the lifecycle stage by day.
    Transitions,
    /// Sizes of sets of users, and of what each two have in common.
    Segments {
        /// Names and conditions.
        segments: Vec<SegmentSpec>,
    },
    /// The users of segments, each by name.
    Members {
        /// Names and conditions.
        segments: Vec<SegmentSpec>,
    },
    /// Decisions by trigger and day.
    Decisions,
    /// Users by when they began and when they were active.
    Cohorts {
        /// The length of a cohort, and of a period of activity.
        period: Period,
        /// Events of which the first one begins; any where there is none.
        begins: Option<Located<String>>,
        /// Events that are activity; any where there is none.
        active: Option<Located<String>>,
    },
    /// How far users get on a way of steps.
    Funnel {
        /// The steps, in order.
        steps: Vec<StepSpec>,
        /// From the first step to the last, at most.
        within: Micros,
    },
    /// Persons by group: of the ids that are one person, one counts.
    Persons,
    /// The ids that are linked to others, and which of them stands for all.
    Identities,
    /// What the ids of each person of several come to together.
    Profiles,
}

/// A set of users.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentSpec {
    /// Its name.
    pub name: Located<String>,
    /// Who is in it.
    pub when: Located<String>,
}

/// A step of a funnel.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSpec {
    /// Its name.
    pub name: Located<String>,
    /// The events that take it.
    pub filter: Located<String>,
}

/// A span of the UTC calendar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Period {
    /// A day.
    Day,
    /// From Monday to Sunday.
    #[default]
    Week,
    /// A month.
    Month,
}

impl ViewSpec {
    /// Forgets where its texts stand in files.
    pub(crate) fn strip_places(&mut self) {
        self.kind_span = Span::default();
        self.texts().into_iter().for_each(|text| text.span = Span::default());
    }

    /// Every text of the view with a place.
    fn texts(&mut self) -> Vec<&mut Located<String>> {
        let ViewSpec { name, kind, group_by, when, .. } = self;
        let mut texts: Vec<&mut Located<String>> = vec![name];
        texts.extend(group_by.iter_mut().chain(when));
        match kind {
            ViewKind::Count | ViewKind::Distinct | ViewKind::Transitions | ViewKind::Decisions => {}
            ViewKind::Persons | ViewKind::Identities | ViewKind::Profiles => {}
            ViewKind::Sum { of } | ViewKind::Top { of, .. } | ViewKind::Percentiles { of, .. } => texts.push(of),
            ViewKind::Segments { segments } | ViewKind::Members { segments } => {
                texts.extend(segments.iter_mut().flat_map(|segment| [&mut segment.name, &mut segment.when]));
            }
            ViewKind::Cohorts { begins, active, .. } => texts.extend(begins.iter_mut().chain(active)),
            ViewKind::Funnel { steps, .. } => {
                texts.extend(steps.iter_mut().flat_map(|step| [&mut step.name, &mut step.filter]));
            }
        }
        texts
    }
}
