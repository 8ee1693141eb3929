//! The settings of a feed of kind `postgres`.

use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use url::Url;

use super::diagnostic::nearest;
use super::settings::{Settings, Value};

/// Which tables are read, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Postgres {
    /// The database.
    pub url: PostgresUrl,
    /// `schema.table`, in the order of the file.
    pub tables: Vec<String>,
    /// What publishes their changes; none: as [`Postgres::publication`] says.
    pub publication: Option<String>,
    /// What keeps the changes that were not read; none: as [`Postgres::slot`] says.
    pub slot: Option<String>,
    /// Where a table begins that no snapshot knows.
    pub start: FirstRows,
}

/// Where a table begins that no snapshot knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstRows {
    /// With the rows that it holds.
    Snapshot,
    /// With the changes that are made from now on.
    Now,
}

impl Postgres {
    /// The name of its replication slot, in a dataflow of this name.
    pub fn slot(&self, dataflow: &str) -> String {
        self.slot.clone().unwrap_or_else(|| usual_name(dataflow))
    }

    /// The name of its publication, likewise.
    pub fn publication(&self, dataflow: &str) -> String {
        self.publication.clone().unwrap_or_else(|| usual_name(dataflow))
    }
}

/// `alluvium_<dataflow>`, of what a slot's name may be made of.
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
    /// A name or an address.
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<String>,
    pub database: String,
    pub tls: SslMode,
    /// Certificates of those who are trusted, in PEM; none: the system's.
    pub root_certificates: Option<PathBuf>,
}

/// How a connection is encrypted (`sslmode`, with libpq's meanings).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Not.
    Disable,
    /// Where the server offers it; who the server is is not looked at.
    Prefer,
    /// In any case; who the server is is not looked at, unless root certificates are named.
    Require,
    /// The server's certificate must be signed by one who is trusted.
    VerifyCa,
    /// And must be for the host.
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
    /// Reads an address; the error says what is wrong with it, without a part of it that may be secret. `base`: what a
    /// relative path starts from.
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

/// The settings of this kind alone; `start` is of several.
pub(super) const SETTINGS: [&str; 3] = ["url", "publication", "slot"];

const TABLES: &str = "[\"public.orders\"]";

/// Reads the settings; none: mistakes were reported.
pub(super) fn read_postgres(settings: &mut Settings<'_>, base: &Path) -> Option<Postgres> {
    let url = settings
        .require("url", "\"postgres://user:${PG_PASSWORD}@host:5432/shop\"")
        .and_then(|value| read_url(&value, base));
    let tables = settings.require("tables", TABLES).and_then(|value| read_tables(&value));
    let mut name = |name, read: fn(&Value<'_>) -> Option<String>| match settings.take(name, "\"alluvium_shop\"") {
        None => Some(None),
        Some(value) => read(&value).map(Some),
    };
    let (publication, slot) = (name("publication", read_publication), name("slot", read_slot));
    let start = match settings.take("start", "\"snapshot\"") {
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

fn read_url(value: &Value<'_>, base: &Path) -> Option<PostgresUrl> {
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

/// Names of tables, each with what it is in.
pub(super) fn read_tables(value: &Value<'_>) -> Option<Vec<String>> {
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

fn read_publication(value: &Value<'_>) -> Option<String> {
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

fn read_slot(value: &Value<'_>) -> Option<String> {
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
