//! The first operator of a GROUP BY: evaluates every expression once over batches of rows, and outputs the rows in the
//! forms that the other operators need.
//!
//! ```text
//! rows -> front -> errs          rows for which an expression failed; they only count as failed rows of their group
//!               -> accumulators  one update for each group and epoch, consolidated in a local table
//!               -> projection i  (key, value) of each row, for distinct sets, min/max and general aggregates
//! ```
//! Frontiers: projections and errors are output at the time of their rows. Accumulators wait in the table until the
//! input's frontier moves or the table is full, and the operator holds a capability for the earliest of them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::row::RowConverter;
use differential_dataflow::{AsCollection, VecCollection};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::operator::Operator;

use super::local::LocalGroups;
use super::measure::{Measures, failed_rows, global_group, passes};
use super::reader::{ReadBatch, RowReader};
use crate::render::columns::ColumnBatch;
use crate::render::error::Errors;
use crate::render::expr::{KernelError, bisect, gather};
use crate::render::face::OutputRows;
use crate::repr::{Accumulators, Diff, Epoch, Row, RowCodec, Update};

/// Rows that are evaluated together.
#[derive(Clone)]
enum Batch {
    Rows(Vec<Update>),
    Columns(Rc<ColumnBatch>),
}

/// An update of a (key, value) pair.
pub(super) type KeyedRowUpdate = ((Row, Row), Epoch, Diff);
/// An update of a group, whose difference is its accumulators.
pub(super) type Accumulated = ((Row, ()), Epoch, Accumulators);

/// How a projection encodes values.
pub(super) enum ValueEncoder {
    /// As a plain row: equal values have equal bytes, and bytes compare as values do in SQL.
    Codec(RowCodec),
    /// In the order of an aggregate's ORDER BY.
    Ordered(RowConverter),
}

/// Outputs (key, value) of each row, for an aggregate whose values are arranged separately.
pub(super) struct Projection {
    /// The positions of the value's columns among the evaluated columns.
    pub columns: Vec<usize>,
    /// The position of the filter's column.
    pub filter: Option<usize>,
    /// Whether rows with a null in one of the columns are left out.
    pub skip_nulls: bool,
    /// How values are encoded.
    pub encoder: ValueEncoder,
}

/// Configures the operator.
pub(super) struct AggregateFront {
    /// Decodes the input's rows, for the error rows of those that fail.
    pub input: RowCodec,
    /// Reads keys, and evaluates expressions.
    pub reader: RowReader,
    /// The measures over the evaluated columns.
    pub measures: Measures,
    /// The projections; empty if there are only accumulators.
    pub projections: Vec<Projection>,
    /// Whether the group exists even without rows.
    pub global: bool,
}

/// The outputs of the operator.
pub(super) struct FrontOutput<'s> {
    pub errs: VecCollection<'s, Epoch, Row, Diff>,
    pub accumulators: Stream<'s, Epoch, Vec<Accumulated>>,
    pub projections: Vec<Stream<'s, Epoch, Vec<KeyedRowUpdate>>>,
}

