//! Reasons why the independent opinion does not judge a table.
//!
//! The reasons depend on the SQL and on its input rows, never on the run's answer. A statement with such a reason is
//! judged by Alluvium's own plan only.

use std::fmt;

/// Why a table is not judged independently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unjudged {
    /// The parser's PostgreSQL dialect parses the text differently from the run's dialect. A comparison cannot decide
    /// which is right.
    Reading,
    /// A construct that is not implemented here; using the run's implementation would judge nothing.
    Construct(String),
    /// A combination of types that SQL leaves open, or that PostgreSQL refuses.
    Types(String),
    /// A name that does not resolve to exactly one column.
    Name(String),
    /// Rows that tie in an order: the run keeps one of them by a rule of its own, which depends on its plan.
    Ties(&'static str),
    /// A row that does not evaluate. The run makes a dead letter of it; after which operator the row is missing
    /// depends on the plan.
    Row(String),
    /// A number with more digits than the run's DECIMAL has; there the run rounds by the types of the whole
    /// expression.
    Digits,
    /// More rows than should be computed one by one.
    Size,
}

impl Unjudged {
    /// The reason that a construct is not implemented here.
    pub fn construct(what: impl fmt::Display) -> Unjudged {
        Unjudged::Construct(what.to_string())
    }

    /// The reason that a row does not evaluate.
    pub fn row(why: impl fmt::Display) -> Unjudged {
        Unjudged::Row(why.to_string())
    }
}

impl fmt::Display for Unjudged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unjudged::Reading => f.write_str("PostgreSQL's dialect of the parser reads its operators otherwise"),
            Unjudged::Construct(what) => write!(f, "the SQL has {what}"),
            Unjudged::Types(what) => write!(f, "the SQL has {what}"),
            Unjudged::Name(name) => write!(f, "the name {name} is not found in one way only"),
            Unjudged::Ties(what) => write!(f, "{what} has ties, and SQL leaves open which row comes first"),
            Unjudged::Row(why) => write!(f, "a row of it does not evaluate: {why}"),
            Unjudged::Digits => f.write_str("a DECIMAL has more digits than the run keeps"),
            Unjudged::Size => f.write_str("it takes more rows than are computed one by one"),
        }
    }
}
