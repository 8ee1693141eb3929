//! Reads `[[feeds]]` of an input: the ways in which its changes arrive.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::kind::KindOfFeed;
use super::postgres::read_tables;
use super::{FeedKind, KINDS, RegisteredKind};
use crate::definition::bounds::read_max_record;
use crate::definition::columns::{PayloadTexts, WrittenColumn, finished, known_columns, read_null, read_texts};
use crate::definition::diagnostic::nearest;
use crate::definition::dialect::{BlankRows, TextDialect, read_blank_rows, read_dialect};
use crate::definition::settings::{SettingValue, Settings, Text};
use crate::definition::wire::{KeyFormat, read_key_format, read_registry, read_schema, read_unavailable};
use crate::definition::{Feed, Format, RegistrySettings, Wire};

const FORMATS: [(&str, Format); 12] = [
    ("csv", Format::Csv),
    ("ndjson", Format::Ndjson),
    ("json", Format::Json),
    ("parquet", Format::Parquet),
    ("avro", Format::Avro),
    ("debezium-json", Format::DebeziumJson),
    ("debezium-avro", Format::DebeziumAvro),
    ("json-schema", Format::JsonSchema),
    ("protobuf", Format::Protobuf),
    ("canal-json", Format::CanalJson),
    ("maxwell-json", Format::MaxwellJson),
    ("raw", Format::Raw),
];

fn format_name(format: Format) -> &'static str {
    let (name, _) = FORMATS
        .iter()
        .find(|(_, known)| *known == format)
        .expect("every format has a name");
    name
}

/// An input's settings that apply to all of its feeds.
pub(in crate::definition) struct FeedDefaults<'a> {
    pub base: &'a Path,
    pub columns: &'a [WrittenColumn],
    pub null: Option<&'a Vec<String>>,
    pub registry: Option<&'a RegistrySettings>,
    /// Whether there is a registry whose mistakes were reported.
    pub registry_unread: bool,
    /// The default of `max_record`, in bytes.
    pub max_record: u64,
}

/// Reads a feed; none if mistakes were reported. `names` are those of earlier feeds, and get this one's.
pub(in crate::definition) fn read_feed(
    mut settings: Settings<'_>,
    common: &FeedDefaults<'_>,
    names: &mut Vec<String>,
) -> Option<Feed> {
    let FeedDefaults { base, columns, .. } = *common;
    let name = settings
        .require("name", "\"drops\"")
        .and_then(|value| read_name(&value, names));
    let kind = settings.require("kind", "\"files\"").and_then(|value| {
        let text = value.text()?;
        read_kind(&value, &text)
    });
    let feed_kind = read_feed_kind(&mut settings, kind, base);
    let kind = kind.map(|registered| &registered.kind);
    let of_feed = feed_kind.as_ref().and_then(|kind| kind.contract().formats());
    let of_kind = kind.map_or(&[] as &[Format], |kind| kind.formats);
    let format = read_format(&mut settings, kind, of_feed.unwrap_or(of_kind));
    let max_record = read_max_record(&mut settings, common.max_record);
    let null = read_null(&mut settings);
    let tables = read_tables_of(&mut settings, kind, format);
    let is_files = kind.is_none_or(|kind| kind.reads_files);
    let blank_rows = read_blank_rows(&mut settings, is_files, format);
    let text = read_dialect(&mut settings, is_files, format);
    let wire = format.map(|format| read_wire(&mut settings, kind, format, common));
    let overrides = match settings.setting("columns", "{ country.from = \"Country\" }") {
        Some(value) => value.settings().map(|settings| read_overrides(settings, columns)),
        None => Some(BTreeMap::new()),
    };
    settings.finish();
    let overrides = overrides?;
    let nothing = PayloadTexts::default();
    let columns = columns
        .iter()
        .map(|column| {
            let texts = overrides.get(&column.name).unwrap_or(&nothing);
            finished(column, texts, null.as_ref(), common.null)
        })
        .collect::<Option<Vec<_>>>()?;
    Some(Feed {
        name: name?,
        kind: feed_kind?,
        format: format?,
        wire: Wire {
            tables,
            text: text?,
            blank_rows: blank_rows?,
            ..wire??
        },
        columns,
        max_record: max_record?,
    })
}

