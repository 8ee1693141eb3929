//! The command `check`: loads a definition, and prints every mistake or a summary; it touches no data.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use super::{Source, environment, output};
use crate::decode::{Newcomer, against, newcomers};
use crate::definition::{
    Case, Dataflow, DefinitionSurvey, Diagnostic, Diagnostics, Feed, FeedSurroundings, Format, Input, cases, nearest,
    survey,
};
use crate::plan::{self, Graph};
use crate::registry::{RegisteredSchema, Registries, RegistryTimeouts};
use crate::source;

/// Find every mistake in a dataflow, without running it
///
/// Prints each mistake with its file, its line and what to do about it; if there is none, prints a summary of the
/// dataflow. No records are read and nothing is written. Schema registries and databases are asked whether they fit the
/// definition.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  alluvium check dataflows/retail")]
pub struct CheckArgs {
    #[command(flatten)]
    source: Source,
}

/// Runs the command.
///
/// # Errors
/// `Diagnostics`, which contain the mistakes.
pub fn run(args: CheckArgs) -> Result<ExitCode> {
    let DefinitionSurvey {
        dataflow,
        broken,
        mut found,
    } = survey(&args.source.folder, &environment);
    let cases = cases(&args.source.folder).unwrap_or_else(|more| {
        found.0.extend(more.0);
        vec![]
    });
    if let Some(dataflow) = &dataflow {
        match plan::compile_part(dataflow, &broken) {
            Ok(graph) => found.0.extend(misread_tables(&graph, &cases, &args.source.folder)),
            Err(more) => found.0.extend(more.0),
        }
    }
    let dataflow = match dataflow {
        Some(dataflow) if found.0.is_empty() => dataflow,
        _ => return Err(found.sorted().into()),
    };
    let (mut mistakes, mut notes) = against_registries(&dataflow, &Registries::patient(None, PATIENCE));
    let (more, further) = against_sources(&dataflow);
    mistakes.0.extend(more);
    notes.extend(further);
    if !mistakes.0.is_empty() {
        return Err(mistakes.sorted().into());
    }
    let mut out = output::out();
    write!(out, "{}", summary(&dataflow, &cases))?;
    for note in notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `check` waits only briefly for a registry that does not answer.
const PATIENCE: RegistryTimeouts = RegistryTimeouts {
    request: Duration::from_secs(5),
    budget: Duration::from_secs(5),
    pause: Duration::from_millis(200),
};

/// Compares columns with the newest schemas of their feeds' subjects: a mistake if records would be refused,
/// otherwise a note.
fn against_registries(dataflow: &Dataflow, registries: &Registries) -> (Diagnostics, Vec<String>) {
    let (mut mistakes, mut notes) = (Vec::new(), Vec::new());
    for input in &dataflow.inputs {
        for feed in &input.feeds {
            let Some(settings) = &feed.wire.registry else { continue };
            let place = format!("feed {:?} of input {:?}", feed.name, input.name);
            let Some(subject) = feed.subject() else {
                if matches!(feed.format, Format::Avro | Format::DebeziumAvro | Format::Protobuf) {
                    notes.push(format!(
                        "{place} was not checked against its registry: set its `subject`"
                    ));
                }
                continue;
            };
            let newest = registries
                .registry(settings)
                .map_err(|error| crate::causes::chain(&error))
                .and_then(|registry| registry.newest(&subject).map_err(|error| error.to_string()));
            let schema = match newest {
                Ok(Some(schema)) => schema,
                Ok(None) => {
                    notes.push(format!("{place}: its registry has no subject {subject:?} yet"));
                    continue;
                }
                Err(reason) => {
                    notes.push(format!("{place} was not checked against its registry: {reason}"));
                    continue;
                }
            };
            if feed.wire.evolves {
                notes.extend(
                    evolving(input, feed, &schema)
                        .into_iter()
                        .map(|note| format!("{place}: {note}")),
                );
            }
            for misfit in against(input, feed, &schema) {
                if !misfit.refuses {
                    notes.push(format!("{place}: {}; it stays null", misfit.message));
                    continue;
                }
                mistakes.push(Diagnostic {
                    file: input.file.clone(),
                    line: 0,
                    column: 0,
                    message: format!("{place}: {}", misfit.message),
                    help: Some(misfit.help),
                });
            }
        }
    }
    (Diagnostics(mistakes), notes)
}

/// The columns that a run would take from a schema in addition to those of the file.
fn evolving(input: &Input, feed: &Feed, schema: &RegisteredSchema) -> Vec<String> {
    let new = newcomers(input, feed, schema).unwrap_or_default(); // an invalid schema is reported elsewhere
    let description = |Newcomer { field, column }: Newcomer| match column {
        Ok(sql_type) => format!("a run takes field {field:?} of {schema} as a column {sql_type}"),
        Err(reason) => format!("field {field:?} of {schema} is left out: {reason}"),
    };
    new.into_iter().map(description).collect()
}

/// Checks whether sources fit their feeds: a mistake if a feed cannot be read, otherwise a note.
fn against_sources(dataflow: &Dataflow) -> (Vec<Diagnostic>, Vec<String>) {
    let (mut mistakes, mut notes) = (Vec::new(), Vec::new());
    for found in source::check(dataflow, PATIENCE.request) {
        let input = &dataflow.inputs[found.input];
        let message = format!(
            "feed {:?} of input {:?}: {}",
            input.feeds[found.feed].name, input.name, found.message
        );
        match found.refuses {
            true => mistakes.push(Diagnostic {
                file: input.file.clone(),
                line: 0,
                column: 0,
                message,
                help: found.help,
            }),
            false => notes.push(found.help.map_or(message.clone(), |help| format!("{message}; {help}"))),
        }
    }
    (mistakes, notes)
}

/// Columns that the dataflow's own tests expect but tables do not have.
fn misread_tables(graph: &Graph, cases: &[Case], folder: &Path) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for expected in cases.iter().flat_map(|case| &case.steps).flat_map(|step| &step.expect) {
        let name = format!("{}.{}", expected.layer.name(), expected.table);
        let table = graph.tables.iter().find(|table| table.name == name);
        let text = std::fs::read_to_string(&expected.path).unwrap_or_default();
        let (Some(table), Some(header)) = (table, text.lines().next()) else {
            continue;
        };
        let columns: Vec<&str> = table.schema.fields().iter().map(|f| f.name().as_str()).collect();
        for column in header.split(',').map(|column| column.trim().trim_matches('"')) {
            if !columns.contains(&column) {
                let near = nearest(column, columns.iter().copied());
                let near = near.map_or(String::new(), |near| format!("did you mean {near:?}? "));
                found.push(Diagnostic {
                    file: expected
                        .path
                        .strip_prefix(folder)
                        .unwrap_or(&expected.path)
                        .to_path_buf(),
                    line: 1,
                    column: 0,
                    message: format!("{name} has no column {column:?}"),
                    help: Some(format!("{near}columns are {}", columns.join(", "))),
                });
            }
        }
    }
    found
}

