//! Recursive queries are planned from SQL, and kept up to date while a graph of edges changes. The expected rows are
//! computed round by round, over sets of tuples for UNION, and bags of them for UNION ALL.

use super::*;
use crate::definition::{Layer, Table};
use crate::plan::compile;
use crate::repr::SqlType;

/// Plans tables of these SELECTs over the input `e (a, b, q)`, whose columns are BIGINT.
fn planned(selects: &[&str], most_rounds: u64) -> Graph {
    let column = |name: &str| crate::definition::Column {
        name: name.to_string(),
        sql_type: SqlType::BigInt,
        nullable: true,
        from: vec![name.to_string()],
        format: vec![],
        null: vec![],
    };
    let input = Input {
        name: "e".to_string(),
        description: None,
        columns: ["a", "b", "q"].map(column).to_vec(),
        key: vec![],
        order_by: vec![],
        dedup_key: vec![],
        bronze: true,
        retention: None,
        evolved: vec![],
        feeds: vec![],
        file: Default::default(),
    };
    let mut flow = dataflow(vec![input], selects.len());
    flow.bounds.max_rounds = most_rounds;
    for (table, sql) in flow.tables.iter_mut().zip(selects) {
        let Table { layer, sql: text, .. } = table;
        (*layer, *text) = (Layer::Silver, sql.to_string());
    }
    compile(&flow).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// The result of a recursive query by the SQL standard: each round is computed from the one before.
fn rounds(base: Vec<Tuple>, distinct: bool, most: usize, step: impl Fn(&Tuple) -> Vec<Tuple>) -> Bag {
    let mut all = Bag::new();
    let mut round = base;
    for _ in 0..=most {
        let mut fresh = vec![];
        for tuple in round {
            let count = all.entry(tuple.clone()).or_default();
            if !distinct || *count == 0 {
                *count += 1;
                fresh.push(tuple);
            }
        }
        round = fresh.iter().flat_map(&step).collect();
        if round.is_empty() {
            break;
        }
    }
    all
}

/// An edge from a node to one of the next `ahead` nodes (0: to any node), so that few nodes have many paths.
fn edge(random: &mut SeededRandom, nodes: u64, ahead: u64) -> Tuple {
    let from = random.below(nodes);
    let to = match ahead {
        0 => random.below(nodes),
        ahead => from + 1 + random.below(ahead),
    };
    let null = random.below(12) == 0;
    vec![
        Some(from as i64),
        (!null).then_some(to as i64),
        Some(random.below(3) as i64 + 1),
    ]
}

const REACHED: &str = "WITH RECURSIVE r (a, b) AS (SELECT a, b FROM e UNION SELECT r.a, e.b FROM r JOIN e ON e.a = r.b) SELECT a, b FROM r";

#[test]
fn reachability_over_cycles_that_come_and_go() {
    let from_zero = "WITH RECURSIVE r AS (SELECT CAST(0 AS BIGINT) AS n UNION SELECT e.b FROM r, e WHERE e.a = r.n AND e.b IS NOT NULL) SELECT n FROM r";
    let edges = history(&mut SeededRandom::new(5), 14, 9, |r| edge(r, 7, 0));
    compare(planned(&[REACHED, from_zero], 1000), &[&edges], |index, inputs| {
        let of = |from: Option<i64>| inputs[0].iter().filter(move |e| from.is_some() && e[0] == from);
        match index {
            0 => {
                let base = inputs[0].iter().map(|e| vec![e[0], e[1]]).collect();
                rounds(base, true, 1000, |t| of(t[1]).map(|e| vec![t[0], e[1]]).collect())
            }
            _ => rounds(vec![vec![Some(0)]], true, 1000, |t| {
                of(t[0]).filter(|e| e[1].is_some()).map(|e| vec![e[1]]).collect()
            }),
        }
    });
}

#[test]
fn quantities_along_paths_are_multiplied_and_equal_rows_are_counted() {
    let parts = "WITH RECURSIVE r (a, b, q, depth) AS (
            SELECT a, b, q, 1 FROM e UNION ALL SELECT r.a, e.b, r.q * e.q, r.depth + 1 FROM r JOIN e ON e.a = r.b
        ) SELECT a, b, q, depth FROM r";
    let plain = "WITH RECURSIVE r AS (SELECT a, b FROM e UNION ALL SELECT r.a, e.b FROM e JOIN r ON e.a = r.b) SELECT a, b FROM r";
    let edges = history(&mut SeededRandom::new(7), 12, 12, |r| edge(r, 6, 3));
    compare(planned(&[parts, plain], 1000), &[&edges], |index, inputs| {
        let of = |from: Option<i64>| inputs[0].iter().filter(move |e| from.is_some() && e[0] == from);
        let times = |a: Option<i64>, b: Option<i64>| a.zip(b).map(|(a, b)| a * b);
        match index {
            0 => {
                let base = inputs[0].iter().map(|e| vec![e[0], e[1], e[2], Some(1)]).collect();
                rounds(base, false, 1000, |t| {
                    let next = of(t[1]).map(|e| vec![t[0], e[1], times(t[2], e[2]), t[3].map(|d| d + 1)]);
                    next.collect()
                })
            }
            _ => {
                let base = inputs[0].iter().map(|e| vec![e[0], e[1]]).collect();
                rounds(base, false, 1000, |t| of(t[1]).map(|e| vec![t[0], e[1]]).collect())
            }
        }
    });
}

