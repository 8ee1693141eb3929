//! Reports what a run over a lake would do first: what is new, changed, unchanged or gone since the newest snapshot,
//! how the past is restored, and how much of it there is. The decision is made by the same code as in a run
//! ([`super::choose`]).

use std::sync::Arc;

use super::blueprint::{Blueprint, PartStanding};
use super::sources::{InputSource, PastSources, TableSource};
use super::{choose, folders, known};
use crate::backfill;
use crate::definition::Dataflow;
use crate::evolve::{self, EvolveError};
use crate::lake::{Lake, LakeError, table_folder};
use crate::plan::compile;
use crate::repr::{Epoch, FeedPositions};
use crate::run::{RunError, Wiring, runtime};
use crate::serve;
use crate::serve::history::HistoryError;
use crate::sink::{CommitError, LakeSurvey, TableSurvey, survey};

/// What a run would do about an input, a table or the state of an aggregate.
#[derive(Clone, Debug)]
pub struct PlannedChange {
    /// `input`, `table` or `state`.
    pub kind: &'static str,
    /// Its name as in SQL.
    pub name: String,
    /// How it compares with the lake.
    pub standing: PartStanding,
    /// What a run would do about it, for people.
    pub does: String,
}

/// See the module's header.
#[derive(Clone, Debug)]
pub struct PlanReport {
    /// The lake's newest snapshot; `None` in a new lake.
    pub epoch: Option<Epoch>,
    /// Whether another version of Alluvium wrote the lake's state, in a form that this one does not read.
    pub is_of_another_version: bool,
    /// Inputs, tables and states; those that are gone come last.
    pub parts: Vec<PlannedChange>,
    /// How many operators stay, and the names of those that come and those that go.
    pub operators: (usize, Vec<String>, Vec<String>),
    /// Rows that would be loaded from the lake.
    pub loaded: u64,
    /// Records that would be replayed from Bronze.
    pub replayed: u64,
    /// Inputs whose feeds would be read again from their start.
    pub reread: Vec<String>,
}

/// Reports what a run would do first. Changes nothing. `recompute` has the meaning of
/// [`super::super::Options::recompute`].
///
/// # Errors
/// The definition cannot be planned, or the lake cannot be read.
pub fn plan(dataflow: Arc<Dataflow>, recompute: bool) -> Result<PlanReport, RunError> {
    let runtime = runtime().map_err(|source| RunError::Thread {
        what: "the runtime",
        source,
    })?;
    let lake = match Lake::open(&dataflow.lake, &dataflow.store_options) {
        Err(LakeError::Absent { .. }) => {
            let graph = compile(&dataflow).map_err(EvolveError::Definition)?;
            return Ok(PlanReport::of_a_new_lake(&Wiring::new(dataflow, Arc::new(graph))));
        }
        lake => lake?,
    };
    let (dataflow, graph) = runtime.block_on(evolve::known(&dataflow, &lake))?;
    let wiring = Wiring::new(Arc::new(dataflow), Arc::new(graph));
    let dataflow = &wiring.dataflow;
    let lake_survey = runtime.block_on(survey(&lake, &wiring.specs, dataflow.history))?;
    let altered: Vec<bool> = lake_survey
        .tables
        .iter()
        .map(|table_survey| table_survey.as_ref().is_none_or(|survey| survey.altered))
        .collect();
    let past_plan = lake_survey.plan.as_ref().filter(|_| !recompute);
    let (now, then, sources) = match lake_survey.epoch {
        Some(epoch) => choose(&wiring, &lake, runtime.handle(), epoch, past_plan, &altered)?,
        None => return Ok(PlanReport::of_a_new_lake(&wiring)),
    };
    let progress = runtime
        .block_on(serve::progress(&lake, lake_survey.epoch))
        .map_err(CommitError::from)?;
    if let Some(written) = known(lake_survey.plan.as_ref()) {
        folders::refuse_shifted(dataflow, (&written, &now), &progress)?;
    }
    refuse_unknown_feeds(dataflow, &sources, &progress)?;
    let mut reporter = Reporter {
        wiring: &wiring,
        lake_survey: &lake_survey,
        now: &now,
        then: then.as_ref(),
        sources: &sources,
        report: PlanReport {
            epoch: lake_survey.epoch,
            is_of_another_version: then.as_ref().is_some_and(|then| !then.is_readable()),
            parts: vec![],
            operators: operators(&now, then.as_ref()),
            loaded: 0,
            replayed: 0,
            reread: vec![],
        },
    };
    reporter.inputs();
    reporter.tables();
    reporter.sums();
    reporter.gone();
    Ok(reporter.report)
}

