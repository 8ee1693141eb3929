//! The fields of rows that a registered schema names, and the columns that they could be: a field's type in SQL is the one
//! that its values are read as without loss, as a user would declare it.
//!
//! | | becomes |
//! |---|---|
//! | records, maps, messages, objects | VARCHAR: their JSON |
//! | lists of one of the others | `T[]` |
//! | decimals without a precision | DECIMAL(38, scale) |
//! | unions of several types besides null | nothing |
//!
//! A field that every record must have is no newcomer either, where the language can say so: what an older record lacks is
//! null in its row.

use serde_json::Value;

use super::avro::{self, Form, Schema};
use super::cell::Meaning;
use super::protobuf;
use crate::definition::{Feed, Format, Input};
use crate::registry;
use crate::repr::SqlType;

/// A field that no column takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// The field, and what its column would be called.
    pub field: String,
    /// The column's type; or why the input cannot take it.
    pub column: Result<SqlType, String>,
}

/// A field of a schema.
pub(super) struct Field {
    pub name: String,
    /// The column's type; or why there is none.
    pub sql_type: Result<SqlType, String>,
    /// Whether a record may lack it.
    pub optional: bool,
}

/// The fields of a registered schema that no column of an input takes, when a feed brings its records. None of a format
/// without schemas, or of fields that were declined.
///
/// # Errors
/// Why the schema cannot be read.
pub fn newcomers(input: &Input, feed: &Feed, schema: &registry::Schema) -> Result<Vec<Newcomer>, String> {
    let fields = match feed.format {
        Format::Avro => of_avro(schema, None)?,
        Format::DebeziumAvro => of_avro(schema, Some("after"))?,
        Format::Protobuf => protobuf::fields(schema)?,
        Format::JsonSchema => of_json(&schema.text)?,
        _ => vec![],
    };
    let new = fields.into_iter().filter(|field| {
        // Debezium's marks of flattened rows (`__op`, `__deleted`) tell of the change, not of the row.
        !field.name.starts_with("__") && !feed.takes(&field.name) && !feed.wire.declined.contains(&field.name)
    });
    Ok(new.map(|field| judged(input, field)).collect())
}

fn judged(input: &Input, field: Field) -> Newcomer {
    let Field {
        name,
        sql_type,
        optional,
    } = field;
    let column = sql_type.and_then(|sql_type| {
        if let Some(column) = input.named(&name) {
            return Err(format!(
                "column {:?} has its name, and takes another field",
                column.name
            ));
        }
        if name.is_empty() || name.contains([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '=']) {
            return Err(
                "Delta tables cannot have a column of its name; name the field in a column's `from`".to_string(),
            );
        }
        match optional {
            true => Ok(sql_type),
            false => Err("it may not be null and has no default, so it is in no older record".to_string()),
        }
    });
    Newcomer { field: name, column }
}

/// Of records, or of the rows in a field of them.
fn of_avro(registered: &registry::Schema, rows: Option<&str>) -> Result<Vec<Field>, String> {
    let schema = Schema::parse(registered)?;
    let record = schema.record(schema.root).ok_or("its values are no records")?;
    let record = match rows {
        None => Some(record),
        Some(rows) => {
            let field = record.iter().find(|field| &*field.name == rows);
            field.and_then(|field| schema.record(field.schema))
        }
    };
    // Heartbeats and the like have no rows.
    Ok(fields_of(&schema, record.unwrap_or_default()))
}

/// Of a record of a schema.
pub(super) fn fields_of(schema: &Schema, record: &[avro::Field]) -> Vec<Field> {
    let field = |field: &avro::Field| Field {
        name: field.name.to_string(),
        sql_type: avro_type(schema, field.schema),
        optional: field.default.is_some() || schema.takes_null(field.schema),
    };
    record.iter().map(field).collect()
}

impl Schema {
    pub(super) fn takes_null(&self, index: usize) -> bool {
        match &self.of(index).form {
            Form::Null => true,
            Form::Union(branches) => branches.iter().any(|branch| self.takes_null(*branch)),
            _ => false,
        }
    }
}

