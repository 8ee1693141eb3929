//! Tests the remedies that show SQL: each is applied to the refused SQL, and the result is planned.

use super::fixture::{dataflow, table};
use crate::definition::Layer;
use crate::plan::compile;

/// Refused SQL, words of its remedy, and the SQL with the remedy applied.
const CASES: [(&str, &str, &str); 44] = [
    (
        "WITH RECURSIVE r AS (SELECT id AS n FROM orders UNION ALL SELECT DISTINCT n + 1 FROM r WHERE n < 5) SELECT n FROM r",
        "write UNION in the place of UNION ALL",
        "WITH RECURSIVE r AS (SELECT id AS n FROM orders UNION SELECT DISTINCT n + 1 FROM r WHERE n < 5) SELECT n FROM r",
    ),
    (
        "WITH RECURSIVE r AS (SELECT id AS n FROM orders UNION ALL SELECT o.quantity FROM orders o WHERE o.id IN (SELECT n FROM r)) SELECT n FROM r",
        "join r: FROM r JOIN ... ON ...",
        "WITH RECURSIVE r AS (SELECT id AS n FROM orders UNION ALL SELECT o.quantity FROM r JOIN orders o ON o.id = r.n) SELECT n FROM r",
    ),
    (
        "WITH RECURSIVE r AS (SELECT id AS n FROM orders UNION SELECT n + 1 FROM r WHERE n < 5 UNION SELECT n + 2 FROM r WHERE n < 5) SELECT n FROM r",
        "FROM r JOIN (SELECT ... UNION ALL SELECT ...) AS t ON ...",
        "WITH RECURSIVE r AS (SELECT id AS n FROM orders UNION SELECT n + t.d FROM r JOIN (SELECT 1 AS d UNION ALL SELECT 2) AS t ON n < 5) SELECT n FROM r",
    ),
    (
        "WITH RECURSIVE r AS (SELECT quantity AS n FROM orders UNION ALL SELECT n * 1.5 FROM r WHERE n < 5) SELECT n FROM r",
        "cast it to one type in both parts: CAST(... AS DECIMAL",
        "WITH RECURSIVE r AS (SELECT CAST(quantity AS DECIMAL(20,2)) AS n FROM orders UNION ALL SELECT CAST(n * 1.5 AS DECIMAL(20,2)) FROM r WHERE n < 5) SELECT n FROM r",
    ),
    (
        "WITH RECURSIVE r AS (SELECT id AS n FROM orders UNION ALL SELECT o.quantity FROM orders o LEFT JOIN r ON r.n = o.id) SELECT n FROM r",
        "have it on the other side: FROM r LEFT JOIN ...",
        "WITH RECURSIVE r AS (SELECT id AS n FROM orders UNION ALL SELECT o.quantity FROM r LEFT JOIN orders o ON r.n = o.id) SELECT n FROM r",
    ),
    (
        "WITH RECURSIVE r AS (SELECT id AS n FROM orders UNION (SELECT n FROM r EXCEPT SELECT quantity FROM orders)) SELECT n FROM r",
        "filter with NOT EXISTS (SELECT ...)",
        "WITH RECURSIVE r AS (SELECT id AS n FROM orders UNION SELECT n + 1 FROM r WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.quantity = r.n)) SELECT n FROM r",
    ),
    (
        "WITH RECURSIVE r AS (SELECT id AS n, at FROM orders UNION SELECT n + 1, at FROM r WHERE at > now() - INTERVAL '1 hour' AND n < 9) SELECT n FROM r",
        "in a subquery of FROM which that part joins",
        "WITH RECURSIVE r AS (SELECT id AS n FROM orders UNION SELECT o.quantity FROM r JOIN (SELECT id, quantity FROM orders WHERE at > now() - INTERVAL '1 hour') AS o ON o.id = r.n) SELECT n FROM r",
    ),
    (
        "WITH RECURSIVE r AS (SELECT id AS n FROM orders UNION ALL SELECT n + 1 FROM r WHERE n < 5) CYCLE n SET c USING p SELECT n FROM r",
        "WHERE path NOT LIKE '%/' || t.id || '/%'",
        "WITH RECURSIVE r AS (SELECT quantity AS n, '/' || id || '/' AS path FROM orders UNION ALL SELECT t.quantity, path || t.id || '/' FROM r JOIN orders t ON t.id = r.n WHERE path NOT LIKE '%/' || t.id || '/%') SELECT n FROM r",
    ),
    (
        "SELECT DISTINCT ON (1) * FROM orders",
        "write the column itself: DISTINCT ON (a) a, b",
        "SELECT DISTINCT ON (id) id, customer FROM orders",
    ),
    (
        "SELECT count(*) FROM orders",
        "give it a name: AS ...",
        "SELECT count(*) AS n FROM orders",
    ),
    (
        "SELECT id, to_timestamp(customer, '%Y-%m') AS t FROM orders",
        "to_timestamp(month || '-01', '%Y-%m-%d')",
        "SELECT id, to_timestamp(customer || '-01', '%Y-%m-%d') AS t FROM orders",
    ),
    (
        "SELECT id, to_char(at, '%H:%M %Z') AS t FROM orders",
        "write UTC instead of it",
        "SELECT id, to_char(at, '%H:%M UTC') AS t FROM orders",
    ),
    (
        "SELECT id, id FROM orders",
        "name one of them anew: AS ...",
        "SELECT id, id AS other FROM orders",
    ),
    (
        "SELECT id FROM orders LIMIT 5",
        "add ORDER BY",
        "SELECT id FROM orders ORDER BY id LIMIT 5",
    ),
    (
        "SELECT id, now() AS seen FROM orders",
        "ts > now() - INTERVAL '1 hour'",
        "SELECT id FROM orders WHERE at > now() - INTERVAL '1 hour'",
    ),
    (
        "SELECT id FROM orders WHERE at > now() - INTERVAL '1 month' - INTERVAL '1 month'",
        "ts > now() - INTERVAL '1 hour'",
        "SELECT id FROM orders WHERE at > now() - INTERVAL '2 months'",
    ),
    (
        "SELECT id, current_time() AS t FROM orders",
        "use now() in a condition of WHERE",
        "SELECT id FROM orders WHERE at < now()",
    ),
    (
        "SELECT id FROM orders WHERE customer AND quantity > 1",
        "CAST(... AS ...)",
        "SELECT id FROM orders WHERE CAST(customer AS BOOLEAN) AND quantity > 1",
    ),
    (
        "SELECT id, customer FROM orders GROUP BY id",
        "ANY_VALUE(orders.customer)",
        "SELECT id, ANY_VALUE(orders.customer) AS customer FROM orders GROUP BY id",
    ),
    (
        "SELECT id, customer FROM orders GROUP BY id",
        "add 'orders.customer' to GROUP BY",
        "SELECT id, customer FROM orders GROUP BY id, orders.customer",
    ),
    (
        "SELECT sum(count(*)) AS x FROM orders",
        "compute 'count(*)' in an inner query",
        "SELECT sum(n) AS x FROM (SELECT count(*) AS n FROM orders GROUP BY id)",
    ),
    (
        "SELECT id FROM orders WHERE amount = (SELECT credit FROM customers)",
        "an aggregate without GROUP BY, or ORDER BY ... LIMIT 1",
        "SELECT id FROM orders WHERE amount = (SELECT max(credit) AS c FROM customers)",
    ),
    (
        "SELECT id FROM orders WHERE amount = (SELECT credit FROM customers)",
        "ORDER BY ... LIMIT 1",
        "SELECT id FROM orders WHERE amount = (SELECT credit FROM customers ORDER BY credit LIMIT 1)",
    ),
    (
        "SELECT o.id, u.name FROM orders o RIGHT JOIN LATERAL (SELECT name FROM customers c WHERE c.credit > o.amount) u ON TRUE",
        "write CROSS JOIN LATERAL or LEFT JOIN LATERAL",
        "SELECT o.id, u.name FROM orders o LEFT JOIN LATERAL (SELECT name FROM customers c WHERE c.credit > o.amount) u ON TRUE",
    ),
    (
        "SELECT customer, last_value(id) OVER (PARTITION BY customer ORDER BY quantity) AS l FROM orders",
        "OVER (... ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)",
        "SELECT customer, last_value(id) OVER (PARTITION BY customer ORDER BY quantity \
         ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS l FROM orders",
    ),
    (
        "SELECT json_get(payload, 'n') AS n FROM orders",
        "json_get_int",
        "SELECT json_get_int(payload, 'n') AS n, json_get_json(payload, 'o') AS o FROM orders",
    ),
    (
        "SELECT NULL AS nothing FROM orders",
        "CAST(... AS VARCHAR) AS nothing",
        "SELECT CAST(NULL AS VARCHAR) AS nothing FROM orders",
    ),
    (
        "SELECT at - at AS span FROM orders",
        "CAST(... AS VARCHAR) AS span",
        "SELECT CAST(at - at AS VARCHAR) AS span FROM orders",
    ),
    (
        "SELECT map(make_array(customer), make_array(id)) AS m FROM orders",
        "map_keys(...), map_values(...) or map_extract(..., key)",
        "SELECT map_keys(map(make_array(customer), make_array(id))) AS k, \
         map_extract(map(make_array(customer), make_array(id)), 'a') AS a FROM orders",
    ),
    (
        "SELECT * FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(at)))",
        "write TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE))",
        "SELECT id, window_start FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(at), INTERVAL '1' MINUTE))",
    ),
    (
        "SELECT * FROM TABLE(HOP(TABLE orders, DESCRIPTOR(at), INTERVAL '1' MINUTE, 5))",
        "write TABLE(HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '15' MINUTE, INTERVAL '60' MINUTE))",
        "SELECT id, window_end FROM TABLE(HOP(TABLE orders, DESCRIPTOR(at), INTERVAL '15' MINUTE, INTERVAL '60' MINUTE))",
    ),
    (
        "SELECT * FROM TABLE(SESSION(TABLE orders, DESCRIPTOR(at)))",
        "write TABLE(SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '30' MINUTE))",
        "SELECT id FROM TABLE(SESSION(TABLE orders PARTITION BY customer, DESCRIPTOR(at), INTERVAL '30' MINUTE))",
    ),
    (
        "SELECT customer, sum(quantity) AS s FROM orders WHERE sum(quantity) > 3 GROUP BY customer",
        "move the condition into HAVING",
        "SELECT customer, sum(quantity) AS s FROM orders GROUP BY customer HAVING sum(quantity) > 3",
    ),
    (
        "SELECT id FROM orders WHERE row_number() OVER (ORDER BY id) < 3",
        "compare it in QUALIFY",
        "SELECT id FROM orders QUALIFY row_number() OVER (ORDER BY id) < 3",
    ),
    (
        "SELECT a.id FROM orders a JOIN orders b ON a.id = b.id WHERE id > 1",
        "write its table before it: t.id",
        "SELECT a.id FROM orders a JOIN orders b ON a.id = b.id WHERE a.id > 1",
    ),
    (
        "SELECT customer, count(*) AS n FROM orders GROUP BY customer HAVING EXISTS (SELECT 1 FROM customers c WHERE c.credit = max(amount))",
        "FROM (SELECT k, max(x) AS m FROM t GROUP BY k) AS g WHERE EXISTS (SELECT 1 FROM u WHERE u.id = g.m)",
        "SELECT customer, n FROM (SELECT customer, count(*) AS n, max(amount) AS m FROM orders GROUP BY customer) AS g \
         WHERE EXISTS (SELECT 1 FROM customers c WHERE c.credit = g.m)",
    ),
    (
        "SELECT id, sum(quantity) OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE CURRENT ROW) AS s FROM orders",
        "ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING",
        "SELECT id, coalesce(sum(quantity) OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) + \
         coalesce(sum(quantity) OVER (ORDER BY id ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING), 0) AS s FROM orders",
    ),
    (
        "SELECT customer, day, count(*) AS n FROM orders GROUP BY DISTINCT ROLLUP (customer, day), ROLLUP (customer)",
        "GROUP BY GROUPING SETS ((a, b), (a), ())",
        "SELECT customer, day, count(*) AS n FROM orders GROUP BY GROUPING SETS ((customer, day), (customer), ())",
    ),
    (
        "SELECT id, lag(quantity, quantity) OVER (ORDER BY id) AS s FROM orders",
        "LEFT JOIN r AS b ON b.n = a.n - a.distance",
        "WITH r AS (SELECT id, quantity, row_number() OVER (ORDER BY id) AS n FROM orders) \
         SELECT a.id, b.quantity AS s FROM r AS a LEFT JOIN r AS b ON b.n = a.n - a.quantity",
    ),
    (
        "SELECT id, payload::jsonb -> 'a' AS x FROM orders",
        "payload::jsonb ->> 'a'",
        "SELECT id, payload::jsonb ->> 'a' AS x FROM orders",
    ),
    (
        "SELECT id, format('%L', customer) AS x FROM orders",
        "format('%s: %s', a, b)",
        "SELECT id, format('%s: %s', customer, quantity) AS x FROM orders",
    ),
    (
        "SELECT id, at + make_interval(fortnights => quantity) AS x FROM orders",
        "n * INTERVAL '1 day'",
        "SELECT id, at + quantity * INTERVAL '14 days' AS x FROM orders",
    ),
    (
        "SELECT id, div(amount, 2) AS x FROM orders",
        "write trunc(a / b)",
        "SELECT id, trunc(amount / 2) AS x FROM orders",
    ),
    (
        "SELECT id, array_lower(tags, 1) AS x FROM orders",
        "write array_length(list, 1)",
        "SELECT id, array_length(tags, 1) AS x FROM orders",
    ),
];

