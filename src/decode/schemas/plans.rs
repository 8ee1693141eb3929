//! The schemas that one decoder knows: they are requested before a batch is decoded, and made into plans once.

use std::sync::Arc;

use arrow::array::{Array, BinaryArray};
use hashbrown::HashMap;

use crate::contain::contain;
use crate::decode::schemas::wire;
use crate::definition;
use crate::registry::{Language, RegisteredSchema, Registry, SchemaLookup, Unready};

/// Plans by schema id.
#[derive(Debug)]
pub(in crate::decode) struct SchemaPlans<T> {
    registry: Arc<Registry>,
    language: Language,
    /// The subject and version of the schema with defaults, if defaults are wanted.
    reader: Option<(Option<String>, Option<u32>)>,
    /// The topics of the records.
    topics: Vec<String>,
    known: HashMap<u32, CompiledSchema<T>>,
    /// Ids in the newest batch that are not known yet.
    unknown: Vec<u32>,
}

/// A schema that was requested.
#[derive(Debug)]
struct CompiledSchema<T> {
    name: String,
    /// The plan; or why records cannot be decoded with the schema.
    plan: Result<Arc<T>, String>,
}

impl<T> SchemaPlans<T> {
    /// For a feed whose schemas are in this language.
    pub fn new(registry: Arc<Registry>, language: Language) -> Self {
        SchemaPlans {
            registry,
            language,
            reader: None,
            topics: Vec::new(),
            known: HashMap::new(),
            unknown: Vec::new(),
        }
    }

    /// Uses the defaults of a newer schema for fields that a record lacks.
    pub fn with_defaults(mut self, settings: &definition::RegistrySettings) -> Self {
        self.reader = Some((settings.subject.clone(), settings.version));
        self
    }

    /// Sets the topics: if a schema is registered under several subjects, those of the topics count.
    pub fn of_topics(mut self, topics: &[String]) -> Self {
        self.topics = topics.to_vec();
        self
    }

    /// Loads the schemas of these records.
    ///
    /// # Errors
    /// The registry does not answer.
    pub fn prepare(
        &mut self,
        records: &BinaryArray,
        plan: impl Fn(&RegisteredSchema, Option<&RegisteredSchema>) -> Result<T, String>,
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
                SchemaLookup::Unknown => self.unknown.push(id),
                SchemaLookup::Schema(schema) => {
                    let mut schema = RegisteredSchema::clone(&schema);
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
                    self.known.insert(id, CompiledSchema { name, plan });
                }
            }
        }
        Ok(())
    }

    /// Splits a record into the id and plan of its schema, and the bytes behind the header.
    ///
    /// # Errors
    /// The record has no header, or the schema was not loaded.
    pub fn split<'a>(&self, record: &'a [u8]) -> Result<(u32, &Arc<T>, &'a [u8]), String> {
        let (id, bytes) = wire::split(record).map_err(|reason| format!("the record cannot be read: {reason}"))?;
        Ok((id, self.plan(id)?, bytes))
    }

    /// The plan of a schema that was loaded.
    ///
    /// # Errors
    /// Why there is none.
    pub fn plan(&self, id: u32) -> Result<&Arc<T>, String> {
        match self.known.get(&id) {
            Some(known) => known.plan.as_ref().map_err(String::clone),
            None => Err(format!(
                "the registry has no schema {id}; register it, then send the record again"
            )),
        }
    }

    /// The name of a record's schema.
    pub fn name(&self, records: &BinaryArray, record: usize) -> Option<String> {
        let id = wire::id(records.is_valid(record).then(|| records.value(record))?)?;
        Some(self.known.get(&id)?.name.clone())
    }

    /// Whether a subject has values of these topics, by Confluent's naming strategies.
    fn is_own(&self, subject: &str) -> bool {
        let of_topic = |topic: &String| {
            let rest = subject.strip_prefix(topic.as_str());
            rest.is_some_and(|rest| rest.starts_with('-') && rest != "-key")
        };
        self.topics.iter().any(of_topic)
    }

    fn reader_of(&self, schema: &RegisteredSchema) -> Result<Option<Arc<RegisteredSchema>>, Unready> {
        let Some((subject, version)) = &self.reader else {
            return Ok(None);
        };
        // A schema has one id under all of its subjects, but their newer versions differ.
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
