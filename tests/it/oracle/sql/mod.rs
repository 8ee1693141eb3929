//! Random SQL: queries over inputs and tables, of a seed.
//!
//! What a query yields is determined by SQL alone, or by the completion of orders that the planner promises:
//! 1. Sums, averages and medians of doubles are taken over [`Kind::Eighths`] alone, where every order yields the same
//!    bits; what was divided may be compared, but not added up ([`Kind::Double`]).
//! 2. What differs in its last digits ([`Kind::Shown`]: a standard deviation), and lists, are only shown: never
//!    compared, grouped by, joined on, ordered by.
//! 3. No double is a negative zero: there is no multiplication by what may be negative.
//! 4. A query that only our own plan decides (windows as table functions, exact approximate percentiles, ties that
//!    the planner completes) is not [`Query::plain`].
//!
//! An input is written `$events`: [`Query::over`] puts a name there.

mod exprs;
mod queries;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What a column holds, as far as the generator must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// INT or BIGINT, small.
    Int,
    /// A double that is a small multiple of a power of two.
    Eighths,
    /// Any other double that every evaluation agrees on to the last bit.
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
    /// Nothing but shown.
    Shown,
}

/// What can be compared, grouped by and ordered by.
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

/// A relation that queries read: an input or a table.
#[derive(Clone, Debug)]
pub struct Relation {
    /// As in FROM.
    pub name: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// About how many rows it has: joins of too many are not made.
    pub rows: usize,
}

/// A random query.
#[derive(Clone, Debug)]
pub struct Query {
    /// With `$` before the names of inputs.
    pub sql: String,
    /// What it yields.
    pub columns: Vec<Column>,
    /// About how many rows.
    pub rows: usize,
    /// Whether any engine's answer is ours: see (4).
    pub plain: bool,
}

impl Query {
    /// The SQL with inputs called what `name` says: `""` for their own names.
    pub fn over(&self, prefix: &str) -> String {
        self.sql.replace('$', prefix)
    }
}

/// A column as an expression names it.
type Named = (String, Kind);

/// What expressions may name.
type Scope = [Named];

/// Makes queries.
pub struct Generator {
    rng: StdRng,
    relations: Vec<Relation>,
    names: usize,
    plain: bool,
}

impl Generator {
    /// Over these relations.
    pub fn new(seed: u64, relations: Vec<Relation>) -> Self {
        Generator {
            rng: StdRng::seed_from_u64(seed ^ 0x5157_1ca1),
            relations,
            names: 0,
            plain: true,
        }
    }

    /// A further query, nested a few levels.
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

    /// Makes a table known to further queries.
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

    /// A name that no query used before.
    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }
}
