//! Tests the change data feed of a table whose definition changes.

use super::changes;
use crate::lake::{ask, assert_newest_is_exact};
use crate::support::{Folder, catch_up};

const ORDERS: &str = r#"
key = ["id"]
[columns]
id = { type = "BIGINT", nullable = false }
customer = "VARCHAR"
amount = "BIGINT"
[[feeds]]
name = "live"
kind = "log"
path = "live"
format = "json"
"#;

fn append(folder: &Folder, ids: std::ops::Range<i64>, amount: i64) {
    for id in ids {
        let value = format!("{{\"id\": {id}, \"customer\": \"c{}\", \"amount\": {amount}}}", id % 3);
        let line = format!("{{\"key\": {{\"id\": {id}}}, \"value\": {value}}}\n");
        folder.append("live/0.ndjson", &line);
    }
}

/// The version in which a table was rebuilt reported the rows that came, but not those that went: consumers of the
/// feed had both from then on.
#[test]
fn a_feed_tells_the_rows_that_go_when_a_table_is_rebuilt() {
    for deletes in ["vectors", "rewrite"] {
        let folder = Folder::new("rebuilt", &[("inputs/orders.toml", ORDERS)]);
        let define = |sql: &str, settings: &str| {
            folder.write("gold/t.sql", sql);
            let settings = format!("change_data_feed = true\ndeletes = \"{deletes}\"\n{settings}");
            folder.write("gold/t.toml", &settings);
            folder.load("lake")
        };
        let nothing = || (-1, changes::Rows::new());
        append(&folder, 0..9, 7);
        let dataflow = define("SELECT id, customer, amount FROM orders", "");
        catch_up(&dataflow, 2);
        append(&folder, 3..6, 8);
        catch_up(&dataflow, 2);
        assert!(changes::assert_feeds_make_the_tables(&dataflow) > 9);
        // Without one of its columns, all rows go and come again. Rows that were gone before must not be reported
        // again.
        let dataflow = define("SELECT id, amount FROM orders WHERE id < 8", "");
        for workers in [1, 2] {
            catch_up(&dataflow, workers);
            assert_newest_is_exact(&dataflow, "the rebuilt table");
            changes::assert_newest_follows(&dataflow, "gold.t", nothing());
        }
        append(&folder, 2..4, 9);
        catch_up(&dataflow, 1);
        changes::assert_newest_follows(&dataflow, "gold.t", nothing());
        assert_eq!(ask(&dataflow, "SELECT SUM(amount) FROM gold.t"), "62");
        // Now the table has partitions and one more column. (deltalake cannot read a feed across that change, but from
        // there on.)
        let before = changes::newest(&dataflow, "gold.t", " who=null");
        let parted = "SELECT id, amount, customer AS who FROM orders WHERE id < 8";
        let dataflow = define(parted, "partition_by = [\"amount\"]\n");
        for workers in [2, 1] {
            catch_up(&dataflow, workers);
            assert_newest_is_exact(&dataflow, "the table in partitions");
            changes::assert_newest_follows(&dataflow, "gold.t", before.clone());
        }
    }
}
