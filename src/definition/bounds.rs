//! What a run may take of its machine, in `dataflow.toml`.

use std::path::Path;

use super::location::lake_location;
use super::settings::{Settings, Value};

/// The largest limit of a record or a value: batches and columns count their bytes with 31 bits.
const LARGEST_LIMIT: u64 = 1 << 30;

/// The most that the limit of a recursive query's rounds may be.
const MOST_ROUNDS: u64 = 1_000_000;

/// Bounds of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// Records a second that a backfill feeds while live records come, where it is not asked otherwise.
    pub backfill_rate: f64,
    /// Folders (absolute) and URLs below which requests may name files, beside the folders of feeds.
    pub backfill_from: Vec<String>,
    /// Bytes of resident memory above which no feed is read; none: without bound.
    pub memory: Option<u64>,
    /// Bytes of the longest record that a feed takes which says nothing else; see [`Feed::max_record`](super::Feed).
    pub max_record: u64,
    /// Rounds of a recursive query behind its first; a row of a later one is a dead letter.
    pub max_rounds: u64,
    /// Bytes that one value may take which an expression computes; a row with a longer one is a dead letter.
    pub max_value: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            backfill_rate: 10_000.0,
            backfill_from: vec![],
            memory: None,
            max_record: 16 << 20,
            // A round over a cycle costs tens of microseconds at least, and each may keep as many rows again. MySQL allows
            // as many.
            max_rounds: 1000,
            max_value: 64 << 20,
        }
    }
}

/// Reads the bounds; none: mistakes were reported. `base` is the dataflow's folder.
pub(super) fn read_bounds(settings: &mut Settings<'_>, base: &Path) -> Option<Bounds> {
    let usual = Bounds::default();
    let backfill_rate = match settings.take("backfill_rate", "10000") {
        None => Some(usual.backfill_rate),
        Some(value) => value.number().and_then(|rate| {
            if rate > 0.0 {
                return Some(rate);
            }
            value.say(
                "setting \"backfill_rate\" must be above 0",
                "it is in records per second, while live records come",
            );
            None
        }),
    };
    let backfill_from = match settings.take("backfill_from", "[\".\", \"/data/old\"]") {
        None => Some(vec![base.to_string_lossy().into_owned()]),
        Some(value) => read_folders(&value, base),
    };
    let memory = match settings.take("memory_limit", "\"4 GiB\"") {
        None => Some(usual.memory),
        Some(value) => read_bytes(&value).map(Some),
    };
    let max_record = read_max_record(settings, usual.max_record);
    let max_rounds = match settings.take("max_rounds", "1000") {
        None => Some(usual.max_rounds),
        Some(value) => value.whole().and_then(|rounds| match rounds {
            1..=MOST_ROUNDS => Some(rounds),
            _ => {
                value.say(
                    format!("setting \"max_rounds\" must be from 1 to {MOST_ROUNDS}"),
                    "it is how often a recursive query may add rows to those that it has",
                );
                None
            }
        }),
    };
    let max_value = read_limit(
        settings,
        "max_value",
        usual.max_value,
        "a column of a batch holds less than 2 GiB; have the SQL compute shorter values",
    );
    Some(Bounds {
        backfill_rate: backfill_rate?,
        backfill_from: backfill_from?,
        memory: memory?,
        max_record: max_record?,
        max_rounds: max_rounds?,
        max_value: max_value?,
    })
}

/// The longest record: of the dataflow's feeds, or of one of them. `usual` where nothing is said.
pub(super) fn read_max_record(settings: &mut Settings<'_>, usual: u64) -> Option<u64> {
    read_limit(
        settings,
        "max_record",
        usual,
        "a batch of records holds less than 2 GiB; have the source write smaller records",
    )
}

/// Reads the limit of a record or a value, in bytes; `help` says why it has one itself.
fn read_limit(settings: &mut Settings<'_>, name: &'static str, usual: u64, help: &str) -> Option<u64> {
    let Some(value) = settings.take(name, "\"16 MiB\"") else {
        return Some(usual);
    };
    let bytes = read_bytes(&value)?;
    if bytes > LARGEST_LIMIT {
        value.say(format!("setting {name:?} must be 1 GiB at most"), help);
        return None;
    }
    Some(bytes)
}

/// Folders and URLs, all below which is meant.
fn read_folders(value: &Value<'_>, base: &Path) -> Option<Vec<String>> {
    let mut folders = Vec::new();
    for text in value.texts()? {
        let is_glob = text.value.contains(['*', '?']);
        match lake_location(&text.value, base) {
            Ok(folder) if !is_glob => folders.push(folder),
            Ok(_) => {
                let help = "name the folder itself: all files below it are meant";
                value.say(
                    format!("setting {:?} takes no glob: {:?}", value.key, text.written),
                    help,
                );
                return None;
            }
            Err(error) => {
                value.say(format!("bad folder {:?}: {error}", text.written), error.help());
                return None;
            }
        }
    }
    Some(folders)
}

/// An amount of bytes.
pub(super) fn read_bytes(value: &Value<'_>) -> Option<u64> {
    let text = value.text()?;
    let bytes = parse_bytes(text.value.trim());
    if bytes.is_none() {
        value.say(
            format!("setting {:?} is no amount of memory: {:?}", value.key, text.written),
            format!(
                "write a number and a unit (MB, GB, MiB, GiB), as in {} = \"4 GiB\"",
                value.key
            ),
        );
    }
    bytes
}

/// `512 MiB`, `4 GB`.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..unit].trim().parse().ok()?;
    let factor = match text[unit..].to_ascii_lowercase().as_str() {
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "m" | "mib" => 1048576.0,
        "g" | "gib" => 1073741824.0,
        "t" | "tib" => 1099511627776.0,
        _ => return None,
    };
    (number > 0.0 && number.is_finite()).then_some((number * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_a_number_with_a_unit() {
        assert_eq!(parse_bytes("4 GiB"), Some(4 << 30));
        assert_eq!(parse_bytes("1.5g"), Some(3 << 29));
        assert_eq!(parse_bytes("512MB"), Some(512_000_000));
        for wrong in ["4", "GiB", "-1 GiB", "0 MB", "4 GiBs", "4 k"] {
            assert_eq!(parse_bytes(wrong), None, "{wrong}");
        }
    }
}
