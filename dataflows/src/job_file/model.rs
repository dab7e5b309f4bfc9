//! Model files: a logistic regression, term by term, in TOML.

use std::{
    fs,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};
use whisperer_operators::spec::{Located, ModelSpec, ModelTerm, ModelValue, Transform};

use super::{
    problems::{Place, Problems},
    section::{Section, Value, as_number},
    shape,
};

/// The model files read so far; a file that two scores name is read once for each, but kept once.
#[derive(Debug)]
pub(super) struct ModelFiles<'a> {
    folder: &'a Path,
    files: Vec<(PathBuf, String)>,
}

impl<'a> ModelFiles<'a> {
    pub(super) fn new(folder: &'a Path) -> ModelFiles<'a> {
        ModelFiles { folder, files: Vec::new() }
    }

    pub(super) fn into_files(self) -> Vec<(PathBuf, String)> {
        self.files
    }

    /// The index of a file among all of the job's, and its text.
    fn open(&mut self, path: &str) -> std::io::Result<(u16, &str)> {
        let path = self.folder.join(path);
        let known = self.files.iter().position(|(known, _)| *known == path);
        let position = match known {
            Some(position) => position,
            None => {
                let text = fs::read_to_string(&path)?;
                self.files.push((path, text));
                self.files.len() - 1
            }
        };
        // The job file itself is number 0.
        let index = u16::try_from(position + 1).expect("a job has fewer than 65,535 models");
        Ok((index, &self.files[position].1))
    }
}

/// Reads the model file that `value` names; a file that cannot be read is a mistake there.
pub(super) fn read(value: &Value<'_>, files: &mut ModelFiles<'_>) -> Option<ModelSpec> {
    let path = value.text()?.value;
    if let Some(kind) = unsupported(&path) {
        let hint = "a logistic model in TOML";
        value.problem(format!("\"{path}\": {kind} is not supported in this version"), Some(hint));
        return None;
    }
    match files.open(&path) {
        Ok((index, text)) => read_text(index, text, value.problems()),
        Err(error) => {
            let folder = files.folder.display().to_string();
            let folder = if folder.is_empty() { ".".into() } else { folder };
            let hint = format!("paths of models are relative to the job file's folder, \"{folder}\"");
            value.problem(format!("cannot read the model \"{path}\": {error}"), Some(&hint));
            None
        }
    }
}

fn unsupported(path: &str) -> Option<&'static str> {
    match Path::new(path).extension()?.to_str()? {
        "json" | "ubj" | "xgb" => Some("a model of gradient-boosted trees"),
        "onnx" => Some("an ONNX model"),
        _ => None,
    }
}

fn read_text(file: u16, text: &str, problems: &Problems) -> Option<ModelSpec> {
    let (tree, mistakes) = DeTable::parse_recoverable(text);
    if !mistakes.is_empty() {
        problems.add_syntax(file, &mistakes);
        return None;
    }
    let root = Section::root(Place { file, text, problems }, tree.get_ref(), &shape::MODEL);
    let intercept = root.require("intercept").and_then(|v| v.number()).unwrap_or(0.0);
    let terms = root.sections("feature", &shape::TERM).iter().filter_map(read_term).collect();
    Some(ModelSpec { intercept, terms })
}

fn read_term(section: &Section<'_>) -> Option<ModelTerm> {
    let weight = section.require("weight").and_then(|v| v.number()).unwrap_or(0.0);
    let transform = section.get("transform").and_then(|v| read_transform(&v)).unwrap_or_default();
    let null = section.get("null").and_then(|v| read_constant(&v));
    let reference = section.get("reference").and_then(|v| read_constant(&v));
    let name: Located<String> = section.require("name")?.text()?;
    Some(ModelTerm { name, weight, transform, null, reference })
}

fn read_constant(value: &Value<'_>) -> Option<ModelValue> {
    match value.raw() {
        DeValue::String(text) => Some(ModelValue::Text(text.clone().into_owned())),
        raw => match as_number(raw) {
            Some(number) => Some(ModelValue::Number(number)),
            None => {
                value.problem(format!("\"{}\" must be a number or a text", value.key()), None);
                None
            }
        },
    }
}

/// `"identity"`, `"log1p"`, or a table with one member.
fn read_transform(value: &Value<'_>) -> Option<Transform> {
    if value.raw().is_str() {
        return read_plain_transform(value);
    }
    let section = value.section(&shape::TRANSFORM)?;
    if section.entries().len() != 1 {
        section.problem("\"transform\" has one member".into(), Some("such as { clip = { min = 0, max = 30 } }"));
        return None;
    }
    if let Some(standard) = section.get("standard") {
        return read_standard(&standard.section(&shape::STANDARD)?);
    }
    if let Some(clip) = section.get("clip") {
        return read_clip(&clip.section(&shape::CLIP)?);
    }
    section.get("one_hot")?.text_or_empty().map(|text| Transform::OneHot(text.value))
}

fn read_plain_transform(value: &Value<'_>) -> Option<Transform> {
    #[derive(Clone, Copy)]
    enum Plain {
        Identity,
        Log1p,
        NeedsTable,
    }
    let names = [
        ("identity", Plain::Identity),
        ("log1p", Plain::Log1p),
        ("standard", Plain::NeedsTable),
        ("clip", Plain::NeedsTable),
        ("one_hot", Plain::NeedsTable),
    ];
    match value.choice(&names)? {
        Plain::Identity => Some(Transform::Identity),
        Plain::Log1p => Some(Transform::Log1p),
        Plain::NeedsTable => {
            let forms = "{ standard = { mean, sd } }, { clip = { min, max } } or { one_hot = \"…\" }";
            value.problem("this transform is written as a table".into(), Some(forms));
            None
        }
    }
}

fn read_standard(section: &Section<'_>) -> Option<Transform> {
    let mean = section.require("mean").and_then(|v| v.number());
    let sd = section.require("sd");
    if let Some(sd) = sd.filter(|sd| sd.number().is_some_and(|sd| sd <= 0.0)) {
        sd.problem("\"sd\" must be above 0".into(), None);
        return None;
    }
    Some(Transform::Standard { mean: mean?, sd: sd?.number()? })
}

fn read_clip(section: &Section<'_>) -> Option<Transform> {
    let min = section.require("min").and_then(|v| v.number());
    let max = section.require("max").and_then(|v| v.number());
    let (min, max) = (min?, max?);
    if min > max {
        section.problem("\"min\" must not be above \"max\"".into(), None);
        return None;
    }
    Some(Transform::Clip { min, max })
}
