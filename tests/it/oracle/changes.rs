//! Tests the change data feed with a reader that we did not write, deltalake: applied version by version, the changes
//! must make the table as it is at each version.

use std::collections::BTreeMap;
use std::path::Path;

use alluvium::definition::{Dataflow, Table};
use alluvium::serve::LakeReader;
use alluvium::serve::verify;
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;

use crate::support::chain;

/// Rows as text, with their multiplicities.
pub type Rows = BTreeMap<String, i64>;

/// Checks every table with a change data feed, at every snapshot. Returns the number of changes.
pub fn assert_feeds_make_the_tables(dataflow: &Dataflow) -> usize {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let kept: Vec<&Table> = dataflow.tables.iter().filter(|t| t.change_data_feed).collect();
    let feeds: Vec<BTreeMap<i64, Rows>> = kept
        .iter()
        .map(|table| {
            let folder = Path::new(&dataflow.lake).join(table.layer.name()).join(&table.name);
            runtime.block_on(changes(&folder, 0))
        })
        .collect();
    let epochs = verify::snapshots(dataflow).unwrap_or_else(|e| panic!("{}", chain(&e)));
    let mut made: Vec<(i64, Rows)> = vec![(-1, Rows::new()); kept.len()];
    for epoch in epochs {
        let reader = LakeReader::open(dataflow, Some(epoch)).unwrap_or_else(|e| panic!("{}", chain(&e)));
        for ((table, feed), (at, rows)) in kept.iter().zip(&feeds).zip(&mut made) {
            let name = table.qualified_name();
            let version = reader.snapshot().versions()[&name];
            if version == *at {
                continue;
            }
            for (_, changes) in feed.range(*at + 1..=version) {
                changes
                    .iter()
                    .for_each(|(row, n)| *rows.entry(row.clone()).or_default() += n);
            }
            rows.retain(|_, n| *n != 0);
            *at = version;
            let (_, stored) = reader.rows(&name).unwrap_or_else(|e| panic!("{name}: {}", chain(&e)));
            let stored = stored.iter().fold(Rows::new(), |mut all, batch| {
                shown(batch)
                    .into_iter()
                    .for_each(|row| *all.entry(row).or_default() += 1);
                all
            });
            assert!(
                stored == *rows,
                "the changes of {name} do not make version {version} of it\n{}: {rows:#?}\nit has {stored:#?}",
                table.sql
            );
        }
    }
    feeds
        .iter()
        .flat_map(BTreeMap::values)
        .flat_map(|rows| rows.values())
        .map(|n| n.unsigned_abs() as usize)
        .sum()
}

/// A table's newest version, and its rows, each with `more` appended.
pub fn newest(dataflow: &Dataflow, name: &str, more: &str) -> (i64, Rows) {
    let reader = LakeReader::open(dataflow, None).unwrap_or_else(|e| panic!("{}", chain(&e)));
    let (_, batches) = reader.rows(name).unwrap_or_else(|e| panic!("{name}: {}", chain(&e)));
    let mut rows = Rows::new();
    for row in batches.iter().flat_map(shown) {
        *rows.entry(row + more).or_default() += 1;
    }
    (reader.snapshot().versions()[name], rows)
}

/// Checks that the changes after a version, read with the newest schema, lead from its rows to the newest.
pub fn assert_newest_follows(dataflow: &Dataflow, name: &str, (version, rows): (i64, Rows)) {
    let (layer, table) = name.split_once('.').expect("a table is of a layer");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = Path::new(&dataflow.lake).join(layer).join(table);
    let mut made = rows;
    let changes = runtime.block_on(changes(&folder, version + 1));
    for (row, n) in changes.into_values().flatten() {
        *made.entry(row).or_default() += n;
    }
    made.retain(|_, n| *n != 0);
    assert_eq!(made, newest(dataflow, name, "").1, "the changes of {name}");
}

/// The changes of each version from `first` on: by how much each row's multiplicity changes.
async fn changes(folder: &Path, first: i64) -> BTreeMap<i64, Rows> {
    let url = url::Url::from_directory_path(folder).expect("an absolute path");
    let table = deltalake::open_table(url).await.expect("the table opens");
    let context = SessionContext::new();
    let (feed, state) = (table.scan_cdf().with_starting_version(first as u64), context.state());
    let plan = feed
        .build(&state, None)
        .await
        .unwrap_or_else(|e| panic!("{}: {}", folder.display(), chain(&e)));
    let batches = collect(plan, context.task_ctx())
        .await
        .unwrap_or_else(|e| panic!("{}: {}", folder.display(), chain(&e)));
    let mut changes: BTreeMap<i64, Rows> = BTreeMap::new();
    for batch in batches {
        let schema = batch.schema();
        let meta = ["_change_type", "_commit_version", "_commit_timestamp"];
        let own: Vec<usize> = (0..batch.num_columns())
            .filter(|n| !meta.contains(&schema.field(*n).name().as_str()))
            .collect();
        let column = |name: &str, to: &DataType| {
            let column = batch.column_by_name(name).expect("a change data feed has it");
            cast(column, to).expect("it is of that type")
        };
        let (kinds, versions) = (column(meta[0], &DataType::Utf8), column(meta[1], &DataType::Int64));
        let rows = batch.project(&own).expect("positions are of the batch");
        for (n, row) in shown(&rows).into_iter().enumerate() {
            let sign = match kinds.as_string::<i32>().value(n) {
                "insert" | "update_postimage" => 1,
                "delete" | "update_preimage" => -1,
                other => panic!("a change of type {other}"),
            };
            let version = versions.as_primitive::<Int64Type>().value(n);
            *changes.entry(version).or_default().entry(row).or_default() += sign;
        }
    }
    changes
}

/// Rows as text, with columns ordered by name, because a feed may have partition columns in another place.
fn shown(batch: &RecordBatch) -> Vec<String> {
    let schema = batch.schema();
    let mut order: Vec<usize> = (0..batch.num_columns()).collect();
    order.sort_by_key(|n| schema.field(*n).name());
    let options = FormatOptions::default().with_null("null");
    let formatters: Vec<(String, ArrayFormatter<'_>)> = order
        .into_iter()
        .map(|n| {
            let formatter = ArrayFormatter::try_new(batch.column(n).as_ref(), &options);
            (
                schema.field(n).name().clone(),
                formatter.expect("every type can be shown"),
            )
        })
        .collect();
    (0..batch.num_rows())
        .map(|row| {
            let cells: Vec<String> = formatters
                .iter()
                .map(|(name, f)| format!("{name}={}", f.value(row)))
                .collect();
            cells.join(" ")
        })
        .collect()
}
