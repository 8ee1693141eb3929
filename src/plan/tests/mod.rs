//! Tests plans against DataFusion: the graph and its logical plan must yield what the user's SQL yields in batch.

mod agree;
mod encoding;
mod evaluate;
mod explain;
mod fixture;
mod foreign;
mod refusals;
mod remedies;
mod subqueries;
mod sweep;
