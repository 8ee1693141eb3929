//! Tests of the opinion on SQL. The expected answers are PostgreSQL's.

use std::sync::Arc;

use ::arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray};
use ::arrow::datatypes::DataType;

use super::number::written;
use super::query::{Budget, Ctes, Planner, SourceRows};
use super::trust::Unjudged;
use super::value::Scalar;
use super::*;

/// Table `t` has `k`, `v`, `d` (DECIMAL(12,2)), `s` and `x`; table `u` has `k` and `w`.
fn tables(name: &str) -> Result<Rc<SourceRows>, Unjudged> {
    let columns: Vec<(&str, ArrayRef)> = match name {
        "t" => {
            let d = Decimal128Array::from(vec![Some(435), Some(10), None, Some(1660)]);
            let d = d.with_precision_and_scale(12, 2).unwrap();
            vec![
                ("k", Arc::new(Int64Array::from(vec![Some(1), Some(2), None, Some(2)]))),
                ("v", Arc::new(Int64Array::from(vec![10, 20, 30, 40]))),
                ("d", Arc::new(d)),
                (
                    "s",
                    Arc::new(StringArray::from(vec![Some("ab"), None, Some("b"), Some("a%")])),
                ),
                ("x", Arc::new(Float64Array::from(vec![0.5, f64::NAN, 2.5, 1e300]))),
            ]
        }
        "u" => vec![
            ("k", Arc::new(Int64Array::from(vec![Some(2), Some(3), None]))),
            ("w", Arc::new(Int64Array::from(vec![7, 8, 9]))),
        ],
        _ => return Err(Unjudged::Name(name.into())),
    };
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let fields = batch.schema();
    let columns = fields
        .fields()
        .iter()
        .map(|f| (f.name().clone(), arrow::type_of(f.data_type())));
    Ok(Rc::new(SourceRows {
        columns: columns.collect(),
        rows: Rc::new(arrow::rows(&[batch])?),
    }))
}

/// The rows of a query, sorted, as `(1, NULL) (2, a)`.
fn rows(sql: &str) -> Result<String, Unjudged> {
    let written_query = plan::written_query(sql).ok_or(Unjudged::Reading)?;
    if written_query.otherwise {
        return Err(Unjudged::Reading);
    }
    let planner = Planner {
        source: &tables,
        functions: Functions::new(plan::batch_context()),
        now: 0,
        budget: Budget::new(10_000),
        trace: RefCell::default(),
    };
    let query = planner.query(&written_query.query, None, &Ctes::new())?;
    let cell = |value: &Scalar| match value {
        Scalar::Null => "NULL".to_string(),
        Scalar::Bool(b) => b.to_string(),
        Scalar::Text(text) => text.to_string(),
        Scalar::Double(x) => x.to_string(),
        value @ (Scalar::Int(_) | Scalar::Number(..)) => written(value),
        value => time::written(value, false),
    };
    let all = query.rows(None)?;
    let mut rows: Vec<String> = all
        .iter()
        .map(|row| format!("({})", row.iter().map(cell).collect::<Vec<_>>().join(", ")))
        .collect();
    rows.sort();
    Ok(rows.join(" "))
}

#[track_caller]
fn yields(cases: &[(&str, &str)]) {
    for (sql, right) in cases {
        assert_eq!(rows(sql).as_deref(), Ok(*right), "{sql}");
    }
}

#[test]
fn conditions_are_of_three_values() {
    yields(&[
        ("SELECT v FROM t WHERE k NOT IN (SELECT k FROM u)", ""),
        (
            "SELECT v FROM t WHERE k NOT IN (SELECT k FROM u WHERE k > 5)",
            "(10) (20) (30) (40)",
        ),
        ("SELECT v FROM t WHERE k NOT IN (1, NULL) OR v = 30", "(30)"),
        ("SELECT v FROM t WHERE (k IN (SELECT k FROM u)) IS NULL", "(10) (30)"),
        (
            "SELECT v FROM t WHERE k <> ALL (SELECT k FROM u WHERE k IS NOT NULL)",
            "(10)",
        ),
        ("SELECT v FROM t WHERE (k, v) < (2, 30)", "(10) (20)"),
        (
            "SELECT v FROM t WHERE (k, v) IS NULL OR k IS DISTINCT FROM 2",
            "(10) (30)",
        ),
        ("SELECT v FROM t WHERE NOT (s LIKE 'a%')", "(30)"),
        ("SELECT v FROM t WHERE s LIKE '%\\%'", "(40)"),
        (
            "SELECT CASE k WHEN 1 THEN 'one' WHEN NULL THEN 'null' END AS c FROM t WHERE v > 20",
            "(NULL) (NULL)",
        ),
    ]);
}

#[test]
fn subqueries_are_evaluated_for_each_row() {
    yields(&[
        (
            "SELECT v, (SELECT count(*) FROM u WHERE u.k = t.k) AS n FROM t",
            "(10, 0) (20, 1) (30, 0) (40, 1)",
        ),
        (
            "SELECT v FROM t WHERE EXISTS (SELECT max(w) FROM u WHERE u.k = t.k)",
            "(10) (20) (30) (40)",
        ),
        (
            "SELECT v FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND w < v)",
            "(20) (40)",
        ),
        (
            "SELECT v, w FROM t CROSS JOIN LATERAL (SELECT w FROM u WHERE u.k = t.k) AS q",
            "(20, 7) (40, 7)",
        ),
        (
            "SELECT k, (SELECT sum(w) FROM u WHERE u.k = t.k) AS w FROM t GROUP BY k",
            "(1, NULL) (2, 7) (NULL, NULL)",
        ),
        (
            "WITH q AS (SELECT k, sum(v) AS v FROM t GROUP BY k) SELECT v FROM q WHERE v = (SELECT max(v) FROM q)",
            "(60)",
        ),
    ]);
    let several = rows("SELECT (SELECT w FROM u) AS w FROM t");
    assert!(matches!(several, Err(Unjudged::Row(_))), "{several:?}");
}

