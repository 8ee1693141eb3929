//! `[kafka]` of a table: its rows go to a topic too.

use std::path::Path;

use super::kafka::{KafkaClient, read_client, read_topic};
use super::settings::Settings;
use super::wire::{Registry, read_registry};

/// The topic of a table, or of the dead letters.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Where it is.
    pub client: KafkaClient,
    /// Its name.
    pub topic: String,
    /// Columns that identify a row: those of the table's key. Of dead letters none: they are told once.
    pub key: Vec<String>,
    /// How records are written.
    pub format: OutputFormat,
}

/// How records of a topic are written.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputFormat {
    /// Dead letters: the bytes that came.
    AsItCame,
    /// Rows and keys as objects.
    Json,
    /// Rows and keys as records with a schema's id, whose schemas this registry has as `<topic>-value` and `<topic>-key`.
    Avro(Registry),
}

/// Where settings that hold for a whole dataflow come from.
#[derive(Clone, Copy)]
pub(super) struct OfDataflow<'a> {
    /// What relative paths are relative to.
    pub base: &'a Path,
    /// The registry of dataflow.toml.
    pub registry: Option<&'a Registry>,
}

/// Reads the settings of a table with this key; none: mistakes were reported.
pub(super) fn read_output(mut settings: Settings<'_>, key: &[String], common: OfDataflow<'_>) -> Option<Output> {
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
        format: OutputFormat::AsItCame,
    })
}

/// What goes to a topic: its name for people, the file that says so, and where it goes.
pub(super) struct Going<'a> {
    /// `silver.orders`, or the dead letters.
    pub who: String,
    /// The file that says so.
    pub file: &'a Path,
    /// Where it goes.
    pub output: &'a Output,
}

/// A mistake in a file, and its remedy.
pub(super) type Collision<'a> = (&'a Path, String, String);

/// Outputs that get in each other's way. A dataflow has one producer for each spelling of brokers: two of one cluster would
/// fence each other, and one takes the options of one. A topic has one epoch, and one table's keys.
pub(super) fn collisions<'a>(all: &[Going<'a>]) -> Vec<Collision<'a>> {
    let mut found = Vec::new();
    for (n, one) in all.iter().enumerate() {
        for other in &all[..n] {
            let (ours, theirs) = (&one.output.client, &other.output.client);
            if !ours.hosts().any(|host| theirs.hosts().any(|their| host == their)) {
                continue;
            }
            let mut say = |message: String, help: &str| found.push((one.file, message, help.to_string()));
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
    found
}

fn read_topic_of(settings: &mut Settings<'_>) -> (Option<KafkaClient>, Option<String>) {
    let client = read_client(settings);
    let topic = settings
        .require("topic", "\"shop.sales_by_day\"")
        .and_then(|value| read_topic(&value));
    (client, topic)
}

fn read_format(settings: &mut Settings<'_>, common: OfDataflow<'_>) -> Option<OutputFormat> {
    let avro = match settings.take("format", "\"avro\"") {
        None => Some(false),
        Some(value) => value.choice(&[("json", false), ("avro", true)]),
    };
    let own = read_registry(settings, common.base)?;
    match (avro?, own) {
        (false, None) => Some(OutputFormat::Json),
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
            registry.map(OutputFormat::Avro)
        }
    }
}
