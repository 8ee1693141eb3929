//! Generates random tables, and random statements over them.
//!
//! A statement belongs to a *family*: the SQL construct that it tests, with as little else as possible. So mistakes
//! are reported by construct. The family `nested` composes queries as the oracle does.
//!
//! SQL alone determines the result of each statement: windows and top-k order by all columns that they show.

mod calendar;
mod correlated;
mod functions;
mod groups;
mod joins;
mod logic;
mod numbers;
mod recursive;
mod rows;
mod sets;
mod subqueries;
mod texts;
mod time;
mod truth;
mod windows;

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::tables::Table;
use super::translate;
use crate::oracle::sql::{Generator as Nested, Kind, Relation};

/// A family's name, and the function that generates one of its statements.
pub type Family = (&'static str, fn(&mut Generator) -> String);

/// All families.
pub fn families() -> impl Iterator<Item = &'static Family> {
    let rooms = [
        logic::FAMILIES,
        truth::FAMILIES,
        numbers::FAMILIES,
        joins::FAMILIES,
        sets::FAMILIES,
        groups::FAMILIES,
        subqueries::FAMILIES,
        correlated::FAMILIES,
        windows::FAMILIES,
        time::FAMILIES,
        calendar::FAMILIES,
        texts::FAMILIES,
        functions::FAMILIES,
        recursive::FAMILIES,
        NESTED,
    ];
    rooms.into_iter().flatten()
}

const NESTED: &[Family] = &[("nested", |g| {
    loop {
        let query = g.nested.query();
        if query.plain && !translate::ABSENT.iter().any(|name| query.sql.contains(name)) {
            return query.over("");
        }
    }
})];

/// Generates tables and statements from a seed.
pub struct Generator {
    rng: StdRng,
    nested: Nested,
    pub tables: Arc<Vec<Table>>,
}

/// The kinds of columns: each table has one or two of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// `k` and `v`: small numbers, with many ties.
    Int,
    /// `x`: DOUBLE, multiples of an eighth.
    Eighths,
    /// `y`: DOUBLE with NaN, infinities and a negative zero.
    Double,
    /// `d` and `e`: DECIMAL of two scales.
    Decimal,
    /// `s`: VARCHAR.
    Text,
    /// `b`: BOOLEAN.
    Bool,
    /// `ts`: TIMESTAMP of 2024.
    Time,
    /// `dt`: DATE of 2024.
    Day,
    /// `tf`: TIMESTAMP of years 1 to 9999.
    FarTime,
    /// `df`: DATE of years 1 to 9999.
    FarDay,
}

/// The kinds that every construct supports, so that a family reveals only its own mistakes.
const TAME: [Of; 3] = [Of::Int, Of::Text, Of::Bool];

impl Generator {
    /// Generates three tables `t`, `u` and `w`.
    pub fn new(seed: u64) -> Generator {
        let mut rng = StdRng::seed_from_u64(seed);
        let tables: Vec<Table> = ["t", "u", "w"].iter().map(|name| rows::table(&mut rng, name)).collect();
        let relation = |table: &Table| Relation {
            name: table.name.clone(),
            columns: KINDS.iter().map(|(name, kind)| (name.to_string(), *kind)).collect(),
            rows: table.rows.len(),
        };
        Generator {
            nested: Nested::new(seed, tables.iter().map(relation).collect()),
            tables: Arc::new(tables),
            rng,
        }
    }

