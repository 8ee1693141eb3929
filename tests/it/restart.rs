//! Tests runs over an existing lake: what a restart keeps, corrects, rebuilds, and cannot resume.

use std::sync::Arc;
use std::time::Duration;

use alluvium::run::{self, Options, RunOutcome};

use crate::lake::{ask, assert_all_are_exact, assert_newest_is_exact};
use crate::support::{Folder, catch_up, catch_up_later, chain, recompute};

const ORDERS: &str = r#"
key = ["id"]
[columns]
id = { type = "BIGINT", nullable = false }
customer = "VARCHAR"
amount = "BIGINT"
[[feeds]]
name = "drops"
kind = "files"
path = "drops/*.csv"
format = "csv"
[[feeds]]
name = "live"
kind = "log"
path = "live"
format = "json"
"#;

const BY_CUSTOMER: &str = "SELECT customer, SUM(amount) AS amount FROM orders GROUP BY customer";

/// Ten orders from a file, of which the log changes five and deletes one.
fn orders(name: &str, input: &str) -> Folder {
    let folder = Folder::new(
        name,
        &[("inputs/orders.toml", input), ("gold/by_customer.sql", BY_CUSTOMER)],
    );
    let rows: String = (0..10).map(|id| format!("{id},c{},{}\n", id % 3, id * 10)).collect();
    folder.write(
        "drops/a.csv",
        &format!("id,customer,amount,note\n{}", rows.replace('\n', ",x\n")),
    );
    for id in 0..5 {
        folder.append(
            "live/0.ndjson",
            &format!(
                "{{\"key\": {{\"id\": {id}}}, \"value\": {{\"id\": {id}, \"customer\": \"c9\", \"amount\": 1}}}}\n"
            ),
        );
    }
    folder.append("live/0.ndjson", "{\"key\": {\"id\": 9}, \"value\": null}\n");
    folder
}

fn corrected(outcome: &RunOutcome) -> Vec<&str> {
    let corrections = outcome.corrections.as_ref().expect("a restart is an audit");
    corrections.iter().map(|(table, _)| table.as_str()).collect()
}

#[test]
fn a_restart_reports_how_many_rows_its_audit_corrected() {
    let folder = orders("audited", ORDERS);
    let dataflow = folder.load("lake");
    let first = catch_up(&dataflow, 2);
    assert_eq!(first.corrections, None, "a new lake has nothing to audit");
    assert_eq!(
        first.ignored.into_iter().collect::<Vec<_>>(),
        [((0, "note".to_string()), 10)],
        "the column that the definition does not take is told"
    );
    for workers in [1, 3] {
        assert_eq!(catch_up(&dataflow, workers).corrections, Some(vec![]));
    }
    // With another query, the corrections are the rows that changed.
    folder.write(
        "gold/by_customer.sql",
        &BY_CUSTOMER.replace("SUM(amount)", "SUM(amount) + 0 * COUNT(*)"),
    );
    assert_eq!(
        catch_up(&folder.load("lake"), 2).corrections,
        Some(vec![]),
        "other SQL, the same rows"
    );
    folder.write(
        "gold/by_customer.sql",
        &BY_CUSTOMER.replace("FROM orders", "FROM orders WHERE customer <> 'c1'"),
    );
    let edited = folder.load("lake");
    let outcome = catch_up(&edited, 2);
    assert_eq!(
        outcome.corrections,
        Some(vec![("gold.by_customer".to_string(), 1)]),
        "one group left"
    );
    assert_eq!(ask(&edited, "SELECT COUNT(*) FROM gold.by_customer"), "3");
}

#[test]
fn a_table_of_another_shape_is_rebuilt_within_one_snapshot() {
    let folder = orders("reshaped", ORDERS);
    folder.write("gold/untouched.sql", "SELECT id FROM orders");
    catch_up(&folder.load("lake"), 2);
    let shapes = [
        // The shapes are: a new column at the end and in the middle, another type, one column less, a column that is
        // never null.
        (
            "SELECT customer, SUM(amount) AS amount, MAX(id) AS newest FROM orders GROUP BY customer",
            "",
        ),
        (
            "SELECT customer, MIN(id) AS oldest, SUM(amount) AS amount, MAX(id) AS newest FROM orders GROUP BY customer",
            "",
        ),
        (
            "SELECT customer, CAST(SUM(amount) AS DOUBLE) AS amount FROM orders GROUP BY customer",
            "",
        ),
        (
            "SELECT customer, CAST(SUM(amount) AS VARCHAR) AS amount, COUNT(*) AS n FROM orders GROUP BY customer",
            "",
        ),
        ("SELECT customer, COUNT(*) AS n FROM orders GROUP BY customer", ""),
        (
            "SELECT customer, COUNT(*) AS n FROM orders GROUP BY customer",
            "partition_by = [\"customer\"]\n",
        ),
        (BY_CUSTOMER, "deletes = \"vectors\"\n"),
        (BY_CUSTOMER, "partition_by = [\"customer\"]\ndeletes = \"vectors\"\n"),
    ];
    for (n, (sql, settings)) in shapes.into_iter().enumerate() {
        folder.write("gold/by_customer.sql", sql);
        folder.write("gold/by_customer.toml", settings);
        let dataflow = folder.load("lake");
        let before = ask(
            &dataflow,
            "SELECT COUNT(*), COUNT(DISTINCT customer) FROM gold.by_customer",
        );
        let outcome = catch_up(&dataflow, 1 + n % 3);
        assert!(
            corrected(&outcome).iter().all(|table| *table == "gold.by_customer"),
            "{outcome:?}"
        );
        let now = "SELECT COUNT(*), COUNT(DISTINCT customer) FROM gold.by_customer";
        assert_eq!(ask(&dataflow, now), before, "shape {n}: {sql} {settings}");
        assert_newest_is_exact(&dataflow, sql);
        assert_eq!(catch_up(&dataflow, 2).corrections, Some(vec![]), "shape {n} is settled");
    }
    // Live changes continue in the new shape.
    folder.append(
        "live/0.ndjson",
        "{\"value\": {\"id\": 3, \"customer\": \"c1\", \"amount\": 5}}\n",
    );
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 2);
    assert_newest_is_exact(&dataflow, "after a change in the new shape");
}

