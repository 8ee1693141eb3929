//! Tests tables of a real PostgreSQL server: first rows, transactions, kills, broken connections, changes of tables.
//! Without a server (`scripts/services start postgres; eval "$(scripts/services env)"`) these tests report that they
//! skip.
//!
//! Each of the shop's transactions also updates an audit row with the totals of the source: a snapshot shows one
//! moment of the source exactly if its tables agree with the audit row in it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use alluvium::definition::Dataflow;
use alluvium::serve::{LakeReader, PrintFormat, verify};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::cluster::Processes;
use crate::kafka::service;
use crate::lake::{ask, assert_newest_is_exact};
use crate::support::{Folder, Running, Size, catch_up, chain, snapshots, unread};

/// A session of psql.
struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    fn open(url: &str) -> Session {
        let mut child = Command::new("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("psql, where there is a server");
        Session {
            input: child.stdin.take().expect("it is piped"),
            output: BufReader::new(child.stdout.take().expect("it is piped")),
            child,
        }
    }

    /// Runs SQL, and returns its output.
    #[track_caller]
    fn run(&mut self, sql: &str) -> String {
        writeln!(self.input, "{sql};\n\\echo ==done").expect("psql reads");
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).expect("psql writes");
            assert!(read > 0, "psql ended within: {sql}");
            if line == "==done\n" {
                return said.trim_end().to_string();
            }
            said += &line;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A schema for one test, with its slot and publication.
struct Shop {
    url: String,
    name: String,
    admin: Session,
}

impl Shop {
    /// None if there is no server.
    fn open(test: &str) -> Option<Shop> {
        let url = service("ALLUVIUM_POSTGRES")?;
        let name = format!("{test}_{:x}", rand::random::<u32>());
        let mut admin = Session::open(&url);
        admin.run(&format!("CREATE SCHEMA {name}; SET search_path = {name};"));
        Some(Shop { url, name, admin })
    }

    /// Creates orders, their lines and the audit row, and the procedures that change them.
    fn stock(&mut self) {
        let name = &self.name;
        self.admin.run(&format!(
            "CREATE TABLE orders(id bigint PRIMARY KEY, total bigint, note text);
             CREATE TABLE lines(order_id bigint, n int, amount bigint, PRIMARY KEY (order_id, n));
             CREATE TABLE audit(id int PRIMARY KEY, step bigint, orders bigint, total bigint, lines bigint, amount bigint);
             INSERT INTO audit VALUES (1, 0, 0, 0, 0, 0);
             CREATE SEQUENCE ids;
             CREATE PROCEDURE audit() LANGUAGE sql AS $$
               UPDATE {name}.audit SET step = step + 1,
                 (orders, total) = (SELECT count(*), coalesce(sum(total), 0) FROM {name}.orders),
                 (lines, amount) = (SELECT count(*), coalesce(sum(amount), 0) FROM {name}.lines) $$;
             CREATE PROCEDURE add_order(size int) LANGUAGE plpgsql AS $$
               DECLARE made bigint := nextval('{name}.ids');
               BEGIN
                 PERFORM FROM {name}.audit FOR UPDATE; -- one after the other, so that the audit sees all before it
                 INSERT INTO {name}.orders VALUES (made, 0, repeat('x', 20));
                 INSERT INTO {name}.lines SELECT made, n, (made * 7 + n) % 100 FROM generate_series(1, size) n;
                 UPDATE {name}.orders o SET total = (SELECT coalesce(sum(amount), 0) FROM {name}.lines l WHERE l.order_id = o.id)
                   WHERE o.id = made;
               END $$;
             CREATE PROCEDURE work(steps int, pause float) LANGUAGE plpgsql AS $$
               DECLARE victim bigint;
               BEGIN
                 FOR step IN 1..steps LOOP
                   CALL {name}.add_order(1 + (random() * 4)::int);
                   IF random() < 0.4 THEN
                     SELECT o.id INTO victim FROM {name}.orders o ORDER BY random() LIMIT 1;
                     IF random() < 0.5 THEN
                       DELETE FROM {name}.lines WHERE order_id = victim;
                       DELETE FROM {name}.orders WHERE id = victim;
                     ELSE
                       UPDATE {name}.lines SET order_id = -victim WHERE order_id = victim;
                       UPDATE {name}.orders SET id = -victim, note = 'renumbered' WHERE id = victim;
                     END IF;
                   END IF;
                   CALL {name}.audit();
                   COMMIT;
                   PERFORM pg_sleep(pause);
                 END LOOP;
               END $$;"
        ));
    }

    /// Changes the shop this many times, in a separate session.
    fn work(&self, steps: u32, pause: f64) -> std::thread::JoinHandle<()> {
        let (url, name) = (self.url.clone(), self.name.clone());
        std::thread::spawn(move || {
            let mut session = Session::open(&url);
            session.run(&format!("CALL {name}.work({steps}, {pause})"));
        })
    }

    fn feed(&self, tables: &[&str], more: &str) -> String {
        let Shop { url, name, .. } = self;
        let tables: Vec<String> = tables.iter().map(|table| format!("\"{name}.{table}\"")).collect();
        format!(
            "[[feeds]]\nname = \"live\"\nkind = \"postgres\"\nurl = \"{url}\"\ntables = [{}]\nslot = \"{name}\"\n\
             publication = \"{name}\"\n{more}\n",
            tables.join(", ")
        )
    }

    /// The dataflow of the shop.
    fn folder(&self) -> Folder {
        let required = "{ type = \"BIGINT\", nullable = false }";
        let folder = Folder::new(
            "shop",
            &[
                (
                    "inputs/orders.toml",
                    &format!(
                        "key = [\"id\"]\n[columns]\nid = {required}\ntotal = \"BIGINT\"\nnote = \"VARCHAR\"\n{}",
                        self.feed(&["orders"], "")
                    ),
                ),
                (
                    "inputs/lines.toml",
                    &format!(
                        "key = [\"order_id\", \"n\"]\n[columns]\norder_id = {required}\nn = {required}\namount = \"BIGINT\"\n{}",
                        self.feed(&["lines"], "")
                    ),
                ),
                (
                    "inputs/audit.toml",
                    &format!(
                        "key = [\"id\"]\n[columns]\nid = {required}\nstep = \"BIGINT\"\norders = \"BIGINT\"\ntotal = \"BIGINT\"\n\
                         lines = \"BIGINT\"\namount = \"BIGINT\"\n{}",
                        self.feed(&["audit"], "")
                    ),
                ),
                ("silver/orders.sql", "SELECT id, total, note FROM orders"),
                ("silver/lines.sql", "SELECT order_id, n, amount FROM lines"),
                (
                    "silver/audit.sql",
                    "SELECT id, step, orders, total, lines, amount FROM audit",
                ),
                (
                    "gold/totals.sql",
                    "SELECT order_id, SUM(amount) AS total FROM silver.lines GROUP BY order_id",
                ),
            ],
        );
        folder.write(
            "dataflow.toml",
            "name = \"shop\"\nepoch = \"1ms\"\ncommit = \"5ms\"\ndurability = \"none\"\nlake = \"lakes/lake\"\n",
        );
        folder
    }

    /// The totals of the source, in the form of the lake's queries.
    fn truth(&mut self) -> String {
        self.admin.run(
            "SELECT (SELECT count(*) FROM orders) || ',' || (SELECT coalesce(sum(total), 0) FROM orders) || ',' ||
             (SELECT count(*) FROM lines) || ',' || (SELECT coalesce(sum(amount), 0) FROM lines)",
        )
    }

    /// Terminates the connections that read the slot; returns their number.
    fn cut(&mut self) -> usize {
        let name = self.name.clone();
        self.cut_slot(&name)
    }

    fn cut_slot(&mut self, slot: &str) -> usize {
        let sql = format!(
            "SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots \
             WHERE slot_name = '{slot}' AND active_pid IS NOT NULL"
        );
        self.admin.run(&sql).parse().expect("a number")
    }

    /// Waits until nothing reads the slot, because the server ends a session later than its client.
    fn until_free(&mut self) {
        let until = Instant::now() + Duration::from_secs(20);
        let sql = format!(
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}' AND active",
            self.name
        );
        while self.admin.run(&sql) != "0" && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn drop_slot(&mut self, slot: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            self.cut_slot(slot);
            let sql = format!(
                "SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots WHERE slot_name = '{slot}' AND NOT active"
            );
            self.admin.run(&sql);
            let left = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}'");
            if self.admin.run(&left) == "0" || Instant::now() > until {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let name = self.name.clone();
            self.drop_slot(&name);
            let sql = format!(
                "DROP PUBLICATION IF EXISTS {name}; SET client_min_messages = error; DROP SCHEMA {name} CASCADE;"
            );
            self.admin.run(&sql);
        }
    }
}

