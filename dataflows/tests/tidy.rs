//! Tidy: the rules of the house that no compiler checks, as tests over the repository's own files.
//!
//! Every test gathers all violations and shows them together, each as `file:line: what is wrong`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use whisperer_dataflows::job_file::{self, Overrides};
use whisperer_operators::job::CompiledJob;

/// Most lines of a file, its tests left out.
const FILE_LINES_MAX: usize = 600;
/// Most lines of a function, signature and braces included.
const FUNCTION_LINES_MAX: usize = 70;

/// The tower: each crate's folder, and those it may depend on. Arrows point down, never sideways.
const TOWER: [(&str, &[&str]); 6] = [
    ("schemas", &[]),
    ("operators", &["schemas"]),
    ("connectors", &["operators", "schemas"]),
    ("sinks", &["operators", "schemas"]),
    ("dataflows", &["connectors", "operators", "schemas", "sinks"]),
    ("bench", &["connectors", "dataflows", "operators", "schemas", "sinks"]),
];

/// A file of the repository.
struct Document {
    /// Relative to the root, with `/`.
    path: String,
    text: String,
}

impl Document {
    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    fn is_test(&self) -> bool {
        let name = self.name();
        self.path.contains("/tests/") || name == "tests.rs" || name.ends_with("_tests.rs")
    }

    /// Lines with their numbers, those of a test module at the end left out.
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.text.find("\n#[cfg(test)]\nmod tests {").map_or(self.text.len(), |at| at + 1);
        numbered(&self.text[..tests])
    }

    fn violation(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_owned()
}

/// All files whose name has one of these endings, but what is built, run or kept by tools.
fn documents(endings: &[&str]) -> Vec<Document> {
    let root = root();
    let mut folders = vec![root.clone()];
    let mut documents = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the repository can be listed") {
            let path = entry.expect("the repository can be listed").path();
            let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
            if path.is_dir() && (name == ".ci" || !(name.starts_with('.') || name == "target" || name == "data")) {
                folders.push(path);
            } else if path.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
                let relative = path.strip_prefix(&root).expect("below the root").to_string_lossy().replace('\\', "/");
                let text = fs::read(&path).expect("a file of the repository can be read");
                documents.push(Document { path: relative, text: String::from_utf8_lossy(&text).into_owned() });
            }
        }
    }
    documents.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(!documents.is_empty(), "no file ends in any of {endings:?}");
    documents
}

fn rust() -> Vec<Document> {
    documents(&[".rs"])
}

fn toml(path: &str) -> toml::Table {
    let text = fs::read_to_string(root().join(path)).expect(path);
    text.parse().expect(path)
}

fn show(violations: Vec<String>) {
    assert!(violations.is_empty(), "{} found:\n{}", violations.len(), violations.join("\n"));
}

#[test]
fn every_file_introduces_itself() {
    // Goal: the first line of every .rs says what the file is, and every crate states its invariant.
    let mut violations = Vec::new();
    for document in rust() {
        if !document.text.starts_with("//! ") {
            violations.push(document.violation(1, "does not begin with //!"));
        }
        let floor = TOWER.iter().any(|(folder, _)| document.path == format!("{folder}/src/lib.rs"));
        if floor && !document.text.contains("//! Invariant: ") {
            violations.push(document.violation(1, "a crate states its invariant: \"//! Invariant: …\""));
        }
    }
    show(violations);
}

#[test]
fn files_and_functions_are_short() {
    // Goal: nothing outgrows a screen or a sitting; tests may have long files, but not long functions.
    let mut violations = Vec::new();
    for document in rust() {
        let lines = document.code_lines().count();
        if lines > FILE_LINES_MAX && !document.is_test() {
            violations.push(document.violation(1, format!("{lines} lines")));
        }
        for (line, name, lines) in functions(&document.text) {
            if lines > FUNCTION_LINES_MAX {
                violations.push(document.violation(line, format!("`{name}` has {lines} lines")));
            }
        }
    }
    show(violations);
}

