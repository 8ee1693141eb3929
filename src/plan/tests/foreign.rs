//! Tests constructs of other databases: each is refused with a remedy, and the SQL by that remedy is planned.

use super::fixture::{dataflow, table};
use crate::definition::Layer;
use crate::plan::compile;

/// SQL of another database, words of the remedy, and the SQL rewritten by the remedy.
const CASES: &[(&str, &str, &str)] = &[
    (
        "SELECT iff(quantity > 1, 'a', 'b') AS x FROM orders",
        "CASE WHEN a THEN b ELSE c END",
        "SELECT CASE WHEN quantity > 1 THEN 'a' ELSE 'b' END AS x FROM orders",
    ),
    (
        "SELECT zeroifnull(quantity) AS x FROM orders",
        "coalesce(x, 0)",
        "SELECT coalesce(quantity, 0) AS x FROM orders",
    ),
    (
        "SELECT date_sub(day, INTERVAL '1 day') AS x FROM orders",
        "ts - INTERVAL '1 month'",
        "SELECT day - INTERVAL '1 month' AS x FROM orders",
    ),
    (
        "SELECT datediff('day', at, day) AS x FROM orders",
        "CAST(a AS DATE) - CAST(b AS DATE)",
        "SELECT CAST(at AS DATE) - CAST(day AS DATE) AS x, EXTRACT(epoch FROM at - at) AS s FROM orders",
    ),
    (
        "SELECT year(at) AS x FROM orders",
        "EXTRACT(year FROM ts)",
        "SELECT EXTRACT(year FROM at) AS x FROM orders",
    ),
    (
        "SELECT strftime(at, '%Y') AS x FROM orders",
        "to_char(ts, 'YYYY-MM-DD HH24:MI:SS')",
        "SELECT to_char(at, 'YYYY-MM-DD HH24:MI:SS') AS x FROM orders",
    ),
    (
        "SELECT strptime(customer, '%Y') AS x FROM orders",
        "to_timestamp(text, 'YYYY-MM-DD HH24:MI:SS')",
        "SELECT to_timestamp(customer, 'YYYY-MM-DD HH24:MI:SS') AS x FROM orders",
    ),
    (
        "SELECT unix_timestamp(at) AS x FROM orders",
        "EXTRACT(epoch FROM ts)",
        "SELECT EXTRACT(epoch FROM at) AS x FROM orders",
    ),
    (
        "SELECT id FROM orders WHERE at > getdate()",
        "ts > now() - INTERVAL '1 hour'",
        "SELECT id FROM orders WHERE at > now() - INTERVAL '1 hour'",
    ),
    (
        "SELECT safe_divide(id, quantity) AS x FROM orders",
        "a / nullif(b, 0)",
        "SELECT id / nullif(quantity, 0) AS x FROM orders",
    ),
    (
        "SELECT json_value(payload, '$.kind') AS x FROM orders",
        "payload -> 'a' ->> 'b'",
        "SELECT payload ->> 'kind' AS x, payload -> 'a' ->> 'b' AS y FROM orders",
    ),
    (
        "SELECT object_construct('a', id) AS x FROM orders",
        "json_build_object('a', x)",
        "SELECT json_build_object('a', id) AS x FROM orders",
    ),
    (
        "SELECT array_construct(id, quantity) AS x FROM orders",
        "[x, y]",
        "SELECT [id, quantity] AS x FROM orders",
    ),
    (
        "SELECT id, explode(tags) AS x FROM orders",
        "CROSS JOIN unnest(t.list) AS u(item)",
        "SELECT t.id, u.item FROM orders AS t CROSS JOIN unnest(t.tags) AS u(item)",
    ),
    (
        "SELECT id, tag FROM orders LATERAL VIEW explode(tags) t AS tag",
        "CROSS JOIN unnest(t.list) AS u(item)",
        "SELECT t.id, u.item FROM orders AS t CROSS JOIN unnest(t.tags) AS u(item)",
    ),
    (
        "SELECT id, f.x FROM orders, TABLE(FLATTEN(tags)) AS f(x)",
        "CROSS JOIN unnest(t.list) AS u(item)",
        "SELECT t.id, u.item FROM orders AS t CROSS JOIN unnest(t.tags) AS u(item)",
    ),
    (
        "SELECT customer, group_concat(payload) AS x FROM orders GROUP BY customer",
        "string_agg(x, ',' ORDER BY y)",
        "SELECT customer, string_agg(payload, ',' ORDER BY id) AS x FROM orders GROUP BY customer",
    ),
    (
        "SELECT id FROM orders WHERE regexp_contains(customer, 'a')",
        "text ~ pattern",
        "SELECT id FROM orders WHERE customer ~ 'a'",
    ),
    (
        "SELECT charindex('a', customer) AS x FROM orders",
        "strpos(text, part)",
        "SELECT strpos(customer, 'a') AS x FROM orders",
    ),
    (
        "SELECT len(customer) AS x FROM orders",
        "length(text)",
        "SELECT length(customer) AS x FROM orders",
    ),
    (
        "SELECT printf('%s', id) AS x FROM orders",
        "'a' || CAST(x AS VARCHAR)",
        "SELECT 'a' || CAST(id AS VARCHAR) AS x FROM orders",
    ),
    (
        "SELECT farm_fingerprint(customer) AS x FROM orders",
        "md5(text)",
        "SELECT md5(customer) AS x FROM orders",
    ),
    (
        "SELECT customer, first(id) AS x FROM orders GROUP BY customer",
        "first_value(x ORDER BY y)",
        "SELECT customer, first_value(id ORDER BY at) AS x, last_value(id ORDER BY at) AS y FROM orders GROUP BY customer",
    ),
    (
        "SELECT id FROM orders WHERE to_tsvector(payload) = 'a'",
        "text ILIKE '%word%'",
        "SELECT id FROM orders WHERE payload ILIKE '%word%' OR payload ~* 'word'",
    ),
    (
        "SELECT * FROM orders PIVOT (sum(amount) FOR customer IN ('ann', 'bob'))",
        "sum(x) FILTER (WHERE k = 'a') AS a",
        "SELECT day, sum(amount) FILTER (WHERE customer = 'ann') AS a FROM orders GROUP BY day",
    ),
    (
        "SELECT * FROM orders UNPIVOT (v FOR k IN (amount, price))",
        "CROSS JOIN LATERAL (VALUES ('a', t.a), ('b', t.b)) AS u(name, value)",
        "SELECT t.id, u.name, u.value FROM orders AS t CROSS JOIN LATERAL (VALUES ('amount', t.amount), ('q', t.amount)) AS u(name, value)",
    ),
    (
        "SELECT id FROM orders TABLESAMPLE BERNOULLI (10)",
        "WHERE id % 10 = 0",
        "SELECT id FROM orders WHERE id % 10 = 0",
    ),
    (
        "SELECT id FROM orders ORDER BY customer COLLATE \"de_DE\" LIMIT 1",
        "COLLATE \"C\"",
        "SELECT id FROM orders ORDER BY customer COLLATE \"C\" LIMIT 1",
    ),
    (
        "SELECT id FROM orders ORDER BY id FETCH FIRST 10 PERCENT ROWS ONLY",
        "NTILE(100) OVER (ORDER BY ...) in QUALIFY",
        "SELECT id FROM orders QUALIFY ntile(100) OVER (ORDER BY id) <= 10",
    ),
    (
        "SELECT DISTINCT customer FROM orders ORDER BY customer FETCH FIRST 2 ROWS WITH TIES",
        "QUALIFY RANK() OVER (ORDER BY n DESC) <= 3",
        "SELECT customer, count(*) AS n FROM orders GROUP BY customer QUALIFY RANK() OVER (ORDER BY count(*) DESC) <= 3",
    ),
    (
        "SELECT o.id FROM orders o ASOF JOIN customers c ON o.customer = c.name",
        "ASOF JOIN u ON t.k = u.k AND t.ts >= u.ts",
        "SELECT o.id FROM orders o ASOF JOIN customers c ON o.customer = c.name AND o.amount >= c.credit",
    ),
    (
        "SELECT x FROM unnest([1], [2]) AS u",
        "unnest(a, b) AS u(x, y)",
        "SELECT x FROM unnest([1], [2]) AS u(x, y)",
    ),
    (
        "SELECT id FROM orders WHERE (id, customer) IN (SELECT name FROM customers)",
        "select as many columns as the row has",
        "SELECT id FROM orders WHERE (amount, customer) IN (SELECT credit, name FROM customers)",
    ),
    (
        "SELECT id FROM orders WHERE quantity XOR id",
        "a # b of whole numbers",
        "SELECT quantity # id AS x FROM orders WHERE (quantity > 1) <> (id > 1)",
    ),
];

fn refusal(sql: &str) -> Option<String> {
    let planned = compile(&dataflow(vec![table(Layer::Gold, "t", sql)]));
    planned.err().map(|mistakes| mistakes.to_string())
}

#[test]
fn constructs_of_other_databases_are_refused_with_what_works() {
    for (written, remedy, remedied) in CASES {
        let said = refusal(written).unwrap_or_else(|| panic!("it was planned: {written}"));
        assert!(said.contains(remedy), "{written}\n{said}");
        assert_eq!(refusal(remedied), None, "{remedied}");
    }
}
