//! Tests each rule by comparing the rows of a plan before and after it, over all combinations of small domains;
//! and simplified expressions with the original ones.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::ToDFSchema;
use datafusion::common::tree_node::TreeNode;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::Optimizer;
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion::physical_expr::planner::create_physical_expr;
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::DFParserBuilder;

use super::{Rule, folded, rules};
use crate::plan::dialect::Standard;
use crate::plan::session::batch_context;

/// All combinations of k and v: NULL and small integers; b: NULL, true and false; s: NULL and texts.
fn rows() -> RecordBatch {
    let numbers = [None, Some(1), Some(2)];
    let (mut k, mut v, mut b, mut s) = (vec![], vec![], vec![], vec![]);
    for one in numbers {
        for other in numbers {
            for truth in [None, Some(true), Some(false)] {
                for text in [None, Some(""), Some("a")] {
                    k.push(one);
                    v.push(other);
                    b.push(truth);
                    s.push(text);
                }
            }
        }
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(k)),
        Arc::new(Int64Array::from(v)),
        Arc::new(BooleanArray::from(b)),
        Arc::new(StringArray::from(s)),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Int64, true),
        Field::new("b", DataType::Boolean, true),
        Field::new("s", DataType::Utf8, true),
    ]))
}

fn shown(values: &dyn Array) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let formatter = ArrayFormatter::try_new(values, &options).unwrap();
    (0..values.len()).map(|n| formatter.value(n).to_string()).collect()
}

/// The expression with its types coerced.
fn read(context: &SessionContext, sql: &str) -> Expr {
    let named = schema().to_dfschema().unwrap();
    let written = DFParserBuilder::new(sql).with_dialect(&Standard).build().unwrap();
    let written = { written }.parse_into_expr().unwrap();
    let expr = context
        .state()
        .create_logical_expr_from_sql_expr(written, &named)
        .unwrap();
    let info = datafusion::logical_expr::simplify::SimplifyContext::builder()
        .with_schema(Arc::new(named.clone()))
        .build();
    let coercing = datafusion::optimizer::simplify_expressions::ExprSimplifier::new(info);
    coercing.coerce(expr, &named).unwrap()
}

fn evaluated(expr: &Expr, rows: &RecordBatch) -> Vec<String> {
    let named = schema().to_dfschema().unwrap();
    let planned = create_physical_expr(
        expr,
        &named,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )
    .unwrap();
    let values = planned.evaluate(rows).unwrap().into_array(rows.num_rows()).unwrap();
    shown(values.as_ref())
}

const CONDITIONS: [&str; 31] = [
    "b",
    "TRUE",
    "FALSE",
    "CAST(NULL AS BOOLEAN)",
    "k = 1",
    "1 < k",
    "k <> v",
    "k = CAST(NULL AS BIGINT)",
    "k IN (1)",
    "k IN (1, 2)",
    "k NOT IN (2, 3)",
    "k IN (1, NULL)",
    "k NOT IN (v, 2)",
    "v IN (1, 3, k + 1)",
    "k BETWEEN v AND 2",
    "k NOT BETWEEN 1 AND v",
    "k IS NULL",
    "v IS NOT NULL",
    "b IS TRUE",
    "b IS NOT FALSE",
    "b IS UNKNOWN",
    "k IS DISTINCT FROM v",
    "k IS NOT DISTINCT FROM 1",
    "k IS DISTINCT FROM CAST(NULL AS BIGINT)",
    "CAST(NULL AS BIGINT) IS NOT DISTINCT FROM k",
    "s ~ '.*'",
    "s !~ 'a'",
    "s LIKE '%'",
    "CASE WHEN k = 1 THEN b WHEN NULL THEN TRUE ELSE v = 2 END",
    "CASE WHEN FALSE THEN b END",
    "CAST(CAST(k AS INT) AS BIGINT) >= 2",
];

