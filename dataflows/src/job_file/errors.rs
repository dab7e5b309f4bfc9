//! All mistakes of a job, shown with file, line, column and what was probably meant.

use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use whisperer_operators::spec::{JobError, Span};

use super::whole_file;

/// What is wrong with a job: every mistake, and the texts to show them in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFileErrors {
    files: Vec<(PathBuf, String)>,
    errors: Vec<JobError>,
}

impl JobFileErrors {
    /// Mistakes in `files`, which [`Span::file`] counts; put into the order of their places.
    #[must_use]
    pub fn new(files: Vec<(PathBuf, String)>, mut errors: Vec<JobError>) -> JobFileErrors {
        errors.sort_by_key(|error| (error.span.file, error.span.bytes.start, error.span.bytes.end));
        errors.dedup();
        JobFileErrors { files, errors }
    }

    /// A job file that cannot be read.
    pub(super) fn unreadable(path: &Path, error: &io::Error) -> JobFileErrors {
        let message = format!("cannot read the job file: {error}");
        let error = JobError { span: whole_file(0), message, hint: None };
        JobFileErrors { files: vec![(path.to_owned(), String::new())], errors: vec![error] }
    }

    /// The mistakes, in the order of their places.
    #[must_use]
    pub fn errors(&self) -> &[JobError] {
        &self.errors
    }

    /// All mistakes as text: each with its line, the place underlined, then how many there are.
    #[must_use]
    pub fn render(&self) -> String {
        self.render_with(&Renderer::plain())
    }

    /// [`JobFileErrors::render`] with colours, for a terminal.
    #[must_use]
    pub fn render_styled(&self) -> String {
        self.render_with(&Renderer::styled())
    }

    fn render_with(&self, renderer: &Renderer) -> String {
        let mut text = String::new();
        for error in &self.errors {
            text.push_str(&renderer.render(&[self.report(error)]));
            text.push_str("\n\n");
        }
        let count = self.errors.len();
        let mistakes = if count == 1 { "mistake" } else { "mistakes" };
        let job = self.files.first().map(|(path, _)| path.display().to_string()).unwrap_or_default();
        text.push_str(&format!("{count} {mistakes} in the job \"{job}\"\n"));
        text
    }

    fn report<'a>(&'a self, error: &'a JobError) -> Group<'a> {
        let title = Level::ERROR.primary_title(error.message.as_str());
        let Some((path, text)) = self.files.get(usize::from(error.span.file)) else { return Group::with_title(title) };
        let path = path.display().to_string();
        if error.span.bytes == (0..0) {
            let group = title.element(Origin::path(path));
            return match &error.hint {
                Some(hint) => group.element(Level::HELP.message(hint.as_str())),
                None => group,
            };
        }
        let place = AnnotationKind::Primary.span(inside(text, &error.span)).label(error.hint.as_deref());
        title.element(Snippet::source(text.as_str()).path(path).annotation(place))
    }
}

impl fmt::Display for JobFileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render())
    }
}

impl std::error::Error for JobFileErrors {}

/// Adds those of `more` that stand where no mistake is known yet: what the compiler says of a value that could not be read is
/// no news.
pub(super) fn add_elsewhere(errors: &mut Vec<JobError>, more: Vec<JobError>) {
    let known: Vec<Span> = errors.iter().map(|error| error.span.clone()).collect();
    let overlaps = |a: &Span, b: &Span| {
        a.file == b.file && a.bytes.start <= b.bytes.end && b.bytes.start <= a.bytes.end && a.bytes != (0..0)
    };
    errors.extend(more.into_iter().filter(|error| !known.iter().any(|known| overlaps(known, &error.span))));
}

/// The span cut to what the text holds, at the borders of characters and to one line: in a string with escapes a place that
/// the compiler computed may lie off.
fn inside(text: &str, span: &Span) -> Range<usize> {
    let border = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let start = border(span.bytes.start);
    let line_end = text[start..].find('\n').map_or(text.len(), |line| start + line);
    start..border(span.bytes.end.min(line_end)).max(start)
}
