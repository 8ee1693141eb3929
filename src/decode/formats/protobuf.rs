//! Protobuf behind a schema id. Behind the id follows the position of the message in its .proto file: the depth of
//! its nesting, and its index on each level (all zigzag; a single 0 stands for the first message).
//!
//! protox compiles .proto text, and prost-reflect decodes records. A field with presence (`optional`, a message, or
//! in a `oneof`) is null if it is not set; any other unset field has its type's default, as always in Protobuf. Of
//! the well-known types, Timestamp and `google.type.Date` become ISO 8601, wrappers their value, and Confluent's
//! Decimal a number; enums become their names, bytes base64, and nested or repeated values JSON.

use std::fmt::Write;

use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, FileDescriptor, MapKey, MessageDescriptor,
    ReflectMessage, Value,
};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use smallvec::SmallVec;

use crate::decode::cell::{Cell, CellKind, Datum};
use crate::decode::formats::avro::{write_base64, write_decimal, write_float, write_text};
use crate::decode::formats::built_in;
use crate::decode::names::{FieldTree, RecordCells};
use crate::decode::schemas::decode_plan::DecodePlan;
use crate::decode::schemas::schema_field::SchemaField;
use crate::registry;
use crate::repr::SqlType;

/// The name of the schema's own file during compilation; no user's file has it.
const ITSELF: &str = "alluvium/schema.proto";

/// The messages of one schema.
#[derive(Debug)]
pub(in crate::decode) struct ProtobufPlan {
    file: FileDescriptor,
}

impl DecodePlan for ProtobufPlan {
    fn new(
        schema: &registry::RegisteredSchema,
        _: &FieldTree,
        _: Option<&registry::RegisteredSchema>,
    ) -> Result<Self, String> {
        compiled(schema).map(|file| ProtobufPlan { file })
    }

    fn fill<'a>(
        &self,
        bytes: &'a [u8],
        names: &mut FieldTree,
        slots: &mut RecordCells<'a>,
        derived: &mut String,
    ) -> Result<(), String> {
        let (message, bytes) = self.message(bytes)?;
        let decoded = DynamicMessage::decode(message, bytes)
            .map_err(|error| format!("the record is not what its schema says: {error}; correct its producer"))?;
        fill(&decoded, names, 0, slots, derived);
        Ok(())
    }
}

fn compiled(schema: &registry::RegisteredSchema) -> Result<FileDescriptor, String> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(SchemaFiles(schema.clone()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true);
    compiler.open_file(ITSELF).map_err(|error| format!("{error}"))?;
    let pool: DescriptorPool = compiler.descriptor_pool();
    pool.get_file_by_name(ITSELF).ok_or("it holds no file".to_string())
}

/// The fields of a schema's first message, which is the type of records unless they name another.
///
/// # Errors
/// Why the schema cannot be compiled.
pub(in crate::decode) fn fields(schema: &registry::RegisteredSchema) -> Result<Vec<SchemaField>, String> {
    let file = compiled(schema)?;
    let message = file.messages().next().ok_or("it holds no message")?;
    let fields = message.fields().map(|field| SchemaField {
        name: field.name().to_string(),
        sql_type: Ok(match (field.is_map(), field.is_list()) {
            (true, _) => SqlType::Varchar,
            (false, true) => SqlType::List(Box::new(sql_type(&field.kind()))),
            (false, false) => sql_type(&field.kind()),
        }),
        optional: field.cardinality() != Cardinality::Required,
    });
    Ok(fields.collect())
}

fn sql_type(kind: &prost_reflect::Kind) -> SqlType {
    use prost_reflect::Kind as K;
    match kind {
        K::Bool => SqlType::Boolean,
        K::Int32 | K::Sint32 | K::Sfixed32 => SqlType::Int,
        K::Uint32 | K::Fixed32 | K::Int64 | K::Sint64 | K::Sfixed64 => SqlType::BigInt,
        K::Uint64 | K::Fixed64 => SqlType::Decimal(20, 0),
        K::Float | K::Double => SqlType::Double,
        K::Bytes => SqlType::Binary,
        K::String | K::Enum(_) => SqlType::Varchar,
        K::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" => SqlType::Timestamp,
            "google.type.Date" => SqlType::Date,
            // A wrapper stands for its value.
            _ => wrapped(message).map_or(SqlType::Varchar, |value| sql_type(&value.kind())),
        },
    }
}

