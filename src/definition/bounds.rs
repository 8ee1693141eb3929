//! Limits on what a run may use of its machine, in `dataflow.toml`.

use std::path::Path;

use super::location::lake_location;
use super::settings::{SettingValue, Settings};

/// The largest allowed limit of a record or a value, in bytes: batches and columns count their bytes in 31 bits.
const LARGEST_LIMIT: u64 = 1 << 30;

/// The largest allowed limit on the rounds of a recursive query.
const MOST_ROUNDS: u64 = 1_000_000;

/// Limits of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// How many records a second a backfill feeds while live records arrive, unless its request says otherwise.
    pub backfill_rate: f64,
    /// Folders (absolute) and URLs below which requests may name files, besides the folders of feeds.
    pub backfill_from: Vec<String>,
    /// Bytes of resident memory above which no feed is read; none: unlimited.
    pub memory: Option<u64>,
    /// The default of [`Feed::max_record`](super::Feed), in bytes.
    pub max_record: u64,
    /// How many rounds a recursive query may have after its first; a row of a later round becomes a dead letter.
    pub max_rounds: u64,
    /// How many bytes a value computed by an expression may have; a row with a longer value becomes a dead letter.
    pub max_value: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            backfill_rate: 10_000.0,
            backfill_from: vec![],
            memory: None,
            max_record: 16 << 20,
            // A round over a cycle costs at least tens of microseconds, and each may add as many rows as the query
            // has. MySQL's default is the same.
            max_rounds: 1000,
            max_value: 64 << 20,
        }
    }
}

/// Reads the limits; none if mistakes were reported. `base` is the dataflow's folder.
pub(super) fn read_bounds(settings: &mut Settings<'_>, base: &Path) -> Option<Bounds> {
    let usual = Bounds::default();
    let backfill_rate = match settings.setting("backfill_rate", "10000") {
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
    let backfill_from = match settings.setting("backfill_from", "[\".\", \"/data/old\"]") {
        None => Some(vec![base.to_string_lossy().into_owned()]),
        Some(value) => read_folders(&value, base),
    };
    let memory = match settings.setting("memory_limit", "\"4 GiB\"") {
        None => Some(usual.memory),
        Some(value) => read_bytes(&value).map(Some),
    };
    let max_record = read_max_record(settings, usual.max_record);
    let max_rounds = match settings.setting("max_rounds", "1000") {
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

/// Reads `max_record`, in bytes, of the dataflow or of one feed; `usual` is the default.
pub(super) fn read_max_record(settings: &mut Settings<'_>, usual: u64) -> Option<u64> {
    read_limit(
        settings,
        "max_record",
        usual,
        "a batch of records holds less than 2 GiB; have the source write smaller records",
    )
}

/// Reads the limit of a record or a value, in bytes; `help` explains why the limit itself is bounded.
fn read_limit(settings: &mut Settings<'_>, name: &'static str, usual: u64, help: &str) -> Option<u64> {
    let Some(value) = settings.setting(name, "\"16 MiB\"") else {
        return Some(usual);
    };
    let bytes = read_bytes(&value)?;
    if bytes > LARGEST_LIMIT {
        value.say(format!("setting {name:?} must be 1 GiB at most"), help);
        return None;
    }
    Some(bytes)
}

/// Reads folders and URLs; each stands for everything below it.
fn read_folders(value: &SettingValue<'_>, base: &Path) -> Option<Vec<String>> {
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

/// Reads a number of bytes.
pub(super) fn read_bytes(value: &SettingValue<'_>) -> Option<u64> {
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

/// Parses a number of bytes, such as `512 MiB` or `4 GB`.
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
