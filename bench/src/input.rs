//! The input of benchmarks: NDJSON in the native format, written once and the same on every machine.
//!
//! Two weeks of events of users whose activity follows Zipf's law (s = 1), spread evenly over the time. Event times are out of
//! order by less than 29 s, so none is late; a line in a hundred repeats one of the last twenty minutes. Three kinds of clients
//! differ in the order of members, in white space, in the form of times and in what they leave out; texts carry escapes. So a
//! parser that learns one layout by heart gains little.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use whisperer_schemas::{
    Micros,
    time::{DAY, HOUR, MILLISECOND, MINUTE, SECOND, format_micros},
};

/// Counted up when the same options begin to give other bytes, so that no old file is taken for a new one.
const INPUT_VERSION: u32 = 1;
/// 2024-12-01T00:00:00Z
const START: Micros = 1_733_011_200 * SECOND;
/// Event time from the first event to the last.
const SPAN: Micros = 14 * DAY;
/// How far an event may stand behind its place: below the jobs' `out_of_orderness` of 30 s, with room for clients that cut times.
const DISORDER: Micros = 29 * SECOND;
/// Share of the lines that repeat an earlier one.
const DUPLICATES: f64 = 0.01;
/// How far back a duplicate reaches: well within the jobs' horizon of an hour.
const DUPLICATE_AGE_MAX: Micros = 20 * MINUTE;
/// Lines that are kept to be repeated.
const KEPT_MAX: usize = 8_000;

/// Event types and their shares.
const TYPES: [(&str, f64); 13] = [
    ("feature_used", 0.30),
    ("page_viewed", 0.28),
    ("button_clicked", 0.19),
    ("user_login", 0.08),
    ("email_opened", 0.06),
    ("error_encountered", 0.04),
    ("form_submitted", 0.012),
    ("support_ticket_created", 0.012),
    ("payment_failed", 0.01),
    ("onboarding_step_completed", 0.007),
    ("user_signup", 0.003),
    ("subscription_cancelled", 0.003),
    ("settings_changed", 0.003),
];
const FEATURES: [&str; 8] =
    ["export", "dashboard", "report_builder", "search", "billing", "api_console", "team_invite", "notifications"];
const DEVICES: [&str; 3] = ["desktop", "mobile", "tablet"];
const SYSTEMS: [&str; 5] = ["linux", "macos", "windows", "ios", "android"];
const LOCALES: [&str; 5] = ["en-US", "de-DE", "fr-FR", "pt-BR", "ja-JP"];
const VERSIONS: [&str; 4] = ["1.2.3", "1.2.4", "1.3.0", "2.0.1"];
const PLANS: [&str; 4] = ["free", "basic", "pro", "enterprise"];
/// Texts as JSON writes them, escapes included.
const LABELS: [&str; 4] =
    [r#"Q3 \"draft\""#, r"caf\u00e9 \/ r\u00e9sum\u00e9", r"C:\\reports\\2024", r"line one\nline two\t\ud83d\ude00"];

/// Which events.
#[derive(Clone, Copy, Debug)]
pub struct InputOptions {
    /// Lines, duplicates included.
    pub events: u64,
    /// Users; those at the tail may not come up.
    pub users: u32,
    /// Everything follows from it.
    pub seed: u64,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes in all.
    pub bytes: u64,
    /// Lines that repeat an earlier one.
    pub duplicates: u64,
}

/// The file with these events in `folder`, written if it is not there yet.
///
/// # Errors
/// What the file system answers.
pub fn cached(folder: &Path, options: InputOptions) -> io::Result<PathBuf> {
    let InputOptions { events, users, seed } = options;
    let path = folder.join(format!("events-{events}-users-{users}-seed-{seed}-v{INPUT_VERSION}.ndjson"));
    if !path.exists() {
        fs::create_dir_all(folder)?;
        // Under another name until it is whole: what is cut off must not be found the next time.
        let partial = path.with_extension("partial");
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&partial)?);
        write(&mut out, options)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&partial, &path)?;
    }
    Ok(path)
}

