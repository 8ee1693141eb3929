//! Why a table could not be planned, before its place is known in full.

use arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use datafusion::sql::sqlparser::tokenizer::{Location, Span};

/// A construct that is refused, and what to write instead.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub message: String,
    pub help: Option<String>,
    /// Where; none: it is looked for by `word`.
    pub span: Option<Span>,
    /// A word of the SQL (a function, a keyword) that stands near the mistake.
    pub word: Option<String>,
}

impl Refusal {
    pub fn new(message: impl Into<String>) -> Self {
        Refusal {
            message: message.into(),
            help: None,
            span: None,
            word: None,
        }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn at(mut self, span: Option<Span>) -> Self {
        self.span = span;
        self
    }

    /// At a span of a plan's expression.
    pub fn at_span(self, span: Option<datafusion::common::Span>) -> Self {
        let span = span.map(|s| Span {
            start: place(s.start),
            end: place(s.end),
        });
        self.at(span)
    }

    pub fn near(mut self, word: impl Into<String>) -> Self {
        self.word = Some(word.into());
        self
    }
}

fn place(location: datafusion::common::Location) -> Location {
    Location {
        line: location.line,
        column: location.column,
    }
}

/// Why planning stopped.
#[derive(Debug)]
pub(super) enum PlanError {
    /// We refuse it.
    Refused(Box<Refusal>),
    /// DataFusion does.
    DataFusion(Box<DataFusionError>),
}

impl From<Refusal> for PlanError {
    fn from(refusal: Refusal) -> Self {
        PlanError::Refused(Box::new(refusal))
    }
}

impl From<DataFusionError> for PlanError {
    fn from(error: DataFusionError) -> Self {
        PlanError::DataFusion(Box::new(error))
    }
}

impl From<ArrowError> for PlanError {
    fn from(error: ArrowError) -> Self {
        PlanError::DataFusion(Box::new(error.into()))
    }
}

pub(super) type Planned<T> = Result<T, PlanError>;
