//! Bad input: ten thousand lines that are no events among good ones. Nothing panics, every bad line is a dead letter with
//! the right reason, and every good line counts.
//!
//! What a line is worth is known by its construction: each is made from a good one by one fault (or by two, of which the
//! one that is tested first must be named), not by another parser. The oracle, which has one, must then say the same.

mod support;

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use support::{Event, ZERO, compile, event, native, number, reference, run_source};
use whisperer_connectors::{
    EpochSize,
    file::{FileOptions, FileSource},
    format::FormatOptions,
    memory::MemoryPartition,
};
use whisperer_operators::spec::{Aggregate, FeatureSpec, JobSpec, TriggerSpec};
use whisperer_schemas::time::{HOUR, MILLISECOND, SECOND};

/// Longest record of the tests, so that longer ones are cheap.
const EVENT_BYTES_MAX: usize = 4_096;

/// A line, its offset and what becomes of it.
type Placed = (u64, Vec<u8>, Fate);

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Good,
    Blank,
    Dead(&'static str),
}

/// A small generator of numbers: xorshift64*.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % sides
    }

    fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.roll(choices.len())]
    }
}

fn base(id: u32) -> Event {
    event(id, id % 500, ZERO + i64::from(id) * MILLISECOND).with(r#""amount":12.5,"plan":"pro""#)
}

fn text(event: &Event) -> String {
    String::from_utf8(event.line()).expect("lines are text")
}

/// The line with members appended; of repeated ones the last counts.
fn with(event: &Event, members: &str) -> Vec<u8> {
    let text = text(event);
    format!("{},{members}}}", &text[..text.len() - 1]).into()
}

/// The line with a member's value replaced.
fn set(event: &Event, member: &str, value: &str) -> Vec<u8> {
    let text = text(event);
    let from = text.find(&format!("\"{member}\":")).expect("the member is there") + member.len() + 3;
    let end = from + 1 + text[from + 1..].find('"').expect("its value is a text") + 1;
    format!("{}{value}{}", &text[..from], &text[end..]).into()
}

fn nested(depth: usize) -> String {
    format!("{}1{}", "[".repeat(depth), "]".repeat(depth))
}

fn good(event: &Event, dice: &mut Dice) -> Vec<u8> {
    let odd = [
        r#""extra":{"a":[1,2,{"b":null}],"":""}"#,
        r#""properties":{"amount":1e308,"value":123456789012345678901234567890}"#,
        r#""properties":{"amount":"not a number","plan":7,"feature":null}"#,
        r#""properties":null,"context":null,"metadata":null,"session_id":null"#,
        r#""properties":{"label":"\ud83d\ude00 \u0000 \" \\ \/ \b\f\n\r\t é 漢字 😀"}"#,
        r#""metadata":{"received_at":"yesterday"}"#,
        r#""metadata":{"received_at":17,"source":[]}"#,
        r#""context":{"ip":[[]],"locale":{"a":1}}"#,
        r#""a":-0.0,"b":1E-400,"c":0e0,"d":-12.5e+3,"e":true,"f":false"#,
        r#""event_id":null"#,
        r#""user_id":"usr_000000000000000A""#,
        r#""session_id":"ses_aZ09aZ09aZ09aZ09""#,
        "\"x\" : [ ] , \"y\"\t:\t{ }\r",
    ];
    match dice.roll(20) {
        at @ 0..13 => with(event, odd[at]),
        13 => with(event, &format!(r#""deep":{}"#, nested(100))),
        14 => [b" \t", &event.line()[..], b"  \r"].concat(),
        15 => {
            let bytes = event.line().len() + r#","pad":"""#.len();
            with(event, &format!(r#""pad":"{}""#, "x".repeat(EVENT_BYTES_MAX - bytes)))
        }
        16 => text(event).replace("T00:", "t00:").replace("Z\"", "z\"").into(),
        17 => with(event, r#""user_id":null,"user_id":"usr_0000000000000009""#),
        _ => event.line(),
    }
}

fn too_large(event: &Event, dice: &mut Dice) -> Vec<u8> {
    let bytes = event.line().len() + r#","pad":"""#.len();
    let over = [1, 2, 100, 70_000][dice.roll(4)];
    let long = with(event, &format!(r#""pad":"{}""#, "x".repeat(EVENT_BYTES_MAX - bytes + over)));
    match dice.roll(3) {
        // Not looked into: what else is wrong with it does not count.
        0 => long[..long.len() - 1 + usize::from(over == 1)].to_vec(),
        1 => vec![b'x'; EVENT_BYTES_MAX + over],
        _ => long,
    }
}

fn invalid_json(event: &Event, dice: &mut Dice) -> Vec<u8> {
    let line = event.line();
    let without = |byte: u8| {
        let at = line.iter().position(|other| *other == byte).expect("every line has it");
        [&line[..at], &line[at + 1..]].concat()
    };
    match dice.roll(16) {
        0 => line[..1 + dice.roll(line.len() - 1)].to_vec(),
        1 => dice
            .pick(&[
                "[]", "17", "null", "true", "\"text\"", "-", "{", "}", "nul", "'", "{]", "[}", ",", ":", "\"",
                "{\"a\"}", "{\"a\":}", "{1:2}",
            ])
            .into(),
        2 => with(
            event,
            &format!(r#""v":{}"#, dice.pick(&["NaN", "Infinity", "-Infinity", "nan", "undefined", "None", "TRUE"])),
        ),
        3 => with(event, &format!(r#""v":{}"#, dice.pick(&["1e999", "-1e999", "1e309", "123456789e400"]))),
        4 => {
            let bad: &[u8] = dice.pick(&[
                b"\xff",
                b"\xc0\x80",
                b"\xe2\x82",
                b"\xed\xa0\x80",
                b"\xf5\x80\x80\x80",
                b"\x80",
                b"\xfe\xff",
            ]);
            let at = line.iter().rposition(|byte| *byte == b'p').expect("every line has one, in a text");
            [&line[..at], bad, &line[at..]].concat()
        }
        5 => with(
            event,
            &format!(
                r#""v":"{}""#,
                dice.pick(&[r"\ud800", r"\udc00", r"\ud83dx", r"\ud83d\u0041", r"\udfff\ud800", r"a\uDBFF"])
            ),
        ),
        6 => {
            let control = [b'\x00', b'\x01', b'\t', b'\x1f', b'\x0b'][dice.roll(5)];
            let at = line.iter().rposition(|byte| *byte == b'p').expect("every line has one, in a text");
            [&line[..at], &[control], &line[at..]].concat()
        }
        7 => with(
            event,
            &format!(
                r#""v":{}"#,
                dice.pick(&["012", "+1", ".5", "1.", "0x10", "1e", "--1", "1_000", "1,5", "00", "-"])
            ),
        ),
        8 => with(event, &format!(r#""v":"{}""#, dice.pick(&[r"\x41", r"\u12G4", r"\u12", r"\'", r"\"]))),
        9 => [&line[..], dice.pick::<[u8]>(&[b",", b"}", b" x", b"{}", b"]", b"\"", b"//", b"null"])].concat(),
        10 => {
            [dice.pick::<[u8]>(&[b"\xef\xbb\xbf", b"x", b"{", b"[", b",", b"\"", b"/**/", b"\xc2\xa0", b"\x00"]), &line]
                .concat()
        }
        11 => without(*dice.pick(&[&b'"', &b':', &b',', &b'{'])),
        12 => with(event, &format!(r#""deep":{}"#, nested(dice.roll(2) * 1_000 + 400))),
        13 => vec![b"[{"[dice.roll(2)]; 200 + dice.roll(3_000)],
        14 => {
            let mut noise: Vec<u8> = (0..1 + dice.roll(300)).map(|_| dice.roll(256) as u8).collect();
            noise.retain(|byte| !matches!(byte, b'\n' | b'\r'));
            [b"x", &noise[..]].concat()
        }
        _ => text(event).replace('"', dice.pick(&["'", "", "`", "\u{201c}"])).into(),
    }
}

fn missing_field(event: &Event, dice: &mut Dice) -> Vec<u8> {
    let member = dice.pick(&["app_id", "user_id", "event_type", "timestamp"]);
    match dice.roll(6) {
        0 => dice.pick(&["{}", " { } ", r#"{"":{}}"#, r#"{"event":{"user_id":"usr_0000000000000001"}}"#]).into(),
        1 => set(event, member, "null"),
        2 => with(event, &format!(r#""{member}":null"#)),
        3 => text(event).replace(&format!("\"{member}\""), &format!("\"{}\"", member.to_uppercase())).into(),
        // Tested before times and schemas.
        4 if member != "timestamp" => with(event, &format!(r#""{member}":null,"timestamp":"never","properties":[]"#)),
        _ => text(event)
            .replace(&format!("\"{member}\""), "\"properties\"")
            .replacen(r#","properties":{"#, r#","p":{"#, 1)
            .into(),
    }
}

fn bad_time(event: &Event, dice: &mut Dice) -> Vec<u8> {
    let time = dice.pick(&[
        "17",
        "1767225600000",
        "1.5",
        "true",
        "[]",
        "{}",
        r#""""#,
        r#""yesterday""#,
        r#""2026-01-01""#,
        r#""2026-01-01T00:00:00""#,
        r#""2026-02-30T00:00:00Z""#,
        r#""2026-13-01T00:00:00Z""#,
        r#""2026-00-10T00:00:00Z""#,
        r#""2026-01-01T24:00:01Z""#,
        r#""2026-01-01T00:60:00Z""#,
        r#""2026-1-1T0:0:0Z""#,
        r#""2026-01-01T00:00:00+99:00""#,
        r#""2026-01-01T00:00:00 UTC""#,
        r#""2026-01-01T00:00:00.Z""#,
        r#""2026-01-01T00:00Z""#,
        r#""01/02/2026 10:00""#,
        r#""2026-01-01_00:00:00Z""#,
        r#"" 2026-01-01T00:00:00Z""#,
        r#""2026-01-01T00:00:00Z ""#,
        r#""２026-01-01T00:00:00Z""#,
        r#""2026-01-01T00:00:00\u0000Z""#,
    ]);
    match dice.roll(3) {
        0 => set(event, "timestamp", time),
        1 => with(event, &format!(r#""timestamp":{time}"#)),
        // Tested before schemas.
        _ => with(event, &format!(r#""timestamp":{time},"user_id":"","event_type":"?","properties":1"#)),
    }
}

fn schema(event: &Event, dice: &mut Dice) -> Vec<u8> {
    let ids = [
        "\"\"",
        "17",
        "true",
        "[]",
        "{}",
        "\"ada\"",
        "\"PFX_0123456789abcdef\"",
        "\"pfx_0123456789abcde\"",
        "\"pfx_0123456789abcdef0\"",
        "\"pfx_0123456789abcde!\"",
        "\"pfx_0123456789abcd\u{e9}\"",
        "\"pfx_ 123456789abcdef\"",
        "1e3",
        "\"pfx-0123456789abcdef\"",
    ];
    let prefixed = |id: &str, prefix: &str| id.replace("pfx", prefix);
    match dice.roll(8) {
        0 => with(event, &format!(r#""user_id":{}"#, prefixed(dice.pick(&ids), "usr"))),
        1 => with(event, &format!(r#""app_id":{}"#, prefixed(dice.pick(&ids), "app"))),
        2 => with(event, &format!(r#""event_id":{}"#, prefixed(dice.pick(&ids), "evt"))),
        3 => with(event, &format!(r#""session_id":{}"#, prefixed(dice.pick(&ids), "ses"))),
        4 => {
            let kinds = [
                "\"\"",
                "17",
                "[]",
                "\"page_teleported\"",
                "\"USER_LOGIN\"",
                "\" user_login\"",
                "false",
                "\"user_login\\u0000\"",
            ];
            with(event, &format!(r#""event_type":{}"#, dice.pick(&kinds)))
        }
        5 | 6 => {
            let (member, value) =
                (dice.pick(&["properties", "context", "metadata"]), dice.pick(&["[]", "\"\"", "1", "true", "[{}]"]));
            with(event, &format!(r#""{member}":{value}"#))
        }
        // Tested before `future`.
        _ => with(event, r#""user_id":"","metadata":{"received_at":"2001-01-01T00:00:00Z"}"#),
    }
}

fn future(event: &Event, dice: &mut Dice) -> Vec<u8> {
    let ahead = [HOUR + 1, HOUR + SECOND, 24 * HOUR, 9_000 * 24 * HOUR][dice.roll(4)];
    event.clone().received(event.time - ahead).line()
}

/// Lines and what becomes of them: `bad` bad ones, and half as many good ones in between.
fn lines(bad: usize) -> Vec<(Vec<u8>, Fate)> {
    let mut dice = Dice(0x5EED);
    let mut lines = Vec::new();
    let mut left = bad;
    while left > 0 {
        let event = base(lines.len() as u32);
        let (line, fate) = match dice.roll(30) {
            0..10 => (good(&event, &mut dice), Fate::Good),
            10 if dice.roll(3) == 0 => (b" \t \r"[..dice.roll(5)].to_vec(), Fate::Blank),
            10..19 => (invalid_json(&event, &mut dice), Fate::Dead("invalid_json")),
            19..22 => (missing_field(&event, &mut dice), Fate::Dead("missing_field")),
            22..25 => (bad_time(&event, &mut dice), Fate::Dead("bad_time")),
            25..28 => (schema(&event, &mut dice), Fate::Dead("schema")),
            28 => (future(&event, &mut dice), Fate::Dead("future")),
            _ => (too_large(&event, &mut dice), Fate::Dead("too_large")),
        };
        left -= usize::from(matches!(fate, Fate::Dead(_)));
        lines.push((line, fate));
    }
    lines
}

/// The bytes of a file of these lines, and each line with its offset; a carriage return before its end is not part of it.
fn file_of(lines: &[(Vec<u8>, Fate)]) -> (Vec<u8>, Vec<Placed>) {
    let mut bytes = Vec::new();
    let mut placed = Vec::new();
    for (line, fate) in lines {
        let shown = line.strip_suffix(b"\r").unwrap_or(line);
        placed.push((bytes.len() as u64, shown.to_vec(), *fate));
        bytes.extend_from_slice(line);
        bytes.push(b'\n');
    }
    (bytes, placed)
}

fn job() -> JobSpec {
    JobSpec {
        features: vec![FeatureSpec::new("n", Aggregate::Count)],
        triggers: vec![TriggerSpec::new("always", "n % 2 = 1")],
        ..JobSpec::default()
    }
}

#[test]
fn ten_thousand_bad_lines() {
    // Goal: as the head of this file says, from a file, at 1 and 3 workers, in one epoch and in many.
    let (bytes, lines) = file_of(&lines(10_000));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("bad.ndjson");
    fs::write(&path, &bytes).expect("the file is written");
    let expected: BTreeMap<u64, (&[u8], &str)> = lines
        .iter()
        .filter_map(|(offset, line, fate)| match fate {
            Fate::Dead(reason) => Some((*offset, (&line[..], *reason))),
            Fate::Good | Fate::Blank => None,
        })
        .collect();
    let good = lines.iter().filter(|(_, _, fate)| *fate == Fate::Good).count();
    assert!(expected.len() == 10_000 && good > 4_000);
    let format = FormatOptions { event_bytes_max: EVENT_BYTES_MAX as u64, ..native() };
    let job = compile(&job());
    for (workers, epoch_size) in
        [(1, EpochSize::Bytes(1 << 30)), (3, EpochSize::Bytes(10_000)), (2, EpochSize::Records(100))]
    {
        let options = FileOptions {
            path: path.to_str().expect("the path is text").to_owned(),
            root: PathBuf::new(),
            partitioned: false,
            epoch_size,
            event_bytes_max: EVENT_BYTES_MAX as u64,
        };
        let ran = run_source(&job, Arc::new(FileSource::new(options).expect("the file is there")), workers, &format);
        let mut left = expected.clone();
        for row in &ran.dead_letters {
            let offset = row["offset"].as_int().expect("an offset") as u64;
            let reason = support::text(row, "reason");
            let Some((line, expected)) = left.remove(&offset) else {
                let line = &lines.iter().find(|(at, _, _)| *at == offset).expect("a line begins there").1;
                panic!("{reason} at {offset}, but it is good: {row:?} {}", shown(line));
            };
            assert_eq!(reason, expected, "{offset}: {} {:?}", shown(line), row["detail"]);
            let kept = &line[..line.len().min(EVENT_BYTES_MAX)];
            assert_eq!(row["raw"].as_bytes(), Some(kept), "{}", shown(line));
            assert_eq!(row["raw_bytes"].as_int(), Some(line.len() as i64), "{}", shown(line));
            assert_eq!(row["partition"].as_int(), Some(0));
        }
        let left: Vec<_> = left.values().map(|(line, reason)| format!("{reason}: {}", shown(line))).collect();
        assert!(left.is_empty(), "taken for good:\n{}", left.join("\n"));
        let counted: f64 = ran.profiles.iter().filter_map(|row| number(row, "n")).sum();
        assert_eq!(counted, good as f64);
        assert_eq!((ran.report.accepted(), ran.report.read), (good as u64, 10_000 + good as u64));
        assert_eq!(ran.report.counts.late + ran.report.counts.duplicates, 0);
    }
}

fn shown(line: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(line).chars().take(300).collect();
    format!("{text:?}")
}

#[test]
fn the_oracle_says_the_same() {
    // Goal: two parsers and the construction agree about every line.
    let (_, lines) = file_of(&lines(3_000));
    let records = lines.iter().map(|(offset, line, _)| (*offset, line.clone())).collect();
    let format = FormatOptions { event_bytes_max: EVENT_BYTES_MAX as u64, ..native() };
    let outcome = reference(&job(), &[MemoryPartition { records, cuts: vec![] }], &format);
    let mut dead =
        outcome.dead_letters.iter().map(|(_, offset, reason)| (*offset, *reason)).collect::<BTreeMap<_, _>>();
    for (offset, line, fate) in &lines {
        let found = dead.remove(offset).map_or(Fate::Good, Fate::Dead);
        let expected = if *fate == Fate::Blank { Fate::Good } else { *fate };
        assert_eq!(found, expected, "{}", shown(line));
    }
}

#[test]
fn a_file_that_is_nothing_but_garbage() {
    // Goal: no event at all: no rows, no watermark, and the end is reached; so it is with an empty file.
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, bytes, dead) in
        [("empty", &b""[..], 0), ("blank", b"\n \n\r\n\n", 0), ("noise", b"\xff\xfe\x00\n{}\n\x00\nx", 4)]
    {
        let path = folder.path().join(format!("{name}.ndjson"));
        fs::write(&path, bytes).expect("the file is written");
        for workers in [1, 3] {
            let options = FileOptions {
                path: path.to_str().expect("the path is text").to_owned(),
                root: PathBuf::new(),
                partitioned: false,
                epoch_size: EpochSize::Bytes(3),
                event_bytes_max: EVENT_BYTES_MAX as u64,
            };
            let ran = run_source(
                &compile(&job()),
                Arc::new(FileSource::new(options).expect("the file is there")),
                workers,
                &native(),
            );
            assert_eq!((ran.dead_letters.len(), ran.profiles.len(), ran.report.watermark), (dead, 0, None), "{name}");
        }
    }
}
