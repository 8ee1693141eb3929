//! Computes how many bytes a function's value will take, from the arguments, before the kernel allocates it.
//!
//! Most functions yield about as many bytes as they are given. Each function here may yield more, or use more
//! on the way, and has a rule for one row that is never below what the kernel needs. Where a cheap bound would
//! be far too high, the rule computes a closer one, so that a row that fits is not refused.

use std::cmp::max;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Int64Type, IntervalMonthDayNanoType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use datafusion::common::Result;
use datafusion::logical_expr::ColumnarValue;

use super::super::patterns::{self, Flags};
use super::sizes;

/// The most steps of a comparison of all pairs of items; they take about a second.
const MOST_STEPS: u64 = 1 << 30;

/// The most bytes that a search compares, for which it takes about as long.
const MOST_COMPARED: u64 = 1 << 34;

/// What the kernel needs for one row.
pub(super) enum Need {
    /// At most so many bytes.
    Bytes(u64),
    /// It cannot be computed, with the reason, such as too many steps.
    TooLong(&'static str),
}

/// Computes what a row needs. A null argument counts as an empty one.
pub(super) type LengthRule = fn(&[Argument], usize) -> Need;

/// The rule of a function that may yield more than it is given.
pub(super) fn rule(function: &str) -> Option<LengthRule> {
    Some(match function {
        "repeat" => |args, row| Need::Bytes(args[0].bytes(row).saturating_mul(count(&args[1], row))),
        "lpad" | "rpad" => padded,
        "array_repeat" => |args, row| Need::Bytes(of_item(&args[0], row).saturating_mul(count(&args[1], row))),
        "array_resize" => resized,
        "range" => |args, row| match args {
            // The kernel yields null for moments outside the range of nanoseconds.
            [from, to, ..] if from.is_moment() && [from, to].iter().any(|end| end.is_beyond_nanos(row)) => {
                Need::TooLong("a series of points in time is of the years 1678 to 2261; use generate_series")
            }
            _ => series(args, row),
        },
        "generate_series" => series,
        "||" => |args, row| match args.iter().any(|argument| argument.is_null(row)) {
            true => Need::Bytes(0),
            false => added(args, row),
        },
        "concat_ws" => |args, row| {
            let between = (args.len() as u64).saturating_sub(2).saturating_mul(args[0].bytes(row));
            match added(args, row) {
                Need::Bytes(bytes) => Need::Bytes(bytes.saturating_add(between)),
                other => other,
            }
        },
        name if adds_up(name) => added,
        "replace" => replaced,
        "regexp_replace" => replaced_by_pattern,
        "array_to_string" => joined,
        "array_replace" | "array_replace_n" | "array_replace_all" => items_replaced,
        "levenshtein" => |args, row| match product_of_bytes(args, row) > MOST_STEPS {
            true => Need::TooLong("two texts as long as these cannot be compared"),
            false => Need::Bytes(0),
        },
        "strpos" => |args, row| match product_of_bytes(args, row) > MOST_COMPARED {
            true => Need::TooLong("a text as long as this cannot be searched for another as long as that"),
            false => Need::Bytes(0),
        },
        "btrim" | "ltrim" | "rtrim" => |args, row| match args.len() > 1 && product_of_bytes(args, row) > MOST_STEPS {
            true => Need::TooLong("a text as long as this cannot be trimmed of so many characters"),
            false => Need::Bytes(0),
        },
        "array_has_all" | "array_has_any" => |args, row| {
            if args[0].items(row).saturating_mul(args[1].items(row)) > MOST_STEPS {
                Need::TooLong("two lists as long as these cannot be compared")
            } else {
                Need::Bytes(0)
            }
        },
        "hop_windows" => |_, _| Need::Bytes(8 * super::super::functions::MAX_WINDOWS_PER_ROW as u64),
        _ => return None,
    })
}

/// Whether a function yields about as many bytes as its arguments take. Then rows need no look if all arguments
/// together take few bytes.
pub(super) fn adds_up(function: &str) -> bool {
    matches!(
        function,
        "||" | "concat"
            | "array_concat"
            | "array_append"
            | "array_prepend"
            | "array_union"
            | "make_array"
            | "struct"
            | "named_struct"
    )
}

fn product_of_bytes(args: &[Argument], row: usize) -> u64 {
    args[0].bytes(row).saturating_mul(args[1].bytes(row))
}

fn added(args: &[Argument], row: usize) -> Need {
    Need::Bytes(
        args.iter()
            .map(|argument| argument.bytes(row))
            .fold(0, u64::saturating_add),
    )
}

/// An argument: a column, or a constant for all rows.
pub(super) struct Argument {
    values: ArrayRef,
    constant: bool,
}

impl Argument {
    pub fn new(value: &ColumnarValue) -> Result<Argument> {
        let (values, constant) = match value {
            ColumnarValue::Array(values) => (values.clone(), false),
            ColumnarValue::Scalar(value) => (value.to_array()?, true),
        };
        let values = match values.data_type() {
            whole if whole.is_integer() && whole != &DataType::Int64 => {
                arrow::compute::cast(&values, &DataType::Int64)?
            }
            _ => values,
        };
        Ok(Argument { values, constant })
    }

