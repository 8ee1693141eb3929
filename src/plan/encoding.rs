//! Canonical texts ("forms") for expressions, types and values. A lake keeps parts of the graph (sums, rows of
//! inputs), which a restart finds again by hashes of such texts.
//!
//! 1. No form contains the `Debug` or `Display` text of a library, except by (3). An upgrade of DataFusion or
//!    Arrow must neither force a lake to compute its past again nor, worse, give one text to two meanings.
//! 2. A form is an atom (`null`, `text`, a number, `#3` for the fourth column) or `(kind part ...)`; texts are
//!    JSON strings. So two meanings never have the same form. Flags of `BinaryExpr` and `CastExpr` for overflow
//!    and formats are not part of a form, because the plan never sets them: arithmetic that may overflow is a
//!    call of a function of ours, and casts have no formats.
//! 3. A kind for which this file has no form yet becomes `(foreign ...)`, with the library's own text and
//!    Alluvium's version. Such parts are computed again after every release; only a release brings another
//!    version of a library to users.
//! 4. If you change a form, raise [`VERSION`]: lakes that were written with another version are computed again,
//!    once, and the command `plan` reports it.
//!
//! `src/plan/tests/encoding.txt` has the forms of all SQL constructs that the plan's goldens contain.

use std::fmt::Write as _;

use arrow::datatypes::{DataType, Field, Fields, IntervalUnit, TimeUnit};
use datafusion::logical_expr::{Operator, WindowFrame, WindowFrameBound, WindowFrameUnits};
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NegativeExpr,
    NotExpr, TryCastExpr,
};
use datafusion::physical_expr::{PhysicalSortExpr, ScalarFunctionExpr};
use datafusion::scalar::ScalarValue;
use twox_hash::XxHash3_128;

use super::guard::Guarded;
use super::{AggregateKind, Expr, JoinKind, Rank};
use crate::definition::Retention;

/// The version of the forms in this file. A lake stores it beside the hashes.
pub const VERSION: u32 = 1;

/// The hash of a form, by XXH3 with 128 bits. Equal hashes are taken for equal meanings.
pub type PlanHash = u128;

/// The hash of a form.
pub fn meaning_of(form: &str) -> PlanHash {
    XxHash3_128::oneshot(form.as_bytes())
}

/// The hash in hexadecimal, as a lake stores it.
pub fn meaning_text(meaning: PlanHash) -> String {
    format!("{meaning:032x}")
}

/// A text as a JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

/// Texts as JSON strings, separated by blanks.
pub fn texts(texts: &[String]) -> String {
    texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(" ")
}

/// The form of a retention.
pub fn retention(of: &Option<Retention>) -> String {
    of.as_ref()
        .map_or("(keep all)".to_string(), |Retention { column, keep }| {
            format!("(keep {} (ms {}))", quoted(column), keep.as_millis())
        })
}

/// The form of a node: its operator, the types of its columns, and the hashes of its inputs.
pub fn node(own: &str, fields: &Fields, inputs: &[PlanHash]) -> String {
    let types: Vec<String> = fields.iter().map(|field| field_type(field)).collect();
    let inputs: Vec<String> = inputs.iter().map(|input| meaning_text(*input)).collect();
    format!("({own} (types {}) (of {}))", types.join(" "), inputs.join(" "))
}

