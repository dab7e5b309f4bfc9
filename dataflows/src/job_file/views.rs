//! `[[view]]`: what is asked about all users at once.

use whisperer_operators::{
    job::SEGMENTS_MAX,
    spec::{Located, Period, SegmentSpec, StepSpec, ViewKind, ViewSpec},
};
use whisperer_schemas::Micros;

use super::{
    section::{Section, Value},
    shape,
};

/// Users that a `top` may list in a group.
const LIMIT_MAX: u64 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Count,
    Sum,
    Distinct,
    Top,
    Percentiles,
    Transitions,
    Segments,
    Members,
    Decisions,
    Cohorts,
    Funnel,
    Persons,
}

const KINDS: [(&str, Kind); 12] = [
    ("count", Kind::Count),
    ("sum", Kind::Sum),
    ("distinct", Kind::Distinct),
    ("top", Kind::Top),
    ("percentiles", Kind::Percentiles),
    ("transitions", Kind::Transitions),
    ("segments", Kind::Segments),
    ("members", Kind::Members),
    ("decisions", Kind::Decisions),
    ("cohorts", Kind::Cohorts),
    ("funnel", Kind::Funnel),
    ("persons", Kind::Persons),
];

/// Keys of some kinds only.
const OWNERS: [(&str, &[Kind]); 11] = [
    ("of", &[Kind::Sum, Kind::Top, Kind::Percentiles]),
    (
        "when",
        &[
            Kind::Count,
            Kind::Sum,
            Kind::Distinct,
            Kind::Top,
            Kind::Percentiles,
            Kind::Segments,
            Kind::Members,
            Kind::Persons,
        ],
    ),
    ("limit", &[Kind::Top]),
    ("at", &[Kind::Percentiles]),
    ("resolution", &[Kind::Percentiles]),
    ("segments", &[Kind::Segments, Kind::Members]),
    ("period", &[Kind::Cohorts]),
    ("begins", &[Kind::Cohorts]),
    ("active", &[Kind::Cohorts]),
    ("steps", &[Kind::Funnel]),
    ("within", &[Kind::Funnel]),
];

/// Reads every `[[view]]`.
pub(super) fn read(root: &Section<'_>) -> Vec<ViewSpec> {
    root.sections("view", &shape::VIEW).iter().map(read_view).collect()
}

fn read_view(section: &Section<'_>) -> ViewSpec {
    let missing = || Located { value: String::new(), span: section.span() };
    let name = section.require("name").and_then(|v| v.text()).unwrap_or_else(missing);
    let aggregate = section.require("aggregate");
    let kind = aggregate.and_then(|value| value.choice(&KINDS));
    if let Some(kind) = kind {
        check_keys(section, kind);
    }
    ViewSpec {
        name,
        kind: kind.and_then(|kind| read_kind(section, kind)).unwrap_or(ViewKind::Count),
        kind_span: aggregate.map_or_else(|| section.span(), |value| value.span()),
        group_by: section.get("group_by").and_then(|v| v.texts()).unwrap_or_default(),
        when: section.get("when").and_then(|v| v.text()),
    }
}

fn check_keys(section: &Section<'_>, kind: Kind) {
    for (key, owners) in OWNERS {
        if let Some(value) = section.get(key).filter(|_| !owners.contains(&kind)) {
            let written = |owner: &Kind| KINDS.iter().find(|(_, kind)| kind == owner).map_or("", |(name, _)| name);
            let owners: Vec<String> = owners.iter().map(|owner| format!("\"{}\"", written(owner))).collect();
            value.problem_at_key(format!("\"{key}\" belongs to the aggregate {}", owners.join(" or ")), None);
        }
    }
}

