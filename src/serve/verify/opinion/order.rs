//! Orders of rows.

use std::cmp::Ordering;

use datafusion::sql::sqlparser::ast::OrderByOptions;

use super::value::Scalar;

/// The direction of a sort column, and the place of its NULLs: by default last, or first if it descends.
#[derive(Clone, Copy, Debug)]
pub struct SortDirection {
    pub descending: bool,
    pub nulls_first: bool,
}

/// Ascending, NULLs last.
pub const UPWARDS: SortDirection = SortDirection {
    descending: false,
    nulls_first: false,
};

impl SortDirection {
    /// The direction that an ORDER BY item specifies.
    pub fn new(options: &OrderByOptions) -> SortDirection {
        let descending = options.asc == Some(false);
        SortDirection {
            descending,
            nulls_first: options.nulls_first.unwrap_or(descending),
        }
    }

    /// Compares two values in this direction.
    pub fn compare(self, a: &Scalar, b: &Scalar) -> Ordering {
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

/// Compares the sort keys of two rows.
pub fn compare(ways: &[SortDirection], a: &[Scalar], b: &[Scalar]) -> Ordering {
    let each = ways.iter().zip(a.iter().zip(b));
    each.map(|(way, (a, b))| way.compare(a, b))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}
