//! Carries over the dead letters that a restart would not produce again: those of inputs whose records are not fed; of
//! tables that are not computed again; of files, which Bronze does not hold; and of rows that arrived too late for a
//! table's retention, because at a restart the graph judges them by a later time.

use std::sync::atomic::Ordering;

use arrow::array::{Array, AsArray};
use futures::TryStreamExt;

use super::sources::{InputSource, PastSources, TableSource};
use crate::definition::Retention;
use crate::render::{LATE, still_late};
use crate::repr::Row;
use crate::run::RunError;
use crate::run::board::Board;
use crate::run::wiring::Wiring;
use crate::serve::{LakeSnapshot, literal};

/// Calls `each` with batches of the dead letters that are carried over.
pub async fn carry(
    snapshot: &LakeSnapshot,
    wiring: &Wiring,
    sources: &PastSources,
    board: &Board,
    mut each: impl FnMut(Vec<Row>),
) -> Result<(), RunError> {
    let conditions = conditions(wiring, sources);
    if !conditions.is_empty() {
        let mut letters = snapshot.letters(&conditions.join(" OR ")).await?;
        while let Some(letters) = letters.try_next().await? {
            each(letters.rows);
        }
    }
    for (table, retention) in judged(wiring, sources) {
        let late = format!("kind = 'row' AND table_name = {table} AND starts_with(reason, '{LATE}')");
        let mut letters = snapshot.letters(&late).await?;
        while let Some(letters) = letters.try_next().await? {
            let payloads = letters.batch.column_by_name("payload").expect("letters have it");
            let late = still_late(
                payloads.as_binary(),
                retention,
                board.epochs.open.load(Ordering::Acquire),
            );
            let rows = letters.rows.into_iter().zip(late);
            each(rows.filter_map(|(row, late)| late.then_some(row)).collect());
        }
    }
    Ok(())
}

/// The tables with a retention that are computed again.
fn judged<'a>(wiring: &'a Wiring, sources: &'a PastSources) -> impl Iterator<Item = (String, &'a Retention)> {
    let tables = wiring.graph.tables.iter().zip(&sources.tables);
    tables.filter_map(|(table, source)| {
        let retention = wiring.dataflow.tables[table.table].retention.as_ref()?;
        (*source == TableSource::Graph).then(|| (literal(&table.name), retention))
    })
}

fn conditions(wiring: &Wiring, sources: &PastSources) -> Vec<String> {
    let mut conditions = Vec::new();
    for (input, source) in wiring.dataflow.inputs.iter().zip(&sources.inputs) {
        let name = literal(&input.name);
        conditions.push(match source {
            InputSource::None | InputSource::State { .. } => format!("(kind IN ('record', 'file') AND input = {name})"),
            InputSource::Bronze | InputSource::Feeds => {
                // Dead letters of a feed that was removed are dropped.
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

/// Those of `tables` that have rows which were refused because another row had the same key.
pub async fn clashing(snapshot: &LakeSnapshot, tables: &[(usize, &str)]) -> Result<Vec<usize>, RunError> {
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
