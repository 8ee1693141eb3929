//! A table's checkpoints: reading them, and making good for one that is damaged.
//!
//! A checkpoint repeats what the log before it says, so [`log::load`] passes a damaged one over where it can. Other engines
//! do not, so a starting run moves it aside and writes a new one: [`mend`]. Readers look into `_last_checkpoint` for the newest
//! one; where it names what is not there, some refuse the table, and it is removed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::action::{self, Action};
use super::log::{self, Loaded, LogError};
use super::maintenance;
use crate::sink::lake::Lake;

/// What a table is, without what it was.
pub const LIVE: [&str; 4] = ["protocol", "metaData", "txn", "add"];

/// Makes a table whole for readers that know no way around a damaged checkpoint, or a `_last_checkpoint` that misleads. What was
/// damaged keeps its bytes under a name that no reader looks for. Repeating it is safe: nothing is lost that the log does not say.
///
/// # Errors
/// A store that fails.
pub async fn mend(lake: &Lake, table: &str, loaded: &mut Loaded, durable: bool) -> Result<(), LogError> {
    let folder = Path::from(format!("{table}/_delta_log"));
    let pointer = folder.clone().join("_last_checkpoint");
    let found = lake.get(&pointer).await;
    let found = found.map_err(|e| log::store_error(table, "read _last_checkpoint".into(), e))?;
    let named = found.as_ref().map(|bytes| pointed_at(bytes));
    let is_plain = named
        .as_ref()
        .is_none_or(|version| version.is_some() && *version == loaded.checkpoint);
    if is_plain && loaded.damaged.is_empty() {
        return Ok(());
    }
    for damage in &loaded.damaged {
        let (version, reason) = (damage.version, &damage.reason);
        tracing::warn!(
            table,
            version,
            file = damage.file,
            reason,
            "passed over a damaged checkpoint, and moved it aside"
        );
        for part in &damage.parts {
            let aside = Path::from(format!("{part}.damaged"));
            match lake.store.rename(part, &aside).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(log::store_error(table, format!("move {} aside", damage.file), e)),
            }
        }
    }
    if let Some(version) = named {
        let (_, checkpoints) = log::list(lake, table).await?;
        if !version.is_some_and(|version| checkpoints.contains_key(&version)) {
            tracing::warn!(
                table,
                "removing a _last_checkpoint that names no checkpoint that is there"
            );
            match lake.store.delete(&pointer).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(log::store_error(table, "remove _last_checkpoint".into(), e)),
            }
        } else if loaded.damaged.is_empty() {
            return Ok(()); // It is an older one, which is there.
        }
    }
    if loaded.checkpoint == Some(loaded.version) {
        return Ok(());
    }
    match maintenance::checkpoint(lake, table, loaded.version, durable).await {
        Ok(()) => loaded.checkpoint = Some(loaded.version),
        Err(e) => tracing::warn!(table, error = format!("{e:#}"), "could not checkpoint yet"),
    }
    Ok(())
}

/// The version that a `_last_checkpoint` names; none if it does not read.
fn pointed_at(bytes: &[u8]) -> Option<i64> {
    let named: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    named.get("version")?.as_i64()
}

/// Whether all parts of a checkpoint are there: `<v>.checkpoint.<part>.<parts>.parquet`, or a single file.
pub fn is_complete(parts: &[Path]) -> bool {
    let named = parts.iter().filter_map(|p| p.filename()).next().unwrap_or_default();
    let pieces: Vec<&str> = named.split('.').collect();
    match pieces.as_slice() {
        [_, _, _, count, _] => count.parse() == Ok(parts.len()),
        _ => true,
    }
}

/// Takes the actions of some kinds from one part of a checkpoint, batch by batch.
pub async fn read(
    lake: &Lake,
    table: &str,
    path: &Path,
    kinds: &[&str],
    take: &mut dyn FnMut(Vec<Action>),
) -> Result<(), LogError> {
    let file = path.filename().unwrap_or_default();
    let found = lake
        .get(path)
        .await
        .map_err(|e| log::store_error(table, format!("read {file}"), e))?;
    let damaged = |reason: String| LogError::Damaged {
        table: table.into(),
        file: file.into(),
        reason,
    };
    let bytes = found.ok_or_else(|| damaged("it vanished".into()))?;
    // Bytes that were damaged on the way can make the reader itself fail.
    let read = catch_unwind(AssertUnwindSafe(|| actions(bytes, kinds, take)));
    read.unwrap_or_else(|_| Err("its Parquet reader failed".into()))
        .map_err(damaged)
}

/// A checkpoint's rows are actions as columns: written as JSON lines, they parse like an entry. Taken batch by batch.
fn actions(bytes: Bytes, kinds: &[&str], take: &mut dyn FnMut(Vec<Action>)) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| text(&e))?;
    let roots = builder
        .schema()
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, f)| kinds.contains(&f.name().as_str()));
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots.map(|(i, _)| i).collect::<Vec<_>>());
    let reader = builder.with_projection(mask).build().map_err(|e| text(&e))?;
    for batch in reader {
        let batch = batch.map_err(|e| text(&e))?;
        // Nulls are explicit: a null partition value is a value, and would be dropped from its map otherwise.
        let mut writer = WriterBuilder::new()
            .with_explicit_nulls(true)
            .build::<_, LineDelimited>(Vec::new());
        writer.write(&batch).map_err(|e| text(&e))?;
        writer.finish().map_err(|e| text(&e))?;
        take(action::from_lines(&writer.into_inner()).map_err(|e| text(&e))?);
    }
    Ok(())
}
