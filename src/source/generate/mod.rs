//! Built-in generators: synthetic changes for examples, tests and load.
//!
//! 1. Generators are pure and reproducible: one seed and one timing give the same events, byte for byte, on every
//!    machine.
//! 2. The settings state the shares of the kinds of events; the rest are inserts. If a kind is impossible (an update
//!    before there is a row, a delete in a stream of events that has none), an insert takes its place and is counted
//!    as one.
//! 3. A row is a function of its identity and version, so a generator keeps a few words per live key, never rows.
//!
//! | generator | form | updates | deletes | late |
//! |---|---|---|---|---|
//! | `retail.order_lines` | rows | the line again, other quantity | a cancellation: a `C` invoice | older invoice time |
//! | `retail.products`, `.customers`, `.stock_movements` | Debezium | yes | yes | an older version of a row |
//! | `retail.redemptions`, `devices.telemetry`, `logistics.tickets` | rows | - | - | older event time |
//! | `logistics.permits`, `logistics.trips` | rows | the row again, changed | - | older times |

mod connector;
mod devices;
mod logistics;
mod retail;
mod table;
mod text;

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::SourceError;
use crate::definition::{GENERATORS, Generate};

pub use text::Rendering;

use retail::OrderLines;
use table::{GeneratedChange, GeneratedTable};
use text::Fields;

/// The random source of a generator. It is a fixed algorithm, because (1) must not depend on a library's default.
type Random = Xoshiro256PlusPlus;

/// How many recent events are kept, one of which a duplicate repeats.
const RECENT: usize = 1024;
/// How far back a late event may lie, in microseconds: a minute to a day.
const LATE_US: std::ops::Range<f64> = 6e7..8.64e10;
/// 2025-01-01 00:00:00: when unpaced generators begin.
const NATURAL_START_US: i64 = 1_735_689_600_000_000;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A new row or event.
    Insert,
    /// Another version of a row.
    Update,
    /// The end of a row; a cancellation.
    Delete,
    /// An earlier event again, byte for byte.
    Duplicate,
    /// An event whose event time or version lies in the past.
    Late,
    /// An event that does not decode.
    Broken,
}

/// One generated change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedEvent {
    /// JSON text.
    pub key: Vec<u8>,
    /// JSON text, or a line of CSV without its end.
    pub value: Vec<u8>,
    /// When it was generated, in Unix milliseconds. It never decreases, even for duplicates and late events.
    pub ts_ms: i64,
    /// The kind of event.
    pub kind: EventKind,
}

impl Default for GeneratedEvent {
    fn default() -> Self {
        GeneratedEvent {
            key: Vec::new(),
            value: Vec::new(),
            ts_ms: 0,
            kind: EventKind::Insert,
        }
    }
}

/// When events are due: the first one at `start_us`, and each following one `step_us` later.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Unix microseconds.
    pub start_us: i64,
    /// Microseconds, at least 2 so that versions differ.
    pub step_us: f64,
}

impl Timing {
    /// At a rate (events/s) from a moment on.
    pub fn paced(start: SystemTime, rate: f64) -> Timing {
        let start_us = start.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64);
        Timing {
            start_us,
            step_us: (1e6 / rate).max(2.0),
        }
    }

    fn at(&self, index: u64) -> i64 {
        self.start_us + (index as f64 * self.step_us) as i64
    }
}

/// What a generator makes.
enum Model {
    OrderLines(Box<OrderLines>),
    Table(GeneratedTable),
    /// Independent events; the function writes the one with a given number.
    Events(EventRow),
    /// Rows with versions but without an envelope.
    Rows(PlainRows),
}

