//! The tables of a question, for Alluvium and PostgreSQL alike. `sql.json` beside the checkout and `found.json` use
//! the same format: columns in SQL, rows in column order.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// A key that inputs have in addition, so that rows of any kind can be deleted. No statement sees it.
const KEY: &str = "row_no";
/// Another additional column: whether the row temporarily has the values of another one. It shows which commits hold
/// which updates.
pub const UPDATED: &str = "row_updated";

/// A change of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Add,
    Delete,
    /// The row takes the values of another row.
    Become(usize),
    /// The row takes its own values back.
    Restore,
}

/// A column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    /// Alluvium's name of the type: `DOUBLE`, `DECIMAL(12,2)`.
    pub sql_type: String,
    pub nullable: bool,
}

/// A table with its rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// Parses columns like `id BIGINT NOT NULL, d DECIMAL(12,2)`, and rows.
    pub fn parse(name: &str, columns: &str, rows: &Value) -> Table {
        let column = |text: &str| {
            let (name, of) = text.split_once(' ').expect("a column has a name and a type");
            let sql_type = of.trim_end_matches(" NOT NULL");
            Column {
                name: name.to_string(),
                sql_type: sql_type.to_string(),
                nullable: sql_type == of,
            }
        };
        let row = |row: &Value| row.as_array().expect("a row is a list").clone();
        Table {
            name: name.to_string(),
            columns: columns.split(", ").map(column).collect(),
            rows: rows.as_array().expect("rows are a list").iter().map(row).collect(),
        }
    }

    /// The columns in the form that [`parse`](Table::parse) reads.
    pub fn columns_in_sql(&self) -> String {
        let shown = |c: &Column| format!("{} {}{}", c.name, c.sql_type, if c.nullable { "" } else { " NOT NULL" });
        self.columns.iter().map(shown).collect::<Vec<_>>().join(", ")
    }

    /// The column names, as in a SELECT list.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|c| c.name.as_str()).collect();
        names.join(", ")
    }

    /// The definition of an input that holds the rows.
    pub fn input(&self, name: &str) -> String {
        let mut toml = format!(
            "key = [\"{KEY}\"]\n[columns]\n{KEY} = {{ type = \"BIGINT\", nullable = false }}\n\
             {UPDATED} = {{ type = \"BIGINT\", nullable = false }}\n"
        );
        for Column {
            name,
            sql_type,
            nullable,
        } in &self.columns
        {
            let _ = writeln!(toml, "{name} = {{ type = \"{sql_type}\", nullable = {nullable} }}");
        }
        let _ = write!(
            toml,
            "[[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live/{name}\"\nformat = \"debezium-json\"\n"
        );
        toml
    }

    /// The record in the input's log for a change of a row.
    pub fn record(&self, row: usize, change: Change) -> String {
        let image = |values: usize| {
            let mut image = serde_json::Map::new();
            image.insert(KEY.to_string(), json!(row));
            image.insert(UPDATED.to_string(), json!(u8::from(values != row)));
            for (column, value) in self.columns.iter().zip(&self.rows[values]) {
                image.insert(column.name.clone(), value.clone());
            }
            Value::Object(image)
        };
        let (op, before, after) = match change {
            Change::Add => ("c", Value::Null, image(row)),
            Change::Delete => ("d", image(row), Value::Null),
            Change::Become(other) => ("u", image(row), image(other)),
            // Debezium leaves `before` out if a table's replica identity is its key.
            Change::Restore => ("u", Value::Null, image(row)),
        };
        let change = json!({"op": op, "before": before, "after": after, "ts_ms": 1});
        format!("{}\n", json!({"key": {KEY: row}, "value": change}))
    }
}
