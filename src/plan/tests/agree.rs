//! Each test has one query, and checks that the completed logical plan and the graph yield the rows that
//! DataFusion yields for the user's SQL.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::Optimizer;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{DFParserBuilder, Statement};

use super::evaluate::evaluate;
use super::fixture::{NEW_YEAR, dataflow, planned, provider, table};
use crate::definition::Layer;
use crate::plan::dialect::Standard;
use crate::plan::{
    Graph, OwnRows, PlannedTable, SetsExpanded, batch_context, bind_now, compile, decimals, marked, operators,
    own_rows, rebind, windows,
};
use crate::repr::normalise_batch;

fn run(context: &SessionContext, plan: LogicalPlan) -> RecordBatch {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let frame = context.execute_logical_plan(plan).await.unwrap();
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.collect().await.unwrap();
        let schema = batches.first().map_or(schema, |b| b.schema());
        concat_batches(&schema, &batches).unwrap()
    })
}

/// The rows as sorted lines of text.
pub fn lines(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new().with_null("null");
    let columns: Vec<ArrayFormatter> = batch
        .columns()
        .iter()
        .map(|c| ArrayFormatter::try_new(c, &options).unwrap())
        .collect();
    let mut lines: Vec<String> = (0..batch.num_rows())
        .map(|row| {
            let cells: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
            cells.join(" | ")
        })
        .collect();
    lines.sort();
    lines
}

/// The result of the user's SQL in DataFusion, with DataFusion's own optimizer rules, which also handle
/// subqueries. Only our operators, literals and window table functions are rewritten.
fn as_written(sql: &str) -> RecordBatch {
    let state = SessionStateBuilder::new_from_existing(batch_context().state());
    let context = SessionContext::new_with_state(state.with_optimizer_rules(Optimizer::new().rules).build());
    for name in ["orders", "customers"] {
        context.register_table(name, provider(name).unwrap()).unwrap();
    }
    // DataFusion supports LIMIT, but not this spelling of it.
    let sql = sql.replace("FETCH FIRST 4 ROWS ONLY", "LIMIT 4");
    let tokens = windows::rewrite(windows::tokenize(&sql).unwrap()).unwrap();
    let mut parser = DFParserBuilder::new(tokens).with_dialect(&Standard).build().unwrap();
    let mut statement = parser.parse_statement().unwrap();
    if let Statement::Statement(statement) = &mut statement {
        decimals(statement.as_mut());
        operators(statement.as_mut());
    }
    let plan = futures::executor::block_on(context.state().statement_to_plan(statement)).unwrap();
    context.add_analyzer_rule(Arc::new(SetsExpanded));
    run(&context, marked(plan).unwrap())
}

pub fn in_batch(graph: &Graph, epoch_ms: u64) -> RecordBatch {
    let PlannedTable {
        logical, recursions, ..
    } = &graph.tables[0];
    let all = |logical: &LogicalPlan, own: &OwnRows| {
        let known = |name: &str| match own.get(name) {
            Some((schema, rows)) => Some(Arc::new(MemTable::try_new(schema.clone(), vec![rows.clone()]).unwrap()) as _),
            None => provider(name),
        };
        run(&batch_context(), bind_now(rebind(logical, &known).unwrap(), epoch_ms))
    };
    let own = futures::executor::block_on(own_rows::<ArrowError>(recursions, async |logical, schema, own| {
        Ok(vec![normalise_batch(schema, &all(logical, own)).unwrap()])
    }));
    all(logical, &own.unwrap())
}

/// Compares both plans of the SQL with the SQL's own result. `rows` is the expected number of rows, so that no
/// comparison passes because all are empty.
fn agrees(sql: &str, rows: usize) {
    let graph = planned(sql);
    let schema = graph.tables[0].schema.clone();
    let expected = lines(&normalise_batch(&schema, &as_written(sql)).unwrap());
    let batch = lines(&normalise_batch(&schema, &in_batch(&graph, 0)).unwrap());
    assert_eq!(
        batch,
        expected,
        "the completed logical plan of\n{sql}\n{}",
        graph.tables[0].logical.display_indent()
    );
    let evaluated = lines(&evaluate(&graph, graph.tables[0].node, 0));
    assert_eq!(evaluated, expected, "the graph of\n{sql}\n{}", graph.explain(None));
    assert_eq!(expected.len(), rows, "{sql}");
}

