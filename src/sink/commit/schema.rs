//! Converts an Arrow schema to Delta's schema string, computes the protocol that a table needs, and evolves an
//! existing table to its definition.
//!
//! Some changes need no rewrite of data: a new nullable column (which comes with the next changed rows, in their
//! commit), a column that becomes nullable, the description, settings, additional features. Any other change is a
//! [`Reshape`]: the table's next snapshot replaces all of its rows together with its schema. Earlier versions stay
//! readable as they were.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use arrow::datatypes::{DataType, Fields, TimeUnit};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use super::action::{Action, DataFormat, MetaData, Protocol};
use super::policy::LakePolicy;
use super::state::takes_vectors;
use crate::sink::TableSpec;

/// A table that Delta cannot hold, or whose log cannot be understood.
#[derive(Debug, Error, PartialEq)]
pub enum SchemaError {
    /// Delta has no equivalent of this type.
    #[error("table {table}: column {column} has the type {found}, which Delta cannot hold; cast it in the SQL")]
    Type {
        /// Which table.
        table: String,
        /// Which column.
        column: String,
        /// Arrow's name of the type.
        found: String,
    },
    /// The log's schema string cannot be read.
    #[error("table {table}: its schema in the log cannot be read ({reason}); restore the log")]
    Unreadable {
        /// Which table.
        table: String,
        /// Why.
        reason: String,
    },
}

/// Why the rows in the lake do not fit a table's definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reshape {
    /// A column has another type.
    Changed {
        /// Which column.
        column: String,
        /// The type in the log.
        stored: String,
        /// The type in the definition.
        wanted: String,
    },
    /// A column is not in the definition any more.
    Gone {
        /// Which column.
        column: String,
    },
    /// A column is new and must not be null.
    Required {
        /// Which column.
        column: String,
    },
    /// The partition columns have changed.
    Partitions {
        /// The partition columns in the log.
        stored: Vec<String>,
        /// The partition columns in the definition.
        wanted: Vec<String>,
    },
}

impl fmt::Display for Reshape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reshape::Changed { column, stored, wanted } => {
                write!(f, "column {column} was {stored} and is {wanted} now")
            }
            Reshape::Gone { column } => write!(f, "column {column} is gone"),
            Reshape::Required { column } => write!(f, "the new column {column} may not be null"),
            Reshape::Partitions { stored, wanted } => {
                let names = |columns: &[String]| match columns {
                    [] => "nothing".to_string(),
                    some => some.join(", "),
                };
                write!(
                    f,
                    "it was partitioned by {} and is by {} now",
                    names(stored),
                    names(wanted)
                )
            }
        }
    }
}

/// The writer feature that keeps other writers out, because none of them knows it. Readers ignore writer features.
pub const GUARD: &str = "alluvium.guard";

