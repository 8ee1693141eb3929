//! Adds columns to inputs from the schemas of their feeds (`schema = "evolve"`), and keeps them in a list in the lake:
//! `_alluvium/schemas/evolved/<input>/<number>.json`, one object per column, written once and never changed.
//!
//! ```text
//! the definition's columns, then the list's -----> used by verify, plan, rebuild and explain ([`known`])
//!        + fields of the newest schemas, + of schemas for which records are held back
//!        -> the list, then the dataflow ---------> used by a run ([`accept`], in process 0 alone)
//! ```
//!
//! 1. A column is in the list before anything is decoded with it, so Bronze and the definition decode the same again.
//! 2. The list only grows, and its columns keep their order for ever. The definition overrides it, and a feed that is
//!    `fixed` again adds nothing to it; columns of the list that an input does not use stay in it.
//! 3. A column with which some table's SQL cannot be planned (for example two columns of one name after a join) is
//!    declined: a schema never stops a dataflow.
//! 4. After [`accept`] with a schema, that schema has no newcomers ([`crate::decode::newcomers`]): each has become a
//!    column or been declined. So records that were held back for it can go on.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::runtime::Handle;

use crate::causes;
use crate::decode::{Newcomer, newcomers};
use crate::definition::{Dataflow, Diagnostics, Evolved, Feed};
use crate::lake::{Lake, Put};
use crate::plan::{self, Graph};
use crate::registry::{RegisteredSchema, Registries, RegistryTimeouts, SchemaLookup};

/// A start does not wait long for a registry that does not answer: new fields are taken when records with them arrive.
const PATIENCE: RegistryTimeouts = RegistryTimeouts {
    request: Duration::from_secs(5),
    budget: Duration::from_secs(5),
    pause: Duration::from_millis(200),
};

/// A schema with new fields that a feed encountered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSchemaFields {
    /// The input's name.
    pub input: String,
    /// The feed's name.
    pub feed: String,
    /// The schema's id in the feed's registry.
    pub schema: u32,
}

/// The list cannot be read or extended, or the definition has mistakes.
#[derive(Debug, Error)]
pub enum EvolveError {
    /// The lake cannot be read or written.
    #[error("could not read or write the evolved column {path} of the lake")]
    Lake {
        /// The path, relative to the lake.
        path: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// Somebody changed a file of the list.
    #[error("could not read the evolved column {path} of the lake: it is not as it was written; restore it")]
    Broken {
        /// The path, relative to the lake.
        path: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The definition has mistakes, with the list's columns added.
    #[error("the definition has mistakes:\n{0}")]
    Definition(Diagnostics),
}

/// Whether any feed of a dataflow adds columns.
pub fn is_wanted(dataflow: &Dataflow) -> bool {
    let mut feeds = dataflow.inputs.iter().flat_map(|input| &input.feeds);
    feeds.any(|feed| feed.wire.evolves)
}

/// The dataflow with the columns of its lake's list, and its plan.
///
/// # Errors
/// The lake cannot be read, or the definition cannot be planned.
pub async fn known(dataflow: &Dataflow, lake: &Lake) -> Result<(Dataflow, Graph), EvolveError> {
    let mut listed = vec![];
    for (index, input) in dataflow.inputs.iter().enumerate() {
        if input.feeds.iter().any(|feed| feed.wire.evolves) {
            let list = list(lake, &input.name).await?;
            listed.extend(list.into_iter().map(|evolved| (index, evolved)));
        }
    }
    let mut with_all = dataflow.clone();
    for (input, evolved) in &listed {
        with_all.inputs[*input].evolve(evolved);
    }
    if let Ok(graph) = plan::compile(&with_all) {
        return Ok((with_all, graph));
    }
    // SQL that was written later may decline a column, by (3).
    let mut evolving = EvolvingDataflow::new(dataflow)?;
    for (input, evolved) in &listed {
        if let Err(reason) = evolving.take_column(*input, evolved) {
            tracing::warn!(input = dataflow.inputs[*input].name, column = %evolved, %reason, "a column is left out");
        }
    }
    Ok((evolving.dataflow, evolving.graph))
}

/// A dataflow to which columns are added one by one.
struct EvolvingDataflow {
    dataflow: Dataflow,
    graph: Graph,
}

impl EvolvingDataflow {
    fn new(dataflow: &Dataflow) -> Result<EvolvingDataflow, EvolveError> {
        Ok(EvolvingDataflow {
            graph: plan::compile(dataflow).map_err(EvolveError::Definition)?,
            dataflow: dataflow.clone(),
        })
    }

    /// Adds a column; returns whether the input took it. On error the column is declined, by (3).
    fn take_column(&mut self, input: usize, evolved: &Evolved) -> Result<bool, Diagnostics> {
        let mut with_it = self.dataflow.clone();
        if !with_it.inputs[input].evolve(evolved) {
            return Ok(false);
        }
        match plan::compile(&with_it) {
            Ok(graph) => {
                (self.dataflow, self.graph) = (with_it, graph);
                Ok(true)
            }
            Err(reason) => {
                let feeds = self.dataflow.inputs[input].feeds.iter_mut();
                for feed in feeds.filter(|feed| feed.name == evolved.feed) {
                    feed.wire.declined.push(evolved.column.clone());
                }
                Err(reason)
            }
        }
    }
}

/// The columns that a dataflow takes beyond its definition, so that another process takes the same.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AcceptedColumns {
    /// Columns, with the name of their input.
    columns: Vec<(String, Evolved)>,
    /// Declined fields: input, feed and field.
    declined: Vec<(String, String, String)>,
}

impl AcceptedColumns {
    /// Collects the columns of a dataflow that [`accept`] returned.
    pub fn from_dataflow(dataflow: &Dataflow) -> AcceptedColumns {
        let mut taken = AcceptedColumns::default();
        for input in &dataflow.inputs {
            let columns = input.evolved.iter();
            taken
                .columns
                .extend(columns.map(|evolved| (input.name.clone(), evolved.clone())));
            for feed in &input.feeds {
                let declined = feed.wire.declined.iter();
                let place = |field: &String| (input.name.clone(), feed.name.clone(), field.clone());
                taken.declined.extend(declined.map(place));
            }
        }
        taken
    }