/// Writes the events.
///
/// # Errors
/// What `out` answers.
pub fn write(out: &mut impl Write, options: InputOptions) -> io::Result<Written> {
    let mut random = Random(options.seed);
    let population = Population::new(options.users);
    let mut kept: VecDeque<(Micros, Vec<u8>)> = VecDeque::with_capacity(KEPT_MAX);
    let mut written = Written::default();
    for index in 0..options.events {
        let place = START + (i128::from(index) * i128::from(SPAN) / i128::from(options.events)) as Micros;
        while kept.front().is_some_and(|(at, _)| kept.len() >= KEPT_MAX || place - at > DUPLICATE_AGE_MAX) {
            kept.pop_front();
        }
        if !kept.is_empty() && random.chance(DUPLICATES) {
            let (_, line) = &kept[random.below(kept.len() as u64) as usize];
            out.write_all(line)?;
            written.bytes += line.len() as u64;
            written.duplicates += 1;
            continue;
        }
        let event = Event {
            id: mixed(options.seed ^ index.wrapping_mul(0xD1B5_4A32_D192_ED03)),
            user: population.draw(&mut random),
            time: place + DISORDER - random.below(DISORDER as u64) as Micros,
        };
        let mut line = Vec::with_capacity(512);
        event.write(&mut line, &mut random);
        out.write_all(&line)?;
        written.bytes += line.len() as u64;
        kept.push_back((place, line));
    }
    Ok(written)
}

/// Users by Zipf's law: the n-th is drawn with a weight of 1/n.
struct Population {
    /// Sums of weights up to each user.
    sums: Vec<f64>,
}

impl Population {
    fn new(users: u32) -> Population {
        let mut sum = 0.0;
        let weight = |rank: u32| {
            sum += 1.0 / f64::from(rank);
            sum
        };
        Population { sums: (1..=users.max(1)).map(weight).collect() }
    }

    fn draw(&self, random: &mut Random) -> u64 {
        let all = self.sums.last().copied().unwrap_or_default();
        let drawn = random.unit() * all;
        self.sums.partition_point(|sum| *sum < drawn).min(self.sums.len() - 1) as u64
    }
}

/// A kind of client, with the order in which it writes members.
#[derive(Clone, Copy)]
enum Client {
    /// Half of the users: as the contract lists them.
    Web,
    /// Three in ten: the time first, ids last, blanks after colons and commas.
    Mobile,
    /// Two in ten: by the alphabet, times with an offset.
    Server,
}

/// Members of an event, as the contract lists them.
const MEMBERS: [&str; 9] =
    ["event_id", "app_id", "user_id", "session_id", "event_type", "timestamp", "properties", "context", "metadata"];

impl Client {
    fn of(user_hash: u64) -> Client {
        match user_hash >> 40 & 0xff {
            0..128 => Client::Web,
            128..205 => Client::Mobile,
            _ => Client::Server,
        }
    }

    /// Places in [`MEMBERS`].
    fn order(self) -> [usize; 9] {
        match self {
            Client::Web => [0, 1, 2, 3, 4, 5, 6, 7, 8],
            Client::Mobile => [5, 4, 6, 7, 2, 3, 1, 8, 0],
            Client::Server => [1, 7, 0, 4, 8, 6, 3, 5, 2],
        }
    }

    fn time(self, time: Micros) -> String {
        let milliseconds = time - time % MILLISECOND;
        match self {
            // Cut to milliseconds, as clocks of browsers are.
            Client::Web => format_micros(milliseconds).to_string().replace("000Z", "Z"),
            Client::Mobile => format_micros(time).to_string().replace('Z', "+00:00"),
            Client::Server => format_micros(milliseconds + HOUR).to_string().replace('Z', "+01:00"),
        }
    }

