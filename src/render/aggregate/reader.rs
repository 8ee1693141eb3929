//! Reads the rows of a GROUP BY: their keys, and the columns of all expressions that the aggregates use.
//!
//! Of encoded rows, only the columns that expressions need are decoded, and keys that are plain columns are cut out of
//! the bytes. Rows that arrive as columns are used as they are.

use std::sync::Arc;

use arrow::array::{ArrayRef, NullArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::physical_expr::expressions::Column;

use crate::contain::contain;
use crate::plan::Expr;
use crate::render::expr::{KernelError, column, plain_columns, relaxed};
use crate::repr::{Row, RowCodec, Splice, Update};

/// Reads rows.
pub(super) struct RowReader {
    keys: Keys,
    /// Decodes the columns that expressions read.
    codec: RowCodec,
    /// Cuts those columns out of a row; `None` if the whole row is decoded.
    cut: Option<Splice>,
    /// Expressions over the decoded columns; `None` for an expression that nothing uses.
    expressions: Vec<Option<Expr>>,
    types: Vec<DataType>,
}

/// How keys are made.
enum Keys {
    /// They are cut out of the row's bytes.
    Cut(Splice),
    /// They are encoded from the first expressions.
    Evaluated(RowCodec),
}

/// The columns of a batch, and its keys, which are stored back to back.
pub(super) struct ReadBatch {
    /// One column for each expression; null for an expression that nothing uses.
    pub columns: Vec<ArrayRef>,
    keys: Vec<u8>,
    ends: Vec<usize>,
}

impl ReadBatch {
    /// The key of a row.
    pub fn key(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.keys[start..self.ends[row]]
    }

    /// The keys of all rows.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).map(|row| self.key(row))
    }
}

impl RowReader {
    /// Reads rows of `input`, either `encoded` or as columns. The first expressions form the key; `looked_at` says
    /// which expressions are used in other ways.
    pub fn new(
        input: &SchemaRef,
        encoded: bool,
        key: RowCodec,
        expressions: Vec<(Expr, DataType)>,
        looked_at: impl Fn(usize) -> bool,
    ) -> Self {
        let groups = key.schema().fields().len();
        let (exprs, types): (Vec<Expr>, Vec<DataType>) = expressions.into_iter().unzip();
        let all: Vec<DataType> = input.fields().iter().map(|field| field.data_type().clone()).collect();
        let splice = |columns: &[usize]| {
            let columns: Vec<_> = columns.iter().map(|column| (0, *column)).collect();
            Splice::new(std::slice::from_ref(&all), &columns)
        };
        let cut = (plain_columns(&exprs[..groups], &types[..groups], input))
            .filter(|_| encoded)
            .and_then(|columns| splice(&columns));
        let needed = |index: usize| index >= groups || cut.is_none() || looked_at(index);
        let mut read: Vec<usize> = vec![];
        for (_, expr) in exprs.iter().enumerate().filter(|(index, _)| needed(*index)) {
            read.extend(columns_of(expr));
        }
        read.sort_unstable();
        read.dedup();
        let narrow = splice(&read).filter(|_| encoded && read.len() < all.len());
        if narrow.is_none() {
            read = (0..all.len()).collect();
        }
        let fields: Vec<Field> = read.iter().map(|column| input.field(*column).clone()).collect();
        let codec = RowCodec::new(relaxed(&Arc::new(Schema::new(fields))));
        RowReader {
            expressions: (exprs.iter().enumerate())
                .map(|(index, expr)| needed(index).then(|| over(expr, &read)))
                .collect(),
            types,
            codec: codec.expect("a planned node has columns of types that rows can hold"),
            cut: narrow,
            keys: cut.map_or(Keys::Evaluated(key), Keys::Cut),
        }
    }

