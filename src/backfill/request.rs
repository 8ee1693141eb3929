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
/// The longest name of an input or feed, and of a file: longer than a system has any.
const NAME: usize = 255;
const PATH: usize = 8 << 10;
/// The most files that a request names.
pub const MOST_FILES: usize = 100_000;
/// Values of a request beside its files, at most.
const OTHERS: usize = 64;
/// The lowest rate, in records a second: a request keeps those behind it waiting.
pub const LOWEST_RATE: f64 = 1.0;
/// How many files an outcome has by name; and bytes of a path or reason there. So it can always be read back.
const LISTED: usize = 1_000;
const TEXT: usize = 2 << 10;
/// How many of a file's columns that are null it names.
const NAMED_COLUMNS: usize = 20;

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
    /// By file: the first ones.
    pub files: Vec<FileOutcome>,
    /// The files that are not listed.
    #[serde(default)]
    pub unlisted: FileCounts,
    /// The snapshot that holds all of it; 0: nothing changed.
    pub snapshot: Epoch,
}

/// What became of files, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCounts {
    /// They were read.
    pub read: u64,
    /// They were read by an earlier backfill.
    pub known: u64,
    /// Feeds read them by themselves.
    pub feeds: u64,
    /// They are dead letters, or could not be read.
    pub failed: u64,
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

impl Outcome {
    /// Notes what became of a file: by name, as long as these are not too many.
    pub fn note(&mut self, file: FileOutcome) {
        if self.files.len() < LISTED {
            let state = match file.state {
                FileState::Failed(reason) => FileState::Failed(shortened(reason)),
                state => state,
            };
            self.files.push(FileOutcome {
                path: shortened(file.path),
                state,
                records: file.records,
                null_columns: file.null_columns.into_iter().take(NAMED_COLUMNS).collect(),
            });
            return;
        }
        let count = match file.state {
            FileState::Read => &mut self.unlisted.read,
            FileState::Known => &mut self.unlisted.known,
            FileState::Feeds(_) => &mut self.unlisted.feeds,
            FileState::Failed(_) => &mut self.unlisted.failed,
        };
        *count += 1;
    }
}

/// A text, or as much of it as an outcome keeps.
pub(super) fn shortened(mut text: String) -> String {
    if text.len() > TEXT {
        text.truncate(text.floor_char_boundary(TEXT));
        text.push_str("...");
    }
    text
}

/// How many values a JSON text has, about, without taking memory for them.
fn values(json: &[u8]) -> usize {
    let (mut values, mut in_text, mut escaped) = (1, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => values += 1,
            _ => {}
        }
    }
    values
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
        let no_json = |error: serde_json::Error| format!("it is no request: {}", shortened(error.to_string()));
        // Before they take memory: a file of some megabytes has millions.
        if values(bytes) > MOST_FILES + OTHERS {
            return Err(TOO_MANY.to_string());
        }
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
        request.check()?;
        Ok(request)
    }

    /// Whether it stays within what a run serves.
    ///
    /// # Errors
    /// What of it does not, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.rate.is_some_and(|rate| !(rate >= LOWEST_RATE && rate.is_finite())) {
            return Err(format!(
                "its rate is below {LOWEST_RATE} record a second, the lowest that is served; ask for fewer records instead"
            ));
        }
        let mut names = vec![&self.input];
        if let Work::Files { feed, files, .. } = &self.work {
            names.push(feed);
            if files.len() > MOST_FILES {
                return Err(TOO_MANY.to_string());
            }
            if let Some(path) = files.iter().find(|path| path.len() > PATH) {
                return Err(format!(
                    "a file's name has {} bytes, and at most {PATH} are read",
                    path.len()
                ));
            }
        }
        match names.into_iter().find(|name| name.len() > NAME) {
            Some(name) => Err(format!(
                "the name of an input or feed has {} bytes, and at most {NAME} are read",
                name.len()
            )),
            None => Ok(()),
        }
    }
}

