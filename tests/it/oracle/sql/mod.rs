//! Random SQL from a seed: queries over inputs and tables.
//!
//! SQL alone, or the planner's promise to complete orders, determines a query's result:
//! 1. Sums, averages and medians of doubles use only [`Kind::Eighths`], for which every order gives the same bits; a
//!    quotient may be compared, but not added up ([`Kind::Double`]).
//! 2. Values that may differ in their last digits ([`Kind::Shown`]: a standard deviation), and lists, are only shown:
//!    never compared, grouped by, joined on, or ordered by.
//! 3. No double is a negative zero, because nothing is multiplied by a value that may be negative.
//! 4. A query whose result only our own plan decides (windows as table functions, exact approximate percentiles, ties
//!    that the planner completes) is not [`Query::plain`].
//!
//! An input is written as `$events`: [`Query::over`] inserts the actual name.

mod exprs;
mod queries;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The kind of a column, as far as the generator needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// INT or BIGINT, small.
    Int,
    /// A double that is a small multiple of a power of two.
    Eighths,
    /// Another double, on whose every bit all evaluations agree.
    Double,
    /// DECIMAL.
    Decimal,
    /// VARCHAR.
    Text,
    /// BOOLEAN.
    Bool,
    /// TIMESTAMP.
    Time,
    /// VARCHAR[], to be unnested.
    Words,
    /// A value that is only shown.
    Shown,
}

/// The kinds that can be compared, grouped by and ordered by.
const COMPARED: [Kind; 7] = [
    Kind::Int,
    Kind::Eighths,
    Kind::Double,
    Kind::Decimal,
    Kind::Text,
    Kind::Bool,
    Kind::Time,
];

/// A column's name and kind.
pub type Column = (String, Kind);

/// A relation that queries use: an input or a table.
#[derive(Clone, Debug)]
pub struct Relation {
    /// The name in FROM.
    pub name: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// About how many rows it has, because joins of too many rows are avoided.
    pub rows: usize,
}

/// A random query.
#[derive(Clone, Debug)]
pub struct Query {
    /// The text, with `$` before the names of inputs.
    pub sql: String,
    /// The result's columns.
    pub columns: Vec<Column>,
    /// About how many rows it yields.
    pub rows: usize,
    /// Whether any engine gives our answer: see (4).
    pub plain: bool,
}

impl Query {
    /// The SQL with this prefix before the inputs' names: `""` for their own names.
    pub fn over(&self, prefix: &str) -> String {
        self.sql.replace('$', prefix)
    }
}

/// The name of a column in expressions, and its kind.
type Named = (String, Kind);

/// The columns that expressions may use.
type Scope = [Named];

/// Generates queries.
pub struct Generator {
    rng: StdRng,
    relations: Vec<Relation>,
    names: usize,
    plain: bool,
}

impl Generator {
    /// Generates queries over these relations.
    pub fn new(seed: u64, relations: Vec<Relation>) -> Self {
        Generator {
            rng: StdRng::seed_from_u64(seed ^ 0x5157_1ca1),
            relations,
            names: 0,
            plain: true,
        }
    }

    /// Another query, nested a few levels.
    pub fn query(&mut self) -> Query {
        self.plain = true;
        let depth = self.rng.random_range(1..=3);
        let body = self.statement(depth);
        Query {
            sql: body.sql,
            columns: body.columns,
            rows: body.rows,
            plain: self.plain,
        }
    }

    /// Lets further queries use a table.
    pub fn learn(&mut self, relation: Relation) {
        self.relations.push(relation);
    }

    fn chance(&mut self, share: f64) -> bool {
        self.rng.random_bool(share)
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n)
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// A name that no query has used before.
    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }
}
