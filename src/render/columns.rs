//! Updates as columns, which flow between operators that work row by row.
//!
//! A batch is decoded once, however many operators read it, and shared by all of them. Each operator outputs new
//! columns; rows are encoded where an arrangement or a table needs them. (With encoded rows between these operators, a
//! table with ten readers was copied ten times, decoded by each, and encoded again, which took a third of a backfill's
//! time.)
//!
//! 1. A kernel that fails for a batch is run on its halves, and so on, until the failing rows are alone. These become
//!    error rows, and the other rows are computed as if the failing ones had not been there.
//! 2. A kernel adds to its outputs only after the last point where it can fail.
//! 3. The result for a row depends on that row alone, so a retraction yields exactly the negated result.
//! 4. Columns are as if rows had been encoded and decoded: the types are normalised, and floats are canonical.

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use differential_dataflow::AsCollection;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::operator::Operator;

use super::error::Errors;
use super::expr::{KernelError, batch_of, bisect, gather, relaxed};
use crate::repr::{Diff, Epoch, RowCodec, Rows, Update, canonical_floats};

/// Updates of one batch: rows as columns, with times and differences.
pub struct ColumnBatch {
    /// The rows' columns, under the relaxed schema of their node.
    pub batch: RecordBatch,
    /// The time of each row's update.
    pub times: Arc<[Epoch]>,
    /// The difference of each row's update.
    pub diffs: Arc<[Diff]>,
}

/// A stream of batches.
pub type ColumnBatches<'s> = Stream<'s, Epoch, Vec<Rc<ColumnBatch>>>;

impl ColumnBatch {
    /// Makes a batch of these columns, which are normalised as (4) requires.
    fn new(
        schema: &SchemaRef,
        columns: &[ArrayRef],
        times: Arc<[Epoch]>,
        diffs: Arc<[Diff]>,
    ) -> Result<ColumnBatch, KernelError> {
        let columns = columns.iter().map(canonical_floats).collect();
        let batch = batch_of(schema, columns, diffs.len())?;
        Ok(ColumnBatch { batch, times, diffs })
    }

    /// A range of the rows.
    pub fn slice(&self, start: usize, rows: usize) -> ColumnBatch {
        if rows == self.diffs.len() {
            return ColumnBatch {
                batch: self.batch.clone(),
                times: self.times.clone(),
                diffs: self.diffs.clone(),
            };
        }
        ColumnBatch {
            batch: self.batch.slice(start, rows),
            times: self.times[start..start + rows].into(),
            diffs: self.diffs[start..start + rows].into(),
        }
    }

    /// The same rows with other columns.
    pub fn with_columns(&self, schema: &SchemaRef, columns: &[ArrayRef]) -> Result<ColumnBatch, KernelError> {
        ColumnBatch::new(schema, columns, self.times.clone(), self.diffs.clone())
    }

    /// The rows for which `mask`, which has no nulls, is true.
    pub fn filter(&self, mask: &BooleanArray) -> Result<ColumnBatch, KernelError> {
        let count = mask.true_count();
        if count == mask.len() {
            return Ok(self.slice(0, count));
        }
        let batch = filter_record_batch(&self.batch, mask)?;
        let indices = || mask.values().set_indices();
        Ok(ColumnBatch {
            batch,
            times: indices().map(|row| self.times[row]).collect(),
            diffs: indices().map(|row| self.diffs[row]).collect(),
        })
    }

    /// A batch of these columns, in which row `i` has the time and difference of row `sources[i]`.
    pub fn repeat_rows(
        &self,
        schema: &SchemaRef,
        columns: &[ArrayRef],
        sources: &UInt32Array,
    ) -> Result<ColumnBatch, KernelError> {
        let sources = sources.values();
        let times = sources.iter().map(|row| self.times[*row as usize]).collect();
        let diffs = sources.iter().map(|row| self.diffs[*row as usize]).collect();
        ColumnBatch::new(schema, columns, times, diffs)
    }
}

/// The outputs of a kernel.
#[derive(Default)]
pub struct BatchOutputs {
    /// The main output.
    pub main: Vec<Rc<ColumnBatch>>,
    /// Error rows of violations that stop the run.
    pub rest: Vec<Update>,
    /// Error rows.
    pub errs: Vec<Update>,
}

/// The outputs of [`compute`].
pub struct Computed<'s> {
    /// The main output.
    pub main: ColumnBatches<'s>,
    /// Error rows of violations that stop the run.
    pub rest: Rows<'s>,
    /// Error rows.
    pub errs: Rows<'s>,
}

/// A computation over a batch, which has to obey (2) and (3).
pub type BatchKernel = Box<dyn FnMut(&ColumnBatch, &mut BatchOutputs) -> Result<(), KernelError>>;

