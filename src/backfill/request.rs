//! What is asked of a run, and how it ends.

use chrono::Utc;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Asker;
use crate::repr::Epoch;

/// The version of requests that this program writes and understands.
const VERSION: u32 = 1;
/// The longest id.
const ID: usize = 64;

/// What is asked of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Of its form.
    #[serde(default = "version")]
    pub version: u32,
    /// When it was made, in Unix microseconds (two that are put one after the other are never of one), and a random part.
    pub id: String,
    /// The input's name.
    pub input: String,
    /// What to feed to it.
    pub work: Work,
    /// Records a second, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Who put it, where the lake tells.
    #[serde(skip)]
    pub asker: Option<Asker>,
}

/// What to feed to an input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Work {
    /// Files.
    Files {
        /// The feed whose format and columns they have.
        feed: String,
        /// Absolute paths or URLs.
        files: Vec<String>,
        /// Those that were read before too.
        again: bool,
    },
    /// What Bronze holds: all of a keyed input, refused records of another.
    Bronze {
        /// Records from this moment on, in Unix microseconds: that of the event where the source says it, of arrival otherwise.
        since: Option<i64>,
        /// Records before this moment.
        until: Option<i64>,
    },
    /// Records and files that are dead letters.
    Letters,
}

/// How far a request is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Records fed so far.
    pub records: u64,
    /// Files that are done, of how many.
    pub files: (u64, u64),
    /// Everything is fed; what is missing is the commit.
    pub committing: bool,
}

/// How a request ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Why nothing, or not all of it, could be done.
    pub error: Option<String>,
    /// Records fed.
    pub records: u64,
    /// Of them, those that were refused.
    pub rejected: u64,
    /// Files that were refused as a whole, or from where they could not be read on.
    #[serde(default)]
    pub rejected_files: u64,
    /// Dead letters that were looked at.
    pub letters: u64,
    /// By file.
    pub files: Vec<FileOutcome>,
    /// The snapshot that holds all of it; 0: nothing changed.
    pub snapshot: Epoch,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileOutcome {
    /// As asked.
    pub path: String,
    /// What became of it.
    pub state: FileState,
    /// Its records.
    pub records: u64,
    /// Columns that are null in all of them, where these are more than half of all columns: the format may be another one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub null_columns: Vec<String>,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// It was read.
    Read,
    /// It was read by an earlier backfill.
    Known,
    /// A feed of the input reads it by itself.
    Feeds(String),
    /// It is a dead letter, or was not there.
    Failed(String),
}

impl Request {
    /// A request of now.
    pub fn new(input: &str, work: Work, rate: Option<f64>) -> Request {
        let random = Uuid::new_v4().simple().to_string();
        Request {
            version: VERSION,
            id: format!("{:017}-{}", Utc::now().timestamp_micros(), &random[..8]),
            input: input.to_string(),
            work,
            rate,
            asker: None,
        }
    }

    /// Reads the bytes of the request that is named `id`.
    ///
    /// # Errors
    /// Why they are no request that this program could serve.
    pub fn parse(bytes: &[u8], id: &str) -> Result<Request, String> {
        /// A request of a later version may have any form but for this.
        #[derive(Deserialize)]
        struct Versioned {
            #[serde(default = "version")]
            version: u32,
        }
        let no_json = |error: serde_json::Error| format!("it is no request: {error}");
        let Versioned { version } = serde_json::from_slice(bytes).map_err(no_json)?;
        if version != VERSION {
            return Err(format!(
                "it is a request of version {version}, and this run serves version {VERSION}; start it with the program that asks"
            ));
        }
        let request: Request = serde_json::from_slice(bytes).map_err(no_json)?;
        if request.id != id {
            return Err(format!(
                "it says that its id is {:?}; a request is named by its id",
                request.id
            ));
        }
        if request.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            return Err("its rate is not above 0".to_string());
        }
        Ok(request)
    }
}

/// Whether a text may name a request: it becomes a part of objects' names.
pub(super) fn is_id(text: &str) -> bool {
    (1..=ID).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn version() -> u32 {
    VERSION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_back_and_what_is_none_says_why() {
        let request = Request::new("orders", Work::Letters, Some(5.0));
        assert!(is_id(&request.id), "{}", request.id);
        let bytes = serde_json::to_vec(&request).unwrap();
        assert_eq!(Request::parse(&bytes, &request.id), Ok(request.clone()));
        // As earlier versions of the program wrote it.
        let old =
            br#"{"id":"1-a","input":"orders","work":{"kind":"files","feed":"drops","files":["/x"],"again":false}}"#;
        assert_eq!(Request::parse(old, "1-a").map(|old| old.version), Ok(VERSION));
        let deep = "[".repeat(100_000);
        for (text, id, wrong) in [
            ("", "1", "EOF while parsing"),
            ("not json", "1", "it is no request"),
            (&deep, "1", "it is no request"),
            (
                r#"{"id":"1","input":"o","work":{"kind":"letters"}"#,
                "1",
                "EOF while parsing",
            ),
            (
                r#"{"id":"1","input":"o","work":{"kind":"shell"}}"#,
                "1",
                "unknown variant `shell`",
            ),
            (
                r#"{"id":"1","input":"o","work":{"kind":"letters"},"root":1}"#,
                "1",
                "unknown field `root`",
            ),
            (
                r#"{"id":"2","input":"o","work":{"kind":"letters"}}"#,
                "1",
                "its id is \"2\"",
            ),
            (r#"{"version":2,"anything":[]}"#, "1", "of version 2"),
            (
                r#"{"id":"1","input":"o","work":{"kind":"letters"},"rate":0}"#,
                "1",
                "its rate",
            ),
            (
                r#"{"id":"1","input":"o","work":{"kind":"letters"},"rate":-1e300}"#,
                "1",
                "its rate",
            ),
        ] {
            let refused = Request::parse(text.as_bytes(), id).unwrap_err();
            assert!(refused.contains(wrong), "{refused}");
        }
    }

    #[test]
    fn an_id_is_short_and_plain() {
        for wrong in ["", "..", "a/b", "a.b", "a b", "\u{e4}", "a\n", &"x".repeat(65)] {
            assert!(!is_id(wrong), "{wrong:?}");
        }
    }
}