/// Reads `tables` for formats whose records name their table; kind `postgres` has its own setting of that name.
fn read_tables_of(settings: &mut Settings<'_>, kind: Option<&KindOfFeed>, format: Option<Format>) -> Vec<String> {
    if kind.is_some() && !matches!(format, None | Some(Format::CanalJson | Format::MaxwellJson)) {
        settings.misplaced("tables", || {
            (
                "setting \"tables\" does not fit here".to_string(),
                "it belongs to kind \"postgres\", and to the formats canal-json and maxwell-json; remove it"
                    .to_string(),
            )
        });
        return Vec::new();
    }
    let tables = settings.setting("tables", "[\"shop.orders\"]");
    tables.and_then(|value| read_tables(&value)).unwrap_or_default()
}

/// Reads `registry`, `key_format`, `schema` and `unavailable`; none if mistakes were reported.
fn read_wire(
    settings: &mut Settings<'_>,
    kind: Option<&KindOfFeed>,
    format: Format,
    common: &FeedDefaults<'_>,
) -> Option<Wire> {
    if let Some(kind) = kind
        && !kind.has_schemas()
    {
        for name in ["registry", "key_format", "schema", "unavailable"] {
            settings.misplaced(name, || {
                (
                    format!("setting {name:?} does not fit kind {:?}", kind.name),
                    kind.without_registry.to_string(),
                )
            });
        }
        return Some(Wire::default());
    }
    let own = read_registry(settings, common.base);
    let unread = own.is_none() || common.registry_unread;
    let registry = own.flatten().or_else(|| common.registry.cloned());
    let key_format = read_key_format(settings);
    let evolves = read_schema(settings, |value| {
        if !format.has_schemas() {
            value.say(
                format!("records of format {:?} have no schema to trust, so their columns cannot evolve", format_name(format)),
                "fields that no column takes are counted by `run`: name them in [columns], or send records behind schema \
                 ids (avro, debezium-avro, json-schema, protobuf)",
            );
        } else if registry.is_none() && !unread {
            value.say(
                "a schema evolves by what a registry says, and there is none",
                "add registry = { url = \"http://localhost:8081\" } to the feed, the input or dataflow.toml",
            );
        }
    });
    if matches!(
        format,
        Format::Csv | Format::CanalJson | Format::MaxwellJson | Format::Raw
    ) {
        settings.misplaced("unavailable", || {
            (
                format!("setting \"unavailable\" does not fit format {:?}", format_name(format)),
                "it is for records that Debezium wrote; remove it".to_string(),
            )
        });
    }
    let unavailable = read_unavailable(settings);
    let of_values = matches!(format, Format::Avro | Format::DebeziumAvro | Format::Protobuf);
    let of_keys = matches!(key_format, Some(KeyFormat::Avro | KeyFormat::Protobuf));
    if (of_values || of_keys) && registry.is_none() && !unread {
        let what = if of_values {
            format!("format {:?} of records", format_name(format))
        } else {
            "the format of the keys".to_string()
        };
        settings.say(
            format!("{what} needs a schema registry, and there is none"),
            "add registry = { url = \"http://localhost:8081\" } to the feed, the input or dataflow.toml",
        );
        return None;
    }
    Some(Wire {
        registry,
        key_format,
        unavailable,
        tables: vec![],
        evolves,
        declined: vec![],
        text: TextDialect::default(),
        blank_rows: BlankRows::default(),
    })
}

fn read_name(value: &SettingValue<'_>, names: &mut Vec<String>) -> Option<String> {
    let text = value.text()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if text.value.is_empty() || !text.value.chars().all(plain) {
        value.say(
            format!("a feed cannot be called {:?}", text.written),
            "use letters, digits, _, - and . alone: progress and Bronze rows carry the name",
        );
        return None;
    }
    if names.contains(&text.value) {
        value.say(
            format!("two feeds are called {:?}", text.written),
            "rename one: progress is kept under a feed's name",
        );
        return None;
    }
    names.push(text.value.clone());
    Some(text.value)
}

