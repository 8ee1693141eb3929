//! A TOML table as its reader consumes it: every setting is requested by name, and those that are never requested are
//! reported as unknown.
//!
//! Mistakes are collected and not returned: a reader requests all of its settings and gets `None` for one that it
//! cannot use.
//! 1. A setting that exists and yields `None` has left a diagnostic.
//! 2. Values are expanded ([`expand`]), but messages show the text as written, so that no secret is printed.
//! 3. In a file that is not valid TOML, settings are not reported as missing (they may be in the part that could not
//!    be parsed), and a broken line is reported once.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::nearest;
use super::environment::expand;
use super::file::File;

/// A table of settings.
pub struct Settings<'f> {
    file: &'f File<'f>,
    /// In the order of the file.
    entries: Vec<Entry<'f>>,
    /// Where the table starts; none if it is the whole file.
    at: Option<Range<usize>>,
    known: Vec<&'static str>,
}

struct Entry<'f> {
    key: &'f str,
    key_at: Range<usize>,
    value: &'f Spanned<DeValue<'f>>,
    taken: bool,
}

impl<'f> Settings<'f> {
    /// The settings of a whole file.
    pub fn of_file(file: &'f File<'f>, table: &'f DeTable<'f>) -> Self {
        Settings::new(file, table, None)
    }

    fn new(file: &'f File<'f>, table: &'f DeTable<'f>, at: Option<Range<usize>>) -> Self {
        // By (3): what the parser recovered from a broken line is not a setting of the user's.
        let recovered = |key: &Range<usize>, value: &Range<usize>| {
            file.is_broken() && (value.is_empty() || file.is_broken_at(file.position(key.start).0))
        };
        let mut entries: Vec<Entry<'f>> = table
            .iter()
            .filter(|(key, value)| !recovered(&key.span(), &value.span()))
            .map(|(key, value)| Entry {
                key: key.get_ref().as_ref(),
                key_at: key.span(),
                value,
                taken: false,
            })
            .collect();
        entries.sort_by_key(|entry| entry.key_at.start);
        Settings {
            file,
            entries,
            at,
            known: Vec::new(),
        }
    }

    /// The table's file.
    pub fn file(&self) -> &'f File<'f> {
        self.file
    }

    /// An optional setting. `example` is a value in TOML, for remedies.
    pub fn setting(&mut self, name: &'static str, example: &'static str) -> Option<SettingValue<'f>> {
        self.known.push(name);
        let file = self.file;
        let entry = self.entries.iter_mut().find(|entry| entry.key == name)?;
        entry.taken = true;
        Some(SettingValue {
            file,
            key: entry.key,
            example,
            value: entry.value.get_ref(),
            key_at: entry.key_at.clone(),
            at: entry.value.span(),
        })
    }

    /// A required setting.
    pub fn require(&mut self, name: &'static str, example: &'static str) -> Option<SettingValue<'f>> {
        let value = self.setting(name, example);
        if value.is_none() && !self.file.is_broken() {
            self.say(
                format!("setting {name:?} is missing"),
                format!("add {name} = {example}"),
            );
        }
        value
    }

    /// All entries, if their names are the user's own: columns, expectations, store options.
    pub fn take_all(&mut self, example: &'static str) -> Vec<SettingValue<'f>> {
        self.entries
            .iter_mut()
            .map(|entry| {
                entry.taken = true;
                SettingValue {
                    file: self.file,
                    key: entry.key,
                    example,
                    value: entry.value.get_ref(),
                    key_at: entry.key_at.clone(),
                    at: entry.value.span(),
                }
            })
            .collect()
    }

    /// Consumes a setting that belongs elsewhere, and reports it with the message and remedy that `why` returns.
    pub fn misplaced(&mut self, name: &'static str, why: impl FnOnce() -> (String, String)) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.key == name && !entry.taken) {
            entry.taken = true;
            let (message, help) = why();
            self.file.say(&entry.key_at, message, help);
        }
    }

    /// Reports a setting that is valid but conflicts with others.
    pub fn conflicting(&self, name: &str, message: &str, help: &str) {
        match self.entries.iter().find(|entry| entry.key == name) {
            Some(entry) => self.file.say(&entry.key_at, message, help),
            // The others conflict with the setting's default.
            None => self.say(message, help),
        }
    }

    /// Reports a mistake at the start of this table.
    pub fn say(&self, message: impl Into<String>, help: impl Into<String>) {
        match &self.at {
            Some(at) => self.file.say(at, message, help),
            None => self.file.say_whole(message, help),
        }
    }

    /// Reports all settings that were not requested.
    pub fn finish(mut self) {
        self.known.sort_unstable();
        for entry in self.entries.iter().filter(|entry| !entry.taken) {
            let known = self.known.join(", ");
            let help = match nearest(entry.key, self.known.iter().copied()) {
                Some(near) => format!("did you mean {near:?}? known here: {known}"),
                None => format!("known here: {known}"),
            };
            self.file
                .say(&entry.key_at, format!("unknown setting {:?}", entry.key), help);
        }
    }
}

