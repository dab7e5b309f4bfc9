//! Messages of the Segment spec: `track`, `identify`, `page`, `screen`, `group` and `alias`.
//!
//! Most fields of an event are members of the message. Two are computed from several: the event type, from the call and its name;
//! and the event time, which is corrected for the client's clock where Segment has not done that already. They stand in two slots behind
//! those of the members.

use std::fmt::Write;

use whisperer_operators::intake::{Field, Group};
use whisperer_schemas::time::{format_micros, parse_rfc3339};

use super::{
    capture::Captured,
    decode::Unread,
    mapping::{From, Mapping, Member},
    plan::{Draft, Feed, Plan, objects, path, same_path},
    time::in_range,
};

/// Places of what is derived, from the last slot.
const EVENT_TYPE: usize = 0;
const TIME: usize = 1;

/// Names of Segment's own spec whose counterpart in the event contract is not their snake case.
const NAMES: [(&str, &str); 6] = [
    ("Signed Up", "user_signup"),
    ("Signed In", "user_login"),
    ("Signed Out", "user_logout"),
    ("Application Crashed", "app_crashed"),
    ("Email Link Clicked", "email_clicked"),
    ("Push Notification Tapped", "push_opened"),
];

/// Where Segment keeps what the contract's `context` has under another name.
const CONTEXT: [(&str, &str); 10] = [
    ("user_agent", "context.userAgent"),
    ("referrer", "context.page.referrer"),
    ("utm_source", "context.campaign.source"),
    ("utm_medium", "context.campaign.medium"),
    ("utm_campaign", "context.campaign.name"),
    ("device_type", "context.device.type"),
    ("os", "context.os.name"),
    ("os_version", "context.os.version"),
    ("app_version", "context.app.version"),
    ("sdk_version", "context.library.version"),
];

/// Where the fields of an event stand in a message.
pub(super) fn draft(mapping: &Mapping) -> Draft {
    let timestamp = if mapping.timestamp.is_none() {
        ["timestamp", "originalTimestamp", "sentAt"].map(path).to_vec()
    } else {
        vec![]
    };
    Draft {
        event_id: Feed::Member(path("messageId")),
        app_id: Feed::Member(path("app_id")),
        user_id: Feed::First(vec![path("userId"), path("anonymousId")]),
        session_id: Feed::Member(path("context.sessionId")),
        event_type: Feed::Derived(EVENT_TYPE),
        timestamp: Feed::Derived(TIME),
        received_at: Feed::Member(path("receivedAt")),
        objects: objects(&["properties", "traits", "context"]),
        more: [timestamp, vec![path("type"), path("event")]].concat(),
    }
}

/// Where a field of a group stands: properties of `identify` and `group` are called traits.
pub(super) fn field(field: &Field) -> Feed<Vec<String>> {
    let own = same_path(field);
    match field.group {
        Group::Properties => {
            let mut traits = own.clone();
            traits[0] = "traits".to_owned();
            let mut places = vec![own, traits];
            // The name of a page or screen is not among its properties.
            places.extend((field.path == ["page"]).then(|| path("name")));
            // What links a visitor to the user that they become.
            places.extend((field.path == ["anonymous_id"]).then(|| path("anonymousId")));
            places.extend((field.path == ["previous_id"]).then(|| path("previousId")));
            Feed::First(places)
        }
        Group::Context => match CONTEXT.iter().find(|(name, _)| field.path == [*name]) {
            Some((_, place)) => Feed::First(vec![path(place), own]),
            None => Feed::Member(own),
        },
        _ => Feed::Member(own),
    }
}

/// What the mapping renames among the names of `track` calls; none where it takes the event type from elsewhere.
pub(super) fn renames(mapping: &Mapping) -> Option<&Member> {
    match &mapping.event_type {
        Some(From::Member(member)) if member.path == ["event"] => Some(member),
        _ => None,
    }
}

/// Derives event types and event times.
#[derive(Debug)]
pub(super) struct Segment {
    call: u16,
    event: u16,
    received_at: Option<u16>,
    /// `timestamp`, `originalTimestamp` and `sentAt`; none where the mapping takes the time from elsewhere.
    times: Option<[u16; 3]>,
    /// Whether the event type is derived.
    names_events: bool,
    rename: Vec<(String, String)>,
    otherwise: Option<String>,
}

impl Segment {
    pub(super) fn new(mapping: &Mapping, plan: &Plan) -> Segment {
        let slot = |name: &str| plan.members.slot(&path(name)).expect("the draft names these members");
        let renames = renames(mapping).cloned().unwrap_or_default();
        Segment {
            call: slot("type"),
            event: slot("event"),
            received_at: plan.received_at.members().first().copied(),
            times: mapping.timestamp.is_none().then(|| ["timestamp", "originalTimestamp", "sentAt"].map(slot)),
            names_events: matches!(plan.event_type, Feed::Derived(_)),
            rename: renames.rename,
            otherwise: renames.otherwise,
        }
    }

