//! Tests recursive queries in runs: `verify` judges them, over restarts and with 1 to 3 workers; also tests the cost
//! of a change.

use std::time::{Duration, Instant};

use alluvium::serve::verify;

use crate::lake::ask;
use crate::runs::Running;
use crate::support::{Folder, assert_exact, catch_up, chain};

const EDGES: &str = r#"
key = ["id"]
[columns]
id = { type = "BIGINT", nullable = false }
a = "BIGINT"
b = "BIGINT"
q = "INT"
[[feeds]]
name = "live"
kind = "log"
path = "live"
format = "json"
"#;

fn folder(name: &str, settings: &str, tables: &[(&str, &str)]) -> Folder {
    let folder = Folder::new(name, &[("inputs/edges.toml", EDGES)]);
    if !settings.is_empty() {
        folder.append("dataflow.toml", settings);
    }
    for (table, sql) in tables {
        folder.write(&format!("gold/{table}.sql"), sql);
    }
    folder
}

/// The two ends of an edge, and its quantity; `None` removes the edge.
type Edge = Option<(i64, i64, i64)>;

/// Appends edges, by their ids.
fn append(folder: &Folder, edges: &[(i64, Edge)]) {
    for (id, edge) in edges {
        let value = match edge {
            None => "null".to_string(),
            Some((a, b, q)) => format!("{{\"id\": {id}, \"a\": {a}, \"b\": {b}, \"q\": {q}}}"),
        };
        folder.append(
            "live/0.ndjson",
            &format!("{{\"key\": {{\"id\": {id}}}, \"value\": {value}}}\n"),
        );
    }
}

fn audit(folder: &Folder, workers: usize, what: &str) {
    let dataflow = folder.load("lake");
    catch_up(&dataflow, workers);
    let report = verify::verify(&dataflow, None).unwrap_or_else(|e| panic!("{what}: {}", chain(&e)));
    assert_eq!(report.tables.len(), dataflow.tables.len(), "{what}");
    assert_exact(&report, what);
}

#[test]
fn graphs_that_change_are_followed_over_restarts_by_any_number_of_workers() {
    let tables = [
        (
            "reached",
            "WITH RECURSIVE r (a, b) AS (SELECT a, b FROM edges UNION SELECT r.a, e.b FROM r JOIN edges e ON e.a = r.b)
             SELECT a, b FROM r",
        ),
        (
            "walks",
            "WITH RECURSIVE r (a, b, q, d) AS (
                 SELECT a, b, q, 1 FROM edges
                 UNION ALL SELECT r.a, e.b, r.q * e.q, r.d + 1 FROM r JOIN edges e ON e.a = r.b WHERE r.d < 4
             ) SELECT a, b, d, sum(q) AS q, count(*) AS n FROM r GROUP BY a, b, d",
        ),
        (
            "endless",
            "WITH RECURSIVE r (n, d) AS (
                 SELECT a, 0 FROM edges WHERE id = 1 UNION ALL SELECT e.b, r.d + 1 FROM r JOIN edges e ON e.a = r.n
             ) SELECT n, d FROM r",
        ),
        (
            "beside",
            "WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 5),
                 r (n) AS (SELECT n FROM s WHERE n < 3 UNION SELECT b FROM r, edges WHERE a = n AND b IN (SELECT n FROM s))
             SELECT s.n, count(r.n) AS c, (SELECT count(*) FROM r) AS t FROM s LEFT JOIN r ON r.n = s.n GROUP BY s.n",
        ),
    ];
    let folder = folder("recursive", "max_rounds = 12\n", &tables);
    append(
        &folder,
        &[
            (1, Some((1, 2, 2))),
            (2, Some((2, 3, 3))),
            (3, Some((3, 4, 1))),
            (4, Some((2, 4, 5))),
        ],
    );
    audit(&folder, 1, "a graph without cycles");
    let dataflow = folder.load("lake");
    let letters = "SELECT count(*) AS n FROM dead_letters";
    let walks = "SELECT b, d, q, n FROM gold.walks WHERE a = 1 ORDER BY b, d";
    assert_eq!(ask(&dataflow, walks), "2,1,2,1\n3,2,6,1\n4,2,10,1\n4,3,6,1");
    assert_eq!(ask(&dataflow, letters), "0");

    append(&folder, &[(5, Some((4, 1, 1)))]);
    audit(&folder, 2, "a graph with cycles");
    assert_eq!(ask(&dataflow, "SELECT count(*) AS n FROM gold.reached"), "16");
    let told = "SELECT DISTINCT table_name, reason LIKE '%beyond 12 rounds%max_rounds%' AS told FROM dead_letters";
    assert_eq!(ask(&dataflow, told), "gold.endless,true");
    assert_eq!(ask(&dataflow, "SELECT max(d) AS d FROM gold.endless"), "12");

    append(&folder, &[(5, None), (2, Some((2, 3, 7)))]);
    audit(&folder, 3, "the cycle is gone");
    assert_eq!(ask(&dataflow, walks), "2,1,2,1\n3,2,14,1\n4,2,10,1\n4,3,14,1");
    assert_eq!(ask(&dataflow, "SELECT count(*) AS n FROM gold.endless"), "5");
    audit(&folder, 2, "nothing has changed");
}

/// A query whose rounds go on for very long was computed to its end, whatever the run was told: after minutes only SIGKILL helped.
#[test]
fn a_signal_ends_a_run_in_the_rounds_of_a_query_and_the_next_run_reads_again() {
    let tables = [
        (
            "endless",
            "WITH RECURSIVE r (n, d) AS (SELECT a, 0 FROM edges UNION ALL SELECT n, d + 1 FROM r) SELECT n, d FROM r",
        ),
        ("plain", "SELECT count(*) AS n FROM edges"),
    ];
    let folder = folder("told", "", &tables);
    let settings = |rounds: u32| {
        let settings = "name = \"told\"\ncommit = \"50ms\"\ndurability = \"none\"\nlake = \"lakes/lake\"";
        folder.write("dataflow.toml", &format!("{settings}\nmax_rounds = {rounds}\n"));
    };
    settings(1_000_000);
    append(&folder, &[(1, Some((1, 2, 3))), (2, Some((2, 3, 4)))]);
    for signal in ["-TERM", "-INT"] {
        let run = Running::alluvium(&folder, &["-w", "2"]);
        run.wait_for_rounds();
        let told = Instant::now();
        run.signal(signal);
        let (code, output) = run.end();
        assert!(told.elapsed() < Duration::from_secs(12), "{signal}: {output}");
        assert_eq!(code, Some(1), "{signal}: {output}");
        assert!(
            output.contains("which was not over: what was read since the last snapshot"),
            "{output}"
        );
    }
    // Nothing of the epoch is committed, and all of it is read again.
    settings(3);
    let dataflow = folder.load("lake");
    assert!(catch_up(&dataflow, 1).records == 2, "the log is read again");
    assert_eq!(ask(&dataflow, "SELECT n FROM gold.plain"), "2");
    assert_eq!(
        ask(&dataflow, "SELECT count(*) AS n, max(d) AS d FROM gold.endless"),
        "8,3"
    );
}
