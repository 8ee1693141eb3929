//! Compares an input's columns with a registered schema before any record arrives, for the command `check`.

use crate::decode::cell::Meaning;
use crate::decode::error::DecodeError;
use crate::decode::formats::avro::{AvroForm, AvroPlan, AvroSchema, AvroType};
use crate::decode::names::FieldTree;
use crate::decode::schemas::decode_plan::DecodePlan as _;
use crate::decode::target::Target;
use crate::definition::{Column, Feed, Format, Input};
use crate::registry;
use crate::repr::SqlType;

/// A column that records of a schema do not fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
    /// Whether records would be refused because of it; otherwise the column is null.
    pub refuses: bool,
}

/// The columns of an input that records of this schema, delivered by a feed, do not fill. Formats without a schema
/// that can be examined always fit.
pub fn against(input: &Input, feed: &Feed, schema: &registry::RegisteredSchema) -> Vec<Misfit> {
    judged(input, feed, schema).unwrap_or_else(|reason| {
        vec![Misfit {
            message: format!("{schema} cannot be read: {reason}"),
            help: "register another version, or set the feed's format to what its records are".to_string(),
            refuses: true,
        }]
    })
}

fn judged(input: &Input, feed: &Feed, registered: &registry::RegisteredSchema) -> Result<Vec<Misfit>, String> {
    let columns = input.columns.iter().zip(&feed.columns).map(|(ours, theirs)| Column {
        from: theirs.from.clone(),
        format: theirs.format.clone(),
        ..ours.clone()
    });
    let targets = columns.map(|column| Target::new(&column, ""));
    // Invalid formats are reported when the definition is read.
    let targets: Vec<Target> = targets
        .collect::<Result<_, DecodeError>>()
        .map_err(|error| error.to_string())?;
    let names = FieldTree::new(targets.iter().enumerate(), "");
    let (plan, step, index) = match feed.format {
        Format::Avro => {
            let plan = <AvroPlan as crate::decode::schemas::decode_plan::DecodePlan>::new(registered, &names, None)?;
            let (step, index) = (None, plan.schema.root);
            (plan, step, index)
        }
        Format::DebeziumAvro => {
            let schema = AvroSchema::parse(registered)?;
            let envelope = schema.record(schema.root).unwrap_or_default();
            let after = envelope.iter().find(|field| &*field.name == "after");
            let Some(after) = after.filter(|after| schema.record(after.schema).is_some()) else {
                return Err("it is no Debezium envelope with a row \"after\"".to_string());
            };
            let index = after.schema;
            let mut plan = AvroPlan::empty(schema);
            let step = plan.part(index, &names, None);
            (plan, Some(step), index)
        }
        Format::Protobuf => {
            return crate::decode::formats::protobuf::ProtobufPlan::new(registered, &names, None).map(|_| Vec::new());
        }
        _ => return Ok(Vec::new()),
    };
    let mut taken: Vec<Option<usize>> = vec![None; targets.len()];
    plan.taken(step.as_ref().unwrap_or(&plan.root), index, &mut |column, index| {
        if let Some(taken) = taken.get_mut(column) {
            taken.get_or_insert(index);
        }
    });
    let mut misfits = Vec::new();
    for (column, target) in targets.iter().enumerate() {
        let required = !target.nullable || input.key.contains(&target.name);
        let beside = ["source.", "transaction.", "envelope."];
        let is_beside = feed.format == Format::DebeziumAvro
            && target
                .from
                .iter()
                .any(|name| beside.iter().any(|part| name.starts_with(part)));
        match taken[column] {
            None if is_beside => (),
            None => misfits.push(Misfit {
                message: format!(
                    "column {:?}: {registered} has no field {}",
                    target.name,
                    target.from.join(" or ")
                ),
                help: "list the field's name in the column's `from`, or take the column out".to_string(),
                refuses: required,
            }),
            Some(index) if !fits(&plan.schema, index, target, &target.sql_type) => misfits.push(Misfit {
                message: format!(
                    "column {:?}: {registered} has {} in its field, which cannot become {}",
                    target.name,
                    called(plan.schema.type_at(index)),
                    target.sql_type
                ),
                help: "declare the column's type after the field, or give it a `format`".to_string(),
                refuses: true,
            }),
            Some(_) => (),
        }
    }
    Ok(misfits)
}

/// Whether values of a type may fill a column.
fn fits(schema: &AvroSchema, index: usize, target: &Target, wanted: &SqlType) -> bool {
    use SqlType as S;
    let schema_type = schema.type_at(index);
    let number = matches!(wanted, S::Int | S::BigInt | S::Double | S::Decimal(..) | S::Varchar);
    let moment = matches!(wanted, S::Date | S::Timestamp);
    match &schema_type.form {
        AvroForm::Null | AvroForm::String | AvroForm::Enum(_) => true,
        AvroForm::Boolean => matches!(wanted, S::Boolean | S::Varchar),
        AvroForm::Int | AvroForm::Long => match schema_type.meaning {
            Meaning::Days | Meaning::Millis | Meaning::Micros | Meaning::Nanos => number || moment,
            _ => number || *wanted == S::Boolean || (moment && !target.patterns.is_empty()),
        },
        AvroForm::Float | AvroForm::Double => number,
        AvroForm::Bytes | AvroForm::Fixed(_) if schema_type.meaning == Meaning::Unscaled => {
            number || *wanted == S::Binary
        }
        AvroForm::Bytes | AvroForm::Fixed(_) => matches!(wanted, S::Binary | S::Varchar | S::Decimal(..)),
        AvroForm::Record(_) if schema_type.variable => number,
        AvroForm::Record(_) | AvroForm::Map(_) => *wanted == S::Varchar,
        AvroForm::Array(items) => match wanted {
            S::List(item) => fits(schema, *items, target, item),
            other => *other == S::Varchar,
        },
        AvroForm::Union(branches) => {
            let mut values = branches
                .iter()
                .filter(|branch| !matches!(schema.type_at(**branch).form, AvroForm::Null));
            values.any(|branch| fits(schema, *branch, target, wanted))
        }
    }
}

fn called(schema_type: &AvroType) -> &'static str {
    match schema_type.form {
        AvroForm::Null => "nothing but null",
        AvroForm::Boolean => "a boolean",
        AvroForm::Int | AvroForm::Long => "an integer",
        AvroForm::Float | AvroForm::Double => "a floating-point number",
        AvroForm::Bytes | AvroForm::Fixed(_) if schema_type.meaning == Meaning::Unscaled => "a decimal",
        AvroForm::Bytes | AvroForm::Fixed(_) => "bytes",
        AvroForm::String => "a text",
        AvroForm::Enum(_) => "an enum",
        AvroForm::Record(_) => "a record",
        AvroForm::Array(_) => "an array",
        AvroForm::Map(_) => "a map",
        AvroForm::Union(_) => "a union",
    }
}
