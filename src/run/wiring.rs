//! Which table of the sink is which: the list of tables the sink keeps, and how the graph's outputs reach them.
//!
//! Order of the sink's tables is the order of their commits: Bronze of every input, dead letters, then the
//! definition's tables, every table behind those it reads.

use std::sync::Arc;

use crossbeam_channel::Sender;
use timely::dataflow::operators::Probe;
use timely::dataflow::{ProbeHandle, Scope};

use super::RunError;
use super::shared::Shared;
use crate::definition::{Dataflow, Deletes};
use crate::plan::{Graph, Op};
use crate::render::{Built, Counters, tap};
use crate::repr::{Epoch, Update};
use crate::sink::dead_letters::{self, Envelope};
use crate::sink::{Arrival, TableSpec, bronze, owner};

/// The definition, its plan, and where everything goes.
pub struct Wiring {
    /// As loaded.
    pub dataflow: Arc<Dataflow>,
    /// As planned.
    pub graph: Arc<Graph>,
    /// The sink's tables.
    pub specs: Arc<Vec<TableSpec>>,
    /// By input: its Bronze table in `specs`.
    pub bronze: Vec<Option<usize>>,
    /// The dead letters in `specs`.
    pub dead_letters: usize,
    /// The definition's first table in `specs`; the others follow.
    pub first_table: usize,
    /// What operators count for people.
    pub counters: Arc<Counters>,
}

impl Wiring {
    /// Lays out the sink's tables.
    pub fn new(dataflow: Arc<Dataflow>, graph: Arc<Graph>) -> Self {
        let mut specs = Vec::new();
        let bronze = dataflow
            .inputs
            .iter()
            .map(|input| {
                input.bronze.then(|| {
                    specs.push(bronze::spec(input));
                    specs.len() - 1
                })
            })
            .collect();
        let dead_letters = specs.len();
        specs.push(dead_letters::spec());
        let first_table = specs.len();
        specs.extend(graph.tables.iter().map(|planned| {
            let table = &dataflow.tables[planned.table];
            TableSpec {
                name: planned.name.clone(),
                path: format!("{}/{}", table.layer.name(), table.name),
                schema: planned.schema.clone(),
                partition_by: planned.partition_by.clone(),
                append_only: planned.append_only,
                deletes: table.deletes,
                change_data_feed: table.change_data_feed,
                description: table.description.clone(),
            }
        }));
        let counters = Arc::new(Counters::default());
        Wiring {
            dataflow,
            graph,
            specs: Arc::new(specs),
            bronze,
            dead_letters,
            first_table,
            counters,
        }
    }

    /// Leads every table's rows, and all errors as dead letters, to the worker's writer.
    pub fn connect<'scope>(
        &self,
        scope: Scope<'scope, Epoch>,
        built: Built<'scope>,
        letters: crate::render::Rows<'scope>,
        writer: &Sender<Arrival>,
        shared: &Arc<Shared>,
        probe: &ProbeHandle<Epoch>,
    ) -> Result<(), RunError> {
        let mut all_letters = vec![letters];
        for (planned, collections) in self.graph.tables.iter().zip(built.tables) {
            let envelope = Envelope::of_table(&planned.name)?;
            all_letters.push(collections.errs.map(move |error| envelope.seal(&error)));
            let hand_over = hand_over(writer, self.first_table + planned.table);
            tap::tap(collections.oks, &planned.name, owner, hand_over).probe_with(probe);
        }
        let shared = shared.clone();
        let failures = built
            .failures
            .inspect(move |(error, epoch, diff)| shared.observe_violation(error, *epoch, *diff));
        failures.probe_with(probe);
        let letters = differential_dataflow::collection::concatenate(scope, all_letters);
        tap::tap(letters, "dead_letters", owner, hand_over(writer, self.dead_letters)).probe_with(probe);
        Ok(())
    }

    /// Over a lake with a past every table is audited, so none can do without knowing its rows. One that only ever
    /// grew takes no deletion vectors: what is moved or corrected in it is written anew.
    pub fn audit(&mut self) {
        let mut specs = self.specs.to_vec();
        for spec in specs[self.dead_letters..].iter_mut().filter(|spec| spec.append_only) {
            spec.append_only = false;
            spec.deletes = Deletes::Rewrite;
        }
        self.specs = Arc::new(specs);
    }

    /// Whether rows enter or leave as time passes.
    pub fn temporal(&self) -> bool {
        let retained = self.dataflow.inputs.iter().any(|i| i.retention.is_some())
            || self.dataflow.tables.iter().any(|t| t.retention.is_some());
        retained || self.graph.nodes.iter().any(|node| matches!(node.op, Op::Temporal(_)))
    }
}

fn hand_over(writer: &Sender<Arrival>, table: usize) -> impl FnMut(Vec<Update>) + 'static {
    let writer = writer.clone();
    move |updates| {
        // A writer that is gone has reported why; the conductor stops the run.
        let _ = writer.send(Arrival::Rows { table, updates });
    }
}
