//! Watches the records of a feed whose schema evolves: if a record's schema has a new field that the input can take,
//! the record is held back, with all that follow it, until the input has the column. So no row ever lacks a value
//! that its record has.

use std::sync::Arc;

use arrow::array::Array;
use hashbrown::HashSet;

use crate::contain::contain;
use crate::decode::decoded::{Payloads, Raw};
use crate::decode::newcomers;
use crate::decode::schemas::wire;
use crate::definition::{Feed, Input};
use crate::registry::{Registries, Registry, RegistryError, SchemaLookup, Unready};

/// See the module's header. It examines each schema once.
pub struct SchemaWatch {
    input: Input,
    feed: Feed,
    registry: Arc<Registry>,
    /// Ids of schemas without new fields.
    old: HashSet<u32>,
}

impl SchemaWatch {
    /// A watch for a feed of an input; none if its schema is fixed.
    ///
    /// # Errors
    /// A registry that cannot be used with these settings.
    pub fn new(input: &Input, feed: &Feed, registries: &Registries) -> Result<Option<Self>, RegistryError> {
        let Some(settings) = feed.wire.registry.as_ref().filter(|_| feed.wire.evolves) else {
            return Ok(None);
        };
        Ok(Some(SchemaWatch {
            input: input.clone(),
            feed: feed.clone(),
            registry: registries.registry(settings)?,
            old: HashSet::new(),
        }))
    }

    /// The first schema of these records that has a new field which the input can take.
    ///
    /// # Errors
    /// The registry does not answer.
    pub fn first_new_schema(&mut self, raw: &Raw) -> Result<Option<u32>, Unready> {
        let Payloads::Records { values, .. } = &raw.payloads else {
            return Ok(None);
        };
        let mut last = None;
        for record in (0..values.len()).filter(|record| values.is_valid(*record)) {
            let Some(id) = wire::id(values.value(record)).filter(|id| Some(*id) != last) else {
                continue;
            };
            last = Some(id);
            if self.old.contains(&id) {
                continue;
            }
            if let SchemaLookup::Schema(schema) = self.registry.schema(id)? {
                // An invalid schema is reported by the rejects of its records.
                let new = contain(|| newcomers(&self.input, &self.feed, &schema));
                let new = new.ok().and_then(Result::ok).unwrap_or_default();
                if new.iter().any(|field| field.column.is_ok()) {
                    return Ok(Some(id));
                }
                self.old.insert(id);
            }
        }
        Ok(None)
    }
}
