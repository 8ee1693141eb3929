//! The common types of numbers, and the types of arithmetic.
//!
//! The types are fixed when a query is planned; in PostgreSQL each numeric value has its own scale.
//!
//! 1. With a DOUBLE among them, all become DOUBLE.
//! 2. With a decimal among them, an integer becomes a decimal with as many digits as its type may have; a
//!    literal, with as many as it has.
//! 3. The common type of decimals has the most digits before the point and the most after it. For comparisons
//!    it has up to 76 digits. For a value that is kept it has up to 38; then the digits after the point stay,
//!    and a value that does not fit is an error of its row.
//! 4. `a + b`, `a - b`, `a % b` have the greater scale of the two.
//! 5. `a * b` has the sum of the scales. `a / b` and avg(a) have the greater scale, and at least 16. If that
//!    and the digits before the point exceed 38, the scale is reduced, but not below the greater one or 16. The
//!    result is rounded half away from zero.

use arrow::datatypes::DataType;

use super::super::times;

/// The most digits of a number that is kept.
pub(super) const MOST: u8 = 38;
/// The most digits of a number that is compared.
const WIDEST: u8 = 76;
/// The least scale of a quotient.
const BEHIND: i8 = 16;

/// Arithmetic of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum NumberArithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl NumberArithmetic {
    /// The operator in SQL.
    pub fn sign(self) -> &'static str {
        match self {
            NumberArithmetic::Add => "+",
            NumberArithmetic::Subtract => "-",
            NumberArithmetic::Multiply => "*",
            NumberArithmetic::Divide => "/",
            NumberArithmetic::Remainder => "%",
        }
    }
}

/// The purpose for which numbers get a common type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) enum CommonTypeUse {
    /// To compare them.
    Compared,
    /// To keep one of them as a row's value.
    Kept,
}

/// Whether a type is one of the numbers that this module coerces.
pub(in crate::plan) fn is_number(of: &DataType) -> bool {
    of.is_floating() || shape(of).is_some()
}

/// The precision and scale of a decimal or integer type.
pub(super) fn shape(of: &DataType) -> Option<(u8, i8)> {
    Some(match of {
        DataType::Int8 | DataType::UInt8 => (3, 0),
        DataType::Int16 | DataType::UInt16 => (5, 0),
        DataType::Int32 | DataType::UInt32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::UInt64 => (20, 0),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => (*p, *s),
        _ => return None,
    })
}

/// The widest of several signed integer types; `None` if they are equal, because nothing is to be done then.
fn widest<'a>(numbers: impl Iterator<Item = &'a DataType> + Clone) -> Option<DataType> {
    let mut all = numbers.clone();
    let first = all.next()?;
    let differ = all.any(|of| of != first) && numbers.clone().all(DataType::is_signed_integer);
    numbers.max_by_key(|of| shape(of)).filter(|_| differ).cloned()
}

/// The common type of numbers. `None` if one of the types is not a number, or if DataFusion's choice is right,
/// as for comparisons of integers.
pub(super) fn common(types: &[DataType], meeting: CommonTypeUse) -> Option<DataType> {
    let mut numbers = types.iter().filter(|of| !of.is_null());
    if !numbers.clone().all(is_number) {
        return None;
    }
    if numbers.clone().any(DataType::is_floating) {
        return Some(match numbers.all(|of| *of == DataType::Float32) {
            true => DataType::Float32,
            false => DataType::Float64,
        });
    }
    if !numbers.clone().any(DataType::is_decimal) {
        return match meeting {
            CommonTypeUse::Compared => None,
            CommonTypeUse::Kept => widest(numbers),
        };
    }
    let shapes: Vec<(u8, i8)> = numbers.filter_map(shape).collect();
    let behind = shapes.iter().map(|(_, s)| *s).max()?.max(0);
    let before = shapes.iter().map(|(p, s)| before(*p, *s)).max()?;
    Some(match (before + i16::from(behind), meeting) {
        (digits, _) if digits <= i16::from(MOST) => DataType::Decimal128((digits as u8).max(1), behind),
        (digits, CommonTypeUse::Compared) => DataType::Decimal256(digits.min(i16::from(WIDEST)) as u8, behind),
        (_, CommonTypeUse::Kept) => DataType::Decimal128(MOST, behind.min(MOST as i8)),
    })
}

