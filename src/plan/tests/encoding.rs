//! Golden forms, on which the identity of stored state depends.

use std::sync::Arc;

use arrow::array::{Int64Array, ListArray, StructArray};
use arrow::datatypes::{DataType, Field, Int64Type, TimeUnit};
use datafusion::scalar::ScalarValue;

use super::fixture::{golden, planned};
use crate::plan::encoding::{data_type, value};
use crate::plan::share::op_form;

/// If a form changes, every lake computes its past again: raise `encoding::VERSION` then.
#[test]
fn operators_and_expressions_have_the_forms_that_they_had() {
    let cases = include_str!("explain.txt")
        .split("\n\n")
        .filter(|case| !case.trim().is_empty());
    let mut forms = String::new();
    for case in cases {
        let sql = case
            .split("\n=> ")
            .next()
            .expect("a case begins with its SQL")
            .trim_end();
        forms.push_str(&format!("{sql}\n"));
        for node in &planned(sql).nodes {
            forms.push_str(&format!("=> {}\n", op_form(&node.op)));
        }
        forms.push('\n');
    }
    golden("encoding.txt", &forms);
    assert!(
        !forms.contains("(foreign"),
        "a kind of expression has no form of its own"
    );
}

#[test]
fn values_tell_types_and_contents_apart() {
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None])]);
    let field = Arc::new(Field::new("a b", DataType::Int64, true));
    let row = StructArray::from(vec![(field, Arc::new(Int64Array::from(vec![7])) as _)]);
    let values = [
        (ScalarValue::Int64(Some(1)), "(value int64 1)"),
        (ScalarValue::Int32(Some(1)), "(value int32 1)"),
        (ScalarValue::Int64(None), "(value int64 null)"),
        (ScalarValue::Utf8(Some("1".into())), "(value text \"1\")"),
        (ScalarValue::Utf8(Some("null".into())), "(value text \"null\")"),
        (
            ScalarValue::Utf8(Some("a\"\n) 😀".into())),
            "(value text \"a\\\"\\n) 😀\")",
        ),
        (ScalarValue::Float64(Some(0.1)), "(value float64 3fb999999999999a)"),
        (ScalarValue::Float64(Some(-0.0)), "(value float64 8000000000000000)"),
        (
            ScalarValue::Decimal128(Some(-1610), 10, 2),
            "(value (decimal128 10 2) -1610)",
        ),
        (ScalarValue::Binary(Some(vec![0, 255])), "(value bytes 00ff)"),
        (
            ScalarValue::TimestampMicrosecond(Some(-1), Some("Asia/Kolkata".into())),
            "(value (timestamp us \"Asia/Kolkata\") -1)",
        ),
        (
            ScalarValue::new_interval_mdn(1, -2, 3),
            "(value (interval months-days) (1 -2 3))",
        ),
        (
            ScalarValue::List(Arc::new(list)),
            "(value (list (nullable int64)) (items 1 null))",
        ),
        (
            ScalarValue::Struct(Arc::new(row)),
            "(value (struct (\"a b\" (nullable int64))) (row 7))",
        ),
    ];
    for (of, form) in values {
        assert_eq!(value(&of), form);
    }
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    assert_ne!(
        data_type(&nanos),
        data_type(&DataType::Timestamp(TimeUnit::Microsecond, None))
    );
}
