//! Lists with the semantics of PostgreSQL's arrays. `a[i]` counts from 1, and never from the end; `a[i:j]` is
//! the part that lies within the list. array_remove and array_replace apply to all equal items, the length of
//! an empty list is null, and array_to_string writes items as they are written elsewhere.
//!
//! `array_element` and `array_slice`, which PostgreSQL does not have, stay DataFusion's, and also count from
//! the end.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, StringArray, UInt32Array, make_comparator,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{SortOptions, cast, concat, take};
use arrow::datatypes::{DataType, Field, FieldRef, UInt64Type};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err, plan_err};
use datafusion::functions_nested::array_has::{array_has_all_udf, array_has_any_udf};
use datafusion::functions_nested::extract::{array_element_udf, array_slice_udf};
use datafusion::functions_nested::length::array_length_udf;
use datafusion::functions_nested::remove::{array_remove_all_udf, array_remove_udf};
use datafusion::functions_nested::replace::{array_replace_all_udf, array_replace_udf};
use datafusion::functions_nested::string::array_to_string_udf;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawFieldAccessExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, GetFieldAccess, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};

use super::super::numbers::convert;
use crate::words::sql_types;

/// The functions that have names in SQL.
pub(super) fn functions() -> [ScalarUDF; 6] {
    use Kind::*;
    [Remove, Replace, Length, Text, HasAll, HasAny].map(|kind| ScalarUDF::from(Lists::new(kind)))
}

/// Whether a type is a list.
pub(super) fn is_list(of: &DataType) -> bool {
    matches!(
        of,
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..)
    )
}

/// Plans `a[i]` and `a[i:j]`.
#[derive(Debug)]
pub(super) struct Subscripts;

impl ExprPlanner for Subscripts {
    fn plan_field_access(
        &self,
        access: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let of = access.expr.get_type(schema)?;
        let is_list = is_list(&of);
        let call = |kind, args| ScalarUDF::from(Lists::new(kind)).call(args);
        let constant = |expr: &Expr| matches!(expr, Expr::Literal(ScalarValue::Int64(Some(n)), _) if *n > 0);
        Ok(match access.field_access {
            // array_agg(...)[1] is left to DataFusion, which computes one item without gathering the others.
            GetFieldAccess::ListIndex { key }
                if is_list && !(matches!(access.expr, Expr::AggregateFunction(_)) && constant(&key)) =>
            {
                PlannerResult::Planned(call(Kind::Item, vec![access.expr, *key]))
            }
            GetFieldAccess::ListRange { start, stop, stride } if is_list && is_one(&stride) => {
                PlannerResult::Planned(call(Kind::Slice, vec![access.expr, *start, *stop]))
            }
            field_access => PlannerResult::Original(RawFieldAccessExpr { field_access, ..access }),
        })
    }
}

fn is_one(stride: &Expr) -> bool {
    matches!(stride, Expr::Literal(ScalarValue::Int64(Some(1)), _))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Item,
    Slice,
    Remove,
    Replace,
    Length,
    Text,
    /// Whether each item of the second list is in the first.
    HasAll,
    /// Whether an item is in both lists.
    HasAny,
}

/// One of the functions. Its arguments and result have the types of DataFusion's function, except that an
/// item's position may be any integer.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Lists {
    kind: Kind,
    like: Arc<ScalarUDF>,
    aliases: Vec<String>,
    signature: Signature,
}

impl Lists {
    fn new(kind: Kind) -> Lists {
        let like = match kind {
            Kind::Item => array_element_udf(),
            Kind::Slice => array_slice_udf(),
            Kind::Remove => array_remove_all_udf(),
            Kind::Replace => array_replace_all_udf(),
            Kind::Length => array_length_udf(),
            Kind::Text => array_to_string_udf(),
            Kind::HasAll => array_has_all_udf(),
            Kind::HasAny => array_has_any_udf(),
        };
        // The aliases of DataFusion's functions that these replace.
        let aliases = match kind {
            Kind::Item | Kind::Slice => vec![],
            Kind::Remove => array_remove_udf().aliases().to_vec(),
            Kind::Replace => array_replace_udf().aliases().to_vec(),
            Kind::Length | Kind::Text | Kind::HasAll | Kind::HasAny => like.aliases().to_vec(),
        };
        let signature = match kind {
            Kind::Item => Signature::user_defined(Volatility::Immutable),
            _ => like.signature().clone(),
        };
        Lists {
            kind,
            like,
            aliases,
            signature,
        }
    }
}

