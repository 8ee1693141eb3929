//! Which type numbers meet in, and which type arithmetic of them has.
//!
//! The types are fixed when a query is planned; PostgreSQL's numeric has a scale with each value instead.
//!
//! 1. A DOUBLE beside anything makes all DOUBLE.
//! 2. Whole numbers beside decimals are decimals of as many digits as they can have; a literal of as many as it has.
//! 3. Decimals meet with the most digits in front of the point and the most behind it: for a comparison in up to 76 digits, for a
//!    value that is kept in 38, where those behind the point stay and a value that does not fit is an error of its row.
//! 4. `a + b`, `a - b`, `a % b`: the digits behind the point of the one that has more.
//! 5. `a * b`: those of both together. `a / b`, avg(a): those of the one that has more, and at least 16.
//!    Where this and the digits in front of the point are more than 38, fewer: but never fewer than the one that has more has,
//!    nor than 16. What is behind them is rounded, half away from zero.

use arrow::datatypes::DataType;

use super::super::times;

/// The most digits of a number that is kept.
pub(super) const MOST: u8 = 38;
/// The most digits of a number that is compared.
const WIDEST: u8 = 76;
/// Digits that a quotient has behind the point, at least.
const BEHIND: i8 = 16;

/// Arithmetic of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Arith {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Arith {
    /// As SQL writes it.
    pub fn sign(self) -> &'static str {
        match self {
            Arith::Add => "+",
            Arith::Subtract => "-",
            Arith::Multiply => "*",
            Arith::Divide => "/",
            Arith::Remainder => "%",
        }
    }
}

/// What numbers meet for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) enum Meeting {
    /// They are compared.
    Compared,
    /// One of them becomes the value of a row.
    Kept,
}

/// Whether values of a type are numbers that this module knows.
pub(in crate::plan) fn is_number(of: &DataType) -> bool {
    of.is_floating() || shape(of).is_some()
}

/// Digits in all, and behind the point, of a decimal or a whole number.
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

/// The widest of whole numbers of several signed types; none where they are of one, for then there is nothing to do.
fn widest<'a>(numbers: impl Iterator<Item = &'a DataType> + Clone) -> Option<DataType> {
    let mut all = numbers.clone();
    let first = all.next()?;
    let differ = all.any(|of| of != first) && numbers.clone().all(DataType::is_signed_integer);
    numbers.max_by_key(|of| shape(of)).filter(|_| differ).cloned()
}

/// The type in which numbers of these types meet; none where one of them is no number, or where DataFusion's own type is right:
/// that of whole numbers that are compared.
pub(super) fn common(types: &[DataType], meeting: Meeting) -> Option<DataType> {
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
            Meeting::Compared => None,
            Meeting::Kept => widest(numbers),
        };
    }
    let shapes: Vec<(u8, i8)> = numbers.filter_map(shape).collect();
    let behind = shapes.iter().map(|(_, s)| *s).max()?.max(0);
    let before = shapes.iter().map(|(p, s)| before(*p, *s)).max()?;
    Some(match (before + i16::from(behind), meeting) {
        (digits, _) if digits <= i16::from(MOST) => DataType::Decimal128((digits as u8).max(1), behind),
        (digits, Meeting::Compared) => DataType::Decimal256(digits.min(i16::from(WIDEST)) as u8, behind),
        (_, Meeting::Kept) => DataType::Decimal128(MOST, behind.min(MOST as i8)),
    })
}

/// The type in which numbers, or times, of these types meet; like [`common`].
pub(super) fn meeting_of(types: &[DataType], meeting: Meeting) -> Option<DataType> {
    match types.iter().any(times::is_time) {
        true => times::common(types, meeting),
        false => common(types, meeting),
    }
}

/// Digits in front of the point.
fn before(precision: u8, scale: i8) -> i16 {
    i16::from(precision) - i16::from(scale)
}

/// What arithmetic of two decimals yields.
pub(super) fn outcome(arith: Arith, left: (u8, i8), right: (u8, i8)) -> (u8, i8) {
    let ((p1, s1), (p2, s2)) = (left, right);
    let (a, b) = (before(p1, s1), before(p2, s2));
    let more = s1.max(s2);
    match arith {
        Arith::Add | Arith::Subtract => exactly(a.max(b) + 1, more),
        Arith::Remainder => exactly(a.min(b), more),
        Arith::Multiply => rounded(a + b, i16::from(s1) + i16::from(s2), more.max(BEHIND)),
        Arith::Divide => rounded(a + i16::from(s2), more.max(BEHIND).into(), more.max(BEHIND)),
    }
}

/// What the mean of decimals is.
pub(super) fn mean(of: (u8, i8)) -> (u8, i8) {
    let behind = of.1.max(BEHIND);
    rounded(before(of.0, of.1), behind.into(), behind)
}

/// So many digits in front of the point, as far as those behind it leave room.
fn exactly(before: i16, behind: i8) -> (u8, i8) {
    let digits = (before + i16::from(behind)).clamp(1, MOST.into());
    ((digits as u8).max(behind as u8), behind)
}

/// The same, with fewer digits behind the point where there is no room, but not fewer than `least`.
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
        let compared = |types: &[DataType]| common(types, Meeting::Compared);
        assert_eq!(compared(&[decimal(10, 2), decimal(5, 4)]), Some(decimal(12, 4)));
        assert_eq!(compared(&[decimal(10, 2), DataType::Int64]), Some(decimal(21, 2)));
        assert_eq!(
            compared(&[decimal(38, 0), decimal(38, 10)]),
            Some(DataType::Decimal256(48, 10))
        );
        assert_eq!(
            common(&[decimal(38, 0), decimal(38, 10)], Meeting::Kept),
            Some(decimal(38, 10))
        );
        assert_eq!(compared(&[decimal(10, 2), DataType::Float64]), Some(DataType::Float64));
        assert_eq!(compared(&[DataType::Int32, DataType::Int64]), None);
        assert_eq!(compared(&[decimal(10, 2), DataType::Utf8]), None);
    }

    #[test]
    fn arithmetic_has_the_digits_it_needs() {
        use Arith::*;
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
