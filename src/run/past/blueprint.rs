//! What a snapshot was computed by: enough of the definition and its plan to tell, at a restart, which of what the lake
//! holds still means what it says.
//!
//! Kept as `_alluvium/plans/<hash>.json`; each snapshot's intent names its own. Parts are compared by hash: equal hash,
//! equal meaning. An input is compared column by column, so that a column more changes nothing for what does not use it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::folders::{Folders, folders};
use super::sources::First;
use crate::definition::{BlankRows, Column, Dataflow, Feed, Input, TextDialect};
use crate::plan::{Graph, Op, used_columns};
use crate::repr::Epoch;
use crate::sink::Plan;

/// The form of states in the lake, and of the errors that they hold: one that is worded otherwise could not be taken back.
/// What is written in another form is not read: it is made anew from Bronze.
const FORMAT: u32 = 3;

/// A definition and its plan, as a snapshot remembers them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Blueprint {
    format: u32,
    inputs: BTreeMap<String, InputPrint>,
    tables: BTreeMap<String, TablePrint>,
    /// By meaning: aggregates whose accumulators are kept.
    sums: BTreeMap<String, SumPrint>,
    /// Of all operators that hold or make rows, by meaning: what they are called.
    operators: BTreeMap<String, String>,
    /// Of file feeds; none in what earlier versions wrote.
    #[serde(default)]
    folders: Folders,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct InputPrint {
    /// Key, order, retention.
    identity: String,
    /// The columns in order: the form of rows.
    columns: Vec<ColumnForm>,
    /// Columns whose values the rows that are held have.
    held: BTreeSet<String>,
    feeds: Vec<FeedPrint>,
    /// What the graph looks at now; not part of the past.
    #[serde(skip)]
    used: BTreeSet<String>,
}

/// A column of rows that are held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnForm {
    /// Its name.
    pub name: String,
    /// As in SQL.
    pub sql_type: String,
    /// Whether it may be null.
    pub nullable: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct FeedPrint {
    name: String,
    format: String,
    /// By column: how it is read.
    columns: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct TablePrint {
    meaning: String,
    columns: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SumPrint {
    name: String,
    /// From which epoch on the log has all that it summed up.
    since: Epoch,
}

/// How a part of the definition stands to the lake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The lake does not have it.
    New,
    /// The lake's is another.
    Changed,
    /// The lake's is this one.
    Unchanged,
    /// The definition does not have it any more.
    Gone,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Standing::New => "new",
            Standing::Changed => "changed",
            Standing::Unchanged => "unchanged",
            Standing::Gone => "gone",
        })
    }
}

impl Standing {
    fn of(is_same: bool) -> Standing {
        match is_same {
            true => Standing::Unchanged,
            false => Standing::Changed,
        }
    }
}

/// How an input stands to the lake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputStanding {
    /// Whether its records mean what they meant, for what looked at them then and does now.
    pub standing: Standing,
    /// Whether what was kept of its rows has all that is looked at now.
    pub covered: bool,
    /// Whether that is in another form than rows of now.
    pub reformed: bool,
}

impl Blueprint {
    /// Of a dataflow.
    pub fn of(dataflow: &Dataflow, graph: &Graph, first: &First) -> Blueprint {
        let inputs = dataflow.inputs.iter().enumerate();
        let nodes = || graph.nodes.iter().zip(&first.meanings);
        let tables = nodes().filter_map(|(node, meaning)| {
            let Op::Table(table) = node.op else { return None };
            let table = &graph.tables[table];
            let columns = table.schema.fields().iter();
            let print = TablePrint {
                meaning: text(*meaning),
                columns: columns.map(|f| (f.name().clone(), f.data_type().to_string())).collect(),
            };
            Some((table.name.clone(), print))
        });
        Blueprint {
            format: FORMAT,
            inputs: inputs
                .map(|(index, input)| (input.name.clone(), InputPrint::of(input, &used_columns(graph, index))))
                .collect(),
            tables: tables.collect(),
            sums: first
                .sums
                .iter()
                .map(|node| {
                    let name = graph.nodes[*node].name.clone();
                    (text(first.meanings[*node]), SumPrint { name, since: 0 })
                })
                .collect(),
            operators: nodes()
                .filter(|(node, _)| !matches!(node.op, Op::Input(_) | Op::Table(_) | Op::Constant(_)))
                .map(|(node, meaning)| (text(*meaning), node.name.clone()))
                .collect(),
            folders: folders(dataflow),
        }
    }

    /// See [`super::folders`].
    pub fn folders(&self) -> &Folders {
        &self.folders
    }

    /// Operators of this one that the other does not have, by name.
    pub fn operators_beside(&self, other: &Blueprint) -> Vec<&str> {
        let beside = self
            .operators
            .iter()
            .filter(|(meaning, _)| !other.operators.contains_key(*meaning));
        beside.map(|(_, name)| name.as_str()).collect()
    }

    /// How many operators there are.
    pub fn operators(&self) -> usize {
        self.operators.len()
    }

    /// A table's columns, as (name, type); none of a table that it does not have.
    pub fn columns(&self, table: &str) -> Option<&[(String, String)]> {
        self.tables.get(table).map(|table| table.columns.as_slice())
    }

    /// Whether two definitions of a table compute the same rows, columns' names aside.
    pub fn computes_alike(&self, other: &Blueprint, table: &str) -> bool {
        match (self.tables.get(table), other.tables.get(table)) {
            (Some(one), Some(other)) => one.meaning == other.meaning,
            _ => false,
        }
    }

