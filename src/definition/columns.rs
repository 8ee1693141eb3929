//! Reads `[columns]` of an input, what feeds override of them, and lists of columns' names.

use std::ops::Range;

use super::Column;
use super::diagnostic::nearest;
use super::file::File;
use super::moment::MomentPattern;
use super::number::{NumberPattern, parse_flags};
use super::settings::{SettingValue, Settings, Text};
use crate::repr::{MOST_NESTED, SqlType};

/// A column as the file has it; [`finished`] adds defaults.
#[derive(Clone, Debug)]
pub(super) struct WrittenColumn {
    pub name: String,
    /// None if its mistakes were reported.
    pub sql_type: Option<SqlType>,
    pub nullable: bool,
    /// Whether the file says explicitly that it is nullable.
    pub is_told_nullable: bool,
    pub texts: PayloadTexts,
}

/// How a column is represented in payloads; none where the file does not say.
#[derive(Clone, Debug, Default)]
pub(super) struct PayloadTexts {
    pub from: Option<Vec<String>>,
    pub format: Option<Vec<String>>,
    pub null: Option<Vec<String>>,
}

/// The `[columns]` of an input, in the order of the file.
pub(super) fn read_columns(mut settings: Settings<'_>) -> Vec<WrittenColumn> {
    let file = settings.file();
    let mut columns: Vec<WrittenColumn> = Vec::new();
    for value in settings.take_all("\"VARCHAR\"") {
        check_name(file, &value, &columns);
        columns.push(read_column(&value));
    }
    if columns.is_empty() && !file.is_broken() {
        settings.say("the input has no columns", "add one, as in country = \"VARCHAR\"");
    }
    columns
}

fn check_name(file: &File<'_>, value: &SettingValue<'_>, before: &[WrittenColumn]) {
    if value.key.is_empty() || value.key.contains([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '=']) {
        file.say(
            &value.key_at,
            format!("a column cannot be called {:?}", value.key),
            "Delta tables take no spaces and none of ,;{}()= in a column's name; name the field with from = \"...\"",
        );
    } else if let Some(twin) = before.iter().find(|c| c.name.eq_ignore_ascii_case(value.key)) {
        file.say(
            &value.key_at,
            format!("columns {:?} and {:?} differ only in case", twin.name, value.key),
            "Delta tables do not tell them apart; rename one, and name its field with from = \"...\"",
        );
    }
}

fn read_column(value: &SettingValue<'_>) -> WrittenColumn {
    let mut column = WrittenColumn {
        name: value.key.to_string(),
        sql_type: None,
        nullable: true,
        is_told_nullable: false,
        texts: PayloadTexts::default(),
    };
    if value.is_text() {
        column.sql_type = value.text().and_then(|text| read_type(value, &text));
        return column;
    }
    let Some(mut settings) = value.settings() else {
        return column;
    };
    column.sql_type = settings
        .require("type", "\"VARCHAR\"")
        .and_then(|value| read_type(&value, &value.text()?));
    if let Some(nullable) = settings.setting("nullable", "false").and_then(|value| value.boolean()) {
        column.nullable = nullable;
        column.is_told_nullable = nullable;
    }
    column.texts = read_texts(&mut settings, column.sql_type.as_ref());
    settings.finish();
    column
}

/// Reads `from`, `format` and `null` of a column.
pub(super) fn read_texts(settings: &mut Settings<'_>, sql_type: Option<&SqlType>) -> PayloadTexts {
    let from = settings.setting("from", "\"Country\"").and_then(|value| {
        let names = value.fields()?;
        if names.is_empty() || names.iter().any(|name| name.value.is_empty()) {
            value.say(
                "setting \"from\" names no field",
                "name the field in the payload, or leave the setting out to use the column's own name",
            );
            return None;
        }
        Some(values(names))
    });
    let format = settings.setting("format", "\"%Y-%m-%d %H:%M:%S\"").and_then(|value| {
        let formats = value.texts()?;
        if let Some(sql_type) = sql_type {
            check_formats(settings.file(), &formats, sql_type);
        }
        Some(values(formats))
    });
    let null = read_null(settings);
    PayloadTexts { from, format, null }
}

