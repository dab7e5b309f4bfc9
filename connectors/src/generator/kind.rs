//! The event types of the contract, as the generator handles them.

use whisperer_schemas::event::EVENT_TYPES;

/// An event type; in the order of the contract's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Kind {
    UserSignup,
    UserLogin,
    UserLogout,
    FeatureUsed,
    PageViewed,
    ButtonClicked,
    FormSubmitted,
    ErrorEncountered,
    TrialStarted,
    SubscriptionUpgraded,
    SubscriptionDowngraded,
    SubscriptionCancelled,
    PaymentFailed,
    SupportTicketCreated,
    AppCrashed,
    FeatureDiscovery,
    OnboardingStepCompleted,
    TutorialViewed,
    SettingsChanged,
    DataExported,
    DataImported,
    CollaborationInvited,
    CollaborationAccepted,
    NotificationSent,
    NotificationOpened,
    NotificationClicked,
    EmailSent,
    EmailOpened,
    EmailClicked,
    SmsSent,
    SmsDelivered,
    PushSent,
    PushOpened,
}

/// All kinds, each at its number.
const ALL: [Kind; EVENT_TYPES.len()] = [
    Kind::UserSignup,
    Kind::UserLogin,
    Kind::UserLogout,
    Kind::FeatureUsed,
    Kind::PageViewed,
    Kind::ButtonClicked,
    Kind::FormSubmitted,
    Kind::ErrorEncountered,
    Kind::TrialStarted,
    Kind::SubscriptionUpgraded,
    Kind::SubscriptionDowngraded,
    Kind::SubscriptionCancelled,
    Kind::PaymentFailed,
    Kind::SupportTicketCreated,
    Kind::AppCrashed,
    Kind::FeatureDiscovery,
    Kind::OnboardingStepCompleted,
    Kind::TutorialViewed,
    Kind::SettingsChanged,
    Kind::DataExported,
    Kind::DataImported,
    Kind::CollaborationInvited,
    Kind::CollaborationAccepted,
    Kind::NotificationSent,
    Kind::NotificationOpened,
    Kind::NotificationClicked,
    Kind::EmailSent,
    Kind::EmailOpened,
    Kind::EmailClicked,
    Kind::SmsSent,
    Kind::SmsDelivered,
    Kind::PushSent,
    Kind::PushOpened,
];

impl Kind {
    /// Its name on the wire.
    pub(super) fn name(self) -> &'static str {
        EVENT_TYPES[self as usize]
    }
}

/// A set of kinds: what a visit has yet to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kinds(u64);

impl Kinds {
    pub(super) fn insert(&mut self, kind: Kind) {
        self.0 |= 1 << kind as u8;
    }

    pub(super) fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Takes out the kind that stands first in the contract's list.
    pub(super) fn pop(&mut self) -> Option<Kind> {
        let first = *ALL.get(self.0.trailing_zeros() as usize)?;
        self.0 &= self.0 - 1;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_number_and_the_name_of_its_place_in_the_contract() {
        // Goal: kinds are found by number and named by the contract's list, so all three must be in one order.
        for (row, (kind, name)) in ALL.iter().zip(EVENT_TYPES).enumerate() {
            assert_eq!(*kind as usize, row);
            let spelt = format!("{kind:?}").to_lowercase();
            assert_eq!(spelt, name.replace('_', ""));
        }
    }
}
