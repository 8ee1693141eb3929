//! Reads the same rows as CSV, JSON, Parquet and Avro again: unchanged, and after a simulated mistake of the run's
//! decoder.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::array::{BooleanArray, Decimal128Array, Float64Array};

use super::{Reread, Rereader};
use crate::definition::{Dataflow, load};
use crate::lake::Lake;
use crate::run::{self, Options};
use crate::serve::LakeSnapshot;
use crate::serve::history::{self, PastDelivery};
use crate::serve::verify::{runtime, verify};

const COLUMNS: &str = r#"
[columns]
id = "BIGINT"
name = "VARCHAR"
price = "DECIMAL(12,2)"
weight = "DOUBLE"
sold = "DATE"
at = "TIMESTAMP"
paid = "BOOLEAN"
"#;

const CSV: &str = "id,name,price,weight,sold,at,paid\n\
    1,\"a, \"\"b\"\"\",16.10,0.1,2024-02-29,2024-02-29 12:00:00.000001,true\n\
    \u{feff}2,,-0.05,-0.0,9999-12-31,0001-01-01 00:00:00,false\n\
    3,\"two\nlines\",,1e300,,,\n";

const JSON: &str = concat!(
    r#"{"id": 1, "name": "a, \"b\"", "price": "16.10", "weight": 0.1, "sold": "2024-02-29", "at": "2024-02-29T12:00:00.000001Z", "paid": true}"#,
    "\n",
    r#"{"id": 2, "name": null, "price": -0.05, "weight": -0.0, "sold": "9999-12-31", "at": "0001-01-01 00:00:00", "paid": false}"#,
    "\n",
    r#"{"id": 3, "name": "two\nlines", "weight": 1e300}"#,
    "\n",
);

fn batch() -> RecordBatch {
    let decimals = Decimal128Array::from(vec![Some(1610), Some(-5), None]);
    let days = [Some(19782), Some(2932896), None];
    let micros = [Some(1_709_208_000_000_001), Some(-62_135_596_800_000_000), None];
    let columns: [(&str, ArrayRef); 7] = [
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        (
            "name",
            Arc::new(StringArray::from(vec![Some("a, \"b\""), None, Some("two\nlines")])),
        ),
        ("price", Arc::new(decimals.with_precision_and_scale(12, 2).unwrap())),
        ("weight", Arc::new(Float64Array::from(vec![0.1, -0.0, 1e300]))),
        ("sold", Arc::new(Date32Array::from(days.to_vec()))),
        ("at", Arc::new(TimestampMicrosecondArray::from(micros.to_vec()))),
        (
            "paid",
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// A dataflow that has run, and whose only input has the rows in this format.
fn ran(folder: &Path, format: &str) -> Dataflow {
    fs::create_dir_all(folder.join("inputs")).unwrap();
    fs::create_dir_all(folder.join("silver")).unwrap();
    fs::create_dir_all(folder.join("drops")).unwrap();
    fs::write(folder.join("dataflow.toml"), "name = \"x\"\ndurability = \"none\"\n").unwrap();
    let feed = format!("[[feeds]]\nname = \"drops\"\nkind = \"files\"\nformat = \"{format}\"\npath = \"drops/*\"\n");
    fs::write(folder.join("inputs/sales.toml"), format!("{COLUMNS}{feed}")).unwrap();
    fs::write(folder.join("silver/sales.sql"), "SELECT * FROM sales").unwrap();
    let path = folder.join(format!("drops/rows.{format}"));
    match format {
        "csv" => fs::write(path, CSV).unwrap(),
        "ndjson" => fs::write(path, JSON).unwrap(),
        "parquet" => {
            let file = File::create(path).unwrap();
            let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch().schema(), None).unwrap();
            writer.write(&batch()).unwrap();
            writer.close().unwrap();
        }
        _ => {
            let file = File::create(path).unwrap();
            let schema = batch().schema().as_ref().clone();
            let mut writer = arrow_avro::writer::AvroWriter::new(file, schema).unwrap();
            writer.write(&batch()).unwrap();
            writer.finish().unwrap();
        }
    }
    let mut dataflow = load(folder, &|_| None).unwrap_or_else(|e| panic!("{e:?}"));
    dataflow.lake = folder.join("lake").display().to_string();
    let options = Options {
        until_caught_up: true,
        ..Options::default()
    };
    run::run(Arc::new(dataflow.clone()), &options).unwrap_or_else(|e| panic!("{e}"));
    dataflow
}

/// The report on the input if `mistake` changes what the run decoded.
fn reread(dataflow: &Dataflow, mistake: impl Fn(&mut PastDelivery)) -> Reread {
    let lake = Lake::open(&dataflow.lake, &dataflow.store_options).unwrap();
    runtime().unwrap().block_on(async {
        let snapshot = LakeSnapshot::open(&lake, None).await.unwrap();
        let mut rereader = Rereader::new(&dataflow.inputs[0], &lake);
        let replayed = history::replay(&snapshot, &lake, &dataflow.inputs[0], async |mut past| {
            mistake(&mut past);
            rereader.compare(&past).await;
        });
        replayed.await.unwrap();
        rereader.finish()
    })
}

#[test]
fn arrow_reads_what_the_run_decoded() {
    for format in ["csv", "ndjson", "parquet", "avro"] {
        let folder = tempfile::tempdir().unwrap();
        let dataflow = ran(folder.path(), format);
        let report = verify(&dataflow, None).unwrap();
        assert_eq!(report.differences, [], "{format}");
        let (_, right) = &report.inputs[0];
        assert_eq!(
            (right.equal, right.not_compared, right.differing),
            (21, 0, 0),
            "{format}"
        );
    }
}

#[test]
fn a_decoder_that_is_wrong_is_told() {
    for format in ["csv", "ndjson", "parquet", "avro"] {
        let folder = tempfile::tempdir().unwrap();
        let dataflow = ran(folder.path(), format);
        let wrong = reread(&dataflow, |past| {
            let mut columns = past.decoded.rows.columns().to_vec();
            columns[2] = Arc::new(
                Decimal128Array::from(vec![Some(1610), Some(5), None])
                    .with_precision_and_scale(12, 2)
                    .unwrap(),
            );
            past.decoded.rows = RecordBatch::try_new(past.decoded.rows.schema(), columns).unwrap();
        });
        assert_eq!((wrong.equal, wrong.differing), (20, 1), "{format}");
        let misread = &wrong.misread[0];
        assert_eq!(
            (misread.decoded.as_str(), misread.arrow.as_str()),
            ("0.05", "-0.05"),
            "{format}"
        );
        assert!(
            misread.place.contains("drops") && misread.place.ends_with("offset 1, column price"),
            "{}",
            misread.place
        );
    }
}
