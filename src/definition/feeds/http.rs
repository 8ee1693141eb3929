//! Kind `http`: rows that clients post. The address and limits are settings of the whole dataflow ([`Http`]).

use std::path::Path;

use super::contract::{Division, FeedContract, FeedSurroundings, Unwritable, WriteTarget};
use super::kind::KindOfFeed;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::http::{self, NEEDS_FOLDER};
use crate::definition::settings::Settings;
use crate::definition::{DATAFLOW_FILE, Format, Input};

/// The kind's properties.
pub(super) const KIND: KindOfFeed = KindOfFeed {
    name: "http",
    formats: &[
        Format::Json,
        Format::DebeziumJson,
        Format::CanalJson,
        Format::MaxwellJson,
    ],
    without_registry: "what requests bring is plain JSON; remove it",
    ..KindOfFeed::OF_RECORDS
};

/// It has no settings of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpFeed;

impl FeedContract for HttpFeed {
    fn describe(&self, around: &FeedSurroundings<'_>) -> String {
        match around.http {
            Some(http) => format!("http, rows by POST to {}", http.address(&around.input.name)),
            None => "http".to_string(),
        }
    }

    /// It needs `[http]`, must be the only one of its input, and needs a folder to store its rows in.
    fn mistakes(&self, around: &FeedSurroundings<'_>) -> Vec<Diagnostic> {
        let FeedSurroundings { input, feed, .. } = *around;
        let name = &input.feeds[feed].name;
        let earlier: Vec<&str> = earlier_of_kind(input, feed).collect();
        let mut mistakes = Vec::new();
        let mut say = |file: &Path, message: String, help: &str| {
            mistakes.push(Diagnostic {
                file: file.to_path_buf(),
                line: 0,
                column: 0,
                message,
                help: Some(help.to_string()),
            });
        };
        match (&earlier[..], around.http) {
            ([], None) => say(
                &input.file,
                format!("feed {name:?} waits for requests, and nobody listens for them"),
                "add [http] with listen = \"127.0.0.1:8080\" to dataflow.toml",
            ),
            ([first], _) => say(
                &input.file,
                format!("feeds {first:?} and {name:?} are both of kind \"http\""),
                "requests name the input: keep one of the two, or make another input",
            ),
            _ => {}
        }
        if around.http.is_some_and(|http| http.folder(around.lake).is_none()) {
            say(
                Path::new(DATAFLOW_FILE),
                "what requests bring is kept on a disk until a snapshot has it, and the lake is none".to_string(),
                NEEDS_FOLDER,
            );
        }
        mistakes
    }

    fn division(&self, _: &Input) -> Division {
        Division::First
    }

    fn written_to(&self) -> Result<WriteTarget<'_>, Unwritable> {
        Err(Unwritable {
            reason: "is posted to",
            help: "name a feed of kind \"files\" or \"log\"; this one takes requests while `alluvium run` runs",
        })
    }
}

/// The feeds of this kind that come before one in its input.
fn earlier_of_kind(input: &Input, feed: usize) -> impl Iterator<Item = &str> {
    let earlier = input.feeds[..feed].iter();
    let of_kind = earlier.filter(|feed| feed.kind.settings_of::<HttpFeed>().is_some());
    of_kind.map(|feed| feed.name.as_str())
}

/// Refuses settings that belong to the dataflow.
pub(super) fn read(settings: &mut Settings<'_>) -> HttpFeed {
    for name in http::SETTINGS {
        settings.misplaced(name, || {
            (
                format!("setting {name:?} is that of all feeds of kind \"http\""),
                "move it into [http] of dataflow.toml".to_string(),
            )
        });
    }
    HttpFeed
}
