//! The event contract: names, ids, event types and the types of known fields.
//!
//! These are the facts of the wire format that existing clients send; the JSON Schema and the Protobuf of the event
//! ([`crate::wire`]) carry the same ones, and a test holds the three together. What runs once per event
//! ([`event_type_index`], [`is_native_id`], [`is_any_id`]) does not allocate and looks at each byte once.

use ContractType::{Number, Text};

/// Version of the event's wire format.
pub const EVENT_VERSION: u32 = 1;

/// Members of an event, in the order of the contract.
pub const FIELDS: [&str; 9] = [
    "event_id",
    "app_id",
    "user_id",
    "session_id",
    "event_type",
    "timestamp",
    Group::Properties.name(),
    Group::Context.name(),
    Group::Metadata.name(),
];

/// Members that every client must send.
pub const REQUIRED_FIELDS: [&str; 5] = ["event_id", "app_id", "user_id", "event_type", "timestamp"];

/// What the id of an event begins with.
pub const EVENT_ID_PREFIX: &str = "evt_";
/// What the id of an application begins with.
pub const APP_ID_PREFIX: &str = "app_";
/// What the id of a user begins with.
pub const USER_ID_PREFIX: &str = "usr_";
/// What the id of a session begins with.
pub const SESSION_ID_PREFIX: &str = "ses_";

/// ASCII letters and digits after a native id's prefix.
pub const NATIVE_ID_CHARS: usize = 16;

/// Longest id where a job admits any, in bytes.
pub const ANY_ID_BYTES_MAX: usize = 128;

/// Whether `id` is `prefix` and [`NATIVE_ID_CHARS`] ASCII letters or digits: the pattern of the native SDKs.
///
/// ```
/// use whisperer_schemas::event::{USER_ID_PREFIX, is_native_id};
/// assert!(is_native_id(USER_ID_PREFIX, "usr_0123456789abcDEF"));
/// assert!(!is_native_id(USER_ID_PREFIX, "usr_0123456789abcDE_"));
/// ```
#[inline]
#[must_use]
pub fn is_native_id(prefix: &str, id: &str) -> bool {
    let Some(tail) = id.as_bytes().strip_prefix(prefix.as_bytes()) else { return false };
    let Ok(tail) = <&[u8; NATIVE_ID_CHARS]>::try_from(tail) else { return false };
    // No early exit: over a fixed length this becomes a few vector instructions.
    tail.iter().fold(true, |valid, byte| valid & byte.is_ascii_alphanumeric())
}

/// Whether `id` is valid where a job says `ids = "any"`: non-empty, at most [`ANY_ID_BYTES_MAX`] bytes.
#[inline]
#[must_use]
pub fn is_any_id(id: &str) -> bool {
    (1..=ANY_ID_BYTES_MAX).contains(&id.len())
}

/// The event types of the contract; [`event_type_index`] is the place in this list.
pub const EVENT_TYPES: [&str; 33] = [
    "user_signup",
    "user_login",
    "user_logout",
    "feature_used",
    "page_viewed",
    "button_clicked",
    "form_submitted",
    "error_encountered",
    "trial_started",
    "subscription_upgraded",
    "subscription_downgraded",
    "subscription_cancelled",
    "payment_failed",
    "support_ticket_created",
    "app_crashed",
    "feature_discovery",
    "onboarding_step_completed",
    "tutorial_viewed",
    "settings_changed",
    "data_exported",
    "data_imported",
    "collaboration_invited",
    "collaboration_accepted",
    "notification_sent",
    "notification_opened",
    "notification_clicked",
    "email_sent",
    "email_opened",
    "email_clicked",
    "sms_sent",
    "sms_delivered",
    "push_sent",
    "push_opened",
];