/// The schema and its references, by file name.
struct SchemaFiles(registry::RegisteredSchema);

impl FileResolver for SchemaFiles {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let referred = || self.0.references.iter().find(|reference| reference.name == name);
        let built_in = || built_in::FILES.iter().find(|(built_in, _)| *built_in == name);
        let text: &str = if name == ITSELF {
            &self.0.text
        } else if let Some(reference) = referred() {
            &reference.text
        } else if let Some((_, text)) = built_in() {
            text
        } else {
            return Err(protox::Error::file_not_found(name));
        };
        File::from_source(name, text)
    }
}

impl ProtobufPlan {
    /// The type of a record's message, and its bytes.
    fn message<'a>(&self, bytes: &'a [u8]) -> Result<(MessageDescriptor, &'a [u8]), String> {
        let wrong = || "the record does not say which message of its schema it is; correct its producer".to_string();
        let mut rest = bytes;
        let depth = zigzag(&mut rest).ok_or_else(wrong)?;
        if depth == 0 {
            return Ok((self.file.messages().next().ok_or_else(wrong)?, rest));
        }
        let index = usize::try_from(zigzag(&mut rest).ok_or_else(wrong)?).map_err(|_| wrong())?;
        let mut message = self.file.messages().nth(index).ok_or_else(wrong)?;
        for _ in 1..depth {
            let index = usize::try_from(zigzag(&mut rest).ok_or_else(wrong)?).map_err(|_| wrong())?;
            let inner = message.child_messages().nth(index).ok_or_else(wrong)?;
            message = inner;
        }
        Ok((message, rest))
    }
}

/// Reads a 32-bit zigzag number, and advances behind it.
fn zigzag(rest: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for n in 0..5 {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << (7 * n);
        if *byte < 0x80 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

fn fill<'a>(
    message: &DynamicMessage,
    names: &mut FieldTree,
    node: usize,
    slots: &mut RecordCells<'a>,
    derived: &mut String,
) {
    for field in message.descriptor().fields() {
        let is_set = message.has_field(&field);
        let Some((takes, child)) = names.wanted(node, field.name()) else {
            if is_set {
                names.ignore(node, field.name());
            }
            continue;
        };
        let takes: SmallVec<[(u32, u32); 1]> = takes.into();
        if !is_set && field.supports_presence() {
            continue;
        }
        let value = message.get_field(&field);
        if !takes.is_empty() {
            let cell = cell(&value, &field.kind(), derived);
            takes.iter().for_each(|(column, rank)| slots.fill(*column, *rank, cell));
        }
        if let (Some(child), Value::Message(inner)) = (child, &*value) {
            fill(inner, names, child, slots, derived);
        }
    }
}

/// The only field of a well-known wrapper.
fn wrapped(message: &MessageDescriptor) -> Option<FieldDescriptor> {
    let name = message.full_name();
    let is_wrapper = name.starts_with("google.protobuf.") && name.ends_with("Value") && message.fields().len() == 1;
    is_wrapper.then(|| message.fields().next()).flatten()
}

/// Converts a value to a cell, with its text in `derived`.
fn cell<'a>(value: &Value, kind: &prost_reflect::Kind, derived: &mut String) -> Cell<'a> {
    if let Value::Message(message) = value
        && let Some(field) = wrapped(&message.descriptor())
    {
        return cell(&message.get_field(&field), &field.kind(), derived);
    }
    let start = derived.len();
    let number = |n: i64| Cell::with_datum(CellKind::Number, Datum::Int(n));
    let kind = match value {
        Value::Bool(true) => return Cell::new(CellKind::True, "true"),
        Value::Bool(false) => return Cell::new(CellKind::False, "false"),
        Value::I32(n) => return number(i64::from(*n)),
        Value::I64(n) => return number(*n),
        Value::U32(n) => return number(i64::from(*n)),
        Value::U64(n) if i64::try_from(*n).is_ok() => return number(*n as i64),
        Value::F32(x) => return Cell::with_datum(CellKind::Number, Datum::Float(*x)),
        Value::F64(x) => return Cell::with_datum(CellKind::Number, Datum::Double(*x)),
        Value::String(text) => {
            derived.push_str(text);
            CellKind::Text
        }
        other => {
            render(other, kind, derived);
            let quoted = derived[start..].len() >= 2 && derived[start..].starts_with('"');
            if quoted {
                // These are enums, bytes, dates and points in time, none of which contains an escape.
                return Cell::with_datum(CellKind::Text, Datum::Derived(start + 1, derived.len() - 1));
            }
            match &derived[start..] {
                "null" => return Cell::NULL,
                "true" => CellKind::True,
                "false" => CellKind::False,
                text if text.starts_with(['{', '[']) => CellKind::Nested,
                _ => CellKind::Number,
            }
        }
    };
    Cell::with_datum(kind, Datum::Derived(start, derived.len()))
}

/// Writes a value as JSON.
fn render(value: &Value, kind: &prost_reflect::Kind, out: &mut String) {
    let written = match value {
        Value::Bool(value) => write!(out, "{value}"),
        Value::I32(n) => write!(out, "{n}"),
        Value::I64(n) => write!(out, "{n}"),
        Value::U32(n) => write!(out, "{n}"),
        Value::U64(n) => write!(out, "{n}"),
        Value::F32(x) => {
            write_float(out, *x);
            Ok(())
        }
        Value::F64(x) => {
            write_float(out, *x);
            Ok(())
        }
        Value::String(text) => {
            write_text(out, text);
            Ok(())
        }
        Value::Bytes(bytes) => {
            write_base64(out, bytes);
            Ok(())
        }
        Value::EnumNumber(n) => match kind.as_enum().and_then(|of| of.get_value(*n)) {
            Some(symbol) => write!(out, "\"{}\"", symbol.name()),
            None => write!(out, "{n}"),
        },
        Value::Message(message) => {
            render_message(message, out);
            Ok(())
        }
        Value::List(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                render(item, kind, out);
            }
            out.push(']');
            Ok(())
        }
        Value::Map(entries) => {
            let of_values = kind.as_message().map(|entry| entry.map_entry_value_field().kind());
            // Entries are sorted, because the order of a hash map is arbitrary.
            let mut entries: Vec<(String, &Value)> =
                entries.iter().map(|(key, value)| (key_text(key), value)).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            out.push('{');
            for (n, (key, value)) in entries.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_text(out, &key);
                out.push(':');
                render(value, of_values.as_ref().unwrap_or(kind), out);
            }
            out.push('}');
            Ok(())
        }
    };
    written.expect("writing to memory does not fail");
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(value) => value.to_string(),
        MapKey::I32(n) => n.to_string(),
        MapKey::I64(n) => n.to_string(),
        MapKey::U32(n) => n.to_string(),
        MapKey::U64(n) => n.to_string(),
        MapKey::String(text) => text.clone(),
    }
}

