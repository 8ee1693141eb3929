//! Orders of rows.

use std::cmp::Ordering;

use datafusion::sql::sqlparser::ast::OrderByOptions;

use super::value::Value;

/// Which way a column of an order goes, and where its NULLs are: behind all others, unless it descends or the SQL says so.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub descending: bool,
    pub nulls_first: bool,
}

/// Upwards, NULLs last.
pub const UPWARDS: Way = Way {
    descending: false,
    nulls_first: false,
};

impl Way {
    /// As SQL says it.
    pub fn new(options: &OrderByOptions) -> Way {
        let descending = options.asc == Some(false);
        Way {
            descending,
            nulls_first: options.nulls_first.unwrap_or(descending),
        }
    }

    /// Which of two values comes first.
    pub fn compare(self, a: &Value, b: &Value) -> Ordering {
        let nulls = if self.nulls_first {
            Ordering::Less
        } else {
            Ordering::Greater
        };
        match (a.is_null(), b.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) => nulls,
            (false, true) => nulls.reverse(),
            (false, false) => {
                let order = a.compare(b).unwrap_or(Ordering::Equal);
                if self.descending { order.reverse() } else { order }
            }
        }
    }
}

/// Which of two rows of keys comes first.
pub fn compare(ways: &[Way], a: &[Value], b: &[Value]) -> Ordering {
    let each = ways.iter().zip(a.iter().zip(b));
    each.map(|(way, (a, b))| way.compare(a, b))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}
