//! The first operator of a GROUP BY: evaluates every expression once over batches of rows, and hands the
//! rows on in the shapes that the others need.
//!
//! ```text
//! rows -> front -> errs          rows that an expression refused; they count nowhere, but as failed rows of their group
//!               -> accumulators  one update for each group and epoch, consolidated in a local table
//!               -> projection i  (key, value) of each row, for distinct sets, min/max and general aggregates
//! ```
//! Frontiers: projections and errors leave at the time they came; accumulators wait in the table until the
//! input's frontier moves or the table is full, and the capability of the earliest of them waits with them.

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

use super::accumulators::Accumulators;
use super::local::Local;
use super::measure::{FAILED, Measures, PINNED, ROWS, has_failed, passes};
use super::reader::{Read, Reader};
use crate::render::columns::Columns;
use crate::render::error::Errors;
use crate::render::expr::{KernelError, bisect, gather};
use crate::render::face::Face;
use crate::repr::{Diff, Epoch, Row, RowCodec, Update};

/// Rows that are evaluated at once.
#[derive(Clone)]
enum Batch {
    Rows(Vec<Update>),
    Columns(Rc<Columns>),
}

/// A keyed row on its way.
pub(super) type Keyed = ((Row, Row), Epoch, Diff);
/// A group's accumulators on their way.
pub(super) type Accumulated = ((Row, ()), Epoch, Accumulators);

/// How a projection encodes its values.
pub(super) enum Encoder {
    /// Plainly: equal values are equal bytes, and order is SQL's.
    Codec(RowCodec),
    /// With the order of an aggregate's ORDER BY.
    Ordered(RowConverter),
}

/// (key, value) of each row, for an aggregate that is kept apart.
pub(super) struct Projection {
    /// Positions of the value's columns among the evaluated.
    pub columns: Vec<usize>,
    /// Position of the filter.
    pub filter: Option<usize>,
    /// Whether rows with a null among the columns are left out.
    pub skip_nulls: bool,
    /// How values are encoded.
    pub encoder: Encoder,
}

/// What the operator does.
pub(super) struct Front {
    /// Of the input's rows, for those that fail.
    pub input: RowCodec,
    /// Keys, and everything that is evaluated.
    pub reader: Reader,
    /// The measures over evaluated columns.
    pub measures: Measures,
    /// Empty: only accumulators.
    pub projections: Vec<Projection>,
    /// Whether the group exists over no rows.
    pub global: bool,
}

/// What comes out of it.
pub(super) struct Fronted<'s> {
    pub errs: VecCollection<'s, Epoch, Row, Diff>,
    pub accumulators: Stream<'s, Epoch, Vec<Accumulated>>,
    pub projections: Vec<Stream<'s, Epoch, Vec<Keyed>>>,
}

impl Front {
    /// Builds the operator.
    pub fn render<'s>(self, rows: Face<'s>, name: &str) -> Fronted<'s> {
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
            projected.push(OutputBuilder::<_, Builder<Keyed>>::from(output));
            projected_streams.push(stream);
        }
        builder.build(move |capabilities| {
            let mut local = Local::new(self.measures.clone(), true);
            let errors = Errors::default();
            // The one group of a global aggregate exists from the beginning, on one worker's word.
            let mut pin = (self.global && first_worker)
                .then(|| capabilities.into_iter().nth(1))
                .flatten();
            let mut held: Option<Capability<Epoch>> = None;
            let mut frontier_before = vec![];
            move |frontiers| {
                let mut errs = errs.activate();
                let accumulators = RefCell::new(accumulators.activate());
                if let Some(capability) = pin.take() {
                    let pinned = Accumulators::from_entries([(PINNED, 1)]);
                    accumulators
                        .borrow_mut()
                        .session(&capability)
                        .give(((Row::default(), ()), 0, pinned));
                }
                let flush = |local: &mut Local, held: &Capability<Epoch>| {
                    let mut accumulators = accumulators.borrow_mut();
                    let mut session = accumulators.session(held);
                    local.flush(|key, time, sum| session.give(((key, ()), time, sum)));
                };
                let mut projected: Vec<_> = projected.iter_mut().map(|output| output.activate()).collect();
                input.for_each(|capability, batches| {
                    for batch in batches.drain(..) {
                        if held.as_ref().is_none_or(|held| capability.time() < held.time()) {
                            held = Some(capability.retain(1));
                        }
                        let came = Came::new(&batch, &self.reader);
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
                                let lacking = Accumulators::from_entries([(FAILED, came.diffs[row])]);
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
                            flush(&mut local, held.as_ref().expect("a table with groups has a capability"));
                            held = None;
                        }
                    }
                });
                let frontier = frontiers[0].frontier();
                if frontier.iter().ne(frontier_before.iter()) {
                    frontier_before = frontier.to_vec();
                    if let Some(held) = held.take() {
                        flush(&mut local, &held);
                        local.rest();
                    }
                }
            }
        });
        Fronted {
            errs: errs_stream.as_collection(),
            accumulators: accumulators_stream,
            projections: projected_streams,
        }
    }
}

