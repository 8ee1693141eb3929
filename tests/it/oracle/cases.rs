//! Tests what the operators' tables leave out: the settings of inputs and tables, and other kinds of feeds.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use alluvium::definition::Dataflow;
use alluvium::serve::verify;
use alluvium::serve::{LakeReader, PrintFormat};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Replay, changes, seeds, trial};
use crate::support::{Folder, Running, catch_up, chain, snapshots};

/// An input of readings that may come twice, over two partitions.
const READINGS: &str = r#"
dedup_key = ["id"]
[columns]
id = { type = "BIGINT", nullable = false }
device = "VARCHAR"
value = "BIGINT"
[[feeds]]
name = "live"
kind = "log"
path = "live/readings"
format = "json"
"#;

/// An input of files that appear while the run goes on, plain, compressed and broken, and of a change log.
const ORDERS: &str = r#"
key = ["id"]
order_by = ["ver"]
[columns]
id = { type = "BIGINT", nullable = false }
device = { type = "VARCHAR", from = ["Device", "device"] }
amount = "DECIMAL(10,2)"
ver = { type = "BIGINT", nullable = false }
[[feeds]]
name = "drops"
kind = "files"
path = "drops/*.csv*"
format = "csv"
[[feeds]]
name = "live"
kind = "log"
path = "live/orders"
format = "debezium-json"
"#;

const CUSTOMERS: &str = r#"
key = ["customer_id"]
[columns]
customer_id = { type = "VARCHAR", nullable = false }
country = "VARCHAR"
[[feeds]]
name = "made"
kind = "generate"
generator = "retail.customers"
format = "debezium-json"
limit = 400
seed = 11
updates = 0.3
deletes = 0.1
duplicates = 0.05
late = 0.05
broken = 0.02
"#;

const TABLES: [(&str, &str, &str); 7] = [
    (
        "silver/readings",
        "SELECT id, device, value FROM readings",
        "key = [\"id\"]\nchange_data_feed = true\ndeletes = \"vectors\"\n[expect.small]\ncheck = \"value < 90\"\non_violation = \"drop\"\n[expect.named]\ncheck = \"device IS NOT NULL\"\n",
    ),
    (
        "silver/orders",
        "SELECT id, device, amount FROM orders",
        "partition_by = [\"device\"]\nchange_data_feed = true\ndeletes = \"rewrite\"\n",
    ),
    (
        "silver/one_order_a_device",
        "SELECT device, id FROM orders",
        "key = [\"device\"]\nchange_data_feed = true\n",
    ),
    (
        "silver/customers",
        "SELECT customer_id, country FROM customers",
        "partition_by = [\"country\"]\n",
    ),
    (
        "gold/by_device",
        "SELECT o.device, COUNT(*) AS orders, SUM(o.amount) AS amount, SUM(r.value) AS value
         FROM silver.orders o LEFT JOIN silver.readings r ON r.device = o.device GROUP BY o.device",
        "change_data_feed = true\n",
    ),
    (
        "gold/by_country",
        "SELECT country, COUNT(*) AS customers FROM silver.customers GROUP BY country",
        "deletes = \"vectors\"\n[expect.even]\ncheck = \"customers % 2 = 0\"\non_violation = \"drop\"\n",
    ),
    (
        "gold/devices",
        "SELECT device FROM silver.readings EXCEPT SELECT device FROM silver.orders",
        "change_data_feed = true\n",
    ),
];

