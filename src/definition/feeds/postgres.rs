//! Kind `postgres`: tables of a PostgreSQL database.

use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use url::Url;

use super::contract::{Division, FeedContract, FeedSurroundings, Unwritable, WriteTarget};
use super::kind::KindOfFeed;
use crate::definition::diagnostic::nearest;
use crate::definition::settings::{SettingValue, Settings};
use crate::definition::{Format, Input};
use crate::repr::Position;

/// The kind's properties.
pub(super) const KIND: KindOfFeed = KindOfFeed {
    name: "postgres",
    formats: &[Format::DebeziumJson],
    settings: &["url", "publication", "slot", "start"],
    has_usual_format: true,
    ..KindOfFeed::OF_RECORDS
};

/// Settings of a `postgres` feed.
#[derive(Clone, Debug, PartialEq)]
pub struct Postgres {
    /// The database's address.
    pub url: PostgresUrl,
    /// `schema.table`, in the order of the file.
    pub tables: Vec<String>,
    /// The publication of the tables' changes; none: see [`Postgres::publication`].
    pub publication: Option<String>,
    /// The replication slot, which retains unread changes; none: see [`Postgres::slot`].
    pub slot: Option<String>,
    /// Where to start reading a table that no snapshot knows.
    pub start: FirstRows,
}

/// Where to start reading a table that no snapshot knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstRows {
    /// With a copy of its present rows.
    Snapshot,
    /// With the changes from now on.
    Now,
}

impl Postgres {
    /// The name of its replication slot, in a dataflow of this name.
    pub fn slot(&self, dataflow: &str) -> String {
        self.slot.clone().unwrap_or_else(|| usual_name(dataflow))
    }

    /// The name of its publication, in a dataflow of this name.
    pub fn publication(&self, dataflow: &str) -> String {
        self.publication.clone().unwrap_or_else(|| usual_name(dataflow))
    }
}

/// `alluvium_<dataflow>`, with the characters that are allowed in a slot's name.
fn usual_name(dataflow: &str) -> String {
    let plain = |c: char| match c.to_ascii_lowercase() {
        c if is_plain(c) => c,
        _ => '_',
    };
    format!("alluvium_{dataflow}").chars().map(plain).take(63).collect()
}

fn is_plain(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

/// A database's address. Neither `Debug` nor `Display` shows the password.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PostgresUrl {
    /// A host name or an IP address.
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<String>,
    pub database: String,
    pub tls: SslMode,
    /// PEM file of the trusted root certificates; none: those of the system.
    pub root_certificates: Option<PathBuf>,
}

/// Whether a connection is encrypted and the server verified (`sslmode`, with libpq's meanings).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// No encryption.
    Disable,
    /// Encrypt if the server offers it; do not verify the server.
    Prefer,
    /// Always encrypt; verify the server's certificate only if root certificates are given.
    Require,
    /// Encrypt, and verify that a trusted root signed the server's certificate.
    VerifyCa,
    /// The same, and verify that the certificate is for the host.
    VerifyFull,
}

const MODES: [(&str, SslMode); 5] = [
    ("disable", SslMode::Disable),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PostgresUrl {
            user,
            host,
            port,
            database,
            ..
        } = self;
        write!(f, "postgres://{user}@{host}:{port}/{database}")
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?}, {:?})", self.tls, self.root_certificates)
    }
}

