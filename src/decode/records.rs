//! Records behind a schema id: one record, one row. A null record with a key deletes the key's row.

use arrow::array::{Array, BinaryArray};
use hashbrown::HashMap;

use super::changes::{Changes, Outcome, Shape};
use super::flat::Flat;
use super::keys::Keys;
use super::names::{Names, Slots};
use super::schemas::Schemas;
use super::{Batch, Op};
use crate::registry::{self, Unready};

/// How records of one schema fill columns.
pub(super) trait Plan: Sized {
    /// Of a registered schema, by a newer one's aliases and defaults where there is one.
    ///
    /// # Errors
    /// Why records cannot be read by it.
    fn new(schema: &registry::Schema, names: &Names, newer: Option<&registry::Schema>) -> Result<Self, String>;

    /// Fills cells from what is behind the schema id; what the record has no bytes for goes to `derived`.
    ///
    /// # Errors
    /// The bytes are not of the schema.
    fn fill<'a>(
        &self,
        bytes: &'a [u8],
        names: &mut Names,
        slots: &mut Slots<'a>,
        derived: &mut String,
    ) -> Result<(), String>;

    /// Tells each field of the schema that nobody takes, where that is known without a record.
    fn ignored(&self, _each: &mut dyn FnMut(&str)) {}
}

/// Decodes records.
#[derive(Debug)]
pub(super) struct Records<P> {
    names: Names,
    flat: Flat,
    schemas: Schemas<P>,
    keys: Keys,
}

impl<P: Plan> Records<P> {
    /// For rows of this shape.
    pub fn new(shape: &Shape, schemas: Schemas<P>, keys: Keys) -> Self {
        let mut names = Names::new(shape.targets.iter().enumerate(), "");
        Records {
            flat: Flat::watch(&mut names, shape),
            names,
            schemas,
            keys,
        }
    }

    /// Makes the schemas of these records known.
    pub fn prepare(&mut self, shape: &Shape, values: &BinaryArray, keys: Option<&BinaryArray>) -> Result<(), Unready> {
        let names = &self.names;
        self.schemas
            .prepare(values, |schema, newer| P::new(schema, names, newer))?;
        self.keys.prepare(shape, keys)
    }

    /// What the records come to.
    pub fn decode(&mut self, shape: &Shape, batch: &Batch<'_>) -> Outcome {
        let Batch { values, keys, .. } = *batch;
        let mut source_ms = batch.times();
        let mut derived = String::new();
        let mut changes = Changes::new(shape.targets.len(), values.len());
        let mut slots = Slots::new(shape.targets.len() + Flat::SLOTS);
        let mut counts: HashMap<u32, u64> = HashMap::new();
        for record in 0..values.len() {
            slots.clear();
            let outcome = if values.is_null(record) {
                let filled = self.keys.fill(shape, keys, record, &mut slots, &mut derived);
                filled.map(|()| Op::Delete)
            } else {
                self.schemas.split(values.value(record)).and_then(|(id, plan, bytes)| {
                    *counts.entry(id).or_default() += 1;
                    plan.fill(bytes, &mut self.names, &mut slots, &mut derived)?;
                    shape.placeholder.mark(&mut slots.cells, &derived);
                    self.flat.op(shape, &slots, record, &mut source_ms)
                })
            };
            match outcome {
                Ok(op) => changes.push(record, op, &slots.cells),
                Err(reason) => changes.reject(record, reason),
            }
        }
        let typed = changes.typed(shape, &derived);
        let typed = typed.naming(|record| self.schemas.name(values, record));
        let mut ignored = self.names.take_ignored();
        for (id, count) in counts {
            if let Ok(plan) = self.schemas.of(id) {
                plan.ignored(&mut |path| ignored.push((path.to_string(), count)));
            }
        }
        Outcome::new(typed, source_ms, summed(ignored))
    }
}

/// Counts under one name together, by name.
pub(super) fn summed(mut counts: Vec<(String, u64)>) -> Vec<(String, u64)> {
    counts.sort();
    counts.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
    counts
}