/// Text of a setting.
#[derive(Clone, Debug)]
pub struct Text {
    /// The expanded value, to be used.
    pub value: String,
    /// The text as written, to be printed.
    pub written: String,
    /// Its span in the file.
    pub at: Range<usize>,
}

/// The value of a setting.
pub struct SettingValue<'f> {
    file: &'f File<'f>,
    /// The setting's name.
    pub key: &'f str,
    example: &'static str,
    value: &'f DeValue<'f>,
    /// The span of its name.
    pub key_at: Range<usize>,
    /// The span of its value.
    pub at: Range<usize>,
}

impl<'f> SettingValue<'f> {
    /// Whether it is text, which may be the short form of a table.
    pub fn is_text(&self) -> bool {
        matches!(self.value, DeValue::String(_))
    }

    /// The value as text.
    pub fn text(&self) -> Option<Text> {
        self.text_of(self.value, &self.at, "text")
    }

    /// The value as text, or as a list of texts.
    pub fn texts(&self) -> Option<Vec<Text>> {
        match self.value {
            DeValue::Array(items) => {
                let texts: Vec<Option<Text>> = items
                    .iter()
                    .map(|item| self.text_of(item.get_ref(), &item.span(), "text"))
                    .collect();
                texts.into_iter().collect()
            }
            other => self
                .text_of(other, &self.at, "text or a list of texts")
                .map(|t| vec![t]),
        }
    }

