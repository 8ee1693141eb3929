//! Golden plans: the shape of each construct, which nodes are shared, and which hashes stay the same.

use std::path::PathBuf;

use super::fixture::{dataflow, golden, input, planned, table};
use crate::definition::{Expectation, Feed, FeedKind, Format, Layer, LogFeed, OnViolation, Retention};
use crate::plan::{Op, compile};

#[test]
fn plans_have_the_expected_shape() {
    let cases = include_str!("explain.txt");
    let mut actual = String::new();
    for case in cases.split("\n\n").filter(|c| !c.trim().is_empty()) {
        let sql = case.split("\n=> ").next().unwrap().trim_end();
        let text = planned(sql).explain(Some("gold.t"));
        actual.push_str(&format!("{sql}\n=> {}\n\n", text.trim_end()));
    }
    golden("explain.txt", &actual);
}

#[test]
fn equal_subplans_of_several_tables_are_one_node() {
    let big = "SELECT o.customer, c.country, sum(o.amount) AS s FROM orders o JOIN customers c ON o.customer = c.name GROUP BY o.customer, c.country";
    let other = "WITH x AS (SELECT p.customer AS who, p.amount AS much, q.country AS land FROM orders AS p JOIN customers AS q ON p.customer = q.name)
         SELECT who, land, sum(much) AS total FROM x GROUP BY who, land";
    let graph = compile(&dataflow(vec![
        table(Layer::Gold, "a", big),
        table(Layer::Gold, "b", other),
        table(Layer::Gold, "c", "SELECT max(customer) AS m FROM gold.a"),
    ]))
    .unwrap();
    assert_eq!(graph.tables[0].node, graph.tables[1].node, "{}", graph.explain(None));
    assert_eq!(graph.tables[1].schema.field(2).name(), "total");
    let joins = graph.nodes.iter().filter(|n| matches!(n.op, Op::Join(_))).count();
    assert_eq!(joins, 1);
    for (n, node) in graph.nodes.iter().enumerate() {
        assert!(
            node.inputs.iter().all(|&i| i < n),
            "{} stands before its inputs",
            node.name
        );
    }
}

#[test]
fn hashes_tell_meanings_apart_and_survive_other_tables() {
    let hash = |sql: &str| {
        let graph = planned(sql);
        graph.nodes[graph.tables[0].node].hash
    };
    let base = hash("SELECT id FROM orders WHERE quantity > 1");
    assert_eq!(base, hash("SELECT o.id AS other FROM orders AS o WHERE o.quantity > 1"));
    for different in [
        "SELECT id FROM orders WHERE quantity > 2",
        "SELECT id FROM orders WHERE quantity >= 1",
        "SELECT quantity FROM orders WHERE quantity > 1",
        "SELECT id FROM orders WHERE id > 1",
    ] {
        assert_ne!(base, hash(different), "{different}");
    }
    assert_ne!(
        hash("SELECT id FROM orders WHERE customer = '1'"),
        hash("SELECT id FROM orders WHERE customer = '1 '")
    );
    let flow = dataflow(vec![
        table(
            Layer::Gold,
            "before",
            "SELECT (SELECT max(credit) FROM customers) AS m, id FROM orders WHERE id IN (SELECT 3)",
        ),
        table(Layer::Gold, "t", "SELECT id FROM orders WHERE quantity > 1"),
    ]);
    let graph = compile(&flow).unwrap();
    assert_eq!(graph.nodes[graph.tables[1].node].hash, base);
    // If this hash changes, every restart rebuilds its state.
    golden("hash.txt", &crate::plan::meaning_text(base));
}

#[test]
fn what_never_retracts_is_marked() {
    let append_only = |sql: &str| planned(sql).tables[0].append_only;
    for sql in [
        "SELECT * FROM orders",
        "SELECT DISTINCT customer FROM orders WHERE id > 1",
        "SELECT o.id FROM orders o JOIN customers c ON o.customer = c.name",
        "SELECT id FROM orders WHERE customer IN (SELECT name FROM customers)",
        "SELECT name FROM customers UNION ALL SELECT customer FROM orders",
        "SELECT unnest(tags) AS tag FROM orders",
        "SELECT id FROM orders WHERE at <= now()",
    ] {
        assert!(append_only(sql), "{sql}");
    }
    for sql in [
        "SELECT count(*) AS n FROM orders",
        "SELECT o.id FROM orders o LEFT JOIN customers c ON o.customer = c.name",
        "SELECT id FROM orders WHERE at > now() - INTERVAL '1 hour'",
        "SELECT id FROM orders ORDER BY id LIMIT 3",
        "SELECT id FROM orders o WHERE NOT EXISTS (SELECT 1 FROM customers c WHERE c.name = o.customer)",
    ] {
        assert!(!append_only(sql), "{sql}");
    }
}

#[test]
fn inputs_that_change_are_not_append_only() {
    let planned = |change: &dyn Fn(&mut crate::definition::Input)| {
        let mut flow = dataflow(vec![table(Layer::Gold, "t", "SELECT id FROM events")]);
        let mut events = input("events", &[("id", "BIGINT"), ("at", "TIMESTAMP")]);
        change(&mut events);
        flow.inputs.push(events);
        compile(&flow).unwrap().tables[0].append_only
    };
    assert!(planned(&|_| {}));
    assert!(planned(&|i| i.dedup_key = vec!["id".to_string()]));
    assert!(!planned(&|i| i.key = vec!["id".to_string()]));
    assert!(!planned(&|i| {
        i.retention = Some(Retention {
            column: "at".to_string(),
            keep: std::time::Duration::from_secs(60),
        })
    }));
    assert!(!planned(&|i| {
        i.feeds.push(Feed {
            name: "live".to_string(),
            kind: FeedKind::Log(LogFeed {
                path: PathBuf::from("live"),
                rules: Default::default(),
            }),
            format: Format::DebeziumJson,
            wire: Default::default(),
            columns: i.columns.clone(),
            max_record: 16 << 20,
        })
    }));
}

#[test]
fn tables_carry_keys_partitions_and_expectations_to_those_that_read_them() {
    let mut lines = table(Layer::Silver, "lines", "SELECT id, customer, quantity FROM orders");
    lines.key = vec!["customer".to_string(), "id".to_string()];
    lines.partition_by = vec!["customer".to_string()];
    lines.expectations = vec![Expectation {
        name: "some".to_string(),
        check: "quantity > 0".to_string(),
        on_violation: OnViolation::Drop,
    }];
    let graph = compile(&dataflow(vec![
        lines,
        table(Layer::Gold, "n", "SELECT count(*) AS n FROM silver.lines"),
    ]))
    .unwrap();
    assert_eq!(graph.tables[0].key, vec![1, 0]);
    assert_eq!(graph.tables[0].partition_by, vec![1]);
    golden("tables.txt", &graph.explain(None));
}
