//! An input's columns against a registered schema, before any record comes: what `check` tells.

use super::DecodeError;
use super::avro::{Form, Plan, Schema, Type};
use super::cell::Meaning;
use super::names::Names;
use super::records::Plan as _;
use super::target::Target;
use crate::definition::{Column, Feed, Format, Input};
use crate::registry;
use crate::repr::SqlType;

/// A column that a schema's records do not fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
    /// Whether records would be refused for it; else the column is null.
    pub refuses: bool,
}

/// What of an input's columns records of this schema do not fill, when a feed brings them. Formats that have no schema to
/// look at fit always.
pub fn against(input: &Input, feed: &Feed, schema: &registry::Schema) -> Vec<Misfit> {
    judged(input, feed, schema).unwrap_or_else(|reason| {
        vec![Misfit {
            message: format!("{schema} cannot be read: {reason}"),
            help: "register another version, or set the feed's format to what its records are".to_string(),
            refuses: true,
        }]
    })
}

fn judged(input: &Input, feed: &Feed, registered: &registry::Schema) -> Result<Vec<Misfit>, String> {
    let columns = input.columns.iter().zip(&feed.columns).map(|(ours, theirs)| Column {
        from: theirs.from.clone(),
        format: theirs.format.clone(),
        ..ours.clone()
    });
    let targets = columns.map(|column| Target::new(&column, ""));
    // What is wrong with a format is told where the definition is read.
    let targets: Vec<Target> = targets
        .collect::<Result<_, DecodeError>>()
        .map_err(|error| error.to_string())?;
    let names = Names::new(targets.iter().enumerate(), "");
    let (plan, step, index) = match feed.format {
        Format::Avro => {
            let plan = <Plan as super::records::Plan>::new(registered, &names, None)?;
            let (step, index) = (None, plan.schema.root);
            (plan, step, index)
        }
        Format::DebeziumAvro => {
            let schema = Schema::parse(registered)?;
            let envelope = schema.record(schema.root).unwrap_or_default();
            let after = envelope.iter().find(|field| &*field.name == "after");
            let Some(after) = after.filter(|after| schema.record(after.schema).is_some()) else {
                return Err("it is no Debezium envelope with a row \"after\"".to_string());
            };
            let index = after.schema;
            let mut plan = Plan::empty(schema);
            let step = plan.part(index, &names, None);
            (plan, Some(step), index)
        }
        Format::Protobuf => return super::protobuf::Plan::new(registered, &names, None).map(|_| Vec::new()),
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
                    called(plan.schema.of(index)),
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
fn fits(schema: &Schema, index: usize, target: &Target, wanted: &SqlType) -> bool {
    use SqlType as S;
    let found = schema.of(index);
    let number = matches!(wanted, S::Int | S::BigInt | S::Double | S::Decimal(..) | S::Varchar);
    let moment = matches!(wanted, S::Date | S::Timestamp);
    match &found.form {
        Form::Null | Form::String | Form::Enum(_) => true,
        Form::Boolean => matches!(wanted, S::Boolean | S::Varchar),
        Form::Int | Form::Long => match found.meaning {
            Meaning::Days | Meaning::Millis | Meaning::Micros | Meaning::Nanos => number || moment,
            _ => number || *wanted == S::Boolean || (moment && !target.patterns.is_empty()),
        },
        Form::Float | Form::Double => number,
        Form::Bytes | Form::Fixed(_) if found.meaning == Meaning::Unscaled => number || *wanted == S::Binary,
        Form::Bytes | Form::Fixed(_) => matches!(wanted, S::Binary | S::Varchar | S::Decimal(..)),
        Form::Record(_) if found.variable => number,
        Form::Record(_) | Form::Map(_) => *wanted == S::Varchar,
        Form::Array(items) => match wanted {
            S::List(item) => fits(schema, *items, target, item),
            other => *other == S::Varchar,
        },
        Form::Union(branches) => {
            let mut values = branches
                .iter()
                .filter(|branch| !matches!(schema.of(**branch).form, Form::Null));
            values.any(|branch| fits(schema, *branch, target, wanted))
        }
    }
}

fn called(found: &Type) -> &'static str {
    match found.form {
        Form::Null => "nothing but null",
        Form::Boolean => "a boolean",
        Form::Int | Form::Long => "an integer",
        Form::Float | Form::Double => "a floating-point number",
        Form::Bytes | Form::Fixed(_) if found.meaning == Meaning::Unscaled => "a decimal",
        Form::Bytes | Form::Fixed(_) => "bytes",
        Form::String => "a text",
        Form::Enum(_) => "an enum",
        Form::Record(_) => "a record",
        Form::Array(_) => "an array",
        Form::Map(_) => "a map",
        Form::Union(_) => "a union",
    }
}