    /// Decodes rows into the columns that expressions read.
    pub fn decode(&self, rows: &[Update]) -> RecordBatch {
        let decoded = match &self.cut {
            None => self.codec.decode(rows.iter().map(|(row, _, _)| row.bytes())),
            Some(cut) => {
                let (bytes, ends) = cut_all(cut, rows);
                let starts = std::iter::once(0).chain(ends.iter().copied());
                self.codec
                    .decode(starts.zip(&ends).map(|(start, end)| &bytes[start..*end]))
            }
        };
        decoded.expect("rows of a node are encoded with its schema")
    }

    /// Evaluates the expressions over a batch. `rows` are its encoded rows, if it has any.
    pub fn read(&self, batch: &RecordBatch, rows: &[Update]) -> Result<ReadBatch, KernelError> {
        let columns = self.columns(self.expressions.len(), batch)?;
        let (keys, ends) = self.keys(&columns, batch.num_rows(), rows)?;
        Ok(ReadBatch { columns, keys, ends })
    }

    /// The key of the only row of a batch for which some expression fails; `None` if an expression of the key fails.
    pub fn key(&self, batch: &RecordBatch, rows: &[Update]) -> Option<Row> {
        let groups = match &self.keys {
            Keys::Cut(_) => 0,
            Keys::Evaluated(codec) => codec.schema().fields().len(),
        };
        let columns = contain(|| self.columns(groups, batch)).ok()?.ok()?;
        let (key, _) = self.keys(&columns, 1, rows).ok()?;
        Some(Row::new(&key))
    }

    /// The columns of the first `count` expressions.
    fn columns(&self, count: usize, batch: &RecordBatch) -> Result<Vec<ArrayRef>, KernelError> {
        let expressions = self.expressions.iter().zip(&self.types).take(count);
        let evaluated = expressions.map(|(expr, data_type)| match expr {
            Some(expr) => column(expr, data_type, batch),
            None => Ok(Arc::new(NullArray::new(batch.num_rows())) as ArrayRef),
        });
        evaluated.collect()
    }

    /// The keys of `count` rows back to back, and where each ends.
    fn keys(&self, columns: &[ArrayRef], count: usize, rows: &[Update]) -> Result<(Vec<u8>, Vec<usize>), KernelError> {
        let codec = match &self.keys {
            Keys::Cut(cut) => return Ok(cut_all(cut, rows)),
            Keys::Evaluated(codec) => codec,
        };
        let groups = codec.schema().fields().len();
        if groups == 0 {
            return Ok((vec![], vec![0; count])); // arrow does not encode rows without columns
        }
        let (mut keys, mut ends) = (vec![], vec![]);
        for key in &codec.encode(&columns[..groups])? {
            keys.extend_from_slice(key.as_ref());
            ends.push(keys.len());
        }
        Ok((keys, ends))
    }
}

/// Cuts parts out of all rows. Returns them back to back, and where each ends.
fn cut_all(cut: &Splice, rows: &[Update]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    let ends = rows.iter().map(|(row, _, _)| {
        cut.append(&[row.bytes()], &mut bytes);
        bytes.len()
    });
    let ends = ends.collect();
    (bytes, ends)
}

/// The columns that an expression reads.
fn columns_of(expr: &Expr) -> Vec<usize> {
    let mut columns = vec![];
    let visited = expr.apply(|expr| {
        if let Some(column) = (expr.as_ref() as &dyn std::any::Any).downcast_ref::<Column>() {
            columns.push(column.index());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    visited.expect("looking at an expression does not fail");
    columns
}

/// The expression over a batch that has only these columns.
fn over(expr: &Expr, columns: &[usize]) -> Expr {
    let moved = expr.clone().transform(|expr| {
        let Some(column) = (expr.as_ref() as &dyn std::any::Any).downcast_ref::<Column>() else {
            return Ok(Transformed::no(expr));
        };
        let position = columns.iter().position(|index| *index == column.index());
        let position = position.expect("every column of the expression is read");
        Ok(Transformed::yes(Arc::new(Column::new(column.name(), position)) as Expr))
    });
    moved.expect("a column can be replaced by another").data
}
