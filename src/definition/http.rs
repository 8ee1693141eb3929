//! `[http]` of `dataflow.toml`: the address for feeds of kind `http`, and the limits of requests.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::bounds::read_bytes;
use super::location::{LocationError, folder_location};
use super::settings::{SettingValue, Settings};

/// Settings of the HTTP server. `Debug` hides secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Http {
    /// The address and port to listen on.
    pub listen: SocketAddr,
    /// A request must have one of these tokens; if there are none, every request is accepted.
    pub tokens: Vec<String>,
    /// The certificate, if connections use TLS.
    pub tls: Option<Tls>,
    /// The most bytes of a request's body, both compressed and decompressed.
    pub max_body: u64,
    /// For each feed, the bytes of rows not yet read above which requests are put off.
    pub max_waiting: u64,
    /// How long a client may take to send a request.
    pub timeout: Duration,
    /// How long an idempotency key is remembered.
    pub remember: Duration,
    /// The most keys that are remembered for each feed; the oldest are forgotten first.
    pub remember_most: u64,
    /// Where rows are stored until a snapshot holds them; none: in the lake, which must be a local folder.
    pub folder: Option<PathBuf>,
}

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate and its chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("listen", &self.listen)
            .field("tokens", &format_args!("{} hidden", self.tokens.len()))
            .field("tls", &self.tls)
            .field("max_body", &self.max_body)
            .field("max_waiting", &self.max_waiting)
            .field("timeout", &self.timeout)
            .field("remember", &self.remember)
            .field("remember_most", &self.remember_most)
            .field("folder", &self.folder)
            .finish()
    }
}

impl Http {
    /// The folder for the rows of all feeds; none if the lake is no local folder and no folder is configured.
    pub fn folder(&self, lake: &str) -> Option<PathBuf> {
        match &self.folder {
            Some(folder) => Some(folder.clone()),
            None => {
                let lake = lake.strip_prefix("file://").unwrap_or(lake);
                (!lake.contains("://")).then(|| Path::new(lake).join("_alluvium/http"))
            }
        }
    }

    /// The URL to which an input's rows are posted.
    pub fn address(&self, input: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/v1/inputs/{input}", self.listen)
    }
}

/// The remedy if the lake is no local folder.
pub const NEEDS_FOLDER: &str =
    "add [http] folder = \"/var/lib/alluvium/http\", on a disk that outlives the process and its machine's restarts";

/// The least length of a token; a shorter one could be guessed.
const SHORTEST: usize = 16;

/// The names of all settings.
pub(super) const SETTINGS: [&str; 9] = [
    "listen",
    "token",
    "tls",
    "max_body",
    "max_waiting",
    "timeout",
    "remember",
    "remember_most",
    "folder",
];

/// Reads the settings; none if mistakes were reported.
pub(super) fn read_http(mut settings: Settings<'_>, base: &Path) -> Option<Http> {
    let listen = settings
        .require("listen", "\"127.0.0.1:8080\"")
        .and_then(|value| Some((read_address(&value)?, value)));
    let tokens = match settings.setting("token", "\"${INGEST_TOKEN}\"") {
        None => Some(vec![]),
        Some(value) => read_tokens(&value),
    };
    let tls = match settings.setting("tls", "{ cert = \"server.pem\", key = \"server.key\" }") {
        None => Some(None),
        Some(value) => value.settings().and_then(|settings| read_tls(settings, base)).map(Some),
    };
    let mut bytes = |name, example, usual: u64| match settings.setting(name, example) {
        None => Some(usual),
        Some(value) => read_bytes(&value),
    };
    let max_body = bytes("max_body", "\"16 MiB\"", 16 << 20);
    let max_waiting = bytes("max_waiting", "\"256 MiB\"", 256 << 20);
    let mut duration = |name, example, usual| match settings.setting(name, example) {
        None => Some(usual),
        Some(value) => value.duration(),
    };
    let timeout = duration("timeout", "\"30s\"", Duration::from_secs(30));
    let remember = duration("remember", "\"1 day\"", Duration::from_secs(24 * 3600));
    let remember_most = match settings.setting("remember_most", "1000000") {
        None => Some(1_000_000),
        Some(value) => value.whole(),
    };
    let folder = match settings.setting("folder", "\"/var/lib/alluvium/http\"") {
        None => Some(None),
        Some(value) => value.text().and_then(|text| {
            let (wrong, help) = match folder_location(&text.value, base) {
                Ok(folder) => return Some(Some(folder)),
                Err(LocationError::NotAFolder(what)) => (
                    format!("it is a {what}"),
                    "name a folder of a local disk: rows are there before the lake has them".to_string(),
                ),
                Err(error) => (error.to_string(), error.help()),
            };
            value.say(format!("bad folder {:?}: {wrong}", text.written), help);
            None
        }),
    };
    settings.finish();
    let (listen, at) = listen?;
    let tokens = tokens?;
    if tokens.is_empty() && !listen.ip().is_loopback() {
        at.say(
            format!("whoever reaches {listen} could write into the inputs: there is no token"),
            "add token = \"${INGEST_TOKEN}\", made with: openssl rand -hex 32; or listen at 127.0.0.1",
        );
        return None;
    }
    const LARGEST: u64 = 1 << 30;
    if max_body.is_some_and(|bytes| bytes > LARGEST) {
        settings_too_large(&at);
        return None;
    }
    Some(Http {
        listen,
        tokens,
        tls: tls?,
        max_body: max_body?,
        max_waiting: max_waiting?,
        timeout: timeout?,
        remember: remember?,
        remember_most: remember_most?,
        folder: folder?,
    })
}

fn settings_too_large(at: &SettingValue<'_>) {
    at.say(
        "a request's body is held in memory, and max_body is above 1 GiB",
        "make max_body smaller: clients send several requests; files are for a feed of kind \"files\"",
    );
}

fn read_address(value: &SettingValue<'_>) -> Option<SocketAddr> {
    let text = value.text()?;
    let numbers = text.value.replacen("localhost:", "127.0.0.1:", 1);
    let address = numbers.parse().ok();
    if address.is_none() {
        value.say(
            format!("{:?} is no address to listen at", text.written),
            "write an address and a port: \"127.0.0.1:8080\" for this machine alone, \"0.0.0.0:8080\" for all",
        );
    }
    address
}

fn read_tokens(value: &SettingValue<'_>) -> Option<Vec<String>> {
    let tokens = value.texts()?;
    // The message must not contain the token.
    let good = |token: &str| token.len() >= SHORTEST && token.bytes().all(|b| b.is_ascii_graphic());
    if tokens.is_empty() || !tokens.iter().all(|token| good(&token.value)) {
        value.say(
            format!("a token has {SHORTEST} or more letters, digits and signs, and no spaces"),
            "make one with: openssl rand -hex 32, and name its variable: token = \"${INGEST_TOKEN}\"",
        );
        return None;
    }
    Some(tokens.into_iter().map(|token| token.value).collect())
}

fn read_tls(mut settings: Settings<'_>, base: &Path) -> Option<Tls> {
    let mut file = |name, example| {
        let value = settings.require(name, example)?;
        let text = value.text()?;
        let path = base.join(text.value);
        if !path.is_file() {
            value.say(
                format!("there is no file {:?}", text.written),
                "name a PEM file; a relative path starts at the dataflow's folder",
            );
            return None;
        }
        Some(path)
    };
    let (cert, key) = (file("cert", "\"server.pem\""), file("key", "\"server.key\""));
    settings.finish();
    Some(Tls { cert: cert?, key: key? })
}