    fn row(&self, row: usize) -> usize {
        if self.constant { 0 } else { row }
    }

    fn is_null(&self, row: usize) -> bool {
        self.values.is_null(self.row(row))
    }

    /// The bytes of a row's value.
    fn bytes(&self, row: usize) -> u64 {
        if self.is_null(row) {
            return 0;
        }
        let row = self.row(row);
        match self.values.data_type() {
            DataType::Utf8 => self.values.as_string::<i32>().value(row).len() as u64,
            DataType::LargeUtf8 => self.values.as_string::<i64>().value(row).len() as u64,
            DataType::Utf8View => self.values.as_string_view().value(row).len() as u64,
            _ => sizes::bytes(&self.values, row, row + 1),
        }
    }

    fn text(&self, row: usize) -> &str {
        if self.is_null(row) {
            return "";
        }
        let row = self.row(row);
        match self.values.data_type() {
            DataType::Utf8 => self.values.as_string::<i32>().value(row),
            DataType::LargeUtf8 => self.values.as_string::<i64>().value(row),
            DataType::Utf8View => self.values.as_string_view().value(row),
            _ => "",
        }
    }

    fn int(&self, row: usize) -> Option<i64> {
        let values = self.values.as_primitive_opt::<Int64Type>()?;
        let row = self.row(row);
        values.is_valid(row).then(|| values.value(row))
    }

    /// How many items a row's list has.
    fn items(&self, row: usize) -> u64 {
        if self.is_null(row) {
            return 0;
        }
        let row = self.row(row);
        match self.values.data_type() {
            DataType::List(_) => self.values.as_list::<i32>().value_length(row) as u64,
            DataType::LargeList(_) => self.values.as_list::<i64>().value_length(row) as u64,
            DataType::FixedSizeList(_, length) => *length as u64,
            _ => 1,
        }
    }

    fn is_moment(&self) -> bool {
        matches!(self.values.data_type(), DataType::Timestamp(..))
    }

    fn is_beyond_nanos(&self, row: usize) -> bool {
        self.nanos(row).is_some_and(|nanos| i64::try_from(nanos).is_err())
    }

