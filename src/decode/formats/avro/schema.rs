//! An Avro schema: a list of types that refer to each other by index, so that a type may contain itself.

use hashbrown::HashMap;
use serde_json::Value;

use crate::decode::cell::Meaning;
use crate::decode::envelopes::debezium::meaning;
use crate::registry;

/// A schema.
#[derive(Debug)]
pub(in crate::decode) struct AvroSchema {
    types: Vec<AvroType>,
    /// The index of the type of a record.
    pub root: usize,
}

/// A type, with the meaning of its values.
#[derive(Debug)]
pub(in crate::decode) struct AvroType {
    pub form: AvroForm,
    pub meaning: Meaning,
    /// For [`Meaning::Unscaled`].
    pub scale: i16,
    /// For [`Meaning::Unscaled`], the most digits of a value, if stated.
    pub precision: Option<u8>,
    /// Whether it is Debezium's ZonedTimestamp: text with a point in time.
    pub moment: bool,
    /// Whether it is Debezium's VariableScaleDecimal: a record of a scale and an unscaled number.
    pub variable: bool,
    /// Whether it is a `fixed` that contains a UUID.
    pub uuid: bool,
    /// Whether it is a duration: months, days and milliseconds in twelve bytes.
    pub duration: bool,
}

/// The encoding of a type.
#[derive(Debug)]
pub(in crate::decode) enum AvroForm {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Vec<Box<str>>),
    Record(Vec<AvroField>),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
}

/// A field of a record.
#[derive(Debug)]
pub(in crate::decode) struct AvroField {
    pub name: Box<str>,
    pub aliases: Vec<Box<str>>,
    pub schema: usize,
    pub default: Option<Value>,
}

impl AvroSchema {
    /// Parses a registered schema.
    ///
    /// # Errors
    /// Why it is invalid.
    pub fn parse(registered: &registry::RegisteredSchema) -> Result<AvroSchema, String> {
        let mut reader = Reader::default();
        for reference in &registered.references {
            reader
                .text(&reference.text)
                .map_err(|error| format!("in {}: {error}", reference.name))?;
        }
        let root = reader.text(&registered.text)?;
        Ok(AvroSchema {
            types: reader.types,
            root,
        })
    }

    /// Parses the schema of a file.
    ///
    /// # Errors
    /// Why it is invalid.
    pub fn of_text(text: &str) -> Result<AvroSchema, String> {
        let mut reader = Reader::default();
        let root = reader.text(text)?;
        Ok(AvroSchema {
            types: reader.types,
            root,
        })
    }

    /// The type with an index.
    pub fn type_at(&self, index: usize) -> &AvroType {
        &self.types[index]
    }

