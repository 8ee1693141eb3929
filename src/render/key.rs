//! Arranges rows by the values of key expressions, for joins and checks of keys.
//!
//! Keys are mostly plain columns. Those are cut out of the row's bytes, and the arrangement stores them only once: in
//! the key, with the other columns as the value. For any other key expression, the row is decoded, and the value is
//! the whole row.

use arrow::array::Array;
use arrow::datatypes::{DataType, SchemaRef};

use super::arrange::{ByKey, arrange_by_key};
use super::aside;
use super::expr::{RowKernel, apply, codec_of, columns, each, plain_columns, types_of};
use crate::plan::Expr;
use crate::repr::{Nulls, Row, RowRef, Rows, Splice};

/// Rows arranged by a key.
#[derive(Clone)]
pub struct KeyedRows<'s> {
    /// The arrangement, whose keys and values `layout` describes.
    pub arranged: ByKey<'s>,
    /// Rows with a null in their key, if they are kept apart.
    pub nulls: Rows<'s>,
    /// Error rows of rows whose key could not be evaluated.
    pub errs: Rows<'s>,
    /// Where the row's columns are in key and value.
    pub layout: KeyColumnLayout,
}

/// Where an arrangement stores the columns of its rows.
#[derive(Clone, Debug)]
pub struct KeyColumnLayout {
    /// The types of the key's columns.
    pub key: Vec<DataType>,
    /// The types of the value's columns.
    pub value: Vec<DataType>,
    /// For each column of the row: whether it is in the key (0) or in the value (1), and its position there.
    pub columns: Vec<(usize, usize)>,
}

impl KeyColumnLayout {
    /// The layout with whole rows as values.
    pub fn whole(key: Vec<DataType>, row: Vec<DataType>) -> Self {
        KeyColumnLayout {
            key,
            columns: (0..row.len()).map(|column| (1, column)).collect(),
            value: row,
        }
    }

    /// The layout with these columns in the key, and the other columns, in their order, in the value.
    fn split(types: &[DataType], key: &[usize]) -> Self {
        let mut layout = KeyColumnLayout {
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

    /// Returns a function that assembles rows from key and value.
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

/// Arranges rows by key expressions. With `nulls_apart`, rows with a null in their key are not arranged.
pub fn keyed<'s>(input: Rows<'s>, schema: &SchemaRef, keys: &[Expr], nulls_apart: bool, name: &str) -> KeyedRows<'s> {
    let arrange = |pairs| arrange_by_key(pairs, &format!("arrange {name}"));
    let name = format!("key {name}");
    if let Some(cut) = KeyCutter::new(schema, keys, nulls_apart) {
        let errs = aside(&input);
        let layout = cut.layout.clone();
        let (pairs, nulls) = each(input, &name, move |row| cut.split_key(row));
        return KeyedRows {
            arranged: arrange(pairs),
            nulls,
            errs,
            layout,
        };
    }
    let types = schema.fields().iter().map(|field| field.data_type().clone()).collect();
    let applied = apply(input, schema, &name, kernel(schema, keys, nulls_apart));
    KeyedRows {
        arranged: arrange(applied.main),
        nulls: applied.rest,
        errs: applied.errs,
        layout: KeyColumnLayout::whole(types_of(keys, schema), types),
    }
}

/// Cuts rows into key and value.
pub struct KeyCutter {
    /// The layout of key and value.
    pub layout: KeyColumnLayout,
    key: Splice,
    value: Splice,
    /// Finds nulls in keys; `None` if a null counts as an ordinary key.
    nulls: Option<Nulls>,
}

impl KeyCutter {
    /// `None` if a key is not a plain column, or if the rows have a column of a type that cannot be cut out.
    pub fn new(schema: &SchemaRef, keys: &[Expr], nulls_apart: bool) -> Option<Self> {
        let columns = plain_columns(keys, &types_of(keys, schema), schema)?;
        let types: Vec<DataType> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
        let layout = KeyColumnLayout::split(&types, &columns);
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
        Some(KeyCutter {
            key: take(columns)?,
            value: take(rest)?,
            nulls,
            layout,
        })
    }

    /// Splits a row into key and value. Returns it as `Err` if its key has a null and such rows are kept apart.
    pub fn split_key(&self, row: Row) -> Result<(Row, Row), Row> {
        let key = self.key.row(&[row.bytes()]);
        if self.nulls.as_ref().is_some_and(|nulls| nulls.any(key.bytes())) {
            return Err(row);
        }
        Ok((key, self.value.cut(row)))
    }
}

/// Evaluates the keys of decoded rows.
pub fn kernel(schema: &SchemaRef, keys: &[Expr], nulls_apart: bool) -> RowKernel<(Row, Row)> {
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
