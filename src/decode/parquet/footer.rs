//! The footer of a Parquet file, looked over before it is read: see `thrift` for why.

use parquet::file::metadata::ParquetMetaData;

use super::Damage;
use super::thrift::{Compact, Garbled, Type};

/// How deep columns may nest. Readers recurse as deep.
const NESTED: usize = 100;

/// Row groups that readers number: by 16 bits with a sign, as the format does.
const GROUPS: usize = 1 << 15;

/// Rows that a byte of a file may stand for, and rows that any file may have beyond that.
const ROWS_PER_BYTE: u64 = 65_536;
const SPARE_ROWS: u64 = 16 << 20;

/// Looks over the footer's bytes.
///
/// # Errors
/// They are damaged, or say that the file is encrypted.
pub(super) fn check_bytes(footer: &[u8]) -> Result<(), Damage> {
    let garbled = |garbled| match garbled {
        Garbled::Ended => Damage("its footer is damaged: it ends too early".to_string()),
        Garbled::Claims(what) => Damage(format!("its footer is damaged: {what}")),
    };
    let mut compact = Compact::new(footer);
    let mut last = 0;
    while let Some((field, of)) = compact.field(&mut last).map_err(garbled)? {
        match (field, of) {
            (2, Type::List) => check_columns(&mut compact).map_err(garbled)?,
            (4, Type::List) => {
                let (groups, _) = compact.clone().list().map_err(garbled)?;
                if groups > GROUPS {
                    return Err(Damage(format!(
                        "it has {groups} row groups, and a Parquet file may have {GROUPS}, for they are numbered by 16 bits; write it \
                         again with larger row groups, of 100,000 rows or more, or as several files"
                    )));
                }
                compact.skip(of).map_err(garbled)?;
            }
            // The algorithm of a file with a footer in plain bytes.
            (8, Type::Struct) => return Err(Damage::encrypted()),
            _ => compact.skip(of).map_err(garbled)?,
        }
    }
    Ok(())
}

/// Looks over the columns: a tree, each node before those inside of it, with how many these are.
fn check_columns(compact: &mut Compact<'_>) -> Result<(), Garbled> {
    let (count, of) = compact.list()?;
    if of != Type::Struct {
        return Err(Garbled::Claims("its columns are none"));
    }
    // How many are still to come in each node that is open.
    let mut open: Vec<usize> = Vec::new();
    for n in 0..count {
        let mut inside = 0;
        let mut last = 0;
        while let Some((field, of)) = compact.field(&mut last)? {
            match (field, of) {
                (5, Type::Integer) => inside = compact.integer()?,
                _ => compact.skip(of)?,
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
                return Err(Garbled::Claims(
                    "a column claims more columns inside of it than there are",
                ));
            }
        }
        if open.len() > NESTED {
            return Err(Garbled::Claims("its columns are nested deeper than 100 levels"));
        }
    }
    Ok(())
}

/// Looks over what the footer says of a file of so many bytes.
///
/// # Errors
/// It says what cannot be.
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
    use super::*;

    /// A file of too many row groups was told by the words of a library, without a remedy.
    #[test]
    fn more_row_groups_than_have_numbers_are_told_with_a_remedy() {
        let footer = |groups: usize| {
            // Field 4: a list of structs, whose length is in three bytes; each of them is empty.
            let length = [groups as u8 | 0x80, (groups >> 7) as u8 | 0x80, (groups >> 14) as u8];
            [&[0x49, 0xfc][..], &length, &vec![0; groups], &[0]].concat()
        };
        check_bytes(&footer(1 << 15)).unwrap();
        let told = check_bytes(&footer(40_000)).unwrap_err().0;
        assert!(told.starts_with("it has 40000 row groups"), "{told}");
        assert!(told.contains("larger row groups"), "{told}");
    }
}