    /// The separators of members and of names.
    fn separators(self) -> (&'static str, &'static str) {
        match self {
            Client::Web | Client::Server => (",", ":"),
            Client::Mobile => (", ", ": "),
        }
    }

    fn object(self, members: &[(&str, String)]) -> String {
        let (comma, colon) = self.separators();
        let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\"{colon}{value}")).collect();
        format!("{{{}}}", members.join(comma))
    }
}

/// What is drawn of an event before it is written.
struct Event {
    id: u64,
    user: u64,
    time: Micros,
}

impl Event {
    fn write(&self, line: &mut Vec<u8>, random: &mut Random) {
        let user_hash = mixed(self.user ^ 0x5555_0000_0000);
        let client = Client::of(user_hash);
        let (comma, colon) = client.separators();
        let values = self.values(client, user_hash, random);
        let present = client.order().into_iter().filter_map(|at| Some((MEMBERS[at], values[at].as_ref()?)));
        let mut separator = "{";
        for (name, value) in present {
            for part in [separator, "\"", name, "\"", colon, value] {
                line.extend_from_slice(part.as_bytes());
            }
            separator = comma;
        }
        line.extend_from_slice(b"}\n");
    }

    /// The members' values in the order of [`MEMBERS`]; optional ones are missing now and then.
    fn values(&self, client: Client, user_hash: u64, random: &mut Random) -> [Option<String>; 9] {
        let kind = random.weighted(&TYPES);
        let half_hour = (self.time / (30 * MINUTE)) as u64;
        [
            Some(id("evt", self.id)),
            Some(id("app", 0xA990 + user_hash % 10)),
            Some(id("usr", 0x05E5_0000_0000 + self.user)),
            (!random.chance(0.08)).then(|| id("ses", 0x5E55_0000_0000_0000 ^ self.user << 20 ^ half_hour)),
            Some(quoted(kind)),
            Some(quoted(&client.time(self.time))),
            (!random.chance(0.02)).then(|| properties(client, kind, user_hash, random)),
            (!random.chance(0.04)).then(|| context(client, user_hash, random)),
            (!random.chance(0.20)).then(|| metadata(client)),
        ]
    }
}

