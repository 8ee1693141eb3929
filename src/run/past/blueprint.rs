//! What a snapshot was computed by: enough of the definition and its plan to tell, at a restart, which of what the lake
//! holds still means what it says.
//!
//! Kept as `_alluvium/plans/<hash>.json`; each snapshot's intent names its own. Parts are compared by hash: equal hash,
//! equal meaning. An input is compared column by column, so that a column more changes nothing for what does not use it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::sources::First;
use crate::definition::{Column, Dataflow, Input};
use crate::plan::{Graph, meanings, used_columns};

/// The form of states in the lake. What is written in another form is not read: it is made anew from Bronze.
const FORMAT: u32 = 1;

/// A definition and its plan, as a snapshot remembers them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Blueprint {
    format: u32,
    inputs: BTreeMap<String, InputPrint>,
    tables: BTreeMap<String, TablePrint>,
    /// Meanings of aggregates whose accumulators are kept, and what they are called.
    sums: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct InputPrint {
    /// Key, order, retention.
    identity: String,
    /// The columns in order, with their types: the form of rows.
    columns: Vec<(String, String)>,
    /// What the graph looks at.
    used: BTreeSet<String>,
    feeds: Vec<FeedPrint>,
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

/// How a part of the definition stands to the lake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The lake does not have it.
    New,
    /// The lake's is another.
    Changed,
    /// The lake's is this one.
    Unchanged,
}

/// How an input stands to the lake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputStanding {
    /// Whether its records mean what they meant, for what looked at them then and does now.
    pub standing: Standing,
    /// Whether what was kept of its rows has all that is looked at now, in the form of now.
    pub covered: bool,
}

impl Blueprint {
    /// Of a dataflow.
    pub fn of(dataflow: &Dataflow, graph: &Graph, first: &First) -> Blueprint {
        let meanings = meanings(dataflow, graph);
        let inputs = dataflow.inputs.iter().enumerate();
        let tables = graph.tables.iter().map(|table| {
            let node = graph
                .nodes
                .iter()
                .position(|node| matches!(node.op, crate::plan::Op::Table(t) if graph.tables[t].name == table.name));
            let node = node.expect("every planned table is a node too");
            let columns = table.schema.fields().iter();
            let print = TablePrint {
                meaning: text(meanings[node]),
                columns: columns.map(|f| (f.name().clone(), f.data_type().to_string())).collect(),
            };
            (table.name.clone(), print)
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
                .map(|node| (text(meanings[*node]), graph.nodes[*node].name.clone()))
                .collect(),
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
                };
            }
        };
        let unchanged = then.agrees(now);
        InputStanding {
            standing: if unchanged {
                Standing::Unchanged
            } else {
                Standing::Changed
            },
            covered: unchanged && now.used.is_subset(&then.used) && now.columns == then.columns,
        }
    }

    /// How a table of `now` stands to this one; what its inputs' records mean is not asked.
    pub fn table(&self, now: &Blueprint, name: &str) -> Standing {
        match (self.tables.get(name), now.tables.get(name)) {
            (Some(then), Some(now)) if self.format == FORMAT => match then == now {
                true => Standing::Unchanged,
                false => Standing::Changed,
            },
            _ => Standing::New,
        }
    }

    /// Whether the accumulators of an aggregate of this meaning are kept.
    pub fn has_sums(&self, meaning: u64) -> bool {
        self.format == FORMAT && self.sums.contains_key(&text(meaning))
    }

    /// Its name in the lake.
    pub fn hash(&self) -> String {
        text(XxHash3_64::oneshot(&self.bytes()))
    }

    /// As it is kept.
    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("a blueprint is plain data")
    }
}

impl InputPrint {
    fn of(input: &Input, used: &BTreeSet<usize>) -> InputPrint {
        let read = |columns: &[Column]| {
            columns
                .iter()
                .map(|c| (c.name.clone(), text_of(&format!("{c:?}"))))
                .collect()
        };
        let by_name = [&input.key, &input.order_by, &input.dedup_key].into_iter().flatten();
        let by_name = by_name.chain(input.retention.iter().map(|retention| &retention.column));
        let used = used.iter().map(|column| &input.columns[*column].name);
        InputPrint {
            identity: text_of(&format!(
                "{:?} {:?} {:?} {:?} {}",
                input.key,
                input.order_by,
                input.dedup_key,
                input.retention,
                crate::input::retracts(input)
            )),
            columns: input
                .columns
                .iter()
                .map(|c| (c.name.clone(), c.sql_type.to_string()))
                .collect(),
            used: used.chain(by_name).cloned().collect(),
            feeds: input
                .feeds
                .iter()
                .map(|feed| FeedPrint {
                    name: feed.name.clone(),
                    format: format!("{:?}", feed.format),
                    columns: read(&feed.columns),
                })
                .collect(),
        }
    }

    /// Whether records mean the same to what looked at them then and does now. Feeds may have come at the end.
    fn agrees(&self, now: &InputPrint) -> bool {
        let both: Vec<&String> = self.used.intersection(&now.used).collect();
        let alike = |then: &FeedPrint, now: &FeedPrint| {
            (&then.name, &then.format) == (&now.name, &now.format)
                && both
                    .iter()
                    .all(|column| then.columns.get(*column) == now.columns.get(*column))
        };
        // Without columns every field of a row counts: what identifies a row without a key is the whole of it.
        self.identity == now.identity
            && self.feeds.len() <= now.feeds.len()
            && self.feeds.iter().zip(&now.feeds).all(|(then, now)| alike(then, now))
    }
}

fn text(hash: u64) -> String {
    format!("{hash:016x}")
}

fn text_of(meaning: &str) -> String {
    text(XxHash3_64::oneshot(meaning.as_bytes()))
}