/// Outer, semi and anti joins of the rows so far, with and without a residual condition.
#[test]
fn steps_with_all_joins_that_keep_rows_of_the_round_before() {
    let step = |joined: &str| {
        format!(
            "WITH RECURSIVE r (n, m, d) AS (SELECT a, b, 0 FROM e WHERE q = 1 UNION ALL {joined}) SELECT n, m, d FROM r"
        )
    };
    let selects = [
        step("SELECT r.m, e.b, r.d + 1 FROM r LEFT JOIN e ON e.a = r.m WHERE r.d < 3"),
        step("SELECT r.m, e.b, r.d + 1 FROM r LEFT JOIN e ON e.a = r.m AND e.q > r.d WHERE r.d < 3"),
        step("SELECT r.m, e.b, r.d + 1 FROM e RIGHT JOIN r ON e.a = r.m AND e.q > r.d WHERE r.d < 3"),
        step("SELECT r.m, r.n, r.d + 1 FROM r WHERE r.d < 4 AND EXISTS (SELECT 1 FROM e WHERE e.a = r.m)"),
        step("SELECT r.m, r.n, r.d + 1 FROM r WHERE r.d < 4 AND NOT EXISTS (SELECT 1 FROM e WHERE e.a = r.m)"),
        step(
            "SELECT r.m, r.n, r.d + 1 FROM r WHERE r.d < 4 AND EXISTS (SELECT 1 FROM e WHERE e.a = r.m AND e.q > r.d)",
        ),
        step(
            "SELECT r.m, r.n, r.d + 1 FROM r WHERE r.d < 4 AND NOT EXISTS (SELECT 1 FROM e WHERE e.a = r.m AND e.q > r.d)",
        ),
        step("SELECT r.m, r.n, r.d + 1 FROM r WHERE r.d < 4 AND (r.m IN (SELECT e.a FROM e WHERE e.q = 2) OR r.n = 2)"),
        step("SELECT r.m, (SELECT max(e.b) FROM e WHERE e.a = r.m) AS x, r.d + 1 FROM r WHERE r.d < 4"),
    ];
    let texts: Vec<&str> = selects.iter().map(String::as_str).collect();
    let edges = history(&mut SeededRandom::new(9), 10, 10, |r| edge(r, 5, 0));
    compare(planned(&texts, 1000), &[&edges], |index, inputs| {
        let base = inputs[0]
            .iter()
            .filter(|e| e[2] == Some(1))
            .map(|e| vec![e[0], e[1], Some(0)]);
        let next = |t: &Tuple| -> Vec<Tuple> {
            let depth = Some(t[2].unwrap() + 1);
            let all = || inputs[0].iter().filter(|e| t[1].is_some() && e[0] == t[1]);
            let more = || all().filter(|e| e[2] > t[2]);
            if t[2] >= Some(if index < 3 { 3 } else { 4 }) {
                return vec![];
            }
            let padded = |found: Vec<&Tuple>| match found.is_empty() {
                true => vec![vec![t[1], None, depth]],
                false => found.into_iter().map(|e| vec![t[1], e[1], depth]).collect(),
            };
            let kept = |keep: bool| if keep { vec![vec![t[1], t[0], depth]] } else { vec![] };
            match index {
                0 => padded(all().collect()),
                1 | 2 => padded(more().collect()),
                3 => kept(all().count() > 0),
                4 => kept(all().count() == 0),
                5 => kept(more().count() > 0),
                6 => kept(more().count() == 0),
                7 => kept(all().any(|e| e[2] == Some(2)) || t[0] == Some(2)),
                _ => vec![vec![t[1], all().filter_map(|e| e[1]).max(), depth]],
            }
        };
        rounds(base.collect(), false, 1000, next)
    });
}

