//! Reads `dataflow.toml`, the settings of the whole dataflow.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use object_store::aws::AmazonS3ConfigKey;
use object_store::azure::AzureConfigKey;
use object_store::client::ClientConfigKey;
use object_store::gcp::GoogleConfigKey;

use super::bounds::{Bounds, read_bounds};
use super::diagnostic::nearest;
use super::file::File;
use super::http::{Http, read_http};
use super::location::lake_of_dataflow;
use super::output::{Output, read_dead_letters};
use super::settings::Settings;
use super::wire::{RegistrySettings, read_registry};

/// The file that makes a folder a dataflow.
pub const DATAFLOW_FILE: &str = "dataflow.toml";

/// The content of `dataflow.toml`.
#[derive(Default)]
pub(super) struct Root {
    pub name: String,
    pub lake: String,
    pub epoch: Duration,
    pub commit: Duration,
    pub durable: bool,
    pub guard: bool,
    pub history: Duration,
    pub bounds: Bounds,
    pub store_options: BTreeMap<String, String>,
    pub dead_letters: Option<Output>,
    pub http: Option<Http>,
    /// The registry of every feed that has none of its own.
    pub registry: Option<RegistrySettings>,
}

/// The common options of object stores, for remedies; all options that `object_store` knows are accepted.
const USUAL_STORE_OPTIONS: [&str; 16] = [
    "access_key_id",
    "secret_access_key",
    "session_token",
    "region",
    "endpoint",
    "allow_http",
    "virtual_hosted_style_request",
    "account_name",
    "account_key",
    "sas_token",
    "client_id",
    "client_secret",
    "tenant_id",
    "service_account_path",
    "service_account_key",
    "skip_signature",
];

/// Reads the file; none if mistakes were reported.
pub(super) fn read_root(file: &File<'_>, base: &Path) -> Option<Root> {
    let table = file.parse();
    let mut settings = Settings::of_file(file, table.get_ref());
    let name = settings.require("name", "\"retail\"").and_then(|value| {
        let text = value.text()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if text.value.is_empty() || !text.value.chars().all(plain) {
            value.say(
                format!("a dataflow cannot be called {:?}", text.written),
                "use letters, digits, _, - and . alone: the name stands in every transaction",
            );
            return None;
        }
        Some(text.value)
    });
    let lake = match settings.setting("lake", "\"lake\"") {
        None => lake_of_dataflow("lake", base, base).ok(),
        Some(value) => value.text().and_then(|text| {
            lake_of_dataflow(&text.value, base, base)
                .map_err(|error| value.say(format!("bad lake {:?}: {error}", text.written), error.help()))
                .ok()
        }),
    };
    let mut duration = |name, example, default| match settings.setting(name, example) {
        None => Some(default),
        Some(value) => value.duration(),
    };
    let epoch = duration("epoch", "\"10ms\"", Duration::from_millis(10));
    let commit = duration("commit", "\"1s\"", Duration::from_secs(1));
    let history = duration("history", "\"1 day\"", Duration::from_secs(24 * 3600));
    let durable = match settings.setting("durability", "\"full\"") {
        None => Some(true),
        Some(value) => value.choice(&[("full", true), ("none", false)]),
    };
    let guard = match settings.setting("guard", "true") {
        None => Some(false),
        Some(value) => value.boolean(),
    };
    let bounds = read_bounds(&mut settings, base);
    let store_options = match settings.setting("store", "{ region = \"eu-central-1\" }") {
        None => Some(BTreeMap::new()),
        Some(value) => value.settings().and_then(read_store),
    };
    let registry = read_registry(&mut settings, base);
    let dead_letters = match settings.setting(
        "dead_letters",
        "{ brokers = \"localhost:9092\", topic = \"shop.dead\" }",
    ) {
        None => Some(None),
        Some(value) => value.settings().and_then(read_dead_letters).map(Some),
    };
    let http = match settings.setting("http", "{ listen = \"127.0.0.1:8080\" }") {
        None => Some(None),
        Some(value) => value
            .settings()
            .and_then(|settings| read_http(settings, base))
            .map(Some),
    };
    settings.finish();
    Some(Root {
        name: name?,
        lake: lake?,
        epoch: epoch?,
        commit: commit?,
        durable: durable?,
        guard: guard?,
        history: history?,
        bounds: bounds?,
        store_options: store_options?,
        dead_letters: dead_letters?,
        http: http?,
        registry: registry?,
    })
}

fn read_store(mut settings: Settings<'_>) -> Option<BTreeMap<String, String>> {
    let file = settings.file();
    let mut options = Some(BTreeMap::new());
    for value in settings.take_all("\"text\"") {
        let key = value.key.to_ascii_lowercase();
        let text = value.scalar();
        if !is_store_option(&key) {
            let known = "any option of S3, Azure or Google storage, such as access_key_id, region or account_name";
            file.say(
                &value.key_at,
                format!("unknown store option {:?}", value.key),
                match nearest(&key, USUAL_STORE_OPTIONS) {
                    Some(near) => format!("did you mean {near:?}? known here: {known}"),
                    None => format!("known here: {known}"),
                },
            );
            options = None;
        }
        options = match (options, text) {
            (Some(mut options), Some(text)) => {
                options.insert(key, text);
                Some(options)
            }
            _ => None,
        };
    }
    options
}

fn is_store_option(key: &str) -> bool {
    key.parse::<AmazonS3ConfigKey>().is_ok()
        || key.parse::<AzureConfigKey>().is_ok()
        || key.parse::<GoogleConfigKey>().is_ok()
        || key.parse::<ClientConfigKey>().is_ok()
}
