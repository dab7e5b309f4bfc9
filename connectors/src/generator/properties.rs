//! The properties of an event, by its kind: members with a comma before each.

use whisperer_schemas::event::PLANS;

use super::{
    kind::Kind,
    line::{write_number, write_subject, write_text},
    random::{mix, scaled},
    simulation::Event,
    texts::{BUTTONS, ERRORS, FEATURES, FORMATS, FORMS, PAGES, PLACES, PRICES, STEPS, WAYS_IN},
    users::Traits,
};

pub(super) fn write(out: &mut Vec<u8>, event: &Event, traits: &Traits) {
    let bits = mix(event.bits);
    let which = usize::from(event.which);
    match event.kind {
        Kind::PageViewed => {
            write_text(out, b",\"page\":\"", PAGES[(bits & 7) as usize]);
            write_duration(out, bits, 90_000);
        }
        Kind::FeatureUsed => {
            write_text(out, b",\"feature\":\"", FEATURES[which]);
            write_duration(out, bits, 240_000);
        }
        Kind::FeatureDiscovery => write_text(out, b",\"feature\":\"", FEATURES[which]),
        Kind::ButtonClicked => {
            write_text(out, b",\"button\":\"", BUTTONS[(bits & 7) as usize]);
            write_text(out, b",\"page\":\"", PAGES[(bits >> 3 & 7) as usize]);
        }
        Kind::FormSubmitted => {
            write_text(out, b",\"form\":\"", FORMS[(bits & 3) as usize]);
            write_duration(out, bits, 120_000);
        }
        Kind::ErrorEncountered | Kind::AppCrashed => write_error(out, bits),
        Kind::UserSignup | Kind::UserLogin => {
            write_text(out, b",\"category\":\"", WAYS_IN[(traits.rest & 3) as usize]);
            write_text(out, b",\"plan\":\"", PLANS[which]);
        }
        Kind::TrialStarted => write_text(out, b",\"plan\":\"", PLANS[which]),
        Kind::SubscriptionUpgraded | Kind::SubscriptionDowngraded | Kind::SubscriptionCancelled => {
            write_price(out, which, traits);
        }
        Kind::PaymentFailed => {
            write_price(out, which, traits);
            let error = ["card_declined", "insufficient_funds", "expired_card"][scaled(bits, 3) as usize];
            write_text(out, b",\"error_type\":\"", error);
        }
        Kind::OnboardingStepCompleted => {
            write_text(out, b",\"label\":\"", STEPS[which % STEPS.len()]);
            out.extend_from_slice(b",\"value\":");
            write_number(out, which as u64 + 1);
        }
        Kind::DataExported | Kind::DataImported => {
            write_text(out, b",\"category\":\"", FORMATS[(bits & 3) as usize]);
            out.extend_from_slice(b",\"value\":");
            write_number(out, 1 + bits % 50_000);
            // As some languages print large numbers.
            out.extend_from_slice(if bits >> 62 == 0 { b".5e1" } else { b"" });
        }
        Kind::TutorialViewed => {
            write_text(out, b",\"label\":\"", STEPS[(bits % 5) as usize]);
            write_duration(out, bits, 300_000);
        }
        Kind::SettingsChanged => write_text(out, b",\"label\":\"", FORMS[(bits & 3) as usize]),
        Kind::CollaborationInvited => {
            out.extend_from_slice(b",\"value\":");
            write_number(out, 1 + bits % 5);
        }
        Kind::UserLogout | Kind::CollaborationAccepted => {}
        // Tickets and messages.
        _ => write_subject(out, bits),
    }
}

/// Milliseconds up to `most`, some with a fraction as the high-resolution clocks of browsers have it.
fn write_duration(out: &mut Vec<u8>, bits: u64, most: u32) {
    out.extend_from_slice(b",\"duration\":");
    write_number(out, 40 + u64::from(scaled(bits, most)));
    if bits & 0x70 == 0 {
        out.push(b'.');
        write_number(out, 1 + (bits >> 8 & 7));
    }
}

fn write_error(out: &mut Vec<u8>, bits: u64) {
    let (error, message) = ERRORS[(bits & 7) as usize];
    write_text(out, b",\"error_type\":\"", error);
    write_text(out, b",\"error_message\":\"", message);
    if bits & 8 == 0 {
        write_text(out, b",\"page\":\"", PAGES[(bits >> 4 & 7) as usize]);
    }
}

fn write_price(out: &mut Vec<u8>, plan: usize, traits: &Traits) {
    write_text(out, b",\"plan\":\"", PLANS[plan]);
    out.extend_from_slice(b",\"amount\":");
    write_number(out, u64::from(PRICES[plan]));
    write_text(out, b",\"currency\":\"", PLACES[usize::from(traits.place)].currency);
}