/// Feeds the `call`th step of these inputs.
fn feed(folder: &Folder, rng: &mut StdRng, call: usize) {
    let device = |rng: &mut StdRng| format!("d{}", rng.random_range(0..6));
    // No version comes twice: of two equal ones the later wins, and lakes see files at different times.
    let mut unique = call * 100;
    let mut version = |rng: &mut StdRng| {
        unique += 1;
        (rng.random_range(0..9) + call) * 10_000 + unique
    };
    for _ in 0..25 {
        // A repeated reading has the same content: two lakes may disagree on which of two different ones came first.
        let id = rng.random_range(0..40 * (call as u64 + 1));
        let named = if id % 11 == 0 {
            "null".to_string()
        } else {
            format!("\"d{}\"", id % 6)
        };
        let line = format!(
            "{{\"value\": {{\"id\": {id}, \"device\": {named}, \"value\": {}}}}}\n",
            id * 7 % 100
        );
        folder.append(&format!("live/readings/{}.ndjson", rng.random_range(0..2)), &line);
    }
    let mut csv = String::from("id,Device,amount,ver\n");
    for n in 0..20 {
        let amount = if n == 7 {
            "much".to_string()
        } else {
            format!("{}.50", rng.random_range(0..90))
        };
        csv.push_str(&format!(
            "{},{},{amount},{}\n",
            rng.random_range(0..60),
            device(rng),
            version(rng)
        ));
    }
    let (name, bytes) = match call % 4 {
        1 => {
            let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
            gz.write_all(csv.as_bytes()).expect("memory takes it");
            (format!("{call:03}.csv.gz"), gz.finish().expect("memory takes it"))
        }
        0 if call > 0 => (format!("{call:03}.csv.gz"), b"this is no gzip".to_vec()),
        _ => (format!("{call:03}.csv"), csv.into_bytes()),
    };
    // The file appears complete, by a rename.
    let (hidden, shown) = (folder.path().join("hidden"), folder.path().join("drops").join(name));
    std::fs::create_dir_all(folder.path().join("drops")).expect("a folder");
    std::fs::write(&hidden, bytes).expect("a file");
    std::fs::rename(hidden, shown).expect("the same file system");
    for _ in 0..5 {
        let (id, ver) = (rng.random_range(0..60), version(rng));
        let line = if rng.random_bool(0.3) {
            format!("{{\"value\": {{\"op\": \"d\", \"before\": {{\"id\": {id}, \"ver\": {ver}}}, \"after\": null}}}}\n")
        } else {
            format!(
                "{{\"value\": {{\"op\": \"u\", \"before\": null, \"after\": {{\"id\": {id}, \"device\": \"{}\", \"amount\": \"1.25\", \"ver\": {ver}}}}}}}\n",
                device(rng)
            )
        };
        folder.append("live/orders/0.ndjson", &line);
    }
}

/// The output of `query` at the newest snapshot.
fn answer(dataflow: &Dataflow, sql: &str) -> String {
    let printed = LakeReader::open(dataflow, None).and_then(|reader| reader.print(sql, PrintFormat::Csv));
    printed.unwrap_or_else(|e| panic!("{}", chain(&e)))
}

#[test]
fn settings_of_inputs_and_tables_and_every_kind_of_feed_keep_to_batch() {
    for seed in seeds(2) {
        let _replay = Replay(seed);
        let folder = Folder::new(
            "beside",
            &[
                ("inputs/readings.toml", READINGS),
                ("inputs/orders.toml", ORDERS),
                ("inputs/customers.toml", CUSTOMERS),
            ],
        );
        for (name, sql, settings) in TABLES {
            folder.write(&format!("{name}.sql"), sql);
            folder.write(&format!("{name}.toml"), settings);
        }
        let mut rng = StdRng::seed_from_u64(seed);
        let lakes = trial::drive(&folder, seed, 5, |folder, call| feed(folder, &mut rng, call));
        let checked = trial::assert_exact_and_alike(&lakes);
        let changed: usize = lakes
            .iter()
            .map(|lake| changes::assert_feeds_make_the_tables(lake))
            .sum();
        let kinds = "SELECT kind, COALESCE(input, table_name) AS what, COUNT(*) > 0 AS some FROM dead_letters GROUP BY kind, COALESCE(input, table_name) ORDER BY kind, what";
        assert_eq!(
            answer(&lakes[0], kinds),
            "kind,what,some\nfile,orders,true\nrecord,customers,true\nrecord,orders,true\nrow,gold.by_country,true\nrow,silver.one_order_a_device,true\nrow,silver.readings,true\n"
        );
        eprintln!("settings, seed {seed}: {checked} snapshots equal batch, {changed} changes of feeds make the tables");
    }
}

const MARKS: &str = r#"
retention = { column = "at", keep = "2 seconds" }
[columns]
id = { type = "BIGINT", nullable = false }
k = "BIGINT"
at = "TIMESTAMP"
[[feeds]]
name = "live"
kind = "log"
path = "live/marks"
format = "json"
"#;

const PLANS: &str = r#"
key = ["id"]
[columns]
id = { type = "BIGINT", nullable = false }
k = "BIGINT"
at = "TIMESTAMP"
[[feeds]]
name = "live"
kind = "log"
path = "live/plans"
format = "json"
"#;

