//! The blueprint of a snapshot: enough of the definition and its plan to tell, at a restart, which tables and state of
//! the lake are still valid.
//!
//! It is stored as `_alluvium/plans/<hash>.json`, and each snapshot's intent names its own. Parts are compared by
//! hash: equal hashes have equal meanings. An input is compared column by column, so that an additional column changes
//! nothing for what does not use it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use super::folders::{Folders, folders};
use super::sources::StatefulParts;
use crate::definition::{BlankRows, Column, Dataflow, Feed, Input, TextDialect};
use crate::plan::{
    ENCODING_VERSION, Graph, Op, PlanHash, meaning_of, meaning_text, quoted, retention, texts, used_columns,
};
use crate::repr::Epoch;
use crate::sink::StoredPlan;

/// The version of the form of state tables, and of the errors in them (an error that is worded differently could not
/// be retracted). State of another version, or of another [`ENCODING_VERSION`], is not read but computed again from
/// Bronze.
const FORMAT: u32 = 4;

/// The blueprint of a definition and its plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Blueprint {
    format: u32,
    /// The version of the texts that meanings are hashes of; 0 in the blueprints of earlier versions, which lack it.
    #[serde(default)]
    encoding: u32,
    inputs: BTreeMap<String, InputPrint>,
    tables: BTreeMap<String, TablePrint>,
    /// Aggregates whose accumulators are kept, by meaning.
    sums: BTreeMap<String, SumPrint>,
    /// The names of all operators that hold or make rows, by meaning.
    operators: BTreeMap<String, String>,
    /// The folders of file feeds; empty in the blueprints of earlier versions, which lack it.
    #[serde(default)]
    folders: Folders,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct InputPrint {
    /// A hash of key, order and retention.
    identity: String,
    /// The columns in order, which is the form of stored rows.
    columns: Vec<ColumnForm>,
    /// The columns whose values the stored rows have.
    held: BTreeSet<String>,
    feeds: Vec<FeedPrint>,
    /// The columns that the graph uses. This is part of the running definition only, and is not stored.
    #[serde(skip)]
    used: BTreeSet<String>,
}

/// A column of stored rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnForm {
    /// Its name.
    pub name: String,
    /// Its type as SQL writes it.
    pub sql_type: String,
    /// Whether it may be null.
    pub nullable: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct FeedPrint {
    name: String,
    format: String,
    /// By column: a hash of how it is read from a record.
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
    /// The epoch since which the log of sums is complete for this aggregate.
    since: Epoch,
}

/// How a part of the definition compares with the lake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartStanding {
    /// The lake does not have the part.
    New,
    /// The lake has it with another meaning.
    Changed,
    /// The lake has it with the same meaning.
    Unchanged,
    /// The definition no longer has it.
    Gone,
}

impl fmt::Display for PartStanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            PartStanding::New => "new",
            PartStanding::Changed => "changed",
            PartStanding::Unchanged => "unchanged",
            PartStanding::Gone => "gone",
        })
    }
}

impl PartStanding {
    fn if_same(is_same: bool) -> PartStanding {
        match is_same {
            true => PartStanding::Unchanged,
            false => PartStanding::Changed,
        }
    }
}

/// How an input compares with the lake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputStanding {
    /// Whether its records still have the same meaning, for everything that used them then and uses them now.
    pub standing: PartStanding,
    /// Whether the stored rows have all columns that are used now.
    pub covered: bool,
    /// Whether the stored rows have other columns than rows have now.
    pub reformed: bool,
}

impl Blueprint {
    /// The blueprint of a dataflow.
    pub fn from_dataflow(dataflow: &Dataflow, graph: &Graph, first: &StatefulParts) -> Blueprint {
        let inputs = dataflow.inputs.iter().enumerate();
        let nodes = || graph.nodes.iter().zip(&first.meanings);
        let tables = nodes().filter_map(|(node, meaning)| {
            let Op::Table(table) = node.op else { return None };
            let table = &graph.tables[table];
            let columns = table.schema.fields().iter();
            let print = TablePrint {
                meaning: meaning_text(*meaning),
                columns: columns.map(|f| (f.name().clone(), f.data_type().to_string())).collect(),
            };
            Some((table.name.clone(), print))
        });
        Blueprint {
            format: FORMAT,
            encoding: ENCODING_VERSION,
            inputs: inputs
                .map(|(index, input)| {
                    (
                        input.name.clone(),
                        InputPrint::from_input(input, &used_columns(graph, index)),
                    )
                })
                .collect(),
            tables: tables.collect(),
            sums: first
                .sums
                .iter()
                .map(|node| {
                    let name = graph.nodes[*node].name.clone();
                    (meaning_text(first.meanings[*node]), SumPrint { name, since: 0 })
                })
                .collect(),
            operators: nodes()
                .filter(|(node, _)| !matches!(node.op, Op::Input(_) | Op::Table(_) | Op::Constant(_)))
                .map(|(node, meaning)| (meaning_text(*meaning), node.name.clone()))
                .collect(),
            folders: folders(dataflow),
        }
    }

    /// Whether this version can use what was computed by the blueprint. If another version has written state or
    /// meanings in another form, they are computed again.
    pub fn is_readable(&self) -> bool {
        self.format == FORMAT && self.encoding == ENCODING_VERSION
    }