/// Runs a kernel over all batches.
pub fn compute<'s>(input: ColumnBatches<'s>, name: &str, mut kernel: BatchKernel) -> Computed<'s> {
    let errors = Errors::default();
    let mut builder = OperatorBuilder::new(name.to_string(), input.scope());
    let mut batches = builder.new_input(input, Pipeline);
    let (main, main_stream) = builder.new_output::<Vec<Rc<ColumnBatch>>>();
    let (rest, rest_stream) = builder.new_output::<Vec<Update>>();
    let (errs, errs_stream) = builder.new_output::<Vec<Update>>();
    builder.build(move |_| {
        let mut main = OutputBuilder::<_, CapacityContainerBuilder<_>>::from(main);
        let mut rest = OutputBuilder::<_, CapacityContainerBuilder<_>>::from(rest);
        let mut errs = OutputBuilder::<_, CapacityContainerBuilder<_>>::from(errs);
        let mut made = BatchOutputs::default();
        move |_frontiers| {
            let (mut main, mut rest, mut errs) = (main.activate(), rest.activate(), errs.activate());
            batches.for_each(|capability, batches| {
                for columns in batches.drain(..) {
                    isolate(&columns, &mut kernel, &errors, &mut made);
                }
                main.session(&capability).give_iterator(made.main.drain(..));
                rest.session(&capability).give_iterator(made.rest.drain(..));
                errs.session(&capability).give_iterator(made.errs.drain(..));
            });
        }
    });
    Computed {
        main: main_stream,
        rest: rest_stream.as_collection(),
        errs: errs_stream.as_collection(),
    }
}

/// Runs the kernel; where it fails, runs it on halves, see (1).
fn isolate(columns: &ColumnBatch, kernel: &mut BatchKernel, errors: &Errors, made: &mut BatchOutputs) {
    let mut failed = vec![];
    let mut run = |part: &RecordBatch, start: usize| kernel(&columns.slice(start, part.num_rows()), made);
    bisect(&columns.batch, 0, &mut run, &mut failed);
    for (row, error) in failed {
        let error = errors.row(&error.reason(), &columns.batch, row);
        made.errs.push((error, columns.times[row], columns.diffs[row]));
    }
}

/// Decodes rows, whose schema is `schema`, into columns.
pub fn decode<'s>(rows: Rows<'s>, schema: &SchemaRef, name: &str) -> ColumnBatches<'s> {
    let codec = RowCodec::new(relaxed(schema)).expect("a planned schema has a row encoding");
    let mut gathered: Vec<Update> = vec![];
    rows.inner.unary(Pipeline, &format!("decode {name}"), move |_, _| {
        move |input, output| {
            input.for_each_time(|capability, containers| {
                let mut session = output.session(&capability);
                let mut give = |gathered: &mut Vec<Update>| {
                    let batch = codec
                        .decode(gathered.iter().map(|(row, _, _)| row.bytes()))
                        .expect("a row was encoded with the schema of its node");
                    session.give(Rc::new(ColumnBatch {
                        batch,
                        times: gathered.iter().map(|(_, time, _)| *time).collect(),
                        diffs: gathered.iter().map(|(_, _, diff)| *diff).collect(),
                    }));
                };
                gather(containers, &mut gathered, &mut give);
            });
        }
    })
}

/// The updates after an epoch.
pub fn after<'s>(batches: ColumnBatches<'s>, epoch: Epoch, name: &str) -> ColumnBatches<'s> {
    batches.unary(Pipeline, &format!("{name}: after the past"), move |_, _| {
        move |input, output| {
            input.for_each(|capability, batches| {
                let mut session = output.session(&capability);
                for columns in batches.drain(..) {
                    let later: BooleanArray = columns.times.iter().map(|time| Some(*time > epoch)).collect();
                    match later.true_count() {
                        0 => {}
                        n if n == later.len() => session.give(columns),
                        _ => session.give(Rc::new(
                            columns.filter(&later).expect("the mask is of the batch's length"),
                        )),
                    }
                }
            });
        }
    })
}

/// Encodes columns into rows, whose schema is `schema`.
pub fn encode<'s>(batches: ColumnBatches<'s>, schema: &SchemaRef, name: &str) -> Rows<'s> {
    let codec = RowCodec::new(relaxed(schema)).expect("a planned schema has a row encoding");
    let rows = batches.unary(Pipeline, &format!("encode {name}"), move |_, _| {
        move |input, output| {
            input.for_each(|capability, batches| {
                let mut session = output.session(&capability);
                for columns in batches.drain(..) {
                    let rows = codec.encode_rows(columns.batch.columns(), columns.diffs.len());
                    let rows = rows.expect("columns are of their node's types");
                    let changes = columns.times.iter().zip(columns.diffs.iter());
                    session.give_iterator(
                        rows.into_iter()
                            .zip(changes)
                            .map(|(row, (time, diff))| (row, *time, *diff)),
                    );
                }
            });
        }
    });
    rows.as_collection()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Float64Array};
    use arrow::datatypes::{DataType, Field, Float64Type, Schema};

    #[test]
    fn floats_are_canonical_however_columns_are_made() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("x", DataType::Float64, true)]));
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, -f64::NAN]));
        let rows = ColumnBatch {
            batch: RecordBatch::try_new(schema.clone(), vec![floats.clone()]).unwrap(),
            times: [1, 2].into(),
            diffs: [1, -1].into(),
        };
        let sources = UInt32Array::from(vec![0, 1]);
        let spread = rows
            .repeat_rows(&schema, std::slice::from_ref(&floats), &sources)
            .unwrap();
        for made in [rows.with_columns(&schema, &[floats]).unwrap(), spread] {
            let made_floats = made.batch.column(0).as_primitive::<Float64Type>();
            let bits: Vec<u64> = made_floats.values().iter().map(|x| x.to_bits()).collect();
            assert_eq!(bits, [0.0, f64::NAN].map(f64::to_bits));
            assert_eq!((&made.times[..], &made.diffs[..]), (&[1, 2][..], &[1, -1][..]));
        }
    }
}