/// Refuses what would make replaying an input's Bronze fail: records of a feed that the definition does not have.
fn refuse_unknown_feeds(
    dataflow: &Dataflow,
    sources: &PastSources,
    progress: &FeedPositions,
) -> Result<(), HistoryError> {
    let replayed = dataflow.inputs.iter().zip(&sources.inputs);
    for (input, _) in replayed.filter(|(_, source)| matches!(source, InputSource::Bronze)) {
        let mut read = progress.keys().filter(|id| id.input == input.name);
        let removed_feed = read.find(|id| id.feed != backfill::FEED && input.feed_index(&id.feed).is_none());
        if let Some(id) = removed_feed {
            return Err(HistoryError::UnknownFeed {
                input: input.name.clone(),
                feed: id.feed.clone(),
            });
        }
    }
    Ok(())
}

fn operators(now: &Blueprint, then: Option<&Blueprint>) -> (usize, Vec<String>, Vec<String>) {
    let unknown = Blueprint::default();
    let then = then.unwrap_or(&unknown);
    let names = |names: Vec<&str>| names.into_iter().map(str::to_string).collect::<Vec<_>>();
    let new = names(now.operators_beside(then));
    (now.operators() - new.len(), new, names(then.operators_beside(now)))
}

impl PlanReport {
    fn of_a_new_lake(wiring: &Wiring) -> PlanReport {
        let part = |kind, name: &str, does: &str| PlannedChange {
            kind,
            name: name.to_string(),
            standing: PartStanding::New,
            does: does.to_string(),
        };
        let inputs = wiring
            .dataflow
            .inputs
            .iter()
            .map(|input| part("input", &input.name, "its feeds are read from their start"));
        let tables = wiring
            .graph
            .tables
            .iter()
            .map(|table| part("table", &table.name, "is made"));
        let now = Blueprint::from_dataflow(&wiring.dataflow, &wiring.graph, &wiring.first);
        PlanReport {
            epoch: None,
            is_of_another_version: false,
            parts: inputs.chain(tables).collect(),
            operators: operators(&now, None),
            loaded: 0,
            replayed: 0,
            reread: vec![],
        }
    }
}

struct Reporter<'a> {
    wiring: &'a Wiring,
    lake_survey: &'a LakeSurvey,
    now: &'a Blueprint,
    then: Option<&'a Blueprint>,
    sources: &'a PastSources,
    report: PlanReport,
}