fn render_message(message: &DynamicMessage, out: &mut String) {
    let descriptor = message.descriptor();
    let integer = |name: &str| {
        let value = message.get_field_by_name(name);
        let value = value.and_then(|value| value.as_i64().or_else(|| value.as_i32().map(i64::from)));
        value.unwrap_or(0)
    };
    let written = match descriptor.full_name() {
        "google.protobuf.Timestamp" => {
            let moment = u32::try_from(integer("nanos")).ok();
            let moment = moment.and_then(|nanos| chrono::DateTime::from_timestamp(integer("seconds"), nanos));
            moment.map(|moment| format!("\"{}\"", moment.format("%Y-%m-%dT%H:%M:%S%.9fZ")))
        }
        "google.type.Date" => {
            let (year, month, day) = (integer("year"), integer("month"), integer("day"));
            Some(format!("\"{year:04}-{month:02}-{day:02}\""))
        }
        "confluent.type.Decimal" => {
            let scale = i16::try_from(integer("scale")).ok();
            let value = message.get_field_by_name("value");
            let bytes = value.as_ref().and_then(|value| value.as_bytes());
            bytes.zip(scale).map(|(bytes, scale)| {
                let mut text = String::new();
                write_decimal(&mut text, bytes, scale);
                text
            })
        }
        _ => wrapped(&descriptor).map(|field| {
            let mut text = String::new();
            render(&message.get_field(&field), &field.kind(), &mut text);
            text
        }),
    };
    if let Some(text) = written {
        out.push_str(&text);
        return;
    }
    let mut open = '{';
    for field in descriptor.fields() {
        if !message.has_field(&field) && field.supports_presence() {
            continue;
        }
        out.push(open);
        write_text(out, field.name());
        out.push(':');
        render(&message.get_field(&field), &field.kind(), out);
        open = ',';
    }
    out.push_str(if open == '{' { "{}" } else { "}" });
}