impl AggregateFront {
    /// Builds the operator.
    pub fn render<'s>(self, rows: OutputRows<'s>, name: &str) -> FrontOutput<'s> {
        type Builder<D> = CapacityContainerBuilder<Vec<D>>;
        let batches = batches(rows, name);
        let scope = batches.scope();
        let first_worker = scope.worker().index() == 0;
        let mut builder = OperatorBuilder::new(format!("{name}: evaluate"), scope);
        let mut input = builder.new_input(batches, Pipeline);
        let (errs, errs_stream) = builder.new_output();
        let mut errs = OutputBuilder::<_, Builder<Update>>::from(errs);
        let (accumulators, accumulators_stream) = builder.new_output();
        let mut accumulators = OutputBuilder::<_, Builder<Accumulated>>::from(accumulators);
        let mut projected = vec![];
        let mut projected_streams = vec![];
        for _ in &self.projections {
            let (output, stream) = builder.new_output();
            projected.push(OutputBuilder::<_, Builder<KeyedRowUpdate>>::from(output));
            projected_streams.push(stream);
        }
        builder.build(move |capabilities| {
            let mut local = LocalGroups::new(self.measures.clone(), true);
            let errors = Errors::default();
            // The only group of a global aggregate exists from the beginning; one worker adds it.
            let mut pin = (self.global && first_worker)
                .then(|| capabilities.into_iter().nth(1))
                .flatten();
            let mut hold: Option<Capability<Epoch>> = None;
            let mut frontier_before = vec![];
            move |frontiers| {
                let mut errs = errs.activate();
                let accumulators = RefCell::new(accumulators.activate());
                if let Some(capability) = pin.take() {
                    let pinned = global_group();
                    accumulators
                        .borrow_mut()
                        .session(&capability)
                        .give(((Row::default(), ()), 0, pinned));
                }
                let flush = |local: &mut LocalGroups, at: &Capability<Epoch>| {
                    let mut accumulators = accumulators.borrow_mut();
                    let mut session = accumulators.session(at);
                    local.flush(|key, time, sum| session.give(((key, ()), time, sum)));
                };
                let mut projected: Vec<_> = projected.iter_mut().map(|output| output.activate()).collect();
                input.for_each(|capability, batches| {
                    for batch in batches.drain(..) {
                        if hold.as_ref().is_none_or(|hold| capability.time() < hold.time()) {
                            hold = Some(capability.retain(1));
                        }
                        let came = UnevaluatedBatch::new(&batch, &self.reader);
                        let mut failed = vec![];
                        let mut run = |part: &RecordBatch, start: usize| {
                            let part = came.evaluate(part, start, &self.reader)?;
                            local.add(
                                part.read.keys(),
                                part.times.iter().copied(),
                                part.diffs,
                                &part.read.columns,
                            );
                            for (projection, output) in self.projections.iter().zip(&mut projected) {
                                let mut session = output.session(&capability);
                                part.project(projection, |update| session.give(update));
                            }
                            Ok(())
                        };
                        bisect(&came.columns, 0, &mut run, &mut failed);
                        for (row, error) in failed {
                            if let Some(key) = came.key(row, &self.reader) {
                                let lacking = failed_rows(came.diffs[row]);
                                let update = ((key, ()), came.times[row], lacking);
                                accumulators.borrow_mut().session(&capability).give(update);
                            }
                            let error = match &batch {
                                Batch::Rows(rows) => errors.encoded(&error.reason(), &self.input, rows[row].0.bytes()),
                                Batch::Columns(columns) => errors.row(&error.reason(), &columns.batch, row),
                            };
                            let (time, diff) = (came.times[row], came.diffs[row]);
                            errs.session(&capability).give((error, time, diff));
                        }
                        if local.is_full() {
                            flush(&mut local, hold.as_ref().expect("a table with groups has a capability"));
                            hold = None;
                        }
                    }
                });
                let frontier = frontiers[0].frontier();
                if frontier.iter().ne(frontier_before.iter()) {
                    frontier_before = frontier.to_vec();
                    if let Some(hold) = hold.take() {
                        flush(&mut local, &hold);
                        local.shrink();
                    }
                }
            }
        });
        FrontOutput {
            errs: errs_stream.as_collection(),
            accumulators: accumulators_stream,
            projections: projected_streams,
        }
    }
}

