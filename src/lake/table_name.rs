//! Names of tables: what a table's name in SQL says of its layer, its schema and its folder in the lake.
//!
//! ```text
//! name in SQL          layer    schema   folder
//! dead_letters         Base     public   dead_letters
//! bronze.orders        Base     bronze   bronze/orders
//! silver.order_lines   Silver   silver   silver/order_lines
//! gold.sales           Gold     gold     gold/sales
//! ```

/// The place of a table among those that are computed from one another. A table is computed from tables of its own
/// layer and of lesser ones, so commits and listings go by this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LakeLayer {
    /// Bronze and the dead letters: what arrived.
    Base,
    /// A table of `silver/`.
    Silver,
    /// A table of `gold/`.
    Gold,
}

impl LakeLayer {
    /// The layer of a table, by its name in SQL.
    pub fn of_table(table: &str) -> LakeLayer {
        match table.split_once('.') {
            Some(("silver", _)) => LakeLayer::Silver,
            Some(("gold", _)) => LakeLayer::Gold,
            _ => LakeLayer::Base,
        }
    }
}

/// The Bronze table of an input.
pub fn bronze_table(input: &str) -> String {
    format!("bronze.{input}")
}

/// The input of a Bronze table; `None` if the table is no Bronze table.
pub fn bronze_input(table: &str) -> Option<&str> {
    table.strip_prefix("bronze.")
}

/// The schema of a table and its name in that schema.
pub fn schema_and_name(table: &str) -> (&str, &str) {
    table.split_once('.').unwrap_or(("public", table))
}

/// The folder of a table, relative to the lake.
pub fn table_folder(table: &str) -> String {
    table.replacen('.', "/", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_where_a_table_belongs() {
        let names = ["dead_letters", "bronze.orders", "silver.order_lines", "gold.sales"];
        let parts = names.map(|name| {
            (
                LakeLayer::of_table(name),
                bronze_input(name),
                schema_and_name(name),
                table_folder(name),
            )
        });
        assert_eq!(
            parts,
            [
                (LakeLayer::Base, None, ("public", "dead_letters"), "dead_letters".into()),
                (
                    LakeLayer::Base,
                    Some("orders"),
                    ("bronze", "orders"),
                    "bronze/orders".into()
                ),
                (
                    LakeLayer::Silver,
                    None,
                    ("silver", "order_lines"),
                    "silver/order_lines".into()
                ),
                (LakeLayer::Gold, None, ("gold", "sales"), "gold/sales".into()),
            ]
        );
        assert_eq!(bronze_table("orders"), names[1]);
    }
}
