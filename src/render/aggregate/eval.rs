//! Expressions over a batch, all of them at once, with the rows that fail set apart.
//!
//! A batch that fails is split in two until the rows that fail stand alone: one bad row costs a logarithm
//! of evaluations and never its neighbours.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{cast, concat};
use arrow::datatypes::DataType;

use crate::plan::Expr;

/// The columns of the rows that evaluated, and what became of the others.
pub(super) struct Evaluated {
    /// One for each expression; `kept` rows long.
    pub columns: Vec<ArrayRef>,
    /// Positions in the batch of the rows the columns hold; none: all of them, in order.
    pub kept: Option<Vec<usize>>,
    /// Positions in the batch of the rows that failed, and why.
    pub failed: Vec<(usize, String)>,
}

/// Evaluates `expressions`, each cast to the type beside it.
pub(super) fn evaluate(batch: &RecordBatch, expressions: &[(Expr, DataType)]) -> Evaluated {
    match evaluate_all(batch, expressions) {
        Ok(columns) => Evaluated {
            columns,
            kept: None,
            failed: vec![],
        },
        Err(reason) => {
            let mut parts = Parts::default();
            parts.bisect(batch, 0, reason, expressions);
            let columns = (0..expressions.len())
                .map(|column| {
                    let pieces: Vec<&dyn Array> = parts.good.iter().map(|p| p[column].as_ref()).collect();
                    match pieces.is_empty() {
                        true => arrow::array::new_empty_array(&expressions[column].1),
                        false => concat(&pieces).expect("pieces of one expression are of one type"),
                    }
                })
                .collect();
            Evaluated {
                columns,
                kept: Some(parts.kept),
                failed: parts.failed,
            }
        }
    }
}

#[derive(Default)]
struct Parts {
    good: Vec<Vec<ArrayRef>>,
    kept: Vec<usize>,
    failed: Vec<(usize, String)>,
}

impl Parts {
    /// `batch`, whose first row is row `start` of the whole, is known to fail for `reason`.
    fn bisect(&mut self, batch: &RecordBatch, start: usize, reason: String, expressions: &[(Expr, DataType)]) {
        if batch.num_rows() <= 1 {
            self.failed.push((start, reason));
            return;
        }
        let middle = batch.num_rows() / 2;
        for (offset, length) in [(0, middle), (middle, batch.num_rows() - middle)] {
            let half = batch.slice(offset, length);
            match evaluate_all(&half, expressions) {
                Ok(columns) => {
                    self.good.push(columns);
                    self.kept.extend(start + offset..start + offset + length);
                }
                Err(reason) => self.bisect(&half, start + offset, reason, expressions),
            }
        }
    }
}

fn evaluate_all(batch: &RecordBatch, expressions: &[(Expr, DataType)]) -> Result<Vec<ArrayRef>, String> {
    expressions
        .iter()
        .map(|(expression, data_type)| {
            let column = expression
                .evaluate(batch)
                .and_then(|value| value.into_array(batch.num_rows()))
                .map_err(|error| error.strip_backtrace())?;
            match column.data_type() == data_type {
                true => Ok(column),
                false => cast(&column, data_type).map_err(|error| error.to_string()),
            }
        })
        .collect()
}