/// Checks that formats fit the column's type.
fn check_formats(file: &File<'_>, formats: &[Text], sql_type: &SqlType) {
    for format in formats {
        let text = format.value.as_str();
        let (fits, help) = match element(sql_type) {
            SqlType::Date | SqlType::Timestamp => {
                check_moment(file, format, sql_type);
                continue;
            }
            SqlType::Binary => (
                ["base64", "hex", "utf8"].contains(&text),
                "BINARY is base64, hex or utf8",
            ),
            SqlType::Decimal(..) => (
                text == "base64" || text == "digits" || NumberPattern::parse(text).is_some(),
                "write it as spreadsheets do, #,##0.00 or #.##0,00 or $#,##0.00, or base64 or digits",
            ),
            SqlType::Int | SqlType::BigInt | SqlType::Double => (
                NumberPattern::parse(text).is_some(),
                "write it as spreadsheets do, #,##0 or #,##0.00 or #.##0,00 or $#,##0.00",
            ),
            SqlType::Boolean => (
                parse_flags(text).is_some(),
                "write what is true and what is false, as in Y|N",
            ),
            SqlType::Varchar | SqlType::List(_) => (false, "VARCHAR has none: it is the text as it is; leave it out"),
        };
        if !fits {
            file.say(
                &format.at,
                format!("format {:?} does not fit type {sql_type}", format.written),
                help,
            );
        }
    }
    check_ways(file, formats, sql_type);
}

/// Reports a second format if it would read every value differently from the first, or would never be tried.
fn check_ways(file: &File<'_>, formats: &[Text], sql_type: &SqlType) {
    let is = |known: fn(&str) -> bool| formats.iter().filter(|format| known(format.value.as_str())).nth(1);
    let (second, what) = match element(sql_type) {
        SqlType::Date | SqlType::Timestamp => (is(|format| format.starts_with("epoch_")), "a number counts one unit"),
        SqlType::Binary => (is(|_| true), "bytes are written in one way"),
        SqlType::Decimal(..)
            if formats
                .iter()
                .any(|format| matches!(format.value.as_str(), "base64" | "digits")) =>
        {
            (is(|_| true), "base64 and digits stand alone")
        }
        _ => (None, ""),
    };
    if let Some(second) = second {
        file.say(
            &second.at,
            format!("format {:?} cannot stand beside another: {what}", second.written),
            "leave one of them",
        );
    }
}

/// Reports a format by which no point in time can be read.
fn check_moment(file: &File<'_>, format: &Text, sql_type: &SqlType) {
    const COUNTS: [&str; 6] = ["epoch_s", "epoch_ms", "epoch_us", "epoch_ns", "epoch_days", "cut_to_us"];
    let text = format.value.as_str();
    let (what, help) = match MomentPattern::parse(text) {
        _ if COUNTS.contains(&text) => return,
        Ok(_) => return,
        Err(fault) if !fault.is_unknown() => (format!(": the pattern {}", fault.what), fault.remedy.to_string()),
        Err(fault) => (String::new(), format!("{}, or {}", fault.remedy, COUNTS.join(", "))),
    };
    file.say(
        &format.at,
        format!("format {:?} does not fit type {sql_type}{what}", format.written),
        help,
    );
}

/// Reads `null`, the texts that mean null.
pub(super) fn read_null(settings: &mut Settings<'_>) -> Option<Vec<String>> {
    let value = settings.setting("null", "\"NA\"")?;
    value.texts().map(values)
}

/// A complete column. Each property comes from the first of: the feed's override, the feed's default, the column, the
/// input's default.
pub(super) fn finished(
    column: &WrittenColumn,
    feed: &PayloadTexts,
    feed_null: Option<&Vec<String>>,
    input_null: Option<&Vec<String>>,
) -> Option<Column> {
    let first = |a: &Option<Vec<String>>, b: &Option<Vec<String>>| a.as_ref().or(b.as_ref()).cloned();
    Some(Column {
        name: column.name.clone(),
        sql_type: column.sql_type.clone()?,
        nullable: column.nullable,
        from: first(&feed.from, &column.texts.from).unwrap_or_else(|| vec![column.name.clone()]),
        format: first(&feed.format, &column.texts.format).unwrap_or_default(),
        null: feed
            .null
            .as_ref()
            .or(feed_null)
            .or(column.texts.null.as_ref())
            .or(input_null)
            .cloned()
            .unwrap_or_default(),
    })
}

