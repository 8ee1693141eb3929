//! The one integration binary: each module is a room of tests.

mod audits;
mod backfill;
mod cluster;
mod commands;
mod definitions;
mod docs;
mod evolve;
mod faults;
mod foreign;
mod formats;
mod hostile_bounds;
mod hostile_columnar;
mod hostile_engines;
mod hostile_expressions;
mod hostile_files;
mod hostile_headers;
mod hostile_packed;
mod hostile_sheets;
mod hostile_text;
mod hostile_trust;
mod http;
mod judge;
mod kafka;
mod kills;
mod lake;
mod letters;
mod memory;
mod newcomer;
mod oracle;
mod poison;
mod poisoned;
mod postgres;
mod publish;
mod readers;
mod real_data;
mod rebuild;
#[path = "../../src/registry/mock.rs"]
mod registry;
mod restart;
mod runs;
mod spark;
mod stores;
mod support;
#[path = "../../src/testing.rs"]
mod testing;
mod transactions;
