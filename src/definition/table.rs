//! Reads `silver/<name>.sql|toml` and `gold/<name>.sql|toml`, one table.

use std::path::PathBuf;

use super::columns::read_names;
use super::file::File;
use super::input::read_retention;
use super::output::{OutputDefaults, read_output};
use super::settings::Settings;
use super::{Deletes, Expectation, Layer, OnViolation, Table};

/// A table with the defaults that apply without a settings file.
pub(super) fn plain_table(layer: Layer, name: &str, sql: &str, file: PathBuf) -> Table {
    Table {
        layer,
        name: name.to_string(),
        sql: sql.to_string(),
        file,
        settings_file: None,
        description: None,
        key: Vec::new(),
        partition_by: Vec::new(),
        expectations: Vec::new(),
        deletes: Deletes::Auto,
        change_data_feed: false,
        retention: None,
        output: None,
    }
}

/// Reads the settings file into the table; mistakes are reported. The table's columns are not known before the SELECT
/// is planned.
pub(super) fn read_table_settings(file: &File<'_>, table: &mut Table, common: OutputDefaults<'_>) {
    let parsed = file.parse();
    let mut settings = Settings::of_file(file, parsed.get_ref());
    table.settings_file = Some(file.path.clone());
    table.description = settings
        .setting("description", "\"Revenue per day.\"")
        .and_then(|value| value.text())
        .map(|text| text.value);
    table.key = read_names(&mut settings, "key", "[\"order_id\"]", None);
    table.partition_by = read_names(&mut settings, "partition_by", "[\"order_date\"]", None);
    if let Some(value) = settings.setting("deletes", "\"auto\"")
        && let Some(deletes) = value.choice(&[
            ("auto", Deletes::Auto),
            ("vectors", Deletes::Vectors),
            ("rewrite", Deletes::Rewrite),
        ])
    {
        table.deletes = deletes;
    }
    if let Some(value) = settings.setting("change_data_feed", "true") {
        table.change_data_feed = value.boolean().unwrap_or_default();
    }
    table.retention = read_retention(&mut settings, None);
    if let Some(value) = settings.setting("kafka", "{ brokers = \"localhost:9092\", topic = \"shop.sales\" }")
        && let Some(of_topic) = value.settings()
    {
        table.output = read_output(of_topic, &table.key, common);
    }
    if let Some(value) = settings.setting("expect", "{ positive_price.check = \"unit_price >= 0\" }")
        && let Some(mut expectations) = value.settings()
    {
        table.expectations = expectations
            .take_all("{ check = \"unit_price >= 0\" }")
            .iter()
            .filter_map(|value| read_expectation(value.key, value.settings()?))
            .collect();
    }
    settings.finish();
}

fn read_expectation(name: &str, mut settings: Settings<'_>) -> Option<Expectation> {
    let check = settings.require("check", "\"unit_price >= 0\"").and_then(|value| {
        let text = value.text()?;
        if text.value.trim().is_empty() {
            value.say(
                format!("expectation {name:?} checks nothing"),
                "write a condition over the table's columns, as in check = \"unit_price >= 0\"",
            );
            return None;
        }
        Some(text.value)
    });
    let on_violation = settings
        .setting("on_violation", "\"drop\"")
        .map_or(Some(OnViolation::Warn), |value| {
            value.choice(&[
                ("warn", OnViolation::Warn),
                ("drop", OnViolation::Drop),
                ("fail", OnViolation::Fail),
            ])
        });
    settings.finish();
    Some(Expectation {
        name: name.to_string(),
        check: check?,
        on_violation: on_violation?,
    })
}
