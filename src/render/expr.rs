//! Evaluates expressions over rows: rows are decoded into a `RecordBatch`, a kernel computes on the whole batch, and
//! its results are encoded again.
//!
//! 1. A kernel that fails for a batch is run on its halves, and so on, until the failing rows are alone. These become
//!    error rows, and the other rows are computed as if the failing ones had not been there.
//! 2. A kernel appends to its outputs, and takes rows out of its updates, only after the last point where it can fail.
//!    ([`Outputs`] is truncated after a failure in any case.)
//! 3. The result for a row depends on that row alone, so a retraction yields exactly the negated result.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{and, cast, filter_record_batch, prep_null_mask_filter, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::physical_expr::expressions::Column;
use differential_dataflow::{AsCollection, VecCollection};
use std::sync::Arc;
use thiserror::Error;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::Timestamp;

use super::error::Errors;
use crate::contain::contain;
use crate::plan::Expr;
use crate::repr::{CodecError, Diff, Epoch, Row, RowCodec, Rows, Update, normalise_type};
use crate::words::in_sql_words;

/// How many rows are decoded at once: enough to amortise a kernel's set-up, and few enough to stay in the cache.
const CHUNK: usize = 8192;
/// The greatest number of bytes of rows decoded at once, unless a single row is larger: the 32-bit offsets of an Arrow
/// column end at 2 GiB.
const CHUNK_BYTES: usize = 64 << 20;

/// Why a kernel failed for a batch.
#[derive(Debug, Error)]
pub enum KernelError {
    /// An expression failed.
    #[error(transparent)]
    Expression(#[from] DataFusionError),
    /// An arrow kernel failed.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    /// The result has no row encoding.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A kernel panicked.
    #[error("could not compute an expression: {0}")]
    Panic(String),
}

impl KernelError {
    /// The message for users: the innermost error, in the words of SQL.
    pub fn reason(&self) -> String {
        let text = match self {
            KernelError::Expression(e) => e.strip_backtrace(),
            KernelError::Arrow(e) => e.to_string(),
            KernelError::Codec(e) => e.to_string(),
            KernelError::Panic(_) => self.to_string(),
        };
        in_sql_words(&text)
    }
}

/// The outputs of a kernel.
pub struct Outputs<D> {
    /// The main output.
    pub main: Vec<(D, Epoch, Diff)>,
    /// Rows set aside (null keys of a join, violations of an expectation).
    pub rest: Vec<Update>,
    /// Error rows.
    pub errs: Vec<Update>,
}

/// A computation over a batch and the updates it was decoded from (row `i` is update `i`). See (2).
pub type RowKernel<D> = Box<dyn FnMut(&RecordBatch, &mut [Update], &mut Outputs<D>) -> Result<(), KernelError>>;

/// The outputs of [`apply`].
pub struct ApplyOutput<'s, D: Clone + 'static, T: Timestamp = Epoch> {
    /// The main output.
    pub main: VecCollection<'s, T, D, Diff>,
    /// Rows set aside (null keys of a join, violations of an expectation).
    pub rest: VecCollection<'s, T, Row, Diff>,
    /// Error rows.
    pub errs: VecCollection<'s, T, Row, Diff>,
}

/// Runs a kernel over all updates of a collection.
pub fn apply<'s, D: Clone + 'static>(
    input: Rows<'s>,
    schema: &SchemaRef,
    name: &str,
    mut kernel: RowKernel<D>,
) -> ApplyOutput<'s, D> {
    let codec = RowCodec::new(relaxed(schema)).expect("a planned schema has a row encoding");
    let errors = Errors::default();
    let mut builder = OperatorBuilder::new(name.to_string(), input.inner.scope());
    let mut updates = builder.new_input(input.inner, Pipeline);
    let (main, main_stream) = builder.new_output::<Vec<(D, Epoch, Diff)>>();
    let (rest, rest_stream) = builder.new_output::<Vec<Update>>();
    let (errs, errs_stream) = builder.new_output::<Vec<Update>>();
    builder.build(move |_| {
        let mut main = OutputBuilder::<_, timely::container::CapacityContainerBuilder<_>>::from(main);
        let mut rest = OutputBuilder::<_, timely::container::CapacityContainerBuilder<_>>::from(rest);
        let mut errs = OutputBuilder::<_, timely::container::CapacityContainerBuilder<_>>::from(errs);
        let mut gathered: Vec<Update> = Vec::new();
        let mut outputs = Outputs {
            main: Vec::new(),
            rest: Vec::new(),
            errs: Vec::new(),
        };
        move |_frontiers| {
            let (mut main, mut rest, mut errs) = (main.activate(), rest.activate(), errs.activate());
            updates.for_each_time(|capability, containers| {
                let (to_main, to_rest, to_errs) = (capability.retain(0), capability.retain(1), capability.retain(2));
                gather(containers, &mut gathered, &mut |gathered| {
                    let batch = codec
                        .decode(gathered.iter().map(|(row, _, _)| row.bytes()))
                        .expect("a row was encoded with the schema of its node");
                    isolate(&batch, gathered, &mut outputs, &mut kernel, &errors);
                    main.session(&to_main).give_iterator(outputs.main.drain(..));
                    rest.session(&to_rest).give_iterator(outputs.rest.drain(..));
                    errs.session(&to_errs).give_iterator(outputs.errs.drain(..));
                });
            });
        }
    });
    ApplyOutput {
        main: main_stream.as_collection(),
        rest: rest_stream.as_collection(),
        errs: errs_stream.as_collection(),
    }
}

