//! Tests of channels over a real lake, with brokers in memory that fail on request, or with librdkafka's mock cluster.

mod brokers;
mod failing;
mod flow;
mod forms;
mod ledger;
mod mock;
