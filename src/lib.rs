//! Alluvium keeps Silver and Gold tables of a lakehouse up to date from change streams and file drops, in
//! one timely/differential dataflow, and commits mutually consistent snapshots of them to Delta tables.
//!
//! The data's way through the modules, top to bottom:
//!
//! | module | idea |
//! |---|---|
//! | [`cli`] | commands: arguments to meaning |
//! | [`definition`] | the dataflow's folder as types |
//! | [`plan`] | SQL to a small plan |
//! | [`source`] | feeds: bytes come in |
//! | [`registry`] | schemas by their ids |
//! | [`decode`] | bytes to changes of an input |
//! | [`evolve`] | columns that inputs take from schemas |
//! | [`input`] | changes to an input's current rows |
//! | [`render`] | the plan as differential operators |
//! | [`sink`] | updates to Delta commits |
//! | [`publish`] | snapshots to topics |
//! | [`serve`] | snapshots to people: query, verify |
//! | [`infer`] | files to an input's definition |
//! | [`backfill`] | files and history fed beside live feeds, on request |
//! | [`latency`] | how long a record takes |
//! | [`cluster`] | processes that trust each other: sockets, links |
//! | [`store`] | object stores by URL |
//! | `contain` | panics of code that is not ours, as errors |
//! | `shown` | names and bytes from outside, as people may be shown them |
//! | `words` | messages of Arrow and DataFusion in SQL's words |
//! | [`repr`] | rows, types, layouts: the vocabulary |

pub mod backfill;
mod causes;
pub mod cli;
pub mod cluster;
mod contain;
pub mod decode;
mod deep;
pub mod definition;
pub mod evolve;
pub mod infer;
pub mod input;
pub mod latency;
pub mod plan;
pub mod publish;
pub mod registry;
pub mod render;
pub mod repr;
pub mod run;
pub mod serve;
mod shown;
pub mod sink;
pub mod source;
pub mod store;
#[cfg(test)]
mod testing;
mod words;