const SUMS: &str = "SELECT * FROM (SELECT COUNT(*) AS orders, COALESCE(SUM(total), 0) AS total FROM silver.orders) AS o \
                    CROSS JOIN (SELECT COUNT(*) AS lines, COALESCE(SUM(amount), 0) AS amount FROM silver.lines) AS l";
const AUDIT: &str = "SELECT orders, total, lines, amount FROM silver.audit";

fn ask_at(dataflow: &Dataflow, epoch: Option<u64>, sql: &str) -> String {
    let rows = LakeReader::open(dataflow, epoch).and_then(|reader| reader.print(sql, PrintFormat::Csv));
    let rows = rows.unwrap_or_else(|e| panic!("{sql}: {}", chain(&e)));
    rows.lines().skip(1).collect::<Vec<_>>().join("\n")
}

/// The answer of a query over the newest snapshot; empty if there is none.
fn newest(dataflow: &Dataflow, sql: &str) -> String {
    let rows = LakeReader::open(dataflow, None).and_then(|reader| reader.print(sql, PrintFormat::Csv));
    rows.map_or(String::new(), |rows| {
        rows.lines().skip(1).collect::<Vec<_>>().join("\n")
    })
}

/// Asserts that every snapshot shows a moment of the source; returns the number of snapshots.
#[track_caller]
fn assert_moments(dataflow: &Dataflow) -> usize {
    let epochs = verify::snapshots(dataflow).unwrap_or_else(|e| panic!("no snapshots: {}", chain(&e)));
    let mut wrong = Vec::new();
    for epoch in &epochs {
        let (sums, audit) = (
            ask_at(dataflow, Some(*epoch), SUMS),
            ask_at(dataflow, Some(*epoch), AUDIT),
        );
        // A snapshot before any rows shows no moment, and is empty.
        if sums != audit && !(audit.is_empty() && sums == "0,0,0,0") {
            wrong.push(format!("{epoch}: {sums} and not {audit}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} snapshots:\n{}",
        wrong.len(),
        epochs.len(),
        wrong.join("\n")
    );
    epochs.len()
}

/// Asserts that no first row and no change was read twice: a record names its transaction, and its number in it.
#[track_caller]
fn assert_nothing_twice(dataflow: &Dataflow) {
    for table in ["orders", "lines", "audit"] {
        let twice = format!("SELECT COUNT(*) - COUNT(DISTINCT payload) FROM bronze.{table}");
        assert_eq!(ask(dataflow, &twice), "0", "{table}");
    }
}

/// Whether the lake shows the present state of the source.
fn reached(dataflow: &Dataflow, truth: &str) -> bool {
    newest(dataflow, SUMS) == truth && newest(dataflow, AUDIT) == truth
}

#[test]
fn first_rows_and_what_follows_are_whole_at_every_snapshot_over_restarts_and_sizes() {
    let Some(mut shop) = Shop::open("follows") else { return };
    shop.stock();
    // The first rows need several batches.
    shop.admin.run("CALL add_order(30000); CALL audit(); CALL work(50, 0);");
    let stocked = shop.admin.run("SELECT pg_current_wal_lsn()");
    let folder = shop.folder();
    let dataflow = folder.load("lake");
    for size in [Size::from(2), Size::from((2, 1)), Size::from(1)] {
        let work = shop.work(150, 0.002);
        let running = Running::start(dataflow.clone(), size);
        work.join().expect("the shop is changed");
        let truth = shop.truth();
        running.wait_until(|| reached(&dataflow, &truth));
        running.stop();
        shop.admin.run("CALL work(20, 0)"); // Nobody reads at this time.
    }
    catch_up(&dataflow, 2);
    let truth = shop.truth();
    assert_eq!(ask(&dataflow, SUMS), truth);
    let snapshots = assert_moments(&dataflow);
    assert!(snapshots > 20, "{snapshots} snapshots show little");
    assert_newest_is_exact(&dataflow, "the newest snapshot");
    assert_nothing_twice(&dataflow);
    // The source may forget what committed snapshots hold.
    let behind = format!(
        "SELECT confirmed_flush_lsn > '{}' FROM pg_replication_slots WHERE slot_name = '{}'",
        stocked.trim(),
        shop.name
    );
    assert_eq!(shop.admin.run(&behind), "t");
}

#[test]
fn broken_connections_are_made_again_and_nothing_is_lost_or_twice() {
    let Some(mut shop) = Shop::open("broken") else { return };
    shop.stock();
    shop.admin.run("CALL work(20, 0)");
    let folder = shop.folder();
    let dataflow = folder.load("lake");
    let running = Running::start(dataflow.clone(), 2);
    running.wait_until(|| snapshots(&dataflow) > 0);
    let work = shop.work(300, 0.005);
    let mut cuts = 0;
    let mut random = StdRng::seed_from_u64(5);
    while !work.is_finished() {
        std::thread::sleep(Duration::from_millis(random.random_range(50..400)));
        cuts += shop.cut();
    }
    work.join().expect("the shop is changed");
    // The connection is cut at several places within transactions that are larger than the bound on waiting changes;
    // they follow small transactions that are delivered with their beginning.
    for _ in 0..3 {
        shop.admin
            .run("CALL work(3, 0); BEGIN; CALL add_order(60000); CALL audit(); COMMIT; CALL work(3, 0);");
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(random.random_range(20..250)));
            cuts += shop.cut();
        }
    }
    let truth = shop.truth();
    running.wait_until(|| reached(&dataflow, &truth));
    running.stop();
    assert!(cuts > 5, "the connection was cut {cuts} times");
    assert_moments(&dataflow);
    assert_newest_is_exact(&dataflow, "the newest snapshot");
    assert_nothing_twice(&dataflow);
}

#[test]
fn processes_that_are_killed_amid_first_rows_and_transactions_commit_whole_ones_alone() {
    let Some(mut shop) = Shop::open("killed") else { return };
    shop.stock();
    shop.admin
        .run("CALL add_order(200000); CALL add_order(100000); CALL audit();");
    let folder = shop.folder();
    let dataflow = folder.load("lake");
    let environment = || vec![("ALLUVIUM_SECRET", "the secret of who is killed".to_string())];
    let mut random = StdRng::seed_from_u64(11);
    let sizes = [(1, 2), (2, 1), (1, 1)];
    let (mut early, mut late) = (0, 0);
    for kill in 0..10 {
        let (processes, workers) = sizes[kill % sizes.len()];
        let before = snapshots(&dataflow);
        let work = shop.work(120, 0.005);
        let mut life = Processes::over(folder.path(), folder.path(), processes, workers).with(environment());
        life.start_all(&[]);
        // The first lives end before or during the first rows, the later ones during changes.
        if kill > 4 {
            life.wait_until("a snapshot", |_| snapshots(&dataflow) > before);
            let mut large = Session::open(&shop.url);
            let name = &shop.name;
            large.run(&format!(
                "SET search_path = {name}; BEGIN; CALL add_order(30000); CALL audit(); COMMIT;"
            ));
        } else {
            life.wait_until("a start", |life| life.said(0).contains("started"));
        }
        let longest = if kill > 4 { 900 } else { 200 };
        std::thread::sleep(Duration::from_millis(random.random_range(10..longest)));
        for process in 0..processes {
            life.signal(process, "-KILL");
        }
        for process in 0..processes {
            life.end(process, Duration::from_secs(10));
        }
        match snapshots(&dataflow) {
            0 => early += 1,
            _ => late += 1,
        }
        work.join().expect("the shop is changed");
    }
    assert!(
        early > 0 && late > 3,
        "{early} lives ended before first rows were committed, {late} later"
    );
    let running = Running::start(dataflow.clone(), 2);
    let truth = shop.truth();
    running.wait_until(|| reached(&dataflow, &truth));
    running.stop();
    assert_moments(&dataflow);
    assert_newest_is_exact(&dataflow, "the newest snapshot");
    assert_nothing_twice(&dataflow);
}

/// A dataflow of one table with many types.
fn folder_of(shop: &Shop, columns: &str, silver: &str, more: &str) -> Folder {
    let input = format!("{more}\n[columns]\n{columns}\n{}", shop.feed(&["t"], ""));
    Folder::new("types", &[("inputs/t.toml", &input), ("silver/t.sql", silver)])
}

#[test]
fn values_of_every_type_come_alike_by_first_rows_and_by_changes() {
    let Some(mut shop) = Shop::open("types") else { return };
    shop.admin.run(
        "CREATE TYPE mood AS ENUM ('sad', 'happy');
         CREATE DOMAIN price AS numeric(12, 3);
         CREATE TABLE t(id int PRIMARY KEY, b boolean, s smallint, d double precision, n numeric, p price, x text, y bytea,
           day date, at timestamp, atz timestamptz, j jsonb, u uuid, m mood, ints int[], texts text[], moods mood[], prices price[],
           twice int GENERATED ALWAYS AS (id * 2) STORED);
         CREATE PROCEDURE fill(first int) LANGUAGE sql AS $$
           INSERT INTO t VALUES (first, true, -5, 0.1, 12345678901234567890.123456789, 1.5, E'\\u00e4 \"quoted\" \\\\ \\n line', '\\x00ff10',
             '2026-11-22', '2026-11-22 01:02:03.5', '2026-11-22 01:02:03.123456+02', '{\"a\": [1, \"x\"]}',
             '6f1b3c1e-0000-4000-8000-000000000001', 'happy', '{1,NULL,-3}', '{a,\"b,c\",\"NULL\",NULL,\"q\\\"\"}', '{sad,happy}', '{1.5,2}');
           INSERT INTO t(id) VALUES (first + 1);
           INSERT INTO t(id, d, at, day) VALUES (first + 2, 'NaN', 'infinity', '-infinity'); $$;
         CALL fill(1);",
    );
    let columns = "id = { type = \"INT\", nullable = false }\nb = \"BOOLEAN\"\ns = \"INT\"\nd = \"DOUBLE\"\n\
                   n = \"DECIMAL(38,9)\"\np = \"DECIMAL(12,3)\"\nx = \"VARCHAR\"\ny = \"BINARY\"\n\
                   day = { type = \"DATE\", null = [\"infinity\", \"-infinity\"] }\n\
                   at = { type = \"TIMESTAMP\", null = [\"infinity\", \"-infinity\"] }\natz = \"TIMESTAMP\"\nj = \"VARCHAR\"\n\
                   u = \"VARCHAR\"\nm = \"VARCHAR\"\nints = \"INT[]\"\ntexts = \"VARCHAR[]\"\nmoods = \"VARCHAR[]\"\n\
                   prices = \"DECIMAL(12,3)[]\"";
    let folder = folder_of(&shop, columns, "SELECT * FROM t", "key = [\"id\"]");
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 2);
    shop.admin.run("CALL fill(11);");
    catch_up(&dataflow, 1);
    let rows = |from: u32| {
        let sql = format!(
            "SELECT id - {from} AS id, b, s, CAST(d AS VARCHAR) AS d, n, p, x, encode(y, 'hex') AS y, day, at, atz, j, u, m, ints, texts, moods, prices \
             FROM silver.t WHERE id >= {from} AND id < {from} + 3 ORDER BY id"
        );
        let rows = LakeReader::open(&dataflow, None).and_then(|reader| reader.print(&sql, PrintFormat::Json));
        rows.unwrap_or_else(|e| panic!("{sql}: {}", chain(&e)))
    };
    let first = rows(1);
    assert_eq!(first, rows(11));
    for part in [
        "12345678901234567890.123456789",
        "1.500",
        "00ff10",
        "2026-11-22T01:02:03.500",
        "2026-11-21T23:02:03.123456",
        "6f1b3c1e-0000-4000-8000-000000000001",
        "happy",
        "NaN",
    ] {
        assert!(first.contains(part), "{part}: {first}");
    }
    let letters = "SELECT COUNT(*) FROM dead_letters";
    assert_eq!(
        ask(&dataflow, letters),
        "0",
        "{}",
        ask(&dataflow, "SELECT reason FROM dead_letters")
    );
    assert_newest_is_exact(&dataflow, "the newest snapshot");
}

