//! Applies a table's retention, expectations and key check to its rows, before anything reads them.
//!
//! ```text
//! node -> retention -> expectations -> one row per key -> the table
//! ```

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::{is_null, not, or_kleene};
use datafusion::physical_expr::expressions::Column;

use super::arrange::scan;
use super::columns::{BatchKernel, ColumnBatches, Computed, compute};
use super::error::Errors;
use super::expr::{evaluated, relaxed};
use super::key::keyed;
use super::{Collections, tagged};
use crate::definition::OnViolation;
use crate::plan::{Expr, PlannedExpectation, PlannedTable};
use crate::repr::RowCodec;

/// Counts how many rows currently violate each expectation (`warn`, `drop` or `fail`) in this process, by table and
/// expectation. Updates of open epochs are included, so the counts belong to no snapshot.
#[derive(Debug, Default)]
pub struct Counters {
    counts: std::sync::Mutex<BTreeMap<(String, String), Arc<AtomicI64>>>,
}

impl Counters {
    /// The counter of an expectation, which all workers share.
    pub fn counter(&self, table: &str, expectation: &str) -> Arc<AtomicI64> {
        let mut counts = self.counts.lock().expect("no one panics while holding the counters");
        counts
            .entry((table.to_string(), expectation.to_string()))
            .or_default()
            .clone()
    }

    /// All counters as (table, expectation, violating rows).
    pub fn read(&self) -> Vec<(String, String, i64)> {
        let counts = self.counts.lock().expect("no one panics while holding the counters");
        counts
            .iter()
            .map(|((table, name), count)| (table.clone(), name.clone(), count.load(Ordering::Relaxed)))
            .collect()
    }
}

/// Applies an expectation. `main` has the rows that stay in the table, `rest` the violations that must stop the run.
pub fn expect<'s>(
    input: ColumnBatches<'s>,
    table: &str,
    expectation: &PlannedExpectation,
    counters: &Counters,
) -> Computed<'s> {
    let name = format!("{table}: expect {}", expectation.name);
    let count = counters.counter(table, &expectation.name);
    let reason = format!("expectation {:?} of {table} violated", expectation.name);
    let kernel = check(expectation.check.clone(), expectation.on_violation, reason, count);
    compute(input, &name, kernel)
}

fn check(check: Expr, on_violation: OnViolation, reason: String, count: Arc<AtomicI64>) -> BatchKernel {
    let errors = Errors::default();
    Box::new(move |rows, made| {
        let checked = evaluated(&check, &rows.batch)?;
        // Both true and null pass. A check that is null for all rows may have the type Null.
        let passed = match checked.as_boolean_opt() {
            Some(checked) => or_kleene(checked, &is_null(checked)?)?,
            None => BooleanArray::from(vec![true; rows.diffs.len()]),
        };
        let kept_rows = match on_violation {
            OnViolation::Drop => rows.filter(&passed)?,
            OnViolation::Warn | OnViolation::Fail => rows.slice(0, rows.diffs.len()),
        };
        for row in not(&passed)?.values().set_indices() {
            let (time, diff) = (rows.times[row], rows.diffs[row]);
            count.fetch_add(diff, Ordering::Relaxed);
            match on_violation {
                OnViolation::Warn => {}
                OnViolation::Drop => made.errs.push((errors.row(&reason, &rows.batch, row), time, diff)),
                OnViolation::Fail => made.rest.push((errors.row(&reason, &rows.batch, row), time, diff)),
            }
        }
        if !kept_rows.diffs.is_empty() {
            made.main.push(Rc::new(kept_rows));
        }
        Ok(())
    })
}

/// The beginning of the reason of rows that are refused because another row has the same key.
pub const CLASH: &str = "more than one row of";

/// Passes a row on if no other row has its key. If several rows share a key, all of them become errors, until only one
/// is left.
pub fn unique<'s>(input: Collections<'s>, table: &PlannedTable) -> Collections<'s> {
    let names: Vec<&str> = table
        .key
        .iter()
        .map(|i| table.schema.field(*i).name().as_str())
        .collect();
    let keys: Vec<Expr> = table
        .key
        .iter()
        .map(|i| Arc::new(Column::new(table.schema.field(*i).name(), *i)) as Expr)
        .collect();
    let reason = format!("{CLASH} {} with this key ({})", table.name, names.join(", "));
    let name = format!("{}: key", table.name);
    let by_key = keyed(input.oks, &table.schema, &keys, false, &name);
    let codec = RowCodec::new(relaxed(&table.schema)).expect("a planned schema has a row encoding");
    let errors = Errors::default();
    let row_of = by_key.layout.rows();
    let scanned = scan(
        by_key.arranged,
        &name,
        Box::new(move |key, values, output| {
            let Some((value, count)) = values.next() else { return };
            let mut next = values.next();
            if count == 1 && next.is_none() {
                output.push((tagged::ok(&[row_of(key, value).bytes()]), 1));
                return;
            }
            let mut fail = |value, count| {
                let error = errors.encoded(&reason, &codec, row_of(key, value).bytes());
                output.push((tagged::err(error.bytes()), count));
            };
            fail(value, count);
            while let Some((value, count)) = next {
                fail(value, count);
                next = values.next();
            }
        }),
    );
    let (oks, clashes) = tagged::split(scanned);
    Collections {
        oks,
        errs: input.errs.concat(by_key.errs).concat(clashes),
    }
}
