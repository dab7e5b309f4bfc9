//! `[identity]`, compiled: the lanes of events that link ids, and where a key keeps what it has said.

use whisperer_schemas::Micros;

use crate::{
    cells::{Slot, SlotKind},
    expression,
    intake::{IntakeBuilder, LaneRequest, OfType},
    record::LaneMask,
    spec::{IdentitySpec, JobError, JobSpec, LinkSpec, Located, ViewKind},
};

/// Statements about links that are kept of one key: those that still stand, and those whose time has not come.
pub const STATEMENTS_MAX: usize = 1 << 10;

/// How ids of a job are linked.
#[derive(Debug)]
pub struct Identity {
    /// Ids of one person, at most.
    pub component_ids_max: usize,
    /// What events say, links first.
    pub(crate) statements: Vec<Statement>,
    /// The lanes of all of those.
    pub(crate) lanes: LaneMask,
    /// The slot in which a key keeps what it has said.
    pub(crate) ledger: usize,
    /// The slot with the time at which the key was first seen.
    pub(crate) first_seen: usize,
    /// Whether a view shows what the ids of a person come to together.
    pub(crate) profiles: bool,
}

/// What the events of one lane say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statement {
    pub(crate) lane: usize,
    /// Where the other id stands among the record's texts.
    pub(crate) text: usize,
    /// Whether they take a link back.
    pub(crate) unlinks: bool,
}

/// The lanes of what events say about links; where the other ids stand is not known yet.
pub(super) fn statements(spec: &JobSpec, intake: &mut IntakeBuilder, errors: &mut Vec<JobError>) -> Vec<Statement> {
    let Some(identity) = &spec.identity else { return Vec::new() };
    let links = identity.links.iter().map(|link| (link, false));
    let all = links.chain(identity.unlinks.iter().map(|link| (link, true)));
    let mut statements = Vec::new();
    for (link, unlinks) in all {
        match lane(spec, link, intake) {
            Ok(lane) => statements.push(Statement { lane, text: 0, unlinks }),
            Err(found) => errors.extend(found),
        }
    }
    statements
}

fn lane(spec: &JobSpec, link: &LinkSpec, intake: &mut IntakeBuilder) -> Result<usize, Vec<JobError>> {
    let event = &link.event;
    if let Some(types) = &spec.event_types
        && !types.contains(&event.value)
    {
        let near = expression::nearest(&event.value, types.iter().cloned());
        let hint =
            near.map_or("list it in [source] event_types".to_owned(), |near| format!("did you mean \"{near}\"?"));
        let message = format!("there is no event type \"{}\"", event.value);
        return Err(vec![JobError { span: event.span.clone(), message, hint: Some(hint) }]);
    }
    let quoted = event.value.replace('\'', "''");
    let filter = Located { value: format!("event_type = '{quoted}'"), span: event.span.clone() };
    let request = LaneRequest { filter: Some(&filter), of: Some((&link.other, OfType::Text)) };
    let named = |error: JobError| JobError { message: error.message.replace("`of`", "`other`"), ..error };
    let lane = intake.lane(&request).map_err(|errors| errors.into_iter().map(named).collect::<Vec<_>>())?;
    Ok(lane.0)
}

/// Checks the section, and that views which need it have it.
pub(super) fn check(spec: &JobSpec, errors: &mut Vec<JobError>) {
    let needs = |kind: &ViewKind| matches!(kind, ViewKind::Persons | ViewKind::Identities | ViewKind::Profiles);
    if spec.identity.is_none() {
        for view in spec.views.iter().filter(|view| needs(&view.kind)) {
            errors.push(JobError {
                span: view.kind_span.clone(),
                message: "persons are known where ids are linked, and the job links none".into(),
                hint: Some("write [identity], or count users".into()),
            });
        }
    }
}

/// The slots of what states keep of links; none where the job has no `[identity]`.
pub(super) fn compile(spec: &JobSpec, statements: Vec<Statement>, slots: &mut Vec<Slot>) -> Option<Identity> {
    let IdentitySpec { component_ids_max, .. } = spec.identity.as_ref()?;
    let slot = |kind, text| Slot { kind, lane: usize::MAX, pane: 0, panes: i64::MAX, value: 0, text };
    let (ledger, first_seen) = (slots.len(), slots.len() + 1);
    slots.extend([slot(SlotKind::Statements, true), slot(SlotKind::Earliest, false)]);
    let lanes = statements.iter().fold(0, |lanes, statement| lanes | 1 << statement.lane);
    let profiles = spec.views.iter().any(|view| view.kind == ViewKind::Profiles);
    let component_ids_max = *component_ids_max as usize;
    Some(Identity { component_ids_max, statements, lanes, ledger, first_seen, profiles })
}

impl Identity {
    /// What the slots keep, as texts: what has been said stands, however the job goes on to read events.
    pub(crate) fn definitions(identity: Option<&Identity>) -> impl Iterator<Item = String> {
        identity.into_iter().flat_map(|_| ["statements about links", "first seen"].map(str::to_owned))
    }
}

/// When something takes effect, in the order of the log where two do at once: effect time, partition, offset, and place among the
/// statements of one event.
pub type EffectOrder = (Micros, u32, u64, u16);
