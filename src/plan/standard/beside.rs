//! Helpers for UNNEST in FROM. `list_positions(a, b)` numbers the rows that the lists yield together, from 1.
//! `list_or_null(a, b)` is `a`, or a list of one null if none of the lists has an item, so that a row remains.
//! `list_positions_or_null(a, b)` numbers the rows of the latter.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Builder, ListBuilder, new_null_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::lists::is_list;

pub(super) fn functions() -> [ScalarUDF; 3] {
    [Kind::Positions, Kind::PositionsOrNull, Kind::OrNull].map(|kind| {
        ScalarUDF::from(Beside {
            kind,
            signature: Signature::variadic_any(Volatility::Immutable),
        })
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Positions,
    PositionsOrNull,
    OrNull,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Beside {
    kind: Kind,
    signature: Signature,
}

impl ScalarUDFImpl for Beside {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Positions => "list_positions",
            Kind::PositionsOrNull => "list_positions_or_null",
            Kind::OrNull => "list_or_null",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        for of in types {
            if !is_list(of) && !of.is_null() {
                return plan_err!("unnest() can only be applied to array, struct and null");
            }
        }
        Ok(match (self.kind, types.first()) {
            (
                Kind::OrNull,
                Some(DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item)),
            ) => DataType::List(Arc::new(item.as_ref().clone().with_nullable(true))),
            (Kind::OrNull, _) => DataType::Null,
            _ => DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true))),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let columns = args
            .args
            .iter()
            .map(|arg| arg.to_array(rows))
            .collect::<Result<Vec<_>>>()?;
        let lengths: Vec<Option<ArrayRef>> = columns.iter().map(|column| as_list(column)).collect::<Result<_>>()?;
        let longest = |row: usize| -> usize {
            let each = lengths.iter().flatten().map(|column| {
                let lists = column.as_list::<i32>();
                if lists.is_null(row) {
                    0
                } else {
                    lists.value_length(row) as usize
                }
            });
            each.max().unwrap_or(0)
        };
        if self.kind == Kind::OrNull {
            let Some(first) = &lengths[0] else {
                return Ok(ColumnarValue::Array(new_null_array(&DataType::Null, rows)));
            };
            return Ok(ColumnarValue::Array(or_null(first, args.return_type(), |row| {
                longest(row) == 0
            })?));
        }
        let mut made = ListBuilder::new(Int64Builder::new());
        for row in 0..rows {
            match longest(row) {
                0 if self.kind == Kind::PositionsOrNull => made.values().append_null(),
                count => (1..=count as i64).for_each(|n| made.values().append_value(n)),
            }
            made.append(true);
        }
        Ok(ColumnarValue::Array(Arc::new(made.finish())))
    }
}

/// A list of any kind as a plain list; `None` for a NULL without a type.
fn as_list(column: &ArrayRef) -> Result<Option<ArrayRef>> {
    Ok(match column.data_type() {
        DataType::List(_) => Some(column.clone()),
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Some(cast(column, &DataType::List(item.clone()))?)
        }
        _ => None,
    })
}

fn or_null(lists: &ArrayRef, of: &DataType, is_empty: impl Fn(usize) -> bool) -> Result<ArrayRef> {
    let lists = lists.as_list::<i32>();
    let values = lists.values();
    // Appends one null to the items, to which rows without items point.
    let items = concat(&[values.as_ref(), new_null_array(values.data_type(), 1).as_ref()])?;
    let null = values.len() as u32;
    let mut taken: Vec<u32> = Vec::with_capacity(values.len());
    let mut lengths = Vec::with_capacity(lists.len());
    let mut valid = Vec::with_capacity(lists.len());
    for row in 0..lists.len() {
        let before = taken.len();
        let empty = is_empty(row);
        if empty {
            taken.push(null);
        } else if lists.is_valid(row) {
            let offsets = lists.value_offsets();
            taken.extend(offsets[row] as u32..offsets[row + 1] as u32);
        }
        valid.push(empty || lists.is_valid(row));
        lengths.push(taken.len() - before);
    }
    let items = take(&items, &arrow::array::UInt32Array::from(taken), None)?;
    let item = match of {
        DataType::List(item) => item.clone(),
        other => Arc::new(Field::new_list_field(other.clone(), true)),
    };
    let offsets = OffsetBuffer::from_lengths(lengths);
    let made = arrow::array::ListArray::try_new(item, offsets, items, Some(NullBuffer::from(valid)))?;
    Ok(Arc::new(made))
}
