//! Records behind a schema id: each record is a row. A null record with a key deletes the key's row.

use arrow::array::{Array, BinaryArray};
use hashbrown::HashMap;

use crate::decode::batch::Batch;
use crate::decode::changes::{ChangeBuilder, DecodedBatch, InputShape};
use crate::decode::decoded::ChangeOp;
use crate::decode::envelopes::flat::Flat;
use crate::decode::formats::keys::KeyDecoder;
use crate::decode::names::{FieldTree, RecordCells};
use crate::decode::schemas::decode_plan::DecodePlan;
use crate::decode::schemas::plans::SchemaPlans;
use crate::registry::Unready;

/// Decodes records behind a schema id.
#[derive(Debug)]
pub(in crate::decode) struct RecordDecoder<P> {
    names: FieldTree,
    flat: Flat,
    schemas: SchemaPlans<P>,
    keys: KeyDecoder,
}

impl<P: DecodePlan> RecordDecoder<P> {
    /// A decoder for rows of this shape.
    pub fn new(shape: &InputShape, schemas: SchemaPlans<P>, keys: KeyDecoder) -> Self {
        let mut names = FieldTree::new(shape.targets.iter().enumerate(), "");
        RecordDecoder {
            flat: Flat::watch(&mut names, shape),
            names,
            schemas,
            keys,
        }
    }

    /// Loads the schemas of these records.
    pub fn prepare(
        &mut self,
        shape: &InputShape,
        values: &BinaryArray,
        keys: Option<&BinaryArray>,
    ) -> Result<(), Unready> {
        let names = &self.names;
        self.schemas
            .prepare(values, |schema, newer| P::new(schema, names, newer))?;
        self.keys.prepare(shape, keys)
    }

    /// Decodes a batch.
    pub fn decode(&mut self, shape: &InputShape, batch: &Batch<'_>) -> DecodedBatch {
        let Batch { values, keys, .. } = *batch;
        let mut source_ms = batch.times();
        let mut derived = String::new();
        let mut changes = ChangeBuilder::new(shape.targets.len(), values.len());
        let mut slots = RecordCells::new(shape.targets.len() + Flat::SLOTS);
        let mut counts: HashMap<u32, u64> = HashMap::new();
        changes.each_record(0..values.len(), |record, changes| {
            slots.clear();
            let op = if values.is_null(record) {
                self.keys.fill(shape, keys, record, &mut slots, &mut derived)?;
                ChangeOp::Delete
            } else {
                let (id, plan, bytes) = self.schemas.split(values.value(record))?;
                *counts.entry(id).or_default() += 1;
                plan.fill(bytes, &mut self.names, &mut slots, &mut derived)?;
                shape.placeholder.mark(&mut slots.cells, &derived);
                self.flat.op(shape, &slots, record, &mut source_ms)?
            };
            changes.push(record, op, &slots.cells);
            Ok(())
        });
        let typed = changes.typed(shape, &derived);
        let typed = typed.naming(|record| self.schemas.name(values, record));
        let mut ignored = self.names.take_ignored();
        for (id, count) in counts {
            if let Ok(plan) = self.schemas.plan(id) {
                plan.ignored(&mut |path| ignored.push((path.to_string(), count)));
            }
        }
        DecodedBatch::new(typed, source_ms, summed(ignored))
    }
}

/// Sums counts with the same name, and sorts by name.
pub(in crate::decode) fn summed(mut counts: Vec<(String, u64)>) -> Vec<(String, u64)> {
    counts.sort();
    counts.dedup_by(|next, previous| {
        let same = next.0 == previous.0;
        if same {
            previous.1 += next.1;
        }
        same
    });
    counts
}