/// Writes the key's text and the fields of the event with this id at time `us`, in Unix microseconds. Each seed has
/// ids of its own.
type EventRow = fn(id: u64, us: i64, random: &mut Random, key: &mut Vec<u8>, fields: &mut Fields<'_>);

/// Plain rows without an envelope, of which later versions may be written.
struct PlainRows {
    /// Writes version `version` of row `id`.
    write: fn(id: u64, version: u64, us: i64, random: &mut Random, key: &mut Vec<u8>, fields: &mut Fields<'_>),
    made: u64,
}

struct KnownGenerator {
    name: &'static str,
    /// The interval of events in real life, in microseconds.
    natural_step_us: f64,
    model: fn() -> Model,
}

const fn known_as(name: &'static str, natural_step_us: f64, model: fn() -> Model) -> KnownGenerator {
    KnownGenerator {
        name,
        natural_step_us,
        model,
    }
}

const KNOWN: &[KnownGenerator] = &[
    known_as("retail.order_lines", 48.6e6, || Model::OrderLines(Box::default())),
    known_as("retail.products", 60e6, || {
        Model::Table(GeneratedTable::new(&retail::PRODUCTS))
    }),
    known_as("retail.customers", 60e6, || {
        Model::Table(GeneratedTable::new(&retail::CUSTOMERS))
    }),
    known_as("retail.stock_movements", 10e6, || {
        Model::Table(GeneratedTable::new(&retail::STOCK_MOVEMENTS))
    }),
    known_as("retail.redemptions", 60e6, || Model::Events(retail::redemption)),
    known_as("devices.telemetry", 1e3, || Model::Events(devices::telemetry)),
    known_as("logistics.tickets", 10e6, || Model::Events(logistics::ticket)),
    known_as("logistics.permits", 3600e6, || {
        Model::Rows(PlainRows {
            write: logistics::permit,
            made: 0,
        })
    }),
    known_as("logistics.trips", 60e6, || {
        Model::Rows(PlainRows {
            write: logistics::trip,
            made: 0,
        })
    }),
];

/// Generates events one after another, until the `limit` of the settings.
pub struct Generator {
    settings: Generate,
    timing: Timing,
    rendering: Rendering,
    model: Model,
    random: Random,
    index: u64,
    recent: VecDeque<GeneratedEvent>,
}

impl Generator {
    /// A generator in natural time: it begins on 2025-01-01, with events as far apart as in real life, whatever the
    /// settings' rate is. Fails for a name that is not in [`GENERATORS`], and for envelopes as CSV.
    pub fn new(settings: &Generate, rendering: Rendering) -> Result<Generator, SourceError> {
        let known = find(&settings.generator)?;
        let timing = Timing {
            start_us: NATURAL_START_US,
            step_us: known.natural_step_us,
        };
        Generator::timed(settings, rendering, timing)
    }

    /// A generator with the caller's timing.
    pub fn timed(settings: &Generate, rendering: Rendering, timing: Timing) -> Result<Generator, SourceError> {
        let model = (find(&settings.generator)?.model)();
        if rendering == Rendering::Csv && matches!(model, Model::Table(_)) {
            return Err(SourceError::NoCsv {
                name: settings.generator.clone(),
            });
        }
        let random = Random::seed_from_u64(settings.seed);
        let recent = VecDeque::with_capacity(RECENT);
        Ok(Generator {
            settings: settings.clone(),
            timing,
            rendering,
            model,
            random,
            index: 0,
            recent,
        })
    }

    /// The header line of the CSV rendering.
    pub fn csv_header(&self) -> String {
        let (mut key, mut names) = (Vec::new(), Vec::new());
        let mut fields = Fields::names(&mut names);
        let mut random = Random::seed_from_u64(0);
        match &self.model {
            Model::OrderLines(_) => retail::CSV_HEADER.clone_into(&mut names),
            Model::Table(table) => table.columns(&mut fields),
            Model::Events(write) => write(0, 0, &mut random, &mut key, &mut fields),
            Model::Rows(rows) => (rows.write)(0, 0, 0, &mut random, &mut key, &mut fields),
        }
        String::from_utf8(names).expect("column names are text")
    }

    /// The number of the next event.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Writes the next event into `event`, reusing its memory; false at the end.
    pub fn next_into(&mut self, event: &mut GeneratedEvent) -> bool {
        if self.settings.limit.is_some_and(|limit| self.index >= limit) {
            return false;
        }
        let us = self.timing.at(self.index);
        let mut kind = self.draw();
        if kind == EventKind::Duplicate && self.recent.is_empty() {
            kind = EventKind::Insert;
        }
        event.ts_ms = us.div_euclid(1000);
        event.kind = kind;
        if kind == EventKind::Duplicate {
            let earlier = &self.recent[self.random.random_range(0..self.recent.len())];
            event.key.clone_from(&earlier.key);
            event.value.clone_from(&earlier.value);
        } else {
            event.key.clear();
            event.value.clear();
            event.kind = self.make(kind, us, event);
            if kind == EventKind::Broken {
                text::spoil(&mut event.value, self.rendering, &mut self.random);
            } else if self.settings.duplicates > 0.0 {
                self.remember(event);
            }
        }
        self.index += 1;
        true
    }

    fn draw(&mut self) -> EventKind {
        let mut draw: f64 = self.random.random();
        for (share, kind) in [
            (self.settings.updates, EventKind::Update),
            (self.settings.deletes, EventKind::Delete),
            (self.settings.duplicates, EventKind::Duplicate),
            (self.settings.late, EventKind::Late),
            (self.settings.broken, EventKind::Broken),
        ] {
            if draw < share {
                return kind;
            }
            draw -= share;
        }
        EventKind::Insert
    }

    /// Writes an event, and returns its actual kind, by (2). A broken event is written whole here and changes no
    /// state.
    fn make(&mut self, kind: EventKind, us: i64, event: &mut GeneratedEvent) -> EventKind {
        let random = &mut self.random;
        let back = if kind == EventKind::Late {
            // Log-uniform: many a little late, few very late.
            let span = (LATE_US.end / LATE_US.start).powf(random.random::<f64>());
            (LATE_US.start * span) as i64
        } else {
            0
        };
        let mut fields = Fields::new(&mut event.value, self.rendering);
        match &mut self.model {
            Model::OrderLines(lines) => lines.write(kind, us - back, random, &mut event.key, &mut fields),
            Model::Table(table) => {
                let change = match kind {
                    EventKind::Update => GeneratedChange::Update,
                    EventKind::Delete => GeneratedChange::Delete,
                    EventKind::Late => GeneratedChange::Late,
                    EventKind::Broken => GeneratedChange::Sample,
                    EventKind::Insert | EventKind::Duplicate => GeneratedChange::Insert,
                };
                let timing = self.timing;
                let made = table.write(change, self.index, timing, random, &mut event.key, fields.into_text());
                match made {
                    GeneratedChange::Insert => EventKind::Insert,
                    _ => kind,
                }
            }
            Model::Events(write) => {
                let id = (self.settings.seed % 4096) << 40 | self.index;
                write(id, us - back, random, &mut event.key, &mut fields);
                fields.end();
                if matches!(kind, EventKind::Late | EventKind::Broken) {
                    kind
                } else {
                    EventKind::Insert
                }
            }
            Model::Rows(rows) => {
                let again = matches!(kind, EventKind::Update | EventKind::Late) && rows.made > 0;
                let id = if again {
                    random.random_range(0..rows.made)
                } else {
                    rows.made
                };
                (rows.write)(id, self.index, us - back, random, &mut event.key, &mut fields);
                fields.end();
                if !again && kind != EventKind::Broken {
                    rows.made += 1;
                }
                match kind {
                    EventKind::Broken | EventKind::Late => kind,
                    EventKind::Update if again => kind,
                    _ => EventKind::Insert,
                }
            }
        }
    }

    fn remember(&mut self, event: &GeneratedEvent) {
        if self.recent.len() < RECENT {
            self.recent.push_back(event.clone());
        } else {
            // The oldest event's memory is reused for the newest.
            let mut oldest = self.recent.pop_front().expect("RECENT events are not none");
            oldest.key.clone_from(&event.key);
            oldest.value.clone_from(&event.value);
            self.recent.push_back(oldest);
        }
    }
}

impl Iterator for Generator {
    type Item = GeneratedEvent;

    fn next(&mut self) -> Option<GeneratedEvent> {
        let mut event = GeneratedEvent::default();
        self.next_into(&mut event).then_some(event)
    }
}

fn find(name: &str) -> Result<&'static KnownGenerator, SourceError> {
    let generator = KNOWN.iter().find(|known| known.name == name);
    generator.ok_or_else(|| SourceError::UnknownGenerator {
        name: name.to_string(),
        known: GENERATORS.map(|(known, _)| known).join(", "),
    })
}

#[cfg(test)]
mod tests;
