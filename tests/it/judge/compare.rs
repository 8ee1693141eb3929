//! Converts answers to canonical text, so that two engines can be compared.

use std::fmt;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::accepted;

/// The text of a null.
pub const NULL: &str = "\u{2205}";

/// An answer in canonical form: numbers without trailing zeros, midnight as a date only, rows sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<String>>,
    /// The reasons of dead letters that replace rows.
    pub letters: Vec<String>,
}

/// A column's kind of values, for comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// INT, BIGINT, DECIMAL, with the number of digits after the point.
    Exact {
        scale: usize,
    },
    Double,
    Text,
    /// BOOLEAN, DATE, TIMESTAMP and the rest.
    Other,
}

impl Answer {
    /// Alluvium's answer.
    pub fn ours(schema: &Schema, batches: &[RecordBatch], letters: Vec<String>) -> Answer {
        let columns: Vec<Column> = schema.fields().iter().map(|field| kind(field.data_type())).collect();
        let mut rows = vec![];
        for batch in batches {
            let shown: Vec<Vec<String>> = batch.columns().iter().map(shown).collect();
            rows.extend((0..batch.num_rows()).map(|row| {
                let cells = shown.iter().zip(&columns);
                cells.map(|(cells, column)| canonical(&cells[row], *column)).collect()
            }));
        }
        Answer { columns, rows, letters }.sorted()
    }

    /// PostgreSQL's answer, from the names of its types and its text of cells.
    pub fn theirs(types: &[String], rows: &[Vec<String>]) -> Answer {
        let columns: Vec<Column> = types.iter().map(|name| kind_of(name)).collect();
        let row = |row: &Vec<String>| {
            row.iter()
                .zip(&columns)
                .map(|(cell, column)| canonical(cell, *column))
                .collect()
        };
        let rows = rows.iter().map(row).collect();
        Answer {
            columns,
            rows,
            letters: vec![],
        }
        .sorted()
    }

    fn sorted(mut self) -> Answer {
        self.rows.sort();
        self
    }

    /// Whether this equals PostgreSQL's answer, apart from accepted differences.
    pub fn agrees(&self, theirs: &Answer, sql: &str) -> bool {
        if self.columns.len() != theirs.columns.len() || !accepted::letters(&self.letters) {
            return false;
        }
        let alike = |n: usize| accepted::alike(self.columns[n], theirs.columns[n], sql);
        let alike: Vec<_> = (0..self.columns.len()).map(alike).collect();
        let even = |answer: &Answer| {
            let row = |row: &Vec<String>| row.iter().zip(&alike).map(|(cell, alike)| alike(cell)).collect();
            let mut rows: Vec<Vec<String>> = answer.rows.iter().map(row).collect();
            rows.sort();
            rows
        };
        let (ours, mut theirs) = (even(self), even(theirs));
        if !self.letters.is_empty() {
            theirs.retain(|row| ours.contains(row)); // Rows that are dead letters here are not compared.
        }
        ours == theirs
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<String> = self.rows.iter().map(|row| format!("({})", row.join(","))).collect();
        f.write_str(if rows.is_empty() { "none" } else { "" })?;
        f.write_str(&rows.join(" "))?;
        match self.letters.first() {
            Some(first) => write!(f, " and {} dead letter(s): {first}", self.letters.len()),
            None => Ok(()),
        }
    }
}

fn kind(of: &DataType) -> Column {
    match of {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => Column::Exact {
            scale: usize::try_from(*scale).unwrap_or(0),
        },
        DataType::Float64 | DataType::Float32 => Column::Double,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Column::Text,
        of if of.is_integer() => Column::Exact { scale: 0 },
        _ => Column::Other,
    }
}

/// The kind of a PostgreSQL type. Its `numeric` has as many digits as a value needs.
fn kind_of(name: &str) -> Column {
    match name.split('(').next().unwrap_or_default() {
        "smallint" | "integer" | "bigint" => Column::Exact { scale: 0 },
        "numeric" => Column::Exact { scale: usize::MAX },
        "double precision" | "real" => Column::Double,
        "text" | "character varying" | "character" | "json" => Column::Text,
        _ => Column::Other,
    }
}

