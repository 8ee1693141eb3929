//! The one integration binary: each module is a room of tests.

mod audits;
mod backfill;
mod commands;
mod lake;
mod memory;
mod oracle;
mod readers;
mod real_data;
mod rebuild;
mod restart;
mod runs;
mod stores;
mod support;
#[path = "../../src/testing.rs"]
mod testing;
