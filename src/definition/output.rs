//! `[kafka]` of a table: the topic to which its rows are also written.

use std::path::Path;

use super::kafka_client::{KafkaClient, read_client, read_topic};
use super::settings::Settings;
use super::wire::{RegistrySettings, read_registry};

/// The topic of a table, or of dead letters.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// How to reach the brokers.
    pub client: KafkaClient,
    /// The topic's name.
    pub topic: String,
    /// Columns that identify a row: the table's key. Empty for dead letters, which are never updated.
    pub key: Vec<String>,
    /// The format of the records.
    pub format: TopicFormat,
}

/// The format of a topic's records.
#[derive(Clone, Debug, PartialEq)]
pub enum TopicFormat {
    /// For dead letters: the bytes as they arrived.
    AsItCame,
    /// Rows and keys as JSON objects.
    Json,
    /// Rows and keys as Avro behind schema ids; this registry has the schemas as `<topic>-value` and `<topic>-key`.
    Avro(RegistrySettings),
}

/// The dataflow's settings that apply to all outputs.
#[derive(Clone, Copy)]
pub(super) struct OutputDefaults<'a> {
    /// The folder to which relative paths are joined.
    pub base: &'a Path,
    /// The registry of dataflow.toml.
    pub registry: Option<&'a RegistrySettings>,
}

/// Reads the settings of a table with this key; none if mistakes were reported.
pub(super) fn read_output(mut settings: Settings<'_>, key: &[String], common: OutputDefaults<'_>) -> Option<Output> {
    if key.is_empty() {
        settings.say(
            "a table without a key cannot go to a topic: rows that change or go are told by their key",
            "add key = [...] to the table",
        );
    }
    let format = read_format(&mut settings, common);
    let (client, topic) = read_topic_of(&mut settings);
    settings.finish();
    let output = Output {
        client: client?,
        topic: topic?,
        key: key.to_vec(),
        format: format?,
    };
    Some(output).filter(|_| !key.is_empty())
}

/// Reads `[dead_letters]`.
pub(super) fn read_dead_letters(mut settings: Settings<'_>) -> Option<Output> {
    let (client, topic) = read_topic_of(&mut settings);
    settings.finish();
    Some(Output {
        client: client?,
        topic: topic?,
        key: vec![],
        format: TopicFormat::AsItCame,
    })
}

/// Something that is written to a topic.
pub(super) struct OutputTarget<'a> {
    /// Its name in messages: `silver.orders`, or the dead letters.
    pub who: String,
    /// The file with the setting.
    pub file: &'a Path,
    /// The topic.
    pub output: &'a Output,
}

/// A mistake: the file, the message, and the remedy.
pub(super) type Collision<'a> = (&'a Path, String, String);

/// Finds outputs that conflict. A dataflow has one producer for each spelling of `brokers`: two producers of one
/// cluster would fence each other, and one producer can only have one set of options. A topic can hold the epochs and
/// keys of only one table.
pub(super) fn collisions<'a>(all: &[OutputTarget<'a>]) -> Vec<Collision<'a>> {
    let mut collisions = Vec::new();
    for (n, one) in all.iter().enumerate() {
        for other in &all[..n] {
            let (ours, theirs) = (&one.output.client, &other.output.client);
            if !ours.hosts().any(|host| theirs.hosts().any(|their| host == their)) {
                continue;
            }
            let mut say = |message: String, help: &str| collisions.push((one.file, message, help.to_string()));
            if ours.brokers != theirs.brokers {
                say(
                    format!(
                        "brokers {:?} are the cluster of {}, which says {:?}",
                        ours.brokers, other.who, theirs.brokers
                    ),
                    "write the same brokers for all that goes there: each spelling is a producer, and one would fence the other",
                );
            } else if ours.options != theirs.options {
                say(
                    format!("{} goes to the same brokers by other options", other.who),
                    "write the same options for all that goes there: one producer sends it",
                );
            }
            if one.output.topic == other.output.topic {
                say(
                    format!("{} goes to topic {:?} as well", other.who, one.output.topic),
                    "name a topic of its own: keys of both would mix",
                );
            }
        }
    }
    collisions
}

fn read_topic_of(settings: &mut Settings<'_>) -> (Option<KafkaClient>, Option<String>) {
    let client = read_client(settings);
    let topic = settings
        .require("topic", "\"shop.sales_by_day\"")
        .and_then(|value| read_topic(&value));
    (client, topic)
}

fn read_format(settings: &mut Settings<'_>, common: OutputDefaults<'_>) -> Option<TopicFormat> {
    let avro = match settings.setting("format", "\"avro\"") {
        None => Some(false),
        Some(value) => value.choice(&[("json", false), ("avro", true)]),
    };
    let own = read_registry(settings, common.base)?;
    match (avro?, own) {
        (false, None) => Some(TopicFormat::Json),
        (false, Some(_)) => {
            settings.say(
                "a topic of JSON has no schemas, and no registry",
                "remove the registry, or add format = \"avro\"",
            );
            None
        }
        (true, own) => {
            let registry = own.or_else(|| common.registry.cloned());
            if registry.is_none() {
                settings.say(
                    "format \"avro\" needs a schema registry",
                    "add registry = { url = \"http://localhost:8081\" } beside it or to dataflow.toml",
                );
            }
            registry.map(TopicFormat::Avro)
        }
    }
}
