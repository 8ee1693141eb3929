//! The input of both programs: a load of events with keys, then small epochs of new events and corrections.
//!
//! Everything is computed from an event's position, so that a retraction needs no memory of what was inserted, and
//! both programs get the same changes in the same batches.

use crate::Options;

/// An event: `key`, `item` (an item of its key), `quantity`.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub key: u64,
    pub quantity: i64,
}

/// An event, and whether it is added (1) or removed (-1).
pub type Change = (Event, i64);

/// The program to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// `SELECT key, count(*), sum(quantity) ... GROUP BY key`
    Sum,
    /// Like `Sum`, with `min(quantity), max(quantity)`.
    Extremes,
    /// Events joined with the customer of their key: each has one match.
    Join,
    /// `SELECT DISTINCT key, item`: has as many rows as keys.
    Distinct,
}

impl Case {
    pub const ALL: [Case; 4] = [Case::Sum, Case::Extremes, Case::Join, Case::Distinct];

    pub fn name(self) -> &'static str {
        match self {
            Case::Sum => "aggregate",
            Case::Extremes => "aggregate-minmax",
            Case::Join => "join",
            Case::Distinct => "distinct",
        }
    }

    /// The program's SQL for the product.
    pub fn sql(self) -> &'static str {
        match self {
            Case::Sum => "SELECT key, count(*) AS n, sum(quantity) AS total FROM events GROUP BY key",
            Case::Extremes => {
                "SELECT key, count(*) AS n, sum(quantity) AS total, min(quantity) AS least, max(quantity) AS most \
                 FROM events GROUP BY key"
            }
            Case::Join => {
                "SELECT e.key, e.item, e.quantity, c.name, c.city FROM events e JOIN customers c ON e.key = c.key"
            }
            Case::Distinct => "SELECT DISTINCT key, item FROM events",
        }
    }
}

pub fn key(key: u64) -> String {
    format!("customer-{key:08}")
}

pub fn item(key: u64) -> String {
    format!("item-{:06}", mix(key) % 100_000)
}

pub fn name(key: u64) -> String {
    format!("Customer number {key}")
}

pub fn city(key: u64) -> String {
    format!("City {}", key % 1_000)
}

/// The event at a position.
fn event(position: u64, keys: u64) -> Event {
    let bits = mix(position);
    Event {
        key: bits % keys,
        quantity: ((bits >> 40) % 10_000) as i64,
    }
}

/// A step of splitmix64.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The load: events `from..to`, all added.
pub fn load(options: &Options, from: u64, to: u64) -> Vec<Change> {
    (from..to)
        .map(|position| (event(position, options.keys()), 1))
        .collect()
}

/// The `round`-th small epoch: half of its updates remove loaded events, the other half add new ones.
pub fn round(options: &Options, round: u64) -> Vec<Change> {
    let half = options.epoch_updates / 2;
    let from = round * half;
    (from..from + half)
        .flat_map(|n| {
            let gone = event(n % options.records, options.keys());
            let come = event(options.records + n, options.keys());
            [(gone, -1), (come, 1)]
        })
        .collect()
}
