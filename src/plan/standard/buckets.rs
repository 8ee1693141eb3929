//! `width_bucket(x, low, high, count)`: the number of the bucket that contains x, among `count` equally wide
//! buckets from low to high. It is 0 before the first and count + 1 after the last. The result is exact for
//! integers and DECIMALs; for DOUBLEs it is computed as in PostgreSQL.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Builder};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, i256};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::words::sql_types;

pub(super) fn function() -> ScalarUDF {
    ScalarUDF::from(WidthBucket {
        signature: Signature::user_defined(Volatility::Immutable),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WidthBucket {
    signature: Signature,
}

impl ScalarUDFImpl for WidthBucket {
    fn name(&self) -> &str {
        "width_bucket"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let number = |of: &DataType| of.is_numeric() || of.is_null();
        match types {
            [x, low, high, count]
                if [x, low, high].into_iter().all(number) && (count.is_integer() || count.is_null()) =>
            {
                let of = match [x, low, high].iter().any(|of| of.is_floating()) {
                    true => DataType::Float64,
                    false => {
                        let scales = [x, low, high].into_iter().map(|of| match of {
                            DataType::Decimal128(_, scale) => *scale,
                            _ => 0,
                        });
                        DataType::Decimal128(38, scales.max().unwrap_or(0))
                    }
                };
                Ok(vec![of.clone(), of.clone(), of, DataType::Int64])
            }
            given => {
                let given: Vec<String> = given.iter().map(|of| sql_types(&of.to_string())).collect();
                plan_err!(
                    "could not plan width_bucket({}): it is width_bucket(number, low, high, BIGINT)",
                    given.join(", ")
                )
            }
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let columns: Vec<ArrayRef> = ColumnarValue::values_to_arrays(&args.args)?;
        let counts = columns[3].as_primitive::<Int64Type>();
        let mut buckets = Int32Builder::with_capacity(counts.len());
        for row in 0..counts.len() {
            if columns.iter().any(|column| column.is_null(row)) {
                buckets.append_null();
                continue;
            }
            let count = counts.value(row);
            let bucket = match columns[0].data_type() {
                DataType::Float64 => {
                    let [x, low, high] = [0, 1, 2].map(|n| columns[n].as_primitive::<Float64Type>().value(row));
                    of_doubles(x, low, high, count)
                }
                _ => {
                    let [x, low, high] = [0, 1, 2].map(|n| columns[n].as_primitive::<Decimal128Type>().value(row));
                    of_numbers(x, low, high, count)
                }
            };
            match bucket {
                Ok(bucket) => buckets.append_value(bucket),
                Err(why) => return exec_err!("could not compute width_bucket(): {why}"),
            }
        }
        let buckets: ArrayRef = Arc::new(buckets.finish());
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&buckets, 0)?),
            false => ColumnarValue::Array(buckets),
        })
    }
}

/// The count as an INT; an error if it is not positive or does not fit.
fn checked(count: i64) -> Result<i32, String> {
    match i32::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(format!("there cannot be {count} buckets")),
    }
}

fn of_doubles(x: f64, low: f64, high: f64, count: i64) -> Result<i32, String> {
    let count = checked(count)?;
    if x.is_nan() || !low.is_finite() || !high.is_finite() {
        return Err(format!(
            "{x}, {low} and {high} are not all numbers, or the bounds not finite"
        ));
    }
    let within = |from: f64, to: f64| {
        let share = if (to - from).is_infinite() {
            (x / 2.0 - from / 2.0) / (to / 2.0 - from / 2.0)
        } else {
            (x - from) / (to - from)
        };
        let bucket = (f64::from(count) * share) as i32;
        bucket.min(count - 1) + 1
    };
    Ok(match low.partial_cmp(&high) {
        Some(std::cmp::Ordering::Less) if x < low => 0,
        Some(std::cmp::Ordering::Less) if x >= high => behind(count)?,
        Some(std::cmp::Ordering::Greater) if x > low => 0,
        Some(std::cmp::Ordering::Greater) if x <= high => behind(count)?,
        Some(std::cmp::Ordering::Equal) | None => return Err(equal()),
        _ => within(low, high),
    })
}

/// The number after that of the last bucket.
fn behind(count: i32) -> Result<i32, String> {
    count
        .checked_add(1)
        .ok_or_else(|| "the result does not fit INT".to_string())
}

fn equal() -> String {
    "its bounds are equal".to_string()
}

fn of_numbers(x: i128, low: i128, high: i128, count: i64) -> Result<i32, String> {
    let count = checked(count)?;
    let (ahead, width) = match low.cmp(&high) {
        std::cmp::Ordering::Less if x < low => return Ok(0),
        std::cmp::Ordering::Less if x >= high => return behind(count),
        std::cmp::Ordering::Greater if x > low => return Ok(0),
        std::cmp::Ordering::Greater if x <= high => return behind(count),
        std::cmp::Ordering::Less => (wide(x) - wide(low), wide(high) - wide(low)),
        std::cmp::Ordering::Greater => (wide(low) - wide(x), wide(low) - wide(high)),
        std::cmp::Ordering::Equal => return Err(equal()),
    };
    let bucket = ahead * i256::from_i128(count.into()) / width;
    Ok(bucket
        .to_i128()
        .and_then(|n| i32::try_from(n).ok())
        .unwrap_or(count - 1)
        .min(count - 1)
        + 1)
}

fn wide(of: i128) -> i256 {
    i256::from_i128(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_lower_bound() {
        for (x, low, high, bucket) in [
            (0, 0, 10, 1),
            (2, 0, 10, 2),
            (-1, 0, 10, 0),
            (10, 0, 10, 6),
            (9, 10, 0, 1),
            (0, 10, 0, 6),
        ] {
            assert_eq!(of_numbers(x, low, high, 5), Ok(bucket), "{x}");
            assert_eq!(of_doubles(x as f64, low as f64, high as f64, 5), Ok(bucket), "{x}");
        }
        assert!(of_numbers(1, 2, 2, 5).is_err() && of_numbers(1, 2, 3, 0).is_err());
        assert!(of_doubles(1.0, f64::NAN, 3.0, 5).is_err());
        assert_eq!(of_doubles(f64::INFINITY, 0.0, 1.0, 3), Ok(4));
    }
}
