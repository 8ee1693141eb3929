//! What treats rows as members of a set: DISTINCT, UNION ALL, EXCEPT and INTERSECT.

use differential_dataflow::collection::concatenate;
use timely::dataflow::Scope;

use super::{Collections, arrange};
use crate::plan::SetKind;
use crate::repr::{Epoch, Rows};

/// Each row once.
///
/// Errors have to be distinct, too: otherwise a chain of UNIONs over one bad row would double its dead letter at each
/// of them.
pub fn distinct<'s>(input: Collections<'s>, name: &str) -> Collections<'s> {
    let distinct = |rows: Rows<'s>, name: &str| {
        let arranged = arrange::arrange_rows(rows, &format!("arrange {name}"));
        arrange::distinct(arranged, name)
    };
    Collections {
        oks: distinct(input.oks, name),
        errs: distinct(input.errs, &format!("errors of {name}")),
    }
}

/// All rows of all inputs.
pub fn union<'s>(scope: Scope<'s, Epoch>, inputs: Vec<Collections<'s>>) -> Collections<'s> {
    let (oks, errs): (Vec<_>, Vec<_>) = inputs.into_iter().map(|input| (input.oks, input.errs)).unzip();
    Collections {
        oks: concatenate(scope, oks),
        errs: concatenate(scope, errs),
    }
}

/// EXCEPT ALL and INTERSECT ALL, as arithmetic on counts: a row that is `l` times on the left and `r` times on the
/// right is `max(l - r, 0)` times in EXCEPT, and `l` minus that many times in INTERSECT.
pub fn counted<'s>(kind: &SetKind, left: Collections<'s>, right: Collections<'s>, name: &str) -> Collections<'s> {
    let difference = left.oks.clone().concat(right.oks.negate());
    let balance = arrange::arrange_rows(difference, &format!("arrange {name}"));
    let more = arrange::counted(balance, name, |count| count.max(0));
    Collections {
        oks: match kind {
            SetKind::Except => more,
            SetKind::Intersect => left.oks.concat(more.negate()),
        },
        errs: left.errs.concat(right.errs),
    }
}
