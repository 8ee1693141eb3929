//! Tests subqueries: no plan contains one, the graph and the batch plan agree on SQL that DataFusion cannot
//! plan, and a subquery that yields one row by a key may be a value.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::agree::{in_batch, lines};
use super::evaluate::evaluate;
use super::fixture::{dataflow, planned, table};
use crate::definition::Layer;
use crate::plan::compile;
use crate::repr::normalise_batch;

/// Checks the rows of the graph and of the batch plan.
fn yields(sql: &str, expected: &[&str]) {
    let graph = planned(sql);
    let schema = graph.tables[0].schema.clone();
    let batch = lines(&normalise_batch(&schema, &in_batch(&graph, 0)).unwrap());
    let logical = graph.tables[0].logical.display_indent().to_string();
    assert_eq!(batch, expected, "in batch\n{sql}\n{logical}");
    let evaluated = lines(&evaluate(&graph, graph.tables[0].node, 0));
    assert_eq!(evaluated, expected, "the graph of\n{sql}\n{}", graph.explain(None));
    assert!(!holds_a_subquery(&graph.tables[0].logical), "{sql}\n{logical}");
}

fn holds_a_subquery(plan: &LogicalPlan) -> bool {
    let mut found = false;
    plan.apply(|node| {
        found |= matches!(node, LogicalPlan::Subquery(_));
        node.apply_expressions(|expr| {
            found |= expr.exists(|e| {
                Ok(matches!(
                    e,
                    Expr::Exists(_)
                        | Expr::InSubquery(_)
                        | Expr::SetComparison(_)
                        | Expr::ScalarSubquery(_)
                        | Expr::OuterReferenceColumn(..)
                ))
            })?;
            Ok(TreeNodeRecursion::Continue)
        })
    })
    .unwrap();
    found
}

macro_rules! yield_rows {
    ($($name:ident: $sql:literal => $rows:expr;)*) => {
        $(#[test] fn $name() { yields($sql, &$rows); })*
    };
}

// The customers: (ann, NL, 1.0), (bob, UK, 0.5), (bob, NL, null), (eve, null, 2.5), (null, UK, 2.0).
yield_rows! {
    a_first_row_for_each_row:
        "SELECT c.name, (SELECT d.name FROM customers d WHERE d.credit > c.credit ORDER BY d.credit LIMIT 1 OFFSET 1) AS n FROM customers c"
        => ["ann | eve", "bob | null", "bob | null", "eve | null", "null | null"];
    unknown_is_not_false:
        "SELECT c.credit, c.country IN (SELECT d.country FROM customers d WHERE d.credit > c.credit) AS x FROM customers c"
        => ["0.5 | true", "1.0 | null", "2.0 | null", "2.5 | false", "null | false"];
    all_of_none_is_true:
        "SELECT c.credit, c.credit > ALL (SELECT d.credit FROM customers d WHERE d.country = c.country) AS x FROM customers c"
        => ["0.5 | false", "1.0 | false", "2.0 | false", "2.5 | true", "null | null"];
    any_of_the_same_table:
        "SELECT credit FROM customers WHERE credit > ANY (SELECT credit FROM customers WHERE country = 'UK')"
        => ["1.0", "2.0", "2.5"];
    an_aggregate_over_no_rows_is_a_row:
        "SELECT c.credit, (SELECT count(*) + 1 FROM customers d WHERE d.credit > c.credit) AS n FROM customers c"
        => ["0.5 | 4", "1.0 | 3", "2.0 | 2", "2.5 | 1", "null | 1"];
    a_group_of_everything_exists_over_no_rows:
        "SELECT c.credit FROM customers c WHERE EXISTS
         (SELECT 1 FROM customers d WHERE d.credit > c.credit GROUP BY ROLLUP (d.country) HAVING count(*) = 0)"
        => ["2.5", "null"];
    groups_by_sets_beside_each_row:
        "SELECT c.name, q.country, q.g, q.n FROM customers c CROSS JOIN LATERAL
         (SELECT d.country, grouping(d.country) AS g, count(*) AS n FROM customers d WHERE d.credit < c.credit
          GROUP BY GROUPING SETS ((d.country), ())) AS q WHERE c.country = 'NL'"
        => ["ann | UK | 0 | 1", "ann | null | 1 | 1", "bob | null | 1 | 0"];
    two_levels:
        "SELECT c.credit FROM customers c WHERE EXISTS (SELECT 1 FROM customers d WHERE d.country = c.country AND NOT EXISTS
         (SELECT 1 FROM customers e WHERE e.credit < d.credit AND e.country = c.country))"
        => ["0.5", "1.0", "2.0", "null"];
    a_full_join_for_each_row:
        "SELECT c.credit, (SELECT count(*) FROM (SELECT * FROM customers WHERE credit > c.credit) d
         FULL JOIN (SELECT * FROM customers WHERE credit < c.credit) e ON d.country = e.country) AS n FROM customers c"
        => ["0.5 | 3", "1.0 | 2", "2.0 | 3", "2.5 | 3", "null | 0"];
    values_beside_each_row:
        "SELECT c.name, q.v FROM customers c CROSS JOIN LATERAL (VALUES (c.credit), (c.credit + 1)) AS q(v) WHERE c.name = 'bob'"
        => ["bob | 0.5", "bob | 1.5", "bob | null", "bob | null"];
    optional_values_of_a_list:
        "SELECT o.id, t.tag FROM orders o LEFT JOIN LATERAL (SELECT unnest(o.tags) AS tag) AS t ON TRUE WHERE o.id < 2"
        => ["0 | null", "0 | tag1", "1 | null", "1 | tag2", "1 | tag3"];
}

#[test]
fn a_value_may_be_one_row_by_a_key() {
    let sql = "SELECT id, (SELECT c.country FROM customers c WHERE c.name = o.customer) AS country FROM orders o";
    let mut flow = dataflow(vec![table(Layer::Gold, "t", sql)]);
    assert!(compile(&flow).is_err(), "without a key there may be several rows");
    flow.inputs[1].key = vec!["name".to_string()];
    let graph = compile(&flow).unwrap();
    assert!(!holds_a_subquery(&graph.tables[0].logical));
    flow.inputs[1].key.push("country".to_string());
    assert!(compile(&flow).is_err(), "half a key does not tell one row");
}