fn read_kind(value: &SettingValue<'_>, text: &Text) -> Option<&'static RegisteredKind> {
    let known = KINDS.iter().find(|registered| registered.kind.name == text.value);
    if known.is_none() {
        let names: Vec<&str> = KINDS.iter().map(|registered| registered.kind.name).collect();
        value.say(
            format!("unknown kind of feed {:?}", text.written),
            match nearest(&text.value, names.iter().copied()) {
                Some(near) => format!("did you mean {near:?}? kinds are {}", names.join(", ")),
                None => format!("kinds are {}", names.join(", ")),
            },
        );
    }
    known
}

/// The settings that only some kinds have, each with a text that lists these kinds.
fn settings_of_kinds() -> BTreeMap<&'static str, String> {
    let mut kinds: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for RegisteredKind { kind, .. } in KINDS {
        for setting in kind.settings {
            kinds.entry(setting).or_default().insert(kind.name);
        }
    }
    let any_of = |names: BTreeSet<&str>| {
        names
            .iter()
            .map(|name| format!("{name:?}"))
            .collect::<Vec<_>>()
            .join(" or ")
    };
    kinds
        .into_iter()
        .map(|(setting, names)| (setting, any_of(names)))
        .collect()
}

/// Reads the settings that depend on the kind. If the kind is unknown, all are accepted unread.
fn read_feed_kind(settings: &mut Settings<'_>, registered: Option<&RegisteredKind>, base: &Path) -> Option<FeedKind> {
    for (name, its_kinds) in settings_of_kinds() {
        match registered {
            Some(RegisteredKind { kind, .. }) if kind.settings.contains(&name) => (),
            Some(RegisteredKind { kind, .. }) => settings.misplaced(name, || {
                (
                    format!("setting {name:?} does not fit kind {:?}", kind.name),
                    format!("it belongs to kind {its_kinds}; remove it, or change the kind"),
                )
            }),
            None => {
                settings.setting(name, "1");
            }
        }
    }
    (registered?.read)(settings, base)
}

/// Reads `format`. `takes` are the formats that fit the feed; none of them if its kind is unknown.
fn read_format(settings: &mut Settings<'_>, kind: Option<&KindOfFeed>, takes: &'static [Format]) -> Option<Format> {
    let value = match (kind, takes) {
        (Some(kind), [usual, ..]) if kind.has_usual_format => match settings.setting("format", "\"json\"") {
            None => return Some(*usual),
            some => some,
        },
        _ => settings.require("format", "\"csv\""),
    }?;
    let text = value.text()?;
    let fitting = takes.iter().map(|f| format_name(*f)).collect::<Vec<_>>().join(", ");
    let Some((_, format)) = FORMATS.iter().find(|(name, _)| *name == text.value) else {
        let known = FORMATS.map(|(name, _)| name);
        let near = match text.value.as_str() {
            "jsonl" | "jsonlines" => Some("ndjson"),
            "debezium" => Some("debezium-json"),
            "canal" => Some("canal-json"),
            "maxwell" => Some("maxwell-json"),
            "jsonschema" | "json-registry" => Some("json-schema"),
            other => nearest(other, known),
        };
        value.say(
            format!("unknown format {:?}", text.written),
            match (near, kind) {
                (Some(near), _) => format!("did you mean {near:?}? formats are {}", known.join(", ")),
                (None, Some(kind)) => format!("feeds of kind {:?} take {fitting}", kind.name),
                (None, None) => format!("formats are {}", known.join(", ")),
            },
        );
        return None;
    };
    if let Some(kind) = kind
        && !takes.is_empty()
        && !takes.contains(format)
    {
        let what = match kind.takes_formats {
            Some(who) => who.to_string(),
            None => format!("a feed of kind {:?}", kind.name),
        };
        value.say(
            format!("format {:?} does not fit {what}", text.written),
            format!("it takes {fitting}"),
        );
        return None;
    }
    Some(*format)
}

fn read_overrides(mut settings: Settings<'_>, columns: &[WrittenColumn]) -> BTreeMap<String, PayloadTexts> {
    let file = settings.file();
    let mut overrides = BTreeMap::new();
    for value in settings.take_all("{ from = \"Country\" }") {
        let column = columns.iter().find(|column| column.name == value.key);
        if column.is_none() && !file.is_broken() && !columns.is_empty() {
            file.say(
                &value.key_at,
                format!("the feed overrides column {:?}, which does not exist", value.key),
                known_columns(value.key, columns),
            );
        }
        let Some(mut inner) = value.settings() else { continue };
        for name in ["type", "nullable"] {
            inner.misplaced(name, || {
                (
                    format!("a feed cannot override {name:?} of a column"),
                    "set it in [columns] of the input: it is the same for all feeds".to_string(),
                )
            });
        }
        let texts = read_texts(&mut inner, column.and_then(|column| column.sql_type.as_ref()));
        inner.finish();
        overrides.insert(value.key.to_string(), texts);
    }
    overrides
}
