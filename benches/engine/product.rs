//! The product's side: SQL, compiled by `plan` and built by `render`, on `Row`s.

use std::error::Error;
use std::sync::Arc;

use alluvium::definition::{self, Dataflow};
use alluvium::plan::{self, Graph};
use alluvium::render::{self, Collections, Counters, RestartState};
use alluvium::repr::{Epoch, RowCodec, Update};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use differential_dataflow::AsCollection;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::{Input, Probe};
use timely::dataflow::{InputHandle, ProbeHandle};
use timely::worker::Worker;

use crate::drive::{Counted, Program, Tally, text_hash};
use crate::workload::{self, Case, Change};

type Handle = InputHandle<Epoch, CapacityContainerBuilder<Vec<Update>>>;

/// The running program.
pub struct Product {
    events: Handle,
    customers: Handle,
    event_codec: RowCodec,
    customer_codec: RowCodec,
    probe: ProbeHandle<Epoch>,
    epoch: Epoch,
}

impl Program for Product {
    type Events = Vec<Update>;
    type Customers = Vec<Update>;

    fn new(worker: &mut Worker, case: Case, tally: &Tally) -> Self {
        let (dataflow, graph) = compiled(case).unwrap_or_else(|error| panic!("the bench's dataflow: {error}"));
        let probe = ProbeHandle::new();
        let handles = worker.dataflow::<Epoch, _, _>(|scope| {
            let (handles, inputs): (Vec<_>, Vec<_>) = (dataflow.inputs.iter())
                .map(|input| {
                    let (handle, stream) = scope.new_input::<Vec<Update>>();
                    let collections = Collections {
                        oks: stream.as_collection(),
                        errs: render::empty(scope),
                    };
                    ((input.name.clone(), handle), collections)
                })
                .unzip();
            let built = render::build(
                scope,
                &dataflow,
                &graph,
                inputs,
                &Counters::default(),
                RestartState::default(),
            );
            for (table, planned) in built.tables.into_iter().zip(&graph.tables) {
                let codec = RowCodec::new(planned.schema.clone()).expect("a planned schema has a row encoding");
                let checksum = move |updates: &[Update]| {
                    let batch = codec
                        .decode(updates.iter().map(|(row, _, _)| row.bytes()))
                        .expect("rows of a table are encoded with its schema");
                    let hashes = (0..updates.len()).map(|row| text_hash(&texts(&batch, row)));
                    hashes
                        .zip(updates)
                        .map(|(hash, (_, _, diff))| hash.wrapping_mul(*diff as u64))
                        .fold(0, u64::wrapping_add)
                };
                table.oks.counted(tally, checksum).inner.probe_with(&probe);
            }
            handles
        });
        let mut handles = handles.into_iter();
        let mut handle = |wanted: &str| {
            let (name, handle) = handles.next().expect("the dataflow has two inputs");
            assert_eq!(name, wanted, "inputs are sorted by name");
            handle
        };
        let (customers, events) = (handle("customers"), handle("events"));
        let codec = |columns: &[(&str, DataType)]| RowCodec::new(schema(columns)).expect("plain types");
        let text = DataType::Utf8;
        Product {
            events,
            customers,
            event_codec: codec(&[
                ("key", text.clone()),
                ("item", text.clone()),
                ("quantity", DataType::Int64),
            ]),
            customer_codec: codec(&[("key", text.clone()), ("name", text.clone()), ("city", text)]),
            probe,
            epoch: 0,
        }
    }

    fn events(&self, changes: &[Change]) -> Self::Events {
        let diffs: Vec<i64> = changes.iter().map(|(_, diff)| *diff).collect();
        let columns: [ArrayRef; 3] = [
            strings(changes.iter().map(|(event, _)| workload::key(event.key))),
            strings(changes.iter().map(|(event, _)| workload::item(event.key))),
            Arc::new(Int64Array::from_iter_values(
                changes.iter().map(|(event, _)| event.quantity),
            )),
        ];
        self.updates(&self.event_codec, &columns, &diffs)
    }

    fn customers(&self, keys: std::ops::Range<u64>) -> Self::Customers {
        let columns: [ArrayRef; 3] = [
            strings(keys.clone().map(workload::key)),
            strings(keys.clone().map(workload::name)),
            strings(keys.clone().map(workload::city)),
        ];
        self.updates(&self.customer_codec, &columns, &vec![1; columns[0].len()])
    }

    fn send_events(&mut self, mut updates: Self::Events) {
        self.events.send_batch(&mut updates);
    }

    fn send_customers(&mut self, mut updates: Self::Customers) {
        self.customers.send_batch(&mut updates);
    }

    fn advance(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.events.advance_to(epoch);
        self.customers.advance_to(epoch);
    }

    fn is_behind(&self) -> bool {
        self.probe.less_than(&self.epoch)
    }
}

impl Product {
    fn updates(&self, codec: &RowCodec, columns: &[ArrayRef], diffs: &[i64]) -> Vec<Update> {
        let rows = codec
            .encode_rows(columns, diffs.len())
            .expect("columns of the codec's types");
        rows.into_iter()
            .zip(diffs)
            .map(|(row, diff)| (row, self.epoch, *diff))
            .collect()
    }
}

/// Loads and plans a folder like one that a user would write.
fn compiled(case: Case) -> Result<(Dataflow, Graph), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let input = |columns: &str| {
        format!(
            "bronze = false\n[columns]\n{columns}\n[[feeds]]\nname = \"f\"\nkind = \"log\"\npath = \"f\"\nformat = \"json\"\n"
        )
    };
    let files = [
        ("dataflow.toml", "name = \"bench\"\nlake = \"lake\"\n".to_string()),
        (
            "inputs/events.toml",
            input("key = \"VARCHAR\"\nitem = \"VARCHAR\"\nquantity = \"BIGINT\""),
        ),
        (
            "inputs/customers.toml",
            input("key = \"VARCHAR\"\nname = \"VARCHAR\"\ncity = \"VARCHAR\""),
        ),
        ("silver/result.sql", case.sql().to_string()),
    ];
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(folder.path()))?;
        std::fs::write(path, text)?;
    }
    let dataflow = definition::load(folder.path(), &|_| None).map_err(|diagnostics| diagnostics.to_string())?;
    let graph = plan::compile(&dataflow).map_err(|diagnostics| diagnostics.to_string())?;
    Ok((dataflow, graph))
}

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, t)| Field::new(*name, t.clone(), true))
        .collect();
    Arc::new(Schema::new(fields))
}

fn strings(values: impl Iterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn texts(batch: &RecordBatch, row: usize) -> Vec<String> {
    let text = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        other => panic!("a column of type {other}"),
    };
    batch.columns().iter().map(text).collect()
}