/// How an existing table is evolved to its definition.
#[derive(Debug, PartialEq)]
pub enum Evolution {
    /// By committing these actions at once; none if the table already agrees.
    Now(Vec<Action>),
    /// By these actions, in one commit with the next changed rows: the definition has new columns, which the existing
    /// rows lack.
    Grow(Vec<Action>),
    /// By these actions, in one commit that removes all existing rows and adds the rows of the definition.
    Rebuild {
        /// New protocol and metadata.
        actions: Vec<Action>,
        /// Why.
        reason: Reshape,
        /// Whether the existing rows can be shown in the new schema: every column has the same type, or is null.
        showable: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct StructSchema {
    r#type: String,
    fields: Vec<FieldSchema>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct FieldSchema {
    name: String,
    r#type: Value,
    nullable: bool,
    #[serde(default)]
    metadata: BTreeMap<String, Value>,
}

/// The actions of a new table's first log entry, without `commitInfo`.
pub fn creation(spec: &TableSpec, policy: LakePolicy, now: i64) -> Result<Vec<Action>, SchemaError> {
    let meta_data = MetaData {
        id: Uuid::new_v4().to_string(),
        name: Some(spec.name.clone()),
        description: spec.description.clone(),
        format: DataFormat::default(),
        schema_string: to_string(&schema_of(spec)?),
        partition_columns: partition_columns(spec),
        configuration: configuration(spec, policy.retention),
        created_time: Some(now),
    };
    Ok(vec![
        Action::protocol(guarded(protocol_of(spec), policy.guard)),
        Action::meta_data(meta_data),
    ])
}

/// Decides what must be committed so that an existing table takes the definition. `empty`: the table has no live file,
/// so its columns may change at will.
pub fn evolution(
    spec: &TableSpec,
    stored: (&Protocol, &MetaData),
    empty: bool,
    policy: LakePolicy,
) -> Result<Evolution, SchemaError> {
    let (protocol, meta_data) = stored;
    let unreadable = |e: serde_json::Error| SchemaError::Unreadable {
        table: spec.name.clone(),
        reason: e.to_string(),
    };
    let old: StructSchema = serde_json::from_str(&meta_data.schema_string).map_err(unreadable)?;
    let wanted = schema_of(spec)?;
    let mut next = meta_data.clone();
    next.partition_columns = partition_columns(spec);
    let merged = if next.partition_columns == meta_data.partition_columns {
        merge(&old, &wanted)
    } else {
        Err(Reshape::Partitions {
            stored: meta_data.partition_columns.clone(),
            wanted: next.partition_columns.clone(),
        })
    };
    let (merged, reason) = match merged {
        _ if empty => (wanted, None),
        Ok(merged) => (merged, None),
        Err(reason) => (wanted, Some(reason)),
    };
    let grows = merged.fields.len() > old.fields.len();
    if merged != old {
        next.schema_string = to_string(&merged);
    }
    next.description = spec.description.clone();
    next.configuration.extend(configuration(spec, policy.retention));
    if !spec.change_data_feed {
        next.configuration.remove("delta.enableChangeDataFeed");
    }
    let mut actions = Vec::new();
    let raised = guarded(raise(protocol, &protocol_of(spec)), policy.guard);
    if &raised != protocol {
        actions.push(Action::protocol(raised));
    }
    if &next != meta_data {
        actions.push(Action::meta_data(next));
    }
    Ok(match reason {
        Some(reason) => Evolution::Rebuild {
            actions,
            reason,
            showable: has_form(&old, &schema_of(spec)?),
        },
        None if !empty && grows => Evolution::Grow(actions),
        None => Evolution::Now(actions),
    })
}

fn partition_columns(spec: &TableSpec) -> Vec<String> {
    spec.partition_by
        .iter()
        .map(|i| spec.schema.field(*i).name().clone())
        .collect()
}

fn configuration(spec: &TableSpec, retention: Duration) -> BTreeMap<String, String> {
    let interval = format!("interval {} seconds", retention.as_secs().max(1));
    let mut all = BTreeMap::from([
        ("delta.deletedFileRetentionDuration".to_string(), interval.clone()),
        ("delta.logRetentionDuration".to_string(), interval),
    ]);
    if takes_vectors(spec) {
        all.insert("delta.enableDeletionVectors".into(), "true".into());
    }
    if spec.change_data_feed {
        all.insert("delta.enableChangeDataFeed".into(), "true".into());
    }
    all
}

/// The least protocol that the table needs, so that as many readers as possible accept it. A protocol of writer
/// version 7 must list each feature that schema or settings put in force; Spark opens no table whose list is
/// incomplete (protocol, "Table Features").
fn protocol_of(spec: &TableSpec) -> Protocol {
    let mut both = Vec::new();
    if takes_vectors(spec) {
        both.push("deletionVectors".to_string());
    }
    if spec.schema.fields().iter().any(|f| has_plain_timestamp(f.data_type())) {
        both.push("timestampNtz".to_string());
    }
    if both.is_empty() {
        let min_writer_version = if spec.change_data_feed { 4 } else { 2 };
        return Protocol {
            min_reader_version: 1,
            min_writer_version,
            reader_features: None,
            writer_features: None,
        };
    }
    let mut writer = both.clone();
    if spec.change_data_feed {
        writer.push("changeDataFeed".into());
    }
    if has_required(spec.schema.fields()) {
        writer.push("invariants".into());
    }
    Protocol {
        min_reader_version: 3,
        min_writer_version: 7,
        reader_features: Some(both),
        writer_features: Some(writer),
    }
}

/// Adds the guard feature to a protocol, or removes it.
fn guarded(covered: Protocol, guard: bool) -> Protocol {
    let mut writer = features(&covered);
    let guarded = writer.remove(GUARD);
    if guarded == guard {
        return covered;
    }
    if guard {
        writer.insert(GUARD.into());
    }
    Protocol {
        min_writer_version: 7,
        writer_features: Some(writer.into_iter().collect()),
        ..covered
    }
}

/// The least protocol that covers both; `stored` unchanged if it covers `wanted`.
fn raise(stored: &Protocol, wanted: &Protocol) -> Protocol {
    let (have, want) = (features(stored), features(wanted));
    let reads = |p: &Protocol| -> BTreeSet<String> { p.reader_features.iter().flatten().cloned().collect() };
    if have.is_superset(&want) && (wanted.min_reader_version < 3 || reads(stored).is_superset(&reads(wanted))) {
        return stored.clone();
    }
    if stored.min_writer_version < 7 && wanted.min_writer_version < 7 {
        let min_writer_version = stored.min_writer_version.max(wanted.min_writer_version);
        return Protocol {
            min_writer_version,
            ..stored.clone()
        };
    }
    let mut read: BTreeSet<String> = reads(stored).union(&reads(wanted)).cloned().collect();
    let plain = read.is_empty() && stored.min_reader_version < 3;
    if stored.min_reader_version == 2 {
        read.insert("columnMapping".into()); // Reader version 2 stands for this feature.
    }
    Protocol {
        min_reader_version: if plain { stored.min_reader_version } else { 3 },
        min_writer_version: 7,
        reader_features: (!plain).then(|| read.into_iter().collect()),
        writer_features: Some(have.union(&want).cloned().collect()),
    }
}

/// A protocol's writer features by name, those of numbered versions included (protocol, "Valid Feature Names").
fn features(protocol: &Protocol) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = protocol.writer_features.iter().flatten().cloned().collect();
    if protocol.min_writer_version < 7 {
        let numbered: [(i32, &[&str]); 5] = [
            (2, &["appendOnly", "invariants"]),
            (3, &["checkConstraints"]),
            (4, &["changeDataFeed", "generatedColumns"]),
            (5, &["columnMapping"]),
            (6, &["identityColumns"]),
        ];
        for (version, names) in numbered {
            if protocol.min_writer_version >= version {
                all.extend(names.iter().map(|n| n.to_string()));
            }
        }
    }
    all
}

/// Whether a column, or a nested field, must not be null: Delta counts that as an invariant.
fn has_required(fields: &Fields) -> bool {
    fields.iter().any(|field| {
        let within = match field.data_type() {
            DataType::Struct(fields) => has_required(fields),
            DataType::List(item) | DataType::LargeList(item) => match item.data_type() {
                DataType::Struct(fields) => has_required(fields),
                _ => false,
            },
            _ => false,
        };
        !field.is_nullable() || within
    })
}

fn has_plain_timestamp(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(_, None) => true,
        DataType::List(field) | DataType::LargeList(field) | DataType::Map(field, _) => {
            has_plain_timestamp(field.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|f| has_plain_timestamp(f.data_type())),
        _ => false,
    }
}

fn schema_of(spec: &TableSpec) -> Result<StructSchema, SchemaError> {
    let fields = spec.schema.fields().iter().map(|field| {
        let of_type = delta_type(field.data_type()).map_err(|found| SchemaError::Type {
            table: spec.name.clone(),
            column: field.name().clone(),
            found,
        })?;
        Ok(field_schema(field.name(), of_type, field.is_nullable()))
    });
    Ok(StructSchema {
        r#type: "struct".into(),
        fields: fields.collect::<Result<_, _>>()?,
    })
}

fn field_schema(name: &str, of_type: Value, nullable: bool) -> FieldSchema {
    FieldSchema {
        name: name.to_string(),
        r#type: of_type,
        nullable,
        metadata: BTreeMap::new(),
    }
}

/// The type in Delta's schema string (protocol, "Schema Serialization Format"). The error is the Arrow type's name.
fn delta_type(data_type: &DataType) -> Result<Value, String> {
    Ok(match data_type {
        DataType::Boolean => json!("boolean"),
        DataType::Int8 => json!("byte"),
        DataType::Int16 => json!("short"),
        DataType::Int32 => json!("integer"),
        DataType::Int64 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Decimal128(precision, scale) if *scale >= 0 => json!(format!("decimal({precision},{scale})")),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => json!("string"),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => json!("binary"),
        DataType::Date32 => json!("date"),
        DataType::Timestamp(TimeUnit::Microsecond, None) => json!("timestamp_ntz"),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => json!("timestamp"),
        DataType::List(item) | DataType::LargeList(item) => json!({
            "type": "array", "elementType": delta_type(item.data_type())?, "containsNull": item.is_nullable(),
        }),
        DataType::Struct(fields) => {
            let fields = fields
                .iter()
                .map(|f| Ok(field_schema(f.name(), delta_type(f.data_type())?, f.is_nullable())));
            json!({ "type": "struct", "fields": fields.collect::<Result<Vec<_>, String>>()? })
        }
        other => return Err(other.to_string()),
    })
}

fn merge(old: &StructSchema, wanted: &StructSchema) -> Result<StructSchema, Reshape> {
    let mut merged = old.clone();
    for field in &mut merged.fields {
        let Some(now) = wanted.fields.iter().find(|f| f.name == field.name) else {
            return Err(Reshape::Gone {
                column: field.name.clone(),
            });
        };
        if now.r#type != field.r#type {
            return Err(Reshape::Changed {
                column: field.name.clone(),
                stored: type_name(&field.r#type),
                wanted: type_name(&now.r#type),
            });
        }
        field.nullable |= now.nullable;
    }
    for field in &wanted.fields {
        if !old.fields.iter().any(|f| f.name == field.name) {
            if !field.nullable {
                return Err(Reshape::Required {
                    column: field.name.clone(),
                });
            }
            merged.fields.push(field.clone());
        }
    }
    Ok(merged)
}

/// Whether rows of schema `old` can be shown in schema `wanted`.
fn has_form(old: &StructSchema, wanted: &StructSchema) -> bool {
    wanted.fields.iter().all(|field| {
        let before = old.fields.iter().find(|f| f.name == field.name);
        before.map_or(field.nullable, |before| {
            before.r#type == field.r#type && (field.nullable || !before.nullable)
        })
    })
}

fn type_name(of_type: &Value) -> String {
    match of_type {
        Value::String(name) => name.clone(),
        other => other.to_string(),
    }
}

fn to_string(schema: &StructSchema) -> String {
    serde_json::to_string(schema).expect("a schema is plain data")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, Schema};

    use super::*;
    use crate::definition::Deletes;

    fn keep() -> LakePolicy {
        LakePolicy {
            retention: Duration::from_secs(3600),
            ..LakePolicy::default()
        }
    }

    fn spec(fields: Vec<Field>) -> TableSpec {
        TableSpec {
            name: "silver.x".into(),
            path: "silver/x".into(),
            schema: Arc::new(Schema::new(fields)),
            partition_by: vec![],
            append_only: false,
            summation: None,
            deletes: Deletes::Auto,
            change_data_feed: false,
            description: None,
        }
    }

    fn stored(spec: &TableSpec) -> (Protocol, MetaData) {
        let actions = creation(spec, keep(), 0).unwrap();
        (
            actions[0].protocol.clone().unwrap(),
            actions[1].meta_data.clone().unwrap(),
        )
    }

    fn id() -> Field {
        Field::new("id", DataType::Int64, false)
    }

    fn evolve(spec: &TableSpec, (protocol, meta_data): &(Protocol, MetaData), empty: bool) -> Evolution {
        evolution(spec, (protocol, meta_data), empty, keep()).unwrap()
    }

    fn now(evolution: Evolution) -> Vec<Action> {
        match evolution {
            Evolution::Now(actions) => actions,
            other => panic!("{other:?}"),
        }
    }

    fn grown(evolution: Evolution) -> Vec<Action> {
        match evolution {
            Evolution::Grow(actions) => actions,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_same_definition_needs_no_commit() {
        let spec = spec(vec![
            id(),
            Field::new("tags", DataType::new_list(DataType::Utf8, true), true),
        ]);
        assert_eq!(now(evolve(&spec, &stored(&spec), false)), vec![]);
    }

    #[test]
    fn a_nullable_column_comes_with_rows_and_what_rows_do_not_fit_rebuilds_the_table() {
        let current = stored(&spec(vec![id()]));
        let more = spec(vec![Field::new("note", DataType::Utf8, true), id()]);
        let actions = grown(evolve(&more, &current, false));
        assert_eq!(
            now(evolve(&more, &current, true)).len(),
            1,
            "at once where there are no rows"
        );
        let schema = &actions[0].meta_data.as_ref().unwrap().schema_string;
        assert!(schema.find("\"id\"") < schema.find("\"note\""), "{schema}");

        let required = spec(vec![id(), Field::new("note", DataType::Utf8, false)]);
        let text = spec(vec![Field::new("id", DataType::Utf8, false)]);
        let other = spec(vec![Field::new("name", DataType::Utf8, true)]);
        let mut parted = spec(vec![id()]);
        parted.partition_by = vec![0];
        for (spec, words, shown) in [
            (required, "the new column note may not be null", false),
            (text, "column id was long and is string now", false),
            (other, "column id is gone", true),
            (parted, "it was partitioned by nothing and is by id now", true),
        ] {
            let Evolution::Rebuild {
                actions,
                reason,
                showable,
            } = evolve(&spec, &current, false)
            else {
                panic!("{words}")
            };
            assert_eq!((reason.to_string().as_str(), showable), (words, shown));
            let meta_data = actions[0].meta_data.as_ref().unwrap();
            assert_eq!(
                meta_data.schema_string,
                to_string(&schema_of(&spec).unwrap()),
                "{words}"
            );
            assert_eq!(meta_data.partition_columns, partition_columns(&spec));
            assert_eq!(meta_data.id, current.1.id, "it stays the same table");
            // The same change of a table without rows is committed at once.
            assert_eq!(now(evolve(&spec, &current, true)), actions, "{words}");
        }
    }

    #[test]
    fn features_are_only_those_in_use_and_only_grow() {
        let mut plain = spec(vec![id()]);
        plain.deletes = Deletes::Rewrite;
        let current = stored(&plain);
        let protocol = &current.0;
        assert_eq!((protocol.min_reader_version, protocol.min_writer_version), (1, 2));
        let timed = spec(vec![
            id(),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        ]);
        let actions = grown(evolve(&timed, &current, false));
        let raised = actions[0].protocol.clone().unwrap();
        assert_eq!(
            raised.reader_features.as_deref(),
            Some(&["deletionVectors".into(), "timestampNtz".into()][..])
        );
        let writer = raised.writer_features.clone().unwrap();
        for name in ["appendOnly", "invariants", "deletionVectors", "timestampNtz"] {
            assert!(writer.iter().any(|w| w == name), "{name} is missing in {writer:?}");
        }
        assert_eq!(raise(&raised, protocol), raised);
    }

    /// Spark could not open a table with a column that must not be null: `invariants` was in force but not listed.
    #[test]
    fn a_protocol_of_named_features_lists_all_that_are_in_force() {
        let writer = |fields: Vec<Field>| {
            let protocol = protocol_of(&spec(fields));
            protocol.writer_features.expect("deletion vectors are a named feature")
        };
        let note = Field::new("note", DataType::Utf8, true);
        assert_eq!(writer(vec![note.clone()]), ["deletionVectors"]);
        assert_eq!(writer(vec![note.clone(), id()]), ["deletionVectors", "invariants"]);
        let nested = DataType::new_list(DataType::Struct(vec![id()].into()), true);
        assert_eq!(
            writer(vec![Field::new("ids", nested, true)]),
            ["deletionVectors", "invariants"]
        );
        // A table with an incomplete list is completed by one action, and then left alone.
        let spec = spec(vec![id()]);
        let (mut protocol, meta_data) = stored(&spec);
        let whole = protocol.clone();
        protocol.writer_features = Some(vec!["deletionVectors".into()]);
        let actions = now(evolve(&spec, &(protocol, meta_data.clone()), false));
        assert_eq!(actions, vec![Action::protocol(whole.clone())]);
        assert_eq!(now(evolve(&spec, &(whole, meta_data), false)), vec![]);
    }

    /// Another engine had raised a table to column mapping by version number; a protocol with named features must not
    /// lose that.
    #[test]
    fn features_of_numbered_versions_are_named_when_a_protocol_is_raised() {
        let numbered = Protocol {
            min_reader_version: 2,
            min_writer_version: 6,
            reader_features: None,
            writer_features: None,
        };
        let raised = raise(&numbered, &protocol_of(&spec(vec![id()])));
        let read = raised.reader_features.expect("vectors are a feature of readers");
        assert_eq!(read, ["columnMapping", "deletionVectors"]);
        let writer = raised.writer_features.expect("features are named");
        for name in [
            "columnMapping",
            "identityColumns",
            "generatedColumns",
            "checkConstraints",
            "invariants",
        ] {
            assert!(writer.iter().any(|w| w == name), "{name} is missing in {writer:?}");
        }
    }
}