/// The form of an expression; `column` gives the form of a column.
pub fn expression(expr: &Expr, column: &dyn Fn(&Column) -> String) -> String {
    let inner = |expr: &Expr| expression(expr, column);
    let all =
        |exprs: &mut dyn Iterator<Item = &Expr>| exprs.map(|expr| format!(" {}", inner(expr))).collect::<String>();
    if let Some(named) = expr.downcast_ref::<Column>() {
        return column(named);
    }
    if let Some(literal) = expr.downcast_ref::<Literal>() {
        return value(literal.value());
    }
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        let (left, right) = (inner(binary.left()), inner(binary.right()));
        return match operator(*binary.op()) {
            Some(operator) => format!("({operator} {left} {right})"),
            None => foreign(&binary.op().to_string(), &format!(" {left} {right}")),
        };
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        let how = if cast.cast_options().safe {
            "cast-or-null"
        } else {
            "cast"
        };
        return format!("({how} {} {})", data_type(cast.cast_type()), inner(cast.expr()));
    }
    if let Some(cast) = expr.downcast_ref::<TryCastExpr>() {
        return format!("(try-cast {} {})", data_type(cast.cast_type()), inner(cast.expr()));
    }
    if let Some(case) = expr.downcast_ref::<CaseExpr>() {
        let mut form = "(case".to_string();
        if let Some(of) = case.expr() {
            write!(form, " (of {})", inner(of)).expect("writing to memory does not fail");
        }
        for (when, then) in case.when_then_expr() {
            write!(form, " (when {} {})", inner(when), inner(then)).expect("writing to memory does not fail");
        }
        if let Some(otherwise) = case.else_expr() {
            write!(form, " (else {})", inner(otherwise)).expect("writing to memory does not fail");
        }
        return form + ")";
    }
    if let Some(list) = expr.downcast_ref::<InListExpr>() {
        let how = if list.negated() { "not-in" } else { "in" };
        return format!("({how} {}{})", inner(list.expr()), all(&mut list.list().iter()));
    }
    if let Some(test) = expr.downcast_ref::<IsNullExpr>() {
        return format!("(is-null {})", inner(test.arg()));
    }
    if let Some(test) = expr.downcast_ref::<IsNotNullExpr>() {
        return format!("(is-not-null {})", inner(test.arg()));
    }
    if let Some(not) = expr.downcast_ref::<NotExpr>() {
        return format!("(not {})", inner(not.arg()));
    }
    if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
        return format!("(negative {})", inner(negative.arg()));
    }
    if let Some(like) = expr.downcast_ref::<LikeExpr>() {
        let how = match (like.negated(), like.case_insensitive()) {
            (false, false) => "like",
            (true, false) => "not-like",
            (false, true) => "ilike",
            (true, true) => "not-ilike",
        };
        return format!("({how} {} {})", inner(like.expr()), inner(like.pattern()));
    }
    if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
        return format!(
            "(call {} {}{}{})",
            quoted(call.name()),
            data_type(call.return_type()),
            bound(Guarded::limit_of(call.fun())),
            all(&mut call.args().iter())
        );
    }
    // The library's text may show a column by its name only, so the children's forms follow it.
    foreign(&expr.to_string(), &all(&mut expr.children().into_iter()))
}

/// The form of an expression whose columns are positions.
pub fn positioned(expr: &Expr) -> String {
    expression(expr, &|column| format!("#{}", column.index()))
}

/// The form of an expression or type that has none of ours, by (3).
fn foreign(text: &str, parts: &str) -> String {
    format!(
        "(foreign {} {}{parts})",
        quoted(env!("CARGO_PKG_VERSION")),
        quoted(text)
    )
}

/// The form of a limit on a value's bytes, with a blank before it; empty without a limit.
pub fn bound(limit: Option<u64>) -> String {
    limit.map_or(String::new(), |limit| format!(" (bytes {limit})"))
}

fn operator(operator: Operator) -> Option<&'static str> {
    Some(match operator {
        Operator::Eq => "=",
        Operator::NotEq => "<>",
        Operator::Lt => "<",
        Operator::LtEq => "<=",
        Operator::Gt => ">",
        Operator::GtEq => ">=",
        Operator::Plus => "+",
        Operator::Minus => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::Modulo => "%",
        Operator::And => "and",
        Operator::Or => "or",
        Operator::IsDistinctFrom => "is-distinct-from",
        Operator::IsNotDistinctFrom => "is-not-distinct-from",
        Operator::RegexMatch => "~",
        Operator::RegexIMatch => "~*",
        Operator::RegexNotMatch => "!~",
        Operator::RegexNotIMatch => "!~*",
        Operator::BitwiseAnd => "&",
        Operator::BitwiseOr => "|",
        Operator::BitwiseXor => "xor",
        Operator::BitwiseShiftLeft => "<<",
        Operator::BitwiseShiftRight => ">>",
        Operator::StringConcat => "||",
        Operator::AtArrow => "@>",
        Operator::ArrowAt => "<@",
        _ => return None,
    })
}

