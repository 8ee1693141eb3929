//! A file of a definition, and its mistakes with line and column.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeTable;

use super::diagnostic::Diagnostic;

/// Looks up an environment variable.
pub type EnvLookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Collects the mistakes of all files.
pub type DiagnosticCollector = RefCell<Vec<Diagnostic>>;

/// A text file of a definition.
pub struct File<'a> {
    /// Relative to the dataflow's folder.
    pub path: PathBuf,
    /// Its text.
    pub text: &'a str,
    /// Looks up the environment variables in its values.
    pub env: EnvLookup<'a>,
    mistakes: &'a DiagnosticCollector,
    broken_lines: RefCell<Vec<usize>>,
}

impl<'a> File<'a> {
    /// A file that reports its mistakes to `mistakes`.
    pub fn new(path: PathBuf, text: &'a str, env: EnvLookup<'a>, mistakes: &'a DiagnosticCollector) -> Self {
        File {
            path,
            text,
            env,
            mistakes,
            broken_lines: RefCell::default(),
        }
    }

    /// Parses the text as TOML; invalid parts are reported and left out.
    pub fn parse(&self) -> Spanned<DeTable<'a>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let at = error.span().unwrap_or(0..0);
            let line = self.position(at.start).0;
            if self.is_broken_at(line) {
                continue;
            }
            let message = error.message().replace('`', "\"");
            let message = match message.split_once(", expected literal string") {
                Some((message, _)) => message.to_string(),
                None => message,
            };
            self.say(&at, format!("not valid TOML: {message}"), toml_help(&message));
            self.broken_lines.borrow_mut().push(line);
        }
        table
    }

    /// Reports a mistake at a span of the text.
    pub fn say(&self, at: &Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        let (line, column) = self.position(at.start);
        self.report(line, column, message.into(), help.into());
    }

    /// Reports a mistake at a line and column (both from 1).
    pub fn say_at(&self, line: usize, column: usize, message: impl Into<String>, help: impl Into<String>) {
        self.report(line, column, message.into(), help.into());
    }

    /// Reports a mistake of the whole file.
    pub fn say_whole(&self, message: impl Into<String>, help: impl Into<String>) {
        self.report(0, 0, message.into(), help.into());
    }

    /// Whether a part of the file could not be parsed; then a setting that is not found may be in that part.
    pub fn is_broken(&self) -> bool {
        !self.broken_lines.borrow().is_empty()
    }

    /// Whether this line did not parse.
    pub fn is_broken_at(&self, line: usize) -> bool {
        self.broken_lines.borrow().contains(&line)
    }

    fn report(&self, line: usize, column: usize, message: String, help: String) {
        if line > 0 && self.is_broken_at(line) {
            return;
        }
        self.mistakes.borrow_mut().push(Diagnostic {
            file: self.path.clone(),
            line,
            column,
            message,
            help: Some(help),
        });
    }

    /// The line and column of a byte of the text, both from 1; columns count characters.
    pub fn position(&self, byte: usize) -> (usize, usize) {
        let mut byte = byte.min(self.text.len());
        while !self.text.is_char_boundary(byte) {
            byte -= 1;
        }
        let before = &self.text[..byte];
        let line_start = before.rfind('\n').map_or(0, |n| n + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }
}

fn toml_help(message: &str) -> String {
    if message.contains("duplicate key") {
        "each setting stands once; remove one of the two".to_string()
    } else if message.contains("string values must be quoted") {
        "text stands in quotes, as in name = \"retail\"".to_string()
    } else {
        "settings are written as name = value; text stands in quotes".to_string()
    }
}

/// Reads a file; if it cannot be read, that is reported.
pub fn read(folder: &Path, relative: &Path, mistakes: &DiagnosticCollector) -> Option<String> {
    let report = |line: usize, message: String, help: &str| {
        mistakes.borrow_mut().push(Diagnostic {
            file: relative.to_path_buf(),
            line,
            column: 0,
            message,
            help: Some(help.to_string()),
        });
        None
    };
    let bytes = match std::fs::read(folder.join(relative)) {
        Ok(bytes) => bytes,
        Err(error) => return report(0, format!("could not read the file: {error}"), "make it readable"),
    };
    match String::from_utf8(bytes) {
        Ok(text) => Some(match text.strip_prefix('\u{feff}') {
            Some(text) => text.to_string(),
            None => text,
        }),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..good].iter().filter(|b| **b == b'\n').count() + 1;
            report(line, "not UTF-8 text".to_string(), "save the file as UTF-8")
        }
    }
}
