//! Plans against DataFusion: what the graph and its logical plan yield equals the user's SQL run in batch.

mod agree;
mod evaluate;
mod explain;
mod fixture;
mod foreign;
mod refusals;
mod remedies;
mod subqueries;
mod sweep;