/// The form of an Arrow type.
pub fn data_type(of: &DataType) -> String {
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    };
    match of {
        DataType::Null => "null".to_string(),
        DataType::Boolean => "boolean".to_string(),
        DataType::Int8 => "int8".to_string(),
        DataType::Int16 => "int16".to_string(),
        DataType::Int32 => "int32".to_string(),
        DataType::Int64 => "int64".to_string(),
        DataType::UInt8 => "uint8".to_string(),
        DataType::UInt16 => "uint16".to_string(),
        DataType::UInt32 => "uint32".to_string(),
        DataType::UInt64 => "uint64".to_string(),
        DataType::Float16 => "float16".to_string(),
        DataType::Float32 => "float32".to_string(),
        DataType::Float64 => "float64".to_string(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => {
            let bits = match of {
                DataType::Decimal32(..) => 32,
                DataType::Decimal64(..) => 64,
                DataType::Decimal128(..) => 128,
                _ => 256,
            };
            format!("(decimal{bits} {precision} {scale})")
        }
        DataType::Utf8 => "text".to_string(),
        DataType::LargeUtf8 => "large-text".to_string(),
        DataType::Utf8View => "text-view".to_string(),
        DataType::Binary => "bytes".to_string(),
        DataType::LargeBinary => "large-bytes".to_string(),
        DataType::BinaryView => "bytes-view".to_string(),
        DataType::FixedSizeBinary(length) => format!("(bytes {length})"),
        DataType::Date32 => "date".to_string(),
        DataType::Date64 => "date64".to_string(),
        DataType::Time32(of) => format!("(time32 {})", unit(of)),
        DataType::Time64(of) => format!("(time64 {})", unit(of)),
        DataType::Duration(of) => format!("(duration {})", unit(of)),
        DataType::Timestamp(of, None) => format!("(timestamp {})", unit(of)),
        DataType::Timestamp(of, Some(zone)) => format!("(timestamp {} {})", unit(of), quoted(zone)),
        DataType::Interval(IntervalUnit::YearMonth) => "(interval months)".to_string(),
        DataType::Interval(IntervalUnit::DayTime) => "(interval days)".to_string(),
        DataType::Interval(IntervalUnit::MonthDayNano) => "(interval months-days)".to_string(),
        DataType::List(item) => format!("(list {})", field_type(item)),
        DataType::LargeList(item) => format!("(large-list {})", field_type(item)),
        DataType::FixedSizeList(item, length) => format!("(list {length} {})", field_type(item)),
        DataType::Struct(fields) => {
            let fields = fields
                .iter()
                .map(|f| format!(" ({} {})", quoted(f.name()), field_type(f)));
            format!("(struct{})", fields.collect::<String>())
        }
        DataType::Map(entries, is_sorted) => {
            let how = if *is_sorted { "sorted-map" } else { "map" };
            format!("({how} {})", field_type(entries))
        }
        DataType::Dictionary(keys, values) => format!("(dictionary {} {})", data_type(keys), data_type(values)),
        other => foreign(&other.to_string(), ""),
    }
}

/// The form of a field's type, and of whether it may be null.
pub fn field_type(field: &Field) -> String {
    let of = data_type(field.data_type());
    match field.is_nullable() {
        true => format!("(nullable {of})"),
        false => of,
    }
}

/// The form of a value with its type.
pub fn value(of: &ScalarValue) -> String {
    format!("(value {} {})", data_type(&of.data_type()), bare_value(of))
}