#[test]
fn keys_long_values_truncation_and_tables_that_change_are_followed() {
    let Some(mut shop) = Shop::open("changes") else { return };
    shop.admin.run(
        "CREATE TABLE t(id int PRIMARY KEY, x text, long text, gone int);
         ALTER TABLE t ALTER COLUMN long SET STORAGE EXTERNAL;
         INSERT INTO t SELECT i, 'x' || i, repeat('y', 5000), i FROM unnest('{1,2,3,4,5,7}'::int[]) i;",
    );
    let columns =
        "id = { type = \"INT\", nullable = false }\nx = \"VARCHAR\"\nlong = \"VARCHAR\"\ngone = \"INT\"\nnew = \"INT\"";
    let silver = "SELECT id, x, long, gone, new FROM t";
    let folder = folder_of(&shop, columns, silver, "key = [\"id\"]");
    let dataflow = folder.load("lake");
    let running = Running::start(dataflow.clone(), 2);
    let rows = || {
        newest(
            &dataflow,
            "SELECT id, x, LENGTH(long) AS l, gone, new FROM silver.t ORDER BY id",
        )
        .replace('\n', " ")
    };
    let expect = |expected: &str| {
        let started = Instant::now();
        running.wait_until(|| rows() == expected || started.elapsed() > Duration::from_secs(30));
        assert_eq!(rows(), expected);
    };
    expect("1,x1,5000,1, 2,x2,5000,2, 3,x3,5000,3, 4,x4,5000,4, 5,x5,5000,5, 7,x7,5000,7,");
    shop.admin.run(
        "UPDATE t SET x = 'same long' WHERE id = 1; UPDATE t SET id = 9, x = 'moved', long = 'm' WHERE id = 2; DELETE FROM t WHERE id = 3;
         UPDATE t SET id = id + 10, long = 'short' WHERE id = 4; UPDATE t SET id = 70 WHERE id = 7;",
    );
    // The last update is refused: PostgreSQL does not send the long value of the row that moves.
    expect("1,same long,5000,1, 5,x5,5000,5, 7,x7,5000,7, 9,moved,1,2, 14,x4,5,4,");
    let letter = newest(&dataflow, "SELECT reason FROM dead_letters");
    assert!(letter.contains("its long values are not told"), "{letter}");
    shop.admin.run(
        "ALTER TABLE t ADD COLUMN new int DEFAULT 7; UPDATE t SET x = 'with new' WHERE id = 5;
         ALTER TABLE t DROP COLUMN gone; INSERT INTO t(id, x, new) VALUES (6, 'without gone', 8);
         ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET x = 'full' WHERE id = 1; DELETE FROM t WHERE id = 14;",
    );
    expect("1,full,5000,,7 5,with new,5000,5,7 6,without gone,,,8 7,x7,5000,7, 9,moved,1,2,");
    shop.admin.run("TRUNCATE t; INSERT INTO t(id) VALUES (1);");
    expect("1,,,,7");
    running.stop();
    catch_up(&dataflow, 1);
    assert_eq!(rows(), "1,,,,7");
    assert_newest_is_exact(&dataflow, "the newest snapshot");
}

