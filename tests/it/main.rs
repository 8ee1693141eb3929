//! The one integration binary: each module is a room of tests.

mod audits;
mod commands;
mod definitions;
mod faults;
mod foreign;
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