/// Rows as batches. Encoded rows of one time are gathered until they fill a batch.
fn batches<'s>(rows: OutputRows<'s>, name: &str) -> Stream<'s, Epoch, Vec<Batch>> {
    let name = format!("{name}: batch");
    match rows {
        OutputRows::Columns(columns) => columns.unary(Pipeline, &name, |_, _| {
            |input, output| {
                input.for_each(|capability, columns| {
                    let mut session = output.session(&capability);
                    session.give_iterator(columns.drain(..).map(Batch::Columns));
                });
            }
        }),
        OutputRows::Rows(rows) => rows.inner.unary(Pipeline, &name, |_, _| {
            |input, output| {
                input.for_each_time(|capability, containers| {
                    let mut session = output.session(&capability);
                    gather(containers, &mut vec![], &mut |rows| {
                        session.give(Batch::Rows(std::mem::take(rows)));
                    });
                });
            }
        }),
    }
}

/// A batch whose expressions are not evaluated yet.
struct UnevaluatedBatch<'a> {
    columns: RecordBatch,
    /// Empty if the batch arrived as columns.
    rows: &'a [Update],
    times: Cow<'a, [Epoch]>,
    diffs: Cow<'a, [Diff]>,
}

impl<'a> UnevaluatedBatch<'a> {
    fn new(batch: &'a Batch, reader: &RowReader) -> Self {
        match batch {
            Batch::Columns(columns) => UnevaluatedBatch {
                columns: columns.batch.clone(),
                rows: &[],
                times: Cow::Borrowed(&columns.times),
                diffs: Cow::Borrowed(&columns.diffs),
            },
            Batch::Rows(rows) => UnevaluatedBatch {
                columns: reader.decode(rows),
                rows,
                times: rows.iter().map(|(_, time, _)| *time).collect(),
                diffs: rows.iter().map(|(_, _, diff)| *diff).collect(),
            },
        }
    }

    /// The encoded rows of a range; empty if the batch arrived as columns.
    fn encoded(&self, range: Range<usize>) -> &[Update] {
        match self.rows {
            [] => &[],
            rows => &rows[range],
        }
    }

    /// The group of a row, if the key can be evaluated.
    fn key(&self, row: usize, reader: &RowReader) -> Option<Row> {
        reader.key(&self.columns.slice(row, 1), self.encoded(row..row + 1))
    }

    /// Evaluates `part`, which begins at row `start` of the batch.
    fn evaluate(&self, part: &RecordBatch, start: usize, reader: &RowReader) -> Result<Evaluated<'_>, KernelError> {
        let range = start..start + part.num_rows();
        Ok(Evaluated {
            read: reader.read(part, self.encoded(range.clone()))?,
            times: &self.times[range.clone()],
            diffs: &self.diffs[range],
        })
    }
}

/// Rows with the values of their expressions.
struct Evaluated<'a> {
    read: ReadBatch,
    times: &'a [Epoch],
    diffs: &'a [Diff],
}

impl Evaluated<'_> {
    fn project(&self, projection: &Projection, mut give: impl FnMut(KeyedRowUpdate)) {
        let columns: Vec<ArrayRef> = projection
            .columns
            .iter()
            .map(|column| self.read.columns[*column].clone())
            .collect();
        let mut valid = projection.filter.map(|filter| passes(&self.read.columns[filter]));
        if projection.skip_nulls {
            for column in &columns {
                valid = NullBuffer::union(valid.as_ref(), column.logical_nulls().as_ref());
            }
        }
        let rows = (!columns.is_empty()).then(|| {
            let rows = match &projection.encoder {
                ValueEncoder::Codec(codec) => codec.encode(&columns).map_err(|e| e.to_string()),
                ValueEncoder::Ordered(converter) => converter.convert_columns(&columns).map_err(|e| e.to_string()),
            };
            rows.expect("a projection's encoder is made for its columns")
        });
        for row in 0..self.diffs.len() {
            if valid.as_ref().is_none_or(|valid| valid.is_valid(row)) {
                let value = match &rows {
                    None => Row::default(),
                    Some(rows) => Row::new(rows.row(row).data()),
                };
                give(((Row::new(self.read.key(row)), value), self.times[row], self.diffs[row]));
            }
        }
    }
}