/// The place of `event_type` in [`EVENT_TYPES`], or `None` where it is not of the contract.
///
/// One multiplication finds the only candidate, one comparison confirms it.
///
/// ```
/// use whisperer_schemas::event::event_type_index;
/// assert_eq!(event_type_index("user_login"), Some(1));
/// assert_eq!(event_type_index("user_logins"), None);
/// ```
#[inline]
#[must_use]
pub fn event_type_index(event_type: &str) -> Option<u16> {
    let bytes = event_type.as_bytes();
    if bytes.is_empty() {
        return None;
    }
    let candidate = TYPE_SLOTS[type_slot(bytes, TYPE_FACTOR)];
    (*EVENT_TYPES.get(usize::from(candidate))? == event_type).then_some(u16::from(candidate))
}

/// Slots of the perfect hash: a power of two, wide enough that a factor without collisions is found in a few hundred
/// tries when the crate is compiled.
const TYPE_SLOTS_COUNT: usize = 128;

/// Marks a slot that no event type falls into.
const NO_TYPE: u8 = u8::MAX;

/// The first odd factor under which no two event types share a slot.
const TYPE_FACTOR: u32 = type_factor();

/// The event type in each slot.
static TYPE_SLOTS: [u8; TYPE_SLOTS_COUNT] = type_slots();

/// The slot of a non-empty name: its length and its first, middle and last byte tell the contract's types apart.
const fn type_slot(name: &[u8], factor: u32) -> usize {
    let length = name.len();
    let word = u32::from_le_bytes([length as u8, name[0], name[length / 2], name[length - 1]]);
    (word.wrapping_mul(factor) >> (32 - TYPE_SLOTS_COUNT.trailing_zeros())) as usize
}

const fn type_factor() -> u32 {
    let mut factor = 0x9e37_79b1;
    while !is_perfect(factor) {
        factor = factor.wrapping_add(2);
    }
    factor
}

const fn is_perfect(factor: u32) -> bool {
    let mut taken = 0_u128;
    let mut index = 0;
    while index < EVENT_TYPES.len() {
        let slot = 1_u128 << type_slot(EVENT_TYPES[index].as_bytes(), factor);
        if taken & slot != 0 {
            return false;
        }
        taken |= slot;
        index += 1;
    }
    true
}

const fn type_slots() -> [u8; TYPE_SLOTS_COUNT] {
    let mut slots = [NO_TYPE; TYPE_SLOTS_COUNT];
    let mut index = 0;
    while index < EVENT_TYPES.len() {
        slots[type_slot(EVENT_TYPES[index].as_bytes(), TYPE_FACTOR)] = index as u8;
        index += 1;
    }
    slots
}

/// The object of an event that holds a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// `properties`: what the event says of itself.
    Properties,
    /// `context`: where the user was when it happened.
    Context,
    /// `metadata`: what ingestion added.
    Metadata,
}

impl Group {
    /// All groups, in the order of the contract.
    pub const ALL: [Group; 3] = [Group::Properties, Group::Context, Group::Metadata];

    /// The member of the event that holds the group.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Group::Properties => "properties",
            Group::Context => "context",
            Group::Metadata => "metadata",
        }
    }

    /// The fields of the group that the contract knows, with their types.
    #[must_use]
    pub const fn fields(self) -> &'static [(&'static str, ContractType)] {
        match self {
            Group::Properties => &PROPERTIES,
            Group::Context => &CONTEXT,
            Group::Metadata => &METADATA,
        }
    }
}

/// The type that the contract gives a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContractType {
    /// A JSON number.
    Number,
    /// A JSON string.
    Text,
}

/// The type of a field that the contract knows; any other field takes the type that its use needs.
///
/// ```
/// use whisperer_schemas::event::{ContractType, Group, property_type};
/// assert_eq!(property_type(Group::Properties, "amount"), Some(ContractType::Number));
/// assert_eq!(property_type(Group::Properties, "colour"), None);
/// ```
#[must_use]
pub fn property_type(group: Group, name: &str) -> Option<ContractType> {
    group.fields().iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
}

