//! Recursive queries in runs: with verify as the judge, over restarts and 1 to 3 workers, and what a change costs.

use alluvium::serve::verify;

use crate::lake::ask;
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

/// Where an edge begins and ends, and its quantity; `None`: it goes.
type Edge = Option<(i64, i64, i64)>;

/// Edges by their ids.
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