/// Every function: its line, its name and its length. It ends, as rustfmt has it, at the brace in its own column.
fn functions(text: &str) -> Vec<(usize, String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut functions = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let ends = |line: &&str| line.strip_prefix(indent).is_some_and(|rest| rest.starts_with('}'));
        // A declaration without a body, or one with its body on the same line.
        let length = if line.ends_with(['}', ';']) { Some(0) } else { lines[at..].iter().position(ends) };
        functions.push((at + 1, name, length.map_or(1, |length| length + 1)));
    }
    functions
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.trim_start().split(' ');
    let modifier = |word: &&str| word.starts_with("pub") || ["const", "async", "unsafe", "extern"].contains(word);
    let first = words.find(|word| !modifier(word))?;
    (first == "fn").then(|| words.next()?.split(['(', '<']).next().map(str::to_owned)).flatten()
}

#[test]
fn every_test_says_its_goal() {
    // Goal: the first line of a test's body is a comment, or a comment stands above it, so that a failing test explains itself.
    let mut violations = Vec::new();
    for document in rust() {
        let lines: Vec<&str> = document.text.lines().collect();
        for (at, _) in lines.iter().enumerate().filter(|(_, line)| line.trim() == "#[test]") {
            let above = at > 0 && lines[at - 1].trim_start().starts_with("//");
            let body = lines[at..].iter().position(|line| line.ends_with('{')).map_or(at, |found| at + found + 1);
            let inside = lines.get(body).is_some_and(|line| line.trim_start().starts_with("//"));
            if !above && !inside {
                violations.push(document.violation(at + 1, "a test whose first line does not say its goal"));
            }
        }
    }
    show(violations);
}

#[test]
fn names_that_say_nothing_do_not_appear() {
    // Goal: no module is a drawer for leftovers, and nothing unfinished is left behind a macro or an attribute.
    let drawers = ["utils", "util", "common", "types", "core", "helpers", "helper", "misc"];
    let unfinished = [
        concat!("to", "do!("),
        concat!("unimplem", "ented!("),
        concat!("#[ign", "ore"),
        concat!("FIX", "ME"),
        concat!("db", "g!("),
    ];
    let mut violations = Vec::new();
    for document in rust() {
        let modules = document.path.trim_end_matches(".rs").split('/');
        for module in modules.filter(|module| drawers.contains(module)) {
            violations.push(document.violation(1, format!("nothing is called \"{module}\"")));
        }
        for (line, text) in numbered(&document.text) {
            for word in unfinished.iter().filter(|word| text.contains(**word)) {
                violations.push(document.violation(line, format!("`{word}`")));
            }
        }
    }
    show(violations);
}

#[test]
fn no_file_knows_a_machine() {
    // Goal: nothing that is committed holds a path of the machine on which it was written.
    let homes = [
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/Us", "ers/"),
        concat!("/wo", "rk/"),
        concat!("/tm", "p/"),
    ];
    let mut violations = Vec::new();
    for document in
        documents(&[".rs", ".md", ".toml", ".json", ".sql", ".py", ".txt", "run", "broker", "demo", "setup", "test"])
    {
        for (line, text) in numbered(&document.text) {
            for home in homes.iter().filter(|home| text.contains(**home)) {
                violations.push(document.violation(line, format!("a path of one machine: {home}")));
            }
        }
    }
    show(violations);
}

#[test]
fn arrows_point_down() {
    // Goal: each crate names only crates below it, connectors and sinks not one another, and takes every version from the root.
    let mut violations = Vec::new();
    for (folder, below) in TOWER {
        let path = format!("{folder}/Cargo.toml");
        let manifest = toml(&path);
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(section).and_then(|section| section.as_table()) else { continue };
            for (name, dependency) in dependencies {
                let floor = name.strip_prefix("whisperer-");
                if floor.is_some_and(|floor| floor != folder && !below.contains(&floor)) {
                    violations.push(format!("{path}: {section}: {folder} does not stand on {name}"));
                }
                if dependency.get("workspace").and_then(|flag| flag.as_bool()) != Some(true) {
                    violations
                        .push(format!("{path}: {section}: the version of {name} belongs into the root's Cargo.toml"));
                }
            }
        }
    }
    let members = &toml("Cargo.toml")["workspace"]["members"];
    let members: BTreeSet<&str> = members.as_array().expect("a list").iter().filter_map(|name| name.as_str()).collect();
    assert_eq!(
        members,
        TOWER.iter().map(|(folder, _)| *folder).collect(),
        "a crate of the workspace has no place here"
    );
    show(violations);
}