/// UNION ALL does not end over a cycle, and over two cycles it has more rows than can be counted.
#[test]
fn what_does_not_end_is_told_and_the_rows_before_it_stay() {
    let walks = "WITH RECURSIVE r (n, d) AS (SELECT a, 0 FROM e WHERE q = 1 UNION ALL SELECT e.b, r.d + 1 FROM r JOIN e ON e.a = r.n) SELECT n, d FROM r";
    let paths = "WITH RECURSIVE r AS (SELECT a FROM e WHERE q = 1 UNION ALL SELECT e.b FROM r JOIN e ON e.a = r.a) SELECT a FROM r";
    let graph = Arc::new(planned(&[walks, paths], 50));
    let edge = |a: i64, b: i64, q: i64| encode(&vec![Some(a), Some(b), Some(q)]);
    // First there is a path; then a cycle; then two cycles; then the path again.
    let history = Arc::new(vec![vec![
        vec![(edge(1, 2, 1), 1), (edge(2, 3, 0), 1)],
        vec![(edge(3, 1, 0), 1)],
        vec![(edge(3, 1, 0), 1)],
        vec![(edge(3, 1, 0), -2)],
    ]]);
    for way in WAYS {
        let answer = run(&graph, &history, 4, way, &Default::default());
        let rows = |table: usize, time| as_of(&graph.tables[table].schema, &answer.oks[table], time);
        let errors = |table: usize, time| errors_as_of(&answer.errs[table], time);
        let walked = |depth: i64| vec![Some([1, 2, 3][depth as usize % 3]), Some(depth)];
        assert_eq!(rows(0, 0), bag((0..3).map(walked)), "{way:?}");
        assert!(errors(0, 0).is_empty() && errors(1, 0).is_empty(), "{way:?}");

        assert_eq!(rows(0, 1), bag((0..=50).map(walked)), "{way:?}");
        let beyond = errors(0, 1);
        assert_eq!(beyond.len(), 1, "{beyond:?}");
        let ((reason, payload), count) = beyond.first_key_value().unwrap();
        assert!(
            reason.contains("beyond 50 rounds") && reason.contains("max_rounds"),
            "{reason}"
        );
        assert_eq!((payload.as_str(), *count), ("{\"n\":1,\"d\":51}", 1), "{way:?}");
        let around = [(1, 17), (2, 17), (3, 17)].map(|(n, count)| (vec![Some(n)], count));
        assert_eq!(rows(1, 1), Bag::from(around), "{way:?}");

        // Each additional cycle doubles the rows: 2^16 of a row are kept, so are 2^17 - 1 (fewer than a million), and
        // more are refused.
        let doubled = rows(0, 2);
        assert_eq!(doubled[&walked(48)], 1 << 16, "{way:?}");
        assert_eq!(errors(0, 2), beyond, "one letter for each row, {way:?}");
        let many = rows(1, 2);
        assert_eq!(many[&vec![Some(1)]], (1 << 17) - 1, "{way:?}");

        assert_eq!(rows(0, 3), rows(0, 0), "{way:?}");
        assert_eq!(rows(1, 3), rows(1, 0), "{way:?}");
        assert!(errors(0, 3).is_empty() && errors(1, 3).is_empty(), "{way:?}");
    }
    let graph = Arc::new(planned(&[walks, paths], 100));
    let answer = run(&graph, &history, 4, WAYS[0], &Default::default());
    let rows = |time| as_of(&graph.tables[1].schema, &answer.oks[1], time);
    assert_eq!(rows(2), Bag::new(), "all rows are there too often");
    let errors = errors_as_of(&answer.errs[1], 2);
    let payloads: Vec<&str> = errors.keys().map(|(_, payload)| payload.as_str()).collect();
    assert_eq!(payloads, ["{\"a\":1}", "{\"a\":2}", "{\"a\":3}"]);
    assert!(
        errors
            .iter()
            .all(|((reason, _), count)| reason.contains("more than 1000000 rows") && *count == 1)
    );
    assert_eq!(rows(3), rows(0));
}

