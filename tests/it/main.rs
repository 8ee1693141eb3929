//! The one integration binary: each module is a room of tests.

mod audits;
mod cluster;
mod commands;
mod definitions;
mod faults;
mod foreign;
mod kills;
mod lake;
mod oracle;
mod readers;
mod real_data;
mod restart;
mod runs;
mod stores;
mod support;
#[path = "../../src/testing.rs"]
mod testing;
