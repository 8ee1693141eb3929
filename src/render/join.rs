//! Equi-joins. A joined row is assembled from the bytes of the key and of the values of the two sides, so rows are
//! copied and never decoded. A projection behind the join is part of that copy.
//!
//! Outer, semi and anti joins also need to know which rows match. Without a residual these are the rows whose key is
//! present on the other side; with a residual, the distinct left (or right) parts of the pairs that pass it. Unmatched
//! rows are all rows minus the matched ones, with their counts. Rows with a null key never match, unless nulls are
//! equal to each other, and are unmatched.

use arrow::array::{ArrayRef, BooleanArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

use super::arrange::{self, ByKey, Match, arrange_by_key, arrange_rows};
use super::expr::{RowKernel, apply, codec_of};
use super::key::{KeyColumnLayout, KeyedRows};
use super::mfp::mfp;
use super::{Collections, aside};
use crate::plan::{Expr, Join, JoinKind, Mfp};
use crate::repr::{Row, RowCodec, Rows, Splice};

/// One side of a join.
pub struct JoinSide<'s> {
    /// The rows of this side, arranged by the join's key.
    pub keyed: KeyedRows<'s>,
    /// The schema of this side's rows.
    pub schema: SchemaRef,
}

/// An inner join without a residual that outputs only these columns of left ++ right. `None` if their types do not
/// allow that, so that whole rows have to be joined first.
pub fn join_columns<'s>(left: &JoinSide<'s>, right: &JoinSide<'s>, columns: &[usize]) -> Option<Collections<'s>> {
    let emit = emit(&left.keyed.layout, &right.keyed.layout, columns)?;
    Some(Collections {
        oks: arrange::join(left.keyed.arranged.clone(), right.keyed.arranged.clone(), emit),
        errs: left.keyed.errs.clone().concat(right.keyed.errs.clone()),
    })
}

/// The [`Match`] that assembles these columns of left ++ right; `None` if their types do not allow that.
pub fn emit(left: &KeyColumnLayout, right: &KeyColumnLayout, columns: &[usize]) -> Option<Match> {
    // The key, and the values of the two sides.
    let sources = [left.key.clone(), left.value.clone(), right.value.clone()];
    let all: Vec<(usize, usize)> = (left.columns.iter().copied())
        .chain(right.columns.iter().map(|(beside, column)| (2 * beside, *column)))
        .collect();
    let picked: Vec<_> = columns.iter().map(|column| all[*column]).collect();
    let splice = Splice::new(&sources, &picked)?;
    Some(Box::new(move |key, left, right| {
        splice.row(&[key.bytes(), left.bytes(), right.bytes()])
    }))
}

/// Joins two sides. The caller adds the errors of the inputs themselves.
pub fn join<'s>(left: JoinSide<'s>, right: JoinSide<'s>, plan: &Join, name: &str) -> Collections<'s> {
    let mut errs = left.keyed.errs.clone().concat(right.keyed.errs.clone());
    let width = left.schema.fields().len();
    let all = width + right.schema.fields().len();
    let needs_pairs = plan.residual.is_some()
        || matches!(
            plan.kind,
            JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full
        );
    let pairs = needs_pairs.then(|| {
        let whole: Vec<usize> = (0..all).collect();
        let emit = emit(&left.keyed.layout, &right.keyed.layout, &whole)
            .expect("rows are split only where they can be put together again");
        let pairs = arrange::join(left.keyed.arranged.clone(), right.keyed.arranged.clone(), emit);
        match &plan.residual {
            None => pairs,
            Some(residual) => {
                let passed = residual_filter(pairs, &left, &right, residual, name);
                errs = errs.clone().concat(passed.errs);
                passed.oks
            }
        }
    });
    // The rows of a side that match, with their counts.
    let matched =
        |side: &JoinSide<'s>, other: &JoinSide<'s>, columns: std::ops::Range<usize>| match (&plan.residual, &pairs) {
            (Some(_), Some(pairs)) => among(side, parts(pairs.clone(), &left, &right, columns, name), name),
            _ => present(side, other, name),
        };
    let matched_left = || matched(&left, &right, 0..width);
    let unmatched_left = || {
        rows(&left)
            .concat(matched_left().negate())
            .concat(left.keyed.nulls.clone())
    };
    let padded_left = || {
        let nulls = nulls(&right.schema);
        unmatched_left().map(move |row| Row::concat(row.bytes(), nulls.bytes()))
    };
    let padded_right = || {
        let nulls = nulls(&left.schema);
        rows(&right)
            .concat(matched(&right, &left, width..all).negate())
            .concat(right.keyed.nulls.clone())
            .map(move |row| Row::concat(nulls.bytes(), row.bytes()))
    };
    let inner = || pairs.clone().expect("joins that yield pairs make them");
    let oks = match plan.kind {
        JoinKind::Inner => inner(),
        JoinKind::Left => inner().concat(padded_left()),
        JoinKind::Right => inner().concat(padded_right()),
        JoinKind::Full => inner().concat(padded_left()).concat(padded_right()),
        JoinKind::LeftSemi => matched_left(),
        JoinKind::LeftAnti => unmatched_left(),
        JoinKind::LeftMark => {
            let (yes, no) = marks();
            let matched = matched_left();
            let unmatched = rows(&left)
                .concat(matched.clone().negate())
                .concat(left.keyed.nulls.clone());
            matched
                .map(move |row| Row::concat(row.bytes(), yes.bytes()))
                .concat(unmatched.map(move |row| Row::concat(row.bytes(), no.bytes())))
        }
    };
    Collections { oks, errs }
}