/// Reads a list of column names, which must exist and be distinct; `columns` is none if they are not known here.
pub(super) fn read_names(
    settings: &mut Settings<'_>,
    setting: &'static str,
    example: &'static str,
    columns: Option<&[WrittenColumn]>,
) -> Vec<String> {
    let Some(names) = settings.setting(setting, example).and_then(|value| value.texts()) else {
        return Vec::new();
    };
    let file = settings.file();
    for (n, name) in names.iter().enumerate() {
        if names[..n].iter().any(|before| before.value == name.value) {
            file.say(
                &name.at,
                format!("{setting} names column {:?} twice", name.written),
                "name it once",
            );
        }
        check_column(file, setting, &name.value, &name.written, &name.at, columns);
    }
    values(names)
}

/// Reports a name that is not a column's.
pub(super) fn check_column(
    file: &File<'_>,
    setting: &str,
    name: &str,
    written: &str,
    at: &Range<usize>,
    columns: Option<&[WrittenColumn]>,
) {
    let Some(columns) = columns else { return };
    if file.is_broken() || columns.iter().any(|column| column.name == name) {
        return;
    }
    file.say(
        at,
        format!("{setting} names column {written:?}, which does not exist"),
        known_columns(name, columns),
    );
}

/// The remedy for a name that is not a column's.
pub(super) fn known_columns(name: &str, columns: &[WrittenColumn]) -> String {
    let known: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean {near:?}? columns are {}", known.join(", ")),
        None => format!("columns are {}", known.join(", ")),
    }
}

fn read_type(value: &SettingValue<'_>, text: &Text) -> Option<SqlType> {
    if let Ok(sql_type) = text.value.parse() {
        return Some(sql_type);
    }
    value.say(format!("unknown type {:?}", text.written), type_help(&text.value));
    None
}

fn type_help(text: &str) -> String {
    const KNOWN: [&str; 9] = [
        "BOOLEAN",
        "INT",
        "BIGINT",
        "DOUBLE",
        "DECIMAL(p,s)",
        "VARCHAR",
        "BINARY",
        "DATE",
        "TIMESTAMP",
    ];
    let item = text.trim().trim_end_matches("[]");
    if text.trim().len() - item.len() > 2 * MOST_NESTED {
        return format!("lists may be nested {MOST_NESTED} deep");
    }
    let upper = item.to_ascii_uppercase();
    let bare = upper.split('(').next().unwrap_or_default().trim();
    if bare == "DECIMAL" {
        return "DECIMAL takes its digits in all (1 to 38) and those behind the point, as in DECIMAL(18,4)".to_string();
    }
    let near = match bare {
        "STRING" | "TEXT" | "CHAR" | "UTF8" | "UUID" | "JSON" => Some("VARCHAR"),
        "INTEGER" | "INT32" | "INT4" | "SMALLINT" | "TINYINT" => Some("INT"),
        "INT64" | "INT8" | "LONG" => Some("BIGINT"),
        "FLOAT" | "REAL" | "FLOAT64" | "FLOAT8" => Some("DOUBLE"),
        "BOOL" => Some("BOOLEAN"),
        "NUMERIC" | "NUMBER" => Some("DECIMAL(p,s)"),
        "DATETIME" | "TIMESTAMPTZ" | "TIME" => Some("TIMESTAMP"),
        "BYTES" | "BLOB" | "BYTEA" | "VARBINARY" => Some("BINARY"),
        _ => nearest(bare, KNOWN),
    };
    let known = KNOWN.join(", ");
    match near {
        Some(near) => format!("did you mean {near}? types are {known}, and T[] of these"),
        None => format!("types are {known}, and T[] of these"),
    }
}

fn element(sql_type: &SqlType) -> &SqlType {
    match sql_type {
        SqlType::List(item) => element(item),
        other => other,
    }
}

fn values(texts: Vec<Text>) -> Vec<String> {
    texts.into_iter().map(|text| text.value).collect()
}