    /// The record that a type is, or that its union contains besides null.
    pub fn record(&self, index: usize) -> Option<&[AvroField]> {
        match &self.types[index].form {
            AvroForm::Record(fields) => Some(fields),
            AvroForm::Union(branches) => branches.iter().find_map(|branch| match &self.types[*branch].form {
                AvroForm::Record(fields) => Some(fields.as_slice()),
                _ => None,
            }),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Reader {
    types: Vec<AvroType>,
    names: HashMap<String, usize>,
}

impl Reader {
    fn text(&mut self, text: &str) -> Result<usize, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
        self.any(&value, "")
    }

    fn push(&mut self, form: AvroForm) -> usize {
        self.types.push(AvroType {
            form,
            meaning: Meaning::Plain,
            scale: 0,
            precision: None,
            moment: false,
            variable: false,
            uuid: false,
            duration: false,
        });
        self.types.len() - 1
    }

    fn any(&mut self, value: &Value, namespace: &str) -> Result<usize, String> {
        match value {
            Value::String(name) => self.named(name, namespace),
            Value::Array(branches) => {
                let branches = branches.iter().map(|branch| self.any(branch, namespace));
                let branches = branches.collect::<Result<Vec<_>, _>>()?;
                Ok(self.push(AvroForm::Union(branches)))
            }
            Value::Object(object) => match object.get("type") {
                Some(Value::String(name)) => {
                    let index = self.declared(name, value, namespace)?;
                    self.mean(index, value);
                    Ok(index)
                }
                Some(inner) => self.any(inner, namespace),
                None => Err("a type has no \"type\"".to_string()),
            },
            other => Err(format!("{other} is no type")),
        }
    }

    /// Parses a type that is given by its name alone.
    fn named(&mut self, name: &str, namespace: &str) -> Result<usize, String> {
        let form = match name {
            "null" => AvroForm::Null,
            "boolean" => AvroForm::Boolean,
            "int" => AvroForm::Int,
            "long" => AvroForm::Long,
            "float" => AvroForm::Float,
            "double" => AvroForm::Double,
            "bytes" => AvroForm::Bytes,
            "string" => AvroForm::String,
            name => {
                let definition = self.names.get(&full(name, namespace)).or_else(|| self.names.get(name));
                return definition
                    .copied()
                    .ok_or_else(|| format!("it refers to the type {name:?}, which it does not define"));
            }
        };
        Ok(self.push(form))
    }

    /// Parses a type with attributes.
    fn declared(&mut self, name: &str, value: &Value, namespace: &str) -> Result<usize, String> {
        let text = |attribute: &str| value[attribute].as_str();
        match name {
            "array" | "map" => {
                let inner = if name == "array" { "items" } else { "values" };
                let inner = self.any(&value[inner], namespace)?;
                Ok(self.push(if name == "array" {
                    AvroForm::Array(inner)
                } else {
                    AvroForm::Map(inner)
                }))
            }
            "fixed" | "enum" | "record" | "error" => {
                let written = text("name").ok_or_else(|| format!("a type {name:?} has no name"))?;
                let namespace = match written.rsplit_once('.') {
                    Some((namespace, _)) => namespace,
                    None => text("namespace").unwrap_or(namespace),
                };
                let own = full(written, namespace);
                // The index is reserved first, because the type's fields may refer to it.
                let index = self.push(AvroForm::Null);
                for alias in texts(&value["aliases"]) {
                    self.names.insert(full(&alias, namespace), index);
                }
                self.names.insert(own, index);
                self.types[index].form = match name {
                    "fixed" => {
                        let size = value["size"].as_u64().and_then(|size| usize::try_from(size).ok());
                        AvroForm::Fixed(size.ok_or_else(|| format!("the fixed type {written:?} has no size"))?)
                    }
                    "enum" => AvroForm::Enum(texts(&value["symbols"])),
                    _ => AvroForm::Record(self.fields(value, namespace)?),
                };
                Ok(index)
            }
            name => self.named(name, namespace),
        }
    }

    fn fields(&mut self, record: &Value, namespace: &str) -> Result<Vec<AvroField>, String> {
        let fields = record["fields"].as_array().ok_or("a record has no fields")?;
        let field = |field: &Value| {
            Ok(AvroField {
                name: field["name"].as_str().ok_or("a field has no name")?.into(),
                aliases: texts(&field["aliases"]),
                schema: self.any(&field["type"], namespace)?,
                default: field.get("default").cloned(),
            })
        };
        fields.iter().map(field).collect()
    }

    /// Sets the meaning by a type's attributes: Connect's names have precedence, because Debezium's types have no
    /// logical type. An attribute that does not fit its type is ignored.
    fn mean(&mut self, index: usize, attributes: &Value) {
        let connect = attributes["connect.name"].as_str().unwrap_or_default();
        let logical = attributes["logicalType"].as_str().unwrap_or_default();
        let mut meaning = meaning::of_name(connect);
        if meaning == Meaning::Plain {
            meaning = match logical {
                "date" => Meaning::Days,
                "timestamp-millis" | "local-timestamp-millis" => Meaning::Millis,
                "timestamp-micros" | "local-timestamp-micros" => Meaning::Micros,
                "timestamp-nanos" | "local-timestamp-nanos" => Meaning::Nanos,
                "time-millis" | "time-micros" => Meaning::NoPoint,
                "decimal" => Meaning::Unscaled,
                _ => Meaning::Plain,
            };
        }
        let number = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
        let scale = number(&attributes["scale"]).or_else(|| number(&attributes["connect.parameters"]["scale"]));
        let scale = match (meaning, logical) {
            (Meaning::NoPoint, "time-millis") => Ok(3),
            (Meaning::NoPoint, "time-micros") => Ok(6),
            _ => i16::try_from(scale.unwrap_or(0)),
        };
        let precision = number(&attributes["precision"])
            .or_else(|| number(&attributes["connect.parameters"]["connect.decimal.precision"]));
        let found = &mut self.types[index];
        let fits = match (&found.form, meaning) {
            (AvroForm::Int | AvroForm::Long, Meaning::Unscaled) => false,
            (AvroForm::Int | AvroForm::Long, _) => true,
            (AvroForm::Bytes | AvroForm::Fixed(_), Meaning::Unscaled) => scale.is_ok(),
            _ => false,
        };
        if fits {
            found.meaning = meaning;
            found.scale = scale.unwrap_or(0);
            found.precision = precision.and_then(|precision| u8::try_from(precision).ok());
        }
        found.moment |= connect == "io.debezium.time.ZonedTimestamp" && matches!(found.form, AvroForm::String);
        found.duration |= logical == "duration" && matches!(found.form, AvroForm::Fixed(12));
        if logical == "uuid" && matches!(found.form, AvroForm::Fixed(16)) {
            found.uuid = true;
            found.meaning = Meaning::Uuid;
        }
        found.variable |=
            connect == "io.debezium.data.VariableScaleDecimal" && matches!(found.form, AvroForm::Record(_));
    }
}

fn full(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.to_string()
    } else {
        format!("{namespace}.{name}")
    }
}

fn texts(value: &Value) -> Vec<Box<str>> {
    let texts = value.as_array().into_iter().flatten();
    texts.filter_map(|text| text.as_str().map(Into::into)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, references: &[&str]) -> Result<AvroSchema, String> {
        let references = references.iter().map(|text| registry::SchemaReference {
            name: "other".to_string(),
            text: text.to_string(),
        });
        AvroSchema::parse(&registry::RegisteredSchema {
            id: 1,
            language: registry::Language::Avro,
            text: text.to_string(),
            references: references.collect(),
            versions: vec![],
        })
    }

    #[test]
    fn names_are_found_by_namespace_reference_and_within_themselves() {
        let text = r#"{"type":"record","name":"a.Node","fields":[
            {"name":"next","type":["null","Node"]},{"name":"kind","type":"b.Kind"},
            {"name":"again","type":{"type":"enum","name":"Mine","symbols":["X"]}},{"name":"more","type":"a.Mine"}]}"#;
        let kind = r#"{"type":"enum","namespace":"b","name":"Kind","symbols":["A","B"]}"#;
        let schema = parse(text, &[kind]).unwrap();
        let fields = schema.record(schema.root).unwrap();
        assert!(schema.record(fields[0].schema).is_some_and(|fields| fields.len() == 4));
        assert!(matches!(&schema.type_at(fields[1].schema).form, AvroForm::Enum(symbols) if symbols.len() == 2));
        assert_eq!(fields[2].schema, fields[3].schema);
        assert!(
            parse(text, &[])
                .unwrap_err()
                .contains("\"b.Kind\", which it does not define")
        );
    }

    #[test]
    fn what_connect_and_logical_types_say_is_kept_where_it_fits() {
        let of = |text: &str| {
            let schema = parse(text, &[]).unwrap();
            let found = schema.type_at(schema.root);
            (found.meaning, found.scale)
        };
        for (text, expected) in [
            (
                r#"{"type":"long","connect.name":"io.debezium.time.MicroTimestamp"}"#,
                (Meaning::Micros, 0),
            ),
            (
                r#"{"type":"int","connect.name":"org.apache.kafka.connect.data.Date","logicalType":"date"}"#,
                (Meaning::Days, 0),
            ),
            (
                r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":4}"#,
                (Meaning::Unscaled, 4),
            ),
            (
                r#"{"type":"bytes","connect.name":"org.apache.kafka.connect.data.Decimal","connect.parameters":{"scale":"3"}}"#,
                (Meaning::Unscaled, 3),
            ),
            (
                r#"{"type":"string","connect.name":"io.debezium.time.ZonedTimestamp"}"#,
                (Meaning::Plain, 0),
            ),
            (
                r#"{"type":"string","logicalType":"decimal","scale":4}"#,
                (Meaning::Plain, 0),
            ),
            (r#""long""#, (Meaning::Plain, 0)),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }
}
