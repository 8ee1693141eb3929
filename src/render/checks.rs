//! What a table does with its rows before anyone reads them: retention, expectations, the key.
//!
//! ```text
//! node -> retention -> expectations -> one row per key -> the table
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{Array, BooleanArray};
use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::expressions::Column;

use super::arrange::{Rows, scan};
use super::error::Errors;
use super::expr::{Kernel, apply, relaxed};
use super::key::keyed;
use super::{Collections, tagged};
use crate::definition::OnViolation;
use crate::plan::{Expr, PlannedExpectation, PlannedTable};
use crate::repr::{Row, RowCodec};

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

/// Applies an expectation. The second answer is error rows of violations that must stop the run.
pub fn expect<'s>(
    input: Collections<'s>,
    schema: &SchemaRef,
    table: &str,
    expectation: &PlannedExpectation,
    counters: &Counters,
) -> (Collections<'s>, Option<Rows<'s>>) {
    let name = format!("{table}: expect {}", expectation.name);
    let count = counters.counter(table, &expectation.name);
    let reason = format!("expectation {:?} of {table} violated", expectation.name);
    let kernel = check(expectation.check.clone(), expectation.on_violation, reason, count);
    let applied = apply(input.oks, schema, &name, kernel);
    let fails = expectation.on_violation == OnViolation::Fail;
    let collections = Collections {
        oks: applied.main,
        errs: input.errs.concat(applied.errs),
    };
    (collections, fails.then_some(applied.rest))
}

fn check(check: Expr, on_violation: OnViolation, reason: String, count: Arc<AtomicI64>) -> Kernel<Row> {
    let errors = Errors::default();
    Box::new(move |batch, updates, outputs| {
        let array = check.evaluate(batch)?.into_array(batch.num_rows())?;
        // True or null is fine.
        let checked = array.as_any().downcast_ref::<BooleanArray>();
        for (index, (row, time, diff)) in updates.iter_mut().enumerate() {
            if checked.is_none_or(|c| c.is_null(index) || c.value(index)) {
                outputs.main.push((std::mem::take(row), *time, *diff));
                continue;
            }
            count.fetch_add(*diff, Ordering::Relaxed);
            match on_violation {
                OnViolation::Warn => {
                    outputs.main.push((std::mem::take(row), *time, *diff));
                }
                OnViolation::Drop => outputs.errs.push((errors.row(&reason, batch, index), *time, *diff)),
                OnViolation::Fail => {
                    outputs.rest.push((errors.row(&reason, batch, index), *time, *diff));
                    outputs.main.push((std::mem::take(row), *time, *diff));
                }
            }
        }
        Ok(())
    })
}

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
    let reason = format!(
        "more than one row of {} with this key ({})",
        table.name,
        names.join(", ")
    );
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