#[test]
fn an_input_without_bronze_is_read_again_from_its_feeds() {
    let folder = orders("unkept", &format!("bronze = false\n{ORDERS}"));
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 2);
    let all = "SELECT SUM(amount), COUNT(*) FROM gold.by_customer";
    let before = ask(&dataflow, all);
    assert_eq!(before, "265,4");
    for workers in [1, 3] {
        let outcome = recompute(&dataflow, workers);
        assert_eq!(
            (outcome.replayed, outcome.corrections, ask(&dataflow, all)),
            (16, Some(vec![]), before.clone())
        );
    }
    // Records that came while no run was active are new, not past.
    folder.append(
        "live/0.ndjson",
        "{\"value\": {\"id\": 20, \"customer\": \"c1\", \"amount\": 1000}}\n",
    );
    folder.write("drops/b.csv", "id,customer,amount\n21,c1,10000\n");
    let outcome = catch_up(&dataflow, 2);
    assert_eq!(outcome.corrections, Some(vec![]));
    assert_eq!(ask(&dataflow, all), "11265,4");
    // A deleted file cannot be read again, but the lake has its records.
    std::fs::remove_file(folder.path().join("drops/a.csv")).expect("the file is there");
    assert_eq!(catch_up(&dataflow, 3).corrections, Some(vec![]));
    assert_eq!(ask(&dataflow, all), "11265,4");
    let options = Options {
        until_caught_up: true,
        recompute: true,
        duration: Some(Duration::from_secs(60)),
        ..Options::default()
    };
    let refused = run::run(dataflow.clone(), &options)
        .map(|_| ())
        .expect_err("its past is gone");
    let told = chain(&refused);
    assert!(
        told.contains("orders") && told.contains("a.csv") && told.contains("bronze = true"),
        "{told}"
    );
    assert_eq!(ask(&dataflow, all), "11265,4", "nothing was taken away");
}

#[test]
fn letters_of_files_and_late_records_outlive_a_restart() {
    // A restart recomputes dead letters from Bronze, which has no record of a torn file, and at a later time, when
    // rows that had come in time have expired: the first kind of letter disappeared, and the second appeared wrongly.
    let now = chrono::Utc::now();
    let folder = Folder::new(
        "letters",
        &[(
            "inputs/events.toml",
            r#"
retention = { column = "at", keep = "10m" }
[columns]
id = "BIGINT"
at = { type = "TIMESTAMP", format = "epoch_ms" }
[[feeds]]
name = "drops"
kind = "files"
path = "drops/*.ndjson*"
format = "ndjson"
"#,
        )],
    );
    folder.write("gold/all.sql", "SELECT id, at FROM events");
    let event = |id: u32, back: i64| format!("{{\"id\": {id}, \"at\": {}}}\n", now.timestamp_millis() - back);
    folder.write("drops/a.ndjson", &(event(1, 0) + &event(2, 3_600_000) + &event(3, 0)));
    // The bytes are not text, because text would be read, whatever the file's name.
    folder.write("drops/b.ndjson.gz", "\u{1}\u{0}this is no gzip");
    let dataflow = folder.load("lake");
    let outcome = catch_up(&dataflow, 2);
    let letters = "SELECT kind, feed, \"partition\", \"offset\", epoch, reason FROM dead_letters ORDER BY kind, epoch";
    let before = ask(&dataflow, letters);
    assert_eq!((outcome.rejected, outcome.rejected_files), (1, 1));
    assert!(
        before.starts_with("file,drops,b.ndjson.gz,") && before.contains("record,drops,a.ndjson,1,"),
        "{before}"
    );
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM gold.all"), "2");
    for workers in [1, 2] {
        let outcome = catch_up_later(&dataflow, workers, Duration::from_secs(11 * 60));
        assert_eq!(ask(&dataflow, letters), before, "with {workers} workers");
        assert_eq!(
            ask(&dataflow, "SELECT COUNT(*) FROM gold.all"),
            "0",
            "their time has passed"
        );
        assert!(!corrected(&outcome).contains(&"dead_letters"), "{outcome:?}");
    }
}