#[test]
fn a_feed_that_is_added_begins_with_its_rows_at_a_moment_of_all_others() {
    let Some(mut shop) = Shop::open("added") else { return };
    shop.stock();
    shop.admin.run("CALL work(50, 0)");
    let folder = shop.folder();
    let lines = std::fs::read_to_string(folder.path().join("inputs/lines.toml")).expect("the input");
    folder.write(
        "inputs/lines.toml",
        &lines
            .replace(
                "kind = \"postgres\"",
                "kind = \"generate\"\ngenerator = \"devices.telemetry\"\nlimit = 0\nformat = \"json\"",
            )
            .lines()
            .filter(|line| {
                !["url", "tables", "slot", "publication"]
                    .iter()
                    .any(|name| line.starts_with(name))
            })
            .collect::<Vec<_>>()
            .join("\n"),
    );
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 2);
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM silver.lines"), "0");
    shop.admin.run("CALL work(50, 0)");
    let before = *verify::snapshots(&dataflow).expect("snapshots").last().expect("one");
    folder.write("inputs/lines.toml", &lines);
    let dataflow = folder.load("lake");
    let work = shop.work(150, 0.002);
    let running = Running::start(dataflow.clone(), 2);
    work.join().expect("the shop is changed");
    let truth = shop.truth();
    running.wait_until(|| reached(&dataflow, &truth));
    running.stop();
    let epochs = verify::snapshots(&dataflow).expect("snapshots");
    let with_lines = epochs.iter().filter(|epoch| {
        **epoch > before && ask_at(&dataflow, Some(**epoch), "SELECT COUNT(*) FROM silver.lines") != "0"
    });
    for epoch in with_lines {
        assert_eq!(
            ask_at(&dataflow, Some(*epoch), SUMS),
            ask_at(&dataflow, Some(*epoch), AUDIT),
            "{epoch}"
        );
    }
    assert_newest_is_exact(&dataflow, "the newest snapshot");
}

