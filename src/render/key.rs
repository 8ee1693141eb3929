//! Rows by the values of key expressions: the first half of a join, a check of keys.
//!
//! Keys are mostly columns. Those are cut out of the row's bytes, and the arrangement keeps them once: as the key, with
//! the other columns beside it. A row by any other expression is decoded, and kept whole.

use arrow::array::Array;
use arrow::datatypes::{DataType, SchemaRef};

use super::arrange::{ByKey, Rows, arrange_by_key};
use super::aside;
use super::expr::{Kernel, apply, codec_of, columns, each, plain_columns, types_of};
use crate::plan::Expr;
use crate::repr::{Nulls, Row, RowRef, Splice};

/// Rows arranged by a key.
#[derive(Clone)]
pub struct Keyed<'s> {
    /// Key to the rest of the row; see `layout`.
    pub arranged: ByKey<'s>,
    /// Rows whose key holds a null, where nulls were asked to stand aside.
    pub nulls: Rows<'s>,
    /// Rows whose key does not evaluate.
    pub errs: Rows<'s>,
    /// Where the columns are.
    pub layout: Layout,
}

/// Which columns an arrangement keeps where.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Of the key.
    pub key: Vec<DataType>,
    /// Of what is kept beside it.
    pub value: Vec<DataType>,
    /// Of each of the row's columns: whether it is beside the key (1) or in it (0), and its position there.
    pub columns: Vec<(usize, usize)>,
}

impl Layout {
    /// Whole rows beside the key.
    pub fn whole(key: Vec<DataType>, row: Vec<DataType>) -> Self {
        Layout {
            key,
            columns: (0..row.len()).map(|column| (1, column)).collect(),
            value: row,
        }
    }

    /// Of rows with these columns in their key, and the others beside it, in their order.
    fn split(types: &[DataType], key: &[usize]) -> Self {
        let mut layout = Layout {
            key: key.iter().map(|column| types[*column].clone()).collect(),
            value: vec![],
            columns: vec![],
        };
        for (column, data_type) in types.iter().enumerate() {
            layout.columns.push(match key.iter().position(|key| *key == column) {
                Some(position) => (0, position),
                None => {
                    layout.value.push(data_type.clone());
                    (1, layout.value.len() - 1)
                }
            });
        }
        layout
    }

    /// Puts rows together from key and value.
    pub fn rows(&self) -> impl Fn(RowRef<'_>, RowRef<'_>) -> Row + use<> {
        let splice = self
            .splice()
            .expect("rows are split only where they can be put together again");
        move |key, value| splice.row(&[key.bytes(), value.bytes()])
    }

    fn splice(&self) -> Option<Splice> {
        Splice::new(&[self.key.clone(), self.value.clone()], &self.columns)
    }
}

/// Arranges rows by key expressions. With `nulls_apart`, rows with a null in their key are kept out.
pub fn keyed<'s>(input: Rows<'s>, schema: &SchemaRef, keys: &[Expr], nulls_apart: bool, name: &str) -> Keyed<'s> {
    let arrange = |pairs| arrange_by_key(pairs, &format!("arrange {name}"));
    let name = format!("key {name}");
    if let Some(cut) = Cut::new(schema, keys, nulls_apart) {
        let errs = aside(&input);
        let layout = cut.layout.clone();
        let (pairs, nulls) = each(input, &name, move |row| cut.apart(row));
        return Keyed {
            arranged: arrange(pairs),
            nulls,
            errs,
            layout,
        };
    }
    let types = schema.fields().iter().map(|field| field.data_type().clone()).collect();
    let applied = apply(input, schema, &name, kernel(schema, keys, nulls_apart));
    Keyed {
        arranged: arrange(applied.main),
        nulls: applied.rest,
        errs: applied.errs,
        layout: Layout::whole(types_of(keys, schema), types),
    }
}

/// Cuts keys out of rows.
pub struct Cut {
    /// Where the columns are then.
    pub layout: Layout,
    key: Splice,
    value: Splice,
    /// None: a null is a key as any other.
    nulls: Option<Nulls>,
}

impl Cut {
    /// None: a key is not a column, or the rows have a type that cannot be cut.
    pub fn new(schema: &SchemaRef, keys: &[Expr], nulls_apart: bool) -> Option<Self> {
        let columns = plain_columns(keys, &types_of(keys, schema), schema)?;
        let types: Vec<DataType> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
        let layout = Layout::split(&types, &columns);
        layout.splice()?;
        let take = |columns: Vec<usize>| {
            let columns: Vec<_> = columns.into_iter().map(|column| (0, column)).collect();
            Splice::new(std::slice::from_ref(&types), &columns)
        };
        let rest = (0..types.len()).filter(|column| !columns.contains(column)).collect();
        let nulls = match nulls_apart {
            true => Some(Nulls::new(&layout.key)?),
            false => None,
        };
        Some(Cut {
            key: take(columns)?,
            value: take(rest)?,
            nulls,
            layout,
        })
    }

    /// Key and value; or the row, if it has a null in its key and those stand aside.
    pub fn apart(&self, row: Row) -> Result<(Row, Row), Row> {
        let key = self.key.row(&[row.bytes()]);
        if self.nulls.as_ref().is_some_and(|nulls| nulls.any(key.bytes())) {
            return Err(row);
        }
        Ok((key, self.value.cut(row)))
    }
}

/// Computes keys of decoded rows.
pub fn kernel(schema: &SchemaRef, keys: &[Expr], nulls_apart: bool) -> Kernel<(Row, Row)> {
    let keys = keys.to_vec();
    let types = types_of(&keys, schema);
    let codec = codec_of(&types);
    Box::new(move |batch, updates, outputs| {
        let columns = columns(&keys, &types, batch)?;
        let rows = codec.encode_rows(&columns, batch.num_rows())?;
        let with_nulls: Vec<_> = columns
            .iter()
            .filter(|c| nulls_apart && c.logical_null_count() > 0)
            .filter_map(|c| c.logical_nulls())
            .collect();
        for (index, (key, (row, time, diff))) in rows.into_iter().zip(updates).enumerate() {
            let row = std::mem::take(row);
            if with_nulls.iter().any(|nulls| nulls.is_null(index)) {
                outputs.rest.push((row, *time, *diff));
            } else {
                outputs.main.push(((key, row), *time, *diff));
            }
        }
        Ok(())
    })
}