    /// Names of fields: text, or a number from 1 for a field by its index (`3` is `#3`), or a list of these.
    pub fn fields(&self) -> Option<Vec<Text>> {
        const WANTED: &str = "a field's name or its number, or a list of these";
        let one = |item: &DeValue<'_>, at: &Range<usize>| match item {
            DeValue::Integer(n) => {
                let number = u32::from_str_radix(n.as_str(), n.radix()).ok().filter(|n| *n > 0);
                let Some(number) = number else {
                    self.file
                        .say(at, "fields are counted from 1", "write from = 1 for the first");
                    return None;
                };
                Some(Text {
                    value: format!("#{number}"),
                    written: number.to_string(),
                    at: at.clone(),
                })
            }
            other => self.text_of(other, at, WANTED),
        };
        match self.value {
            DeValue::Array(items) => {
                let texts: Vec<Option<Text>> = items.iter().map(|item| one(item.get_ref(), &item.span())).collect();
                texts.into_iter().collect()
            }
            other => one(other, &self.at).map(|text| vec![text]),
        }
    }

    /// The value as a boolean.
    pub fn boolean(&self) -> Option<bool> {
        if let DeValue::Boolean(value) = self.value {
            return Some(*value);
        }
        self.by_environment("true or false", |text| text.parse().ok())
    }

    /// The value as a number.
    pub fn number(&self) -> Option<f64> {
        let written = match self.value {
            DeValue::Integer(n) if n.radix() == 10 => Some(n.as_str()),
            DeValue::Float(x) => Some(x.as_str()),
            _ => None,
        };
        match written {
            Some(text) => self.parsed(text, "a number", |text| {
                text.parse().ok().filter(|x: &f64| x.is_finite())
            }),
            None => self.by_environment("a number", |text| text.parse().ok().filter(|x: &f64| x.is_finite())),
        }
    }

    /// The value as an integer that is not negative.
    pub fn whole(&self) -> Option<u64> {
        const WANTED: &str = "a whole number, 0 or more";
        match self.value {
            DeValue::Integer(n) => self.parsed(n.as_str(), WANTED, |text| u64::from_str_radix(text, n.radix()).ok()),
            _ => self.by_environment(WANTED, |text| text.parse().ok()),
        }
    }

    /// The value as a positive duration, in humantime's format.
    pub fn duration(&self) -> Option<Duration> {
        let text = self.text()?;
        let problem = match humantime::parse_duration(text.value.trim()) {
            Ok(duration) if duration > Duration::ZERO => return Some(duration),
            Ok(_) => " (it must be longer than nothing)".to_string(),
            // Parts of a value from the environment must not be printed.
            Err(humantime::DurationError::UnknownUnit { unit, .. }) if text.value == text.written => {
                format!(" (unknown unit {unit:?})")
            }
            Err(_) => String::new(),
        };
        self.file.say(
            &text.at,
            format!("setting {:?} is no duration: {:?}{problem}", self.key, text.written),
            format!(
                "write a number and a unit (ms, s, min, h, days, years), as in {} = {}",
                self.key, self.example
            ),
        );
        None
    }

    /// The value as one of a few words.
    pub fn choice<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let near = nearest(&text.value, known.iter().copied());
        self.file.say(
            &text.at,
            format!("setting {:?} cannot be {:?}", self.key, text.written),
            match near {
                Some(near) => format!("did you mean {near:?}? it is one of {}", known.join(", ")),
                None => format!("it is one of {}", known.join(", ")),
            },
        );
        None
    }

    /// The value as a table of settings.
    pub fn settings(&self) -> Option<Settings<'f>> {
        match self.value {
            DeValue::Table(table) => Some(Settings::new(self.file, table, Some(self.key_at.clone()))),
            other => {
                self.wrong_type(other, &self.at, "a table of settings");
                None
            }
        }
    }

    /// The value as a list of tables (`[[name]]`).
    pub fn list_of_settings(&self) -> Option<Vec<Settings<'f>>> {
        let DeValue::Array(items) = self.value else {
            self.wrong_type(self.value, &self.at, "a list of tables");
            return None;
        };
        let tables: Vec<Option<Settings<'f>>> = items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::Table(table) => Some(Settings::new(self.file, table, Some(item.span()))),
                other => {
                    self.wrong_type(other, &item.span(), "a list of tables");
                    None
                }
            })
            .collect();
        tables.into_iter().collect()
    }

    /// The value as text, if it is a scalar of any type.
    pub fn scalar(&self) -> Option<String> {
        match self.value {
            DeValue::Boolean(value) => Some(value.to_string()),
            DeValue::Integer(n) if n.radix() == 10 => Some(n.as_str().to_string()),
            _ => self.text().map(|text| text.value),
        }
    }

    /// Reports a mistake in this value.
    pub fn say(&self, message: impl Into<String>, help: impl Into<String>) {
        self.file.say(&self.at, message, help);
    }

    fn text_of(&self, value: &DeValue<'_>, at: &Range<usize>, wanted: &str) -> Option<Text> {
        let DeValue::String(written) = value else {
            self.wrong_type(value, at, wanted);
            return None;
        };
        Some(Text {
            value: self.expanded(written, at)?,
            written: written.to_string(),
            at: at.clone(),
        })
    }

    fn expanded(&self, written: &str, at: &Range<usize>) -> Option<String> {
        match expand(written, self.file.env) {
            Ok(value) => Some(value),
            Err(error) => {
                self.file.say(at, error.to_string(), error.help());
                None
            }
        }
    }

    /// Parses a value of another type than text that comes from the environment.
    fn by_environment<T>(&self, wanted: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        match self.value {
            DeValue::String(written) if written.contains("${") => {
                let text = self.expanded(written, &self.at)?;
                self.parsed(text.trim(), wanted, parse)
            }
            other => {
                self.wrong_type(other, &self.at, wanted);
                None
            }
        }
    }

    fn parsed<T>(&self, text: &str, wanted: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let value = parse(text);
        if value.is_none() {
            self.say(
                format!("setting {:?} must be {wanted}", self.key),
                format!("write {} = {}", self.key, self.example),
            );
        }
        value
    }

    fn wrong_type(&self, value: &DeValue<'_>, at: &Range<usize>, wanted: &str) {
        let is = match value {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let help = match self.example.starts_with('[') && wanted == "a list of tables" {
            true => format!("write {}", self.example),
            false => format!("write {} = {}", self.key, self.example),
        };
        self.file.say(
            at,
            format!("setting {:?} must be {wanted}, and is {is}", self.key),
            help,
        );
    }
}
