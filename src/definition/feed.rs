//! `[[feeds]]` of an input: one way its changes arrive.

use std::collections::BTreeMap;
use std::path::Path;

use super::bounds::read_max_record;
use super::columns::{Texts, Written, finished, known_columns, read_null, read_texts};
use super::diagnostic::nearest;
use super::dialect::{BlankRows, TextDialect, read_blank_rows, read_dialect};
use super::files::{read_log_rules, read_rules};
use super::http;
use super::kafka::{self, read_kafka};
use super::location::{LocationError, files_location, folder_location};
use super::postgres::{self, read_postgres, read_tables};
use super::settings::{Settings, Text, Value};
use super::wire::{KeyFormat, read_key_format, read_registry, read_schema, read_unavailable};
use super::{Feed, FeedKind, Format, Generate, Registry, Wire};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Files,
    Log,
    Kafka,
    Http,
    Postgres,
    Generate,
}

const KINDS: [(&str, Kind); 6] = [
    ("files", Kind::Files),
    ("log", Kind::Log),
    ("kafka", Kind::Kafka),
    ("http", Kind::Http),
    ("postgres", Kind::Postgres),
    ("generate", Kind::Generate),
];

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

/// Formats of records, whatever brings them.
const RECORDS: &[Format] = &[
    Format::Json,
    Format::DebeziumJson,
    Format::Avro,
    Format::DebeziumAvro,
    Format::JsonSchema,
    Format::Protobuf,
    Format::CanalJson,
    Format::MaxwellJson,
    Format::Raw,
];

const ROWS: &[Format] = &[Format::Json, Format::Csv];
const ENVELOPES: &[Format] = &[Format::DebeziumJson];

/// The built-in generators, and the formats that their events have; the first is what a feed takes unless told otherwise.
pub const GENERATORS: [(&str, &[Format]); 9] = [
    ("retail.order_lines", ROWS),
    ("retail.products", ENVELOPES),
    ("retail.customers", ENVELOPES),
    ("retail.stock_movements", ENVELOPES),
    ("retail.redemptions", ROWS),
    ("devices.telemetry", ROWS),
    ("logistics.tickets", ROWS),
    ("logistics.permits", ROWS),
    ("logistics.trips", ROWS),
];

/// The settings of generators alone.
const GENERATE: [&str; 9] = [
    "generator",
    "rate",
    "limit",
    "seed",
    "partitions",
    "updates",
    "deletes",
    "late",
    "broken",
];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Files => "files",
            Kind::Log => "log",
            Kind::Kafka => "kafka",
            Kind::Http => "http",
            Kind::Postgres => "postgres",
            Kind::Generate => "generate",
        }
    }

    fn formats(self) -> &'static [Format] {
        match self {
            Kind::Files => &[
                Format::Csv,
                Format::Ndjson,
                Format::Json,
                Format::Parquet,
                Format::Avro,
                Format::DebeziumJson,
            ],
            Kind::Log | Kind::Kafka => RECORDS,
            Kind::Http => &[
                Format::Json,
                Format::DebeziumJson,
                Format::CanalJson,
                Format::MaxwellJson,
            ],
            Kind::Postgres => ENVELOPES,
            Kind::Generate => &[Format::Json, Format::DebeziumJson, Format::Csv],
        }
    }
}

fn format_name(format: Format) -> &'static str {
    let (name, _) = FORMATS
        .iter()
        .find(|(_, known)| *known == format)
        .expect("every format has a name");
    name
}

/// What an input says for all of its feeds.
pub(super) struct Common<'a> {
    pub base: &'a Path,
    pub columns: &'a [Written],
    pub null: Option<&'a Vec<String>>,
    pub registry: Option<&'a Registry>,
    /// There is a registry whose mistakes were reported.
    pub registry_unread: bool,
    /// Bytes of the longest record of a feed that says nothing else.
    pub max_record: u64,
}

