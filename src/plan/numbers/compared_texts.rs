//! Reads a literal text that is compared with numbers or booleans as a number or boolean, as PostgreSQL does. A text that
//! cannot be read is refused when the query is planned, because otherwise every row would fail. `times` does the same for
//! texts beside dates and timestamps.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::logical_expr::{Expr, ExprSchemable};

use super::convert::{self, name_of};
use super::literals;
use super::types::{is_number, shape};

/// Replaces the literal texts among operands that are compared; operands of other types stay as they are. Returns
/// whether any operand changed, and fails if a text cannot be read.
pub(super) fn read_literals(operands: &mut [&mut Expr], schema: &DFSchema) -> Result<bool> {
    if !operands.iter().any(|operand| literal_text(operand).is_some()) {
        return Ok(false);
    }
    let typed = operands.iter().filter(|operand| literal_text(operand).is_none());
    let typed = typed.map(|operand| Ok((operand.schema_name().to_string(), operand.get_type(schema)?)));
    let Ok(mut typed) = typed.collect::<Result<Vec<_>>>() else {
        return Ok(false); // DataFusion has the better error
    };
    typed.retain(|(_, of)| !of.is_null());
    let types: Vec<DataType> = typed.iter().map(|(_, of)| of.clone()).collect();
    let Some(to) = LiteralType::beside(&types) else {
        return Ok(false);
    };
    let mut changed = false;
    for operand in operands {
        let Some(text) = literal_text(operand) else { continue };
        let Some(value) = to.read(text) else {
            let text: String = text.chars().take(60).collect();
            let (compared, of) = &typed[0];
            return plan_err!(
                "could not compare {compared} with the text '{text}', which is no {}",
                name_of(of)
            );
        };
        **operand = Expr::Literal(value, None);
        changed = true;
    }
    Ok(changed)
}

fn literal_text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        _ => None,
    }
}

/// The type as which literal texts are read.
enum LiteralType {
    /// A number or boolean of this type.
    Value(DataType),
    /// A decimal with as many digits as the text has, because another scale would round it; a double if the text has
    /// too many digits for a decimal.
    Decimal,
}

impl LiteralType {
    /// The type beside operands of these types; `None` if they are of other kinds, or none.
    fn beside(types: &[DataType]) -> Option<LiteralType> {
        if types.is_empty() {
            return None;
        }
        if types.iter().all(|of| *of == DataType::Boolean) {
            return Some(LiteralType::Value(DataType::Boolean));
        }
        if types.iter().all(is_number) {
            return Some(match types {
                types if types.iter().any(DataType::is_floating) => LiteralType::Value(DataType::Float64),
                types if types.iter().any(DataType::is_decimal) => LiteralType::Decimal,
                types => LiteralType::Value(types.iter().max_by_key(|of| shape(of))?.clone()),
            });
        }
        None
    }

    /// The value of a text; `None` if it has none.
    fn read(&self, text: &str) -> Option<ScalarValue> {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![text]));
        let read = |to: &DataType| {
            let values = convert::convert(&texts, to, false).ok()?;
            ScalarValue::try_from_array(&values, 0).ok()
        };
        match self {
            LiteralType::Value(to) => read(to),
            LiteralType::Decimal => match literals::decimal_digits(text.trim()) {
                Some((precision, scale)) => read(&DataType::Decimal128(precision, scale)),
                None => read(&DataType::Float64),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    fn compared(of: DataType, text: &str) -> Result<Option<ScalarValue>, String> {
        let field = arrow::datatypes::Field::new("x", of, true);
        let schema = DFSchema::from_unqualified_fields(vec![field].into(), Default::default()).expect("one field");
        let (mut x, mut literal) = (col("x"), lit(text));
        match read_literals(&mut [&mut x, &mut literal], &schema) {
            Err(error) => Err(error.strip_backtrace()),
            Ok(false) => Ok(None),
            Ok(true) => match literal {
                Expr::Literal(value, _) => Ok(Some(value)),
                other => panic!("{other} is no literal"),
            },
        }
    }

    /// `customer_id <> 'none'` over an INT was accepted, and made every row a dead letter.
    #[test]
    fn a_text_that_is_no_value_of_the_other_side_is_refused() {
        for (of, text) in [
            (DataType::Int32, "none"),
            (DataType::Int32, "1.5"),
            (DataType::Int32, "3000000000"),
            (DataType::Float64, "much"),
            (DataType::Decimal128(10, 2), "1,50"),
            (DataType::Boolean, "maybe"),
        ] {
            let why = compared(of, text).expect_err(text);
            assert!(
                why.contains(&format!("could not compare x with the text '{text}'")),
                "{why}"
            );
        }
        for of in [DataType::Date32, DataType::Utf8] {
            assert_eq!(compared(of, "2024-02-29"), Ok(None));
        }
    }

    /// A text was rounded to the scale of a decimal beside it, so `amount = '1.555'` found 1.56.
    #[test]
    fn a_text_is_read_exactly() {
        let decimal = DataType::Decimal128(10, 2);
        assert_eq!(
            compared(decimal.clone(), " 1.555 "),
            Ok(Some(ScalarValue::Decimal128(Some(1555), 4, 3)))
        );
        assert_eq!(
            compared(decimal.clone(), "-15e-1"),
            Ok(Some(ScalarValue::Decimal128(Some(-15), 2, 1)))
        );
        assert_eq!(compared(decimal, "7"), Ok(Some(ScalarValue::Decimal128(Some(7), 1, 0))));
        assert_eq!(compared(DataType::Int64, "17"), Ok(Some(ScalarValue::Int64(Some(17)))));
        assert_eq!(
            compared(DataType::Boolean, "yes"),
            Ok(Some(ScalarValue::Boolean(Some(true))))
        );
    }
}
