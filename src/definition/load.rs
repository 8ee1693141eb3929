//! Reads a dataflow's folder, and reports all of its mistakes at once.
//!
//! A mistake in one file does not hide those in others: [`survey`] returns what could be read, so that the SQL of
//! tables is checked even if an input is invalid.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Diagnostics, nearest};
use super::file::{DiagnosticCollector, EnvLookup, File, read};
use super::input::{InputDefaults, read_input};
use super::order::order;
use super::output::{OutputDefaults, OutputTarget, collisions};
use super::overlap::feeds_on_lake;
use super::references::{LayerReference, scan};
use super::root::{DATAFLOW_FILE, Root, read_root};
use super::table::{plain_table, read_table_settings};
use super::{Dataflow, FeedSurroundings, Input, Layer, Table};

/// The result of reading a folder: the dataflow and its mistakes.
pub struct DefinitionSurvey {
    /// The valid part of the dataflow; none if there is no dataflow, or if its tables form a cycle.
    pub dataflow: Option<Dataflow>,
    /// The SQL names of inputs and tables that could not be read: the SQL that reads them cannot be checked.
    pub broken: Vec<String>,
    /// Every mistake.
    pub found: Diagnostics,
}

/// Reads a dataflow's folder. `env` looks up environment variables.
///
/// # Errors
/// All mistakes, in the order of files and lines.
pub fn load(folder: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Dataflow, Diagnostics> {
    let survey = survey(folder, env);
    match survey.dataflow {
        Some(dataflow) if survey.found.0.is_empty() => Ok(dataflow),
        _ => Err(survey.found),
    }
}

/// Reads the valid part of a dataflow's folder, so that the rest of it can be checked in spite of mistakes.
pub fn survey(folder: &Path, env: &dyn Fn(&str) -> Option<String>) -> DefinitionSurvey {
    let mistakes = DiagnosticCollector::default();
    let loader = Loader {
        folder,
        env,
        mistakes: &mistakes,
    };
    let (dataflow, mut broken) = loader.load();
    let mistakes = Diagnostics(mistakes.into_inner()).sorted();
    let tables = dataflow.iter().flat_map(|dataflow| &dataflow.tables);
    let wrong = tables.filter(|table| mistakes.0.iter().any(|mistake| mistake.file == table.file));
    broken.extend(wrong.map(Table::qualified_name));
    DefinitionSurvey {
        dataflow,
        broken,
        found: mistakes,
    }
}

struct Loader<'a> {
    folder: &'a Path,
    env: EnvLookup<'a>,
    mistakes: &'a DiagnosticCollector,
}