macro_rules! agree {
    ($($name:ident: $rows:literal, $sql:literal;)*) => {
        $(#[test] fn $name() { agrees($sql, $rows); })*
    };
}

agree! {
    a_recursive_query_of_sets: 84,
        "WITH RECURSIVE r AS (SELECT id AS n, quantity AS m FROM orders UNION SELECT r.n, o.quantity FROM r JOIN orders o ON o.id = r.m) SELECT n, m FROM r";
    a_recursive_query_of_bags: 12,
        "WITH RECURSIVE r (n, q, d) AS (SELECT id, quantity, 0 FROM orders WHERE id < 9 UNION ALL
            SELECT o.id, r.q * o.quantity, r.d + 1 FROM r JOIN orders o ON o.quantity = r.n WHERE r.d < 3) SELECT n, sum(q) AS q, count(*) AS c FROM r GROUP BY n";
    a_series: 10, "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 10) SELECT n FROM r";
    a_recursive_query_of_another: 15,
        "WITH RECURSIVE r AS (SELECT id AS n FROM orders WHERE id < 4 UNION SELECT n + 3 FROM r WHERE n < 12),
            s AS (SELECT n, 1 AS d FROM r WHERE n > 9 UNION ALL SELECT n, d + 1 FROM s WHERE d < 3) SELECT s.n, s.d, r.n AS m FROM s JOIN r ON r.n + 5 = s.n";
    a_step_with_a_condition_that_is_never_true: 24,
        "WITH RECURSIVE r AS (SELECT id FROM orders UNION ALL SELECT id + 1 FROM r WHERE 1 = 2) SELECT id FROM r";
    all_columns_of_an_input: 24, "SELECT * FROM orders";
    a_filter_and_computed_columns: 11,
        "SELECT id, upper(customer) AS who, amount * 2 + 1 AS twice, CAST(amount AS BIGINT) AS whole,
                CASE WHEN amount > 1 THEN 'much' ELSE 'little' END AS size, date_trunc('hour', at) AS hour,
                price * 3 AS thrice, extract(year FROM day) AS year
         FROM orders WHERE amount > 0.5 AND customer LIKE '%b%' OR quantity IN (1, 2, 3) AND customer IS NOT NULL";
    json_functions: 13,
        "SELECT id, json_get_str(payload, 'kind') AS kind, payload->>'n' AS n FROM orders WHERE json_get_int(payload, 'n') > 8";
    an_inner_join_with_a_residual: 6,
        "SELECT o.id, c.country FROM orders o JOIN customers c ON o.customer = c.name AND o.amount > c.credit";
    a_left_join_with_a_residual: 24,
        "SELECT o.id, c.country FROM orders o LEFT JOIN customers c ON o.customer = c.name AND o.amount > c.credit";
    a_right_join: 18, "SELECT o.id, c.country, c.name FROM orders o RIGHT JOIN customers c ON o.customer = c.name";
    a_full_join: 32, "SELECT o.id, c.country, c.name FROM orders o FULL JOIN customers c ON o.customer = c.name";
    a_self_join: 38, "SELECT a.id, b.amount FROM orders a JOIN orders b ON a.id = b.id AND a.amount <= b.amount OR a.id = b.id + 3 AND a.quantity = b.quantity";
    a_cross_join: 25, "SELECT a.name AS one, b.name AS other FROM customers a CROSS JOIN customers b";
    joins_in_a_row: 16,
        "SELECT o.id, c.country, d.credit FROM orders o JOIN customers c ON o.customer = c.name
         JOIN customers d ON d.name = c.name AND d.country = c.country";
    in_a_subquery: 10, "SELECT id FROM orders WHERE customer IN (SELECT name FROM customers WHERE country = 'NL')";
    not_in_a_subquery_with_nulls: 0, "SELECT id FROM orders WHERE customer NOT IN (SELECT name FROM customers)";
    not_in_a_subquery_without_nulls: 10,
        "SELECT id FROM orders WHERE customer NOT IN (SELECT name FROM customers WHERE name IS NOT NULL)";
    not_in_an_empty_subquery: 24,
        "SELECT id FROM orders WHERE customer NOT IN (SELECT name FROM customers WHERE credit > 100)";
    exists_and_not_exists: 3,
        "SELECT id FROM orders o WHERE EXISTS (SELECT 1 FROM customers c WHERE c.name = o.customer AND c.credit < o.amount)
         AND NOT EXISTS (SELECT 1 FROM customers c WHERE c.name = o.customer AND c.country = 'UK')";
    exists_under_or: 15,
        "SELECT id FROM orders o WHERE o.quantity > 2 OR EXISTS (SELECT 1 FROM customers c WHERE c.name = o.customer)";
    a_correlated_scalar_subquery: 24,
        "SELECT id, (SELECT max(credit) FROM customers c WHERE c.name = o.customer) AS credit,
                (SELECT count(*) FROM customers c WHERE c.name = o.customer) AS n FROM orders o";
    an_uncorrelated_scalar_subquery: 9, "SELECT id FROM orders WHERE amount > (SELECT avg(amount) FROM orders)";
    aggregates: 5,
        "SELECT customer, count(*) AS n, count(amount) AS na, sum(amount) AS s, sum(price) AS p, avg(quantity) AS a,
                min(at) AS lo, max(customer) AS hi, bool_and(amount > 1) AS every, bool_or(amount > 2) AS some,
                stddev(quantity) AS sd, var_pop(quantity) AS vp, sum(quantity) FILTER (WHERE id > 3) AS f
         FROM orders GROUP BY customer";
    aggregates_over_distinct_values: 5,
        "SELECT customer, count(DISTINCT quantity) AS n, sum(DISTINCT quantity) AS s, count(*) AS c FROM orders GROUP BY customer";
    one_distinct_aggregate: 1, "SELECT count(DISTINCT customer) AS n FROM orders";
    general_aggregates: 5,
        "SELECT customer, median(amount) AS m, percentile_cont(0.9) WITHIN GROUP (ORDER BY amount) AS p,
                array_agg(id ORDER BY id) AS ids, string_agg(payload, ',' ORDER BY payload) AS s,
                first_value(amount ORDER BY amount DESC NULLS LAST) AS f FROM orders GROUP BY customer";
    a_global_aggregate_over_nothing: 1, "SELECT count(*) AS n, sum(amount) AS s FROM orders WHERE id > 1000";
    having: 2, "SELECT customer, count(*) AS n FROM orders GROUP BY customer HAVING count(*) > 4 AND sum(amount) > 5";
    grouping_sets: 18,
        "SELECT customer, quantity, count(*) AS n, grouping(customer) AS g FROM orders WHERE id < 6
         GROUP BY GROUPING SETS ((customer, quantity), (customer), ())";
    a_rollup: 16, "SELECT customer, day, sum(amount) AS s FROM orders WHERE id > 6 GROUP BY ROLLUP (customer, day)";
    a_cube: 22, "SELECT customer, day, sum(amount) AS s FROM orders WHERE id > 6 GROUP BY CUBE (customer, day)";
    distinct_rows: 13, "SELECT DISTINCT customer, quantity > 2 AS many FROM orders";
    distinct_on: 5, "SELECT DISTINCT ON (customer) customer, quantity FROM orders ORDER BY customer, quantity";
    union_all: 29, "SELECT customer FROM orders UNION ALL SELECT name FROM customers";
    union_distinct: 6, "SELECT customer FROM orders UNION SELECT name FROM customers";
    intersect_distinct: 3, "SELECT customer FROM orders INTERSECT SELECT name FROM customers";
    except_all: 20, "SELECT customer FROM orders EXCEPT ALL SELECT name FROM customers";
    ctes: 3,
        "WITH big AS (SELECT * FROM orders WHERE amount > 1), by_customer AS (SELECT customer, sum(amount) AS s FROM big GROUP BY customer)
         SELECT b.customer, c.country FROM by_customer b JOIN customers c ON b.customer = c.name";
    order_by_limit_and_offset: 5, "SELECT id, amount, quantity FROM orders ORDER BY amount DESC, id, quantity LIMIT 5 OFFSET 2";
    a_limit_below_a_projection: 3, "SELECT id + 1 AS next FROM orders ORDER BY amount DESC NULLS LAST, at, id LIMIT 3";
    row_number_with_a_filter: 9,
        "SELECT customer, id, rn FROM (SELECT *, row_number() OVER (PARTITION BY customer ORDER BY amount DESC, id, at, quantity, payload) AS rn FROM orders) WHERE rn <= 2 AND customer IS NOT NULL OR rn = 1 AND customer IS NULL";
    top_of_each_group: 10,
        "SELECT customer, id FROM (SELECT customer, id, row_number() OVER (PARTITION BY customer ORDER BY amount DESC, id, quantity) AS rn FROM orders) WHERE rn <= 2";
    ranks_share_ties: 13,
        "SELECT customer, id, r FROM (SELECT customer, id, rank() OVER (PARTITION BY customer ORDER BY quantity) AS r FROM orders) WHERE r <= 2";
    dense_ranks: 11,
        "SELECT customer, id FROM (SELECT customer, id, dense_rank() OVER (PARTITION BY customer ORDER BY quantity DESC) AS r FROM orders) WHERE r = 2";
    general_window_functions: 24,
        "SELECT id, sum(amount) OVER (PARTITION BY customer ORDER BY id) AS running,
                lag(quantity) OVER (PARTITION BY customer ORDER BY id, at, quantity) AS before,
                rank() OVER (ORDER BY quantity) AS r, count(*) OVER () AS n,
                avg(amount) OVER (PARTITION BY customer ORDER BY id, at, quantity ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS moving
         FROM orders";
    unnest_in_select: 30, "SELECT id, unnest(tags) AS tag FROM orders";
    unnest_then_count: 5, "SELECT tag, count(*) AS n FROM (SELECT unnest(tags) AS tag FROM orders) GROUP BY tag";
    values: 2, "SELECT a + 1 AS a, b FROM (VALUES (1, 'x'), (2, 'y')) AS v (a, b)";
    a_select_without_from: 1, "SELECT 1 AS one, 'x' AS x";
    tumbling_windows: 8,
        "SELECT window_start, window_end, count(*) AS n FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(at), INTERVAL '15' MINUTE)) GROUP BY window_start, window_end";
    tumbling_windows_of_an_alias: 9,
        "WITH o AS (SELECT * FROM orders WHERE id > 3)
         SELECT w.id, w.window_end FROM TABLE(TUMBLE(TABLE o, DESCRIPTOR(at), INTERVAL '1' HOUR)) AS w JOIN customers c ON c.name = w.customer WHERE w.quantity > 0";
    hopping_windows: 18,
        "SELECT customer, window_start, sum(amount) AS s FROM TABLE(HOP(TABLE orders, DESCRIPTOR(at), INTERVAL '30' MINUTE, INTERVAL '1' HOUR)) GROUP BY customer, window_start";
    sessions: 21,
        "SELECT id, window_start, window_end FROM TABLE(SESSION(TABLE orders PARTITION BY customer, DESCRIPTOR(at), INTERVAL '20' MINUTE))";
    grouping_sets_over_nothing: 1, "SELECT customer, count(*) AS n FROM orders WHERE id > 1000 GROUP BY GROUPING SETS ((customer), ())";
    grouping_sets_without_aggregates_over_nothing: 1, "SELECT customer FROM orders WHERE id > 1000 GROUP BY CUBE (customer)";
    grouping_sets_without_aggregates: 6, "SELECT customer FROM orders GROUP BY ROLLUP (customer)";
    grouping_sets_that_repeat: 11, "SELECT customer, count(*) AS n FROM orders GROUP BY GROUPING SETS ((customer), (customer), ())";
    grouping_sets_of_expressions: 18, "SELECT upper(customer) AS u, quantity % 2 AS q, sum(price) AS s FROM orders GROUP BY CUBE (upper(customer), quantity % 2)";
    subqueries_in_select: 5, "SELECT name, (SELECT count(*) FROM orders) AS n, (SELECT max(at) FROM orders WHERE quantity = 2) AS m FROM customers";
    an_uncorrelated_exists: 3, "SELECT id FROM orders WHERE EXISTS (SELECT 1 FROM customers WHERE credit > 2) AND quantity = 1";
    a_subquery_in_having: 5, "SELECT customer, count(*) AS n FROM orders GROUP BY customer HAVING count(*) >= (SELECT avg(quantity) FROM orders)";
    a_correlated_limit: 5, "SELECT name, (SELECT sum(o.amount) FROM orders o WHERE o.customer = c.name AND o.quantity > 1) AS s FROM customers c";
    qualify: 5, "SELECT customer, id FROM orders WHERE id > 2 QUALIFY row_number() OVER (PARTITION BY customer ORDER BY id, at, quantity) = 1";
    a_limit_over_lists: 7, "SELECT * FROM orders ORDER BY id, at, quantity LIMIT 7";
    row_numbers_over_lists: 10, "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY customer ORDER BY id, at, quantity) AS rn FROM orders) WHERE rn < 3";
    fetch_first: 4, "SELECT id FROM orders ORDER BY id DESC, quantity FETCH FIRST 4 ROWS ONLY";
    using: 6, "SELECT name, a.country, b.credit FROM customers a JOIN customers b USING (name)";
    a_natural_join: 2, "SELECT name, country, credit FROM customers NATURAL JOIN (SELECT name, country FROM customers WHERE credit > 0) AS c";
    union_of_types: 29, "SELECT id AS x, NULL AS y FROM orders UNION ALL SELECT credit, name FROM customers";
    intersect_all: 4, "SELECT customer FROM orders INTERSECT ALL SELECT name FROM customers";
    except_all_below_a_filter: 11, "SELECT c, count(*) AS n FROM (SELECT customer AS c, quantity AS q FROM orders EXCEPT ALL SELECT customer, quantity FROM orders WHERE quantity = 1) GROUP BY c, q HAVING c IS NOT NULL";
    except_distinct: 2, "SELECT customer FROM orders EXCEPT SELECT name FROM customers";
    two_lists_unnested_together: 53, "SELECT id, unnest(tags) AS a, unnest([1, 2]) AS b FROM orders";
    unnest_in_from: 3, "SELECT x FROM unnest([1, 2, 3]) AS t (x)";
    windows_over_aggregates: 5, "SELECT customer, sum(amount) AS s, rank() OVER (ORDER BY count(*) DESC) AS r, sum(count(*)) OVER () AS n FROM orders GROUP BY customer";
    top_of_aggregates: 3, "SELECT country, customer, s FROM (SELECT c.country, o.customer, sum(o.quantity) AS s, row_number() OVER (PARTITION BY c.country ORDER BY sum(o.quantity) DESC, o.customer) AS rn FROM orders o JOIN customers c ON c.name = o.customer GROUP BY c.country, o.customer) WHERE rn <= 2";
    aggregates_over_windows: 5, "SELECT customer, max(gap) AS g FROM (SELECT customer, id - lag(id) OVER (PARTITION BY customer ORDER BY id, at, quantity) AS gap FROM orders) GROUP BY customer";
    frames: 24,
        "SELECT id, quantity, first_value(id) OVER w AS f, nth_value(id, 2) OVER (PARTITION BY customer ORDER BY id, at, quantity ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS n,
                sum(quantity) OVER (ORDER BY id RANGE BETWEEN 2 PRECEDING AND 2 FOLLOWING) AS near, percent_rank() OVER (ORDER BY quantity) AS p,
                cume_dist() OVER (PARTITION BY customer ORDER BY quantity) AS c, min(amount) OVER (PARTITION BY customer ORDER BY at GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW) AS g
         FROM orders WINDOW w AS (PARTITION BY customer ORDER BY id, at, quantity)";
    a_rank_kept_and_compared_from_the_right: 3, "SELECT id, r + 1 AS next FROM (SELECT id, rank() OVER (ORDER BY quantity DESC) AS r FROM orders) WHERE 4 >= r AND id > 1";
    a_top_of_no_partition: 3, "SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id, at, quantity) AS rn FROM orders) WHERE rn BETWEEN 3 AND 5";
    dates_and_decimals: 24,
        "SELECT day + INTERVAL '1 day' AS d, price / 3 AS third, round(amount, 1) AS r, CAST(price AS DOUBLE) AS p, day - DATE '2025-01-01' AS days, date_part('dow', at) AS dow,
                CAST(at AS DATE) AS on_day, to_char(at, '%Y-%m') AS month, nullif(quantity, 2) AS q, coalesce(customer, 'none') AS c, amount::INT AS i, abs(-quantity) AS a
         FROM orders";
    text_functions: 24,
        "SELECT substr(customer, 2) AS a, split_part(payload, ':', 1) AS b, regexp_replace(customer, '[aeiou]', '_') AS c, customer || '-' || id AS d, length(customer) AS l,
                lpad(customer, 5, '*') AS p, md5(customer) AS m, customer ILIKE 'A%' AS i, starts_with(customer, 'b') AS s, left(customer, 1) AS f, reverse(customer) AS r, array_length(tags) AS n, tags[1] AS t
         FROM orders";
    a_constant_join: 6, "SELECT o.id, v.label FROM orders o JOIN (VALUES (1, 'one'), (2, 'two')) AS v (n, label) ON o.quantity = v.n";
    nothing_at_all: 0, "SELECT id FROM orders WHERE 1 = 0";
    nested_windows_of_time: 7,
        "SELECT window_start, n FROM (SELECT window_start, customer, count(*) AS n FROM TUMBLE(TABLE orders, DESCRIPTOR(at), INTERVAL '1' HOUR) GROUP BY window_start, customer) WHERE n > 1";
    tumbling_days_of_a_date: 3, "SELECT window_start, window_end, sum(quantity) AS q FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(day), INTERVAL '2' DAY)) AS x GROUP BY 1, 2";
    count_distinct_beside_others: 5, "SELECT customer, count(DISTINCT quantity) AS d, count(DISTINCT day) AS e, avg(DISTINCT amount) AS a, min(DISTINCT id) AS m FROM orders GROUP BY customer";
    one_count_distinct_by_group: 5, "SELECT customer, count(DISTINCT quantity) AS d, sum(amount) AS s, max(amount) AS m FROM orders GROUP BY customer";
    statistics: 1, "SELECT corr(amount, quantity) AS c, covar_pop(amount, quantity) AS v, regr_slope(amount, quantity) AS r, bit_or(quantity) AS b, approx_distinct(customer) AS d FROM orders";
    filters_on_aggregates_of_ordered_lists: 5, "SELECT customer, array_agg(DISTINCT quantity ORDER BY quantity) AS q, array_agg(id ORDER BY at DESC, id) FILTER (WHERE amount > 1) AS i FROM orders GROUP BY customer";
    a_full_join_with_a_residual: 27, "SELECT o.id, c.name FROM orders o FULL JOIN customers c ON o.customer = c.name AND o.quantity > c.credit";
    a_full_join_without_keys: 10, "SELECT a.name AS a, b.name AS b FROM customers a FULL JOIN customers b ON a.credit < b.credit";
    a_left_join_then_a_filter: 14, "SELECT o.id FROM orders o LEFT JOIN customers c ON o.customer = c.name WHERE c.name IS NULL";
    group_by_all_and_position: 15, "SELECT customer, quantity, count(*) AS n FROM orders GROUP BY 1, 2 ORDER BY n";
    zones: 24, "SELECT id, CAST(at AS TIMESTAMP WITH TIME ZONE) AS z, date_trunc('day', at) AS d FROM orders";
    lists: 24, "SELECT id, array_append(tags, 'x') AS t, [quantity, id] AS l, array_has(tags, 'tag1') AS h, array_to_string(tags, ',') AS s FROM orders";
    names_in_quotes: 3, "SELECT id AS \"Id\", customer AS \"Who\" FROM orders AS \"O\" WHERE \"O\".quantity = 1";
    timestamps_of_text: 23,
        "SELECT id, to_timestamp(CAST(at AS VARCHAR)) AS t FROM orders WHERE to_timestamp(CAST(at AS VARCHAR)) > TIMESTAMP '2024-01-01' OR amount > 0";
}

/// DataFusion names expressions without their casts and refuses two of one name, so the expected rows come from
/// other SQL.
#[test]
fn expressions_that_differ_in_casts_alone_yield_what_subqueries_of_other_names_do() {
    for (sql, otherwise) in [
        (
            "SELECT customer, count(amount) AS n, count(CAST(amount AS BIGINT)) AS m, sum(quantity) AS s, sum(quantity::DOUBLE) AS d
             FROM orders GROUP BY customer",
            "SELECT customer, count(a) AS n, count(b) AS m, sum(c) AS s, sum(d) AS d
             FROM (SELECT customer, amount AS a, CAST(amount AS BIGINT) AS b, quantity AS c, quantity::DOUBLE AS d FROM orders)
             GROUP BY customer",
        ),
        (
            "SELECT day, CAST(day AS VARCHAR) AS d, count(*) AS n FROM orders GROUP BY CUBE(day, CAST(day AS VARCHAR))",
            "SELECT a AS day, b AS d, count(*) AS n FROM (SELECT day AS a, CAST(day AS VARCHAR) AS b FROM orders) GROUP BY CUBE(a, b)",
        ),
        (
            "SELECT id, sum(quantity) OVER (ORDER BY id) AS a, sum(CAST(quantity AS DOUBLE)) OVER (ORDER BY id) AS b FROM orders",
            "SELECT id, sum(q) OVER (ORDER BY id) AS a, sum(d) OVER (ORDER BY id) AS b
             FROM (SELECT id, quantity AS q, CAST(quantity AS DOUBLE) AS d FROM orders)",
        ),
    ] {
        let graph = planned(sql);
        let schema = graph.tables[0].schema.clone();
        let expected = lines(&normalise_batch(&schema, &as_written(otherwise)).unwrap());
        assert_eq!(lines(&evaluate(&graph, graph.tables[0].node, 0)), expected, "{sql}\n{}", graph.explain(None));
        assert_eq!(lines(&normalise_batch(&schema, &in_batch(&graph, 0)).unwrap()), expected, "{sql}");
        assert!(expected.len() > 4, "{sql}");
    }
}

/// DataFusion alone may keep any of the tied rows, but both of our plans keep the same ones.
#[test]
fn ties_are_kept_alike_by_both_plans() {
    for sql in [
        "SELECT id, amount FROM orders ORDER BY quantity LIMIT 5",
        "SELECT customer, id FROM (SELECT customer, id, row_number() OVER (PARTITION BY customer ORDER BY quantity) AS rn FROM orders) WHERE rn <= 2",
        "SELECT customer, array_agg(id) AS ids, string_agg(payload, ',') AS s, first_value(amount) AS f, last_value(id) AS l FROM orders GROUP BY customer",
        "SELECT DISTINCT ON (customer) customer, id, amount FROM orders",
        "SELECT id, lead(id) OVER (ORDER BY quantity) AS l, rank() OVER (ORDER BY quantity) AS r FROM orders",
        "SELECT customer, approx_percentile_cont(amount, 0.5) AS p, approx_median(quantity) AS m FROM orders GROUP BY customer",
        "SELECT customer, any_value(id) AS i FROM orders GROUP BY customer",
    ] {
        let graph = planned(sql);
        let schema = graph.tables[0].schema.clone();
        let batch = lines(&normalise_batch(&schema, &in_batch(&graph, 0)).unwrap());
        assert_eq!(
            lines(&evaluate(&graph, graph.tables[0].node, 0)),
            batch,
            "{sql}\n{}",
            graph.explain(None)
        );
        assert!(!batch.is_empty());
    }
}

#[test]
fn rows_enter_and_leave_with_the_epochs_time() {
    for condition in [
        "at > now() - INTERVAL '30 minutes'",
        "at <= now()",
        "at BETWEEN now() - INTERVAL '1 hour' AND now() + INTERVAL '10 minutes'",
        "now() - at < INTERVAL '45 minutes' AND now() >= at",
        "day >= current_date - INTERVAL '2 days'",
        "day = current_date",
        "date_trunc('hour', now()) < at",
        "date_trunc('hour', now()) <= at + INTERVAL '5 minutes' AND quantity > 1",
        "CAST(now() AS DATE) > day",
        "current_date - day < 2",
        "day > current_date - 1",
        "at < date_trunc('month', now()) + INTERVAL '1 month' - INTERVAL '30 days 20 hours'",
        "day >= current_date + INTERVAL '1 month 1 day' - INTERVAL '31 days'",
        "date_trunc('week', now() + INTERVAL '4 days') - INTERVAL '95 hours' < at",
        "at + INTERVAL '58 days' > now() + INTERVAL '1 month 27 days' - INTERVAL '1 hour'",
        "at + INTERVAL '59 days' <= now() + INTERVAL '2 months' AND at > now() - INTERVAL '1 day'",
        "date_trunc('month', now() - INTERVAL '1 month') < at - INTERVAL '31 days 30 minutes'",
        "at BETWEEN now() - INTERVAL '1 month' AND now() + INTERVAL '1 month' - INTERVAL '31 days'",
        "now() - at < INTERVAL '1 month' AND now() > at",
        "at > now() - INTERVAL '30 minutes' OR quantity = 1",
        "quantity IS NULL OR at BETWEEN now() AND now() + INTERVAL '1 hour'",
    ] {
        let sql = format!("SELECT id, at, day FROM orders WHERE {condition}");
        let graph = planned(&sql);
        let schema = graph.tables[0].schema.clone();
        let mut sizes = std::collections::BTreeSet::new();
        for step in -3..60 {
            let epoch = (NEW_YEAR / 1000 + step * 7 * 60_000) as u64;
            let far = (NEW_YEAR / 1000 + step * 7_200_000) as u64;
            for epoch in [epoch, far, far + 1, far - 1] {
                let batch = lines(&normalise_batch(&schema, &in_batch(&graph, epoch)).unwrap());
                let evaluated = lines(&evaluate(&graph, graph.tables[0].node, epoch));
                assert_eq!(evaluated, batch, "{condition} at {epoch}\n{}", graph.explain(None));
                sizes.insert(batch.len());
            }
        }
        assert!(sizes.len() > 1, "{condition} never changed anything");
    }
}

/// A month before each of March 29th to 31st of 2023 is February 28th.
#[test]
fn rows_come_and_go_at_the_ends_of_months() {
    for (condition, shift) in [
        ("at + INTERVAL '{shift}' > now() - INTERVAL '1 month'", -673),
        ("at + INTERVAL '{shift}' <= now() - INTERVAL '1 month'", -673),
        ("at + INTERVAL '{shift}' < now() - INTERVAL '13 months'", -673 - 365),
        ("at + INTERVAL '{shift}' >= now() + INTERVAL '11 months'", -307),
    ] {
        let condition = condition.replace("{shift}", &format!("{shift} days"));
        let graph = planned(&format!("SELECT id, at, day FROM orders WHERE {condition}"));
        let schema = graph.tables[0].schema.clone();
        let mut changes = 0;
        let mut before = None;
        // The steps cover March 28th to April 2nd.
        for step in 0..6 * 48 {
            let epoch = (NEW_YEAR / 1000 - 645 * 86_400_000 + step * 1_800_000) as u64;
            for epoch in [epoch, epoch + 1] {
                let batch = lines(&normalise_batch(&schema, &in_batch(&graph, epoch)).unwrap());
                let evaluated = lines(&evaluate(&graph, graph.tables[0].node, epoch));
                assert_eq!(evaluated, batch, "{condition} at {epoch}\n{}", graph.explain(None));
                changes += usize::from(before.replace(batch.len()).is_some_and(|b| b != batch.len()));
            }
        }
        assert!(changes > 12, "{condition} changed {changes} times");
    }
}

#[test]
fn tables_read_tables_and_each_runs_in_batch_over_the_others_rows() {
    let silver = "SELECT id, customer AS who, price * quantity AS worth, to_timestamp(CAST(at AS VARCHAR)) AS at FROM orders WHERE quantity > 0 ORDER BY id";
    let gold = "SELECT who, date_trunc('hour', at) AS hour, sum(worth) AS worth, rank() OVER (ORDER BY sum(worth)) AS r FROM silver.lines GROUP BY who, date_trunc('hour', at)";
    let flow = dataflow(vec![
        table(Layer::Silver, "lines", silver),
        table(Layer::Gold, "worth", gold),
    ]);
    let graph = compile(&flow).unwrap_or_else(|d| panic!("{d}"));
    let first = in_batch(&graph, 0);
    let first = normalise_batch(&graph.tables[0].schema, &first).unwrap();
    assert_eq!(lines(&evaluate(&graph, graph.tables[0].node, 0)), lines(&first));
    let provide = |name: &str| -> Option<Arc<dyn TableProvider>> {
        assert_eq!(name, "silver.lines");
        Some(Arc::new(
            MemTable::try_new(first.schema(), vec![vec![first.clone()]]).unwrap(),
        ))
    };
    let logical = rebind(&graph.tables[1].logical, &provide).unwrap();
    let second = normalise_batch(&graph.tables[1].schema, &run(&batch_context(), logical)).unwrap();
    assert_eq!(lines(&evaluate(&graph, graph.tables[1].node, 0)), lines(&second));
    assert!(second.num_rows() > 5);
    assert!(rebind(&graph.tables[1].logical, &|_| None).is_err());
}

#[test]
fn logical_plans_name_the_columns_of_their_table() {
    for sql in [
        "SELECT id AS a, upper(customer) AS b, count(*) OVER () AS c FROM orders",
        "SELECT * FROM customers",
    ] {
        let graph = planned(sql);
        let batch = in_batch(&graph, 0);
        assert_eq!(
            batch
                .schema()
                .fields()
                .iter()
                .map(|f| f.name().clone())
                .collect::<Vec<_>>(),
            graph.tables[0]
                .schema
                .fields()
                .iter()
                .map(|f| f.name().clone())
                .collect::<Vec<_>>()
        );
    }
}