    /// A date or timestamp as nanoseconds since 1970.
    fn nanos(&self, row: usize) -> Option<i128> {
        if self.is_null(row) {
            return None;
        }
        let row = self.row(row);
        Some(match self.values.data_type() {
            DataType::Date32 => i128::from(self.values.as_primitive::<Date32Type>().value(row)) * NANOS_PER_DAY,
            DataType::Timestamp(unit, _) => match unit {
                TimeUnit::Second => {
                    i128::from(self.values.as_primitive::<TimestampSecondType>().value(row)) * 1_000_000_000
                }
                TimeUnit::Millisecond => {
                    i128::from(self.values.as_primitive::<TimestampMillisecondType>().value(row)) * 1_000_000
                }
                TimeUnit::Microsecond => {
                    i128::from(self.values.as_primitive::<TimestampMicrosecondType>().value(row)) * 1000
                }
                TimeUnit::Nanosecond => i128::from(self.values.as_primitive::<TimestampNanosecondType>().value(row)),
            },
            _ => return None,
        })
    }
}

const NANOS_PER_DAY: i128 = 86_400_000_000_000;

fn count(argument: &Argument, row: usize) -> u64 {
    argument.int(row).unwrap_or(0).max(0) as u64
}

/// The bytes of an item of a list, including its offset.
fn of_item(argument: &Argument, row: usize) -> u64 {
    argument.bytes(row).saturating_add(8)
}

fn padded(args: &[Argument], row: usize) -> Need {
    let widest = args
        .get(2)
        .map_or(1, |fill| fill.text(row).chars().map(char::len_utf8).max().unwrap_or(1));
    // The kernel allocates for the requested length even if there is nothing to fill it with. Unless all is
    // ASCII, it takes four bytes for each character, and eight for its position.
    let ascii = widest == 1 && args[0].text(row).is_ascii();
    let room = count(&args[1], row).saturating_mul(if ascii { 1 } else { 12 });
    Need::Bytes(room.saturating_add(args[0].bytes(row)))
}

fn resized(args: &[Argument], row: usize) -> Need {
    let item = args.get(2).map_or(8, |item| of_item(item, row));
    Need::Bytes(
        count(&args[1], row)
            .saturating_mul(item)
            .saturating_add(args[0].bytes(row)),
    )
}

fn series(args: &[Argument], row: usize) -> Need {
    if args.iter().any(|argument| argument.is_null(row)) {
        return Need::Bytes(0);
    }
    let never = Need::TooLong("a step of a series that goes forth and back has no end");
    let length = match args {
        [stop] => i128::from(stop.int(row).unwrap_or(0)),
        [start, stop, rest @ ..] => match (start.nanos(row), stop.nanos(row)) {
            (Some(start), Some(stop)) => {
                let steps = rest.first().and_then(|step| {
                    let values = step.values.as_primitive_opt::<IntervalMonthDayNanoType>()?;
                    Some(values.value(step.row(row)))
                });
                let Some(step) = steps else { return Need::Bytes(0) };
                let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(step);
                let parts = [i64::from(months), i64::from(days), nanos];
                if parts.iter().any(|part| *part > 0) && parts.iter().any(|part| *part < 0) {
                    return never;
                }
                let step =
                    i128::from(months) * 28 * NANOS_PER_DAY + i128::from(days) * NANOS_PER_DAY + i128::from(nanos);
                (stop - start) / max(step.abs(), 1) * step.signum()
            }
            _ => {
                let step = i128::from(rest.first().map_or(Some(1), |step| step.int(row)).unwrap_or(0));
                let span = i128::from(stop.int(row).unwrap_or(0)) - i128::from(start.int(row).unwrap_or(0));
                span / max(step.abs(), 1) * step.signum()
            }
        },
        [] => 0,
    };
    Need::Bytes(u64::try_from((length.max(0) + 1).saturating_mul(8)).unwrap_or(u64::MAX))
}

fn replaced(args: &[Argument], row: usize) -> Need {
    let (text, to) = (args[0].bytes(row), args[2].bytes(row));
    let most = text.saturating_add(text.saturating_add(1).saturating_mul(to));
    if most <= CHEAP {
        return Need::Bytes(most);
    }
    let (text, from) = (args[0].text(row), args[1].text(row));
    let count = text.matches(from).count() as u64;
    Need::Bytes((text.len() as u64).saturating_add(count.saturating_mul(to)))
}

/// A bound in bytes below which a closer one is not worth computing.
const CHEAP: u64 = 1 << 16;

fn replaced_by_pattern(args: &[Argument], row: usize) -> Need {
    let (text, to) = (args[0].bytes(row), args[2].bytes(row));
    let replacement = args[2].text(row);
    // The result has the match once for each reference in the replacement.
    let references = replacement.matches(['$', '\\']).count() as u64;
    let of_found = references.saturating_mul(text);
    // Without flags, the fourth argument is a start, and a fifth one tells which matches are replaced.
    let flags = args.get(3).map(|flags| flags.text(row));
    let all = flags.is_some_and(|flags| flags.contains('g')) || args.len() > 4;
    let most_found = if all { text.saturating_add(1) } else { 1 };
    let most = text
        .saturating_add(of_found)
        .saturating_add(most_found.saturating_mul(to));
    if most <= CHEAP || !all {
        return Need::Bytes(most);
    }
    // The kernel reports a pattern that does not compile.
    let flags = Flags::read(flags.unwrap_or_default()).unwrap_or_default();
    let pattern = patterns::cached_pattern(args[1].text(row), Flags { global: false, ..flags });
    let matches = pattern.and_then(|pattern| pattern.find_all(args[0].text(row), 0, usize::MAX));
    let matches = matches.map_or(0, |matches| matches.len());
    Need::Bytes(
        text.saturating_add(of_found)
            .saturating_add((matches as u64).saturating_mul(to)),
    )
}

fn joined(args: &[Argument], row: usize) -> Need {
    let between: u64 = args[1..].iter().map(|text| text.bytes(row)).sum();
    // 80 bytes are more than the longest number: a decimal with sign and point.
    let items = args[0].items(row).saturating_mul(between.saturating_add(80));
    Need::Bytes(items.saturating_add(args[0].bytes(row).saturating_mul(4)))
}

fn items_replaced(args: &[Argument], row: usize) -> Need {
    let most = args[0].items(row).saturating_mul(args[2].bytes(row));
    Need::Bytes(most.saturating_add(args[0].bytes(row)))
}