fn refusal(sql: &str) -> Option<String> {
    let planned = compile(&dataflow(vec![table(Layer::Gold, "t", sql)]));
    planned.err().map(|mistakes| mistakes.to_string())
}

#[test]
fn each_remedy_that_shows_sql_works_where_it_is_said() {
    for (refused, remedy, remedied) in CASES {
        let said = refusal(refused).unwrap_or_else(|| panic!("it was planned: {refused}"));
        assert!(said.contains(remedy), "{refused}\n{said}");
        assert_eq!(refusal(remedied), None, "{remedied}");
    }
}

#[test]
fn a_share_of_a_total_is_planned_as_it_is_written() {
    // Formerly two columns were named `sum(t.x)`, and the remedy was not SQL.
    for sql in [
        "SELECT customer, sum(quantity) / (SELECT sum(quantity) FROM orders) AS share FROM orders GROUP BY customer",
        "SELECT customer, sum(quantity) * 1.0 / (SELECT sum(quantity) * 1.0 FROM orders) AS share FROM orders GROUP BY customer",
        "SELECT customer, sum(quantity) AS s FROM orders GROUP BY customer HAVING sum(quantity) > (SELECT sum(quantity) / 10 FROM orders)",
        "SELECT customer, sum(quantity) AS s FROM orders GROUP BY customer HAVING sum(quantity) = (SELECT sum(quantity) FROM orders)",
        "SELECT customer, sum(quantity) AS s FROM orders GROUP BY customer \
         HAVING sum(quantity) IN (SELECT sum(quantity) FROM orders GROUP BY day)",
        "SELECT count(*) AS n, count(*) - (SELECT count(*) FROM customers) AS more FROM orders",
        "SELECT id, quantity - (SELECT avg(quantity) FROM orders) AS above FROM orders",
    ] {
        assert_eq!(refusal(sql), None, "{sql}");
    }
}
