//! Lays out the tables that the sink keeps, and connects the graph's outputs to them.
//!
//! The order of the sink's tables is: Bronze of every input, dead letters, the definition's tables (each after those
//! that it reads), then the state tables ([`states`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crossbeam_channel::Sender;
use differential_dataflow::AsCollection;
use differential_dataflow::collection::concatenate;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Probe;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::{ProbeHandle, Scope};

use super::RunError;
use super::board::Board;
use super::past::{InputSource, PastSources, StatefulParts, TableSource};
use crate::definition::{Dataflow, Deletes, OnViolation};
use crate::lake::table_folder;
use crate::plan::{Graph, NodeId, Op};
use crate::render::{BuiltGraph, Counters, tap};
use crate::repr::{Diff, Epoch, Pairs, Row, Rows, Update};
use crate::sink::dead_letters::{self, DeadLetterBuilder};
use crate::sink::states::{self, StateCodec};
use crate::sink::{TableSpec, WriterMessage, bronze, owner, sums};

/// The definition, its plan, and the sink's tables.
pub struct Wiring {
    /// The definition as loaded.
    pub dataflow: Arc<Dataflow>,
    /// The plan.
    pub graph: Arc<Graph>,
    /// The sink's tables.
    pub specs: Arc<Vec<TableSpec>>,
    /// The index of each input's Bronze table in `specs`; `None` without Bronze.
    pub bronze: Vec<Option<usize>>,
    /// The index of the dead letters in `specs`.
    pub dead_letters: usize,
    /// The index of the definition's first table in `specs`; the others follow it.
    pub first_table: usize,
    /// The parts of the graph whose state the lake keeps.
    pub first: StatefulParts,
    /// The state tables.
    pub states: StateTables,
    /// Over a lake with a past, how each input, table and aggregate is restored.
    pub sources: Option<PastSources>,
    /// Counters of operators, for reports.
    pub counters: Arc<Counters>,
}

/// The ends of a worker's graph.
pub struct GraphEnds<'a> {
    /// The channel to the worker's writer.
    pub writer: &'a Sender<WriterMessage>,
    pub board: &'a Arc<Board>,
    /// A probe behind all outputs.
    pub probe: &'a ProbeHandle<Epoch>,
}

/// The indexes of the state tables in `specs`.
pub struct StateTables {
    /// For each of [`StatefulParts::inputs`], its table.
    pub inputs: Vec<(usize, usize)>,
    /// The log of the sums of [`StatefulParts::sums`]; `None` if there are no such aggregates.
    pub sums: Option<usize>,
    /// For each of these aggregates, its number in the log.
    pub numbers: Vec<(NodeId, i64)>,
    /// The table of the errors of these aggregates.
    pub errors: Option<usize>,
}