    /// Applies the columns to the dataflow of the definition.
    pub fn apply(&self, dataflow: &Dataflow) -> Dataflow {
        let mut dataflow = dataflow.clone();
        for input in &mut dataflow.inputs {
            for (of, evolved) in &self.columns {
                if *of == input.name {
                    input.evolve(evolved);
                }
            }
            for feed in &mut input.feeds {
                let declined = self.declined.iter();
                let own = declined.filter(|(of, by, _)| (of, by) == (&input.name, &feed.name));
                feed.wire.declined.extend(own.map(|(_, _, field)| field.clone()));
            }
        }
        dataflow
    }
}

/// The dataflow with the columns of its lake's list, and with the columns that the newest schemas of its feeds and the
/// schemas in `new_fields` add, which are then in the list too; and its plan. Blocks while it asks registries.
///
/// # Errors
/// The lake cannot be read or written, or the definition cannot be planned.
pub fn accept(
    dataflow: &Dataflow,
    lake: &Lake,
    runtime: &Handle,
    new_fields: &[NewSchemaFields],
) -> Result<(Dataflow, Graph), EvolveError> {
    let registries = Registries::patient(Some(lake.clone()), PATIENCE);
    let (known, graph) = runtime.block_on(known(dataflow, lake))?;
    let mut acceptor = ColumnAcceptor {
        lake,
        runtime,
        evolving: EvolvingDataflow { dataflow: known, graph },
    };
    for (index, input) in dataflow.inputs.iter().enumerate() {
        for (place, feed) in input.feeds.iter().enumerate() {
            let own = new_fields
                .iter()
                .filter(|new| (&new.input, &new.feed) == (&input.name, &feed.name));
            let ids: Vec<u32> = own.map(|new| new.schema).collect();
            for schema in schemas(feed, &registries, &ids) {
                acceptor.take_schema((index, place), &schema)?;
            }
        }
    }
    Ok((acceptor.evolving.dataflow, acceptor.evolving.graph))
}

/// The newest schema of a feed, and the schemas of these ids. A schema that is not available now is taken when records
/// with it arrive.
fn schemas(feed: &Feed, registries: &Registries, ids: &[u32]) -> Vec<RegisteredSchema> {
    let Some(settings) = feed.wire.registry.as_ref().filter(|_| feed.wire.evolves) else {
        return vec![];
    };
    let away = |reason: String| tracing::warn!(feed = feed.name, reason, "new fields were not asked for");
    let registry = match registries.registry(settings) {
        Ok(registry) => registry,
        Err(error) => {
            away(causes::chain(&error));
            return vec![];
        }
    };
    let mut schemas = vec![];
    for id in ids {
        match registry.schema(*id) {
            Ok(SchemaLookup::Schema(schema)) => schemas.push((*schema).clone()),
            Ok(SchemaLookup::Unknown) => {}
            Err(error) => away(error.to_string()),
        }
    }
    if let Some(subject) = feed.subject() {
        match registry.newest(&subject) {
            Ok(newest) => schemas.extend(newest),
            Err(error) => away(error.to_string()),
        }
    }
    schemas
}

/// A dataflow and its lake's list, while columns are added to both.
struct ColumnAcceptor<'a> {
    lake: &'a Lake,
    runtime: &'a Handle,
    evolving: EvolvingDataflow,
}

