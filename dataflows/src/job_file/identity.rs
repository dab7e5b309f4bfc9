//! `[identity]`: which ids are one person.

use whisperer_connectors::format::EventTypes;
use whisperer_operators::{
    expression::did_you_mean,
    spec::{COMPONENT_IDS_MAX, IdentitySpec, JobSpec, LinkSpec, Located, ViewKind, ViewSpec},
};
use whisperer_schemas::event::EVENT_TYPES;

use super::{problems::Problems, section::Section, shape};

/// Ids of one person, beyond which a job does not go: what hangs together is put together as a whole.
const IDS_MAX: u64 = 1 << 10;

/// The view that the section makes.
const IDENTITIES: &str = "identities";
/// The view that it makes where it is asked to.
const PERSONS: &str = "persons";

/// Reads the section, if it is there, and adds the views of who is who and of persons.
pub(super) fn read(root: &Section<'_>, spec: &mut JobSpec) {
    if root.get("identity").is_none() {
        return;
    }
    let section = root.section("identity", &shape::IDENTITY);
    let component_ids_max = section.get("component_ids_max").and_then(|v| v.whole(2..=IDS_MAX));
    let links: Vec<LinkSpec> = section.sections("link", &shape::LINK).iter().map(read_link).collect();
    let unlinks = section.sections("unlink", &shape::UNLINK).iter().map(read_link).collect();
    if links.is_empty() {
        section.problem("[identity] links nothing".into(), Some("write an [[identity.link]]"));
    }
    let component_ids_max = component_ids_max.and_then(|most| u32::try_from(most).ok()).unwrap_or(COMPONENT_IDS_MAX);
    spec.identity = Some(IdentitySpec { component_ids_max, links, unlinks });
    let asked = section.get("persons").and_then(|v| v.flag()) == Some(true);
    let persons = asked.then_some((PERSONS, ViewKind::Profiles));
    let view = |(name, kind): (&str, ViewKind)| {
        let name = Located { value: name.to_owned(), span: section.span() };
        ViewSpec { name, kind_span: section.span(), ..ViewSpec::new("", kind) }
    };
    // First, so that one of the job's own with its name is the one that is in the wrong.
    spec.views.splice(..0, [(IDENTITIES, ViewKind::Identities)].into_iter().chain(persons).map(view));
}

fn read_link(section: &Section<'_>) -> LinkSpec {
    let missing = || Located { value: String::new(), span: section.span() };
    let text = |key| section.require(key).and_then(|v| v.text());
    let other = || Located { value: "null".to_owned(), span: section.span() };
    LinkSpec { event: text("event").unwrap_or_else(missing), other: text("other").unwrap_or_else(other) }
}

/// Checks that there can be the events which link, so that none is a dead letter for its type.
pub(super) fn check_events(spec: &JobSpec, types: &EventTypes, problems: &Problems) {
    let EventTypes::Contract(own) = types else { return };
    let links = spec.identity.iter().flat_map(|identity| identity.links.iter().chain(&identity.unlinks));
    for Located { value, span } in links.map(|link| &link.event).filter(|event| !event.value.is_empty()) {
        let known = || EVENT_TYPES.iter().copied().chain(own.iter().map(String::as_str));
        if !known().any(|known| known == value) {
            let near = did_you_mean(value, known());
            let hint = near.unwrap_or_else(|| format!("say event_types = [\"{value}\"] in [source]"));
            problems.add(span.clone(), format!("there is no event type \"{value}\""), Some(hint));
        }
    }
}
