//! `[kafka]` of a table: its rows go to a topic too.

use super::kafka::{ClientOptions, read_brokers, read_options, read_topic};
use super::settings::Settings;

/// Where brokers are and how they are spoken to.
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaClient {
    /// `host:port`, several by commas.
    pub brokers: String,
    /// librdkafka's own settings.
    pub options: ClientOptions,
}

/// The topic of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Where it is.
    pub client: KafkaClient,
    /// Its name.
    pub topic: String,
    /// Columns that identify a row: those of the table's key.
    pub key: Vec<String>,
}

/// Reads the settings of a table with this key; none: mistakes were reported.
pub(super) fn read_output(mut settings: Settings<'_>, key: &[String]) -> Option<Output> {
    let brokers = settings
        .require("brokers", "\"localhost:9092\"")
        .and_then(|value| read_brokers(&value));
    let topic = settings
        .require("topic", "\"shop.sales_by_day\"")
        .and_then(|value| read_topic(&value));
    let options = match settings.take("options", "{ \"security.protocol\" = \"SASL_SSL\" }") {
        None => Some(ClientOptions::default()),
        Some(value) => value.settings().and_then(read_options),
    };
    if key.is_empty() {
        settings.say(
            "a table without a key cannot go to a topic: rows that change or go are told by their key",
            "add key = [...] to the table",
        );
    }
    settings.finish();
    Some(Output {
        client: KafkaClient {
            brokers: brokers?,
            options: options?,
        },
        topic: topic?,
        key: (!key.is_empty()).then(|| key.to_vec())?,
    })
}