const PROPERTIES: [(&str, ContractType); 13] = [
    ("feature", Text),
    ("page", Text),
    ("button", Text),
    ("form", Text),
    ("error_type", Text),
    ("error_message", Text),
    ("plan", Text),
    ("amount", Number),
    ("currency", Text),
    ("duration", Number),
    ("value", Number),
    ("category", Text),
    ("label", Text),
];

const CONTEXT: [(&str, ContractType); 16] = [
    ("ip", Text),
    ("user_agent", Text),
    ("referrer", Text),
    ("utm_source", Text),
    ("utm_medium", Text),
    ("utm_campaign", Text),
    ("device_type", Text),
    ("browser", Text),
    ("browser_version", Text),
    ("os", Text),
    ("os_version", Text),
    ("screen_resolution", Text),
    ("timezone", Text),
    ("locale", Text),
    ("app_version", Text),
    ("sdk_version", Text),
];

const METADATA: [(&str, ContractType); 5] =
    [("received_at", Text), ("processed_at", Text), ("schema_version", Text), ("source", Text), ("batch_id", Text)];

/// Values of `properties.plan`.
pub const PLANS: [&str; 4] = ["free", "basic", "pro", "enterprise"];
/// Values of `context.device_type`.
pub const DEVICE_TYPES: [&str; 3] = ["desktop", "mobile", "tablet"];
/// Values of `metadata.source`.
pub const SOURCES: [&str; 4] = ["sdk", "api", "webhook", "batch"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_type_is_found_at_its_place() {
        // The perfect hash agrees with a linear search, for the types and for near misses of every one of them.
        for (index, name) in EVENT_TYPES.iter().enumerate() {
            assert_eq!(event_type_index(name), Some(index as u16), "{name}");
            assert_eq!(event_type_index(&name.to_uppercase()), None);
            assert_eq!(event_type_index(&name[1..]), None);
            assert_eq!(event_type_index(&format!("{name}s")), None);
            // Same length, first, middle and last byte: only the comparison tells them apart.
            let mut twin = name.as_bytes().to_vec();
            twin[1] = b'#';
            assert_eq!(event_type_index(std::str::from_utf8(&twin).unwrap()), None);
        }
        for other in ["", "x", "é", "user_signup\0", &"u".repeat(300)] {
            assert_eq!(event_type_index(other), None, "{other:?}");
        }
    }

    #[test]
    fn native_ids_are_a_prefix_and_sixteen_alphanumerics() {
        // One accepted form; every way of missing it is refused.
        assert!(is_native_id(EVENT_ID_PREFIX, "evt_ABCdef0123456789"));
        for wrong in [
            "",
            "evt_",
            "evt_ABCdef012345678",
            "evt_ABCdef01234567890",
            "EVT_ABCdef0123456789",
            "usr_ABCdef0123456789",
            "evt_ABCdef012345678-",
            "evt_ABCdef01234567é",
            " evt_ABCdef0123456789",
        ] {
            assert!(!is_native_id(EVENT_ID_PREFIX, wrong), "{wrong:?}");
        }
    }

    #[test]
    fn any_id_is_bounded_in_bytes() {
        // The bounds: one byte to 128 of them, counted in UTF-8.
        assert!(!is_any_id(""));
        assert!(is_any_id("1"));
        assert!(is_any_id(&"x".repeat(128)));
        assert!(!is_any_id(&"x".repeat(129)));
        assert!(!is_any_id(&"é".repeat(65)));
    }

    #[test]
    fn known_fields_have_the_types_of_the_contract() {
        // Exactly three known fields are numbers; names belong to their group.
        let numbers: Vec<_> = Group::ALL
            .iter()
            .flat_map(|group| group.fields())
            .filter(|(_, kind)| *kind == ContractType::Number)
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(numbers, ["amount", "duration", "value"]);
        assert_eq!(property_type(Group::Context, "amount"), None);
        assert_eq!(property_type(Group::Metadata, "source"), Some(ContractType::Text));
    }
}
