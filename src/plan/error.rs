//! Why a table could not be planned, before the place in the SQL is fully known.

use std::ops::ControlFlow;

use arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use datafusion::sql::sqlparser::tokenizer::{Location, Span};

/// A construct that is refused, with what to write instead.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub message: String,
    pub help: Option<String>,
    /// Where the construct stands; if `None`, `word` is looked for in the SQL.
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

    /// The refusal that ended a visit of SQL, as an error.
    pub fn of_visit(visited: ControlFlow<Box<Refusal>>) -> Result<(), Refusal> {
        match visited {
            ControlFlow::Break(refusal) => Err(*refusal),
            ControlFlow::Continue(()) => Ok(()),
        }
    }

    /// The message and its remedy, for a live query, whose error has no place.
    pub fn into_texts(self) -> (String, String) {
        (self.message, self.help.unwrap_or_default())
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn at(mut self, span: Option<Span>) -> Self {
        self.span = span;
        self
    }

    /// Sets the place to a span of an expression of the plan.
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

/// Why planning stopped: this code or DataFusion refused the SQL.
#[derive(Debug)]
pub(super) enum PlanError {
    /// This code refuses the construct.
    Refused(Box<Refusal>),
    /// DataFusion refuses the SQL.
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