fn summary(dataflow: &Dataflow, cases: &[Case]) -> String {
    let mut out = format!("dataflow {}\nlake {}\n", dataflow.name, dataflow.lake);
    for input in &dataflow.inputs {
        let kind = match (input.key.is_empty(), input.dedup_key.is_empty()) {
            (false, _) => format!("key {}", input.key.join(", ")),
            (true, false) => format!("events, first per {}", input.dedup_key.join(", ")),
            (true, true) => "events".to_string(),
        };
        out += &format!("input {} ({} columns, {kind})\n", input.name, input.columns.len());
        for (n, feed) in input.feeds.iter().enumerate() {
            let place = feed.kind.contract().describe(&FeedSurroundings {
                input,
                feed: n,
                http: dataflow.http.as_ref(),
                lake: &dataflow.lake,
            });
            out += &format!("  feed {}: {place}\n", feed.name);
        }
    }
    for table in &dataflow.tables {
        out += &format!("table {}", table.qualified_name());
        if !table.key.is_empty() {
            out += &format!(" (key {})", table.key.join(", "));
        }
        out += "\n";
    }
    out += &format!(
        "ok: {}, {}, {}\n",
        counted(dataflow.inputs.len(), "input"),
        counted(dataflow.tables.len(), "table"),
        counted(cases.len(), "test")
    );
    out
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::mock::Mock;

    #[test]
    fn columns_are_held_against_the_newest_schema_where_the_registry_answers() {
        let mock = Mock::start();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("inputs")).unwrap();
        std::fs::create_dir_all(folder.path().join("silver")).unwrap();
        std::fs::write(folder.path().join("dataflow.toml"), "name = \"shop\"\n").unwrap();
        std::fs::write(folder.path().join("silver/orders.sql"), "SELECT * FROM orders\n").unwrap();
        let input = format!(
            "key = [\"id\"]\n[columns]\nid = \"BIGINT\"\nat = \"TIMESTAMP\"\nname = \"VARCHAR\"\nlist = \"INT[]\"\n\
             lsn = {{ type = \"BIGINT\", from = \"source.lsn\" }}\n[[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live\"\n\
             format = \"avro\"\nregistry = {{ url = {:?}, subject = \"orders-value\" }}\n",
            mock.url
        );
        std::fs::write(folder.path().join("inputs/orders.toml"), &input).unwrap();
        let checked = || {
            let dataflow = crate::definition::load(folder.path(), &|_| None).unwrap();
            let (mistakes, notes) = against_registries(&dataflow, &Registries::patient(None, PATIENCE));
            let mistakes: Vec<String> = mistakes.0.into_iter().map(|mistake| mistake.message).collect();
            (mistakes, notes)
        };
        let register = |text: &str| mock.register("orders-value", "AVRO", text, serde_json::json!([]));
        let (mistakes, notes) = checked();
        assert!(
            mistakes.is_empty() && notes[0].contains("no subject \"orders-value\" yet"),
            "{notes:?}"
        );
        let field = |name: &str, kind: &str| format!(r#"{{"name":"{name}","type":{kind}}}"#);
        let record = |fields: &[String]| format!(r#"{{"type":"record","name":"R","fields":[{}]}}"#, fields.join(","));
        let list = field("list", r#"["null",{"type":"array","items":"int"}]"#);
        let at = field("at", r#"{"type":"long","logicalType":"timestamp-millis"}"#);
        register(&record(&[field("id", "\"long\""), at, list.clone()]));
        let (mistakes, notes) = checked();
        assert_eq!(mistakes, Vec::<String>::new());
        assert!(
            notes.len() == 2 && notes[0].contains("has no field name; it stays null"),
            "{notes:?}"
        );
        register(&record(&[field("at", "\"long\""), field("name", "\"string\""), list]));
        let (mistakes, _) = checked();
        assert_eq!(mistakes.len(), 2, "{mistakes:?}");
        assert!(
            mistakes[0].contains("column \"id\": schema 2 (orders-value version 2) has no field id"),
            "{mistakes:?}"
        );
        assert!(
            mistakes[1].contains("column \"at\": schema 2 (orders-value version 2) has an integer in its field"),
            "{mistakes:?}"
        );
        // If a run would take further columns, that is reported.
        let with_more = [
            field("id", "\"long\""),
            field("at", "[\"null\",\"string\"]"),
            field("name", "\"string\""),
            field("list", r#"["null",{"type":"array","items":"int"}]"#),
            field("city", r#"["null","string"]"#),
            field("must", "\"int\""),
        ];
        register(&record(&with_more));
        let (mistakes, notes) = checked();
        assert_eq!((mistakes.len(), notes.len()), (0, 1), "{mistakes:?} {notes:?}");
        let evolving = input.replace("format = \"avro\"", "format = \"avro\"\nschema = \"evolve\"");
        std::fs::write(folder.path().join("inputs/orders.toml"), evolving).unwrap();
        let (mistakes, notes) = checked();
        assert_eq!(mistakes, Vec::<String>::new());
        assert_eq!(
            notes[..2],
            [
                "feed \"live\" of input \"orders\": a run takes field \"city\" of schema 3 (orders-value version 3) as a column VARCHAR",
                "feed \"live\" of input \"orders\": field \"must\" of schema 3 (orders-value version 3) is left out: it may not be null and \
                 has no default, so it is in no older record",
            ]
        );
        drop(mock);
        let (mistakes, notes) = checked();
        assert!(
            mistakes.is_empty() && notes[0].contains("was not checked against its registry"),
            "{notes:?}"
        );
    }
}
