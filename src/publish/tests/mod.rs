//! Channels over a real lake: brokers are made up and fail where a test wants, or are librdkafka's mock cluster.

mod brokers;
mod failing;
mod flow;
mod forms;
mod ledger;
mod mock;
