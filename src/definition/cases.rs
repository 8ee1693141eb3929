//! The dataflow's own tests, `tests/<name>/`: given these input rows, the tables must hold these rows.
//!
//! ```text
//! tests/<name>/inputs/<input>.csv|ndjson      tests/<name>/1/inputs/..., 2/inputs/..., for several steps
//! tests/<name>/expect/<layer>.<table>.csv     tests/<name>/1/expect/..., 2/expect/...
//! ```
//! This module finds the files and checks that the inputs and tables exist; it does not read them.

use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Diagnostics, nearest};
use super::load::unknown_table_help;
use super::{Format, Layer};

/// A test of the dataflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The folder's name.
    pub name: String,
    /// The steps in order, at least one.
    pub steps: Vec<CaseStep>,
}

/// Input rows that arrive together, and what the tables must hold afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseStep {
    /// The step's number, from 1.
    pub number: usize,
    /// By file name; may be empty.
    pub inputs: Vec<CaseInput>,
    /// By file name; at least one step has some.
    pub expect: Vec<ExpectedTable>,
}

/// A file with rows of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseInput {
    /// The file, including the path of the dataflow's folder.
    pub path: PathBuf,
    /// The input's name.
    pub input: String,
    /// [`Format::Csv`] or [`Format::Ndjson`].
    pub format: Format,
}

/// A file with all rows of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedTable {
    /// The CSV file, including the path of the dataflow's folder.
    pub path: PathBuf,
    /// The table's layer.
    pub layer: Layer,
    /// The table's name.
    pub table: String,
}

/// The tests in a dataflow's folder, by name; empty if there is no folder `tests`.
///
/// # Errors
/// All mistakes, in the order of files.
pub fn cases(folder: &Path) -> Result<Vec<Case>, Diagnostics> {
    let mut reader = CaseReader {
        folder,
        inputs: names(folder, "inputs", "toml"),
        tables: Layer::ALL
            .iter()
            .flat_map(|layer| {
                names(folder, layer.name(), "sql")
                    .into_iter()
                    .map(move |n| format!("{}.{n}", layer.name()))
            })
            .collect(),
        mistakes: Vec::new(),
    };
    let mut cases = Vec::new();
    for (name, is_folder) in entries(&folder.join("tests")) {
        if is_folder {
            cases.push(reader.case(name));
        }
    }
    match reader.mistakes.is_empty() {
        true => Ok(cases),
        false => Err(Diagnostics(reader.mistakes).sorted()),
    }
}

struct CaseReader<'a> {
    folder: &'a Path,
    inputs: Vec<String>,
    tables: Vec<String>,
    mistakes: Vec<Diagnostic>,
}