#[test]
fn what_cannot_be_read_is_named_with_what_to_do() {
    let Some(mut shop) = Shop::open("refused") else { return };
    shop.admin
        .run("CREATE TABLE t(id int PRIMARY KEY, code text NOT NULL); INSERT INTO t VALUES (1, 'a');");
    let columns = "id = { type = \"INT\", nullable = false }\ncode = \"VARCHAR\"";
    let silver = "SELECT id, code FROM t";
    let folder = folder_of(&shop, columns, silver, "key = [\"id\"]");
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    shop.admin.run("INSERT INTO t VALUES (2, 'b')");
    // Another program advances the slot.
    let name = shop.name.clone();
    shop.until_free();
    shop.admin.run(&format!(
        "SELECT pg_replication_slot_advance('{name}', pg_current_wal_lsn())"
    ));
    let said = unread(&dataflow);
    assert!(said.contains("was moved to") && said.contains(&name), "{said}");
    shop.drop_slot(&name);
    let said = unread(&dataflow);
    assert!(
        said.contains("it does not exist") && said.contains("another `slot`"),
        "{said}"
    );
    // A new slot begins with all rows again: a row that was deleted meanwhile disappears.
    shop.admin
        .run("DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (3, 'c');");
    let input = std::fs::read_to_string(folder.path().join("inputs/t.toml")).expect("the input");
    let slot = format!("slot = \"{name}");
    folder.write("inputs/t.toml", &input.replace(&slot, &format!("{slot}_1")));
    let again = folder.load("lake");
    catch_up(&again, 1);
    assert_eq!(ask(&again, "SELECT id, code FROM silver.t ORDER BY id"), "2,b\n3,c");
    assert_newest_is_exact(&again, "the tables' rows again");
    shop.drop_slot(&format!("{name}_1"));
    folder.write("inputs/t.toml", &input);
    // The key is a column that updates do not contain.
    let by_code = folder_of(&shop, columns, silver, "key = [\"code\"]");
    let said = unread(&by_code.load("lake"));
    assert!(
        said.contains("do not tell column \"code\"") && said.contains("REPLICA IDENTITY FULL"),
        "{said}"
    );
    // The user has few rights.
    let role = format!("{name}_reader");
    shop.admin.run(&format!(
        "CREATE ROLE {role} LOGIN REPLICATION PASSWORD 's3cret'; GRANT USAGE ON SCHEMA {name} TO {role};"
    ));
    let as_reader = |shop: &Shop| {
        let input = std::fs::read_to_string(folder.path().join("inputs/t.toml")).expect("the input");
        let own = shop
            .url
            .split("://")
            .nth(1)
            .and_then(|rest| rest.split('@').next())
            .expect("a user")
            .to_string();
        let input = input
            .replace(&own, &format!("{role}:s3cret"))
            .replace(&format!("slot = \"{name}\""), &format!("slot = \"{name}_2\""));
        Folder::new("reader", &[("inputs/t.toml", &input), ("silver/t.sql", silver)])
    };
    let reader = as_reader(&shop);
    let said = unread(&reader.load("lake"));
    assert!(said.contains("GRANT SELECT ON") && !said.contains("s3cret"), "{said}");
    shop.admin.run(&format!(
        "GRANT SELECT ON {name}.t TO {role}; ALTER TABLE t ENABLE ROW LEVEL SECURITY;"
    ));
    let said = unread(&reader.load("lake"));
    assert!(said.contains("hides rows") && said.contains("BYPASSRLS"), "{said}");
    shop.admin.run(&format!(
        "ALTER TABLE t DISABLE ROW LEVEL SECURITY; DROP PUBLICATION {name};"
    ));
    let said = unread(&reader.load("lake"));
    assert!(said.contains("CREATE PUBLICATION") && said.contains("owner"), "{said}");
    shop.admin.run(&format!("CREATE PUBLICATION {name} FOR TABLE {name}.t"));
    let dataflow = reader.load("lake");
    catch_up(&dataflow, 1);
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM silver.t"), "2");
    shop.drop_slot(&format!("{name}_2"));
    shop.admin.run(&format!("DROP OWNED BY {role}; DROP ROLE {role};"));
    // Once they are published, PostgreSQL would refuse all updates of such a table; so too for a partitioned table's
    // partitions.
    shop.admin.run(
        "CREATE TABLE mute(id int, code text); CREATE TABLE parts(id int, code text) PARTITION BY LIST (id);
         CREATE TABLE part PARTITION OF parts FOR VALUES IN (1)",
    );
    for table in ["mute", "parts"] {
        let input = format!("[columns]\n{columns}\n{}", shop.feed(&[table], ""));
        let mute = Folder::new("mute", &[("inputs/t.toml", &input), ("silver/t.sql", silver)]);
        let said = unread(&mute.load("lake"));
        assert!(said.contains("refuses its updates") && said.contains(table), "{said}");
    }
    assert_eq!(
        shop.admin.run("UPDATE mute SET id = 2; UPDATE parts SET code = 'b'"),
        ""
    );
    // The database does not exist.
    let input = std::fs::read_to_string(folder.path().join("inputs/t.toml")).expect("the input");
    let port = shop
        .url
        .rsplit(':')
        .next()
        .and_then(|rest| rest.split('/').next())
        .expect("a port");
    let away = Folder::new(
        "away",
        &[("inputs/t.toml", &input.replace(port, "9")), ("silver/t.sql", silver)],
    );
    let started = Instant::now();
    let said = unread(&away.load("lake"));
    assert!(
        said.contains("could not reach postgres://") && !said.contains(":alluvium@"),
        "{said}"
    );
    assert!(
        started.elapsed() < Duration::from_secs(50),
        "it took {:?}",
        started.elapsed()
    );
}

