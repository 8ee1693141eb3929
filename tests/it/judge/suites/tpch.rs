//! TPC-H over its data at scale 0.01.
//!
//! The queries have the parameters that the specification validates by (section 2.4; the fraction of query 11 is that of this
//! scale). They have no last ORDER BY where no LIMIT follows, for a table has no order. Query 15 names its view in WITH.

use std::fmt::Display;
use std::time::Duration;

use serde_json::Value;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};

use super::Suite;
use crate::judge::tables::Table;

const SCALE: f64 = 0.01;

const SUITE: Suite = Suite {
    name: "tpch",
    queries: &[
        "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10", "q11", "q12", "q13", "q14", "q15", "q16", "q17",
        "q18", "q19", "q20", "q21", "q22",
    ],
    tables,
    // Of a run in an unoptimised build on a machine that does other work, too.
    patience: Duration::from_secs(600),
};

#[test]
fn tpch_has_the_answers_of_postgresql_at_once_and_under_changes() {
    SUITE.check();
}

/// The data is that which the answers were written for.
#[test]
fn the_data_of_tpch_is_that_of_its_scale() {
    let rows: Vec<(String, usize)> = tables().iter().map(|t| (t.name.clone(), t.rows.len())).collect();
    let of = |name: &str| rows.iter().find(|(known, _)| known == name).map(|(_, rows)| *rows);
    assert_eq!(of("orders"), Some(15_000));
    assert_eq!(of("lineitem"), Some(60_175));
    assert_eq!(of("partsupp"), Some(8_000));
    assert_eq!(of("customer"), Some(1_500));
}

fn tables() -> Vec<Table> {
    let table = |name: &str, columns: &str, lines: Vec<String>| {
        let table = Table::parse(name, columns, &Value::Array(vec![]));
        let is_number: Vec<bool> = table
            .columns
            .iter()
            .map(|column| column.sql_type.ends_with("INT"))
            .collect();
        let row = |line: &String| {
            let cells = line.trim_end_matches('|').split('|').zip(&is_number);
            let cell = |(cell, is_number): (&str, &bool)| match is_number {
                true => Value::from(cell.parse::<i64>().expect("a whole number")),
                false => Value::from(cell),
            };
            cells.map(cell).collect()
        };
        let rows = lines.iter().map(row).collect();
        Table { rows, ..table }
    };
    vec![
        table(
            "region",
            "r_regionkey BIGINT NOT NULL, r_name VARCHAR NOT NULL, r_comment VARCHAR",
            lines(RegionGenerator::new(SCALE, 1, 1).iter()),
        ),
        table(
            "nation",
            "n_nationkey BIGINT NOT NULL, n_name VARCHAR NOT NULL, n_regionkey BIGINT NOT NULL, n_comment VARCHAR",
            lines(NationGenerator::new(SCALE, 1, 1).iter()),
        ),
        table(
            "supplier",
            "s_suppkey BIGINT NOT NULL, s_name VARCHAR NOT NULL, s_address VARCHAR NOT NULL, s_nationkey BIGINT NOT NULL, \
             s_phone VARCHAR NOT NULL, s_acctbal DECIMAL(15,2) NOT NULL, s_comment VARCHAR NOT NULL",
            lines(SupplierGenerator::new(SCALE, 1, 1).iter()),
        ),
        table(
            "customer",
            "c_custkey BIGINT NOT NULL, c_name VARCHAR NOT NULL, c_address VARCHAR NOT NULL, c_nationkey BIGINT NOT NULL, \
             c_phone VARCHAR NOT NULL, c_acctbal DECIMAL(15,2) NOT NULL, c_mktsegment VARCHAR NOT NULL, \
             c_comment VARCHAR NOT NULL",
            lines(CustomerGenerator::new(SCALE, 1, 1).iter()),
        ),
        table(
            "part",
            "p_partkey BIGINT NOT NULL, p_name VARCHAR NOT NULL, p_mfgr VARCHAR NOT NULL, p_brand VARCHAR NOT NULL, \
             p_type VARCHAR NOT NULL, p_size INT NOT NULL, p_container VARCHAR NOT NULL, \
             p_retailprice DECIMAL(15,2) NOT NULL, p_comment VARCHAR NOT NULL",
            lines(PartGenerator::new(SCALE, 1, 1).iter()),
        ),
        table(
            "partsupp",
            "ps_partkey BIGINT NOT NULL, ps_suppkey BIGINT NOT NULL, ps_availqty INT NOT NULL, \
             ps_supplycost DECIMAL(15,2) NOT NULL, ps_comment VARCHAR NOT NULL",
            lines(PartSuppGenerator::new(SCALE, 1, 1).iter()),
        ),
        table(
            "orders",
            "o_orderkey BIGINT NOT NULL, o_custkey BIGINT NOT NULL, o_orderstatus VARCHAR NOT NULL, \
             o_totalprice DECIMAL(15,2) NOT NULL, o_orderdate DATE NOT NULL, o_orderpriority VARCHAR NOT NULL, \
             o_clerk VARCHAR NOT NULL, o_shippriority INT NOT NULL, o_comment VARCHAR NOT NULL",
            lines(OrderGenerator::new(SCALE, 1, 1).iter()),
        ),
        table(
            "lineitem",
            "l_orderkey BIGINT NOT NULL, l_partkey BIGINT NOT NULL, l_suppkey BIGINT NOT NULL, l_linenumber INT NOT NULL, \
             l_quantity DECIMAL(15,2) NOT NULL, l_extendedprice DECIMAL(15,2) NOT NULL, l_discount DECIMAL(15,2) NOT NULL, \
             l_tax DECIMAL(15,2) NOT NULL, l_returnflag VARCHAR NOT NULL, l_linestatus VARCHAR NOT NULL, \
             l_shipdate DATE NOT NULL, l_commitdate DATE NOT NULL, l_receiptdate DATE NOT NULL, \
             l_shipinstruct VARCHAR NOT NULL, l_shipmode VARCHAR NOT NULL, l_comment VARCHAR NOT NULL",
            lines(LineItemGenerator::new(SCALE, 1, 1).iter()),
        ),
    ]
}

/// Rows as the generator writes them: a `|` behind each cell.
fn lines(rows: impl Iterator<Item = impl Display>) -> Vec<String> {
    rows.map(|row| row.to_string()).collect()
}