fn avro_type(schema: &Schema, index: usize) -> Result<SqlType, String> {
    let found = schema.of(index);
    Ok(match &found.form {
        Form::Null => return Err("it is always null".to_string()),
        Form::Boolean => SqlType::Boolean,
        Form::Int | Form::Long => match found.meaning {
            Meaning::Days => SqlType::Date,
            Meaning::Millis | Meaning::Micros | Meaning::Nanos => SqlType::Timestamp,
            _ if matches!(found.form, Form::Int) => SqlType::Int,
            _ => SqlType::BigInt,
        },
        Form::Float | Form::Double => SqlType::Double,
        Form::Bytes | Form::Fixed(_) if found.meaning == Meaning::Unscaled => decimal(found.precision, found.scale)?,
        Form::Fixed(_) if found.uuid || found.duration => SqlType::Varchar,
        Form::Bytes | Form::Fixed(_) => SqlType::Binary,
        Form::String if found.moment => SqlType::Timestamp,
        Form::String | Form::Enum(_) | Form::Record(_) | Form::Map(_) => SqlType::Varchar,
        Form::Array(items) => SqlType::List(Box::new(avro_type(schema, *items)?)),
        Form::Union(branches) => {
            let mut values = branches
                .iter()
                .filter(|branch| !matches!(schema.of(**branch).form, Form::Null));
            match (values.next(), values.next()) {
                (Some(one), None) => avro_type(schema, *one)?,
                (None, _) => return Err("it is always null".to_string()),
                _ => return Err("it is a union of several types; declare its column".to_string()),
            }
        }
    })
}

fn decimal(precision: Option<u8>, scale: i16) -> Result<SqlType, String> {
    let precision = precision.unwrap_or(38);
    match i8::try_from(scale) {
        Ok(scale) if (1..=38).contains(&precision) && (0..=precision as i8).contains(&scale) => {
            Ok(SqlType::Decimal(precision, scale))
        }
        _ => Err(format!(
            "it has {precision} digits, {scale} of them behind the point, and DECIMAL at most 38"
        )),
    }
}

/// Of a JSON Schema's object.
fn of_json(text: &str) -> Result<Vec<Field>, String> {
    let schema: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    let object = resolved(&schema, &schema);
    let properties = object["properties"].as_object();
    let required = |name: &str| {
        let required = object["required"].as_array().into_iter().flatten();
        required.into_iter().any(|required| required == name)
    };
    let fields = properties.into_iter().flatten().map(|(name, property)| {
        let property = resolved(&schema, property);
        let (types, nullable) = json_types(&schema, property);
        let sql_type = match types[..] {
            [one] => json_type(&schema, one),
            [] => Err("its schema says no type".to_string()),
            _ => Err("it has several types; declare its column".to_string()),
        };
        Field {
            name: name.clone(),
            sql_type,
            optional: nullable || property.get("default").is_some() || !required(name),
        }
    });
    Ok(fields.collect())
}

/// What a local `$ref` refers to.
fn resolved<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    // As many steps as anybody means.
    for _ in 0..8 {
        let Some(pointer) = schema["$ref"].as_str().and_then(|path| path.strip_prefix('#')) else {
            break;
        };
        match root.pointer(pointer) {
            Some(found) => schema = found,
            None => break,
        }
    }
    schema
}

/// The types that a property may have besides null, as (name, schema); and whether null is one.
fn json_types<'a>(root: &'a Value, property: &'a Value) -> (Vec<(&'a str, &'a Value)>, bool) {
    let choices = ["oneOf", "anyOf"]
        .into_iter()
        .find_map(|word| property[word].as_array());
    let mut types: Vec<(&str, &Value)> = match (choices, &property["type"]) {
        (Some(choices), _) => {
            let choices = choices.iter().map(|choice| resolved(root, choice));
            choices
                .flat_map(|choice| Some((choice["type"].as_str()?, choice)))
                .collect()
        }
        (None, Value::Array(names)) => names.iter().flat_map(|name| Some((name.as_str()?, property))).collect(),
        (None, Value::String(name)) => vec![(name, property)],
        (None, _) if property["enum"].is_array() => vec![("string", property)],
        (None, _) => vec![],
    };
    let before = types.len();
    types.retain(|(name, _)| *name != "null");
    let nullable = types.len() < before;
    (types, nullable)
}

fn json_type(root: &Value, (name, schema): (&str, &Value)) -> Result<SqlType, String> {
    Ok(match name {
        "boolean" => SqlType::Boolean,
        "integer" => SqlType::BigInt,
        "number" => SqlType::Double,
        "string" => match schema["format"].as_str() {
            Some("date-time") => SqlType::Timestamp,
            Some("date") => SqlType::Date,
            _ => SqlType::Varchar,
        },
        "object" => SqlType::Varchar,
        "array" => match &json_types(root, resolved(root, &schema["items"])).0[..] {
            [one] => SqlType::List(Box::new(json_type(root, *one)?)),
            _ => SqlType::Varchar,
        },
        other => return Err(format!("{other:?} is no type of JSON")),
    })
}
