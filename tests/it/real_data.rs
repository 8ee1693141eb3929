//! Tests real input: a year of invoices, air quality of twelve stations, trips with changing headers, captured events.
//! The expected figures come from the data's own documentation (`shared/data/README.md`), not from an earlier run.

use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alluvium::definition::{self, Dataflow};
use alluvium::serve::verify;

use crate::lake::{ask, assert_newest_is_exact};
use crate::support::{Folder, catch_up, chain, recompute};
use crate::testing::{checkout, real_data};

/// The retail example over these drops and this live folder, with its lake below `folder`.
fn retail(folder: &Path, drops: &Path, live: &Path) -> Arc<Dataflow> {
    let example = checkout().join("dataflows/retail");
    let settings = |name: &str| {
        let path = match name {
            "ALLUVIUM_RETAIL_LAKE" => folder.join("lake"),
            "ALLUVIUM_RETAIL_DROPS" => drops.to_path_buf(),
            "ALLUVIUM_RETAIL_LIVE" => live.to_path_buf(),
            _ => return None,
        };
        Some(path.display().to_string())
    };
    Arc::new(definition::load(&example, &settings).unwrap_or_else(|e| panic!("{e}")))
}

/// Runs until all input is taken; asserts that this many records came, and no dead letter.
#[track_caller]
fn take_all(dataflow: &Arc<Dataflow>, workers: usize, records: u64) {
    let outcome = catch_up(dataflow, workers);
    assert_eq!((outcome.records, outcome.rejected), (records, 0));
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("a readable folder")
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "gz"))
        .collect();
    files.sort();
    files
}

fn unzip(path: &Path) -> String {
    let mut text = String::new();
    let file = std::fs::File::open(path).expect("a readable file");
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .expect("gzip of UTF-8");
    text
}

#[test]
fn a_year_of_invoices_dropped_as_daily_files_adds_up() {
    let Some(data) = real_data("online_retail") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dataflow = retail(folder.path(), &data.join("by-day"), &folder.path().join("live"));
    take_all(&dataflow, 2, 541_909);

    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM bronze.order_lines"), "541909");
    // The two lines with a negative price are dead letters of Silver; the documentation's sums for the year include
    // them.
    assert_eq!(
        ask(&dataflow, "SELECT COUNT(*), SUM(quantity) FROM silver.order_lines"),
        "541907,5176448"
    );
    assert_eq!(
        ask(
            &dataflow,
            "SELECT COUNT(*) FROM dead_letters WHERE table_name = 'silver.order_lines' AND kind = 'row'"
        ),
        "2"
    );
    assert_eq!(
        ask(&dataflow, "SELECT SUM(amount) FROM silver.order_lines"),
        "9769872.054"
    );
    assert_eq!(
        ask(&dataflow, "SELECT SUM(revenue) FROM gold.sales_by_hour"),
        "9769872.054"
    );
    assert_eq!(
        ask(
            &dataflow,
            "SELECT COUNT(*) FROM silver.order_lines WHERE customer_id IS NULL"
        ),
        "135078"
    );
    assert_eq!(
        ask(&dataflow, "SELECT COUNT(*) FROM silver.order_lines WHERE cancelled"),
        "9288"
    );
    assert_eq!(
        ask(
            &dataflow,
            "SELECT SUM(revenue), SUM(lines) FROM gold.revenue_by_country"
        ),
        "9769872.054,541907"
    );

    assert_newest_is_exact(&dataflow, "the year");

    // A restart loads the state of the graph, not the year's records.
    let again = catch_up(&dataflow, 1);
    assert_eq!((again.records, again.replayed, again.corrections), (0, 0, Some(vec![])));
    // A worker takes more of the past into one epoch than of live input.
    let again = recompute(&dataflow, 1);
    assert_eq!(
        (again.records, again.replayed, again.corrections),
        (0, 541_909, Some(vec![]))
    );
}