/// A column's values as text.
fn shown(column: &ArrayRef) -> Vec<String> {
    if let Some(doubles) = column.as_primitive_opt::<Float64Type>() {
        let shown = |x: Option<f64>| x.map_or(NULL.to_string(), |x| format!("{x:e}"));
        return doubles.iter().map(shown).collect();
    }
    let options = FormatOptions::default()
        .with_null(NULL)
        .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.6f"))
        .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.6f"));
    let formatter = ArrayFormatter::try_new(column.as_ref(), &options).expect("every type can be shown");
    (0..column.len()).map(|row| formatter.value(row).to_string()).collect()
}

/// The canonical text of a value.
pub fn canonical(cell: &str, column: Column) -> String {
    if cell == NULL {
        return cell.to_string();
    }
    match column {
        Column::Text => cell.to_string(),
        Column::Exact { .. } | Column::Double => number(cell).unwrap_or_else(|| cell.to_string()),
        Column::Other => match cell {
            "t" => "true".to_string(),
            "f" => "false".to_string(),
            cell if cell.starts_with(['{', '[']) => list(cell),
            cell => moment(cell),
        },
    }
}

/// The canonical text of a cell whose type is not known, as in a case's `right`.
pub fn loose(cell: &str) -> String {
    match cell {
        "t" | "true" => "true".to_string(),
        "f" | "false" => "false".to_string(),
        cell => number(cell).unwrap_or_else(|| moment(cell)),
    }
}

/// A list of simple values, without quotes.
fn list(cell: &str) -> String {
    let items = cell.trim_matches(['{', '}', '[', ']']).split(',');
    let item = |item: &str| match item.trim() {
        "NULL" => NULL.to_string(),
        item => item.trim_matches('"').to_string(),
    };
    format!("[{}]", items.map(item).collect::<Vec<_>>().join(","))
}

/// A timestamp without its zone and trailing zeros.
fn moment(cell: &str) -> String {
    let cell = cell.strip_suffix("+00").unwrap_or(cell);
    let cell = match cell.contains(':') && cell.contains('.') {
        true => cell.trim_end_matches('0').trim_end_matches('.'),
        false => cell,
    };
    cell.strip_suffix(" 00:00:00").unwrap_or(cell).to_string()
}

/// A number in plain digits without insignificant zeros; none if the text is not a number.
fn number(text: &str) -> Option<String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    match digits.to_ascii_lowercase().as_str() {
        "nan" => return Some("NaN".to_string()),
        "inf" | "infinity" => return Some(format!("{sign}inf")),
        _ => {}
    }
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (digits, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{part}");
    if all.is_empty() || !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // The position of the point among the digits; if it is outside them, zeros are added.
    let mut point = whole.len() as i64 + exponent;
    let mut all = all;
    while point < 0 {
        all.insert(0, '0');
        point += 1;
    }
    while point > all.len() as i64 {
        all.push('0');
    }
    let (whole, part) = all.split_at(usize::try_from(point).expect("it was made positive"));
    let (whole, part) = (whole.trim_start_matches('0'), part.trim_end_matches('0'));
    Some(match (whole, part) {
        ("", "") => "0".to_string(),
        (whole, "") => format!("{sign}{whole}"),
        ("", part) => format!("{sign}0.{part}"),
        (whole, part) => format!("{sign}{whole}.{part}"),
    })
}

#[test]
fn numbers_of_one_value_have_one_text() {
    let same = [
        ("1e20", "100000000000000000000"),
        ("-0.0", "0"),
        ("007.50", "7.5"),
        ("1.25e-3", "0.00125"),
        ("Infinity", "inf"),
    ];
    for (text, plain) in same {
        assert_eq!(number(text).as_deref(), Some(plain), "{text}");
    }
    assert_eq!((number("2024-05-01"), number("")), (None, None));
}

#[test]
fn an_answer_that_differs_in_a_digit_a_row_or_a_null_does_not_agree() {
    let answer = |cells: &[&str]| {
        let rows: Vec<Vec<String>> = cells.iter().map(|cell| vec![cell.to_string()]).collect();
        Answer::theirs(&["numeric(10,2)".to_string()], &rows)
    };
    let right = answer(&["1.10", "2", NULL]);
    assert!(answer(&[NULL, "2.00", "1.1"]).agrees(&right, ""));
    for wrong in [
        &["1.11", "2", NULL][..],
        &["1.1", "2"],
        &["1.1", "2", "0"],
        &["1.1", "2", "2", NULL],
    ] {
        assert!(!answer(wrong).agrees(&right, ""), "{wrong:?}");
    }
}
