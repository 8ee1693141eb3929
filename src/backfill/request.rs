//! Requests to a run, and their outcomes.

use chrono::Utc;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Requester;
use crate::repr::Epoch;

/// The version of requests that this program writes and understands.
const VERSION: u32 = 1;
/// The most characters of an id.
const ID: usize = 64;
/// The most bytes of the name of an input or feed, and (`PATH`) of a file; no system has longer ones.
const NAME: usize = 255;
const PATH: usize = 8 << 10;
/// The most files that a request may name.
pub const MOST_FILES: usize = 100_000;
/// The most JSON values that a request may have besides its files.
const OTHERS: usize = 64;
/// The lowest rate, in records a second, because the requests behind it have to wait.
pub const LOWEST_RATE: f64 = 1.0;
/// How many files an outcome lists, and (`TEXT`) the most bytes of a path or reason in it. So an outcome can always
/// be read back.
const LISTED: usize = 1_000;
const TEXT: usize = 2 << 10;
/// How many null columns of a file an outcome names.
const NAMED_COLUMNS: usize = 20;

/// A request to a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The version of the request's format.
    #[serde(default = "version")]
    pub version: u32,
    /// The time at which it was made, in Unix microseconds (no two of one command are the same), and a random part.
    pub id: String,
    /// The input's name.
    pub input: String,
    /// What to feed to it.
    pub work: Work,
    /// The most records a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// The user who put it, if the lake shows that.
    #[serde(skip)]
    pub asker: Option<Requester>,
}

/// What to feed to an input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Work {
    /// Files to read.
    Files {
        /// The feed whose format and columns they have.
        feed: String,
        /// Absolute paths or URLs.
        files: Vec<String>,
        /// Whether files that were read before are read again.
        again: bool,
    },
    /// What Bronze holds: for a keyed input all records, for others those that were refused.
    Bronze {
        /// Records from this time on, in Unix microseconds: the event's time if its source has one, otherwise that of
        /// arrival.
        since: Option<i64>,
        /// Records before this time.
        until: Option<i64>,
    },
    /// Records and files that are dead letters.
    Letters,
}

/// The progress of a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackfillStatus {
    /// Records fed so far.
    pub records: u64,
    /// The number of files that are done, and of all files.
    pub files: (u64, u64),
    /// Whether everything is fed, so that only the commit is missing.
    pub committing: bool,
}

/// The outcome of a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackfillOutcome {
    /// Why the request could not be done, or not completely.
    pub error: Option<String>,
    /// Records fed.
    pub records: u64,
    /// The number of these that were refused.
    pub rejected: u64,
    /// Files that were refused, either as a whole or from some record on.
    #[serde(default)]
    pub rejected_files: u64,
    /// The number of dead letters that were tried again.
    pub letters: u64,
    /// The outcomes of the first files.
    pub files: Vec<FileOutcome>,
    /// The outcomes of the other files, by number.
    #[serde(default)]
    pub unlisted: FileCounts,
    /// The epoch of the snapshot that holds everything; 0 if nothing changed.
    pub snapshot: Epoch,
}

/// The outcomes of several files, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCounts {
    /// Files that were read.
    pub read: u64,
    /// Files that an earlier backfill had read.
    pub known: u64,
    /// Files that feeds read by themselves.
    pub feeds: u64,
    /// Files that became dead letters, or could not be read.
    pub failed: u64,
}

/// The outcome of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileOutcome {
    /// The path as requested.
    pub path: String,
    /// What happened to the file.
    pub state: FileState,
    /// The number of its records.
    pub records: u64,
    /// Columns that are null in all records, if these are more than half of all columns: then the format may be
    /// wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub null_columns: Vec<String>,
}

/// What happened to a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// It was read.
    Read,
    /// It was read by an earlier backfill.
    Known,
    /// A feed of the input reads it by itself.
    Feeds(String),
    /// It became a dead letter, or did not exist.
    Failed(String),
}

impl BackfillOutcome {
    /// Records the outcome of a file: in the list, or by number if the list is full.
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

/// A text, cut to the length that an outcome may hold.
pub(super) fn shortened(mut text: String) -> String {
    if text.len() > TEXT {
        text.truncate(text.floor_char_boundary(TEXT));
        text.push_str("...");
    }
    text
}

/// The approximate number of values in a JSON text, counted without allocation.
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
    /// A new request with the present time.
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

    /// Parses the bytes of the request with this id.
    ///
    /// # Errors
    /// Why they are no request that this program could serve.
    pub fn parse(bytes: &[u8], id: &str) -> Result<Request, String> {
        /// The only part of the format that all later versions must share.
        #[derive(Deserialize)]
        struct Versioned {
            #[serde(default = "version")]
            version: u32,
        }
        let no_json = |error: serde_json::Error| format!("it is no request: {}", shortened(error.to_string()));
        // This is checked before the values take memory: a file of some megabytes can have millions.
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

    /// Checks that the request stays within the limits of a run.
    ///
    /// # Errors
    /// Which limit it exceeds, and what to do.
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

/// Whether a text is a valid id of a request, which becomes part of objects' names.
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
        // Earlier versions of the program wrote requests in this form.
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
            // At this rate, other requests would have waited for as long as the run lasted.
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

    /// A request of 60 MB named 7 million files: its outcome made the run, and every later one, end with SIGABRT.
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
        // Characters of JSON syntax inside of names must not be counted.
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

        let mut outcome = BackfillOutcome::default();
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
        let mut worst = BackfillOutcome::default();
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
            serde_json::from_str::<BackfillOutcome>(old).is_ok(),
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