    /// The folders of file feeds, see [`super::folders`].
    pub fn folders(&self) -> &Folders {
        &self.folders
    }

    /// The names of operators in this blueprint that the other one does not have.
    pub fn operators_beside(&self, other: &Blueprint) -> Vec<&str> {
        let beside = self
            .operators
            .iter()
            .filter(|(meaning, _)| !other.operators.contains_key(*meaning));
        beside.map(|(_, name)| name.as_str()).collect()
    }

    /// The number of operators.
    pub fn operators(&self) -> usize {
        self.operators.len()
    }

    /// The columns of a table as (name, type); `None` if there is no such table.
    pub fn columns(&self, table: &str) -> Option<&[(String, String)]> {
        self.tables.get(table).map(|table| table.columns.as_slice())
    }

    /// Whether both blueprints have the table and compute the same rows for it, whatever its columns are called.
    pub fn computes_alike(&self, other: &Blueprint, table: &str) -> bool {
        match (self.tables.get(table), other.tables.get(table)) {
            (Some(one), Some(other)) => one.meaning == other.meaning,
            _ => false,
        }
    }

    /// Compares an input of `now` with this blueprint.
    pub fn input(&self, now: &Blueprint, name: &str) -> InputStanding {
        let (then, now) = match (self.inputs.get(name), now.inputs.get(name)) {
            (Some(then), Some(now)) if self.is_readable() => (then, now),
            _ => {
                return InputStanding {
                    standing: PartStanding::New,
                    covered: false,
                    reformed: false,
                };
            }
        };
        let unchanged = then.agrees(now);
        InputStanding {
            standing: PartStanding::if_same(unchanged),
            covered: unchanged && now.used.is_subset(&then.held),
            reformed: now.columns != then.columns,
        }
    }

    /// The columns of an input's rows.
    pub fn form(&self, input: &str) -> &[ColumnForm] {
        self.inputs.get(input).map_or(&[], |input| &input.columns)
    }

    /// Takes note that the rows of an input are loaded from a snapshot of `then`, so they have only the columns that
    /// were stored then.
    pub fn take_over(&mut self, input: &str, then: &Blueprint) {
        if let (Some(now), Some(then)) = (self.inputs.get_mut(input), then.inputs.get(input)) {
            now.held.retain(|column| then.held.contains(column));
        }
    }

    /// Compares a table of `now` with this blueprint. Whether the records of its inputs still have the same meaning is
    /// not part of the answer.
    pub fn table(&self, now: &Blueprint, name: &str) -> PartStanding {
        match (self.tables.get(name), now.tables.get(name)) {
            (Some(then), Some(now)) if self.is_readable() => PartStanding::if_same(then == now),
            _ => PartStanding::New,
        }
    }

    /// The epoch since which the log of sums is complete for the aggregate of this meaning; `None` if it is not kept.
    pub fn sums_since(&self, meaning: PlanHash) -> Option<Epoch> {
        let print = self.sums.get(&meaning_text(meaning)).filter(|_| self.is_readable());
        print.map(|print| print.since)
    }

    /// Takes note that the log of sums is complete for the aggregate of this meaning since an epoch.
    pub fn keep_sums_since(&mut self, meaning: PlanHash, since: Epoch) {
        if let Some(print) = self.sums.get_mut(&meaning_text(meaning)) {
            print.since = since;
        }
    }

    /// The blueprint as the lake stores it, named by its hash.
    pub fn plan(&self) -> StoredPlan {
        let bytes = serde_json::to_vec_pretty(self).expect("a blueprint is plain data");
        StoredPlan {
            name: meaning_text(XxHash3_128::oneshot(&bytes)),
            bytes: bytes.into(),
        }
    }
}

/// The further settings of a feed that affect what its records mean; empty for the defaults, so that older blueprints
/// still compare equal.
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
    fn from_input(input: &Input, used: &BTreeSet<usize>) -> InputPrint {
        let read = |column: &Column| {
            let Column { from, format, null, .. } = column;
            meaning_text(meaning_of(&format!(
                "(from {}) (format {}) (null {})",
                texts(from),
                texts(format),
                texts(null)
            )))
        };
        let column = |column: &Column| {
            let nulls = if column.nullable { "null" } else { "not-null" };
            format!("({} {} {nulls})", quoted(&column.name), column.sql_type)
        };
        let names = input.columns.iter().map(|column| column.name.clone());
        let by_row = crate::input::has_state(input) && input.key.is_empty() && input.dedup_key.is_empty();
        InputPrint {
            identity: meaning_text(meaning_of(&format!(
                "(key {}) (order {}) (dedup {}) {} (rows {})",
                texts(&input.key),
                texts(&input.order_by),
                texts(&input.dedup_key),
                retention(&input.retention),
                // An input that counts equal rows has all of its columns as its identity.
                input.columns.iter().filter(|_| by_row).map(column).collect::<String>()
            ))),
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

    /// Whether records still have the same meaning. Feeds may have been added at the end, and nullable columns
    /// anywhere.
    fn agrees(&self, now: &InputPrint) -> bool {
        let is_old = |column: &&ColumnForm| self.columns.iter().any(|then| then.name == column.name);
        let known: Vec<&ColumnForm> = now.columns.iter().filter(is_old).collect();
        let came = now.columns.iter().filter(|column| !is_old(column));
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
