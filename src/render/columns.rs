//! Updates as columns: what flows between operators that compute on a row alone.
//!
//! A batch is decoded once, however many operators read it, and shared by all of them; each passes on new columns, and
//! rows are encoded where an arrangement or a table wants them. (With rows on these edges, a table that ten others
//! read was copied ten times, decoded by each, and encoded again: a third of a backfill's time.)
//!
//! 1. A kernel that fails for a batch is run on its halves, until the offending rows stand alone; those become
//!    error rows, and the rest goes on as if they had not been there.
//! 2. A kernel adds to its outputs only behind its last point of failure.
//! 3. What a row becomes depends on the row alone, so its retraction makes exactly the negation.
//! 4. Columns are those that encoding and decoding a row would yield: of normalised types, floats canonical.

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

use super::arrange::Rows;
use super::error::Errors;
use super::expr::{KernelError, batch_of, bisect, gather, relaxed};
use crate::repr::{Diff, Epoch, RowCodec, Update, canonical_floats};

/// Rows of one batch: their columns, times and differences.
pub struct Columns {
    /// The rows' columns, under the relaxed schema of their node.
    pub batch: RecordBatch,
    /// When each row changes.
    pub times: Arc<[Epoch]>,
    /// By how much.
    pub diffs: Arc<[Diff]>,
}

/// Batches on their way.
pub type Batches<'s> = Stream<'s, Epoch, Vec<Rc<Columns>>>;

impl Columns {
    /// Rows with these columns, by (4).
    fn new(
        schema: &SchemaRef,
        columns: &[ArrayRef],
        times: Arc<[Epoch]>,
        diffs: Arc<[Diff]>,
    ) -> Result<Columns, KernelError> {
        let columns = columns.iter().map(canonical_floats).collect();
        let batch = batch_of(schema, columns, diffs.len())?;
        Ok(Columns { batch, times, diffs })
    }

    /// Some rows of it.
    pub fn slice(&self, start: usize, rows: usize) -> Columns {
        if rows == self.diffs.len() {
            return Columns {
                batch: self.batch.clone(),
                times: self.times.clone(),
                diffs: self.diffs.clone(),
            };
        }
        Columns {
            batch: self.batch.slice(start, rows),
            times: self.times[start..start + rows].into(),
            diffs: self.diffs[start..start + rows].into(),
        }
    }

    /// The same rows with other columns.
    pub fn with(&self, schema: &SchemaRef, columns: &[ArrayRef]) -> Result<Columns, KernelError> {
        Columns::new(schema, columns, self.times.clone(), self.diffs.clone())
    }

    /// The rows for which the mask, which has no nulls, is true.
    pub fn filter(&self, mask: &BooleanArray) -> Result<Columns, KernelError> {
        let kept = mask.true_count();
        if kept == mask.len() {
            return Ok(self.slice(0, kept));
        }
        let batch = filter_record_batch(&self.batch, mask)?;
        let kept = || mask.values().set_indices();
        Ok(Columns {
            batch,
            times: kept().map(|row| self.times[row]).collect(),
            diffs: kept().map(|row| self.diffs[row]).collect(),
        })
    }

    /// Rows with these columns, of which row `i` comes from row `sources[i]`.
    pub fn spread(
        &self,
        schema: &SchemaRef,
        columns: &[ArrayRef],
        sources: &UInt32Array,
    ) -> Result<Columns, KernelError> {
        let sources = sources.values();
        let times = sources.iter().map(|row| self.times[*row as usize]).collect();
        let diffs = sources.iter().map(|row| self.diffs[*row as usize]).collect();
        Columns::new(schema, columns, times, diffs)
    }
}

/// What an operator makes of batches.
#[derive(Default)]
pub struct BatchOutputs {
    /// What goes on.
    pub main: Vec<Rc<Columns>>,
    /// Error rows set aside, for violations that stop the run.
    pub rest: Vec<Update>,
    /// Error rows.
    pub errs: Vec<Update>,
}

/// The outputs of [`compute`].
pub struct Computed<'s> {
    /// What goes on.
    pub main: Batches<'s>,
    /// Error rows set aside.
    pub rest: Rows<'s>,
    /// Error rows.
    pub errs: Rows<'s>,
}

/// A computation over a batch. See (2) and (3).
pub type BatchKernel = Box<dyn FnMut(&Columns, &mut BatchOutputs) -> Result<(), KernelError>>;

/// Runs a kernel over all batches.
pub fn compute<'s>(input: Batches<'s>, name: &str, mut kernel: BatchKernel) -> Computed<'s> {
    let errors = Errors::default();
    let mut builder = OperatorBuilder::new(name.to_string(), input.scope());
    let mut batches = builder.new_input(input, Pipeline);
    let (main, main_stream) = builder.new_output::<Vec<Rc<Columns>>>();
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

/// Runs the kernel, and where it fails, on halves. See (1).
fn isolate(columns: &Columns, kernel: &mut BatchKernel, errors: &Errors, made: &mut BatchOutputs) {
    let mut failed = vec![];
    let mut run = |part: &RecordBatch, start: usize| kernel(&columns.slice(start, part.num_rows()), made);
    bisect(&columns.batch, 0, &mut run, &mut failed);
    for (row, error) in failed {
        let error = errors.row(&error.reason(), &columns.batch, row);
        made.errs.push((error, columns.times[row], columns.diffs[row]));
    }
}

/// Rows as columns; `schema` is the rows'.
pub fn decode<'s>(rows: Rows<'s>, schema: &SchemaRef, name: &str) -> Batches<'s> {
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
                    session.give(Rc::new(Columns {
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

/// The rows that change after an epoch.
pub fn after<'s>(batches: Batches<'s>, epoch: Epoch, name: &str) -> Batches<'s> {
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

/// Columns as rows; `schema` is the rows'.
pub fn encode<'s>(batches: Batches<'s>, schema: &SchemaRef, name: &str) -> Rows<'s> {
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
        let rows = Columns {
            batch: RecordBatch::try_new(schema.clone(), vec![floats.clone()]).unwrap(),
            times: [1, 2].into(),
            diffs: [1, -1].into(),
        };
        let sources = UInt32Array::from(vec![0, 1]);
        let spread = rows.spread(&schema, std::slice::from_ref(&floats), &sources).unwrap();
        for made in [rows.with(&schema, &[floats]).unwrap(), spread] {
            let made_floats = made.batch.column(0).as_primitive::<Float64Type>();
            let bits: Vec<u64> = made_floats.values().iter().map(|x| x.to_bits()).collect();
            assert_eq!(bits, [0.0, f64::NAN].map(f64::to_bits));
            assert_eq!((&made.times[..], &made.diffs[..]), (&[1, 2][..], &[1, -1][..]));
        }
    }
}
