//! The pages of a column, looked over before they are read: see `thrift` for why. A page says how many bytes and values it
//! becomes, and its reader makes room for so many before it unpacks it.

use bytes::Bytes;
use parquet::file::metadata::ColumnChunkMetaData;

use super::Damage;
use super::thrift::{Compact, Garbled, Type};

/// Bytes that a byte of a page may become, and how many any page may.
const UNPACKED_PER_BYTE: u64 = 1000;
const UNPACKED: u64 = 64 << 20;

/// Values that a byte of a page of lists may stand for, and how many any such page may have. They may all be of one row, which is
/// read at once; of a column without lists no more is read than a batch has rows.
const VALUES_PER_BYTE: u64 = 1 << 16;
const VALUES: u64 = 16 << 20;

/// How much of a page's header is read at first; headers with long statistics are longer.
const HEAD: u64 = 1 << 10;

/// The longest header: statistics may hold the longest values.
const LONGEST_HEAD: u64 = 64 << 20;

/// What a page's header says.
#[derive(Debug, Default)]
struct Head {
    unpacked: i64,
    packed: i64,
    values: i64,
    dictionary: bool,
}

/// Looks over the pages of a column; `fetch` gives so many bytes of the file from an offset on.
///
/// # Errors
/// A page claims more than its bytes may stand for; or `fetch` fails.
pub(crate) fn check_pages<E: From<Damage>>(
    column: &ColumnChunkMetaData,
    mut fetch: impl FnMut(u64, u64) -> Result<Bytes, E>,
) -> Result<(), E> {
    let (mut at, length) = column.byte_range();
    let end = at.saturating_add(length);
    let damage = |what: &str| {
        let path = column.column_path().string();
        E::from(Damage(format!("a page of its column {path:?} is damaged: {what}")))
    };
    while at < end {
        let mut wanted = HEAD;
        let (head, header) = loop {
            let wanted_here = wanted.min(end - at);
            let bytes = fetch(at, wanted_here)?;
            let mut compact = Compact::new(&bytes);
            match read_head(&mut compact) {
                Ok(head) => break (head, compact.at as u64),
                Err(Garbled::Claims(what)) => return Err(damage(what)),
                Err(Garbled::Ended) if wanted_here == end - at || wanted >= LONGEST_HEAD => {
                    return Err(damage("its header does not end"));
                }
                Err(Garbled::Ended) => wanted *= 16,
            }
        };
        let (Ok(packed), Ok(unpacked), Ok(values)) = (
            u64::try_from(head.packed),
            u64::try_from(head.unpacked),
            u64::try_from(head.values),
        ) else {
            return Err(damage("it has a negative length"));
        };
        if unpacked > packed.saturating_mul(UNPACKED_PER_BYTE).max(UNPACKED) {
            return Err(damage(&format!("{packed} bytes claim to become {unpacked}")));
        }
        let most = match (head.dictionary, column.column_descr().max_rep_level()) {
            (true, _) => unpacked.saturating_add(1),
            (false, 0) => u64::MAX,
            _ => packed.saturating_mul(VALUES_PER_BYTE).max(VALUES),
        };
        if values > most {
            return Err(damage(&format!("{packed} bytes claim to be {values} values")));
        }
        at = at.saturating_add(header + packed);
    }
    Ok(())
}

fn read_head(compact: &mut Compact<'_>) -> Result<Head, Garbled> {
    let mut head = Head::default();
    let mut last = 0;
    while let Some((field, of)) = compact.field(&mut last)? {
        match (field, of) {
            (2, Type::Integer) => head.unpacked = compact.integer()?,
            (3, Type::Integer) => head.packed = compact.integer()?,
            // Headers of data pages, dictionaries and data pages of the second version begin with their values' number.
            (5 | 7 | 8, Type::Struct) => {
                head.dictionary = field == 7;
                let mut last = 0;
                while let Some((field, of)) = compact.field(&mut last)? {
                    match (field, of) {
                        (1, Type::Integer) => head.values = compact.integer()?,
                        _ => compact.skip(of)?,
                    }
                }
            }
            _ => compact.skip(of)?,
        }
    }
    Ok(head)
}