/// Calls `run` with the updates of several containers, in batches of about [`CHUNK`] rows and [`CHUNK_BYTES`].
/// `gathered` is a buffer, which is empty before and after.
pub fn gather<'c>(
    containers: impl Iterator<Item = &'c mut Vec<Update>>,
    gathered: &mut Vec<Update>,
    run: &mut dyn FnMut(&mut Vec<Update>),
) {
    let mut bytes = 0;
    let mut hand_over = |gathered: &mut Vec<Update>, bytes: &mut usize| {
        run(gathered);
        gathered.clear();
        *bytes = 0;
    };
    for container in containers {
        let more: usize = container.iter().map(|(row, ..)| row.bytes().len()).sum();
        if bytes + more <= CHUNK_BYTES {
            gathered.append(container);
            bytes += more;
        }
        for update in container.drain(..) {
            let more = update.0.bytes().len();
            if bytes + more > CHUNK_BYTES && !gathered.is_empty() {
                hand_over(gathered, &mut bytes);
            }
            bytes += more;
            gathered.push(update);
        }
        if gathered.len() >= CHUNK {
            hand_over(gathered, &mut bytes);
        }
    }
    if !gathered.is_empty() {
        hand_over(gathered, &mut bytes);
    }
}

/// Splits rows into pieces of at most [`CHUNK_BYTES`], or of a single larger row.
pub fn pieces<T>(rows: &[T], bytes: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut taken = 0;
        let fitting = rest.iter().take_while(|row| {
            taken += bytes(row);
            taken <= CHUNK_BYTES
        });
        let length = fitting.count().max(1).min(rest.len());
        let (piece, behind) = rest.split_at(length);
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Runs the kernel; where it fails, runs it on halves, see (1).
pub fn isolate<D>(
    batch: &RecordBatch,
    updates: &mut [Update],
    outputs: &mut Outputs<D>,
    kernel: &mut RowKernel<D>,
    errors: &Errors,
) {
    let mut failed = vec![];
    let mut run = |part: &RecordBatch, start: usize| {
        let before = (outputs.main.len(), outputs.rest.len(), outputs.errs.len());
        kernel(part, &mut updates[start..start + part.num_rows()], outputs).inspect_err(|_| {
            outputs.main.truncate(before.0);
            outputs.rest.truncate(before.1);
            outputs.errs.truncate(before.2);
        })
    };
    bisect(batch, 0, &mut run, &mut failed);
    for (index, error) in failed {
        let (_, time, diff) = updates[index];
        outputs
            .errs
            .push((errors.row(&error.reason(), batch, index), time, diff));
    }
}

/// Calls `run` with a batch whose first row is row `start` of the whole; where that fails, with its halves. Rows that
/// fail even alone are added to `failed`.
pub fn bisect(
    batch: &RecordBatch,
    start: usize,
    run: &mut dyn FnMut(&RecordBatch, usize) -> Result<(), KernelError>,
    failed: &mut Vec<(usize, KernelError)>,
) {
    let Err(error) = run(batch, start) else { return };
    let rows = batch.num_rows();
    if rows <= 1 {
        // Some kernels also look at the values outside of a slice, so the row is tried once more as a batch of its
        // own.
        let alone = take_record_batch(batch, &UInt32Array::from_iter_values(0..rows as u32));
        if !alone.is_ok_and(|alone| run(&alone, start).is_ok()) {
            failed.push((start, error));
        }
        return;
    }
    let half = rows / 2;
    bisect(&batch.slice(0, half), start, run, failed);
    bisect(&batch.slice(half, rows - half), start + half, run, failed);
}

/// Applies a function to each row that needs no columns. The second output has the rows for which it returns `Err`.
pub fn each<'s, D: Clone + 'static>(
    input: Rows<'s>,
    name: &str,
    mut logic: impl FnMut(Row) -> Result<D, Row> + 'static,
) -> (VecCollection<'s, Epoch, D, Diff>, Rows<'s>) {
    let mut builder = OperatorBuilder::new(name.to_string(), input.inner.scope());
    let mut updates = builder.new_input(input.inner, Pipeline);
    let (main, main_stream) = builder.new_output::<Vec<(D, Epoch, Diff)>>();
    let (rest, rest_stream) = builder.new_output::<Vec<Update>>();
    builder.build(move |_| {
        let mut main = OutputBuilder::<_, timely::container::CapacityContainerBuilder<_>>::from(main);
        let mut rest = OutputBuilder::<_, timely::container::CapacityContainerBuilder<_>>::from(rest);
        move |_frontiers| {
            let (mut main, mut rest) = (main.activate(), rest.activate());
            updates.for_each(|capability, container| {
                let (mut main, mut rest) = (main.session(&capability), rest.session(&capability));
                for (row, time, diff) in container.drain(..) {
                    match logic(row) {
                        Ok(made) => main.give((made, time, diff)),
                        Err(row) => rest.give((row, time, diff)),
                    }
                }
            });
        }
    });
    (main_stream.as_collection(), rest_stream.as_collection())
}

/// The positions of the columns, if all expressions are plain columns of exactly these types; otherwise `None`.
pub fn plain_columns(exprs: &[Expr], types: &[DataType], schema: &Schema) -> Option<Vec<usize>> {
    let position = |(expr, data_type): (&Expr, &DataType)| {
        let column = (expr.as_ref() as &dyn std::any::Any).downcast_ref::<Column>()?;
        (schema.field(column.index()).data_type() == data_type).then_some(column.index())
    };
    exprs.iter().zip(types).map(position).collect()
}

/// Evaluates expressions into columns of these types.
pub fn columns(exprs: &[Expr], types: &[DataType], batch: &RecordBatch) -> Result<Vec<ArrayRef>, KernelError> {
    let both = exprs.iter().zip(types);
    both.map(|(expr, data_type)| column(expr, data_type, batch)).collect()
}

/// Evaluates an expression. A panic in one of its kernels becomes an error of the batch; see [`contain`].
pub fn evaluated(expr: &Expr, batch: &RecordBatch) -> Result<ArrayRef, KernelError> {
    let evaluate = || expr.evaluate(batch)?.into_array(batch.num_rows());
    Ok(contain(evaluate).map_err(KernelError::Panic)??)
}

/// Evaluates an expression into a column of this type.
pub fn column(expr: &Expr, data_type: &DataType, batch: &RecordBatch) -> Result<ArrayRef, KernelError> {
    let array = evaluated(expr, batch)?;
    if array.data_type() == data_type {
        Ok(array)
    } else {
        Ok(cast(&array, data_type)?)
    }
}

/// For each row, whether a boolean expression is true; null counts as false.
pub fn truths(expr: &Expr, batch: &RecordBatch) -> Result<BooleanArray, KernelError> {
    let array = evaluated(expr, batch)?;
    if array.data_type() == &DataType::Null {
        return Ok(BooleanArray::from(vec![false; batch.num_rows()]));
    }
    let mask = array.as_boolean();
    Ok(if mask.null_count() > 0 {
        prep_null_mask_filter(mask)
    } else {
        mask.clone()
    })
}

/// The rows for which all predicates are true. A later predicate is evaluated only on rows that earlier ones let
/// through, so `x <> 0 AND 1 / x > 2` does not fail where `x` is 0. Neither does `1 / x > 2 AND x <> 0`: a row that
/// one predicate excludes is excluded, even if another one fails for it, because the planner may have reordered them.
pub fn passing(predicates: &[Expr], batch: &RecordBatch) -> Result<BooleanArray, KernelError> {
    passing_in_order(predicates, batch).or_else(|error| {
        // A batch of several rows fails here, and its halves are tried next.
        let excludes = |predicate| truths(predicate, batch).is_ok_and(|truth| !truth.value(0));
        match batch.num_rows() == 1 && predicates.iter().any(excludes) {
            true => Ok(BooleanArray::from(vec![false])),
            false => Err(error),
        }
    })
}

fn passing_in_order(predicates: &[Expr], batch: &RecordBatch) -> Result<BooleanArray, KernelError> {
    let mut passed: Option<BooleanArray> = None;
    for predicate in predicates {
        passed = Some(match passed {
            None => truths(predicate, batch)?,
            Some(mask) if mask.true_count() == batch.num_rows() => truths(predicate, batch)?,
            Some(mask) if mask.true_count() == 0 => mask,
            Some(mask) => {
                let truth = truths(predicate, &filter_record_batch(batch, &mask)?)?;
                let mut next = truth.iter();
                let spread: BooleanArray = mask
                    .iter()
                    .map(|m| Some(m == Some(true) && next.next().flatten() == Some(true)))
                    .collect();
                and(&mask, &spread)?
            }
        });
    }
    Ok(passed.unwrap_or_else(|| BooleanArray::from(vec![true; batch.num_rows()])))
}

/// The normalised types of expressions over a schema.
pub fn types_of(exprs: &[Expr], schema: &Schema) -> Vec<DataType> {
    exprs
        .iter()
        .map(|e| normalise_type(&e.data_type(schema).expect("a planned expression has a type")))
        .collect()
}

/// A codec for unnamed columns of these types.
pub fn codec_of(types: &[DataType]) -> RowCodec {
    let fields: Vec<Field> = types
        .iter()
        .enumerate()
        .map(|(i, t)| Field::new(format!("c{i}"), t.clone(), true))
        .collect();
    RowCodec::new(Arc::new(Schema::new(fields))).expect("a planned expression's type has a row encoding")
}

/// The schema with every field nullable. Decoding does not depend on the planner's knowledge that a column is never
/// null.
pub fn relaxed(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|f| f.as_ref().clone().with_nullable(true))
        .collect();
    Arc::new(Schema::new(fields))
}

