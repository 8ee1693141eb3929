//! Columns that inputs take from the schemas of their feeds (`schema = "evolve"`), and the list of them that a lake keeps:
//! `_alluvium/schemas/evolved/<input>/<number>.json`, one object a column, written once, never changed.
//!
//! ```text
//! the file's columns, then the list's ---------> what verify, plan, rebuild and explain see ([`known`])
//!        + fields of the newest schemas, + of schemas that records were held back for
//!        -> the list, then the dataflow -------> what a run computes ([`take`], in process 0 alone)
//! ```
//!
//! 1. A column is in the list before anything is decoded with it, so Bronze and the definition decode the same again.
//! 2. The list only grows: columns keep their order for ever. The file wins over it, and a feed that is `fixed` again has no
//!    part in it; what an input does not take of it stays in it.
//! 3. A column that some table's SQL cannot be planned with (two columns of one name behind a join) is declined, not
//!    taken: a schema never stops a dataflow.
//! 4. After [`take`] with a schema, that schema has no newcomers ([`crate::decode::newcomers`]): each is a column or declined.
//!    So whoever is held back for it goes on.

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
use crate::plan::{self, Graph};
use crate::registry::{Found, Patience, Registries, Schema};
use crate::sink::{Lake, Put};

/// A start does not wait long for a registry that is away: what is new is met later.
const PATIENCE: Patience = Patience {
    request: Duration::from_secs(5),
    budget: Duration::from_secs(5),
    pause: Duration::from_millis(200),
};

/// A schema with new fields that a feed met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Met {
    /// The input's name.
    pub input: String,
    /// The feed's name.
    pub feed: String,
    /// The schema's id in the feed's registry.
    pub schema: u32,
}

/// The list could not be read or added to, or the definition has mistakes.
#[derive(Debug, Error)]
pub enum EvolveError {
    /// The lake does not answer.
    #[error("could not read or write the evolved column {path} of the lake")]
    Lake {
        /// Relative to the lake.
        path: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// Somebody changed it.
    #[error("could not read the evolved column {path} of the lake: it is not as it was written; restore it")]
    Broken {
        /// Relative to the lake.
        path: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The definition, with what the list has.
    #[error("the definition has mistakes:\n{0}")]
    Definition(Diagnostics),
}

/// Whether any feed of a dataflow brings columns.
pub fn is_wanted(dataflow: &Dataflow) -> bool {
    let mut feeds = dataflow.inputs.iter().flat_map(|input| &input.feeds);
    feeds.any(|feed| feed.wire.evolves)
}

/// A dataflow with the columns that its lake's list has, and its plan.
///
/// # Errors
/// The lake cannot be read; the file's definition does not plan.
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
    // By (3), of SQL that came later.
    let mut growing = Growing::new(dataflow)?;
    for (input, evolved) in &listed {
        if let Err(reason) = growing.take(*input, evolved) {
            tracing::warn!(input = dataflow.inputs[*input].name, column = %evolved, %reason, "a column is left out");
        }
    }
    Ok((growing.dataflow, growing.graph))
}

/// A dataflow on its way to more columns.
struct Growing {
    dataflow: Dataflow,
    graph: Graph,
}

impl Growing {
    fn new(dataflow: &Dataflow) -> Result<Growing, EvolveError> {
        Ok(Growing {
            graph: plan::compile(dataflow).map_err(EvolveError::Definition)?,
            dataflow: dataflow.clone(),
        })
    }

