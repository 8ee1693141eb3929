//! Validates the footer of a Parquet file before it is read; `thrift` explains why.

use parquet::file::metadata::ParquetMetaData;

use crate::decode::formats::parquet::Damage;
use crate::decode::formats::parquet::thrift::{Compact, ThriftError, ThriftType};

/// How deep columns may be nested, because readers recurse as deep.
const NESTED: usize = 100;

/// The most row groups, which the format numbers with signed 16-bit integers.
const GROUPS: usize = 1 << 15;

/// How many rows each byte of a file may stand for, and how many rows any file may have beyond that.
const ROWS_PER_BYTE: u64 = 65_536;
const SPARE_ROWS: u64 = 16 << 20;

/// Validates the footer's bytes.
///
/// # Errors
/// They are damaged, or show that the file is encrypted.
pub(super) fn check_bytes(footer: &[u8]) -> Result<(), Damage> {
    let mut compact = Compact::new(footer);
    let mut last = 0;
    while let Some((field, of)) = compact.field(&mut last).map_err(garbled)? {
        match (field, of) {
            (2, ThriftType::List) => check_columns(&mut compact)?,
            (4, ThriftType::List) => {
                let (groups, _) = compact.clone().list().map_err(garbled)?;
                if groups > GROUPS {
                    return Err(Damage(format!(
                        "it has {groups} row groups, and a Parquet file may have {GROUPS}, for they are numbered by 16 bits; write it \
                         again with larger row groups, of 100,000 rows or more, or as several files"
                    )));
                }
                compact.skip(of).map_err(garbled)?;
            }
            // This field has the encryption algorithm of a file whose footer is not encrypted itself.
            (8, ThriftType::Struct) => return Err(Damage::encrypted()),
            _ => compact.skip(of).map_err(garbled)?,
        }
    }
    Ok(())
}

/// The message for an intact file whose columns are nested too deep.
pub(super) fn too_deep() -> Damage {
    Damage(format!(
        "its columns nest too deep to be read: at most {NESTED} levels, of which a list takes two, and about 60 where the file holds \
         Arrow's schema, too; write what nests so as a text, such as JSON"
    ))
}

fn garbled(garbled: ThriftError) -> Damage {
    match garbled {
        ThriftError::Ended => Damage("its footer is damaged: it ends too early".to_string()),
        ThriftError::Claims(what) => Damage(format!("its footer is damaged: {what}")),
    }
}

/// Validates the columns: a tree in preorder, in which each node has its number of children.
fn check_columns(compact: &mut Compact<'_>) -> Result<(), Damage> {
    let (count, of) = compact.list().map_err(garbled)?;
    if of != ThriftType::Struct {
        return Err(garbled(ThriftError::Claims("its columns are none")));
    }
    // For each open node, how many children still follow.
    let mut open: Vec<usize> = Vec::new();
    for n in 0..count {
        let mut inside = 0;
        let mut last = 0;
        while let Some((field, of)) = compact.field(&mut last).map_err(garbled)? {
            match (field, of) {
                (5, ThriftType::Integer) => inside = compact.integer().map_err(garbled)?,
                _ => compact.skip(of).map_err(garbled)?,
            }
        }
        while let Some(0) = open.last() {
            open.pop();
        }
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        match usize::try_from(inside) {
            Ok(inside) if inside < count - n => open.push(inside),
            _ => {
                return Err(garbled(ThriftError::Claims(
                    "a column claims more columns inside of it than there are",
                )));
            }
        }
        if open.len() > NESTED {
            return Err(too_deep());
        }
    }
    Ok(())
}

/// Validates the footer's claims for a file of `size` bytes.
///
/// # Errors
/// A claim is impossible.
pub(super) fn check_claims(metadata: &ParquetMetaData, size: u64) -> Result<(), Damage> {
    let damage = |what: &str| Err(Damage(format!("its footer is damaged: {what}")));
    let mut rows: u64 = 0;
    for group in metadata.row_groups() {
        match u64::try_from(group.num_rows()) {
            Ok(more) => rows = rows.saturating_add(more),
            Err(_) => return damage("it has a negative number of rows"),
        }
        for column in group.columns() {
            let first = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let (Ok(first), Ok(length)) = (u64::try_from(first), u64::try_from(column.compressed_size())) else {
                return damage("a column begins before the file does");
            };
            if first.checked_add(length).is_none_or(|end| end > size) {
                return damage("a column ends behind the file's end");
            }
        }
    }
    if rows > 0 && metadata.file_metadata().schema_descr().num_columns() == 0 {
        return damage("it has rows, but no columns");
    }
    if rows > size.saturating_mul(ROWS_PER_BYTE).saturating_add(SPARE_ROWS) {
        return damage(&format!("it claims {rows} rows in {size} bytes"));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StructArray};
    use arrow::datatypes::Field;

    use super::*;

    /// A file with too many row groups was refused with a library's message, without a remedy.
    #[test]
    fn more_row_groups_than_have_numbers_are_told_with_a_remedy() {
        let footer = |groups: usize| {
            // Field 4: a list of structs, whose length is in three bytes; each of them is empty.
            let length = [groups as u8 | 0x80, (groups >> 7) as u8 | 0x80, (groups >> 14) as u8];
            [&[0x49, 0xfc][..], &length, &vec![0; groups], &[0]].concat()
        };
        check_bytes(&footer(1 << 15)).unwrap();
        let message = check_bytes(&footer(40_000)).unwrap_err().0;
        assert!(message.starts_with("it has 40000 row groups"), "{message}");
        assert!(message.contains("larger row groups"), "{message}");
    }

    /// An intact file was called damaged.
    #[test]
    fn columns_that_nest_too_deep_are_told_so_and_not_called_damaged() {
        let footer = |levels: usize| {
            // Field 2: a list of structs. Their field 5 (zigzag) is the number of children, which is one except for
            // the last.
            let length = [levels as u8 | 0x80, (levels >> 7) as u8];
            let column = |inside: u8| [0x55, inside, 0];
            let columns = [column(2).repeat(levels - 1), column(0).to_vec()].concat();
            [&[0x29, 0xfc][..], &length, &columns, &[0]].concat()
        };
        check_bytes(&footer(NESTED)).unwrap();
        let message = check_bytes(&footer(150)).unwrap_err().0;
        assert!(message.starts_with("its columns nest too deep"), "{message}");
    }

    /// The dead letter said "Unable to get root as message stored in ARROW:schema: DepthLimitReached".
    #[test]
    fn arrows_schema_that_nests_too_deep_is_told_so() {
        let mut column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        for _ in 0..90 {
            let field = Field::new("s", column.data_type().clone(), true);
            column = Arc::new(StructArray::from(vec![(Arc::new(field), column)]));
        }
        let batch = RecordBatch::try_from_iter([("x", column)]).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        let file = bytes::Bytes::from(writer.into_inner().unwrap());
        let part = |range: std::ops::Range<u64>| Ok(file.slice(range.start as usize..range.end as usize));
        let message = crate::decode::formats::parquet::read_metadata(file.len() as u64, part).map(|_| ());
        let message = message.map_err(|damage: Damage| damage.0).unwrap_err();
        assert!(message.starts_with("its columns nest too deep"), "{message}");
    }
}