#[test]
fn expressions_yield_what_they_did() {
    let (context, rows) = (batch_context(), rows());
    let named = schema().to_dfschema().unwrap();
    let mut sqls: Vec<String> = CONDITIONS.iter().map(ToString::to_string).collect();
    for one in CONDITIONS {
        for other in CONDITIONS {
            for form in ["{} AND {}", "{} OR {}", "NOT ({} AND NOT {})", "({} OR {}) IS NULL"] {
                let sql = form.replacen("{}", &format!("({one})"), 1);
                sqls.push(sql.replacen("{}", &format!("({other})"), 1));
            }
        }
        for form in [
            "NOT ({})",
            "NOT (NOT ({}))",
            "({}) IS NOT TRUE",
            "CASE WHEN {} THEN 1 ELSE v END",
            "COUNTED",
        ] {
            sqls.push(
                form.replace("COUNTED", "CASE WHEN NOT ({}) THEN 's' END")
                    .replace("{}", one),
            );
        }
    }
    let mut changed = 0;
    for sql in &sqls {
        let expr = read(&context, sql);
        let before = evaluated(&expr, &rows);
        let after = folded(expr.clone(), &named).unwrap().data;
        assert_eq!(evaluated(&after, &rows), before, "{sql} as {after}");
        changed += usize::from(after != expr);
    }
    assert!(changed > sqls.len() / 2, "{changed} of {}", sqls.len());
}

#[test]
fn conditions_become_as_simple_as_they_can() {
    let context = batch_context();
    let named = schema().to_dfschema().unwrap();
    for (sql, simple) in [
        ("1 + 1 < k", "k > Int64(2)"),
        ("TRUE AND k = 1", "k = Int64(1)"),
        ("k = 1 AND FALSE", "Boolean(false)"),
        ("k = 1 AND NULL", "k = Int64(1) AND Boolean(NULL)"),
        ("NOT (k = 1 OR b)", "k != Int64(1) AND NOT b"),
        ("NOT (k BETWEEN 1 AND v)", "k < Int64(1) OR k > v"),
        ("NOT (s LIKE 'a%')", "s NOT LIKE Utf8(\"a%\")"),
        ("k NOT IN (3)", "k != Int64(3)"),
        ("CAST(CAST(v AS INT) AS BIGINT) = 3", "CAST(v AS Int32) = Int32(3)"),
        (
            "CAST(CAST(v AS INT) AS BIGINT) = 3000000000",
            "CAST(CAST(v AS Int32) AS Int64) = Int64(3000000000)",
        ),
        ("CASE WHEN FALSE THEN k WHEN TRUE THEN v ELSE 3 END", "v"),
        // The rule does not use whether a column may be null.
        ("k = k", "k = k"),
        (
            "k NOT IN (1, v, 2, v + 1)",
            "k NOT IN ([Int64(1), v, Int64(2)]) AND k != v + Int64(1)",
        ),
        ("k IN (1) AND k IN (2)", "k = Int64(1) AND k = Int64(2)"),
    ] {
        let made = folded(read(&context, sql), &named).unwrap().data;
        assert_eq!(made.to_string(), simple, "{sql}");
    }
}