#[test]
fn tables_are_joined() {
    yields(&[
        (
            "SELECT k, v, w FROM t FULL JOIN u USING (k)",
            "(1, 10, NULL) (2, 20, 7) (2, 40, 7) (3, NULL, 8) (NULL, 30, NULL) (NULL, NULL, 9)",
        ),
        (
            "SELECT * FROM (SELECT k, v FROM t) AS t NATURAL RIGHT JOIN u",
            "(2, 20, 7) (2, 40, 7) (3, NULL, 8) (NULL, NULL, 9)",
        ),
        (
            "SELECT v, w FROM t LEFT JOIN u ON t.k = u.k AND w > 7 WHERE v > 20",
            "(30, NULL) (40, NULL)",
        ),
        (
            "SELECT a.v FROM t a, t b, u WHERE a.k = b.k AND b.k = u.k AND a.v < b.v",
            "(20)",
        ),
        ("SELECT k FROM t EXCEPT ALL SELECT k FROM u", "(1) (2)"),
        ("SELECT k FROM t INTERSECT SELECT k FROM u", "(2) (NULL)"),
        ("SELECT k FROM u UNION SELECT 2.5", "(2.0) (2.5) (3.0) (NULL)"),
    ]);
}

#[test]
fn numbers_are_exact() {
    yields(&[
        ("SELECT d + 0.1 AS d FROM t WHERE d = 4.35", "(4.45)"),
        (
            "SELECT d * 0.05 AS a, d / 3 AS b FROM t WHERE v = 20",
            "(0.0050, 0.0333333333333333)",
        ),
        ("SELECT avg(d) AS d, sum(d) AS s FROM t", "(7.0166666666666667, 21.05)"),
        (
            "SELECT v / 3 AS a, -v % 3 AS b, 2 ^ 3 AS c FROM t WHERE v = 20",
            "(6, -2, 8)",
        ),
        (
            "SELECT CAST(d AS BIGINT) AS a, CAST(x AS BIGINT) AS b FROM t WHERE v = 10",
            "(4, 0)",
        ),
        (
            "SELECT CASE WHEN v = 10 THEN 1 ELSE 2.0 END / 2 AS a FROM t WHERE v = 10",
            "(0.5000000000000000)",
        ),
        (
            "SELECT max(x) AS a, min(x) AS b, count(DISTINCT k) AS n FROM t",
            "(NaN, 0.5, 2)",
        ),
        (
            "SELECT DATE '2024-01-31' + INTERVAL '1 month' AS a, EXTRACT(DOW FROM DATE '2024-02-29') AS b",
            "(2024-02-29 00:00:00, 4)",
        ),
    ]);
    for sql in [
        "SELECT v * 1000000000000000000 AS v FROM t",
        "SELECT v / (v - 10) AS v FROM t",
        "SELECT x * 1e308 * x AS x FROM t WHERE v = 40",
        "SELECT v FROM t WHERE v = 10 OR 1 / (v - 10) > 0",
    ] {
        let failing = rows(sql);
        assert!(matches!(failing, Err(Unjudged::Row(_))), "{sql}: {failing:?}");
    }
}

#[test]
fn rows_are_grouped_and_ranked() {
    yields(&[
        (
            "SELECT k, count(s) AS n FROM t GROUP BY ROLLUP (k) HAVING count(*) > 1",
            "(2, 1) (NULL, 3)",
        ),
        ("SELECT count(*) AS n FROM t WHERE v > 100", "(0)"),
        ("SELECT string_agg(s, ',' ORDER BY v DESC) AS s FROM t", "(a%,b,ab)"),
        (
            "SELECT v, sum(v) OVER (ORDER BY v ROWS 1 PRECEDING) AS s FROM t",
            "(10, 10) (20, 30) (30, 50) (40, 70)",
        ),
        (
            "SELECT v, rank() OVER (ORDER BY k DESC) AS r FROM t",
            "(10, 4) (20, 2) (30, 1) (40, 2)",
        ),
        (
            "SELECT k, sum(sum(v)) OVER (ORDER BY k) AS s FROM t GROUP BY k",
            "(1, 10) (2, 70) (NULL, 100)",
        ),
        (
            "SELECT DISTINCT ON (k) k, v FROM t ORDER BY k, v DESC",
            "(1, 10) (2, 40) (NULL, 30)",
        ),
        ("SELECT v FROM t ORDER BY k DESC, v LIMIT 2 OFFSET 1", "(20) (40)"),
    ]);
    for sql in [
        "SELECT v FROM t ORDER BY k LIMIT 2",
        "SELECT v, row_number() OVER (ORDER BY k) AS r FROM t",
    ] {
        assert!(matches!(rows(sql), Err(Unjudged::Ties(_))), "{sql}");
    }
}

/// SQL that PostgreSQL's dialect parses differently, or that is not supported here, must get no answer rather than a
/// wrong one.
#[test]
fn what_is_not_known_is_not_judged() {
    for sql in [
        "WITH RECURSIVE q AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM q WHERE n < 3) SELECT n FROM q",
        "SELECT v FROM t QUALIFY row_number() OVER (ORDER BY v) = 1",
        "SELECT s FROM t WHERE s ~ '(a|b)\\1'",
        "SELECT s + 1 AS s FROM t",
        "SELECT nobody(v) AS v FROM t",
    ] {
        assert!(rows(sql).is_err(), "{sql}");
    }
    assert_eq!(arrow::type_of(&DataType::Float32), ScalarType::Arrow(DataType::Float32));
}
