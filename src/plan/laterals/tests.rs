//! Tests the SQL that each rewrite of this module's table yields.

use datafusion::sql::sqlparser::parser::Parser;

use super::{rewrite_asof, rewrite_laterals};
use crate::plan::dialect::Standard;
use crate::plan::windows::tokenize;

fn made(sql: &str) -> String {
    let tokens = rewrite_asof(tokenize(sql).unwrap());
    let mut query = Parser::new(&Standard)
        .with_tokens_with_locations(tokens)
        .parse_query()
        .unwrap();
    match rewrite_laterals(query.as_mut()) {
        Ok(()) => query.to_string(),
        Err(refusal) => refusal.message,
    }
}

#[test]
fn functions_of_from_are_lateral_subqueries() {
    for (sql, written) in [
        (
            "SELECT * FROM t CROSS JOIN unnest(t.a) AS u(x)",
            "SELECT * FROM t CROSS JOIN LATERAL (SELECT unnest(t.a) AS x) AS u (x)",
        ),
        (
            "SELECT * FROM t, unnest(t.a, t.b) WITH ORDINALITY AS u(x, y)",
            "SELECT * FROM t, LATERAL (SELECT unnest(t.a) AS x, unnest(t.b) AS y, \
             unnest(list_positions(t.a, t.b)) AS ordinality) AS u (x, y, ordinality)",
        ),
        (
            "SELECT * FROM t LEFT JOIN LATERAL unnest(t.a) AS x ON 1 = 1",
            "SELECT * FROM t CROSS JOIN LATERAL (SELECT unnest(list_or_null(t.a)) AS x) AS x (x)",
        ),
        (
            "SELECT * FROM t LEFT JOIN unnest(t.a) WITH ORDINALITY AS u(x, n) ON TRUE",
            "SELECT * FROM t CROSS JOIN LATERAL (SELECT unnest(t.a) AS x, unnest(list_positions_or_null(t.a)) AS n) AS u (x, n)",
        ),
        (
            "SELECT * FROM t LEFT JOIN unnest(t.a) AS u(x) ON u.x = t.k",
            "SELECT * FROM t LEFT JOIN LATERAL (SELECT unnest(t.a) AS x) AS u (x) ON u.x = t.k",
        ),
        (
            "SELECT * FROM unnest([1]) AS v WITH OFFSET AS n",
            "SELECT * FROM (SELECT unnest([1]) AS v, unnest(list_positions([1])) - 1 AS n) AS v (v, n)",
        ),
        (
            "SELECT * FROM generate_series(1, 3), TABLE(string_to_table(s, ','))",
            "SELECT * FROM (SELECT unnest(generate_series(1, 3)) AS generate_series) AS generate_series (generate_series), \
             LATERAL (SELECT unnest(string_to_array(s, ',')) AS string_to_table) AS string_to_table (string_to_table)",
        ),
        (
            "SELECT generate_series(1, 3) + 1 AS n, array_length(generate_series(1, 2)) AS m FROM t",
            "SELECT unnest(generate_series(1, 3)) + 1 AS n, array_length(generate_series(1, 2)) AS m FROM t",
        ),
        (
            "SELECT * FROM t OUTER APPLY (SELECT 1 AS x) AS u CROSS APPLY unnest(t.a) AS v",
            "SELECT * FROM t LEFT OUTER JOIN LATERAL (SELECT 1 AS x) AS u ON true CROSS JOIN LATERAL (SELECT unnest(t.a) AS v) AS v (v)",
        ),
        (
            "SELECT * FROM unnest([1]) AS u(x, y)",
            "could not name 2 columns of unnest(): it has 1",
        ),
        (
            "SELECT * FROM unnest([1], [2]) AS u",
            "could not name 2 columns \"unnest\": unnest() has one for each list",
        ),
    ] {
        assert_eq!(made(sql), written, "{sql}");
    }
}

#[test]
fn an_asof_join_is_the_nearest_row_beside_each() {
    for (sql, written) in [
        (
            "SELECT * FROM t ASOF JOIN silver.u ON t.k = u.k AND t.ts >= u.ts",
            "SELECT * FROM t CROSS JOIN LATERAL (SELECT * FROM silver.u WHERE (t.k = u.k) AND (t.ts >= u.ts) \
             ORDER BY u.ts DESC LIMIT 1) AS u",
        ),
        (
            "SELECT * FROM t ASOF LEFT JOIN u v ON v.ts > t.ts WHERE t.k = 1",
            "SELECT * FROM t LEFT OUTER JOIN LATERAL (SELECT * FROM u v WHERE (v.ts > t.ts) ORDER BY v.ts ASC LIMIT 1) AS v \
             ON true WHERE t.k = 1",
        ),
        (
            "SELECT * FROM t ASOF JOIN u MATCH_CONDITION (ts <= at) ON t.k = u.k",
            "SELECT * FROM t LEFT OUTER JOIN LATERAL (SELECT * FROM u WHERE (t.k = u.k) AND (ts <= at) ORDER BY at ASC LIMIT 1) AS u \
             ON true",
        ),
        (
            "SELECT * FROM (SELECT 1 FROM a ASOF JOIN b ON a.x > b.x) t JOIN u ON t.k = u.k",
            "SELECT * FROM (SELECT 1 FROM a CROSS JOIN LATERAL (SELECT * FROM b WHERE (a.x > b.x) ORDER BY b.x DESC LIMIT 1) AS b) t \
             JOIN u ON t.k = u.k",
        ),
        (
            "SELECT * FROM t ASOF JOIN u ON t.k = u.k",
            "could not plan this ASOF JOIN: its ON has not one comparison by >=, >, <= or <",
        ),
        (
            "SELECT * FROM t ASOF JOIN u ON t.k = u.k OR t.x > u.x",
            "could not plan this ASOF JOIN: its ON is no list of conditions joined by AND",
        ),
        (
            "SELECT * FROM t ASOF JOIN u MATCH_CONDITION (t.x = u.x)",
            "could not plan this ASOF JOIN: its MATCH_CONDITION is no comparison by >=, >, <= or <",
        ),
    ] {
        assert_eq!(made(sql), written, "{sql}");
    }
}
