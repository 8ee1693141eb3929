//! Reads a table's checkpoints, and repairs the log when one is damaged.
//!
//! A checkpoint repeats what the log before it says, so [`log::load`] skips a damaged one where it can. Other engines
//! do not, so a starting run moves it aside and writes a new one: [`mend`]. Readers find the newest checkpoint through
//! `_last_checkpoint`; some refuse the table if the checkpoint named there does not exist, so such a pointer is
//! removed.
//!
//! **Why not a Delta kernel crate**: its public interface gives neither tombstones nor all transactions nor
//! `dataChange`, and does not step past a damaged checkpoint to an older one. It would replace about 90 lines here and
//! in [`log`], and its adapter would have as many. What it would add are sidecars.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::action::{self, Action};
use super::log::{self, LoadedTable, LogError};
use super::maintenance;
use crate::lake::Lake;

/// The kinds of actions that describe the table's present state, without tombstones.
pub const LIVE: [&str; 4] = ["protocol", "metaData", "txn", "add"];

/// The column of actions that refer to files with more actions (protocol, "V2 Spec").
const SIDECAR: &str = "sidecar";

/// Repairs a table for readers that cannot cope with a damaged checkpoint or a misleading `_last_checkpoint`. Damaged
/// files keep their bytes under a name that no reader looks for. Repeating it is safe: all that is moved aside can be
/// derived from the log.
///
/// # Errors
/// The store fails.
pub async fn mend(lake: &Lake, table: &str, loaded: &mut LoadedTable) -> Result<(), LogError> {
    let folder = Path::from(format!("{table}/_delta_log"));
    let pointer = folder.clone().join("_last_checkpoint");
    let pointed = lake.get(&pointer).await;
    let pointed = pointed.map_err(|e| log::store_error(table, "read _last_checkpoint".into(), e))?;
    let named = pointed.as_ref().map(|bytes| pointed_at(bytes));
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
            return Ok(()); // The pointer names an older checkpoint, which exists.
        }
    }
    if loaded.checkpoint == Some(loaded.version) {
        return Ok(());
    }
    match maintenance::checkpoint(lake, table, loaded.version).await {
        Ok(()) => loaded.checkpoint = Some(loaded.version),
        Err(e) => tracing::warn!(table, error = format!("{e:#}"), "could not checkpoint yet"),
    }
    Ok(())
}

/// The version that a `_last_checkpoint` names; none if it does not parse.
fn pointed_at(bytes: &[u8]) -> Option<i64> {
    let named: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    named.get("version")?.as_i64()
}

/// Whether all parts of a checkpoint are there: `<v>.checkpoint.<part>.<parts>.parquet`, or the single file
/// `<v>.checkpoint.parquet`. `<v>.checkpoint.<uuid>.parquet` of a table with the feature v2Checkpoint counts as no
/// checkpoint, because its actions are in sidecar files, which Alluvium does not read.
pub fn is_complete(parts: &[Path]) -> bool {
    let named = parts.iter().filter_map(|p| p.filename()).next().unwrap_or_default();
    let pieces: Vec<&str> = named.split('.').collect();
    match pieces.as_slice() {
        [_, _, _, count, _] => count.parse() == Ok(parts.len()),
        _ => pieces.len() == 3,
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
    let file_bytes = lake
        .get(path)
        .await
        .map_err(|e| log::store_error(table, format!("read {file}"), e))?;
    let damaged = |reason: String| LogError::Damaged {
        table: table.into(),
        file: file.into(),
        reason,
    };
    let bytes = file_bytes.ok_or_else(|| damaged("it vanished".into()))?;
    // Damaged bytes can make the Parquet reader itself panic.
    let read = catch_unwind(AssertUnwindSafe(|| actions(bytes, kinds, take)));
    read.unwrap_or_else(|_| Err("its Parquet reader failed".into()))
        .map_err(damaged)
}

/// Decodes a checkpoint's rows, batch by batch. The columns of a row mirror an action: written as JSON lines, the rows
/// parse like a log entry.
fn actions(bytes: Bytes, kinds: &[&str], take: &mut dyn FnMut(Vec<Action>)) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| text(&e))?;
    let wanted = |name: &str| kinds.contains(&name) || name == SIDECAR;
    let fields = builder.schema().fields().iter().enumerate();
    let roots = fields.filter(|(_, field)| wanted(field.name()));
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots.map(|(i, _)| i).collect::<Vec<_>>());
    let reader = builder.with_projection(mask).build().map_err(|e| text(&e))?;
    for batch in reader {
        let batch = batch.map_err(|e| text(&e))?;
        if batch
            .column_by_name(SIDECAR)
            .is_some_and(|sidecars| sidecars.null_count() < sidecars.len())
        {
            return Err("it refers to sidecar files (v2Checkpoint), which Alluvium does not read".into());
        }
        // Without explicit nulls, a null partition value would be dropped from its map.
        let mut writer = WriterBuilder::new()
            .with_explicit_nulls(true)
            .build::<_, LineDelimited>(Vec::new());
        writer.write(&batch).map_err(|e| text(&e))?;
        writer.finish().map_err(|e| text(&e))?;
        take(action::from_lines(&writer.into_inner()).map_err(|e| text(&e))?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch, StringArray, StructArray};
    use arrow::datatypes::{DataType, Field};
    use parquet::arrow::ArrowWriter;

    use super::*;

    /// A table whose files stand in sidecars was loaded as if it had none.
    #[test]
    fn a_checkpoint_with_sidecars_is_not_read_as_a_table_without_files() {
        let read = |path: Option<&str>| {
            let paths: ArrayRef = Arc::new(StringArray::from(vec![path]));
            let field = Arc::new(Field::new("path", DataType::Utf8, true));
            let is_valid = vec![path.is_some()].into();
            let sidecars = StructArray::new(vec![field].into(), vec![paths], Some(is_valid));
            let batch = RecordBatch::try_from_iter([(SIDECAR, Arc::new(sidecars) as ArrayRef)]).unwrap();
            let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
            writer.write(&batch).unwrap();
            actions(writer.into_inner().unwrap().into(), &LIVE, &mut |_| ())
        };
        let refused = read(Some("a.parquet")).unwrap_err();
        assert!(refused.contains("v2Checkpoint"), "{refused}");
        assert_eq!(read(None), Ok(()));

        let parts = |names: &[&str]| names.iter().map(|name| Path::from(*name)).collect::<Vec<_>>();
        let version = format!("{:020}", 7);
        let named = |rest: &str| is_complete(&parts(&[&format!("{version}.checkpoint{rest}.parquet")]));
        assert!(named(""));
        assert!(named(".0000000001.0000000001"));
        assert!(!named(".0000000001.0000000002"));
        assert!(!named(".80a083e8-7026-4e79-81be-64bd76c43a11"));
    }
}
