//! Whole folders: a rich valid one, and one for each kind of mistake with the message that the user gets.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

mod cases;
mod good;
mod mistakes;

use super::*;

/// A dataflow's folder under construction: the paths and texts of its files.
#[derive(Clone)]
struct Folder(BTreeMap<&'static str, String>);

impl Folder {
    /// A small folder without a mistake.
    fn good() -> Self {
        Folder(BTreeMap::new())
            .with("dataflow.toml", "name = \"shop\"\n")
            .with(
                "inputs/orders.toml",
                "key = [\"id\"]\n\
                 order_by = [\"at\"]\n\
                 [columns]\n\
                 id = \"BIGINT\"\n\
                 at = \"TIMESTAMP\"\n\
                 [[feeds]]\n\
                 name = \"live\"\n\
                 kind = \"log\"\n\
                 path = \"live\"\n\
                 format = \"json\"\n",
            )
            .with("silver/orders.sql", "SELECT * FROM orders\n")
    }

    fn with(mut self, path: &'static str, text: &str) -> Self {
        self.0.insert(path, text.to_string());
        self
    }

    fn without(mut self, path: &'static str) -> Self {
        self.0.remove(path).expect("a file to take away");
        self
    }

    /// Replaces text that occurs exactly once.
    fn edit(mut self, path: &'static str, old: &str, new: &str) -> Self {
        let text = self.0.get_mut(path).expect("a file to edit");
        assert_eq!(text.matches(old).count(), 1, "{old:?} in {path}");
        *text = text.replace(old, new);
        self
    }

    fn write(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (path, text) in &self.0 {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        folder
    }

    fn load(&self) -> Result<Dataflow, Diagnostics> {
        load(self.write().path(), &env)
    }

    fn cases(&self) -> Result<Vec<Case>, Diagnostics> {
        cases(self.write().path())
    }
}

fn env(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some("hunter2".to_string()),
        "RATE" => Some("250.5".to_string()),
        "BUCKET" => Some("s3://bucket".to_string()),
        "BAD_LAKE" => Some("ftp://hunter2@host".to_string()),
        _ => None,
    }
}

fn printed<T: std::fmt::Debug>(result: Result<T, Diagnostics>) -> String {
    result.expect_err("a folder with mistakes").to_string()
}

fn loaded(folder: &Folder) -> Dataflow {
    folder.load().unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

const INPUT: &str = "inputs/orders.toml";