#[test]
fn operators_touch_neither_the_outside_nor_a_clock() {
    // Goal: the two lower floors are pure: what they compute depends on their arguments alone.
    let outside = ["std::fs", "std::net", "std::env", "std::process", "SystemTime", "Instant::now", "Timestamp::now"];
    let mut violations = Vec::new();
    for document in rust() {
        let pure = document.path.starts_with("operators/src/") || document.path.starts_with("schemas/src/");
        for (line, text) in document.code_lines().filter(|_| pure && !document.is_test()) {
            for word in outside.iter().filter(|word| text.contains(**word)) {
                violations.push(document.violation(line, format!("`{word}` below the edge")));
            }
        }
    }
    show(violations);
}

#[test]
fn dependencies_are_pinned_and_of_one_kind() {
    // Goal: the engine's versions are exact, Arrow and Parquet of one release, the lock file is there, and no second crate does
    // what one does already.
    let manifest = toml("Cargo.toml");
    let wanted = manifest["workspace"]["dependencies"].as_table().expect("a table");
    let version = |name: &str| {
        let dependency = &wanted[name];
        dependency.as_str().or_else(|| dependency.get("version")?.as_str()).expect("a version").to_owned()
    };
    assert_eq!(version("timely"), "=0.31.0");
    assert_eq!(version("differential-dataflow"), "=0.25.1");
    for name in ["arrow", "parquet"] {
        assert_eq!(version(name).split('.').next(), Some("59"), "{name}");
    }
    let lock = toml("Cargo.lock");
    let locked = |name: &str, wanted: &str| {
        let packages = lock["package"].as_array().expect("a list of packages").iter();
        let versions: Vec<_> =
            packages.filter(|p| p["name"].as_str() == Some(name)).map(|p| p["version"].as_str()).collect();
        assert!(versions.len() == 1 && versions[0].is_some_and(|v| v.starts_with(wanted)), "{name}: {versions:?}");
    };
    locked("timely", "0.31.0");
    locked("differential-dataflow", "0.25.1");
    locked("arrow", "59.");
    locked("parquet", "59.");
    let ignored = fs::read_to_string(root().join(".gitignore")).expect(".gitignore");
    assert!(!ignored.contains("Cargo.lock"), "the lock file is committed");
    let instead = [
        ("figment", "job_file reads TOML with the place of every value"),
        ("config", "job_file reads TOML with the place of every value"),
        ("chrono", "jiff"),
        ("time", "jiff"),
        ("rand", "the generator's seeded numbers, the same in every release"),
        ("lazy_static", "std::sync::LazyLock"),
        ("once_cell", "std::sync::LazyLock"),
    ];
    show(
        instead
            .iter()
            .filter(|(name, _)| wanted.contains_key(*name))
            .map(|(name, instead)| format!("Cargo.toml: {name}: use {instead}"))
            .collect(),
    );
}

#[test]
fn every_config_loads() {
    // Goal: whatever lies in config/ is a job that compiles, or a model that such a job names.
    let mut seen = BTreeSet::new();
    let mut violations = Vec::new();
    let config = documents(&[".toml"]).into_iter().filter(|document| document.path.starts_with("config/"));
    let config = config.filter(|document| cfg!(feature = "kafka") || document.name() != "live.toml");
    let (models, jobs): (Vec<_>, Vec<_>) = config.partition(|document| document.path.contains("/models/"));
    for document in &jobs {
        let path = root().join(&document.path);
        match job_file::load_with(&path, &Overrides::default(), CompiledJob::new) {
            Ok((job, _)) => seen.extend(job.files.into_iter().map(|(path, _)| path)),
            Err(errors) => violations.push(format!("{}:\n{}", document.path, errors.render())),
        }
    }
    for document in models.iter().filter(|document| !seen.contains(&root().join(&document.path))) {
        violations.push(document.violation(1, "no job names this model"));
    }
    show(violations);
}

