//! Alluvium keeps Silver and Gold tables of a lakehouse up to date from change streams and file drops, in
//! one timely/differential dataflow, and commits mutually consistent snapshots of them to Delta tables.
//!
//! Each module imports only modules that stand above it in this table: the vocabulary comes first, then the data's
//! way through the graph, from what comes in to what people read, and last the modules that drive it. `scripts/map`
//! prints deviations from this order.
//!
//! | module | idea |
//! |---|---|
//! | [`repr`] | rows, types, layouts, positions: the vocabulary |
//! | `deep` | work that recurses deeply, on a stack of its own |
//! | [`runtime`] | tokio's runtimes |
//! | `causes` | an error with all of its causes on one line |
//! | `contain` | panics of code that is not ours, as errors |
//! | `backoff` | pauses between attempts |
//! | `shown` | names and bytes from outside, as people may be shown them |
//! | `words` | messages of Arrow and DataFusion in SQL's words |
//! | [`store`] | object stores by URL |
//! | [`lake`] | the lake: its place, its store, what makes it durable |
//! | [`definition`] | the dataflow's folder as types |
//! | [`registry`] | schemas by their ids |
//! | [`plan`] | SQL to a small plan |
//! | [`cluster`] | processes that trust each other: sockets, links |
//! | [`decode`] | bytes to changes of an input |
//! | [`source`] | feeds: bytes come in, and are decoded |
//! | [`render`] | the plan as differential operators |
//! | [`input`] | changes to an input's current rows |
//! | [`latency`] | how long a record takes |
//! | [`evolve`] | columns that inputs take from schemas |
//! | [`sink`] | updates to Delta commits |
//! | [`serve`] | snapshots to people: query, verify |
//! | [`publish`] | snapshots to topics |
//! | [`infer`] | files to an input's definition |
//! | [`backfill`] | files and history fed beside live feeds, on request |
//! | [`run`] | a dataflow as it lives: start, conduct, stop, restore |
//! | [`cases`] | a dataflow's own tests |
//! | [`cli`] | commands: arguments to meaning |

pub mod backfill;
mod backoff;
pub mod cases;
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
pub mod lake;
pub mod latency;
pub mod plan;
pub mod publish;
pub mod registry;
pub mod render;
pub mod repr;
pub mod run;
pub mod runtime;
pub mod serve;
mod shown;
pub mod sink;
pub mod source;
pub mod store;
#[cfg(test)]
mod testing;
mod words;
