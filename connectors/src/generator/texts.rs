//! The words of the generated lines: JSON text as it is copied into them, escapes included.

use whisperer_schemas::time::{MINUTE, Micros};

use super::users::Sdk;

/// The features of the product.
pub(super) const FEATURES: [&str; 12] = [
    "dashboard",
    "reports",
    "search",
    "sharing",
    "automation",
    "integrations",
    "calendar",
    "comments",
    "templates",
    "api_access",
    "forecast",
    "audit_log",
];

/// The apps; each user is a user of one.
pub(super) const APPS: [&str; 3] = ["app_notes00000000001", "app_tasks00000000002", "app_studio0000000003"];

/// Monthly prices of the contract's plans, in cents.
pub(super) const PRICES: [u32; 4] = [0, 900, 2900, 19900];

pub(super) const PAGES: [&str; 8] =
    ["/home", "/pricing", "/settings/profile", "/projects", "\\/reports\\/weekly", "/team", "/docs/start", "/inbox"];

pub(super) const BUTTONS: [&str; 8] =
    ["save", "share", "new_project", "invite", "upgrade_now", "filter", "undo", "caf\\u00e9_theme"];

pub(super) const FORMS: [&str; 4] = ["profile", "billing_address", "new_project", "feedback"];

/// Error types with their messages.
pub(super) const ERRORS: [(&str, &str); 8] = [
    ("timeout", "Request to /api/v2/items timed out after 30000 ms"),
    ("validation", "Field \\\"name\\\" must not be empty"),
    ("network", "Failed to fetch https:\\/\\/api.example.com\\/v2\\/sync"),
    ("not_found", "No such file: C:\\\\data\\\\r\\u00e9sum\\u00e9.pdf"),
    ("permission", "Zugriff verweigert: \\\"Gäste\\\" dürfen nicht schreiben"),
    ("rate_limit", "429 Too Many Requests"),
    ("render", "TypeError: undefined is not a function\\n\\tat draw (app.js:1:2345)"),
    ("conflict", "Version 17 was replaced by 18"),
];

/// Subjects of tickets and of messages sent.
pub(super) const LABELS: [&str; 8] = [
    "Weekly digest",
    "You\\u2019re almost there",
    "Caf\\u00e9 \\\"Zentral\\\" shared a board",
    "How do I export?",
    "Rechnung prüfen",
    "\\ud83d\\ude80 New: forecasts",
    "Tips & tricks 1\\/3",
    "We miss you",
];

pub(super) const CATEGORIES: [&str; 6] = ["billing", "product", "account", "security", "newsletter", "team"];

pub(super) const STEPS: [&str; 5] = ["verify_email", "create_project", "invite_team", "connect_tool", "first_report"];

/// A file format or a way in: of data, of log-ins.
pub(super) const FORMATS: [&str; 4] = ["csv", "xlsx", "json", "parquet"];
pub(super) const WAYS_IN: [&str; 4] = ["password", "google", "saml", "magic_link"];

pub(super) const CAMPAIGNS: [&str; 4] = [
    r#""utm_source":"google","utm_medium":"cpc","utm_campaign":"brand_2026","#,
    r#""referrer":"https:\/\/news.example.com\/a?id=1&q=caf\u00e9","#,
    r#""utm_source":"newsletter","utm_medium":"email","#,
    r#""referrer":"https://www.google.com/","#,
];

/// A place that users live in. None of these zones has a summer time, so that an offset holds all year.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) timezone: &'static str,
    pub(super) minutes: i16,
    pub(super) locale: &'static str,
    pub(super) currency: &'static str,
}

impl Place {
    /// How far local time is ahead of UTC.
    pub(super) fn offset(&self) -> Micros {
        Micros::from(self.minutes) * MINUTE
    }
}

const fn place(timezone: &'static str, minutes: i16, locale: &'static str, currency: &'static str) -> Place {
    Place { timezone, minutes, locale, currency }
}

