//! What a table does with its rows before anyone reads them: retention, expectations, the key.
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
use super::columns::{BatchKernel, Batches, Computed, compute};
use super::error::Errors;
use super::expr::{evaluated, relaxed};
use super::key::keyed;
use super::{Collections, tagged};
use crate::definition::OnViolation;
use crate::plan::{Expr, PlannedExpectation, PlannedTable};
use crate::repr::RowCodec;

/// How many rows now violate each expectation (`warn`, `drop` or `fail`) on this process, by table and expectation.
/// They count updates of open epochs too: a status, not a snapshot.
#[derive(Debug, Default)]
pub struct Counters {
    counts: std::sync::Mutex<BTreeMap<(String, String), Arc<AtomicI64>>>,
}

impl Counters {
    /// The counter of an expectation; the same one for every worker.
    pub fn counter(&self, table: &str, expectation: &str) -> Arc<AtomicI64> {
        let mut counts = self.counts.lock().expect("no one panics while holding the counters");
        counts
            .entry((table.to_string(), expectation.to_string()))
            .or_default()
            .clone()
    }

    /// (table, expectation, rows that violate it now).
    pub fn read(&self) -> Vec<(String, String, i64)> {
        let counts = self.counts.lock().expect("no one panics while holding the counters");
        counts
            .iter()
            .map(|((table, name), count)| (table.clone(), name.clone(), count.load(Ordering::Relaxed)))
            .collect()
    }
}

/// Applies an expectation: rows that pass it are the main answer, violations that must stop the run are set aside.
pub fn expect<'s>(
    input: Batches<'s>,
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
        // True or null is fine; a check that is null for all rows may have no type.
        let passed = match checked.as_boolean_opt() {
            Some(checked) => or_kleene(checked, &is_null(checked)?)?,
            None => BooleanArray::from(vec![true; rows.diffs.len()]),
        };
        let kept = match on_violation {
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
        if !kept.diffs.is_empty() {
            made.main.push(Rc::new(kept));
        }
        Ok(())
    })
}

/// How the reasons of rows begin that are refused for their key.
pub const CLASH: &str = "more than one row of";

/// Lets a row through that is alone with its key; rows that share one become errors, all of them, and come
/// back once a single one is left.
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
