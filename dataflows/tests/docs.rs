//! README and docs tell the truth: what they show as output is what the program prints, and every job and query in them works.
//!
//! `UPDATE_GOLDEN=1 cargo test --release --workspace --test docs` writes README's outputs anew; read the difference.

mod outside;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

const DOCUMENTS: [&str; 6] =
    ["README.md", "docs/jobs.md", "docs/kafka.md", "docs/semantics.md", "docs/tables.md", "docs/views.md"];

/// Width of README's blocks.
const COLUMNS: usize = 120;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect(path)
}

/// Calls the binary in `folder`; gives what it prints on stdout and stderr. It must succeed.
fn whisperer(folder: &Path, arguments: &[&str]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whisperer"));
    let output = command.current_dir(folder).args(arguments).env("WHISPERER_LOG", "error").output();
    let output = output.expect("the binary runs");
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
    assert!(output.status.success(), "{arguments:?}\n{stderr}");
    (stdout, stderr)
}

/// A fenced block of a document.
#[derive(Clone, Debug)]
struct Block {
    language: String,
    text: String,
}

fn blocks(document: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for line in document.lines() {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(language) => {
                open = true;
                blocks.push(Block { language: language.to_owned(), text: String::new() });
            }
            None if open => blocks.last_mut().expect("a block is open").text.extend([line, "\n"]),
            None => {}
        }
    }
    blocks
}

/// Holds the `at`-th block of README against what was printed, as `same` compares; writes it anew if asked to.
fn check_readme(at: usize, printed: &str, same: impl Fn(&str, &str) -> bool) {
    let readme = read("README.md");
    let shown = &blocks(&readme)[at];
    if same(&shown.text, printed) {
        return;
    }
    assert!(std::env::var_os("UPDATE_GOLDEN").is_some(), "README shows:\n{}\nprinted was:\n{printed}", shown.text);
    // The fences of the block are the (2 at)-th and the one after it.
    let mut fences = 0;
    let mut updated = String::new();
    for line in readme.lines() {
        fences += usize::from(line.starts_with("```"));
        let inside = fences == 2 * at + 1;
        match inside {
            false => updated.extend([line, "\n"]),
            true if line.starts_with("```") => updated.extend([line, "\n", printed.trim_end(), "\n"]),
            true => {}
        }
    }
    fs::write(root().join("README.md"), updated).expect("README can be written");
}

/// The words of a printed table, without its rules, borders and spaces.
fn words(table: &str) -> Vec<&str> {
    let border = |letter: char| letter.is_whitespace() || ('\u{2500}'..='\u{257f}').contains(&letter);
    table.split(border).filter(|word| !word.is_empty()).collect()
}

/// JSON rows with line breaks between members, so that they can be read without scrolling.
fn broken(rows: &str) -> String {
    let mut text = String::new();
    let mut column = 0;
    for row in rows.lines() {
        for (at, member) in row.split(",\"").enumerate() {
            let wide = column + member.len() + 3 > COLUMNS;
            let (gap, start) = if at == 0 {
                ("", 0)
            } else if wide {
                (",\n \"", 2)
            } else {
                (",\"", column + 2)
            };
            text.extend([gap, member]);
            column = start + member.len();
        }
        text.push('\n');
        column = 0;
    }
    text
}

fn rows(text: &str) -> Vec<Value> {
    serde_json::Deserializer::from_str(text).into_iter().map(|row| row.expect("JSON")).collect()
}

#[test]
fn the_first_example_of_the_readme_is_true() {
    // Goal: the job, the events and the decisions that README shows are those of docs/first and of the program.
    let shown = blocks(&read("README.md"));
    let (job, events) = (read("docs/first/job.toml"), read("docs/first/events.ndjson"));
    assert!(job.contains(&shown[0].text), "README's job is not that of docs/first/job.toml");
    assert_eq!(events, shown[1].text);
    let (decisions, _) = whisperer(&root(), &["run", "docs/first/job.toml"]);
    check_readme(2, &broken(&decisions), |shown, printed| rows(shown) == rows(printed));
}

#[test]
fn jobs_in_the_docs_compile() {
    // Goal: every whole job that README and docs show is valid; parts of jobs are not tried.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut tried = 0;
    for document in DOCUMENTS {
        let whole = |block: &Block| block.language == "toml" && block.text.contains("[job]");
        for block in blocks(&read(document)).into_iter().filter(whole) {
            fs::write(folder.path().join("job.toml"), &block.text).expect("written");
            whisperer(folder.path(), &["check", "job.toml"]);
            tried += 1;
        }
    }
    assert!(tried > 0, "no job is shown");
}

#[test]
fn the_demo_of_the_readme_is_true() {
    // Goal: the main job over its million events gives the counts and digests that README shows, and every query of README and
    // docs runs on its tables as it is written, with the results that README shows.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let job = root().join("config/jobs/engagement.toml");
    let (_, summary) = whisperer(folder.path(), &["run", job.to_str().expect("UTF-8")]);
    let readme = blocks(&read("README.md"));
    let at = readme.iter().position(|block| block.text.starts_with("events of job")).expect("README shows the summary");
    check_readme(at, &without_cost(&summary), |shown, printed| shown.trim_end() == printed.trim_end());

    let Some(python) = outside::python("the_demo_of_the_readme_is_true") else { return };
    let mut asked = Vec::new();
    for document in DOCUMENTS {
        for (at, block) in blocks(&read(document)).iter().enumerate() {
            if ["sql", "python"].contains(&block.language.as_str()) {
                asked.push(json!([document, at, block.language, block.text]));
            }
        }
    }
    let answers = outside::run(&python, folder.path(), "outside/blocks.py", &json!(asked).to_string());
    let answers: Vec<(String, usize, String)> = serde_json::from_str(&answers).expect("answers");
    assert!(answers.len() > 5, "the docs show {} queries", answers.len());
    for (document, at, printed) in answers {
        assert!(words(&printed).len() > 1, "{document}, block {at} finds nothing");
        // README shows the answer in the block that follows.
        if document == "README.md" {
            check_readme(at + 1, &printed, |shown, printed| words(shown) == words(printed));
        }
    }
}

/// The summary without what differs from machine to machine, and without spaces at the ends of lines.
fn without_cost(summary: &str) -> String {
    let mut kept = String::new();
    let mut skipping = false;
    for line in summary.lines().map(str::trim_end) {
        if !line.starts_with(' ') {
            skipping = line == "cost" || line.starts_with("manifest:");
        }
        if !skipping {
            kept.extend([line, "\n"]);
        }
    }
    kept
}
