//! The fields of rows in a registered schema, and the columns that they could become: a field's SQL type is the one
//! in which its values can be read without loss, as a user would declare it.
//!
//! | | becomes |
//! |---|---|
//! | records, maps, messages, objects | VARCHAR: their JSON |
//! | lists of one of the others | `T[]` |
//! | decimals without a precision | DECIMAL(38, scale) |
//! | unions of several types besides null | nothing |
//!
//! A field that every record must have becomes no column either, if the schema language can express that, because
//! rows of older records, which lack it, would have nulls.

use serde_json::Value;

use crate::decode::cell::Meaning;
use crate::decode::formats::avro;
use crate::decode::formats::avro::{AvroForm, AvroSchema};
use crate::decode::formats::protobuf;
use crate::decode::schemas::schema_field::SchemaField;
use crate::definition::{Feed, Format, Input};
use crate::registry;
use crate::repr::SqlType;

/// A field that no column takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// The name of the field, and of its column.
    pub field: String,
    /// The column's type; or why the input cannot take it.
    pub column: Result<SqlType, String>,
}

/// The fields of a registered schema that no column of an input takes from a feed with such records. Empty for
/// formats without schemas; fields that were declined are left out.
///
/// # Errors
/// Why the schema is invalid.
pub fn newcomers(input: &Input, feed: &Feed, schema: &registry::RegisteredSchema) -> Result<Vec<Newcomer>, String> {
    let fields = match feed.format {
        Format::Avro => of_avro(schema, None)?,
        Format::DebeziumAvro => of_avro(schema, Some("after"))?,
        Format::Protobuf => protobuf::fields(schema)?,
        Format::JsonSchema => of_json(&schema.text)?,
        _ => vec![],
    };
    let new = fields.into_iter().filter(|field| {
        // Debezium's marks of flattened rows (`__op`, `__deleted`) describe the change and not the row.
        !field.name.starts_with("__") && !feed.takes(&field.name) && !feed.wire.declined.contains(&field.name)
    });
    Ok(new.map(|field| judged(input, field)).collect())
}

fn judged(input: &Input, field: SchemaField) -> Newcomer {
    let SchemaField {
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

/// The fields of records, or of the rows in one of their fields.
fn of_avro(registered: &registry::RegisteredSchema, rows: Option<&str>) -> Result<Vec<SchemaField>, String> {
    let schema = AvroSchema::parse(registered)?;
    let record = schema.record(schema.root).ok_or("its values are no records")?;
    let record = match rows {
        None => Some(record),
        Some(rows) => {
            let field = record.iter().find(|field| &*field.name == rows);
            field.and_then(|field| schema.record(field.schema))
        }
    };
    // Heartbeats and similar records have no rows.
    Ok(fields_of(&schema, record.unwrap_or_default()))
}

/// The fields of a record type.
pub(in crate::decode) fn fields_of(schema: &AvroSchema, record: &[avro::AvroField]) -> Vec<SchemaField> {
    let field = |field: &avro::AvroField| SchemaField {
        name: field.name.to_string(),
        sql_type: avro_type(schema, field.schema),
        optional: field.default.is_some() || schema.takes_null(field.schema),
    };
    record.iter().map(field).collect()
}

impl AvroSchema {
    pub(in crate::decode) fn takes_null(&self, index: usize) -> bool {
        match &self.type_at(index).form {
            AvroForm::Null => true,
            AvroForm::Union(branches) => branches.iter().any(|branch| self.takes_null(*branch)),
            _ => false,
        }
    }
}

fn avro_type(schema: &AvroSchema, index: usize) -> Result<SqlType, String> {
    let schema_type = schema.type_at(index);
    Ok(match &schema_type.form {
        AvroForm::Null => return Err("it is always null".to_string()),
        AvroForm::Boolean => SqlType::Boolean,
        AvroForm::Int | AvroForm::Long => match schema_type.meaning {
            Meaning::Days => SqlType::Date,
            Meaning::Millis | Meaning::Micros | Meaning::Nanos => SqlType::Timestamp,
            _ if matches!(schema_type.form, AvroForm::Int) => SqlType::Int,
            _ => SqlType::BigInt,
        },
        AvroForm::Float | AvroForm::Double => SqlType::Double,
        AvroForm::Bytes | AvroForm::Fixed(_) if schema_type.meaning == Meaning::Unscaled => {
            decimal(schema_type.precision, schema_type.scale)?
        }
        AvroForm::Fixed(_) if schema_type.uuid || schema_type.duration => SqlType::Varchar,
        AvroForm::Bytes | AvroForm::Fixed(_) => SqlType::Binary,
        AvroForm::String if schema_type.moment => SqlType::Timestamp,
        AvroForm::String | AvroForm::Enum(_) | AvroForm::Record(_) | AvroForm::Map(_) => SqlType::Varchar,
        AvroForm::Array(items) => SqlType::List(Box::new(avro_type(schema, *items)?)),
        AvroForm::Union(branches) => {
            let mut values = branches
                .iter()
                .filter(|branch| !matches!(schema.type_at(**branch).form, AvroForm::Null));
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

/// The fields of an object in a JSON Schema.
fn of_json(text: &str) -> Result<Vec<SchemaField>, String> {
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
        SchemaField {
            name: name.clone(),
            sql_type,
            optional: nullable || property.get("default").is_some() || !required(name),
        }
    });
    Ok(fields.collect())
}

/// The target of a local `$ref`.
fn resolved<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    // The limit of steps ends a cycle of references.
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

/// The types that a property may have besides null, as (name, schema); and whether it may be null.
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