#[test]
fn changes_that_cannot_be_applied_become_dead_letters_and_start_now_leaves_first_rows_out() {
    let Some(mut shop) = Shop::open("letters") else { return };
    shop.admin.run(
        "CREATE TABLE t(id int PRIMARY KEY, x text); CREATE TABLE u(id int PRIMARY KEY, x text);
         INSERT INTO t VALUES (1, 'a'); INSERT INTO u VALUES (2, 'b');",
    );
    let feed = shop.feed(&["t", "u"], "start = \"now\"");
    let input =
        format!("key = [\"id\"]\n[columns]\nid = {{ type = \"INT\", nullable = false }}\nx = \"VARCHAR\"\n{feed}");
    let folder = Folder::new(
        "letters",
        &[("inputs/t.toml", &input), ("silver/t.sql", "SELECT id, x FROM t")],
    );
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    shop.admin.run(
        "INSERT INTO t VALUES (3, 'c'); INSERT INTO u VALUES (4, 'd');
         BEGIN; DELETE FROM t WHERE id = 3; INSERT INTO u VALUES (3, 'moved'); COMMIT;
         TRUNCATE t; INSERT INTO t VALUES (5, 'e');",
    );
    catch_up(&dataflow, 2);
    let rows = "SELECT id, x FROM silver.t ORDER BY id";
    assert_eq!(ask(&dataflow, rows), "3,moved\n4,d\n5,e");
    let letter = ask(&dataflow, "SELECT reason FROM dead_letters");
    assert!(letter.contains("TRUNCATE of one of several tables"), "{letter}");
    shop.admin.run("TRUNCATE t, u");
    catch_up(&dataflow, 2);
    assert_eq!(ask(&dataflow, rows), "");
    assert_newest_is_exact(&dataflow, "the newest snapshot");
}