    /// How an input of `now` stands to this one.
    pub fn input(&self, now: &Blueprint, name: &str) -> InputStanding {
        let (then, now) = match (self.inputs.get(name), now.inputs.get(name)) {
            (Some(then), Some(now)) if self.format == FORMAT => (then, now),
            _ => {
                return InputStanding {
                    standing: Standing::New,
                    covered: false,
                    reformed: false,
                };
            }
        };
        let unchanged = then.agrees(now);
        InputStanding {
            standing: Standing::of(unchanged),
            covered: unchanged && now.used.is_subset(&then.held),
            reformed: now.columns != then.columns,
        }
    }

    /// The form of an input's rows.
    pub fn form(&self, input: &str) -> &[ColumnForm] {
        self.inputs.get(input).map_or(&[], |input| &input.columns)
    }

    /// Rows of an input are those that another definition's run held: they have the values they had.
    pub fn take_over(&mut self, input: &str, then: &Blueprint) {
        if let (Some(now), Some(then)) = (self.inputs.get_mut(input), then.inputs.get(input)) {
            now.held.retain(|column| then.held.contains(column));
        }
    }

    /// How a table of `now` stands to this one; what its inputs' records mean is not asked.
    pub fn table(&self, now: &Blueprint, name: &str) -> Standing {
        match (self.tables.get(name), now.tables.get(name)) {
            (Some(then), Some(now)) if self.format == FORMAT => Standing::of(then == now),
            _ => Standing::New,
        }
    }

    /// From which epoch on the log has all that an aggregate of this meaning summed up; none: it is not kept.
    pub fn sums_since(&self, meaning: u64) -> Option<Epoch> {
        let print = self.sums.get(&text(meaning)).filter(|_| self.format == FORMAT);
        print.map(|print| print.since)
    }

    /// The log has all that an aggregate of this meaning summed up from an epoch on.
    pub fn keep_sums_since(&mut self, meaning: u64, since: Epoch) {
        if let Some(print) = self.sums.get_mut(&text(meaning)) {
            print.since = since;
        }
    }

    /// As the lake keeps it, under its hash.
    pub fn plan(&self) -> Plan {
        let bytes = serde_json::to_vec_pretty(self).expect("a blueprint is plain data");
        Plan {
            name: text(XxHash3_64::oneshot(&bytes)),
            bytes: bytes.into(),
        }
    }
}

/// What else records of a feed mean something by; empty where it is as ever.
fn wire_of(feed: &Feed) -> String {
    let unavailable = feed
        .wire
        .unavailable
        .iter()
        .map(|text| format!(" unavailable {text:?}"));
    let tables = feed.wire.tables.iter().map(|table| format!(" of {table:?}"));
    let text = (feed.wire.text != TextDialect::default()).then(|| format!(" {:?}", feed.wire.text));
    let blank_rows = (feed.wire.blank_rows == BlankRows::Skip).then(|| " without blank rows".to_string());
    unavailable.chain(tables).chain(text).chain(blank_rows).collect()
}

impl InputPrint {
    fn of(input: &Input, used: &BTreeSet<usize>) -> InputPrint {
        let read = |column: &Column| text_of(&format!("{:?}", (&column.from, &column.format, &column.null)));
        let names = input.columns.iter().map(|column| column.name.clone());
        let by_row = crate::input::has_state(input) && input.key.is_empty() && input.dedup_key.is_empty();
        InputPrint {
            identity: text_of(&format!(
                "{:?} {:?} {:?} {:?} {:?}",
                input.key,
                input.order_by,
                input.dedup_key,
                input.retention,
                // What counts equal rows counts all of their columns.
                by_row.then_some(&input.columns)
            )),
            columns: input
                .columns
                .iter()
                .map(|column| ColumnForm {
                    name: column.name.clone(),
                    sql_type: column.sql_type.to_string(),
                    nullable: column.nullable,
                })
                .collect(),
            held: names.collect(),
            feeds: input
                .feeds
                .iter()
                .map(|feed| FeedPrint {
                    name: feed.name.clone(),
                    format: format!("{:?}{}", feed.format, wire_of(feed)),
                    columns: feed.columns.iter().map(|c| (c.name.clone(), read(c))).collect(),
                })
                .collect(),
            used: used.iter().map(|column| input.columns[*column].name.clone()).collect(),
        }
    }

    /// Whether records mean what they meant. Feeds may have come at the end, and columns that may be null anywhere.
    fn agrees(&self, now: &InputPrint) -> bool {
        let kept = |column: &&ColumnForm| self.columns.iter().any(|then| then.name == column.name);
        let known: Vec<&ColumnForm> = now.columns.iter().filter(kept).collect();
        let came = now.columns.iter().filter(|column| !kept(column));
        let same_read = |then: &FeedPrint, now: &FeedPrint| {
            (&then.name, &then.format) == (&now.name, &now.format)
                && then
                    .columns
                    .iter()
                    .all(|(column, read)| now.columns.get(column) == Some(read))
        };
        self.identity == now.identity
            && self.columns.iter().eq(known)
            && came.into_iter().all(|column| column.nullable)
            && self.feeds.len() <= now.feeds.len()
            && self
                .feeds
                .iter()
                .zip(&now.feeds)
                .all(|(then, now)| same_read(then, now))
    }
}

fn text(hash: u64) -> String {
    format!("{hash:016x}")
}

fn text_of(meaning: &str) -> String {
    text(XxHash3_64::oneshot(meaning.as_bytes()))
}