impl CaseReader<'_> {
    fn case(&mut self, name: String) -> Case {
        let path = Path::new("tests").join(&name);
        let mut numbers: Vec<usize> = Vec::new();
        let mut direct = false;
        for (entry, is_folder) in entries(&self.folder.join(&path)) {
            match entry.parse::<usize>() {
                Ok(number) if is_folder && entry == number.to_string() => numbers.push(number),
                _ if is_folder && ["inputs", "expect"].contains(&entry.as_str()) => direct = true,
                _ if is_folder => self.say(
                    path.join(&entry),
                    format!("a test has no folder {entry:?}"),
                    "it has inputs/ and expect/, or steps 1/, 2/, ... with these in each",
                ),
                _ => {}
            }
        }
        numbers.sort_unstable();
        if direct && !numbers.is_empty() {
            self.say(
                path.clone(),
                "a test has inputs/ and expect/, or steps 1/, 2/, ..., not both",
                "move inputs/ and expect/ into a step of their own",
            );
        }
        if let Some((n, _)) = numbers.iter().enumerate().find(|(n, number)| **number != n + 1) {
            self.say(
                path.clone(),
                format!("step {} is missing", n + 1),
                "number steps from 1, without a gap",
            );
        }
        let steps: Vec<CaseStep> = match numbers.is_empty() {
            true => vec![self.step(1, &path)],
            false => numbers
                .iter()
                .map(|number| self.step(*number, &path.join(number.to_string())))
                .collect(),
        };
        if steps.iter().all(|step| step.expect.is_empty()) && !self.mistakes.iter().any(|d| d.file.starts_with(&path)) {
            self.say(
                path,
                "the test expects nothing",
                "add expect/<layer>.<table>.csv with the rows that the table should hold",
            );
        }
        Case { name, steps }
    }

    fn step(&mut self, number: usize, path: &Path) -> CaseStep {
        let mut step = CaseStep {
            number,
            inputs: Vec::new(),
            expect: Vec::new(),
        };
        for file in self.files(&path.join("inputs")) {
            if let Some(given) = self.read_input(&path.join("inputs").join(file)) {
                step.inputs.push(given);
            }
        }
        for file in self.files(&path.join("expect")) {
            if let Some(expected) = self.read_expected(&path.join("expect").join(file)) {
                step.expect.push(expected);
            }
        }
        step
    }

    fn files(&self, path: &Path) -> Vec<String> {
        entries(&self.folder.join(path))
            .into_iter()
            .filter(|(_, is_folder)| !is_folder)
            .map(|(name, _)| name)
            .collect()
    }

    fn read_input(&mut self, path: &Path) -> Option<CaseInput> {
        let (input, ending) = split(path);
        let format = match ending.as_str() {
            "csv" => Format::Csv,
            "ndjson" => Format::Ndjson,
            _ => {
                self.say(
                    path.to_path_buf(),
                    "rows of a test are in .csv or .ndjson files",
                    "call it inputs/<input>.csv or inputs/<input>.ndjson",
                );
                return None;
            }
        };
        if !self.inputs.contains(&input) {
            let known = self.inputs.join(", ");
            let help = match nearest(&input, self.inputs.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near:?}? inputs are {known}"),
                None => format!("inputs are {known}"),
            };
            self.say(path.to_path_buf(), format!("unknown input {input:?}"), help);
            return None;
        }
        Some(CaseInput {
            path: self.folder.join(path),
            input,
            format,
        })
    }

    fn read_expected(&mut self, path: &Path) -> Option<ExpectedTable> {
        let (name, ending) = split(path);
        let place = name.split_once('.').and_then(|(layer, table)| {
            let layer = Layer::ALL.into_iter().find(|known| known.name() == layer)?;
            Some((layer, table.to_string()))
        });
        let (Some((layer, table)), "csv") = (place, ending.as_str()) else {
            self.say(
                path.to_path_buf(),
                "expected rows are in a file called <layer>.<table>.csv",
                "call it silver.<table>.csv or gold.<table>.csv",
            );
            return None;
        };
        if !self.tables.contains(&name) {
            self.say(
                path.to_path_buf(),
                format!("unknown table {name}"),
                unknown_table_help(&name, &self.tables),
            );
            return None;
        }
        Some(ExpectedTable {
            path: self.folder.join(path),
            layer,
            table,
        })
    }

    fn say(&mut self, file: PathBuf, message: impl Into<String>, help: impl Into<String>) {
        self.mistakes.push(Diagnostic {
            file,
            line: 0,
            column: 0,
            message: message.into(),
            help: Some(help.into()),
        });
    }
}

/// The name and suffix of a file.
fn split(path: &Path) -> (String, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match name.rsplit_once('.') {
        Some((name, ending)) => (name.to_string(), ending.to_string()),
        None => (name.into_owned(), String::new()),
    }
}

/// The entries of a folder by name, each with whether it is a folder; hidden entries are left out.
fn entries(folder: &Path) -> Vec<(String, bool)> {
    let mut entries: Vec<(String, bool)> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path().is_dir()))
        .filter(|(name, _)| !name.starts_with('.'))
        .collect();
    entries.sort();
    entries
}

fn names(folder: &Path, inside: &str, ending: &str) -> Vec<String> {
    entries(&folder.join(inside))
        .into_iter()
        .filter_map(|(name, _)| {
            let (name, found) = name.rsplit_once('.')?;
            (found == ending).then(|| name.to_string())
        })
        .collect()
}
