//! The schemas that one decoder knows: asked for before a batch is decoded, made into plans once.

use std::sync::Arc;

use arrow::array::{Array, BinaryArray};
use hashbrown::HashMap;

use super::wire;
use crate::contain::contain;
use crate::definition;
use crate::registry::{Found, Language, Registry, Schema, Unready};

/// Plans by schema id.
#[derive(Debug)]
pub(super) struct Schemas<T> {
    registry: Arc<Registry>,
    language: Language,
    /// Where the schema of defaults is, where one is wanted.
    reader: Option<(Option<String>, Option<u32>)>,
    /// Whose records these are.
    topics: Vec<String>,
    known: HashMap<u32, Known<T>>,
    /// Of the newest batch.
    unknown: Vec<u32>,
}

/// A schema.
#[derive(Debug)]
struct Known<T> {
    name: String,
    /// Or why records cannot be read by it.
    plan: Result<Arc<T>, String>,
}

impl<T> Schemas<T> {
    /// Of a feed whose schemas are in this language.
    pub fn new(registry: Arc<Registry>, language: Language) -> Self {
        Schemas {
            registry,
            language,
            reader: None,
            topics: Vec::new(),
            known: HashMap::new(),
            unknown: Vec::new(),
        }
    }

    /// Fields that a record lacks take the defaults of a newer schema.
    pub fn with_defaults(mut self, settings: &definition::Registry) -> Self {
        self.reader = Some((settings.subject.clone(), settings.version));
        self
    }

    /// Of records of these topics: of the subjects that one schema is registered under, theirs count.
    pub fn of_topics(mut self, topics: &[String]) -> Self {
        self.topics = topics.to_vec();
        self
    }

    /// Makes the schemas known that these records are behind.
    ///
    /// # Errors
    /// The registry does not say.
    pub fn prepare(
        &mut self,
        records: &BinaryArray,
        plan: impl Fn(&Schema, Option<&Schema>) -> Result<T, String>,
    ) -> Result<(), Unready> {
        self.unknown.clear();
        let mut last = None;
        for record in (0..records.len()).filter(|record| records.is_valid(*record)) {
            let Some(id) = wire::id(records.value(record)).filter(|id| Some(*id) != last) else {
                continue;
            };
            last = Some(id);
            if self.known.contains_key(&id) || self.unknown.contains(&id) {
                continue;
            }
            match self.registry.schema(id)? {
                Found::Unknown => self.unknown.push(id),
                Found::Schema(schema) => {
                    let mut schema = Schema::clone(&schema);
                    schema.versions.sort_by_key(|version| !self.is_own(&version.subject));
                    let reader = self.reader_of(&schema)?;
                    let plan = if schema.language == self.language {
                        let planned = contain(|| plan(&schema, reader.as_deref()));
                        planned.flatten().map(Arc::new)
                    } else {
                        Err(format!("it is written in {:?}; set another format", schema.language))
                    };
                    let name = schema.to_string();
                    let plan = plan.map_err(|reason| format!("{name} cannot be read: {reason}"));
                    self.known.insert(id, Known { name, plan });
                }
            }
        }
        Ok(())
    }

    /// What stands in front of a record's bytes: the schema's id and plan; and the bytes.
    ///
    /// # Errors
    /// Nothing does, or the schema was not made known.
    pub fn split<'a>(&self, record: &'a [u8]) -> Result<(u32, &Arc<T>, &'a [u8]), String> {
        let (id, bytes) = wire::split(record).map_err(|reason| format!("the record cannot be read: {reason}"))?;
        Ok((id, self.of(id)?, bytes))
    }

    /// The plan of a schema id that was made known.
    ///
    /// # Errors
    /// Why there is none.
    pub fn of(&self, id: u32) -> Result<&Arc<T>, String> {
        match self.known.get(&id) {
            Some(known) => known.plan.as_ref().map_err(String::clone),
            None => Err(format!(
                "the registry has no schema {id}; register it, then send the record again"
            )),
        }
    }

    /// What a record's schema is called.
    pub fn name(&self, records: &BinaryArray, record: usize) -> Option<String> {
        let id = wire::id(records.is_valid(record).then(|| records.value(record))?)?;
        Some(self.known.get(&id)?.name.clone())
    }

    /// Whether a subject is of the values of these topics, by Confluent's strategies of names.
    fn is_own(&self, subject: &str) -> bool {
        let of_topic = |topic: &String| {
            let rest = subject.strip_prefix(topic.as_str());
            rest.is_some_and(|rest| rest.starts_with('-') && rest != "-key")
        };
        self.topics.iter().any(of_topic)
    }

    fn reader_of(&self, schema: &Schema) -> Result<Option<Arc<Schema>>, Unready> {
        let Some((subject, version)) = &self.reader else {
            return Ok(None);
        };
        // One text has one id under all subjects: their newer versions differ.
        let is_clear = match &schema.versions[..] {
            [] => false,
            [first, others @ ..] => {
                self.is_own(&first.subject) || others.iter().all(|other| other.subject == first.subject)
            }
        };
        let only = schema.versions.first().filter(|_| is_clear);
        let Some(subject) = subject.as_deref().or(only.map(|version| version.subject.as_str())) else {
            if !schema.versions.is_empty() {
                tracing::warn!(
                    schema = %schema,
                    "a schema is registered under several subjects, so no defaults are taken: name the feed's in `registry.subject`"
                );
            }
            return Ok(None);
        };
        let reader = self.registry.reader(subject, *version)?;
        Ok(reader.filter(|reader| reader.id != schema.id))
    }
}
