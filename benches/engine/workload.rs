//! What both programs are fed: events of keys, as a load and then as small epochs of arrivals and corrections.
//!
//! Everything follows from the position of an event, so that a retraction needs no memory of what was inserted
//! and both programs are given the same changes in the same batches.

use crate::Options;

/// One event: `key`, `item` (one of its key's), `quantity`.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub key: u64,
    pub quantity: i64,
}

/// An event, and whether it comes (1) or goes (-1).
pub type Change = (Event, i64);

/// Which program is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// `SELECT key, count(*), sum(quantity) ... GROUP BY key`
    Sum,
    /// The same with `min(quantity), max(quantity)`.
    Extremes,
    /// Events joined with the customer that their key names: one match each.
    Join,
    /// `SELECT DISTINCT key, item`: as many rows as keys.
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

    /// The product's program.
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

/// splitmix64.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The load: events `from..to`, all coming.
pub fn load(options: &Options, from: u64, to: u64) -> Vec<Change> {
    (from..to)
        .map(|position| (event(position, options.keys()), 1))
        .collect()
}

/// The `round`-th small epoch: for half of its updates a loaded event goes, and for each of them another comes.
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
