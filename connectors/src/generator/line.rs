//! The text of an event: one line of JSON, without its end of line, in one of the layouts of the client libraries.
//!
//! Nothing is drawn here: all that a line says follows from the event and its user's traits, so that skipping an event
//! costs no text, and a line sent again is the same bytes. Members come in a different order from each library; the
//! server's has blanks after colons and commas, microseconds and sometimes no context; phones write local time.

use whisperer_schemas::time::{DAY, MINUTE, Micros, SECOND};

use super::{
    dirt,
    kind::Kind,
    random::{mix, scaled},
    simulation::Event,
    texts::{APPS, CAMPAIGNS, CATEGORIES, DEVICES, LABELS, PLACES},
    users::{Sdk, Traits, id_digits},
};

/// A member of the event.
#[derive(Clone, Copy)]
enum Member {
    EventId,
    AppId,
    UserId,
    SessionId,
    EventType,
    Time,
    Properties,
    Context,
    Metadata,
}

/// The members in the order of a layout, each with the text up to its value. The first one is never left out.
type Layout = [(Member, &'static [u8]); 9];

const WEB: Layout = [
    (Member::EventId, b"{\"event_id\":\"evt_"),
    (Member::AppId, b",\"app_id\":\""),
    (Member::UserId, b",\"user_id\":\"usr_"),
    (Member::SessionId, b",\"session_id\":\"ses_"),
    (Member::EventType, b",\"event_type\":\""),
    (Member::Time, b",\"timestamp\":\""),
    (Member::Properties, b",\"properties\":"),
    (Member::Context, b",\"context\":"),
    (Member::Metadata, b",\"metadata\":"),
];

const MOBILE: Layout = [
    (Member::EventType, b"{\"event_type\":\""),
    (Member::Time, b",\"timestamp\":\""),
    (Member::SessionId, b",\"session_id\":\"ses_"),
    (Member::UserId, b",\"user_id\":\"usr_"),
    (Member::Context, b",\"context\":"),
    (Member::Properties, b",\"properties\":"),
    (Member::EventId, b",\"event_id\":\"evt_"),
    (Member::AppId, b",\"app_id\":\""),
    (Member::Metadata, b",\"metadata\":"),
];

const SERVER: Layout = [
    (Member::Metadata, b"{\"metadata\": "),
    (Member::AppId, b", \"app_id\": \""),
    (Member::EventType, b", \"event_type\": \""),
    (Member::Properties, b", \"properties\": "),
    (Member::Context, b", \"context\": "),
    (Member::UserId, b", \"user_id\": \"usr_"),
    (Member::SessionId, b", \"session_id\": \"ses_"),
    (Member::EventId, b", \"event_id\": \"evt_"),
    (Member::Time, b", \"timestamp\": \""),
];

/// Appends the line of an event to `out`.
pub(super) fn write_line(out: &mut Vec<u8>, event: &Event, traits: &Traits) {
    let start = out.len();
    let sdk = if event.message { Sdk::Server } else { traits.sdk };
    let layout = match sdk {
        Sdk::Web => &WEB,
        Sdk::Mobile => &MOBILE,
        Sdk::Server => &SERVER,
    };
    for &(member, lead) in layout {
        let before = out.len();
        out.extend_from_slice(lead);
        if !write_member(out, member, event, traits, sdk) {
            out.truncate(before);
        }
    }
    out.push(b'}');
    if let Some(reason) = event.fault {
        let mut line = out.split_off(start);
        dirt::spoil(&mut line, reason, mix(event.bits), event.received);
        out.append(&mut line);
    }
}

/// Writes the value of a member; false where it is to be left out.
fn write_member(out: &mut Vec<u8>, member: Member, event: &Event, traits: &Traits, sdk: Sdk) -> bool {
    match member {
        Member::EventId => out.extend_from_slice(&id_digits(event.id)),
        Member::AppId => out.extend_from_slice(APPS[usize::from(traits.app)].as_bytes()),
        Member::UserId => out.extend_from_slice(&traits.id),
        Member::SessionId if event.session == 0 => return false,
        Member::SessionId => out.extend_from_slice(&id_digits(event.session)),
        Member::EventType => out.extend_from_slice(event.kind.name().as_bytes()),
        Member::Time => match sdk {
            Sdk::Web => write_instant(out, event.time, 3, 0),
            Sdk::Mobile => write_instant(out, event.time, 3, PLACES[usize::from(traits.place)].minutes),
            Sdk::Server => write_instant(out, event.time, 6, 0),
        },
        Member::Properties => return write_properties(out, event, traits, sdk),
        Member::Context => return write_context(out, event, traits, sdk),
        Member::Metadata => {
            write_metadata(out, event, sdk);
            return true;
        }
    }
    out.push(b'"');
    true
}

fn write_metadata(out: &mut Vec<u8>, event: &Event, sdk: Sdk) {
    out.extend_from_slice(b"{\"received_at\":\"");
    write_instant(out, event.received, 6, 0);
    out.extend_from_slice(b"\",\"schema_version\":\"1.2\",\"source\":\"");
    let source: &[u8] = match (sdk, event.message) {
        (_, true) => b"webhook",
        (Sdk::Server, false) => b"api",
        _ => b"sdk",
    };
    out.extend_from_slice(source);
    if sdk == Sdk::Mobile && event.bits & 3 == 0 {
        out.extend_from_slice(b"\",\"batch_id\":\"b-");
        write_number(out, event.session >> 40);
    }
    out.extend_from_slice(b"\"}");
}

fn write_context(out: &mut Vec<u8>, event: &Event, traits: &Traits, sdk: Sdk) -> bool {
    if sdk == Sdk::Server && (event.message || event.bits & 0x300 == 0) {
        return false;
    }
    let device = DEVICES.row(traits.device);
    let place = &PLACES[usize::from(traits.place)];
    let first = event.kind == Kind::UserSignup || event.kind == Kind::UserLogin && event.bits & 0x4000 == 0;
    // The whole context comes with half of the log-ins and now and then, else the least of it.
    out.push(b'{');
    let full = first || event.bits & 0x3C00 == 0;
    if full {
        out.extend_from_slice(b"\"ip\":\"");
        write_address(out, event.session ^ traits.rest);
        out.extend_from_slice(b"\",");
        if sdk != Sdk::Server && first {
            out.extend_from_slice(CAMPAIGNS[(event.bits >> 20) as usize % CAMPAIGNS.len()].as_bytes());
        }
        out.extend_from_slice(device.full.as_bytes());
        out.push(b',');
    } else if !device.brief.is_empty() {
        out.extend_from_slice(device.brief.as_bytes());
        out.push(b',');
    }
    write_text(out, b"\"locale\":\"", place.locale);
    if full || sdk == Sdk::Server {
        write_text(out, b",\"timezone\":\"", place.timezone);
    }
    if sdk == Sdk::Mobile {
        write_text(out, b",\"app_version\":\"", ["5.2.1", "5.2.0", "4.19.3"][(traits.rest % 3) as usize]);
    }
    write_text(out, b",\"sdk_version\":\"", device.sdk_version);
    out.push(b'}');
    true
}

/// What the kind of event has to say. Nothing at all: some libraries leave the object out, others write an empty one or null.
fn write_properties(out: &mut Vec<u8>, event: &Event, traits: &Traits, sdk: Sdk) -> bool {
    let start = out.len();
    super::properties::write(out, event, traits);
    if out.len() > start {
        // The members were written with a comma before each.
        out[start] = b'{';
        out.push(b'}');
        return true;
    }
    match sdk {
        Sdk::Web => false,
        Sdk::Mobile => {
            out.extend_from_slice(if event.bits & 1 == 0 { b"{}" } else { b"null" });
            true
        }
        Sdk::Server => {
            out.extend_from_slice(b"{}");
            true
        }
    }
}

/// Writes `lead`, which ends in a quotation mark, a text that is JSON already, and the closing mark.
pub(super) fn write_text(out: &mut Vec<u8>, lead: &[u8], text: &str) {
    out.extend_from_slice(lead);
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Writes subject and category of a message or ticket.
pub(super) fn write_subject(out: &mut Vec<u8>, bits: u64) {
    write_text(out, b",\"label\":\"", LABELS[(bits >> 8) as usize % LABELS.len()]);
    write_text(out, b",\"category\":\"", CATEGORIES[scaled(bits, CATEGORIES.len() as u32) as usize]);
}

/// An IPv4 address of nobody: 10.x.y.z.
fn write_address(out: &mut Vec<u8>, bits: u64) {
    out.extend_from_slice(b"10");
    for shift in [8, 16, 24] {
        out.push(b'.');
        write_number(out, bits >> shift & 0xFF);
    }
}

/// Writes a decimal number.
pub(super) fn write_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes an instant of the years 0 to 9999 in RFC 3339: with 3 or 6 digits of the second, and the offset in minutes, 0 as `Z`.
pub(super) fn write_instant(out: &mut Vec<u8>, time: Micros, digits: u8, offset: i16) {
    let local = time + Micros::from(offset) * MINUTE;
    let (days, micros) = (local.div_euclid(DAY), local.rem_euclid(DAY));
    let (year, month, day) = date(days);
    let seconds = (micros / SECOND) as u32;
    let fraction = (micros % SECOND) as u32;
    let mut text = *b"0000-00-00T00:00:00.000000";
    set_pair(&mut text, 0, year / 100);
    set_pair(&mut text, 2, year % 100);
    set_pair(&mut text, 5, month);
    set_pair(&mut text, 8, day);
    set_pair(&mut text, 11, seconds / 3_600);
    set_pair(&mut text, 14, seconds / 60 % 60);
    set_pair(&mut text, 17, seconds % 60);
    set_pair(&mut text, 20, fraction / 10_000);
    set_pair(&mut text, 22, fraction / 100 % 100);
    set_pair(&mut text, 24, fraction % 100);
    out.extend_from_slice(&text[..20 + usize::from(digits)]);
    if offset == 0 {
        out.push(b'Z');
        return;
    }
    let minutes = u32::from(offset.unsigned_abs());
    let mut zone = [if offset < 0 { b'-' } else { b'+' }, b'0', b'0', b':', b'0', b'0'];
    set_pair(&mut zone, 1, minutes / 60);
    set_pair(&mut zone, 4, minutes % 60);
    out.extend_from_slice(&zone);
}

fn set_pair(text: &mut [u8], at: usize, number: u32) {
    text[at] = b'0' + (number / 10) as u8;
    text[at + 1] = b'0' + (number % 10) as u8;
}

/// The proleptic Gregorian date of a day counted from the Unix epoch: year, month, day.
///
/// Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
fn date(days: i64) -> (u32, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year as u32, month as u32, day as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant(time: Micros, digits: u8, offset: i16) -> String {
        let mut out = Vec::new();
        write_instant(&mut out, time, digits, offset);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn instants_are_those_of_an_independent_calendar() {
        // Goal: the hand-made formatting agrees with `jiff` over three centuries, offsets included.
        for step in 0..20_000_i64 {
            let time = step * 473_385_600_123_457 / 1_000;
            let zoned = |offset: i16| {
                let zone = jiff::tz::Offset::from_seconds(i32::from(offset) * 60).unwrap();
                jiff::Timestamp::from_microsecond(time).unwrap().to_zoned(zone.to_time_zone())
            };
            assert_eq!(instant(time, 6, 0), zoned(0).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string());
            assert_eq!(instant(time, 6, 330), zoned(330).strftime("%Y-%m-%dT%H:%M:%S.%6f%:z").to_string());
            assert_eq!(instant(time, 6, -420), zoned(-420).strftime("%Y-%m-%dT%H:%M:%S.%6f%:z").to_string());
        }
        assert_eq!(instant(1_767_225_600_123_456, 3, 0), "2026-01-01T00:00:00.123Z");
    }
}