impl PostgresUrl {
    /// Parses an address. The error describes the mistake without parts of the address that may be secret. Relative
    /// paths are relative to `base`.
    pub fn parse(text: &str, base: &Path) -> Result<PostgresUrl, String> {
        let url = Url::parse(text).map_err(|error| format!("it is no URL: {error}"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err("it does not start with postgres://".into());
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let host = match url.host_str() {
            Some(host) if !host.is_empty() => decoded(host).trim_matches(['[', ']']).to_string(),
            _ => return Err("it names no host".into()),
        };
        let user = decoded(url.username());
        if user.is_empty() {
            return Err("it names no user".into());
        }
        let database = decoded(url.path().trim_start_matches('/'));
        if database.is_empty() || database.contains('/') {
            return Err("it names no database".into());
        }
        let (mut tls, mut root_certificates) = (SslMode::Prefer, None);
        for (name, value) in url.query_pairs() {
            match name.as_ref() {
                "sslmode" => {
                    let known = MODES.map(|(name, _)| name);
                    let (_, mode) = MODES.iter().find(|(name, _)| *name == value).ok_or_else(|| {
                        let near =
                            nearest(&value, known).map_or(String::new(), |near| format!("; did you mean {near}?"));
                        format!("its sslmode is none of {}{near}", known.join(", "))
                    })?;
                    tls = *mode;
                }
                "sslrootcert" => root_certificates = Some(base.join(value.as_ref())),
                _ => return Err("it has a parameter other than sslmode and sslrootcert".into()),
            }
        }
        Ok(PostgresUrl {
            host,
            port: url.port().unwrap_or(5432),
            user,
            password: url.password().map(decoded),
            database,
            tls,
            root_certificates,
        })
    }
}

impl FeedContract for Postgres {
    fn describe(&self, _: &FeedSurroundings<'_>) -> String {
        format!("postgres {} at {}", self.tables.join(", "), self.url)
    }

    fn tells_meanings(&self) -> bool {
        true
    }

    fn moves_rows(&self) -> bool {
        true
    }

    fn division(&self, _: &Input) -> Division {
        Division::First
    }

    fn forgets(&self) -> bool {
        true
    }

    fn repeats(&self, _: &Position) -> bool {
        // The server deletes changes once the slot has confirmed them.
        false
    }

    fn written_to(&self) -> Result<WriteTarget<'_>, Unwritable> {
        Err(Unwritable {
            reason: "reads a database",
            help: "name a feed of kind \"files\", \"log\" or \"kafka\"",
        })
    }
}

const TABLES: &str = "[\"public.orders\"]";

/// Reads the settings; none if mistakes were reported.
pub(super) fn read(settings: &mut Settings<'_>, base: &Path) -> Option<Postgres> {
    let url = settings
        .require("url", "\"postgres://user:${PG_PASSWORD}@host:5432/shop\"")
        .and_then(|value| read_url(&value, base));
    let tables = settings.require("tables", TABLES).and_then(|value| read_tables(&value));
    let mut name =
        |name, read: fn(&SettingValue<'_>) -> Option<String>| match settings.setting(name, "\"alluvium_shop\"") {
            None => Some(None),
            Some(value) => read(&value).map(Some),
        };
    let (publication, slot) = (name("publication", read_publication), name("slot", read_slot));
    let start = match settings.setting("start", "\"snapshot\"") {
        None => Some(FirstRows::Snapshot),
        Some(value) => value.choice(&[("snapshot", FirstRows::Snapshot), ("now", FirstRows::Now)]),
    };
    Some(Postgres {
        url: url?,
        tables: tables?,
        publication: publication?,
        slot: slot?,
        start: start?,
    })
}

fn read_url(value: &SettingValue<'_>, base: &Path) -> Option<PostgresUrl> {
    let text = value.text()?;
    let read = PostgresUrl::parse(&text.value, base);
    if let Err(wrong) = &read {
        value.say(
            format!("bad address of a database: {wrong}"),
            "write postgres://user:${PG_PASSWORD}@host:5432/database?sslmode=verify-full; in a password %, /, ?, # and @ are \
             written %25, %2F, %3F, %23 and %40",
        );
    }
    read.ok()
}

/// Reads names of tables, each with its schema or database.
pub(super) fn read_tables(value: &SettingValue<'_>) -> Option<Vec<String>> {
    let mut tables: Vec<String> = Vec::new();
    for text in value.texts()? {
        let parts = text.value.split_once('.');
        if parts.is_none_or(|(schema, table)| schema.is_empty() || table.is_empty()) {
            value.say(
                format!("{:?} names no table", text.written),
                format!("write schema and table, as in tables = {TABLES}"),
            );
            return None;
        }
        if tables.contains(&text.value) {
            value.say(format!("table {:?} is named twice", text.written), "remove one");
            return None;
        }
        tables.push(text.value);
    }
    if tables.is_empty() {
        value.say("the feed names no table", format!("write tables = {TABLES}"));
        return None;
    }
    Some(tables)
}

fn read_publication(value: &SettingValue<'_>) -> Option<String> {
    let text = value.text()?;
    if !text.value.is_empty() && text.value.len() <= 63 && !text.value.contains(['"', ',', '\'', '\\', '\0']) {
        return Some(text.value);
    }
    value.say(
        format!("a publication cannot be called {:?}", text.written),
        "use up to 63 letters, digits and _",
    );
    None
}

fn read_slot(value: &SettingValue<'_>) -> Option<String> {
    let text = value.text()?;
    if (1..=63).contains(&text.value.len()) && text.value.chars().all(is_plain) {
        return Some(text.value);
    }
    value.say(
        format!("a slot cannot be called {:?}", text.written),
        "PostgreSQL takes up to 63 small letters, digits and _",
    );
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_its_password_is_not_shown() {
        let read = |text| PostgresUrl::parse(text, Path::new("/base"));
        let url =
            read("postgres://an%40a:p%2Fw%25@db.example:6432/shop?sslmode=verify-full&sslrootcert=ca.pem").unwrap();
        let PostgresUrl {
            host,
            port,
            user,
            password,
            database,
            tls,
            root_certificates,
        } = &url;
        assert_eq!((host.as_str(), *port, user.as_str()), ("db.example", 6432, "an@a"));
        assert_eq!((password.as_deref(), database.as_str()), (Some("p/w%"), "shop"));
        assert_eq!(
            (*tls, root_certificates.as_deref()),
            (SslMode::VerifyFull, Some(Path::new("/base/ca.pem")))
        );
        assert_eq!(url.to_string(), "postgres://an@a@db.example:6432/shop");
        assert!(!format!("{url:?}").contains("p/w"));
        assert_eq!(read("postgresql://u@[::1]/d").unwrap().host, "::1");
        for (text, wrong) in [
            ("postgres://host/d", "no user"),
            ("postgres://u@host", "no database"),
            ("mysql://u:secret@host/d", "postgres://"),
            ("postgres://u:secret@host/d?sslmode=verify", "did you mean verify-ca?"),
            ("postgres://u:secret@host/d?options=x", "other than"),
            ("secret", "no URL"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(wrong) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_slot_is_named_after_its_dataflow() {
        assert_eq!(usual_name("Shop-2"), "alluvium_shop_2");
        assert_eq!(usual_name(&"x".repeat(90)).len(), 63);
    }
}