/// Rows as batches. Encoded ones are put together, those of one time, until they make a batch.
fn batches<'s>(rows: Face<'s>, name: &str) -> Stream<'s, Epoch, Vec<Batch>> {
    let name = format!("{name}: batch");
    match rows {
        Face::Columns(columns) => columns.unary(Pipeline, &name, |_, _| {
            |input, output| {
                input.for_each(|capability, columns| {
                    let mut session = output.session(&capability);
                    session.give_iterator(columns.drain(..).map(Batch::Columns));
                });
            }
        }),
        Face::Rows(rows) => rows.inner.unary(Pipeline, &name, |_, _| {
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

/// A batch, before its expressions are evaluated.
struct Came<'a> {
    columns: RecordBatch,
    /// Empty: they came as columns.
    rows: &'a [Update],
    times: Cow<'a, [Epoch]>,
    diffs: Cow<'a, [Diff]>,
}

impl<'a> Came<'a> {
    fn new(batch: &'a Batch, reader: &Reader) -> Self {
        match batch {
            Batch::Columns(columns) => Came {
                columns: columns.batch.clone(),
                rows: &[],
                times: Cow::Borrowed(&columns.times),
                diffs: Cow::Borrowed(&columns.diffs),
            },
            Batch::Rows(rows) => Came {
                columns: reader.decode(rows),
                rows,
                times: rows.iter().map(|(_, time, _)| *time).collect(),
                diffs: rows.iter().map(|(_, _, diff)| *diff).collect(),
            },
        }
    }

    /// The encoded rows of a range, if they came encoded.
    fn encoded(&self, range: Range<usize>) -> &[Update] {
        match self.rows {
            [] => &[],
            rows => &rows[range],
        }
    }

    /// The group of a row, if that can be told.
    fn key(&self, row: usize, reader: &Reader) -> Option<Row> {
        reader.key(&self.columns.slice(row, 1), self.encoded(row..row + 1))
    }

    /// A part of it that starts at row `start`.
    fn evaluate(&self, part: &RecordBatch, start: usize, reader: &Reader) -> Result<Evaluated<'_>, KernelError> {
        let range = start..start + part.num_rows();
        Ok(Evaluated {
            read: reader.read(part, self.encoded(range.clone()))?,
            times: &self.times[range.clone()],
            diffs: &self.diffs[range],
        })
    }
}

/// Rows with what their expressions say.
struct Evaluated<'a> {
    read: Read,
    times: &'a [Epoch],
    diffs: &'a [Diff],
}

impl Evaluated<'_> {
    fn project(&self, projection: &Projection, mut give: impl FnMut(Keyed)) {
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
                Encoder::Codec(codec) => codec.encode(&columns).map_err(|e| e.to_string()),
                Encoder::Ordered(converter) => converter.convert_columns(&columns).map_err(|e| e.to_string()),
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

/// Whether a group with these accumulators is there: it has rows, of which some may have failed, or it is there over none.
pub(super) fn exists(entries: &[(u32, i64)]) -> bool {
    let first = entries.iter().take_while(|(position, _)| *position <= PINNED);
    let counted = first.copied().any(|(position, value)| match position {
        ROWS => value > 0,
        _ => value != 0,
    });
    counted || has_failed(entries)
}