    /// Adds the two slots of what is derived.
    pub(super) fn derive(&self, slots: &mut Vec<Captured<'_>>, scratch: &mut String) -> Result<(), Unread> {
        let time = self.time(slots, scratch);
        let event_type = if self.names_events { self.event_type(slots, scratch) } else { Ok(Captured::Absent) };
        slots.push(time);
        // An unknown call is not a missing one.
        slots.push(*event_type.as_ref().unwrap_or(&slots[usize::from(self.call)]));
        event_type.map(drop)
    }

    /// Segment's own correction: `timestamp = receivedAt - (sentAt - originalTimestamp)`, where there is no `timestamp` yet.
    fn time<'a>(&self, slots: &[Captured<'a>], scratch: &mut String) -> Captured<'a> {
        let Some(times) = self.times else { return Captured::Absent };
        let [timestamp, original, sent_at] = times.map(|slot| slots[usize::from(slot)]);
        if !matches!(timestamp, Captured::Absent | Captured::Null) {
            return timestamp;
        }
        let received_at = self.received_at.map_or(Captured::Absent, |slot| slots[usize::from(slot)]);
        let read = |captured| text(captured, scratch).and_then(|text| parse_rfc3339(text.as_bytes()));
        let corrected = match (read(original), read(sent_at), read(received_at)) {
            (Some(original), Some(sent_at), Some(received_at)) => {
                in_range(i128::from(received_at - (sent_at - original)))
            }
            _ => None,
        };
        corrected.map_or(original, |time| written(scratch, format_args!("{}", format_micros(time))))
    }

    fn event_type<'a>(&self, slots: &[Captured<'a>], scratch: &mut String) -> Result<Captured<'a>, Unread> {
        let call = match slots[usize::from(self.call)] {
            Captured::Absent | Captured::Null => return Ok(Captured::Absent),
            call => text(call, scratch).unwrap_or_default(),
        };
        let name = match call {
            "page" | "screen" => "page_viewed",
            "identify" => "identify",
            "group" => "group",
            "alias" => "alias",
            "track" => return Ok(self.track(slots[usize::from(self.event)], scratch)),
            _ => return Err(Unread::BreaksSchema(format!("type {:?} is not a call of the Segment spec", cut(call)))),
        };
        let renamed = self.renamed(call).unwrap_or(name);
        Ok(written(scratch, format_args!("{renamed}")))
    }

    /// The event type of a `track` call. A name that is no text is left for the checks to reject.
    fn track<'a>(&self, event: Captured<'a>, scratch: &mut String) -> Captured<'a> {
        let Some(name) = text(event, scratch) else { return event };
        let known = NAMES.iter().find(|(from, _)| *from == name).map(|(_, to)| *to);
        let event_type = match self.renamed(name).or(self.otherwise.as_deref()).or(known) {
            Some(event_type) => event_type.to_owned(),
            None => snake_case(name),
        };
        written(scratch, format_args!("{event_type}"))
    }

    fn renamed(&self, name: &str) -> Option<&str> {
        self.rename.iter().find(|(from, _)| from == name).map(|(_, to)| to.as_str())
    }
}

fn text<'t>(captured: Captured<'t>, scratch: &'t str) -> Option<&'t str> {
    match captured {
        Captured::Text(text) | Captured::Cell(text) => Some(text),
        Captured::Escaped(start, end) => Some(&scratch[start..end]),
        _ => None,
    }
}

/// A text of the scratch buffer's own.
fn written<'a>(scratch: &mut String, text: std::fmt::Arguments<'_>) -> Captured<'a> {
    let start = scratch.len();
    scratch.write_fmt(text).expect("a String takes every write");
    Captured::Escaped(start, scratch.len())
}

/// `Button Clicked`, `buttonClicked` and `button-clicked` are `button_clicked`.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    let mut after_lower = false;
    for letter in name.chars() {
        if !letter.is_alphanumeric() {
            after_lower = false;
            if !snake.is_empty() && !snake.ends_with('_') {
                snake.push('_');
            }
            continue;
        }
        if letter.is_uppercase() && after_lower {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
        after_lower = !letter.is_uppercase();
    }
    if snake.ends_with('_') {
        snake.pop();
    }
    snake
}

/// The beginning of a text, for a message.
fn cut(text: &str) -> &str {
    const CHARS_MAX: usize = 64;
    text.char_indices().nth(CHARS_MAX).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_snake_case() {
        // Goal: the spellings that tracking plans use give the contract's names; nothing is lost but punctuation.
        for (name, expected) in [
            ("Feature Used", "feature_used"),
            ("featureUsed", "feature_used"),
            ("feature_used", "feature_used"),
            ("Feature-Used!", "feature_used"),
            ("  Feature   Used", "feature_used"),
            ("URL Opened", "url_opened"),
            ("Step2Done", "step2_done"),
            ("Größe Gewählt", "größe_gewählt"),
            ("!!", ""),
        ] {
            assert_eq!(snake_case(name), expected, "{name}");
        }
    }
}