    /// Takes a column and says whether there was one to take; the error: it is declined, by (3).
    fn take(&mut self, input: usize, evolved: &Evolved) -> Result<bool, Diagnostics> {
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

/// What a dataflow takes beside its file, for another process to take the same.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Taken {
    /// By input.
    columns: Vec<(String, Evolved)>,
    /// Input, feed and field.
    declined: Vec<(String, String, String)>,
}

impl Taken {
    /// Of a dataflow that [`take`] made.
    pub fn of(dataflow: &Dataflow) -> Taken {
        let mut taken = Taken::default();
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

    /// The same of the file's dataflow.
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

/// A dataflow with the columns that its lake's list has, and with those that the newest schemas of its feeds and the schemas
/// that were `met` bring, which are in the list then; and its plan. Blocks while registries are asked.
///
/// # Errors
/// The lake cannot be read or written; the definition does not plan.
pub fn take(dataflow: &Dataflow, lake: &Lake, runtime: &Handle, met: &[Met]) -> Result<(Dataflow, Graph), EvolveError> {
    let registries = Registries::patient(Some(lake.clone()), PATIENCE);
    let (known, graph) = runtime.block_on(known(dataflow, lake))?;
    let mut taking = Taking {
        lake,
        runtime,
        growing: Growing { dataflow: known, graph },
    };
    for (index, input) in dataflow.inputs.iter().enumerate() {
        for (place, feed) in input.feeds.iter().enumerate() {
            let own = met
                .iter()
                .filter(|met| (&met.input, &met.feed) == (&input.name, &feed.name));
            let ids: Vec<u32> = own.map(|met| met.schema).collect();
            for schema in schemas(feed, &registries, &ids) {
                taking.take((index, place), &schema)?;
            }
        }
    }
    Ok((taking.growing.dataflow, taking.growing.graph))
}

/// The newest schema of a feed, and those of ids. What cannot be had now is met later.
fn schemas(feed: &Feed, registries: &Registries, ids: &[u32]) -> Vec<Schema> {
    let Some(settings) = feed.wire.registry.as_ref().filter(|_| feed.wire.evolves) else {
        return vec![];
    };
    let away = |reason: String| tracing::warn!(feed = feed.name, reason, "new fields were not asked for");
    let registry = match registries.of(settings) {
        Ok(registry) => registry,
        Err(error) => {
            away(causes::chain(&error));
            return vec![];
        }
    };
    let mut found = vec![];
    for id in ids {
        match registry.schema(*id) {
            Ok(Found::Schema(schema)) => found.push((*schema).clone()),
            Ok(Found::Unknown) => {}
            Err(error) => away(error.to_string()),
        }
    }
    if let Some(subject) = feed.subject() {
        match registry.newest(&subject) {
            Ok(newest) => found.extend(newest),
            Err(error) => away(error.to_string()),
        }
    }
    found
}

/// A dataflow and its lake's list on their way to more columns.
struct Taking<'a> {
    lake: &'a Lake,
    runtime: &'a Handle,
    growing: Growing,
}

impl Taking<'_> {
    /// Takes what a schema brings.
    fn take(&mut self, (input, feed): (usize, usize), schema: &Schema) -> Result<(), EvolveError> {
        let definition = &self.growing.dataflow.inputs[input];
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
            match self.growing.take(input, &evolved) {
                Ok(true) => {
                    self.add(&of_input, &evolved)?; // by (1): nothing runs yet
                    tracing::info!(input = of_input, column = %evolved, "the input takes a column");
                }
                Ok(false) => {} // another field of the schema has taken its name
                Err(reason) => left_out(&reason),
            }
        }
        Ok(())
    }

    /// Adds to the list. Of two runs that start over one lake, one is a zombie that never commits; what it added is a column
    /// of a schema all the same, and is taken at the next start.
    fn add(&self, input: &str, evolved: &Evolved) -> Result<(), EvolveError> {
        let bytes = Bytes::from(serde_json::to_vec_pretty(evolved).expect("texts are JSON"));
        self.runtime.block_on(async {
            let mut number = list(self.lake, input).await?.len();
            loop {
                let path = path(input, number);
                let put = self.lake.put_new(&path, bytes.clone(), true).await;
                match put.map_err(|source| failed(&path, source))? {
                    Put::Written => return Ok(()),
                    Put::Taken => number += 1,
                }
            }
        })
    }
}

/// What the lake's list has for an input, in its order.
async fn list(lake: &Lake, input: &str) -> Result<Vec<Evolved>, EvolveError> {
    let mut found = vec![];
    loop {
        let path = path(input, found.len());
        let Some(bytes) = lake.get(&path).await.map_err(|source| failed(&path, source))? else {
            return Ok(found);
        };
        found.push(serde_json::from_slice(&bytes).map_err(|source| EvolveError::Broken {
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