/// Statements over two tables t and u with these rows.
fn statements() -> Vec<String> {
    let on = [
        "t.k = u.k",
        "t.k = u.k AND 1 = t.k",
        "t.k = u.v AND u.k IS NULL",
        "t.k = u.k AND FALSE",
        "t.k = u.k AND t.v IS NOT DISTINCT FROM u.v",
        "t.k = u.k AND (t.b OR u.b)",
        "t.k = u.k AND t.v < u.v",
    ];
    let above = [
        "",
        "WHERE u.v = 1",
        "WHERE NOT (u.v = 1)",
        "WHERE u.v IS NULL",
        "WHERE t.v IN (1, NULL) OR u.b",
        "WHERE (t.b AND u.b) IS NOT TRUE",
        "WHERE t.k = 1 AND u.k IS DISTINCT FROM 2",
        "WHERE t.v = u.v AND t.k > 0 AND t.k >= 1",
        "WHERE FALSE OR t.s ~ u.s",
    ];
    let mut statements = vec![];
    for kind in ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"] {
        for on in on {
            for above in above {
                statements.push(format!(
                    "SELECT t.k, t.v, t.b, u.k AS uk, u.v AS uv FROM t {kind} u ON {on} {above}"
                ));
            }
        }
    }
    let more = [
        "SELECT t.k, u.v FROM t JOIN u ON t.k IS NOT DISTINCT FROM u.k WHERE t.v = u.v",
        "SELECT t.k, w.v FROM t JOIN u ON t.k = u.k JOIN t AS w ON u.v IS NOT DISTINCT FROM w.v",
        "SELECT t.k, w.v FROM t JOIN u ON t.k IS NOT DISTINCT FROM u.k JOIN t AS w ON u.v = w.v",
        "SELECT t.k, w.v FROM t, u, t AS w WHERE t.k = w.k AND u.v = w.v AND t.v IS NOT DISTINCT FROM u.k",
        "SELECT t.k FROM t, u WHERE (t.k = u.k AND t.b) OR (t.k = u.k AND u.b)",
        "SELECT DISTINCT t.k FROM t JOIN u ON t.k = u.k",
        "SELECT DISTINCT t.k FROM t LEFT JOIN u ON t.k = u.k",
        "SELECT t.k FROM t LEFT JOIN (SELECT k, count(*) AS n FROM u GROUP BY k) AS q ON t.k = q.k",
        "SELECT t.k, q.one FROM t RIGHT JOIN (SELECT k, 1 AS one, count(*) AS n FROM u GROUP BY k) AS q ON t.k = q.k AND FALSE",
        "SELECT q.k, q.one FROM (SELECT k, 1 AS one, count(*) AS n FROM u GROUP BY k) AS q RIGHT JOIN t ON t.k = q.k AND FALSE",
        "SELECT k, n FROM (SELECT k, b, count(*) AS n FROM t GROUP BY k, b) WHERE k = 1 AND n > 1",
        "SELECT count(*) AS n FROM t HAVING FALSE",
        "SELECT count(*) AS n FROM t WHERE FALSE",
        "SELECT n FROM (SELECT count(*) AS n FROM t) WHERE n > 5",
        "SELECT k, n FROM (SELECT k, count(*) AS n FROM t GROUP BY ROLLUP (k)) WHERE k IS NULL",
        "SELECT k, 'x' AS x, count(*) AS n FROM t GROUP BY k, 'x'",
        "SELECT k + 1 AS a, count(*) AS n FROM t GROUP BY k, k + 1",
        "SELECT k, v FROM t ORDER BY k, v, k LIMIT 3",
        "SELECT k, count(DISTINCT v) AS n, max(v) AS m FROM t GROUP BY k",
        "SELECT count(DISTINCT v) AS n, sum(k) AS m FROM t WHERE v IS NULL",
        "SELECT v + 1 AS a, (v + 1) * 2 AS c FROM t WHERE (v + 1) * 2 > 4 OR b",
        "SELECT CASE WHEN k <> 0 THEN v / k END AS a, v / 2 AS c FROM t WHERE b",
        "SELECT * FROM (SELECT k, row_number() OVER (PARTITION BY k ORDER BY v, b, s) AS n FROM t) WHERE k = 2 AND n < 3",
        "SELECT k FROM t UNION ALL SELECT v FROM u UNION ALL SELECT k FROM u WHERE FALSE",
        "SELECT k, b FROM t UNION SELECT v, b FROM u UNION SELECT 1, NULL",
        "SELECT a FROM (SELECT k AS a FROM t UNION ALL SELECT v FROM u) WHERE a IN (1, NULL) OR a IS NULL",
        "SELECT DISTINCT ON (k) k, v, b FROM t ORDER BY k, v, b, s",
        "SELECT * FROM (SELECT DISTINCT ON (k) k, v FROM t ORDER BY k, v, b, s) WHERE v = 2",
        "SELECT k FROM t LIMIT 0",
        "SELECT k, v FROM (SELECT k, v, b FROM t ORDER BY k, v, b, s LIMIT 5) WHERE v = 1",
        "SELECT COALESCE(k, v, 7) AS a FROM t WHERE NULLIF(k, 1) IS NULL",
        "SELECT k, sum(a) AS s, count(DISTINCT a) AS n, max(a + 1) AS m FROM (SELECT k, v * 2 AS a, b FROM t) WHERE b GROUP BY k",
        "SELECT q.k, sum(q.a) AS s, max(w.a) AS m FROM (SELECT k, v * 2 AS a FROM t) AS q LEFT JOIN (SELECT k, v + 1 AS a FROM u) AS w ON q.k = w.k GROUP BY q.k",
        "SELECT w.a, sum(q.a) AS s FROM (SELECT k, v * 2 AS a FROM t) AS q JOIN (SELECT k, k + v AS a FROM u) AS w ON q.a = w.a GROUP BY w.a",
        "SELECT sum(a) AS s, sum(c) AS r FROM (SELECT p.a, p.a AS c, u.v AS k FROM (SELECT k, v * k AS a FROM t) AS p RIGHT JOIN u ON p.k = u.k)",
    ];
    statements.extend(more.map(str::to_string));
    statements
}