#[test]
fn the_year_as_it_came_has_the_documented_sums() {
    let Some(data) = real_data("online_retail") else { return };
    let folder = Folder::new(
        "lines",
        &[(
            "inputs/lines.toml",
            &format!(
                r#"
[columns]
invoice_no = {{ type = "VARCHAR", from = "InvoiceNo", nullable = false }}
quantity = {{ type = "BIGINT", from = "Quantity" }}
unit_price = {{ type = "DECIMAL(12,3)", from = "UnitPrice" }}
customer_id = {{ type = "VARCHAR", from = "CustomerID" }}
[[feeds]]
name = "drops"
kind = "files"
path = "{}/by-day/*.csv.gz"
format = "csv"
"#,
                data.display()
            ),
        )],
    );
    folder.write(
        "gold/year.sql",
        "SELECT COUNT(*) AS lines, SUM(quantity) AS quantity, COUNT(DISTINCT invoice_no) AS invoices, \
         SUM(CAST(quantity * unit_price AS DECIMAL(18, 3))) AS revenue, \
         COUNT(*) FILTER (WHERE customer_id IS NULL) AS anonymous, \
         COUNT(*) FILTER (WHERE invoice_no LIKE 'C%') AS cancelled FROM lines",
    );
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 2);
    assert_eq!(
        ask(&dataflow, "SELECT * FROM gold.year"),
        "541909,5176450,25900,9747747.934,135080,9288"
    );
}

#[test]
fn half_the_year_as_files_and_half_as_a_stream_gives_the_same_tables() {
    let Some(data) = real_data("online_retail") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = retail(
        &folder.path().join("whole"),
        &data.join("by-day"),
        &folder.path().join("none"),
    );
    catch_up(&whole, 2);

    let (drops, live) = (folder.path().join("drops"), folder.path().join("live"));
    std::fs::create_dir_all(&drops).expect("a folder");
    std::fs::create_dir_all(live.join("order_lines")).expect("a folder");
    let mut log = std::fs::File::create(live.join("order_lines/0.ndjson")).expect("a log");
    // The days come in an arbitrary order: odd ones as files under other names, even ones as records, the last day
    // first.
    for (n, day) in files(&data.join("by-day")).iter().enumerate().rev() {
        if n % 2 == 1 {
            std::fs::copy(day, drops.join(format!("{:04}.csv.gz", (n * 7919) % 1000))).expect("a copied day");
            continue;
        }
        let text = unzip(day);
        let mut reader = arrow::csv::ReaderBuilder::new(Arc::new(arrow::datatypes::Schema::new(
            [
                "invoice_no",
                "stock_code",
                "description",
                "quantity",
                "invoiced_at",
                "unit_price",
                "customer_id",
                "country",
            ]
            .map(|name| arrow::datatypes::Field::new(name, arrow::datatypes::DataType::Utf8, true))
            .to_vec(),
        )))
        .with_header(true)
        .build(text.as_bytes())
        .expect("a CSV reader");
        let mut lines = Vec::new();
        for batch in reader.by_ref() {
            let mut writer = arrow::json::LineDelimitedWriter::new(&mut lines);
            writer.write(&batch.expect("readable lines")).expect("JSON");
            writer.finish().expect("JSON");
        }
        for line in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            log.write_all(b"{\"value\": ")
                .and_then(|()| log.write_all(line))
                .and_then(|()| log.write_all(b"}\n"))
                .expect("a record");
        }
    }
    drop(log);
    let halves = retail(&folder.path().join("halves"), &drops, &live);
    catch_up(&halves, 3);
    let tables = |dataflow: &Arc<Dataflow>| verify::fingerprints(dataflow).unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(tables(&whole), tables(&halves));
}

