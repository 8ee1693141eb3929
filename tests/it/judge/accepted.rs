//! Lists the accepted differences from PostgreSQL, each with its reason. No other difference is accepted.

use super::compare::Column;

/// An accepted difference.
struct Accepted {
    ours: fn(Column) -> bool,
    theirs: fn(Column) -> bool,
    /// Functions one of which the statement must contain; empty: any statement.
    within: &'static [&'static str],
    reason: &'static str,
    /// How many significant digits must agree; an exact number with fewer digits must agree in all.
    digits: usize,
}

const AVERAGES: &[&str] = &[
    "avg(",
    "stddev",
    "var_",
    "variance",
    "percentile_cont",
    "sqrt",
    "exp(",
    "ln(",
    "power",
    "corr",
    "covar",
];

const ACCEPTED: &[Accepted] = &[
    Accepted {
        ours: is_double,
        theirs: is_exact,
        within: AVERAGES,
        reason: "averages and variances of whole numbers are DOUBLE here, as in Spark and DuckDB; PostgreSQL has numeric",
        digits: 13,
    },
    Accepted {
        ours: is_double,
        theirs: is_double,
        within: &[],
        reason: "PostgreSQL adds doubles up in the order of rows, which is not determined; here sums are exact",
        digits: 12,
    },
    Accepted {
        ours: is_exact,
        theirs: is_exact,
        within: &["avg(", "/", "power", "sqrt"],
        reason: "quotients and averages of DECIMAL have a fixed scale here; PostgreSQL gives at least 16 digits, and behind \
                 the point fewer of large numbers, more of small ones",
        digits: 13,
    },
];

const YEARS: &str =
    "moments are of the years 1 to 9999 here, which every engine that reads the tables knows; PostgreSQL has more";

/// Dead letters that are accepted where PostgreSQL has an answer: a part of the reason, and why.
const LETTERS: &[(&str, &str)] = &[
    (
        "could not compute sum(",
        "SUM(BIGINT) is BIGINT here, so that a table's schema does not grow; a larger sum is a dead letter",
    ),
    ("not of the years 1 to 9999", YEARS),
    ("is of the years 1 to 9999", YEARS),
];

/// Whether dead letters with these reasons are accepted.
pub fn letters(reasons: &[String]) -> bool {
    let accepted = |reason: &String| {
        LETTERS
            .iter()
            .any(|(says, why)| !why.is_empty() && reason.contains(says))
    };
    reasons.iter().all(accepted)
}

fn is_double(column: Column) -> bool {
    column == Column::Double
}

fn is_exact(column: Column) -> bool {
    matches!(column, Column::Exact { .. })
}

/// A function that reduces a cell to the part that is compared, in a column of type `ours` here and `theirs` in
/// PostgreSQL.
pub fn alike(ours: Column, theirs: Column, sql: &str) -> impl Fn(&String) -> String {
    let sql = sql.to_ascii_lowercase();
    let fits = |a: &&Accepted| {
        debug_assert!(!a.reason.is_empty());
        (a.ours)(ours) && (a.theirs)(theirs) && (a.within.is_empty() || a.within.iter().any(|name| sql.contains(name)))
    };
    let accepted = ACCEPTED.iter().find(fits);
    move |cell: &String| match (accepted, ours) {
        (None, Column::Double) => double(cell, 17),
        (None, _) => cell.clone(),
        (Some(accepted), Column::Exact { scale }) => {
            let cell = rounded(cell, scale);
            let digits = cell
                .trim_start_matches(['-', '0', '.'])
                .bytes()
                .filter(u8::is_ascii_digit);
            match digits.count() > accepted.digits {
                true => double(&cell, accepted.digits),
                false => cell,
            }
        }
        (Some(accepted), _) => double(cell, accepted.digits),
    }
}

/// A double with this many digits.
fn double(cell: &str, digits: usize) -> String {
    match cell.parse::<f64>() {
        Ok(x) if x.is_finite() => format!("{:.*e}", digits - 1, if x == 0.0 { 0.0 } else { x }),
        _ => cell.to_string(),
    }
}

/// A decimal number, rounded half away from zero to `scale` digits after the point.
fn rounded(cell: &str, scale: usize) -> String {
    let Some((whole, part)) = cell.split_once('.') else {
        return cell.to_string();
    };
    if part.len() <= scale {
        return cell.to_string();
    }
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut digits: Vec<u8> = whole.bytes().chain(part.bytes().take(scale)).collect();
    if part.as_bytes()[scale] >= b'5' {
        let mut at = digits.len();
        loop {
            if at == 0 {
                digits.insert(0, b'1');
                break;
            }
            at -= 1;
            if digits[at] == b'9' {
                digits[at] = b'0';
            } else {
                digits[at] += 1;
                break;
            }
        }
    }
    let point = digits.len() - scale;
    let text = String::from_utf8(digits).expect("digits are ASCII");
    let part = text[point..].trim_end_matches('0');
    match (&text[..point], part) {
        (whole, "") if whole.bytes().all(|b| b == b'0') => "0".to_string(),
        (whole, "") => format!("{sign}{whole}"),
        (whole, part) => format!("{sign}{whole}.{part}"),
    }
}

#[test]
fn a_mean_agrees_with_one_of_other_digits_behind_the_point_and_with_no_other() {
    let even = |cell: &str| {
        alike(
            Column::Exact { scale: 16 },
            Column::Exact { scale: usize::MAX },
            "SELECT avg(d)",
        )(&cell.into())
    };
    for (ours, theirs) in [
        ("35785.7093069373487497", "35785.709306937349"),
        ("0.0000012345678901", "0.00000123456789012345"),
        ("12.5", "12.5"),
    ] {
        assert_eq!(even(ours), even(theirs));
    }
    assert_ne!(even("35785.7093069373487497"), even("35785.709306947349"));
    assert_ne!(even("12.500001"), even("12.500002"));
}

#[test]
fn rounding_carries_and_keeps_signs() {
    let rounded = |cell, scale| rounded(cell, scale);
    assert_eq!(rounded("0.6666666666666667", 4), "0.6667");
    assert_eq!(rounded("-9.995", 2), "-10");
    assert_eq!(rounded("-0.001", 2), "0");
    assert_eq!(rounded("1.25", 6), "1.25");
}