#[test]
fn rows_that_fail_within_a_round_stand_alone_and_what_they_would_lead_to_is_missing() {
    let shares = "WITH RECURSIVE r (n, share) AS (SELECT a, 60 FROM e WHERE q = 1 UNION ALL SELECT e.b, r.share / (e.q - 2) FROM r JOIN e ON e.a = r.n) SELECT n, share FROM r";
    let graph = Arc::new(planned(&[shares], 50));
    let edge = |a: i64, b: i64, q: i64| encode(&vec![Some(a), Some(b), Some(q)]);
    let history = Arc::new(vec![vec![
        vec![(edge(1, 2, 1), 1), (edge(2, 3, 2), 1), (edge(3, 4, 5), 1)],
        vec![(edge(2, 3, 2), -1), (edge(2, 3, 4), 1)],
    ]]);
    for way in WAYS {
        let answer = run(&graph, &history, 2, way, &Default::default());
        let rows = |time| as_of(&graph.tables[0].schema, &answer.oks[0], time);
        let row = |n: i64, share: i64| vec![Some(n), Some(share)];
        assert_eq!(rows(0), bag([row(1, 60), row(2, -60)]), "{way:?}");
        let errors = errors_as_of(&answer.errs[0], 0);
        assert_eq!(errors.values().sum::<i64>(), 1, "{errors:?}");
        assert_eq!(
            rows(1),
            bag([row(1, 60), row(2, -60), row(3, -30), row(4, -10)]),
            "{way:?}"
        );
        assert!(errors_as_of(&answer.errs[0], 1).is_empty(), "{way:?}");
    }
}

/// Adding or removing a leaf processes far fewer rows than building the tree did, because only what is below it
/// changes.
#[test]
fn a_small_change_to_a_large_graph_works_on_a_few_rows() {
    const NODES: i64 = 20_000;
    let from_first = "WITH RECURSIVE r AS (SELECT CAST(0 AS BIGINT) AS n UNION SELECT e.b FROM r JOIN e ON e.a = r.n) SELECT n FROM r";
    let graph = Arc::new(planned(&[from_first], 1000));
    // A binary tree.
    let edge = |b: i64| (encode(&vec![Some((b - 1) / 2), Some(b), Some(1)]), 1);
    let history = Arc::new(vec![vec![
        (1..NODES).map(edge).collect(),
        vec![edge(NODES)],
        vec![(edge(NODES).0, -1)],
    ]]);
    let answer = run(&graph, &history, 3, WAYS[0], &Default::default());
    let changes = |time: u64| answer.oks[0].iter().filter(|(_, at, _)| *at == time).count();
    assert_eq!((changes(0), changes(1), changes(2)), (NODES as usize, 1, 1));
    let [whole, one, other] = answer.took[..] else {
        panic!("each time was waited for")
    };
    assert!(whole > 20 * one.min(other), "{:?}", answer.took);
}
