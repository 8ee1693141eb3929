//! Refuses feeds whose path includes files of the lake: what such a feed reads makes the lake grow, which feeds the
//! feed again.
//!
//! This detects what is visible from the paths alone. What only the file system shows (a link into the lake) is left
//! out of listings instead.

use super::{Dataflow, Diagnostic, FileGlob};
use crate::lake::{bronze_table, table_folder};

/// The lake's own folders directly below its root.
pub const LAKE_FOLDERS: [&str; 5] = ["_alluvium", "bronze", "dead_letters", "gold", "silver"];

/// An example of the names that our writers give to data files.
const DATA_FILE: &str = "part-1-g1-w0-1.parquet";

/// Reports each feed that would read the lake's own files.
pub fn feeds_on_lake(dataflow: &Dataflow) -> Vec<Diagnostic> {
    let inputs = dataflow.inputs.iter();
    let feeds = inputs.flat_map(|input| input.feeds.iter().map(move |feed| (input, feed)));
    let mistake = |(input, feed): (&super::Input, &super::Feed)| {
        let path = feed.kind.contract().files()?.path;
        let example = own_file_in(path, dataflow)?;
        Some(Diagnostic {
            file: input.file.clone(),
            line: 0,
            column: 0,
            message: format!(
                "feed {:?} would read the lake's own files, such as {example}",
                feed.name
            ),
            help: Some(format!(
                "narrow its path {path}, or put the lake elsewhere by lake = \"...\" in dataflow.toml"
            )),
        })
    };
    feeds.filter_map(mistake).collect()
}

/// A file that the lake has or will have and that a feed with this path would read.
fn own_file_in(path: &str, dataflow: &Dataflow) -> Option<String> {
    let plain = |text: &str| text.strip_prefix("file://").unwrap_or(text).to_string();
    let (path, lake) = (plain(path), plain(&dataflow.lake));
    let (fixed, rest) = FileGlob::split(&path);
    let glob = FileGlob::new(rest).ok()?;
    let archived = dataflow.inputs.iter().filter(|input| input.bronze);
    let bronze = archived.map(|input| bronze_table(&input.name));
    let tables = dataflow.tables.iter().map(|table| table.qualified_name());
    let names = bronze.chain(tables).chain(["dead_letters".to_string()]);
    let folders = names.map(|name| table_folder(&name));
    let files = folders.flat_map(|folder| {
        [DATA_FILE.to_string(), format!("p=1/{DATA_FILE}")].map(|name| format!("{lake}/{folder}/{name}"))
    });
    let is_read = |file: &String| {
        let below = file
            .strip_prefix(fixed.as_str())
            .and_then(|below| below.strip_prefix('/'));
        let parts: Vec<&str> = below.into_iter().flat_map(|below| below.split('/')).collect();
        glob.names(&parts) && !parts.iter().any(|part| part.starts_with(['.', '_']))
    };
    files.into_iter().find(is_read)
}