/// Reads a feed; none: mistakes were reported. `names`: those of the feeds before it.
pub(super) fn read_feed(mut settings: Settings<'_>, common: &Common<'_>, names: &mut Vec<String>) -> Option<Feed> {
    let Common { base, columns, .. } = *common;
    let name = settings
        .require("name", "\"drops\"")
        .and_then(|value| read_name(&value, names));
    let kind = settings.require("kind", "\"files\"").and_then(|value| {
        let text = value.text()?;
        read_kind(&value, &text)
    });
    let feed_kind = read_feed_kind(&mut settings, kind, base);
    let format = match &feed_kind {
        Some(FeedKind::Generate(generate)) => read_format(&mut settings, kind, formats_of(&generate.generator)),
        _ => read_format(&mut settings, kind, kind.map_or(&[], Kind::formats)),
    };
    let max_record = read_max_record(&mut settings, common.max_record);
    let null = read_null(&mut settings);
    let tables = read_tables_of(&mut settings, kind, format);
    let is_files = kind.is_none_or(|kind| kind == Kind::Files);
    let blank_rows = read_blank_rows(&mut settings, is_files, format);
    let text = read_dialect(&mut settings, is_files, format);
    let wire = format.map(|format| read_wire(&mut settings, kind, format, common));
    let overrides = match settings.take("columns", "{ country.from = \"Country\" }") {
        Some(value) => value.settings().map(|settings| read_overrides(settings, columns)),
        None => Some(BTreeMap::new()),
    };
    settings.finish();
    let overrides = overrides?;
    let nothing = Texts::default();
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

/// `tables` of records that say which table they are of; `postgres` has taken its own.
fn read_tables_of(settings: &mut Settings<'_>, kind: Option<Kind>, format: Option<Format>) -> Vec<String> {
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
    let tables = settings.take("tables", "[\"shop.orders\"]");
    tables.and_then(|value| read_tables(&value)).unwrap_or_default()
}

/// `registry`, `key_format`, `schema` and `unavailable`; none: mistakes were reported.
fn read_wire(settings: &mut Settings<'_>, kind: Option<Kind>, format: Format, common: &Common<'_>) -> Option<Wire> {
    if matches!(kind, Some(kind) if !kind.formats().contains(&Format::Protobuf)) {
        let kind = kind.map_or("", Kind::name);
        for name in ["registry", "key_format", "schema", "unavailable"] {
            settings.misplaced(name, || {
                (
                    format!("setting {name:?} does not fit kind {kind:?}"),
                    match kind {
                        "http" => "what requests bring is plain JSON; remove it".to_string(),
                        _ => "it is for records of a stream, not for files; remove it".to_string(),
                    },
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

fn read_name(value: &Value<'_>, names: &mut Vec<String>) -> Option<String> {
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

fn read_kind(value: &Value<'_>, text: &Text) -> Option<Kind> {
    if let Some((_, kind)) = KINDS.iter().find(|(name, _)| *name == text.value) {
        return Some(*kind);
    }
    let names = KINDS.map(|(name, _)| name);
    value.say(
        format!("unknown kind of feed {:?}", text.written),
        match nearest(&text.value, names) {
            Some(near) => format!("did you mean {near:?}? kinds are {}", names.join(", ")),
            None => format!("kinds are {}", names.join(", ")),
        },
    );
    None
}

/// Settings that belong to some kinds alone, and those kinds, as they are told.
const OF_KINDS: [(&[&str], &[Kind], &str); 8] = [
    (&["changed"], &[Kind::Files], "\"files\""),
    (
        &["duplicates"],
        &[Kind::Files, Kind::Generate],
        "\"files\" or \"generate\"",
    ),
    (
        &["path", "follow_links"],
        &[Kind::Files, Kind::Log],
        "\"files\" or \"log\"",
    ),
    (&GENERATE, &[Kind::Generate], "\"generate\""),
    (&kafka::SETTINGS, &[Kind::Kafka], "\"kafka\""),
    (&postgres::SETTINGS, &[Kind::Postgres], "\"postgres\""),
    (&["start"], &[Kind::Kafka, Kind::Postgres], "\"kafka\" or \"postgres\""),
    (&["on_missing"], &[Kind::Kafka, Kind::Log], "\"kafka\" or \"log\""),
];

/// The settings that the kind decides. Of an unknown kind they are all taken, and not looked at.
fn read_feed_kind(settings: &mut Settings<'_>, kind: Option<Kind>, base: &Path) -> Option<FeedKind> {
    for (names, kinds, told) in OF_KINDS {
        match kind {
            Some(kind) if kinds.contains(&kind) => (),
            Some(kind) => names.iter().for_each(|name| {
                settings.misplaced(name, || {
                    (
                        format!("setting {name:?} does not fit kind {:?}", kind.name()),
                        format!("it belongs to kind {told}; remove it, or change the kind"),
                    )
                });
            }),
            None => names.iter().for_each(|name| {
                settings.take(name, "1");
            }),
        }
    }
    match kind? {
        Kind::Generate => read_generate(settings).map(FeedKind::Generate),
        Kind::Kafka => read_kafka(settings).map(FeedKind::Kafka),
        Kind::Http => {
            for name in http::SETTINGS {
                settings.misplaced(name, || {
                    (
                        format!("setting {name:?} is that of all feeds of kind \"http\""),
                        "move it into [http] of dataflow.toml".to_string(),
                    )
                });
            }
            Some(FeedKind::Http)
        }
        Kind::Postgres => read_postgres(settings, base).map(FeedKind::Postgres),
        kind => {
            let value = settings.require("path", "\"drops/orders/*.csv\"")?;
            let text = value.text()?;
            let say = |error: LocationError| value.say(format!("bad path {:?}: {error}", text.written), error.help());
            if kind == Kind::Log {
                let rules = read_log_rules(settings)?;
                let path = folder_location(&text.value, base).map_err(say).ok()?;
                return Some(FeedKind::Log { path, rules });
            }
            let rules = read_rules(settings)?;
            let path = files_location(&text.value, base).map_err(say).ok()?;
            Some(FeedKind::Files { path, rules })
        }
    }
}

fn read_generate(settings: &mut Settings<'_>) -> Option<Generate> {
    let generator = settings
        .require("generator", "\"retail.order_lines\"")
        .and_then(|value| read_generator(&value));
    let rate = match settings.take("rate", "5800") {
        None => Some(None),
        Some(value) => value.number().and_then(|rate| {
            if rate > 0.0 {
                return Some(Some(rate));
            }
            value.say(
                "setting \"rate\" must be above 0",
                "it is in events per second; without it events come as fast as possible",
            );
            None
        }),
    };
    let limit = settings
        .take("limit", "100000")
        .map_or(Some(None), |value| value.whole().map(Some));
    let seed = settings.take("seed", "42").map_or(Some(0), |value| value.whole());
    let partitions = settings.take("partitions", "4").map_or(Some(1), |value| {
        let partitions = value.whole()?;
        if (1..=1024).contains(&partitions) {
            return Some(partitions as u32);
        }
        value.say("setting \"partitions\" must be 1 to 1024", "write partitions = 4");
        None
    });
    let mut share = |name: &'static str| {
        settings.take(name, "0.01").map_or(Some(0.0), |value| {
            let share = value.number()?;
            if (0.0..=1.0).contains(&share) {
                return Some(share);
            }
            value.say(
                format!("setting {name:?} is a share of all events, and not from 0 to 1"),
                format!("write {name} = 0.01 for one event in a hundred"),
            );
            None
        })
    };
    let (updates, deletes, duplicates) = (share("updates"), share("deletes"), share("duplicates"));
    let (late, broken) = (share("late"), share("broken"));
    let shares = [updates, deletes, duplicates, late, broken];
    if shares.into_iter().flatten().sum::<f64>() > 1.0 {
        settings.say(
            "the shares of updates, deletes, duplicates, late and broken events are more than 1 together",
            "what they leave of 1 is new rows; make them smaller",
        );
        return None;
    }
    Some(Generate {
        generator: generator?,
        rate: rate?,
        limit: limit?,
        seed: seed?,
        partitions: partitions?,
        updates: updates?,
        deletes: deletes?,
        duplicates: duplicates?,
        late: late?,
        broken: broken?,
    })
}

fn read_generator(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let names = GENERATORS.map(|(name, _)| name);
    if names.contains(&text.value.as_str()) {
        return Some(text.value);
    }
    // `telemetry` means `devices.telemetry`.
    let short = names
        .into_iter()
        .find(|name| name.rsplit('.').next() == Some(&text.value));
    value.say(
        format!("unknown generator {:?}", text.written),
        match short.or_else(|| nearest(&text.value, names)) {
            Some(near) => format!("did you mean {near:?}? generators are {}", names.join(", ")),
            None => format!("generators are {}", names.join(", ")),
        },
    );
    None
}

fn formats_of(generator: &str) -> &'static [Format] {
    let known = GENERATORS.iter().find(|(name, _)| *name == generator);
    known.map_or(&[], |(_, formats)| formats)
}

/// `takes`: the formats that fit the feed; none where its kind is not known.
fn read_format(settings: &mut Settings<'_>, kind: Option<Kind>, takes: &'static [Format]) -> Option<Format> {
    let value = match (kind, takes) {
        (Some(Kind::Generate | Kind::Postgres), [usual, ..]) => match settings.take("format", "\"json\"") {
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
                (None, Some(kind)) => format!("feeds of kind {:?} take {fitting}", kind.name()),
                (None, None) => format!("formats are {}", known.join(", ")),
            },
        );
        return None;
    };
    if let Some(kind) = kind
        && !takes.is_empty()
        && !takes.contains(format)
    {
        let what = match kind {
            Kind::Generate => "this generator".to_string(),
            kind => format!("a feed of kind {:?}", kind.name()),
        };
        value.say(
            format!("format {:?} does not fit {what}", text.written),
            format!("it takes {fitting}"),
        );
        return None;
    }
    Some(*format)
}

fn read_overrides(mut settings: Settings<'_>, columns: &[Written]) -> BTreeMap<String, Texts> {
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
