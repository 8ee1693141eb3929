//! Dead letters that outlive a restart though nothing of what is fed again says them: those of inputs whose records are
//! not fed, of tables that stand as they are, of files, which Bronze does not hold, and of rows that reached a table too
//! late for its retention, which the graph could only judge by the time of the restart.

use std::sync::atomic::Ordering;

use arrow::array::{Array, AsArray};
use futures::TryStreamExt;

use super::sources::{InputSource, Sources, TableSource};
use crate::definition::Retention;
use crate::render::{LATE, still_late};
use crate::repr::Row;
use crate::run::RunError;
use crate::run::shared::Shared;
use crate::run::wiring::Wiring;
use crate::serve::{Snapshot, literal};

/// Gives the letters to `each`, some at once.
pub async fn carry(
    snapshot: &Snapshot,
    wiring: &Wiring,
    sources: &Sources,
    shared: &Shared,
    mut each: impl FnMut(Vec<Row>),
) -> Result<(), RunError> {
    let conditions = conditions(wiring, sources);
    if !conditions.is_empty() {
        let mut found = snapshot.letters(&conditions.join(" OR ")).await?;
        while let Some(found) = found.try_next().await? {
            each(found.rows);
        }
    }
    for (table, retention) in judged(wiring, sources) {
        let late = format!("kind = 'row' AND table_name = {table} AND starts_with(reason, '{LATE}')");
        let mut found = snapshot.letters(&late).await?;
        while let Some(found) = found.try_next().await? {
            let payloads = found.batch.column_by_name("payload").expect("letters have it");
            let late = still_late(payloads.as_binary(), retention, shared.open.load(Ordering::Acquire));
            let rows = found.rows.into_iter().zip(late);
            each(rows.filter_map(|(row, late)| late.then_some(row)).collect());
        }
    }
    Ok(())
}

/// Tables that are computed again and have a retention.
fn judged<'a>(wiring: &'a Wiring, sources: &'a Sources) -> impl Iterator<Item = (String, &'a Retention)> {
    let tables = wiring.graph.tables.iter().zip(&sources.tables);
    tables.filter_map(|(table, source)| {
        let retention = wiring.dataflow.tables[table.table].retention.as_ref()?;
        (*source == TableSource::Graph).then(|| (literal(&table.name), retention))
    })
}

fn conditions(wiring: &Wiring, sources: &Sources) -> Vec<String> {
    let mut conditions = Vec::new();
    for (input, source) in wiring.dataflow.inputs.iter().zip(&sources.inputs) {
        let name = literal(&input.name);
        conditions.push(match source {
            InputSource::None | InputSource::State { .. } => format!("(kind IN ('record', 'file') AND input = {name})"),
            InputSource::Bronze | InputSource::Feeds => {
                // A feed that is no more owes no files.
                let feeds: Vec<String> = input.feeds.iter().map(|feed| literal(&feed.name)).collect();
                format!("(kind = 'file' AND input = {name} AND feed IN ({}))", feeds.join(", "))
            }
        });
    }
    for (table, source) in wiring.graph.tables.iter().zip(&sources.tables) {
        if *source != TableSource::Graph {
            conditions.push(format!("(kind = 'row' AND table_name = {})", literal(&table.name)));
        }
    }
    conditions
}

/// Tables with rows that are refused for their keys, of those named.
pub async fn clashing(snapshot: &Snapshot, tables: &[(usize, &str)]) -> Result<Vec<usize>, RunError> {
    let mut clashing = Vec::new();
    if tables.is_empty() || !snapshot.has("dead_letters") {
        return Ok(clashing);
    }
    let sql = format!(
        "SELECT DISTINCT arrow_cast(table_name, 'Utf8') AS name FROM dead_letters WHERE kind = 'row' AND starts_with(reason, '{}')",
        crate::render::CLASH
    );
    for batch in snapshot.query(&sql).await?.1 {
        let names = batch.column(0).as_string::<i32>();
        let named = |name: &str| tables.iter().find(|(_, table)| *table == name).map(|(index, _)| *index);
        clashing.extend((0..names.len()).filter_map(|row| named(names.value(row))));
    }
    Ok(clashing)
}
