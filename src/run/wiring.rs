//! Which table of the sink is which: the list of tables the sink keeps, and how the graph's outputs reach them.
//!
//! Order of the sink's tables: Bronze of every input, dead letters, the definition's tables, every table behind those it
//! reads, then what the graph holds ([`states`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use crossbeam_channel::Sender;
use differential_dataflow::AsCollection;
use differential_dataflow::collection::concatenate;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Probe;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::{ProbeHandle, Scope};

use super::RunError;
use super::past::{First, InputSource, Sources, TableSource};
use super::shared::Shared;
use crate::definition::{Dataflow, Deletes};
use crate::plan::{Graph, NodeId, Op};
use crate::render::arrange::Pairs;
use crate::render::{Built, Counters, Rows, tap};
use crate::repr::{Diff, Epoch, Row, Update};
use crate::sink::dead_letters::{self, Envelope};
use crate::sink::states::{self, StateCodec};
use crate::sink::{Arrival, TableSpec, bronze, owner, sums};

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
    /// What the graph holds and the lake keeps.
    pub first: First,
    /// Where that is.
    pub states: StateTables,
    /// Over a lake with a past: where it comes from.
    pub sources: Option<Sources>,
    /// What operators count for people.
    pub counters: Arc<Counters>,
}

/// Where what leaves a worker's graph goes.
pub struct Ends<'a> {
    /// To the worker's writer.
    pub writer: &'a Sender<Arrival>,
    pub shared: &'a Arc<Shared>,
    /// Behind all of it.
    pub probe: &'a ProbeHandle<Epoch>,
}

/// Where states are among the sink's tables.
pub struct StateTables {
    /// Each of [`First::inputs`], and its table.
    pub inputs: Vec<(usize, usize)>,
    /// The log of [`First::sums`]; none where there are none.
    pub sums: Option<usize>,
    /// Each of them, and its number in the log.
    pub numbers: Vec<(NodeId, i64)>,
    /// The table of the errors before those.
    pub errors: Option<usize>,
}

impl StateTables {
    fn add(dataflow: &Dataflow, first: &First, specs: &mut Vec<TableSpec>) -> Self {
        let mut add = |spec| {
            specs.push(spec);
            specs.len() - 1
        };
        let input = |input: &usize| (*input, add(states::of_input(&dataflow.inputs[*input].name)));
        let inputs = first.inputs.iter().map(input).collect();
        let numbers = numbers(first, |_| 0);
        let has_sums = !numbers.is_empty();
        StateTables {
            inputs,
            sums: has_sums.then(|| add(log_of(&numbers))),
            numbers,
            errors: has_sums.then(|| add(states::of_errors())),
        }
    }
}

/// Each of [`First::sums`], and its number: by the epoch that the log has it from.
fn numbers(first: &First, since: impl Fn(NodeId) -> Epoch) -> Vec<(NodeId, i64)> {
    let number = |node: &NodeId| (*node, sums::number(first.meanings[*node], since(*node)));
    first.sums.iter().map(number).collect()
}