fn bare_value(of: &ScalarValue) -> String {
    use ScalarValue as V;
    if of.is_null() {
        return "null".to_string();
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match of {
        V::Boolean(Some(v)) => v.to_string(),
        V::Int8(Some(v)) => v.to_string(),
        V::Int16(Some(v)) => v.to_string(),
        V::Int32(Some(v)) | V::Date32(Some(v)) | V::Time32Second(Some(v)) | V::Time32Millisecond(Some(v)) => {
            v.to_string()
        }
        V::Int64(Some(v))
        | V::Date64(Some(v))
        | V::Time64Microsecond(Some(v))
        | V::Time64Nanosecond(Some(v))
        | V::TimestampSecond(Some(v), _)
        | V::TimestampMillisecond(Some(v), _)
        | V::TimestampMicrosecond(Some(v), _)
        | V::TimestampNanosecond(Some(v), _)
        | V::DurationSecond(Some(v))
        | V::DurationMillisecond(Some(v))
        | V::DurationMicrosecond(Some(v))
        | V::DurationNanosecond(Some(v)) => v.to_string(),
        V::UInt8(Some(v)) => v.to_string(),
        V::UInt16(Some(v)) => v.to_string(),
        V::UInt32(Some(v)) => v.to_string(),
        V::UInt64(Some(v)) => v.to_string(),
        V::Float32(Some(v)) => format!("{:08x}", v.to_bits()),
        V::Float64(Some(v)) => format!("{:016x}", v.to_bits()),
        V::Decimal128(Some(v), _, _) => v.to_string(),
        V::Decimal256(Some(v), _, _) => hex(&v.to_be_bytes()),
        V::Utf8(Some(v)) | V::LargeUtf8(Some(v)) | V::Utf8View(Some(v)) => quoted(v),
        V::Binary(Some(v)) | V::LargeBinary(Some(v)) | V::BinaryView(Some(v)) | V::FixedSizeBinary(_, Some(v)) => {
            hex(v)
        }
        V::IntervalYearMonth(Some(v)) => v.to_string(),
        V::IntervalDayTime(Some(v)) => format!("({} {})", v.days, v.milliseconds),
        V::IntervalMonthDayNano(Some(v)) => format!("({} {} {})", v.months, v.days, v.nanoseconds),
        V::List(list) => items(list.value(0).as_ref()),
        V::LargeList(list) => items(list.value(0).as_ref()),
        V::FixedSizeList(list) => items(list.value(0).as_ref()),
        V::Struct(row) => {
            let fields = row
                .columns()
                .iter()
                .map(|column| format!(" {}", item(column.as_ref(), 0)));
            format!("(row{})", fields.collect::<String>())
        }
        V::Dictionary(_, v) => bare_value(v),
        other => foreign(&other.to_string(), ""),
    }
}

fn items(list: &dyn arrow::array::Array) -> String {
    let items = (0..list.len()).map(|n| format!(" {}", item(list, n)));
    format!("(items{})", items.collect::<String>())
}

/// The form of one element of an array, without its type.
pub fn item(of: &dyn arrow::array::Array, row: usize) -> String {
    match ScalarValue::try_from_array(of, row) {
        Ok(value) => bare_value(&value),
        Err(error) => foreign(&error.to_string(), ""),
    }
}

/// The form of an order of rows, whose columns are positions.
pub fn order(keys: &[PhysicalSortExpr]) -> String {
    let keys = keys
        .iter()
        .map(|key| sort_key(&key.expr, key.options.descending, key.options.nulls_first));
    format!("(order{})", keys.collect::<String>())
}

/// The form of one key of an order, with a blank before it.
pub fn sort_key(expr: &Expr, descending: bool, nulls_first: bool) -> String {
    let direction = if descending { "desc" } else { "asc" };
    let nulls = if nulls_first { "nulls-first" } else { "nulls-last" };
    format!(" ({direction} {nulls} {})", positioned(expr))
}

/// The form of a window frame.
pub fn frame(of: &WindowFrame) -> String {
    let units = match of.units {
        WindowFrameUnits::Rows => "rows",
        WindowFrameUnits::Range => "range",
        WindowFrameUnits::Groups => "groups",
    };
    let bound = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::Preceding(distance) => format!("(preceding {})", value(distance)),
        WindowFrameBound::CurrentRow => "current".to_string(),
        WindowFrameBound::Following(distance) => format!("(following {})", value(distance)),
    };
    format!("({units} {} {})", bound(&of.start_bound), bound(&of.end_bound))
}

/// The form of an aggregate's kind.
pub fn aggregate_kind(kind: AggregateKind) -> &'static str {
    match kind {
        AggregateKind::Count => "count",
        AggregateKind::Sum => "sum",
        AggregateKind::Avg => "avg",
        AggregateKind::VarPop => "var-pop",
        AggregateKind::VarSamp => "var-samp",
        AggregateKind::StddevPop => "stddev-pop",
        AggregateKind::StddevSamp => "stddev-samp",
        AggregateKind::BoolAnd => "bool-and",
        AggregateKind::BoolOr => "bool-or",
        AggregateKind::Min => "min",
        AggregateKind::Max => "max",
        AggregateKind::General => "general",
    }
}

/// The form of a join's kind.
pub fn join_kind(kind: JoinKind) -> &'static str {
    match kind {
        JoinKind::Inner => "inner",
        JoinKind::Left => "left",
        JoinKind::Right => "right",
        JoinKind::Full => "full",
        JoinKind::LeftSemi => "left-semi",
        JoinKind::LeftAnti => "left-anti",
        JoinKind::LeftMark => "left-mark",
    }
}

/// The form of a top-k's ranking function.
pub fn rank(of: Rank) -> &'static str {
    match of {
        Rank::RowNumber => "row-number",
        Rank::Rank => "rank",
        Rank::DenseRank => "dense-rank",
    }
}