fn properties(client: Client, kind: &str, user_hash: u64, random: &mut Random) -> String {
    let mut members = vec![("feature", quoted(random.one_of(&FEATURES)))];
    if !random.chance(0.10) {
        members.push(("duration", random.below(20_000).to_string()));
    }
    members.push(("value", (random.below(10_000) as f64 / 100.0).to_string()));
    match kind {
        "page_viewed" => members.push(("page", quoted(r"\/pricing"))),
        "error_encountered" => members.push(("error_message", quoted(r#"cannot read \"id\" of null\n  at load"#))),
        "user_login" => members.push(("plan", quoted(PLANS[(user_hash >> 48) as usize % PLANS.len()]))),
        "payment_failed" => {
            members.push(("amount", (100 * random.below(300)).to_string()));
            members.push(("currency", quoted("EUR")));
        }
        _ if random.chance(0.20) => members.push(("label", quoted(random.one_of(&LABELS)))),
        _ => {}
    }
    client.object(&members)
}

fn context(client: Client, user_hash: u64, random: &mut Random) -> String {
    let pick = |values: &[&str], shift: u32| quoted(values[(user_hash >> shift) as usize % values.len()]);
    let mut members = vec![("device_type", pick(&DEVICES, 8)), ("os", pick(&SYSTEMS, 16))];
    members.push(("app_version", pick(&VERSIONS, 24)));
    if !random.chance(0.20) {
        members.push(("locale", pick(&LOCALES, 32)));
    }
    client.object(&members)
}

fn metadata(client: Client) -> String {
    let source = if matches!(client, Client::Server) { "api" } else { "sdk" };
    client.object(&[("source", quoted(source)), ("sdk_version", quoted("4.12.0"))])
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// An id of the contract: a prefix and 16 letters and digits.
fn id(prefix: &str, seed: u64) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut random = Random(seed);
    let mut text = format!("\"{prefix}_");
    for _ in 0..2 {
        let mut bits = random.bits();
        for _ in 0..8 {
            text.push(char::from(ALPHABET[(bits % 62) as usize]));
            bits /= 62;
        }
    }
    text.push('"');
    text
}

fn mixed(word: u64) -> u64 {
    Random(word).bits()
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ word >> 31
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    fn one_of(&mut self, values: &[&'static str]) -> &'static str {
        values[self.below(values.len() as u64) as usize]
    }

    fn weighted(&mut self, values: &[(&'static str, f64)]) -> &'static str {
        let mut drawn = self.unit() * values.iter().map(|(_, share)| share).sum::<f64>();
        for (value, share) in values {
            drawn -= share;
            if drawn < 0.0 {
                return value;
            }
        }
        values[0].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: InputOptions = InputOptions { events: 20_000, users: 2_000, seed: 1 };

    fn lines(options: InputOptions) -> (Vec<u8>, Written) {
        let mut text = Vec::new();
        let written = write(&mut text, options).expect("memory takes everything");
        (text, written)
    }

    #[test]
    fn the_input_is_what_it_is_said_to_be() {
        // Goal: length, duplicates, layouts, escapes and gaps of the benchmark's lines are those that its results speak of.
        let (text, written) = lines(SMALL);
        assert_eq!(text.len() as u64, written.bytes);
        let text = String::from_utf8(text).expect("UTF-8");
        assert_eq!(text.lines().count() as u64, SMALL.events);
        let length = written.bytes as f64 / SMALL.events as f64;
        assert!((400.0..420.0).contains(&length), "{length} bytes per event");
        let duplicates = written.duplicates as f64 / SMALL.events as f64;
        assert!((0.007..0.013).contains(&duplicates), "{duplicates} of the lines are duplicates");
        let share =
            |of: &dyn Fn(&str) -> bool| text.lines().filter(|line| of(line)).count() as f64 / SMALL.events as f64;
        for first in ["{\"event_id\":", "{\"timestamp\": ", "{\"app_id\":"] {
            assert!(share(&|line| line.starts_with(first)) > 0.1, "lines that begin with {first}");
        }
        assert!(share(&|line| line.contains('\\')) > 0.2, "lines with escapes");
        for name in ["session_id", "duration", "context", "locale", "metadata", "properties"] {
            let missing = share(&|line| !line.contains(&format!("\"{name}\"")));
            assert!((0.01..0.5).contains(&missing), "{missing} of the lines lack {name}");
        }
    }

    #[test]
    fn the_same_options_give_the_same_bytes() {
        // Goal: results of two machines are about the same input. The hash is a test vector: who changes it counts INPUT_VERSION up.
        let (text, _) = lines(InputOptions { events: 1_000, ..SMALL });
        assert_eq!(text, lines(InputOptions { events: 1_000, ..SMALL }).0);
        assert_ne!(text, lines(InputOptions { events: 1_000, seed: 2, ..SMALL }).0);
        let text = String::from_utf8(text).expect("UTF-8");
        assert_eq!(format!("{:016x}", whisperer_schemas::ids::text_hash(&text)), "3400e9906f7e5733");
    }

    #[test]
    fn times_are_read_back() {
        // Goal: whatever form a client writes a time in, it is the time that was drawn, to the precision of that client.
        let time = START + 3 * HOUR + 123_456;
        for (client, wanted) in [(Client::Web, 123_000), (Client::Mobile, 123_456), (Client::Server, 123_000)] {
            let read = whisperer_schemas::time::parse_rfc3339(client.time(time).as_bytes());
            assert_eq!(read, Some(START + 3 * HOUR + wanted), "{}", client.time(time));
        }
    }
}