/// Runs a plan without any optimizer rules.
async fn run(context: &SessionContext, plan: &LogicalPlan) -> Vec<String> {
    let state = context.state();
    let planned = state.query_planner().create_physical_plan(plan, &state).await;
    let planned = planned.unwrap_or_else(|e| panic!("{e}\n{plan}"));
    let batches = collect(planned, state.task_ctx()).await.unwrap();
    let mut lines = vec![];
    for batch in &batches {
        let columns: Vec<Vec<String>> = batch.columns().iter().map(|c| shown(c.as_ref())).collect();
        lines.extend(
            (0..batch.num_rows()).map(|n| columns.iter().map(|c| c[n].clone()).collect::<Vec<_>>().join(" | ")),
        );
    }
    lines.sort();
    lines
}

fn with(rules: Vec<Rule>, plan: &LogicalPlan, context: &SessionContext) -> LogicalPlan {
    let state = context.state();
    Optimizer::with_rules(rules)
        .optimize(plan.clone(), &state, |_, _| {})
        .unwrap_or_else(|e| panic!("{e}\n{plan}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_rule_yields_the_rows_of_the_plan_it_is_given() {
    let context = SessionContext::new_with_state(
        SessionStateBuilder::new_from_existing(batch_context().state())
            .with_optimizer_rules(vec![])
            .build(),
    );
    for (name, few) in [("t", 0), ("u", 1)] {
        // Table u has every second row.
        let rows = rows();
        let numbers: Vec<u64> = (0..rows.num_rows() as u64).filter(|n| few == 0 || n % 2 == 1).collect();
        let rows = arrow::compute::take_record_batch(&rows, &arrow::array::UInt64Array::from(numbers)).unwrap();
        let table = MemTable::try_new(schema(), vec![vec![rows]]).unwrap();
        context.register_table(name, Arc::new(table)).unwrap();
    }
    let mut effective = std::collections::BTreeMap::new();
    for rule in rules() {
        effective.insert(rule.name().to_string(), 0);
    }
    for sql in statements() {
        let plan = context.state().create_logical_plan(&sql).await.unwrap();
        let state = context.state();
        let plan = state
            .analyzer()
            .execute_and_check(plan, state.config_options(), |_, _| {})
            .unwrap();
        // A plan cannot run without these rules.
        let needed: Vec<Rule> = vec![
            Arc::new(super::SimplifyExpressions),
            Arc::new(ReplaceDistinctWithAggregate::new()),
        ];
        let runs = plan
            .exists(|node| Ok(matches!(node, LogicalPlan::Distinct(_))))
            .unwrap()
            || sql.contains("COALESCE");
        let bare = if runs {
            with(needed, &plan, &context)
        } else {
            plan.clone()
        };
        let before = run(&context, &bare).await;
        let whole = with(rules(), &plan, &context);
        assert_eq!(run(&context, &whole).await, before, "{sql}\n{whole}");
        for rule in rules() {
            let name = rule.name().to_string();
            // The effect of several rules together is tested with all of them. Some rules find nothing to do
            // unless another one runs first.
            let first: Option<Rule> = match name.as_str() {
                "cross_joins" => Some(Arc::new(super::EquiKeys)),
                "propagate_empty_relation" => Some(Arc::new(super::EliminateFilter::new())),
                _ => None,
            };
            let given = match name.as_str() {
                // This rule is among those that `needed` lists.
                "replace_distinct_aggregate" if runs => plan.clone(),
                _ => with(first.into_iter().collect(), &bare, &context),
            };
            let after = with(vec![rule], &given, &context);
            if after != given {
                *effective.get_mut(&name).expect("it is one of them") += 1;
                assert_eq!(run(&context, &after).await, before, "{name}: {sql}\n{after}");
            }
        }
    }
    for (name, count) in effective {
        assert!(count > 0, "{name} changed no plan");
    }
}