impl ColumnAcceptor<'_> {
    /// Adds the new fields of a schema.
    fn take_schema(&mut self, (input, feed): (usize, usize), schema: &RegisteredSchema) -> Result<(), EvolveError> {
        let definition = &self.evolving.dataflow.inputs[input];
        let (of_input, of_feed) = (definition.name.clone(), definition.feeds[feed].name.clone());
        let new = newcomers(definition, &definition.feeds[feed], schema).unwrap_or_else(|reason| {
            tracing::warn!(input = of_input, feed = of_feed, %schema, reason, "new fields were not looked for");
            vec![]
        });
        for Newcomer { field, column } in new {
            let left_out = |reason: &dyn fmt::Display| {
                tracing::warn!(input = of_input, feed = of_feed, %schema, field, %reason, "a new field is left out");
            };
            let sql_type = match column {
                Ok(sql_type) => sql_type,
                Err(reason) => {
                    left_out(&reason);
                    continue;
                }
            };
            let evolved = Evolved {
                column: field.clone(),
                sql_type: sql_type.to_string(),
                feed: of_feed.clone(),
                schema: schema.to_string(),
            };
            match self.evolving.take_column(input, &evolved) {
                Ok(true) => {
                    self.add(&of_input, &evolved)?; // By (1), the column is listed before anything decodes with it.
                    tracing::info!(input = of_input, column = %evolved, "the input takes a column");
                }
                Ok(false) => {} // Another field of the schema has this column's name already.
                Err(reason) => left_out(&reason),
            }
        }
        Ok(())
    }

    /// Adds a column to the list. If two runs start over one lake, one of them is a zombie that never commits; a
    /// column that it added comes from a schema all the same, and the next start takes it.
    fn add(&self, input: &str, evolved: &Evolved) -> Result<(), EvolveError> {
        let bytes = Bytes::from(serde_json::to_vec_pretty(evolved).expect("texts are JSON"));
        self.runtime.block_on(async {
            let mut number = list(self.lake, input).await?.len();
            loop {
                let path = path(input, number);
                // These files are needed to decode Bronze, so they are synced whatever the dataflow's durability.
                let put = self
                    .lake
                    .clone()
                    .with_durability(true)
                    .put_new(&path, bytes.clone())
                    .await;
                match put.map_err(|source| failed(&path, source))? {
                    Put::Written => return Ok(()),
                    Put::Taken => number += 1,
                }
            }
        })
    }
}

/// The columns of the lake's list for an input, in order.
async fn list(lake: &Lake, input: &str) -> Result<Vec<Evolved>, EvolveError> {
    let mut evolved = vec![];
    loop {
        let path = path(input, evolved.len());
        let Some(bytes) = lake.get(&path).await.map_err(|source| failed(&path, source))? else {
            return Ok(evolved);
        };
        evolved.push(serde_json::from_slice(&bytes).map_err(|source| EvolveError::Broken {
            path: path.to_string(),
            source,
        })?);
    }
}

fn path(input: &str, number: usize) -> Path {
    Path::from(format!("_alluvium/schemas/evolved/{input}/{number:05}.json"))
}

fn failed(path: &Path, source: object_store::Error) -> EvolveError {
    EvolveError::Lake {
        path: path.to_string(),
        source,
    }
}
