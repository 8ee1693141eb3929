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