#[test]
fn what_was_not_read_for_a_while_begins_with_its_rows_again() {
    let Some(mut shop) = Shop::open("again") else { return };
    shop.admin.run(
        "CREATE TABLE t(id int PRIMARY KEY, x text); CREATE TABLE u(id int PRIMARY KEY, x text);
         INSERT INTO t VALUES (1, 'a'), (2, 'b'); INSERT INTO u VALUES (11, 'u');",
    );
    let name = shop.name.clone();
    let input = |tables: &[&str], slot: &str| {
        let feed = shop
            .feed(tables, "")
            .replace(&format!("slot = \"{name}\""), &format!("slot = \"{slot}\""));
        format!("key = [\"id\"]\n[columns]\nid = {{ type = \"INT\", nullable = false }}\nx = \"VARCHAR\"\n{feed}")
    };
    let (both, alone, elsewhere) = (
        input(&["t", "u"], &name),
        input(&["t"], &name),
        input(&["t", "u"], &format!("{name}_1")),
    );
    let folder = Folder::new(
        "again",
        &[("inputs/t.toml", &both), ("silver/t.sql", "SELECT id, x FROM t")],
    );
    let rows = |definition: &str| {
        folder.write("inputs/t.toml", definition);
        let dataflow = folder.load("lake");
        catch_up(&dataflow, 1);
        assert_newest_is_exact(&dataflow, "the newest snapshot");
        ask(&dataflow, "SELECT id, x FROM silver.t ORDER BY id").replace('\n', " ")
    };
    assert_eq!(rows(&both), "1,a 2,b 11,u");
    // A table is removed from the input, and comes back without a row that was deleted meanwhile.
    assert_eq!(rows(&alone), "1,a 2,b 11,u");
    shop.admin
        .run("DELETE FROM u; INSERT INTO u VALUES (12, 'v'); DELETE FROM t WHERE id = 2");
    assert_eq!(rows(&alone), "1,a 11,u");
    assert_eq!(rows(&both), "1,a 12,v");
    // Another slot is used, and then the first one again, which still has all changes that the other one delivered.
    shop.admin.run("UPDATE t SET x = 'old' WHERE id = 1");
    assert_eq!(rows(&elsewhere), "1,old 12,v");
    shop.admin.run("DELETE FROM u; UPDATE t SET x = 'new' WHERE id = 1");
    assert_eq!(rows(&elsewhere), "1,new");
    assert_eq!(rows(&both), "1,new");
    let letters = "SELECT COUNT(*) FROM dead_letters";
    assert_eq!(ask(&folder.load("lake"), letters), "0");
    shop.drop_slot(&format!("{name}_1"));
}