/// The common type of numbers, or of times; `None` as for [`common`].
pub(super) fn meeting_of(types: &[DataType], meeting: CommonTypeUse) -> Option<DataType> {
    match types.iter().any(times::is_time) {
        true => times::common(types, meeting),
        false => common(types, meeting),
    }
}

/// The number of digits before the point.
fn before(precision: u8, scale: i8) -> i16 {
    i16::from(precision) - i16::from(scale)
}

/// The precision and scale of the result of an operation on decimals.
pub(super) fn outcome(arith: NumberArithmetic, left: (u8, i8), right: (u8, i8)) -> (u8, i8) {
    let ((p1, s1), (p2, s2)) = (left, right);
    let (a, b) = (before(p1, s1), before(p2, s2));
    let more = s1.max(s2);
    match arith {
        NumberArithmetic::Add | NumberArithmetic::Subtract => exactly(a.max(b) + 1, more),
        NumberArithmetic::Remainder => exactly(a.min(b), more),
        NumberArithmetic::Multiply => rounded(a + b, i16::from(s1) + i16::from(s2), more.max(BEHIND)),
        NumberArithmetic::Divide => rounded(a + i16::from(s2), more.max(BEHIND).into(), more.max(BEHIND)),
    }
}

/// The precision and scale of an average of decimals.
pub(super) fn mean(of: (u8, i8)) -> (u8, i8) {
    let behind = of.1.max(BEHIND);
    rounded(before(of.0, of.1), behind.into(), behind)
}

/// The type with this scale, and with `before` digits before the point as far as there is room.
fn exactly(before: i16, behind: i8) -> (u8, i8) {
    let digits = (before + i16::from(behind)).clamp(1, MOST.into());
    ((digits as u8).max(behind as u8), behind)
}

/// As [`exactly`], with the scale reduced to `least`, but no further, to make room for the digits before the point.
fn rounded(before: i16, behind: i16, least: i8) -> (u8, i8) {
    let room = i16::from(MOST) - before.max(0);
    let behind = behind.min(room.max(least.into())).min(MOST.into()) as i8;
    exactly(before, behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_meet_with_all_digits_of_both() {
        let decimal = DataType::Decimal128;
        let compared = |types: &[DataType]| common(types, CommonTypeUse::Compared);
        assert_eq!(compared(&[decimal(10, 2), decimal(5, 4)]), Some(decimal(12, 4)));
        assert_eq!(compared(&[decimal(10, 2), DataType::Int64]), Some(decimal(21, 2)));
        assert_eq!(
            compared(&[decimal(38, 0), decimal(38, 10)]),
            Some(DataType::Decimal256(48, 10))
        );
        assert_eq!(
            common(&[decimal(38, 0), decimal(38, 10)], CommonTypeUse::Kept),
            Some(decimal(38, 10))
        );
        assert_eq!(compared(&[decimal(10, 2), DataType::Float64]), Some(DataType::Float64));
        assert_eq!(compared(&[DataType::Int32, DataType::Int64]), None);
        assert_eq!(compared(&[decimal(10, 2), DataType::Utf8]), None);
    }

    #[test]
    fn arithmetic_has_the_digits_it_needs() {
        use NumberArithmetic::*;
        assert_eq!(outcome(Add, (18, 2), (18, 2)), (19, 2));
        assert_eq!(outcome(Add, (38, 10), (38, 10)), (38, 10));
        assert_eq!(outcome(Multiply, (18, 2), (18, 2)), (36, 4));
        assert_eq!(outcome(Multiply, (38, 10), (38, 10)), (38, 16));
        assert_eq!(outcome(Multiply, (38, 30), (1, 0)), (38, 30));
        assert_eq!(outcome(Multiply, (36, 4), (18, 2)), (38, 6));
        assert_eq!(outcome(Divide, (18, 2), (18, 2)), (34, 16));
        assert_eq!(outcome(Divide, (38, 2), (38, 2)), (38, 16));
        assert_eq!(outcome(Divide, (38, 20), (3, 1)), (38, 20));
        assert_eq!(outcome(Remainder, (18, 2), (5, 4)), (5, 4));
        assert_eq!(mean((18, 2)), (32, 16));
        assert_eq!(mean((38, 10)), (38, 16));
    }
}