    fn chance(&mut self, share: f64) -> bool {
        self.rng.random_bool(share)
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.rng.random_range(0..of.len())].clone()
    }

    fn number(&mut self, from: i64, to: i64) -> i64 {
        self.rng.random_range(from..=to)
    }

    /// A table's name, with an alias.
    fn from(&mut self, alias: &str) -> String {
        format!("{} AS {alias}", self.pick(&["t", "u", "w"]))
    }

    /// A column.
    fn column(&mut self, alias: &str, of: Of) -> String {
        let name = match of {
            Of::Int => self.pick(&["k", "v"]),
            Of::Eighths => "x",
            Of::Double => "y",
            Of::Decimal => self.pick(&["d", "e"]),
            Of::Text => "s",
            Of::Bool => "b",
            Of::Time => "ts",
            Of::Day => "dt",
            Of::FarTime => "tf",
            Of::FarDay => "df",
        };
        format!("{alias}.{name}")
    }

    /// A constant.
    fn literal(&mut self, of: Of) -> String {
        match of {
            Of::Int => self.number(-1, 7).to_string(),
            Of::Eighths => self.pick(&["0.5", "1.5", "-0.125", "2.0"]).to_string(),
            Of::Double => self
                .pick(&["0.1", "1.0", "CAST('NaN' AS DOUBLE)", "CAST('Infinity' AS DOUBLE)"])
                .to_string(),
            Of::Decimal => self.pick(&rows::DECIMALS).to_string(),
            Of::Text => format!("'{}'", self.pick(&rows::TEXTS).replace('\'', "''")),
            Of::Bool => self.pick(&["TRUE", "FALSE"]).to_string(),
            Of::Time => format!("TIMESTAMP '{}'", self.pick(&rows::TIMES)),
            Of::FarTime => format!("TIMESTAMP '{}'", self.pick(&rows::FAR_TIMES)),
            Of::Day => format!("DATE '{}'", self.pick(&rows::DAYS)),
            Of::FarDay => format!("DATE '{}'", self.pick(&rows::FAR_DAYS)),
        }
    }

    /// `<`, `=` and the like.
    fn comparison(&mut self) -> &'static str {
        self.pick(&["=", "<>", "<", "<=", ">", ">="])
    }

    /// A comparison between columns of these tables, or of a column with a constant, or a test for null.
    fn simple(&mut self, aliases: &[&str], kinds: &[Of]) -> String {
        let (one, other, of) = (self.pick(aliases), self.pick(aliases), self.pick(kinds));
        let column = self.column(one, of);
        match self.number(0, 5) {
            0 => format!("{column} IS {}NULL", self.pick(&["", "NOT "])),
            1 if of == Of::Bool => column,
            1 | 2 => format!("{column} {} {}", self.comparison(), self.column(other, of)),
            _ => format!("{column} {} {}", self.comparison(), self.literal(of)),
        }
    }

    /// A condition that uses only what every construct supports, nested to this depth.
    fn condition(&mut self, aliases: &[&str], depth: usize) -> String {
        if depth == 0 {
            return self.simple(aliases, &TAME);
        }
        match self.number(0, 4) {
            0 => format!("NOT ({})", self.condition(aliases, depth - 1)),
            n => {
                let (a, b) = (self.condition(aliases, depth - 1), self.condition(aliases, depth - 1));
                format!("({a} {} {b})", if n > 2 { "AND" } else { "OR" })
            }
        }
    }

    /// A statement that shows an expression over `a`, with columns that identify its rows.
    fn shown(&mut self, one: &str) -> String {
        format!("SELECT a.k, a.v, a.s, {one} AS c FROM {}", self.from("a"))
    }

    /// A ` WHERE ...` clause, or nothing.
    fn filter(&mut self, aliases: &[&str]) -> String {
        match self.chance(0.5) {
            true => format!(" WHERE {}", self.condition(aliases, 1)),
            false => String::new(),
        }
    }
}

/// The columns that the oracle's queries use.
const KINDS: [(&str, Kind); 8] = [
    ("k", Kind::Int),
    ("v", Kind::Int),
    ("x", Kind::Eighths),
    ("d", Kind::Decimal),
    ("e", Kind::Decimal),
    ("s", Kind::Text),
    ("b", Kind::Bool),
    ("ts", Kind::Time),
];

#[test]
fn a_seed_makes_the_same_tables_and_statements_again() {
    let made = || {
        let mut generator = Generator::new(7);
        let statements: Vec<String> = families().map(|(_, make)| make(&mut generator)).collect();
        (generator.tables, statements)
    };
    assert_eq!(made(), made());
}