#[test]
fn a_key_that_is_a_part_of_the_tables_own_stays_where_others_change() {
    let Some(mut shop) = Shop::open("part") else { return };
    shop.admin.run(
        "CREATE TABLE t(id int, region text, long text, PRIMARY KEY (id, region));
         ALTER TABLE t ALTER COLUMN long SET STORAGE EXTERNAL; INSERT INTO t VALUES (1, 'eu', repeat('y', 5000));",
    );
    let columns = "id = { type = \"INT\", nullable = false }\nregion = \"VARCHAR\"\nlong = \"VARCHAR\"";
    let folder = folder_of(&shop, columns, "SELECT id, region, long FROM t", "key = [\"id\"]");
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    shop.admin.run("UPDATE t SET region = 'us'");
    catch_up(&dataflow, 1);
    let rows = "SELECT id, region, LENGTH(long) AS l FROM silver.t";
    assert_eq!(ask(&dataflow, rows), "1,us,5000");
    assert_newest_is_exact(&dataflow, "the newest snapshot");
}

/// `UPDATE t SET id = id + 1` moves each row to the key that the next row leaves only later in the transaction. Each of
/// these deletions removed the row that had just been moved there, and one row was left of all.
#[test]
fn rows_that_move_to_each_others_keys_in_one_transaction_all_stay() {
    let Some(mut shop) = Shop::open("moving") else { return };
    shop.admin.run(
        "CREATE TABLE t(id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text); ALTER TABLE t REPLICA IDENTITY FULL;
         INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (8, 'same'), (9, 'same');",
    );
    let columns = "id = { type = \"INT\", nullable = false }\nv = \"VARCHAR\"";
    let folder = folder_of(&shop, columns, "SELECT id, v FROM t", "key = [\"id\"]");
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    for change in [
        "UPDATE t SET id = id + 1",
        "BEGIN; UPDATE t SET id = 0 WHERE id = 2; UPDATE t SET id = 2 WHERE id = 4; UPDATE t SET id = 4 WHERE id = 0; COMMIT",
        "BEGIN; UPDATE t SET id = 4 WHERE id = 3; UPDATE t SET id = 3 WHERE id = 4 AND v <> 'b'; COMMIT",
        "UPDATE t SET id = 20 - id",
        "BEGIN; UPDATE t SET id = id + 1; DELETE FROM t WHERE v = 'b'; COMMIT",
        "UPDATE t SET id = id - 1, v = v || id",
    ] {
        shop.admin.run(change);
        catch_up(&dataflow, 2);
        let rows = shop
            .admin
            .run("SELECT string_agg(id || ',' || v, E'\\n' ORDER BY id) FROM t");
        assert_eq!(
            ask(&dataflow, "SELECT id, v FROM silver.t ORDER BY id"),
            rows,
            "{change}"
        );
    }
    assert_newest_is_exact(&dataflow, "the newest snapshot");
}

#[test]
fn connections_are_encrypted_as_sslmode_says() {
    let Some(mut shop) = Shop::open("encrypted") else {
        return;
    };
    let Some(ca) = service("ALLUVIUM_POSTGRES_CA") else {
        return;
    };
    shop.admin
        .run("CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t VALUES (1);");
    let plain = shop.url.clone();
    let other = std::path::Path::new(&ca)
        .with_file_name("server.crt")
        .display()
        .to_string();
    let mut folder = |host: &str, parameters: &str| {
        shop.url = format!("{}?{parameters}", plain.replace("127.0.0.1", host));
        let columns = "id = { type = \"INT\", nullable = false }";
        folder_of(&shop, columns, "SELECT id FROM t", "key = [\"id\"]")
    };
    // The certificate is valid for localhost only.
    for (host, parameters, refused) in [
        ("127.0.0.1", "sslmode=disable".to_string(), None),
        ("127.0.0.1", "sslmode=require".to_string(), None),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={ca}"), None),
        (
            "127.0.0.1",
            format!("sslmode=require&sslrootcert={other}"),
            Some("invalid peer certificate"),
        ),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={ca}"), None),
        (
            "127.0.0.1",
            "sslmode=verify-ca".to_string(),
            Some("invalid peer certificate"),
        ),
        (
            "127.0.0.1",
            format!("sslmode=verify-full&sslrootcert={ca}"),
            Some("not valid for name"),
        ),
        ("localhost", format!("sslmode=verify-full&sslrootcert={ca}"), None),
        (
            "localhost",
            "sslmode=verify-full&sslrootcert=/nowhere.pem".to_string(),
            Some("/nowhere.pem"),
        ),
    ] {
        let dataflow = folder(host, &parameters).load("lake");
        let found = alluvium::source::check(&dataflow, Duration::from_secs(20));
        let said: Vec<&str> = found.iter().filter(|m| m.refuses).map(|m| m.message.as_str()).collect();
        match refused {
            None => assert!(said.is_empty(), "{parameters}: {said:?}"),
            Some(why) => assert!(said.len() == 1 && said[0].contains(why), "{parameters}: {said:?}"),
        }
    }
    let whole = folder("localhost", &format!("sslmode=verify-full&sslrootcert={ca}"));
    let dataflow = whole.load("lake");
    let running = Running::start(dataflow.clone(), 1);
    running.wait_until(|| newest(&dataflow, "SELECT id FROM silver.t") == "1");
    let encrypted = format!(
        "SELECT s.ssl FROM pg_stat_ssl s JOIN pg_replication_slots r ON r.active_pid = s.pid WHERE slot_name = '{}'",
        shop.name
    );
    running.wait_until(|| !shop.admin.run(&encrypted).is_empty());
    assert_eq!(shop.admin.run(&encrypted), "t");
    running.stop();
}