#[test]
fn the_air_of_twelve_stations_is_read_with_its_missing_values() {
    let Some(data) = real_data("beijing_air") else { return };
    let folder = Folder::new("air", &[]);
    folder.write(
        "inputs/air.toml",
        &format!(
            r#"
[columns]
year = "INT"
month = "INT"
day = "INT"
hour = "INT"
pm25 = {{ type = "DOUBLE", from = "PM2.5", null = "NA" }}
co = {{ type = "DOUBLE", from = "CO", null = "NA" }}
wd = {{ type = "VARCHAR", null = "NA" }}
station = {{ type = "VARCHAR", nullable = false }}
[[feeds]]
name = "drops"
kind = "files"
path = "{}/*.csv.gz"
format = "csv"
"#,
            data.display()
        ),
    );
    folder.write(
        "silver/air.sql",
        "SELECT station, make_date(year, month, day) AS day, hour, pm25, co, wd FROM air",
    );
    folder.write("silver/air.toml", "key = [\"station\", \"day\", \"hour\"]\n");
    folder.write(
        "gold/stations.sql",
        "SELECT station, COUNT(*) AS hours, COUNT(pm25) AS measured, AVG(pm25) AS pm25, MEDIAN(co) AS co FROM silver.air GROUP BY station",
    );
    let dataflow = folder.load("lake");
    take_all(&dataflow, 2, 420_768);
    assert_eq!(
        ask(
            &dataflow,
            "SELECT COUNT(*), COUNT(*) - COUNT(co), COUNT(*) - COUNT(pm25), COUNT(*) - COUNT(wd) FROM silver.air"
        ),
        "420768,20701,8739,1822"
    );
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM gold.stations"), "12");
    assert_eq!(
        ask(&dataflow, "SELECT COUNT(*) FROM dead_letters"),
        "0",
        "(station, hour) is unique"
    );
    assert_newest_is_exact(&dataflow, "the air");
}

#[test]
fn trips_with_two_date_formats_and_a_drifting_header_are_one_input() {
    let Some(data) = real_data("citibike_jc") else { return };
    let folder = Folder::new("trips", &[]);
    folder.write(
        "inputs/trips.toml",
        &format!(
            r#"
[columns]
seconds = {{ type = "BIGINT", from = "tripduration", nullable = false }}
started_at = {{ type = "TIMESTAMP", from = "starttime", format = ["%Y-%m-%d %H:%M:%S", "%m/%d/%y %H:%M"], nullable = false }}
stopped_at = {{ type = "TIMESTAMP", from = "stoptime", format = ["%Y-%m-%d %H:%M:%S", "%m/%d/%y %H:%M"] }}
station = {{ type = "VARCHAR", from = "start station name" }}
birth_year = {{ type = "INT", from = "birth year", null = "NULL" }}
[[feeds]]
name = "drops"
kind = "files"
path = "{}/*.csv.gz"
format = "csv"
"#,
            data.display()
        ),
    );
    folder.write(
        "gold/months.sql",
        "SELECT date_trunc('month', started_at) AS month, COUNT(*) AS trips, SUM(seconds) AS seconds, COUNT(birth_year) AS with_year \
         FROM trips GROUP BY date_trunc('month', started_at)",
    );
    let dataflow = folder.load("lake");
    take_all(&dataflow, 2, 144_709);
    assert_eq!(
        ask(&dataflow, "SELECT COUNT(*), SUM(trips) FROM gold.months"),
        "9,144709"
    );
    assert_newest_is_exact(&dataflow, "the trips");
}

#[test]
fn events_captured_by_event_hubs_are_unpacked() {
    let Some(data) = real_data("eventhubs_capture") else {
        return;
    };
    let folder = Folder::new("capture", &[]);
    std::fs::create_dir_all(folder.path().join("drops")).expect("a folder");
    for name in ["54.avro", "empty.avro"] {
        std::fs::copy(data.join("cosh").join(name), folder.path().join("drops").join(name)).expect("a copied capture");
    }
    folder.write(
        "inputs/sensors.toml",
        r#"
[columns]
id = { type = "BIGINT", from = "ID", nullable = false }
at = { type = "TIMESTAMP", from = "TIMESTAMP", format = "epoch_ms", nullable = false }
value = { type = "DOUBLE", from = "VALUE" }
[[feeds]]
name = "capture"
kind = "files"
path = "drops/*.avro"
format = "avro"
"#,
    );
    folder.write("gold/events.sql", "SELECT COUNT(*) AS events, COUNT(DISTINCT id) AS ids, COUNT(value) AS measured, MAX(at) AS last_at FROM sensors");
    let dataflow = folder.load("lake");
    take_all(&dataflow, 1, 380);
    assert_eq!(
        ask(&dataflow, "SELECT events, ids, measured FROM gold.events"),
        "380,380,380"
    );
    assert_newest_is_exact(&dataflow, "the capture");
}