#[test]
fn every_operator_shows_an_example() {
    // Goal: each extension trait on streams has a doc-test on every one of its methods.
    let mut violations = Vec::new();
    for document in rust().into_iter().filter(|document| document.path.starts_with("operators/src/")) {
        let lines: Vec<&str> = document.text.lines().collect();
        let on_streams = lines.iter().any(|line| line.starts_with("impl") && line.contains(" for Stream"));
        for (at, _) in lines.iter().enumerate().filter(|(_, line)| on_streams && line.starts_with("pub trait ")) {
            let body = lines[at..].iter().take_while(|line| **line != "}");
            let mut example = false;
            for (line, text) in body.enumerate() {
                example |= text.trim() == "/// ```";
                if function_name(text).is_some() && !std::mem::take(&mut example) {
                    violations.push(document.violation(at + line + 1, "an operator without a doc-test"));
                }
            }
        }
    }
    show(violations);
}

#[test]
fn paths_named_in_prose_exist() {
    // Goal: README, docs and module docs send nobody to a file that is not there.
    let root = root();
    let mut violations = Vec::new();
    for document in documents(&[".md", ".rs", "run", "broker", "demo", "setup", "test"]) {
        let folder = root.join(&document.path);
        let folder = folder.parent().expect("a file lies in a folder");
        for (line, text) in numbered(&document.text) {
            let Some(prose) = prose(&document, text) else { continue };
            for link in links(prose).filter(|link| !folder.join(link).exists()) {
                violations.push(document.violation(line, format!("no such file: {link}")));
            }
            for path in paths(prose).filter(|path| !root.join(path).exists() && !folder.join(path).exists()) {
                violations.push(document.violation(line, format!("no such file: {path}")));
            }
        }
    }
    show(violations);
}

/// The words of a line: of Markdown and scripts the whole line, of Rust its comment.
fn prose<'a>(document: &Document, line: &'a str) -> Option<&'a str> {
    if document.name().ends_with(".rs") { line.trim_start().strip_prefix("//") } else { Some(line) }
}

/// The targets of Markdown links into the repository.
fn links(prose: &str) -> impl Iterator<Item = &str> {
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://") && target.contains(['/', '.']))
}

/// Words that begin with a folder of the repository, and file names in backticks that end as its prose and data do.
fn paths(prose: &str) -> impl Iterator<Item = &str> {
    let folders = TOWER.iter().map(|(folder, _)| *folder).chain(["config", "docs", "bin", ".ci"]);
    let folders: Vec<String> = folders.map(|folder| format!("{folder}/")).collect();
    let words = prose.split([' ', '`', '(', ')', '[', ']', ',', ';', '"', '\'', '|', '=']);
    let words = words.map(|word| word.trim_end_matches(['.', ':', '…']));
    let plain = |word: &&str| !word.contains(['*', '<', '{', '$', '\\']) && !word.contains("..");
    words.filter(plain).filter(move |word| {
        let below = folders.iter().any(|folder| word.len() > folder.len() && word.starts_with(folder.as_str()));
        below || (word.ends_with(".md") && !word.starts_with('.'))
    })
}

#[test]
fn the_reference_names_every_key() {
    // Goal: docs/jobs.md, the reference, has every key that config/default.toml lists.
    let default = fs::read_to_string(root().join("config/default.toml")).expect("config/default.toml");
    let reference = fs::read_to_string(root().join("docs/jobs.md")).expect("docs/jobs.md");
    let mut keys = BTreeSet::new();
    for line in default.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        let key = line.split_once('=').map_or("", |(key, _)| key.trim_end());
        let plain = !key.is_empty() && key.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_');
        keys.extend(plain.then_some(key));
    }
    assert!(keys.len() > 50, "config/default.toml lists more than {} keys", keys.len());
    show(keys.into_iter().filter(|key| !reference.contains(&format!("`{key}`"))).map(str::to_owned).collect());
}

#[test]
fn functions_are_measured_as_rustfmt_writes_them() {
    // Goal: the measure itself is right, for one-liners, long signatures and nested functions.
    let text = "fn a() {}\npub(super) fn b(\n    x: u8,\n) -> u8 {\n    fn c() {\n    }\n    x\n}\ntrait T {\n    fn d(&self);\n}\n";
    let expected = [(1, "a", 1), (2, "b", 7), (5, "c", 2), (10, "d", 1)];
    assert_eq!(functions(text), expected.map(|(line, name, lines)| (line, name.to_owned(), lines)));
}