impl StateTables {
    fn add(dataflow: &Dataflow, first: &StatefulParts, specs: &mut Vec<TableSpec>) -> Self {
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

/// Numbers each of [`StatefulParts::sums`]. The number depends on the epoch since which the log holds the aggregate.
fn numbers(first: &StatefulParts, since: impl Fn(NodeId) -> Epoch) -> Vec<(NodeId, i64)> {
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
        specs.push(TableSpec {
            change_data_feed: dataflow.dead_letters.is_some(),
            ..dead_letters::spec()
        });
        let first_table = specs.len();
        specs.extend(graph.tables.iter().map(|planned| {
            let table = &dataflow.tables[planned.table];
            TableSpec {
                name: planned.name.clone(),
                path: table_folder(&planned.name),
                schema: planned.schema.clone(),
                partition_by: planned.partition_by.clone(),
                append_only: planned.append_only,
                summation: None,
                deletes: table.deletes,
                // Topics are published from the change data feed.
                change_data_feed: table.change_data_feed || table.output.is_some(),
                description: table.description.clone(),
            }
        }));
        let first = StatefulParts::from_graph(&dataflow, &graph);
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

    /// Expectations that only warn and are violated; see [`super::RunOutcome::warnings`].
    pub fn warnings(&self) -> Vec<(String, String, u64)> {
        let tables = self.dataflow.tables.iter();
        let warning: BTreeSet<(String, &str)> = tables
            .flat_map(|table| table.expectations.iter().map(|e| (table.qualified_name(), e)))
            .filter(|(_, expectation)| expectation.on_violation == OnViolation::Warn)
            .map(|(table, expectation)| (table, expectation.name.as_str()))
            .collect();
        let counts = self.counters.read().into_iter();
        counts
            .filter(|(table, name, _)| warning.contains(&(table.clone(), name.as_str())))
            .filter_map(|(table, name, rows)| Some((table, name, u64::try_from(rows).ok().filter(|rows| *rows > 0)?)))
            .collect()
    }

    /// Sends the rows of every table, all errors as dead letters, and the state to the worker's writer.
    pub fn connect<'scope>(
        &self,
        scope: Scope<'scope, Epoch>,
        mut built: BuiltGraph<'scope>,
        mut inputs: Vec<Option<Pairs<'scope>>>,
        letters: Rows<'scope>,
        ends: &GraphEnds<'_>,
    ) -> Result<(), RunError> {
        let mut all_letters = vec![letters];
        for (planned, collections) in self.graph.tables.iter().zip(built.tables) {
            let envelope = DeadLetterBuilder::of_table(&planned.name)?;
            all_letters.push(collections.errs.map(move |error| envelope.seal(&error)));
            self.keep(collections.oks, self.first_table + planned.table, ends);
        }
        for (input, table) in &self.states.inputs {
            let rows = inputs[*input].take().expect("an input that holds rows tells them");
            self.keep(encoded(rows, &self.specs[*table].name)?, *table, ends);
        }
        let mut errors = vec![];
        for (node, number) in &self.states.numbers {
            let sum_states = built
                .sums
                .remove(node)
                .expect("an aggregate that was asked to tell does");
            self.log_growth(sum_states.sums, *number, ends);
            let aggregate = states::errors_of(self.first.meanings[*node])?;
            errors.push(
                sum_states
                    .errs
                    .map(move |error| Row::concat(aggregate.bytes(), error.bytes())),
            );
        }
        if let Some(table) = self.states.errors {
            self.keep(concatenate(scope, errors), table, ends);
        }
        let board = ends.board.clone();
        let failures = built
            .failures
            .inspect(move |(error, epoch, diff)| board.violations.observe(error, *epoch, *diff));
        failures.probe_with(ends.probe);
        self.keep(concatenate(scope, all_letters), self.dead_letters, ends);
        Ok(())
    }

    fn keep(&self, rows: Rows<'_>, table: usize, ends: &GraphEnds<'_>) {
        tap::tap(rows, &self.specs[table].name, owner, hand_over(ends.writer, table)).probe_with(ends.probe);
    }

    /// Sends the growth of an aggregate's sums to this worker's writer. The log is append-only, so no writer has to
    /// own a key and no exchange is needed.
    fn log_growth(&self, growth: Pairs<'_>, number: i64, ends: &GraphEnds<'_>) {
        let table = self.states.sums.expect("sums have a log");
        let writer = ends.writer.clone();
        let log = move |growth: Vec<((Row, Row), Epoch, Diff)>| {
            let mut rows: BTreeMap<Epoch, sums::SumRows> = BTreeMap::new();
            for ((key, grew), epoch, _) in growth {
                rows.entry(epoch).or_default().push(number, key.bytes(), grew.bytes());
            }
            for (epoch, mut rows) in rows {
                let batch = rows.finish();
                // A writer that is gone has reported why; the conductor stops the run.
                let _ = writer.send(WriterMessage::Columns { table, epoch, batch });
            }
        };
        tap::end(growth.inner, Pipeline, &self.specs[table].name, log).probe_with(ends.probe);
    }

    /// Takes note of how the past is restored. Returns the indexes of the tables that are audited. An audited table
    /// needs to know its rows, so it is not append-only; one that was gets no deletion vectors, and files with
    /// corrected or moved rows are rewritten.
    pub fn observe_past(&mut self, sources: PastSources) -> Vec<usize> {
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

    /// The log of sums, if the lake has one and nothing of it is loaded.
    pub fn void_log(&self) -> Option<usize> {
        let sources = self.sources.as_ref()?;
        self.states.sums.filter(|_| sources.sums.is_empty())
    }

    /// Whether the rows of an input are loaded from its state table unchanged.
    pub fn loads_input(&self, input: usize) -> bool {
        let sources = self.sources.as_ref();
        sources.is_some_and(|sources| sources.inputs[input] == InputSource::State { reformed: false })
    }

    fn audited(&self, sources: &PastSources) -> Vec<usize> {
        let tables = self.graph.tables.iter().zip(&sources.tables);
        let computed = tables.filter(|(_, source)| **source == TableSource::Graph);
        let computed = computed.map(|(table, _)| self.first_table + table.table);
        let loaded = InputSource::State { reformed: false };
        let inputs = self.states.inputs.iter();
        let fed_again = inputs.filter(|(input, _)| sources.inputs[*input] != loaded);
        let mut audited: Vec<usize> = vec![self.dead_letters];
        audited.extend(computed);
        audited.extend(fed_again.map(|(_, table)| *table));
        audited.extend(self.states.errors); // errors are always fed again
        audited
    }

    /// Whether rows appear or disappear by the passing of time alone.
    pub fn temporal(&self) -> bool {
        let retained = self.dataflow.inputs.iter().any(|i| i.retention.is_some())
            || self.dataflow.tables.iter().any(|t| t.retention.is_some());
        retained || self.graph.nodes.iter().any(|node| matches!(node.op, Op::Temporal(_)))
    }
}

/// Encodes states as rows of their table.
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

fn hand_over(writer: &Sender<WriterMessage>, table: usize) -> impl FnMut(Vec<Update>) + 'static {
    let writer = writer.clone();
    move |updates| {
        // A writer that is gone has reported why; the conductor stops the run.
        let _ = writer.send(WriterMessage::Rows { table, updates });
    }
}
