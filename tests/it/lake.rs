//! Helpers that query a lake, and check whether its tables are what batch computes from Bronze.

use alluvium::definition::Dataflow;
use alluvium::serve::{LakeReader, PrintFormat, verify};

use crate::support::{assert_exact, chain};

/// The rows of a query over the newest snapshot, as CSV without its header.
#[track_caller]
pub fn ask(dataflow: &Dataflow, sql: &str) -> String {
    let rows = LakeReader::open(dataflow, None)
        .and_then(|reader| reader.print(sql, PrintFormat::Csv))
        .unwrap_or_else(|e| panic!("{sql}: {}", chain(&e)));
    rows.lines().skip(1).collect::<Vec<_>>().join("\n")
}

/// Asserts that every table at the newest snapshot equals its SQL in batch over Bronze.
#[track_caller]
pub fn assert_newest_is_exact(dataflow: &Dataflow, what: &str) {
    let report = verify::verify(dataflow, None).unwrap_or_else(|e| panic!("verify: {}", chain(&e)));
    assert_exact(&report, what);
}

/// Asserts the same for every snapshot that the lake names; returns their number.
#[track_caller]
pub fn assert_all_are_exact(dataflow: &Dataflow) -> usize {
    let epochs = verify::snapshots(dataflow).unwrap_or_else(|e| panic!("no snapshots: {}", chain(&e)));
    for epoch in &epochs {
        let report = verify::verify(dataflow, Some(*epoch)).unwrap_or_else(|e| panic!("verify: {}", chain(&e)));
        assert_exact(&report, &format!("snapshot {epoch}"));
    }
    epochs.len()
}