impl ScalarUDFImpl for Lists {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Item => "subscript",
            Kind::Slice => "slice",
            Kind::Remove => "array_remove",
            Kind::Replace => "array_replace",
            Kind::Length => "array_length",
            Kind::Text => "array_to_string",
            Kind::HasAll => "array_has_all",
            Kind::HasAny => "array_has_any",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let names: Vec<String> = args.iter().map(|arg| arg.schema_name().to_string()).collect();
        Ok(match self.kind {
            Kind::Item => format!("{}[{}]", names[0], names[1]),
            Kind::Slice => format!("{}[{}:{}]", names[0], names[1], names[2]),
            _ => format!("{}({})", self.name(), names.join(",")),
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.kind, types) {
            (Kind::Item, [list, place]) if place.is_integer() || place.is_null() => {
                Ok(vec![list.clone(), DataType::Int64])
            }
            (Kind::Item, [list, place]) => {
                let given = sql_types(&format!("{list}, {place}"));
                plan_err!("could not plan subscript({given}): it is subscript(list, BIGINT)")
            }
            _ => self.like.coerce_types(types),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.like.inner().return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let field = self.like.return_field_from_args(args)?;
        Ok(Arc::new(field.as_ref().clone().with_nullable(true)))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if self.kind == Kind::Text {
            let texts = args.args[0].to_array(args.number_rows)?;
            args.args[0] = ColumnarValue::Array(of_texts(&texts)?);
            args.arg_fields[0] = Arc::new(
                args.arg_fields[0]
                    .as_ref()
                    .clone()
                    .with_data_type(args.args[0].data_type()),
            );
            return self.like.invoke_with_args(args);
        }
        if self.kind == Kind::Length {
            let lengths = self.like.invoke_with_args(args.clone())?.into_array(args.number_rows)?;
            let lengths = lengths
                .as_primitive::<UInt64Type>()
                .unary_opt::<_, UInt64Type>(|n| (n > 0).then_some(n));
            return Ok(ColumnarValue::Array(Arc::new(lengths)));
        }
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let columns: Vec<ArrayRef> = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<_>>()?;
        if matches!(self.kind, Kind::HasAll | Kind::HasAny) {
            let contained: ArrayRef = Arc::new(contains_items(self.kind, &columns[0], &columns[1])?);
            return Ok(match is_constant {
                true => ColumnarValue::Scalar(ScalarValue::try_from_array(&contained, 0)?),
                false => ColumnarValue::Array(contained),
            });
        }
        let made = match columns[0].data_type() {
            // NULL is a list without a type.
            DataType::Null => arrow::array::new_null_array(args.return_type(), rows),
            DataType::List(_) => self.compute(&columns)?,
            DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
                let mut columns = columns.clone();
                columns[0] = cast(&columns[0], &DataType::List(field.clone()))?;
                let made = self.compute(&columns)?;
                cast(&made, args.return_type())?
            }
            other => return exec_err!("could not compute {}() of a {other}", self.name()),
        };
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?),
            false => ColumnarValue::Array(made),
        })
    }
}

impl Lists {
    fn compute(&self, columns: &[ArrayRef]) -> Result<ArrayRef> {
        let lists = columns[0].as_list::<i32>();
        let whole = |column: &ArrayRef| -> Result<Int64Array> {
            Ok(cast(column, &DataType::Int64)?
                .as_primitive::<arrow::datatypes::Int64Type>()
                .clone())
        };
        match self.kind {
            Kind::Item => items(lists, &whole(&columns[1])?),
            Kind::Slice => slices(lists, &whole(&columns[1])?, &whole(&columns[2])?),
            Kind::Remove => removed(lists, &columns[1]),
            Kind::Replace => replaced(lists, &columns[1], &columns[2]),
            Kind::Length | Kind::Text => unreachable!("DataFusion computes these"),
            Kind::HasAll | Kind::HasAny => unreachable!("what is made is no list"),
        }
    }
}

/// Whether each list has all, or any, of the items of another.
fn contains_items(kind: Kind, lists: &ArrayRef, sought: &ArrayRef) -> Result<BooleanArray> {
    if lists.data_type().is_null() || sought.data_type().is_null() {
        return Ok(BooleanArray::new_null(lists.len()));
    }
    let item = |lists: &ArrayRef| match lists.data_type() {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Ok(item.data_type().clone())
        }
        other => exec_err!("could not look for items of a {other}"),
    };
    // The items of an empty array literal have no type.
    let of = match item(lists)? {
        DataType::Null => item(sought)?,
        of => of,
    };
    let to = DataType::List(Arc::new(Field::new_list_field(of, true)));
    let (lists, sought) = (cast(lists, &to)?, cast(sought, &to)?);
    let (lists, sought) = (lists.as_list::<i32>(), sought.as_list::<i32>());
    let items = |of: &ListArray, row: usize| {
        let within = of.value_offsets()[row] as usize..of.value_offsets()[row + 1] as usize;
        let values = of.values().clone();
        within.map(move |item| values.is_valid(item).then_some(item))
    };
    let compare = make_comparator(lists.values(), sought.values(), SortOptions::default())?;
    let contains = |row: usize| {
        if lists.is_null(row) || sought.is_null(row) {
            return None;
        }
        let is_there = |item: Option<usize>| {
            item.is_some_and(|item| items(lists, row).flatten().any(|own| compare(own, item).is_eq()))
        };
        let mut sought = items(sought, row);
        Some(match kind {
            Kind::HasAll => sought.all(is_there),
            _ => sought.any(is_there),
        })
    };
    Ok((0..lists.len()).map(contains).collect())
}