#[test]
fn rows_that_enter_and_leave_with_time_are_those_of_batch_at_each_snapshots_time() {
    let folder = Folder::new("time", &[("inputs/marks.toml", MARKS), ("inputs/plans.toml", PLANS)]);
    for (name, sql) in [
        ("silver/marks", "SELECT id, k, at FROM marks"),
        (
            "silver/recent",
            "SELECT id, k, at FROM plans WHERE at <= now() AND at > now() - INTERVAL '1 second'",
        ),
        ("silver/to_come", "SELECT id, k, at FROM plans WHERE at > now()"),
        (
            "gold/recent_by_k",
            "SELECT k, COUNT(*) AS n, MAX(at) AS last FROM silver.recent GROUP BY k",
        ),
        (
            "gold/without_recent",
            "SELECT p.id FROM plans p WHERE NOT EXISTS (SELECT 1 FROM silver.recent r WHERE r.k = p.k)",
        ),
        ("gold/kept", "SELECT id, k, at FROM plans"),
        (
            "gold/first_to_come",
            "SELECT id, at FROM silver.to_come ORDER BY at, id LIMIT 3",
        ),
    ] {
        folder.write(&format!("{name}.sql"), sql);
    }
    // Time alone changes something in each snapshot, so this test makes fewer of them.
    folder.write(
        "dataflow.toml",
        "name = \"time\"\nepoch = \"5ms\"\ncommit = \"150ms\"\ndurability = \"none\"\n",
    );
    folder.write("gold/kept.toml", "retention = { column = \"at\", keep = \"1500ms\" }\n");
    let dataflow = folder.load("lake");
    let mut rng = StdRng::seed_from_u64(5);
    let mut id = 0;
    let millis = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.expect("after 1970").as_millis() as u64
    };
    let mut feed = |folder: &Folder| {
        let now = millis() as i64;
        for path in ["live/marks/0.ndjson", "live/plans/0.ndjson"] {
            for _ in 0..6 {
                id += 1;
                let at = chrono::DateTime::from_timestamp_millis(now + rng.random_range(-2500..2500)).expect("a time");
                let at = at.format("%Y-%m-%dT%H:%M:%S%.3f");
                let line = format!("{{\"value\": {{\"id\": {id}, \"k\": {}, \"at\": \"{at}\"}}}}\n", id % 5);
                folder.append(path, &line);
            }
        }
    };
    for workers in [2, 3, 1] {
        feed(&folder);
        let before = snapshots(&dataflow);
        let running = Running::start(dataflow.clone(), workers);
        running.wait_until(|| snapshots(&dataflow) > before);
        for _ in 0..3 {
            feed(&folder);
            std::thread::sleep(Duration::from_millis(150));
        }
        // No more input comes, so only time changes anything from here on. Some rows leave more than two seconds later.
        let fed = millis();
        running.wait_until(|| {
            let epochs = verify::snapshots(&dataflow).unwrap_or_default();
            epochs.last().is_some_and(|newest| *newest >= fed + 1200)
        });
        running.stop();
    }
    let checked = trial::assert_every_snapshot_is_exact(&dataflow);
    let rows = |epoch, table: &str| -> usize {
        let reader = LakeReader::open(&dataflow, Some(epoch)).unwrap_or_else(|e| panic!("{}", chain(&e)));
        let (_, rows) = reader.rows(table).unwrap_or_else(|e| panic!("{}", chain(&e)));
        rows.iter().map(|batch| batch.num_rows()).sum()
    };
    let epochs = verify::snapshots(&dataflow).unwrap_or_else(|e| panic!("{}", chain(&e)));
    for table in ["silver.marks", "silver.recent", "silver.to_come", "gold.kept"] {
        let sizes: Vec<usize> = epochs.iter().map(|epoch| rows(*epoch, table)).collect();
        assert!(
            sizes.windows(2).any(|pair| pair[0] > pair[1]),
            "nothing ever left {table}: {sizes:?}"
        );
    }
    eprintln!("time: {checked} snapshots equal batch");
}

const AMOUNTS: &str = r#"
key = ["id"]
[columns]
id = { type = "BIGINT", nullable = false }
k = "BIGINT"
v = "BIGINT"
d = "DECIMAL(38,0)"
[[feeds]]
name = "live"
kind = "log"
path = "live/amounts"
format = "json"
"#;

