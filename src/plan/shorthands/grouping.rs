//! Rewrites as sets: ROLLUP and CUBE with elements of several columns, and those within GROUPING SETS.

use datafusion::sql::sqlparser::ast::Expr;

use super::{arguments, name_of};

/// The most sets to which a CUBE is expanded.
const MOST_SETS: usize = 64;

/// Rewrites an element of GROUP BY; `None` if it stays as it is.
pub(super) fn written_out(element: &Expr) -> Option<Expr> {
    match element {
        Expr::Rollup(elements) if elements.iter().any(|element| element.len() != 1) => {
            Some(Expr::GroupingSets(rollup(elements)))
        }
        Expr::Cube(elements) if elements.iter().any(|element| element.len() != 1) => {
            cube(elements).map(Expr::GroupingSets)
        }
        Expr::GroupingSets(sets) if sets.iter().any(|set| sets_of(set).is_some()) => {
            let sets = sets
                .iter()
                .flat_map(|set| sets_of(set).unwrap_or_else(|| vec![set.clone()]));
            Some(Expr::GroupingSets(sets.collect()))
        }
        _ => None,
    }
}

fn rollup(elements: &[Vec<Expr>]) -> Vec<Vec<Expr>> {
    let sets = (0..=elements.len()).rev().map(|count| elements[..count].concat());
    sets.collect()
}

fn cube(elements: &[Vec<Expr>]) -> Option<Vec<Vec<Expr>>> {
    let set = |mask: usize| {
        let chosen = elements.iter().enumerate().filter(|(n, _)| mask & (1 << n) != 0);
        chosen.flat_map(|(_, element)| element.clone()).collect()
    };
    (1 << elements.len().min(32) <= MOST_SETS).then(|| (0..1 << elements.len()).rev().map(set).collect())
}

/// The sets of a ROLLUP or CUBE within GROUPING SETS, which the parser has read as a call.
fn sets_of(set: &[Expr]) -> Option<Vec<Vec<Expr>>> {
    let [Expr::Function(function)] = set else {
        return None;
    };
    let element = |of: Expr| match of {
        Expr::Tuple(columns) => columns,
        of => vec![of],
    };
    let elements = || -> Option<Vec<Vec<Expr>>> { Some(arguments(function)?.into_iter().map(element).collect()) };
    match name_of(function)?.as_str() {
        "rollup" => Some(rollup(&elements()?)),
        "cube" => cube(&elements()?),
        _ => None,
    }
}
