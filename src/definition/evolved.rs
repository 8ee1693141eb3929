//! Columns that an input takes from the schemas of its feeds, beside those that its file names: `schema = "evolve"`.
//!
//! The file wins: a column of the file keeps its name, and its field. What is taken comes behind it, in the order in which
//! it was taken, may always be null, and is not part of the definition until a run says so.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Column, Feed, FeedKind, Format, Input};
use crate::repr::SqlType;

/// A column that a feed's schema brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evolved {
    /// Its name, and that of the field.
    pub column: String,
    /// Its type as SQL writes it.
    pub sql_type: String,
    /// The feed whose schema has the field.
    pub feed: String,
    /// That schema, as `schema 7 (orders-value version 3)`.
    pub schema: String,
}

/// `discount DOUBLE, from schema 7 (orders-value version 3) of feed live`.
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
    /// Where the schemas of its values are registered; none: each schema says so itself.
    pub fn subject(&self) -> Option<String> {
        if let Some(subject) = self
            .wire
            .registry
            .as_ref()
            .and_then(|registry| registry.subject.clone())
        {
            return Some(subject);
        }
        // As the registry's serializers name it unless told otherwise.
        match &self.kind {
            FeedKind::Kafka(kafka) => match &kafka.topics[..] {
                [topic] if !topic.starts_with('^') => Some(format!("{topic}-value")),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether a field of a record or row fills a column of the feed's, or values inside it do.
    pub fn takes(&self, field: &str) -> bool {
        let names = self.columns.iter().flat_map(|column| &column.from);
        names
            .into_iter()
            .any(|name| name == field || name.strip_prefix(field).is_some_and(|inner| inner.starts_with('.')))
    }
}

impl Format {
    /// Whether its records may be behind ids of schemas that name the fields of rows.
    pub fn has_schemas(self) -> bool {
        matches!(
            self,
            Format::Avro | Format::DebeziumAvro | Format::JsonSchema | Format::Protobuf
        )
    }
}

impl Input {
    /// Takes a column, unless the file has its name or its field, the feed is fixed or gone, or its type is not known.
    /// Says whether it did.
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

    /// The column of a name, as Delta tells names apart.
    pub fn named(&self, name: &str) -> Option<&Column> {
        self.columns
            .iter()
            .find(|column| column.name.eq_ignore_ascii_case(name))
    }
}