/// Lists of floats or booleans, at any depth, as lists of texts; other lists as they are.
fn of_texts(lists: &ArrayRef) -> Result<ArrayRef> {
    Ok(match lists.data_type() {
        DataType::List(_) => {
            let list = lists.as_list::<i32>();
            let values = of_texts(list.values())?;
            let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
            Arc::new(ListArray::try_new(
                field,
                list.offsets().clone(),
                values,
                list.nulls().cloned(),
            )?)
        }
        DataType::Float32 | DataType::Float64 => convert(lists, &DataType::Utf8, false)?,
        DataType::Boolean => {
            let letters = lists
                .as_boolean()
                .iter()
                .map(|yes| yes.map(|yes| if yes { "t" } else { "f" }));
            Arc::new(letters.collect::<StringArray>())
        }
        _ => lists.clone(),
    })
}

fn items(lists: &ListArray, places: &Int64Array) -> Result<ArrayRef> {
    let place = |row: usize| {
        let length = i64::from(lists.value_length(row));
        let place = (lists.is_valid(row) && places.is_valid(row)).then(|| places.value(row))?;
        (1..=length)
            .contains(&place)
            .then(|| (lists.value_offsets()[row] + place as i32 - 1) as u32)
    };
    let indices: UInt32Array = (0..lists.len()).map(place).collect();
    Ok(take(lists.values(), &indices, None)?)
}

/// Lists of the items of `values` at these indices; `None` makes a null.
fn lists_of(field: FieldRef, values: &ArrayRef, picked: Vec<Option<Vec<u32>>>) -> Result<ArrayRef> {
    let nulls: NullBuffer = picked.iter().map(Option::is_some).collect();
    let offsets = OffsetBuffer::from_lengths(picked.iter().map(|list| list.as_ref().map_or(0, Vec::len)));
    let indices: UInt32Array = picked.into_iter().flatten().flatten().map(Some).collect();
    let values = take(values, &indices, None)?;
    Ok(Arc::new(ListArray::try_new(field, offsets, values, Some(nulls))?))
}

fn field_of(lists: &ListArray) -> FieldRef {
    match lists.data_type() {
        DataType::List(field) => Arc::new(field.as_ref().clone().with_nullable(true)),
        other => unreachable!("a list is of another type: {other}"),
    }
}

fn slices(lists: &ListArray, from: &Int64Array, to: &Int64Array) -> Result<ArrayRef> {
    let slice = |row: usize| {
        if lists.is_null(row) || from.is_null(row) || to.is_null(row) {
            return None;
        }
        let first = lists.value_offsets()[row];
        let (from, to) = (
            from.value(row).max(1),
            to.value(row).min(lists.value_length(row).into()),
        );
        Some((from..=to).map(|place| (i64::from(first) + place - 1) as u32).collect())
    };
    lists_of(field_of(lists), lists.values(), (0..lists.len()).map(slice).collect())
}

/// A function that tells whether an item equals the element of a row.
fn is_element<'a>(lists: &ListArray, elements: &'a ArrayRef) -> Result<impl Fn(usize, usize) -> bool + 'a> {
    let elements = match elements.data_type() == lists.values().data_type() {
        true => elements.clone(),
        false => cast(elements, lists.values().data_type())?,
    };
    let compare = make_comparator(lists.values(), &elements, SortOptions::default())?;
    Ok(move |item: usize, row: usize| compare(item, row).is_eq())
}

fn removed(lists: &ListArray, elements: &ArrayRef) -> Result<ArrayRef> {
    let is_element = is_element(lists, elements)?;
    let left = |row: usize| {
        lists.is_valid(row).then(|| {
            let items = lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize;
            items
                .filter(|item| !is_element(*item, row))
                .map(|item| item as u32)
                .collect()
        })
    };
    lists_of(field_of(lists), lists.values(), (0..lists.len()).map(left).collect())
}

fn replaced(lists: &ListArray, from: &ArrayRef, to: &ArrayRef) -> Result<ArrayRef> {
    let is_element = is_element(lists, from)?;
    let to = cast(to, lists.values().data_type())?;
    // The replacements stand after the items, one for each row.
    let all = concat(&[lists.values(), &to])?;
    let behind = lists.values().len();
    let made = |row: usize| {
        lists.is_valid(row).then(|| {
            let items = lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize;
            items
                .map(|item| if is_element(item, row) { behind + row } else { item } as u32)
                .collect()
        })
    };
    lists_of(field_of(lists), &all, (0..lists.len()).map(made).collect())
}
