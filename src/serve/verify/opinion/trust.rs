//! What the independent opinion does not judge, each with its reason.
//!
//! It is decided from the SQL and the rows that it is over, never from what the run answered: a statement that reaches one of
//! these is left to Alluvium's own plan.

use std::fmt;

/// Why a table is not judged independently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unjudged {
    /// PostgreSQL's dialect of the parser reads the text as another tree than the run's dialect does. Which is right is not for a
    /// comparison to decide.
    Reading,
    /// A construct that is not written here. Its meaning would have to be the run's.
    Construct(String),
    /// Types that meet in a way that SQL leaves open, or that PostgreSQL refuses.
    Types(String),
    /// A name that is not found in one way only.
    Name(String),
    /// Rows with one place in an order, of which the run keeps one by a rule of its own that depends on its plan.
    Ties(&'static str),
    /// A row that does not evaluate. It is a dead letter of the run's; which operator it is missing behind depends on the plan.
    Row(String),
    /// A number with more digits than the run's DECIMAL keeps, where it rounds by the types of the whole expression.
    Digits,
    /// More rows than are worth being computed one by one.
    Size,
}

impl Unjudged {
    /// A construct that is not written here.
    pub fn construct(what: impl fmt::Display) -> Unjudged {
        Unjudged::Construct(what.to_string())
    }

    /// A row that does not evaluate.
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
