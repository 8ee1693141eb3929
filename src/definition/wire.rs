//! `[feeds.registry]`, `key_format`, `schema`, `unavailable` and `tables`: where the schemas of records are, what
//! keys are, whether new fields of a schema become columns, what stands for values that the source left out, and
//! which tables' changes are read.
//!
//! A `[registry]` in dataflow.toml applies to every feed, one of an input to its feeds; a feed's own has precedence
//! over both.

use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;

use super::dialect::{BlankRows, TextDialect};
use super::settings::{SettingValue, Settings};

/// How to decode the records of a feed, besides their format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// The schema registry.
    pub registry: Option<RegistrySettings>,
    /// The format of keys; none: that of values if a key has the header of a schema id, otherwise JSON or plain text.
    pub key_format: Option<KeyFormat>,
    /// The placeholder for a value that the source left out; none: Debezium's default.
    pub unavailable: Option<String>,
    /// For Canal and Maxwell, the tables whose changes are read, as `database.table`; empty: all.
    pub tables: Vec<String>,
    /// Whether new fields of its schemas become columns of the input; otherwise they are ignored.
    pub evolves: bool,
    /// New fields that the input cannot take as columns, because some table's SQL could not be planned with them.
    pub declined: Vec<String>,
    /// For files, the dialect of their text.
    pub text: TextDialect,
    /// For CSV files, what to do with rows that consist only of delimiters.
    pub blank_rows: BlankRows,
}

/// The format of record keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFormat {
    /// JSON, or text if it is no valid JSON.
    Json,
    /// Text, even if it looks like JSON.
    Text,
    /// Avro behind a schema id.
    Avro,
    /// Protobuf behind a schema id.
    Protobuf,
}

/// A Confluent-compatible schema registry. `Debug` hides secrets.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RegistrySettings {
    /// Its addresses, each ending in a slash; they are tried in turn.
    pub urls: Vec<Url>,
    /// How requests are authenticated.
    pub credentials: Option<Credentials>,
    /// PEM file with certificate authorities that are trusted besides those of the system.
    pub ca: Option<PathBuf>,
    /// The subject of the values' schemas; none: the subject under which a record's schema is registered.
    pub subject: Option<String>,
    /// The version whose aliases and defaults apply to fields that a record lacks; none: the newest at the first
    /// request.
    pub version: Option<u32>,
}

/// How requests to a registry are authenticated.
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

impl fmt::Debug for RegistrySettings {
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

/// Reads `registry`, if it is there; the outer none means that mistakes were reported.
pub(super) fn read_registry(settings: &mut Settings<'_>, base: &Path) -> Option<Option<RegistrySettings>> {
    match settings.setting("registry", EXAMPLE) {
        None => Some(None),
        Some(value) => read(value.settings()?, base).map(Some),
    }
}

/// Reads `key_format`.
pub(super) fn read_key_format(settings: &mut Settings<'_>) -> Option<KeyFormat> {
    settings.setting("key_format", "\"json\"")?.choice(&[
        ("json", KeyFormat::Json),
        ("text", KeyFormat::Text),
        ("avro", KeyFormat::Avro),
        ("protobuf", KeyFormat::Protobuf),
    ])
}

/// Reads `unavailable`.
pub(super) fn read_unavailable(settings: &mut Settings<'_>) -> Option<String> {
    let value = settings.setting("unavailable", "\"__debezium_unavailable_value\"")?;
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

/// Reads `schema`; `judge` checks whether `evolve` is possible.
pub(super) fn read_schema(settings: &mut Settings<'_>, judge: impl FnOnce(&SettingValue<'_>)) -> bool {
    let Some(value) = settings.setting("schema", "\"evolve\"") else {
        return false;
    };
    let evolves = value.choice(&[("fixed", false), ("evolve", true)]).unwrap_or(false);
    if evolves {
        judge(&value);
    }
    evolves
}

fn read(mut settings: Settings<'_>, base: &Path) -> Option<RegistrySettings> {
    let urls = settings
        .require("url", "\"http://localhost:8081\"")
        .and_then(|value| read_urls(&value));
    let mut text = |name, example| settings.setting(name, example).map(|value| value.text());
    let username = text("username", "\"${REGISTRY_USER}\"");
    let password = text("password", "\"${REGISTRY_PASSWORD}\"");
    let token = text("token", "\"${REGISTRY_TOKEN}\"");
    let ca = text("ca", "\"registry-ca.pem\"");
    let subject = text("subject", "\"orders-value\"");
    let version = match settings.setting("version", "3") {
        None => Some(None),
        Some(value) => value.whole().and_then(|version| match u32::try_from(version) {
            Ok(version) if version > 0 => Some(Some(version)),
            _ => {
                value.say("setting \"version\" is no version of a schema", "versions count from 1");
                None
            }
        }),
    };
    // For each: readable, missing, or present and reported.
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
    Some(RegistrySettings {
        urls: urls?,
        credentials: credentials?,
        ca: ca.map(|ca| base.join(ca)),
        subject,
        version: version?,
    })
}

fn read_urls(value: &SettingValue<'_>) -> Option<Vec<Url>> {
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
