//! Watches the records of a feed whose schema evolves: a record behind a schema with a field that its input can take is held
//! back, with all that come behind it, until the input has the column. So no row is ever without a value that its record
//! has.

use std::sync::Arc;

use arrow::array::Array;
use hashbrown::HashSet;

use super::{Payloads, Raw, newcomers, wire};
use crate::contain::contain;
use crate::definition::{Feed, Input};
use crate::registry::{Found, Registries, Registry, RegistryError, Unready};

/// See the module's header. Looks at each schema once.
pub struct Watch {
    input: Input,
    feed: Feed,
    registry: Arc<Registry>,
    /// Schemas without newcomers.
    old: HashSet<u32>,
}

impl Watch {
    /// Of a feed of an input; none where its schema is fixed.
    ///
    /// # Errors
    /// A registry that cannot be asked as it is defined.
    pub fn new(input: &Input, feed: &Feed, registries: &Registries) -> Result<Option<Self>, RegistryError> {
        let Some(settings) = feed.wire.registry.as_ref().filter(|_| feed.wire.evolves) else {
            return Ok(None);
        };
        Ok(Some(Watch {
            input: input.clone(),
            feed: feed.clone(),
            registry: registries.of(settings)?,
            old: HashSet::new(),
        }))
    }

    /// The first schema of these records that has a field for the input to take.
    ///
    /// # Errors
    /// The registry does not answer.
    pub fn look(&mut self, raw: &Raw) -> Result<Option<u32>, Unready> {
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
            if let Found::Schema(schema) = self.registry.schema(id)? {
                // One that cannot be read, its records tell.
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