pub(super) const PLACES: [Place; 16] = [
    place("America/Phoenix", -420, "en-US", "USD"),
    place("America/Bogota", -300, "es-CO", "USD"),
    place("America/Sao_Paulo", -180, "pt-BR", "BRL"),
    place("Atlantic/Reykjavik", 0, "is-IS", "EUR"),
    place("Africa/Accra", 0, "en-GH", "GBP"),
    place("Africa/Lagos", 60, "en-NG", "GBP"),
    place("Africa/Algiers", 60, "fr-DZ", "EUR"),
    place("Africa/Johannesburg", 120, "en-ZA", "ZAR"),
    place("Europe/Istanbul", 180, "tr-TR", "TRY"),
    place("Asia/Dubai", 240, "ar-AE", "AED"),
    place("Asia/Kolkata", 330, "hi-IN", "INR"),
    place("Asia/Bangkok", 420, "th-TH", "THB"),
    place("Asia/Singapore", 480, "en-SG", "SGD"),
    place("Asia/Shanghai", 480, "zh-CN", "CNY"),
    place("Asia/Tokyo", 540, "ja-JP", "JPY"),
    place("Australia/Brisbane", 600, "en-AU", "AUD"),
];

/// A device: what full and brief contexts say of it.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) full: &'static str,
    pub(super) brief: &'static str,
    pub(super) sdk_version: &'static str,
}

/// All devices, those of one SDK together.
pub(super) struct Devices([Device; 9]);

impl Devices {
    /// The first device of an SDK.
    pub(super) const fn of(&self, sdk: Sdk) -> usize {
        match sdk {
            Sdk::Web => 0,
            Sdk::Mobile => 4,
            Sdk::Server => 7,
        }
    }

    /// The number of devices of an SDK.
    pub(super) const fn rows(&self, sdk: Sdk) -> usize {
        match sdk {
            Sdk::Web => 4,
            Sdk::Mobile => 3,
            Sdk::Server => 2,
        }
    }

    pub(super) const fn row(&self, row: u8) -> &Device {
        &self.0[row as usize]
    }
}

pub(super) static DEVICES: Devices = Devices([
    Device {
        full: r#""user_agent":"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36","device_type":"desktop","browser":"Chrome","browser_version":"131.0.0.0","os":"Windows","os_version":"11","screen_resolution":"1920x1080""#,
        brief: r#""device_type":"desktop","browser":"Chrome""#,
        sdk_version: "web-3.8.0",
    },
    Device {
        full: r#""user_agent":"Mozilla/5.0 (Macintosh; Intel Mac OS X 14.7; rv:132.0) Gecko/20100101 Firefox/132.0","device_type":"desktop","browser":"Firefox","browser_version":"132.0","os":"macOS","os_version":"14.7","screen_resolution":"2560x1440""#,
        brief: r#""device_type":"desktop","os":"macOS""#,
        sdk_version: "web-3.8.0",
    },
    Device {
        full: r#""user_agent":"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15","device_type":"desktop","browser":"Safari","browser_version":"18.1","os":"macOS","screen_resolution":"1728x1117""#,
        brief: r#""device_type":"desktop""#,
        sdk_version: "web-3.7.2",
    },
    Device {
        full: r#""user_agent":"Mozilla/5.0 (iPad; CPU OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Mobile/15E148 Safari/604.1","device_type":"tablet","browser":"Safari","os":"iPadOS","os_version":"17.6","screen_resolution":"1180x820""#,
        brief: r#""device_type":"tablet""#,
        sdk_version: "web-3.8.0",
    },
    Device {
        full: r#""device_type":"mobile","os":"Android","os_version":"15","screen_resolution":"1080x2400","user_agent":"Dalvik\/2.1.0 (Linux; U; Android 15; Pixel 9 Build\/AP4A)""#,
        brief: r#""device_type":"mobile","os":"Android""#,
        sdk_version: "android-2.14.1",
    },
    Device {
        full: r#""device_type":"mobile","os":"iOS","os_version":"18.1","screen_resolution":"1179x2556""#,
        brief: r#""device_type":"mobile","os":"iOS""#,
        sdk_version: "ios-2.9.0",
    },
    Device {
        full: r#""device_type":"tablet","os":"Android","os_version":"14","screen_resolution":"1600x2560","user_agent":"Dalvik\/2.1.0 (Linux; U; Android 14; SM-X710)""#,
        brief: r#""device_type":"tablet","os":"Android""#,
        sdk_version: "android-2.13.0",
    },
    Device { full: r#""user_agent":"python-requests/2.32.3""#, brief: "", sdk_version: "python-1.4.0" },
    Device { full: r#""user_agent":"node-fetch/3.3.2""#, brief: "", sdk_version: "node-4.0.1" },
]);
