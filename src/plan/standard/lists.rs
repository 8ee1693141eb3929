//! Lists as PostgreSQL has arrays: `a[i]` counts from 1 and never from the end, `a[i:j]` is what lies within, array_remove
//! and array_replace mean all items that are equal, a list without items has no length, and items are written as elsewhere.
//!
//! `array_element` and `array_slice`, which PostgreSQL has not, stay DataFusion's: they count from the end, too.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StringArray, UInt32Array, make_comparator};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{SortOptions, cast, concat, take};
use arrow::datatypes::{DataType, Field, FieldRef, UInt64Type};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err};
use datafusion::functions_nested::extract::{array_element_udf, array_slice_udf};
use datafusion::functions_nested::length::array_length_udf;
use datafusion::functions_nested::remove::{array_remove_all_udf, array_remove_udf};
use datafusion::functions_nested::replace::{array_replace_all_udf, array_replace_udf};
use datafusion::functions_nested::string::array_to_string_udf;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawFieldAccessExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, GetFieldAccess, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature,
};

use super::super::numbers::convert;

/// Those that have names.
pub(super) fn functions() -> [ScalarUDF; 4] {
    [Kind::Remove, Kind::Replace, Kind::Length, Kind::Text].map(|kind| ScalarUDF::from(Lists::new(kind)))
}

/// Whether values of a type are lists.
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
            // One item of array_agg is known without the others.
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
}

/// One of these; what it takes and returns is as of DataFusion's.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Lists {
    kind: Kind,
    like: Arc<ScalarUDF>,
    aliases: Vec<String>,
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
        };
        // The names by which DataFusion calls the functions in whose places these are.
        let aliases = match kind {
            Kind::Item | Kind::Slice => vec![],
            Kind::Remove => array_remove_udf().aliases().to_vec(),
            Kind::Replace => array_replace_udf().aliases().to_vec(),
            Kind::Length | Kind::Text => like.aliases().to_vec(),
        };
        Lists { kind, like, aliases }
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
        self.like.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.like.coerce_types(types)
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
        let made = match columns[0].data_type() {
            // NULL is a list of no type.
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
        }
    }
}

/// Lists of doubles and of truth values, however deep, as those of texts; others as they are.
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

/// The lists of these items of `values`, some of them null.
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

/// Whether an item of the lists' values is the element of a row.
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
    let kept = |row: usize| {
        lists.is_valid(row).then(|| {
            let items = lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize;
            items
                .filter(|item| !is_element(*item, row))
                .map(|item| item as u32)
                .collect()
        })
    };
    lists_of(field_of(lists), lists.values(), (0..lists.len()).map(kept).collect())
}

fn replaced(lists: &ListArray, from: &ArrayRef, to: &ArrayRef) -> Result<ArrayRef> {
    let is_element = is_element(lists, from)?;
    let to = cast(to, lists.values().data_type())?;
    // What takes their places stands behind the items.
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
