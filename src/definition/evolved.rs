//! Columns that an input takes from the schemas of its feeds, in addition to those of its file: `schema = "evolve"`.
//!
//! The file takes precedence: a column of the file keeps its name and its field. Evolved columns follow those of the
//! file, in the order in which they were taken, are always nullable, and become part of the definition only when a
//! run adds them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Column, Feed, Format, Input};
use crate::repr::SqlType;

/// A column taken from a feed's schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evolved {
    /// The name of the column and of the field.
    pub column: String,
    /// The type in SQL.
    pub sql_type: String,
    /// The feed whose schema has the field.
    pub feed: String,
    /// The schema, in the form `schema 7 (orders-value version 3)`.
    pub schema: String,
}

/// Prints `discount DOUBLE, from schema 7 (orders-value version 3) of feed live`.
impl fmt::Display for Evolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Evolved {
            column,
            sql_type,
            feed,
            schema,
        } = self;
        write!(f, "{column} {sql_type}, from {schema} of feed {feed}")
    }
}

impl Feed {
    /// The registry's subject for the schemas of its values; none if each schema names its own subject.
    pub fn subject(&self) -> Option<String> {
        if let Some(subject) = self
            .wire
            .registry
            .as_ref()
            .and_then(|registry| registry.subject.clone())
        {
            return Some(subject);
        }
        // The default naming strategy of the registry's serializers.
        let topic = self.kind.contract().topic()?;
        Some(format!("{topic}-value"))
    }

    /// Whether a field of a record, or a value inside it, fills a column of the feed.
    pub fn takes(&self, field: &str) -> bool {
        let names = self.columns.iter().flat_map(|column| &column.from);
        names
            .into_iter()
            .any(|name| name == field || name.strip_prefix(field).is_some_and(|inner| inner.starts_with('.')))
    }
}

impl Format {
    /// Whether records in this format may refer to registered schemas that name the fields of rows.
    pub fn has_schemas(self) -> bool {
        matches!(
            self,
            Format::Avro | Format::DebeziumAvro | Format::JsonSchema | Format::Protobuf
        )
    }
}

impl Input {
    /// Adds a column, and returns true; unless the file has its name or its field, the feed is missing or not
    /// `evolve`, or the type is unknown.
    pub fn evolve(&mut self, evolved: &Evolved) -> bool {
        let Ok(sql_type) = evolved.sql_type.parse::<SqlType>() else {
            return false;
        };
        let feed = self.feeds.iter().find(|feed| feed.name == evolved.feed);
        let wanted = feed.is_some_and(|feed| feed.wire.evolves && !feed.takes(&evolved.column));
        if !wanted || self.named(&evolved.column).is_some() {
            return false;
        }
        let column = Column {
            name: evolved.column.clone(),
            sql_type,
            nullable: true,
            from: vec![evolved.column.clone()],
            format: vec![],
            null: vec![],
        };
        self.feeds.iter_mut().for_each(|feed| feed.columns.push(column.clone()));
        self.columns.push(column);
        self.evolved.push(evolved.clone());
        true
    }

    /// The column with a name; like Delta, it ignores the case of letters.
    pub fn named(&self, name: &str) -> Option<&Column> {
        self.columns
            .iter()
            .find(|column| column.name.eq_ignore_ascii_case(name))
    }
}