/// A restart judged the rows of a table by its own time: rows that had come in time and expired since got letters that
/// said they had come too late.
#[test]
fn a_restart_writes_no_letters_of_rows_that_reached_a_table_in_time() {
    let now = chrono::Utc::now();
    let folder = Folder::new(
        "table_letters",
        &[(
            "inputs/events.toml",
            r#"
[columns]
id = "BIGINT"
at = { type = "TIMESTAMP", format = "epoch_ms" }
[[feeds]]
name = "live"
kind = "log"
path = "live"
format = "json"
"#,
        )],
    );
    folder.write("silver/recent.sql", "SELECT id, at FROM events");
    folder.write(
        "silver/recent.toml",
        "retention = { column = \"at\", keep = \"10m\" }\n",
    );
    let append = |id: u32, at: i64| {
        folder.append(
            "live/0.ndjson",
            &format!("{{\"value\": {{\"id\": {id}, \"at\": {at}}}}}\n"),
        );
    };
    append(1, now.timestamp_millis());
    append(2, now.timestamp_millis() - 3_600_000);
    let dataflow = folder.load("lake");
    let outcome = catch_up(&dataflow, 2);
    assert_eq!((outcome.records, outcome.replayed), (2, 0));
    let letters =
        "SELECT kind, table_name, arrow_cast(payload, 'Utf8') LIKE '{\"id\":2,%' FROM dead_letters".to_string();
    let before = ask(&dataflow, &letters);
    assert_eq!(before, "row,silver.recent,true");
    assert_eq!(ask(&dataflow, "SELECT id FROM silver.recent"), "1");
    for workers in [1, 2] {
        let outcome = catch_up_later(&dataflow, workers, Duration::from_secs(11 * 60));
        assert_eq!((outcome.records, outcome.replayed), (0, 2));
        assert_eq!(ask(&dataflow, &letters), before, "with {workers} workers");
        assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM silver.recent"), "0");
        assert!(!corrected(&outcome).contains(&"dead_letters"), "{outcome:?}");
    }
    // A row that comes too late now is reported, beside the one that did before.
    append(3, now.timestamp_millis());
    let outcome = catch_up(&dataflow, 1);
    assert_eq!((outcome.records, outcome.replayed, outcome.rejected), (1, 2, 0));
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM dead_letters"), "2");
    // With a longer retention, all rows are there, and none is late.
    folder.write(
        "silver/recent.toml",
        "retention = { column = \"at\", keep = \"1 day\" }\n",
    );
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 2);
    assert_eq!(ask(&dataflow, "SELECT id FROM silver.recent ORDER BY id"), "1\n2\n3");
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM dead_letters"), "0");
}

#[test]
fn parquet_drops_are_replayed_from_their_archive() {
    let folder = Folder::new(
        "archived",
        &[(
            "inputs/rows.toml",
            "key = [\"id\"]\n[columns]\nid = { type = \"BIGINT\", nullable = false }\nx = \"BIGINT\"\n\
             [[feeds]]\nname = \"drops\"\nkind = \"files\"\npath = \"drops/*.parquet\"\nformat = \"parquet\"\n",
        )],
    );
    folder.write(
        "gold/sums.sql",
        "SELECT id % 7 AS part, COUNT(*) AS n, SUM(x) AS x FROM rows GROUP BY id % 7",
    );
    let drop_file = |name: &str, from: i64, rows: i64| {
        let path = folder.path().join("drops").join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
        std::fs::write(path, parquet_of(from, rows)).expect("a written file");
    };
    drop_file("a.parquet", 0, 20_000);
    drop_file("b.parquet", 15_000, 20_000);
    let dataflow = folder.load("lake");
    assert_eq!(catch_up(&dataflow, 2).records, 40_000);
    // The drops are deleted; the lake has their content.
    std::fs::remove_dir_all(folder.path().join("drops")).expect("drops are there");
    std::fs::create_dir(folder.path().join("drops")).expect("an empty folder");
    for workers in [1, 3] {
        assert_eq!(catch_up(&dataflow, workers).corrections, Some(vec![]));
    }
    drop_file("c.parquet", 0, 100);
    catch_up(&dataflow, 2);
    assert_eq!(
        ask(&dataflow, "SELECT SUM(n), SUM(x) FROM gold.sums"),
        format!("35000,{}", sum_of(0, 35_000))
    );
    assert!(assert_all_are_exact(&dataflow) >= 2);
}

/// A Parquet file with rows (id, id * 3).
pub fn parquet_of(from: i64, rows: i64) -> Vec<u8> {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    let column = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
    let ids: Vec<i64> = (from..from + rows).collect();
    let x = ids.iter().map(|id| id * 3).collect();
    let batch = RecordBatch::try_from_iter([("id", column(ids)), ("x", column(x))]).expect("two columns");
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("a written batch");
    writer.into_inner().expect("a whole file")
}

fn sum_of(from: i64, to: i64) -> i64 {
    (from..to).map(|id| id * 3).sum()
}