impl Loader<'_> {
    /// The dataflow, and the names of inputs and tables that could not be read.
    fn load(&self) -> (Option<Dataflow>, Vec<String>) {
        let base = match self.folder.canonicalize() {
            Ok(base) if base.join(DATAFLOW_FILE).is_file() => base,
            Ok(base) if base.is_dir() => {
                self.say(
                    Path::new(DATAFLOW_FILE),
                    format!("there is no {DATAFLOW_FILE} in {}", self.folder.display()),
                    "name a dataflow's folder, or make one: alluvium init NAME",
                );
                return (None, vec![]);
            }
            Ok(_) => {
                self.say(
                    Path::new(DATAFLOW_FILE),
                    format!("{} is not a folder", self.folder.display()),
                    format!("name the folder that holds {DATAFLOW_FILE}"),
                );
                return (None, vec![]);
            }
            Err(error) => {
                self.say(
                    Path::new(DATAFLOW_FILE),
                    format!("could not open folder {}: {error}", self.folder.display()),
                    "name a dataflow's folder, or make one: alluvium init NAME",
                );
                return (None, vec![]);
            }
        };
        let root = self.with_file(Path::new(DATAFLOW_FILE), |file| read_root(file, &base));
        let root = root.flatten();
        let is_read = root.is_some();
        let root = root.unwrap_or_default();
        let (inputs, broken) = self.inputs(InputDefaults {
            base: &base,
            registry: root.registry.as_ref(),
            bounds: &root.bounds,
        });
        if is_read {
            self.check_feeds(&root, &inputs);
        }
        let common = OutputDefaults {
            base: &base,
            registry: root.registry.as_ref(),
        };
        let Some(tables) = self.tables(common) else {
            return (None, broken);
        };
        self.check_topics(&root, &tables);
        let dataflow = Dataflow {
            name: root.name,
            folder: self.folder.to_path_buf(),
            lake: root.lake,
            epoch: root.epoch,
            commit: root.commit,
            store_options: root.store_options,
            durable: root.durable,
            guard: root.guard,
            history: root.history,
            dead_letters: root.dead_letters,
            http: root.http,
            bounds: root.bounds,
            inputs,
            tables,
        };
        self.mistakes.borrow_mut().extend(feeds_on_lake(&dataflow));
        (Some(dataflow), broken)
    }

    /// The inputs, and the names of those that could not be read.
    fn inputs(&self, all: InputDefaults<'_>) -> (Vec<Input>, Vec<String>) {
        let files = self.listing("inputs", &["toml"]);
        if files.is_empty() {
            let near = std::fs::read_dir(self.folder)
                .into_iter()
                .flatten()
                .flatten()
                .filter(|entry| entry.path().is_dir())
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .find(|name| name != "inputs" && nearest(name, ["inputs"]).is_some());
            self.say(
                Path::new("inputs"),
                "the dataflow has no inputs",
                match near {
                    Some(near) => format!("rename the folder {near:?} to \"inputs\""),
                    None => "add inputs/<name>.toml for each thing that arrives".to_string(),
                },
            );
        }
        let (mut inputs, mut broken) = (Vec::new(), Vec::new());
        for (name, path) in &files {
            if ["silver", "gold", "bronze"].contains(&name.as_str()) {
                self.say(
                    path,
                    format!("an input cannot be called {name:?}, which is a layer's name"),
                    "rename the file",
                );
            }
            let input = self.with_file(path, |file| read_input(file, name, all));
            match input.flatten() {
                Some(input) => inputs.push(input),
                None => broken.push(name.clone()),
            }
        }
        (inputs, broken)
    }

    /// Reports mistakes of feeds that only show together with the rest of the definition.
    fn check_feeds(&self, root: &Root, inputs: &[Input]) {
        for input in inputs {
            for (feed, definition) in input.feeds.iter().enumerate() {
                let around = FeedSurroundings {
                    input,
                    feed,
                    http: root.http.as_ref(),
                    lake: &root.lake,
                };
                let mistakes = definition.kind.contract().mistakes(&around);
                self.mistakes.borrow_mut().extend(mistakes);
            }
        }
    }

    /// Checks that everything that is written to topics goes to different ones.
    fn check_topics(&self, root: &Root, tables: &[Table]) {
        let letters = root.dead_letters.iter().map(|output| OutputTarget {
            who: "[dead_letters]".to_string(),
            file: Path::new(DATAFLOW_FILE),
            output,
        });
        let tables = tables.iter().filter_map(|table| {
            Some(OutputTarget {
                who: table.qualified_name(),
                file: table.settings_file.as_deref()?,
                output: table.output.as_ref()?,
            })
        });
        for (file, message, help) in collisions(&letters.chain(tables).collect::<Vec<_>>()) {
            self.say(file, message, help);
        }
    }

    /// All tables in their order; none if mistakes were reported.
    fn tables(&self, common: OutputDefaults<'_>) -> Option<Vec<Table>> {
        let mut tables: Vec<Table> = Vec::new();
        let mut references: Vec<Vec<LayerReference>> = Vec::new();
        for layer in Layer::ALL {
            let settings: BTreeMap<String, PathBuf> = self.listing(layer.name(), &["toml"]).into_iter().collect();
            let selects: BTreeMap<String, PathBuf> = self.listing(layer.name(), &["sql"]).into_iter().collect();
            for (name, path) in &settings {
                if !selects.contains_key(name) {
                    self.say(
                        path,
                        format!(
                            "settings of a table that does not exist: there is no {layer}/{name}.sql",
                            layer = layer.name()
                        ),
                        match nearest(name, selects.keys().map(String::as_str)) {
                            Some(near) => {
                                format!("did you mean {near:?}? a table's settings are called as its SQL file")
                            }
                            None => "write the SQL file, or remove this one".to_string(),
                        },
                    );
                    let mut table = plain_table(layer, name, "", path.clone());
                    self.with_file(path, |file| read_table_settings(file, &mut table, common));
                }
            }
            for (name, path) in &selects {
                let mut table = plain_table(layer, name, "", path.clone());
                let mut reads = Vec::new();
                self.with_file(path, |file| {
                    table.sql = file.text.to_string();
                    reads = self.read_select(file);
                });
                if let Some(path) = settings.get(name) {
                    self.with_file(path, |file| read_table_settings(file, &mut table, common));
                }
                tables.push(table);
                references.push(reads);
            }
        }
        self.in_order(tables, &references)
    }

    fn read_select(&self, file: &File<'_>) -> Vec<LayerReference> {
        match scan(file.text) {
            Ok(scanned) => {
                if scanned.empty {
                    file.say_whole("the SQL file is empty", "write one SELECT, or remove the file");
                }
                scanned.references
            }
            Err(error) => {
                file.say_at(
                    error.location.line as usize,
                    error.location.column as usize,
                    format!("could not read the SQL: {}", lower_first(&error.message)),
                    "close the quote or comment that starts here",
                );
                Vec::new()
            }
        }
    }

    /// Resolves references between tables and sorts the tables; none if mistakes were reported.
    fn in_order(&self, tables: Vec<Table>, references: &[Vec<LayerReference>]) -> Option<Vec<Table>> {
        let names: Vec<String> = tables.iter().map(Table::qualified_name).collect();
        let mut reads: Vec<Vec<usize>> = vec![Vec::new(); tables.len()];
        for (n, references) in references.iter().enumerate() {
            for reference in references {
                let name = format!("{}.{}", reference.layer.name(), reference.table);
                match names.iter().position(|known| *known == name) {
                    Some(read) if !reads[n].contains(&read) => reads[n].push(read),
                    Some(_) => {}
                    None if reference.doubtful => {}
                    None => self.say_at(
                        &tables[n].file,
                        reference,
                        format!("unknown table {name}"),
                        unknown_table_help(&name, &names),
                    ),
                }
            }
        }
        let order = match order(&reads) {
            Ok(order) => order,
            Err(cycles) => {
                for cycle in cycles {
                    let path: Vec<&str> = cycle.iter().chain(&cycle[..1]).map(|n| names[*n].as_str()).collect();
                    let next = &tables[cycle[1 % cycle.len()]];
                    let first = cycle[0];
                    let reference = references[first]
                        .iter()
                        .find(|r| r.layer == next.layer && r.table == next.name)
                        .expect("a table on a cycle refers to the next one");
                    self.say_at(
                        &tables[first].file,
                        reference,
                        format!("tables read each other in a circle: {}", path.join(" -> ")),
                        "a table reads only tables that do not read it; take one of these references out".to_string(),
                    );
                }
                return None;
            }
        };
        let mut tables: Vec<Option<Table>> = tables.into_iter().map(Some).collect();
        Some(
            order
                .into_iter()
                .map(|n| tables[n].take().expect("an order names each table once"))
                .collect(),
        )
    }

    /// The files in a folder with one of these suffixes: their names, and their paths relative to the dataflow,
    /// sorted by name. A file with an invalid name is reported and left out.
    fn listing(&self, folder: &str, endings: &[&str]) -> Vec<(String, PathBuf)> {
        let Ok(entries) = std::fs::read_dir(self.folder.join(folder)) else {
            return Vec::new();
        };
        let mut files = Vec::new();
        for entry in entries.flatten() {
            let file_name = entry.file_name().to_string_lossy().into_owned();
            let path = Path::new(folder).join(&file_name);
            if file_name.starts_with('.') {
                continue;
            }
            if entry.path().is_dir() {
                self.say(
                    &path,
                    format!("folders inside {folder}/ are not read"),
                    format!("move its files up into {folder}/, and remove the folder"),
                );
                continue;
            }
            let Some((name, ending)) = file_name.rsplit_once('.') else {
                continue;
            };
            if !endings.contains(&ending) {
                continue;
            }
            if is_sql_name(name) {
                files.push((name.to_string(), path));
            } else {
                self.say(
                    &path,
                    format!("{name:?} cannot be a name in SQL"),
                    "rename the file: small letters, digits and _, and no digit first",
                );
            }
        }
        files.sort();
        files
    }

    fn with_file<T>(&self, path: &Path, work: impl FnOnce(&File<'_>) -> T) -> Option<T> {
        let text = read(self.folder, path, self.mistakes)?;
        Some(work(&File::new(path.to_path_buf(), &text, self.env, self.mistakes)))
    }

    fn say(&self, file: &Path, message: impl Into<String>, help: impl Into<String>) {
        self.push(file, 0, 0, message.into(), help.into());
    }

    fn say_at(&self, file: &Path, at: &LayerReference, message: String, help: String) {
        self.push(file, at.line, at.column, message, help);
    }

    fn push(&self, file: &Path, line: usize, column: usize, message: String, help: String) {
        self.mistakes.borrow_mut().push(Diagnostic {
            file: file.to_path_buf(),
            line,
            column,
            message,
            help: Some(help),
        });
    }
}

/// The remedy for a reference to a missing table.
pub(super) fn unknown_table_help(name: &str, names: &[String]) -> String {
    match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}? tables are {}", names.join(", ")),
        None if names.is_empty() => "there are no tables yet; write silver/<name>.sql".to_string(),
        None => format!("tables are {}", names.join(", ")),
    }
}

fn is_sql_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}
