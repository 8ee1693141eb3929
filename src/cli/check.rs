//! `check`: load, print every mistake or a summary; no data is touched.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use super::{Source, environment};
use crate::definition::{Case, Dataflow, Diagnostic, FeedKind, Survey, cases, nearest, survey};
use crate::plan::{self, Graph};

/// Find every mistake in a dataflow; no data is touched
///
/// Prints each mistake with its file, line and what to do, or a summary of the dataflow.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  alluvium check dataflows/retail")]
pub struct Check {
    #[command(flatten)]
    source: Source,
}

/// Runs the command.
///
/// # Errors
/// `Diagnostics`: the mistakes.
pub fn run(args: Check) -> Result<ExitCode> {
    let Survey {
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
    let mut out = io::stdout().lock();
    write!(out, "{}", summary(&dataflow, &cases))?;
    Ok(ExitCode::SUCCESS)
}

/// Columns that the dataflow's own tests expect and tables do not have.
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
        for feed in &input.feeds {
            let place = match &feed.kind {
                FeedKind::Files { path } => format!("files {path}"),
                FeedKind::Log { path } => format!("log {}", path.display()),
                FeedKind::Kafka(kafka) => format!("kafka {} at {}", kafka.topics.join(", "), kafka.brokers),
                FeedKind::Generate(generate) => format!("generate {}", generate.generator),
            };
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