/// None where something that the kind needs is missing, which is a mistake that is recorded.
fn read_kind(section: &Section<'_>, kind: Kind) -> Option<ViewKind> {
    let of = || section.require("of").and_then(|v| v.text());
    Some(match kind {
        Kind::Count => ViewKind::Count,
        Kind::Sum => ViewKind::Sum { of: of()? },
        Kind::Distinct => ViewKind::Distinct,
        Kind::Persons => ViewKind::Persons,
        Kind::Top => {
            let limit = section.get("limit").and_then(|v| v.whole(1..=LIMIT_MAX)).unwrap_or(shape::VIEW_LIMIT);
            ViewKind::Top { of: of()?, limit: u32::try_from(limit).unwrap_or(u32::MAX) }
        }
        Kind::Percentiles => {
            let at = section.get("at").map_or_else(|| Some(shape::VIEW_AT.to_vec()), |v| read_ranks(&v));
            let resolution = section.get("resolution").map_or(Some(shape::VIEW_RESOLUTION), |v| read_resolution(&v));
            ViewKind::Percentiles { of: of()?, at: at?, resolution: resolution? }
        }
        Kind::Transitions => ViewKind::Transitions,
        Kind::Decisions => ViewKind::Decisions,
        Kind::Members => ViewKind::Members { segments: read_segments(&section.require("segments")?)? },
        Kind::Segments => ViewKind::Segments { segments: read_segments(&section.require("segments")?)? },
        Kind::Cohorts => {
            let periods = [("day", Period::Day), ("week", Period::Week), ("month", Period::Month)];
            ViewKind::Cohorts {
                period: section.get("period").and_then(|v| v.choice(&periods)).unwrap_or_default(),
                begins: section.get("begins").and_then(|v| v.text()),
                active: section.get("active").and_then(|v| v.text()),
            }
        }
        Kind::Funnel => {
            let within: Option<Micros> = section.require("within").and_then(|v| v.duration()).map(|v| v.value);
            let steps = section.require("steps").and_then(|v| read_steps(&v));
            ViewKind::Funnel { steps: steps?, within: within? }
        }
    })
}

fn read_ranks(value: &Value<'_>) -> Option<Vec<f64>> {
    let ranks: Vec<f64> = value.items()?.iter().map(|item| item.number_within(0.0..=1.0)).collect::<Option<_>>()?;
    if ranks.is_empty() || ranks.windows(2).any(|pair| pair[0] >= pair[1]) {
        value.problem("\"at\" is a list of ascending numbers".into(), Some("such as [0.5, 0.9, 0.99]"));
        return None;
    }
    Some(ranks)
}

fn read_resolution(value: &Value<'_>) -> Option<f64> {
    let resolution = value.number()?;
    if resolution <= 0.0 {
        value.problem("\"resolution\" must be above 0".into(), None);
        return None;
    }
    Some(resolution)
}

fn read_segments(value: &Value<'_>) -> Option<Vec<SegmentSpec>> {
    let section = value.section(&shape::SEGMENTS)?;
    let segment = |entry: &Value<'_>| {
        let name = Located { value: entry.key().to_owned(), span: entry.key_span() };
        Some(SegmentSpec { name, when: entry.text()? })
    };
    let segments: Vec<SegmentSpec> = section.entries().iter().map(segment).collect::<Option<_>>()?;
    if segments.is_empty() || segments.len() > SEGMENTS_MAX {
        let message = format!("\"segments\" has from 1 to {SEGMENTS_MAX} members, not {}", segments.len());
        section.problem(message, Some("such as { at_risk = \"churn_risk >= 0.6\" }"));
        return None;
    }
    Some(segments)
}

fn read_steps(value: &Value<'_>) -> Option<Vec<StepSpec>> {
    let step = |item: &Value<'_>| {
        let section = item.section(&shape::STEP)?;
        let name = section.require("name").and_then(|v| v.text());
        let filter = section.require("where").and_then(|v| v.text());
        Some(StepSpec { name: name?, filter: filter? })
    };
    let steps: Vec<StepSpec> = value.items()?.iter().map(step).collect::<Option<_>>()?;
    if steps.len() < 2 {
        let form = "such as [{ name = \"signup\", where = \"event_type = 'user_signup'\" }, …]";
        value.problem("a funnel has at least two steps".into(), Some(form));
        return None;
    }
    Some(steps)
}