fn log_of(numbers: &[(NodeId, i64)]) -> TableSpec {
    sums::spec(numbers.iter().map(|(_, number)| *number).collect())
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
                fold: None,
                deletes: table.deletes,
                // What goes to a topic is what the feed tells.
                change_data_feed: table.change_data_feed || table.output.is_some(),
                description: table.description.clone(),
            }
        }));
        let first = First::of(&dataflow, &graph);
        let states = StateTables::add(&dataflow, &first, &mut specs);
        let counters = Arc::new(Counters::default());
        Wiring {
            dataflow,
            graph,
            specs: Arc::new(specs),
            bronze,
            dead_letters,
            first_table,
            first,
            states,
            sources: None,
            counters,
        }
    }

    /// Leads every table's rows, all errors as dead letters, and what the graph holds to the worker's writer.
    pub fn connect<'scope>(
        &self,
        scope: Scope<'scope, Epoch>,
        mut built: Built<'scope>,
        mut inputs: Vec<Option<Pairs<'scope>>>,
        letters: Rows<'scope>,
        ends: &Ends<'_>,
    ) -> Result<(), RunError> {
        let mut all_letters = vec![letters];
        for (planned, collections) in self.graph.tables.iter().zip(built.tables) {
            let envelope = Envelope::of_table(&planned.name)?;
            all_letters.push(collections.errs.map(move |error| envelope.seal(&error)));
            self.keep(collections.oks, self.first_table + planned.table, ends);
        }
        for (input, table) in &self.states.inputs {
            let held = inputs[*input].take().expect("an input that holds rows tells them");
            self.keep(encoded(held, &self.specs[*table].name)?, *table, ends);
        }
        let mut errors = vec![];
        for (node, number) in &self.states.numbers {
            let held = built
                .sums
                .remove(node)
                .expect("an aggregate that was asked to tell does");
            self.log_growth(held.sums, *number, ends);
            let aggregate = states::errors_of(self.first.meanings[*node])?;
            errors.push(
                held.errs
                    .map(move |error| Row::concat(aggregate.bytes(), error.bytes())),
            );
        }
        if let Some(table) = self.states.errors {
            self.keep(concatenate(scope, errors), table, ends);
        }
        let shared = ends.shared.clone();
        let failures = built
            .failures
            .inspect(move |(error, epoch, diff)| shared.observe_violation(error, *epoch, *diff));
        failures.probe_with(ends.probe);
        self.keep(concatenate(scope, all_letters), self.dead_letters, ends);
        Ok(())
    }

    fn keep(&self, rows: Rows<'_>, table: usize, ends: &Ends<'_>) {
        tap::tap(rows, &self.specs[table].name, owner, hand_over(ends.writer, table)).probe_with(ends.probe);
    }

    /// Of the growth of an aggregate no row is ever taken back, so it goes to this worker's writer, wherever its keys belong.
    fn log_growth(&self, growth: Pairs<'_>, number: i64, ends: &Ends<'_>) {
        let table = self.states.sums.expect("sums have a log");
        let writer = ends.writer.clone();
        let log = move |growth: Vec<((Row, Row), Epoch, Diff)>| {
            let mut rows: BTreeMap<Epoch, sums::Rows> = BTreeMap::new();
            for ((key, grew), epoch, _) in growth {
                rows.entry(epoch).or_default().push(number, key.bytes(), grew.bytes());
            }
            for (epoch, mut rows) in rows {
                let batch = rows.finish();
                // A writer that is gone has reported why; the conductor stops the run.
                let _ = writer.send(Arrival::Columns { table, epoch, batch });
            }
        };
        tap::end(growth.inner, Pipeline, &self.specs[table].name, log).probe_with(ends.probe);
    }

    /// The past comes from these sources: says which of the sink's tables are audited. Such a table cannot do without
    /// knowing its rows; one that only ever grew takes no deletion vectors: what is moved or corrected in it is written
    /// anew.
    pub fn observe_past(&mut self, sources: Sources) -> Vec<usize> {
        let audited = self.audited(&sources);
        let mut specs = self.specs.to_vec();
        for table in &audited {
            let spec = &mut specs[*table];
            if spec.append_only {
                spec.append_only = false;
                spec.deletes = Deletes::Rewrite;
            }
        }
        self.states.numbers = numbers(&self.first, |node| sources.since[&node]);
        if let Some(log) = self.states.sums {
            specs[log] = log_of(&self.states.numbers);
        }
        self.specs = Arc::new(specs);
        self.sources = Some(sources);
        audited
    }

    /// The log of sums, where the lake has one of which nothing is loaded.
    pub fn void_log(&self) -> Option<usize> {
        let sources = self.sources.as_ref()?;
        self.states.sums.filter(|_| sources.sums.is_empty())
    }

    /// Whether what an input holds is loaded as it stands in the lake.
    pub fn loads_input(&self, input: usize) -> bool {
        let sources = self.sources.as_ref();
        sources.is_some_and(|sources| sources.inputs[input] == InputSource::State { reformed: false })
    }

    fn audited(&self, sources: &Sources) -> Vec<usize> {
        let tables = self.graph.tables.iter().zip(&sources.tables);
        let computed = tables.filter(|(_, source)| **source == TableSource::Graph);
        let computed = computed.map(|(table, _)| self.first_table + table.table);
        let loaded = InputSource::State { reformed: false };
        let inputs = self.states.inputs.iter();
        let fed_again = inputs.filter(|(input, _)| sources.inputs[*input] != loaded);
        let mut audited: Vec<usize> = vec![self.dead_letters];
        audited.extend(computed);
        audited.extend(fed_again.map(|(_, table)| *table));
        audited.extend(self.states.errors); // all of them are fed
        audited
    }

    /// Whether rows enter or leave as time passes.
    pub fn temporal(&self) -> bool {
        let retained = self.dataflow.inputs.iter().any(|i| i.retention.is_some())
            || self.dataflow.tables.iter().any(|t| t.retention.is_some());
        retained || self.graph.nodes.iter().any(|node| matches!(node.op, Op::Temporal(_)))
    }
}

/// States as rows of their table.
fn encoded<'s>(states: Pairs<'s>, name: &str) -> Result<Rows<'s>, RunError> {
    let codec = StateCodec::new()?;
    let rows = states.inner.unary(Pipeline, &format!("{name}: encode"), move |_, _| {
        move |input, output| {
            input.for_each(|capability, states| {
                let rows = codec.encode(states.iter().map(|(state, _, _)| state));
                let changes = states.drain(..).map(|(_, time, diff)| (time, diff));
                let rows = rows
                    .into_iter()
                    .zip(changes)
                    .map(|(row, (time, diff))| (row, time, diff));
                output.session(&capability).give_iterator(rows);
            });
        }
    });
    Ok(rows.as_collection())
}

fn hand_over(writer: &Sender<Arrival>, table: usize) -> impl FnMut(Vec<Update>) + 'static {
    let writer = writer.clone();
    move |updates| {
        // A writer that is gone has reported why; the conductor stops the run.
        let _ = writer.send(Arrival::Rows { table, updates });
    }
}