fn residual_filter<'s>(
    pairs: Rows<'s>,
    left: &JoinSide<'s>,
    right: &JoinSide<'s>,
    residual: &Expr,
    name: &str,
) -> Collections<'s> {
    let schema = both(&left.schema, &right.schema);
    let plan = Mfp {
        predicates: vec![residual.clone()],
        projection: None,
    };
    let input = Collections {
        errs: aside(&pairs),
        oks: pairs,
    };
    mfp(input, &schema, &schema, &plan, &format!("{name}: residual"))
}

/// The schema of left ++ right.
pub fn both(left: &SchemaRef, right: &SchemaRef) -> SchemaRef {
    let fields = left.fields().iter().chain(right.fields());
    let fields: Vec<Field> = fields.map(|f| f.as_ref().clone()).collect();
    Arc::new(Schema::new(fields))
}

/// All rows of a side with their counts, except for those with null keys.
fn rows<'s>(side: &JoinSide<'s>) -> Rows<'s> {
    let row = side.keyed.layout.rows();
    side.keyed.arranged.clone().as_collection(row)
}

/// The distinct keys of a side.
pub fn keys<'s>(side: &KeyedRows<'s>, name: &str) -> ByKey<'s> {
    let keys = arrange::scan(
        side.arranged.clone(),
        &format!("{name}: keys"),
        Box::new(|key, values, output| {
            if values.next().is_some() {
                output.push((key.to_row(), 1));
            }
        }),
    );
    arrange_by_key(keys.map(|key| (key, Row::default())), &format!("{name}: keys"))
}

/// The rows of `side` whose key is present on the other side, with their counts.
fn present<'s>(side: &JoinSide<'s>, other: &JoinSide<'s>, name: &str) -> Rows<'s> {
    let keys = keys(&other.keyed, name);
    let row = side.keyed.layout.rows();
    arrange::join(
        side.keyed.arranged.clone(),
        keys,
        Box::new(move |key, value, _| row(key, value)),
    )
}

/// The rows of a side that are among `parts`, with their own counts.
fn among<'s>(side: &JoinSide<'s>, parts: Rows<'s>, name: &str) -> Rows<'s> {
    let distinct = arrange::distinct(
        arrange_rows(parts, &format!("{name}: matched")),
        &format!("{name}: matched"),
    );
    let distinct = arrange_by_key(distinct.map(|row| (row, Row::default())), &format!("{name}: matched"));
    let all = arrange_by_key(rows(side).map(|row| (row, Row::default())), &format!("{name}: rows"));
    arrange::join(all, distinct, Box::new(|row, _, _| row.to_row()))
}

/// One side's columns of joined rows.
fn parts<'s>(
    pairs: Rows<'s>,
    left: &JoinSide<'s>,
    right: &JoinSide<'s>,
    columns: std::ops::Range<usize>,
    name: &str,
) -> Rows<'s> {
    let schema = both(&left.schema, &right.schema);
    apply(pairs, &schema, &format!("{name}: parts"), part(&schema, columns)).main
}

/// Projects joined rows to a range of columns.
pub fn part(schema: &SchemaRef, columns: std::ops::Range<usize>) -> RowKernel<Row> {
    let types: Vec<DataType> = schema.fields()[columns.clone()]
        .iter()
        .map(|f| f.data_type().clone())
        .collect();
    let codec = codec_of(&types);
    Box::new(move |batch, updates, outputs| {
        let rows = codec.encode_rows(&batch.columns()[columns.clone()], batch.num_rows())?;
        let made = rows
            .into_iter()
            .zip(updates)
            .map(|(row, (_, time, diff))| (row, *time, *diff));
        outputs.main.extend(made);
        Ok(())
    })
}

/// The row of this schema in which every column is null.
pub fn nulls(schema: &SchemaRef) -> Row {
    let codec = RowCodec::new(schema.clone()).expect("a planned schema has a row encoding");
    let columns: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .map(|f| new_null_array(f.data_type(), 1))
        .collect();
    codec
        .encode_rows(&columns, 1)
        .expect("nulls have a row encoding")
        .swap_remove(0)
}

/// The encoded rows (true) and (false).
pub fn marks() -> (Row, Row) {
    let codec = codec_of(&[DataType::Boolean]);
    let mut rows = codec
        .encode_rows(&[Arc::new(BooleanArray::from(vec![true, false]))], 2)
        .expect("booleans have a row encoding");
    let no = rows.pop().expect("two rows were encoded");
    (rows.pop().expect("two rows were encoded"), no)
}