/// More files than [`MOST_FILES`].
const TOO_MANY: &str = "it names more than 100000 files; ask for fewer at once, in several requests";

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
            // Others waited for this one for as long as the run lasted.
            (
                r#"{"id":"1","input":"o","work":{"kind":"letters"},"rate":1e-300}"#,
                "1",
                "below 1 record a second",
            ),
        ] {
            let refused = Request::parse(text.as_bytes(), id).unwrap_err();
            assert!(refused.contains(wrong), "{refused}");
        }
    }

    /// A request of 60 MB named 7 million files: a run ended by SIGABRT over its outcome, and so did each that came after.
    #[test]
    fn a_request_names_so_many_files_and_no_more_and_its_outcome_stays_small() {
        let of = |files: Vec<String>| {
            let feed = "drops".to_string();
            let again = false;
            let request = Request::new("orders", Work::Files { feed, files, again }, None);
            let bytes = serde_json::to_vec(&request).unwrap();
            let parsed = Request::parse(&bytes, &request.id);
            assert_eq!(request.check().is_ok(), parsed.is_ok());
            parsed.map(drop)
        };
        // Signs in names are no signs of JSON.
        let name = |n: usize| format!("/x/{n},[{{\"\\,");
        assert_eq!(of((0..MOST_FILES).map(name).collect()), Ok(()));
        let refused = of((0..=MOST_FILES).map(name).collect()).unwrap_err();
        assert!(refused.contains(&MOST_FILES.to_string()), "{refused}");
        assert!(
            of(vec!["/x".repeat(PATH)])
                .unwrap_err()
                .contains("a file's name has 16384 bytes")
        );
        let nested = format!(
            "{{\"id\":\"1\",\"input\":\"o\",\"work\":{{\"kind\":\"letters\",\"x\":[{}0]}}}}",
            "0,".repeat(MOST_FILES + OTHERS)
        );
        assert_eq!(Request::parse(nested.as_bytes(), "1"), Err(TOO_MANY.to_string()));
        let named = format!(
            "{{\"id\":\"1\",\"input\":\"{}\",\"work\":{{\"kind\":\"letters\"}}}}",
            "o".repeat(1 << 20)
        );
        assert!(
            Request::parse(named.as_bytes(), "1")
                .unwrap_err()
                .contains("the name of an input")
        );
        let kind = format!(
            "{{\"id\":\"1\",\"input\":\"o\",\"work\":{{\"kind\":\"{}\"}}}}",
            "\u{e4}".repeat(1 << 20)
        );
        assert!(Request::parse(kind.as_bytes(), "1").unwrap_err().len() < 2 * TEXT);

        let mut outcome = Outcome::default();
        for state in [
            FileState::Read,
            FileState::Known,
            FileState::Failed("\u{1}".repeat(1 << 20)),
        ] {
            for _ in 0..LISTED {
                let path = "\u{1}".repeat(PATH);
                outcome.note(FileOutcome {
                    path,
                    state: state.clone(),
                    records: 1,
                    null_columns: vec![],
                });
            }
        }
        let counts = FileCounts {
            known: LISTED as u64,
            failed: LISTED as u64,
            ..FileCounts::default()
        };
        assert_eq!((outcome.files.len(), outcome.unlisted), (LISTED, counts));
        let mut worst = Outcome::default();
        for _ in 0..2 * LISTED {
            let path = "\u{1}".repeat(PATH);
            let state = FileState::Failed("\u{1}".repeat(PATH));
            worst.note(FileOutcome {
                path,
                state,
                records: 1,
                null_columns: vec![],
            });
        }
        assert!((serde_json::to_vec(&worst).unwrap().len() as u64) < super::super::board::LARGEST);
        let old = r#"{"error":null,"records":1,"rejected":0,"letters":0,"files":[],"snapshot":1}"#;
        assert!(
            serde_json::from_str::<Outcome>(old).is_ok(),
            "as earlier versions wrote it"
        );
    }

    #[test]
    fn an_id_is_short_and_plain() {
        for wrong in ["", "..", "a/b", "a.b", "a b", "\u{e4}", "a\n", &"x".repeat(65)] {
            assert!(!is_id(wrong), "{wrong:?}");
        }
    }
}
