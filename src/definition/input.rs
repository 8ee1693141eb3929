//! Reads `inputs/<name>.toml`, one logical input.

use std::path::Path;

use super::bounds::Bounds;
use super::columns::{WrittenColumn, check_column, finished, read_columns, read_names, read_null};
use super::feeds::{FeedDefaults, read_feed};
use super::file::File;
use super::settings::Settings;
use super::wire::read_registry;
use super::{Feed, Input, RegistrySettings, Retention};
use crate::repr::SqlType;

/// The dataflow's settings that apply to all of its inputs.
#[derive(Clone, Copy)]
pub(super) struct InputDefaults<'a> {
    /// The dataflow's folder.
    pub base: &'a Path,
    pub registry: Option<&'a RegistrySettings>,
    pub bounds: &'a Bounds,
}

/// Reads the file of the input `name`; none if mistakes were reported.
pub(super) fn read_input(file: &File<'_>, name: &str, all: InputDefaults<'_>) -> Option<Input> {
    let InputDefaults { base, registry, bounds } = all;
    let table = file.parse();
    let mut settings = Settings::of_file(file, table.get_ref());
    let description = settings
        .setting("description", "\"One line of an invoice.\"")
        .and_then(|value| value.text())
        .map(|text| text.value);
    let columns = settings
        .require("columns", "{ country = \"VARCHAR\" }")
        .and_then(|value| value.settings())
        .map(read_columns);
    let known = columns.as_deref();

    let key = read_names(&mut settings, "key", "[\"order_id\"]", known);
    let order_by = read_names(&mut settings, "order_by", "[\"changed_at\"]", known);
    let dedup_key = read_names(&mut settings, "dedup_key", "[\"event_id\"]", known);
    if !key.is_empty() && !dedup_key.is_empty() {
        settings.conflicting(
            "dedup_key",
            "an input has a key or a dedup_key, not both",
            "with a key the newest row counts, with a dedup_key the first; remove one of the two",
        );
    }
    let is_nullable_key = |column: &&WrittenColumn| column.is_told_nullable && key.contains(&column.name);
    if let Some(column) = known.unwrap_or_default().iter().find(is_nullable_key) {
        settings.conflicting(
            "key",
            &format!("column {:?} of the key has nullable = true, and a key is never null", column.name),
            "remove nullable = true: a record without a value there is a dead letter; or take the column out of the key",
        );
    }
    if key.is_empty() && !order_by.is_empty() {
        settings.conflicting(
            "order_by",
            "order_by without a key orders nothing",
            "it tells which version of a key is the newest: add key = [...], or remove order_by",
        );
    }
    let bronze = settings
        .setting("bronze", "true")
        .map_or(Some(true), |value| value.boolean());
    let retention = read_retention(&mut settings, known);
    let null = read_null(&mut settings);
    let own = read_registry(&mut settings, base);
    let common = FeedDefaults {
        base,
        columns: known.unwrap_or_default(),
        null: null.as_ref(),
        // An input's own registry that could not be read still replaces the dataflow's; see `registry_unread`.
        registry: own.as_ref().and_then(Option::as_ref).or(registry),
        registry_unread: own.is_none(),
        max_record: bounds.max_record,
    };
    let feeds = read_feeds(&mut settings, &common);
    let evolving = feeds
        .iter()
        .flatten()
        .find(|feed| feed.wire.evolves && feed.kind.contract().forgets());
    if let Some(feed) = evolving
        && bronze == Some(false)
    {
        settings.conflicting(
            "bronze",
            &format!("columns of feed {:?} cannot evolve without Bronze", feed.name),
            "a new column makes the past again, which the topic may not hold any more: remove bronze = false, or schema = \"evolve\"",
        );
    }
    check_corrections(&mut settings, &feeds, key.is_empty(), bronze);
    settings.finish();

    let columns = columns?
        .iter()
        .map(|column| finished(column, &Default::default(), None, null.as_ref()))
        .collect::<Option<Vec<_>>>()?;
    Some(Input {
        name: name.to_string(),
        description,
        columns,
        evolved: vec![],
        key,
        order_by,
        dedup_key,
        bronze: bronze?,
        retention,
        feeds: feeds?,
        file: file.path.clone(),
    })
}

/// Checks that an input whose files are read again has a key, by which rows become newer versions, and Bronze, which
/// holds both.
fn check_corrections(settings: &mut Settings<'_>, feeds: &Option<Vec<Feed>>, keyless: bool, bronze: Option<bool>) {
    let corrects = |feed: &&Feed| feed.kind.contract().files().is_some_and(|files| files.corrects);
    let Some(feed) = feeds.iter().flatten().find(corrects) else {
        return;
    };
    let name = &feed.name;
    if keyless {
        settings.say(
            format!("feed {name:?} cannot take changed files as corrections, for the input has no key"),
            "without a key rows have no newer versions; add key = [...], or remove changed = \"correct\" and drop what is \
             missing as a new file",
        );
    }
    if bronze == Some(false) {
        settings.conflicting(
            "bronze",
            &format!("feed {name:?} cannot take changed files as corrections without Bronze"),
            "only Bronze holds what the file held before: remove bronze = false, or changed = \"correct\"",
        );
    }
}

fn read_feeds(settings: &mut Settings<'_>, common: &FeedDefaults<'_>) -> Option<Vec<Feed>> {
    const EXAMPLE: &str = "[[feeds]] with name = \"drops\", kind, path and format below it";
    let file = settings.file();
    let list = match settings.setting("feeds", EXAMPLE) {
        Some(value) => value.list_of_settings()?,
        None => Vec::new(),
    };
    if list.is_empty() {
        if !file.is_broken() {
            settings.say(
                "the input has no feeds: nothing would ever arrive",
                format!("add {EXAMPLE}"),
            );
        }
        return None;
    }
    let mut names: Vec<String> = Vec::new();
    let feeds: Vec<Option<Feed>> = list
        .into_iter()
        .map(|feed| read_feed(feed, common, &mut names))
        .collect();
    feeds.into_iter().collect()
}

/// Reads `retention`; `columns` is none if they are not known here.
pub(super) fn read_retention(settings: &mut Settings<'_>, columns: Option<&[WrittenColumn]>) -> Option<Retention> {
    let value = settings.setting("retention", "{ column = \"changed_at\", keep = \"3 years\" }")?;
    let file = settings.file();
    let mut settings = value.settings()?;
    let column = settings
        .require("column", "\"changed_at\"")
        .and_then(|value| value.text());
    let keep = settings
        .require("keep", "\"3 years\"")
        .and_then(|value| value.duration());
    settings.finish();
    let column = column?;
    check_column(file, "retention", &column.value, &column.written, &column.at, columns);
    let sql_type = columns
        .unwrap_or_default()
        .iter()
        .find(|c| c.name == column.value)
        .and_then(|c| c.sql_type.clone());
    if let Some(sql_type) = sql_type
        && !matches!(sql_type, SqlType::Date | SqlType::Timestamp)
    {
        file.say(
            &column.at,
            format!("retention goes by column {:?}, which is {sql_type}", column.written),
            "name a DATE or TIMESTAMP column",
        );
    }
    Some(Retention {
        column: column.value,
        keep: keep?,
    })
}