/// A batch of columns under a schema; `rows` is its number of rows, even without columns.
pub fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ArrowError> {
    RecordBatch::try_new_with_options(
        schema.clone(),
        columns,
        &RecordBatchOptions::new().with_row_count(Some(rows)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_large_values_are_handed_over_some_at_a_time() {
        // One batch of forty values of 60 MiB would be more than a column can hold.
        let row = |bytes: usize| Row::new(&vec![0; bytes]);
        let large = CHUNK_BYTES / 2 + 1;
        let mut containers = [
            vec![(row(1), 0, 1), (row(large), 0, 1)],
            vec![
                (row(large), 0, 1),
                (row(2), 0, 1),
                (row(2 * large), 0, 1),
                (row(3), 0, -1),
            ],
        ];
        let (mut lengths, mut gathered) = (vec![], vec![]);
        gather(containers.iter_mut(), &mut gathered, &mut |rows| {
            lengths.push(rows.iter().map(|(row, ..)| row.bytes().len()).collect::<Vec<_>>());
        });
        assert_eq!(lengths, [vec![1, large], vec![large, 2], vec![2 * large], vec![3]]);
        assert!(gathered.is_empty());

        let rows = [1, large, large, 2, 2 * large, 3];
        let cut: Vec<&[usize]> = pieces(&rows, |bytes| *bytes).collect();
        assert_eq!(cut, [&rows[..2], &rows[2..4], &rows[4..5], &rows[5..]]);
        assert_eq!(pieces(&[0; 0], |bytes| *bytes).count(), 0);
    }
}