/// SUM of BIGINT wraps around in DataFusion. Users would have read a negative revenue in the table, or `verify` would
/// have reported the table that rightly leaves the group out.
#[test]
fn a_group_whose_sum_does_not_fit_is_a_dead_letter_until_it_fits_and_verify_agrees() {
    let folder = Folder::new("sums", &[("inputs/amounts.toml", AMOUNTS)]);
    for (name, sql) in [
        (
            "silver/by_k",
            "SELECT k, SUM(v) AS s, COUNT(*) AS n FROM amounts GROUP BY k",
        ),
        ("silver/decimals", "SELECT k, SUM(d) AS s FROM amounts GROUP BY k"),
        ("gold/having", "SELECT k FROM amounts GROUP BY k HAVING SUM(v) > 5"),
        (
            "gold/below",
            "SELECT b.k, a.id FROM amounts a LEFT JOIN silver.by_k b ON a.k = b.k",
        ),
        (
            "gold/all_of_it",
            "SELECT SUM(v) AS s, SUM(DISTINCT v) AS sd, MAX(v) AS m FROM amounts",
        ),
        ("gold/sets", "SELECT k, SUM(v) AS s FROM amounts GROUP BY ROLLUP (k)"),
        (
            "gold/above",
            "SELECT id FROM amounts WHERE v > (SELECT SUM(v) / 10 FROM amounts WHERE k = 2)",
        ),
    ] {
        folder.write(&format!("{name}.sql"), sql);
    }
    let dataflow = folder.load("lake");
    let record = |id: i64, k: i64, v: i64| {
        let d = "9".repeat(if v > 1 << 60 { 38 } else { 3 });
        let line = format!(
            "{{\"key\": {{\"id\": {id}}}, \"value\": {{\"id\": {id}, \"k\": {k}, \"v\": {v}, \"d\": \"{d}\"}}}}\n"
        );
        folder.append("live/amounts/0.ndjson", &line);
    };
    let step = |expected: &str, letters: usize| {
        catch_up(&dataflow, 2);
        trial::assert_every_snapshot_is_exact(&dataflow);
        let print = |sql: &str| answer(&dataflow, sql);
        assert_eq!(print("SELECT k, s, n FROM silver.by_k ORDER BY k"), expected);
        let counted = print(
            "SELECT COUNT(*) AS n FROM dead_letters WHERE table_name = 'silver.by_k' AND reason LIKE '%sum%fit%'",
        );
        assert_eq!(counted, format!("n\n{letters}\n"));
    };
    record(1, 1, 5);
    record(2, 1, i64::MAX - 5);
    record(3, 2, 7);
    step(&format!("k,s,n\n1,{},2\n2,7,1\n", i64::MAX), 0);
    record(4, 1, 1);
    step("k,s,n\n2,7,1\n", 1);
    record(5, 2, i64::MAX);
    record(6, 3, -1);
    step("k,s,n\n3,-1,1\n", 2);
    record(2, 1, 10);
    record(5, 2, -7);
    step("k,s,n\n1,16,3\n2,0,2\n3,-1,1\n", 0);
}

const NAMES: &str = r#"
key = ["id"]
[columns]
id = { type = "BIGINT", nullable = false }
name = "VARCHAR"
[[feeds]]
name = "live"
kind = "log"
path = "live/names"
format = "json"
"#;

/// Delta reads an empty partition value as null. Users would have found a null where their SQL yields an empty text.
#[test]
fn a_row_with_an_empty_partition_value_is_a_dead_letter_rather_than_another_row() {
    let folder = Folder::new("names", &[("inputs/names.toml", NAMES)]);
    folder.write("silver/names.sql", "SELECT id, name FROM names");
    folder.write("silver/names.toml", "partition_by = [\"name\"]\n");
    folder.write(
        "gold/by_name.sql",
        "SELECT name, COUNT(*) AS n FROM silver.names GROUP BY name",
    );
    let dataflow = folder.load("lake");
    let step = |name: &str, rows: &str, letters: usize| {
        let line = format!("{{\"key\": {{\"id\": 2}}, \"value\": {{\"id\": 2, \"name\": {name}}}}}\n");
        folder.append("live/names/0.ndjson", &line);
        catch_up(&dataflow, 2);
        trial::assert_every_snapshot_is_exact(&dataflow);
        let print = |sql: &str| answer(&dataflow, sql);
        assert_eq!(print("SELECT id, name FROM silver.names ORDER BY id"), rows);
        let counted =
            "SELECT COUNT(*) AS n FROM dead_letters WHERE table_name = 'silver.names' AND reason LIKE '%not empty%'";
        assert_eq!(print(counted), format!("n\n{letters}\n"));
    };
    folder.append(
        "live/names/0.ndjson",
        "{\"key\": {\"id\": 1}, \"value\": {\"id\": 1, \"name\": null}}\n",
    );
    step("\"\"", "id,name\n1,\n", 1);
    step("\"a\"", "id,name\n1,\n2,a\n", 0);
    step("null", "id,name\n1,\n2,\n", 0);
}

const DROPPED: &str = r#"
[columns]
id = "BIGINT"
[[feeds]]
name = "drops"
kind = "files"
path = "drops/*.csv*"
format = "csv"
"#;

/// A restart lost the letter: Bronze has nothing of a file that could not be read, so the replay did not report it
/// again, and the audit removed the letter.
#[test]
fn the_dead_letter_of_an_unreadable_file_survives_a_restart() {
    let folder = Folder::new("dropped", &[("inputs/dropped.toml", DROPPED)]);
    folder.write("silver/dropped.sql", "SELECT id FROM dropped");
    folder.write("drops/0.csv", "id\n1\n");
    folder.write("drops/1.csv.gz", "this is no gzip");
    let dataflow = folder.load("lake");
    for _ in 0..2 {
        catch_up(&dataflow, 1);
        let letters = answer(&dataflow, "SELECT COUNT(*) AS n FROM dead_letters WHERE kind = 'file'");
        assert_eq!(letters, "n\n1\n");
    }
}
