//! `[feeds.registry]`, `key_format`, `schema`, `unavailable` and `tables`: how records on a wire refer to their schemas, what
//! their keys are, whether a schema's new fields become columns, what stands for values that were left out, and whose changes
//! they are.
//!
//! A `[registry]` of dataflow.toml holds for every feed, one of an input for its feeds; a feed's own comes before both.

use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;

use super::dialect::{BlankRows, TextDialect};
use super::settings::{Settings, Value};

/// How the records of a feed are to be read besides their format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// Where their schemas are.
    pub registry: Option<Registry>,
    /// What their keys are; none: as the values where a key has their header, else JSON or plain text.
    pub key_format: Option<KeyFormat>,
    /// What stands for a value that the source left out; none: Debezium's default.
    pub unavailable: Option<String>,
    /// Of Canal and Maxwell, the tables whose changes are read, `database.table`; empty: all.
    pub tables: Vec<String>,
    /// Whether fields that its schemas gain become columns of the input; else no column takes them.
    pub evolves: bool,
    /// Of such fields, those that the input cannot take: some table's SQL could not be planned with them.
    pub declined: Vec<String>,
    /// Of files, how their text is written.
    pub text: TextDialect,
    /// Of CSV files, what becomes of rows that hold nothing but delimiters.
    pub blank_rows: BlankRows,
}

/// What record keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFormat {
    /// JSON, or text that is none.
    Json,
    /// Text as it is, also where it looks like JSON.
    Text,
    /// Avro with a schema id.
    Avro,
    /// Protobuf with a schema id.
    Protobuf,
}

/// A Confluent-compatible schema registry. `Debug` hides what is secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Registry {
    /// Its addresses, each ending in a slash; asked in turn.
    pub urls: Vec<Url>,
    /// Who asks.
    pub credentials: Option<Credentials>,
    /// PEM file of the authorities that its certificate is trusted by, besides the system's.
    pub ca: Option<PathBuf>,
    /// The subject of the values' schemas; none: the one that a record's schema is registered under.
    pub subject: Option<String>,
    /// The version whose aliases and defaults hold for fields that a record lacks; none: the newest when first asked.
    pub version: Option<u32>,
}

/// Who asks a registry.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// HTTP basic authentication.
    Basic {
        /// Name, or API key.
        username: String,
        /// Password, or API secret.
        password: String,
    },
    /// A bearer token.
    Token(String),
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<&str> = self.urls.iter().map(Url::as_str).collect();
        f.debug_struct("Registry")
            .field("urls", &urls)
            .field("credentials", &self.credentials.as_ref().map(|_| "***"))
            .field("ca", &self.ca)
            .field("subject", &self.subject)
            .field("version", &self.version)
            .finish()
    }
}

const EXAMPLE: &str = "{ url = \"http://localhost:8081\" }";

/// `registry`, where it stands; the outer none: mistakes were reported.
pub(super) fn read_registry(settings: &mut Settings<'_>, base: &Path) -> Option<Option<Registry>> {
    match settings.take("registry", EXAMPLE) {
        None => Some(None),
        Some(value) => read(value.settings()?, base).map(Some),
    }
}

/// `key_format`.
pub(super) fn read_key_format(settings: &mut Settings<'_>) -> Option<KeyFormat> {
    settings.take("key_format", "\"json\"")?.choice(&[
        ("json", KeyFormat::Json),
        ("text", KeyFormat::Text),
        ("avro", KeyFormat::Avro),
        ("protobuf", KeyFormat::Protobuf),
    ])
}

/// `unavailable`.
pub(super) fn read_unavailable(settings: &mut Settings<'_>) -> Option<String> {
    let value = settings.take("unavailable", "\"__debezium_unavailable_value\"")?;
    let text = value.text()?;
    if text.value.is_empty() {
        value.say(
            "setting \"unavailable\" is empty",
            "write the connector's unavailable.value.placeholder, or remove it",
        );
        return None;
    }
    Some(text.value)
}

/// `schema`; `evolve` is looked over by `judge`.
pub(super) fn read_schema(settings: &mut Settings<'_>, judge: impl FnOnce(&Value<'_>)) -> bool {
    let Some(value) = settings.take("schema", "\"evolve\"") else {
        return false;
    };
    let evolves = value.choice(&[("fixed", false), ("evolve", true)]).unwrap_or(false);
    if evolves {
        judge(&value);
    }
    evolves
}

fn read(mut settings: Settings<'_>, base: &Path) -> Option<Registry> {
    let urls = settings
        .require("url", "\"http://localhost:8081\"")
        .and_then(|value| read_urls(&value));
    let mut text = |name, example| settings.take(name, example).map(|value| value.text());
    let username = text("username", "\"${REGISTRY_USER}\"");
    let password = text("password", "\"${REGISTRY_PASSWORD}\"");
    let token = text("token", "\"${REGISTRY_TOKEN}\"");
    let ca = text("ca", "\"registry-ca.pem\"");
    let subject = text("subject", "\"orders-value\"");
    let version = match settings.take("version", "3") {
        None => Some(None),
        Some(value) => value.whole().and_then(|version| match u32::try_from(version) {
            Ok(version) if version > 0 => Some(Some(version)),
            _ => {
                value.say("setting \"version\" is no version of a schema", "versions count from 1");
                None
            }
        }),
    };
    // Of each: there and readable, not there, or there and reported.
    if [&username, &password, &token, &ca, &subject]
        .into_iter()
        .any(|text| matches!(text, Some(None)))
    {
        settings.finish();
        return None;
    }
    let [username, password, token, ca, subject] =
        [username, password, token, ca, subject].map(|text| text.flatten().map(|text| text.value));
    let credentials = match (username, password, token) {
        (None, None, None) => Some(None),
        (None, None, Some(token)) => Some(Some(Credentials::Token(token))),
        (Some(username), Some(password), None) => Some(Some(Credentials::Basic { username, password })),
        (Some(_), None, None) => {
            settings.conflicting(
                "username",
                "a registry's username without a password",
                "add password = \"${REGISTRY_PASSWORD}\"",
            );
            None
        }
        (None, Some(_), None) => {
            settings.conflicting(
                "password",
                "a registry's password without a username",
                "add username = \"${REGISTRY_USER}\"",
            );
            None
        }
        (_, _, Some(_)) => {
            settings.conflicting(
                "token",
                "a registry takes a token, or a username and a password",
                "remove one of the two",
            );
            None
        }
    };
    settings.finish();
    Some(Registry {
        urls: urls?,
        credentials: credentials?,
        ca: ca.map(|ca| base.join(ca)),
        subject,
        version: version?,
    })
}

fn read_urls(value: &Value<'_>) -> Option<Vec<Url>> {
    let text = value.text()?;
    let mut urls = Vec::new();
    for one in text.value.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        let url = Url::parse(one)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let Some(mut url) = url else {
            value.say(
                format!("{:?} is no address of a registry", text.written),
                "write http://host:8081 or https://...; several are separated by commas",
            );
            return None;
        };
        if !url.username().is_empty() || url.password().is_some() {
            value.say(
                "the registry's address holds a name or a password",
                "write them as username = \"${REGISTRY_USER}\" and password = \"${REGISTRY_PASSWORD}\": addresses are printed",
            );
            return None;
        }
        url.set_query(None);
        url.set_fragment(None);
        let path = format!("{}/", url.path().trim_end_matches('/'));
        url.set_path(&path);
        urls.push(url);
    }
    if urls.is_empty() {
        value.say(
            "setting \"url\" names no registry",
            "write url = \"http://localhost:8081\"",
        );
        return None;
    }
    Some(urls)
}
