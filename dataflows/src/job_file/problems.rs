//! Where mistakes are gathered while a job is read.

use std::{cell::RefCell, ops::Range};

use whisperer_operators::spec::{JobError, Span};

/// All mistakes found so far. Shared by the sections of a file and of its model files; reading is single-threaded.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<JobError>>);

/// A file that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'t> {
    /// Its index among the job's files.
    pub file: u16,
    /// Its text.
    pub text: &'t str,
    /// Where its mistakes go.
    pub problems: &'t Problems,
}

impl Problems {
    pub(super) fn add(&self, span: Span, message: String, hint: Option<String>) {
        self.0.borrow_mut().push(JobError { span, message, hint });
    }

    /// What the TOML parser says is wrong with a file.
    pub(super) fn add_syntax(&self, file: u16, mistakes: &[toml::de::Error]) {
        for mistake in mistakes {
            let bytes = mistake.span().unwrap_or(0..0);
            self.add(Span { file, bytes }, format!("not TOML: {}", mistake.message()), None);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    pub(super) fn into_errors(self) -> Vec<JobError> {
        self.0.into_inner()
    }
}

impl Place<'_> {
    pub(super) fn span(&self, bytes: Range<usize>) -> Span {
        Span { file: self.file, bytes }
    }

    pub(super) fn problem(&self, bytes: Range<usize>, message: String, hint: Option<String>) {
        self.problems.add(self.span(bytes), message, hint);
    }
}