impl Reporter<'_> {
    fn push(&mut self, kind: &'static str, name: &str, standing: PartStanding, does: String) {
        self.report.parts.push(PlannedChange {
            kind,
            name: name.to_string(),
            standing,
            does,
        });
    }

    fn survey_of(&self, table: usize) -> Option<&TableSurvey> {
        self.lake_survey.tables[table].as_ref()
    }

    fn rows(&self, table: usize) -> u64 {
        self.survey_of(table).map_or(0, |found| found.rows)
    }

    fn inputs(&mut self) {
        for (index, input) in self.wiring.dataflow.inputs.iter().enumerate() {
            let standing = self.then.map(|then| then.input(self.now, &input.name).standing);
            let standing = match (
                standing,
                self.wiring.bronze[index].and_then(|table| self.survey_of(table)),
            ) {
                (Some(standing), _) => standing,
                (None, Some(_)) => PartStanding::Changed,
                (None, None) => PartStanding::New,
            };
            let does = match self.sources.inputs[index] {
                InputSource::None => "no table needs its past".to_string(),
                InputSource::State { reformed } => {
                    let mut states = self.wiring.states.inputs.iter();
                    let rows = states
                        .find(|(of, _)| *of == index)
                        .map_or(0, |(_, table)| self.rows(*table));
                    self.report.loaded += rows;
                    let form = if reformed {
                        ", and written in their new form"
                    } else {
                        ""
                    };
                    format!("{} loaded from state{form}", counted_are(rows, "row"))
                }
                InputSource::Bronze => {
                    let records = self.wiring.bronze[index].map_or(0, |table| self.rows(table));
                    self.report.replayed += records;
                    format!("{} replayed from Bronze", counted_are(records, "record"))
                }
                InputSource::Feeds => {
                    self.report.reread.push(input.name.clone());
                    "its feeds are read again up to where they were (it keeps no Bronze)".to_string()
                }
            };
            self.push("input", &input.name, standing, does);
        }
    }

    fn tables(&mut self) {
        for (index, table) in self.wiring.graph.tables.iter().enumerate() {
            let place = self.wiring.first_table + table.table;
            let table_survey = self.survey_of(place).cloned();
            let standing = match (self.then.map(|then| then.table(self.now, &table.name)), &table_survey) {
                (_, None) => PartStanding::New,
                (Some(standing), _) => standing,
                (None, Some(_)) => PartStanding::Changed,
            };
            let mut does = match (self.sources.tables[index], &table_survey) {
                (TableSource::Itself { fed: false }, Some(table_survey)) => match table_survey.rows {
                    1 => "its 1 row stands as it is".to_string(),
                    rows => format!("its {rows} rows stand as they are"),
                },
                (TableSource::Itself { .. }, Some(table_survey)) => {
                    self.report.loaded += table_survey.rows;
                    match table_survey.rows {
                        1 => "its 1 row stands, and is fed to what reads it".to_string(),
                        rows => format!("its {rows} rows stand, and are fed to what reads them"),
                    }
                }
                (_, None) => "is made".to_string(),
                (
                    _,
                    Some(TableSurvey {
                        replaced: Some(reason),
                        rows,
                        ..
                    }),
                ) => {
                    format!("its {} replaced: {reason}", counted_are(*rows, "row"))
                }
                (_, Some(table_survey)) => format!(
                    "is computed again; of its {} those that differ are written",
                    counted(table_survey.rows, "row")
                ),
            };
            if let Some(changes) = self.column_changes(&table.name) {
                does = format!("{does} ({changes})");
            }
            self.push("table", &table.name, standing, does);
        }
    }

    /// Describes columns that are added, dropped, renamed, or of another type.
    fn column_changes(&self, table: &str) -> Option<String> {
        let (then, now) = (self.then?.columns(table)?, self.now.columns(table)?);
        let mut changes: Vec<String> = Vec::new();
        if self.then?.computes_alike(self.now, table) && then.len() == now.len() {
            let renamed = then.iter().zip(now).filter(|((then, _), (now, _))| then != now);
            changes.extend(renamed.map(|((then, _), (now, _))| format!("column {then} is called {now}")));
        } else {
            let has = |columns: &[(String, String)], name: &str| columns.iter().any(|(column, _)| column == name);
            let dropped = then.iter().filter(|(name, _)| !has(now, name));
            changes.extend(dropped.map(|(name, _)| format!("column {name} is dropped")));
            let came = now.iter().filter(|(name, _)| !has(then, name));
            changes.extend(came.map(|(name, _)| format!("column {name} is added")));
            let types = now.iter().filter_map(|(name, now)| {
                let (_, then) = then.iter().find(|(column, _)| column == name)?;
                (then != now).then(|| format!("column {name} was {then} and is {now}"))
            });
            changes.extend(types);
        }
        (!changes.is_empty()).then(|| changes.join(", "))
    }

    fn sums(&mut self) {
        let states = &self.wiring.states;
        let Some(log) = states.sums else { return };
        for (node, _) in &states.numbers {
            let name = &self.wiring.graph.nodes[*node].name;
            match self.sources.sums.contains(node) {
                true => self.push(
                    "state",
                    name,
                    PartStanding::Unchanged,
                    "its sums are loaded from state".into(),
                ),
                false => self.push("state", name, PartStanding::New, "its sums are made again".into()),
            }
        }
        if !self.sources.sums.is_empty() {
            self.report.loaded += self.rows(log);
        }
    }

    fn gone(&mut self) {
        for table in &self.lake_survey.gone {
            let place = table_folder(table);
            self.push(
                "table",
                table,
                PartStanding::Gone,
                format!("is left in the lake, as {place}"),
            );
        }
    }
}

fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A number with its noun and verb: `1 row is`, `2 rows are`.
fn counted_are(count: u64, noun: &str) -> String {
    format!("{} {}", counted(count, noun), if count == 1 { "is" } else { "are" })
}
