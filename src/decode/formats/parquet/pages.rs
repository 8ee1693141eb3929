//! Validates the pages of a column before they are read; `thrift` explains why. A page claims how many bytes and
//! values it decompresses to, and the reader allocates for these before it decompresses. Pages with checksums are
//! verified here, because the reader does not do that: a changed byte in an uncompressed page would silently become
//! another value.

use bytes::Bytes;
use parquet::file::metadata::ColumnChunkMetaData;

use crate::decode::formats::parquet::Damage;
use crate::decode::formats::parquet::thrift::{Compact, ThriftError, ThriftType};

/// How many bytes each byte of a page may decompress to, and the least limit for a whole page.
const UNPACKED_PER_BYTE: u64 = 1000;
const UNPACKED: u64 = 64 << 20;

/// How many values each byte of a page may stand for if the column has lists, and the least limit for a whole page.
/// All of these values may belong to one row, which is read at once; without lists, no more is read than the rows of
/// a batch.
const VALUES_PER_BYTE: u64 = 1 << 16;
const VALUES: u64 = 16 << 20;

/// How much of a page's header is read at first; only headers with long statistics are longer.
const HEAD: u64 = 1 << 10;

/// The longest header; its statistics may contain the longest values.
const LONGEST_HEAD: u64 = 64 << 20;

/// The content of a page's header.
#[derive(Debug, Default)]
struct PageHeader {
    unpacked: i64,
    packed: i64,
    values: i64,
    dictionary: bool,
    /// The checksum of the page's bytes as stored, behind the header.
    checksum: Option<u32>,
}

/// How much of a page is read at once to compute its checksum.
const PIECE: u64 = 1 << 20;

/// Validates the pages of a column; `fetch` returns a number of bytes of the file from an offset on.
///
/// # Errors
/// A page claims more than its bytes may stand for, or does not match its checksum; or `fetch` fails.
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
                Err(ThriftError::Claims(what)) => return Err(damage(what)),
                Err(ThriftError::Ended) if wanted_here == end - at || wanted >= LONGEST_HEAD => {
                    return Err(damage("its header does not end"));
                }
                Err(ThriftError::Ended) => wanted *= 16,
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
        let (body, next) = (at + header, at.saturating_add(header + packed));
        // A page that extends beyond its column is left to the reader, which knows writers with such a miscount.
        if let Some(checksum) = head.checksum.filter(|_| next <= end) {
            let mut hasher = crc32fast::Hasher::new();
            let mut from = body;
            while from < next {
                let length = PIECE.min(next - from);
                hasher.update(&fetch(from, length)?);
                from += length;
            }
            if hasher.finalize() != checksum {
                return Err(damage("its bytes are not those that its checksum was made of"));
            }
        }
        at = next;
    }
    Ok(())
}

fn read_head(compact: &mut Compact<'_>) -> Result<PageHeader, ThriftError> {
    let mut head = PageHeader::default();
    let mut last = 0;
    while let Some((field, of)) = compact.field(&mut last)? {
        match (field, of) {
            (2, ThriftType::Integer) => head.unpacked = compact.integer()?,
            (3, ThriftType::Integer) => head.packed = compact.integer()?,
            (4, ThriftType::Integer) => head.checksum = Some(compact.integer()? as u32),
            // The headers of all three kinds of pages begin with the number of values.
            (5 | 7 | 8, ThriftType::Struct) => {
                head.dictionary = field == 7;
                let mut last = 0;
                while let Some((field, of)) = compact.field(&mut last)? {
                    match (field, of) {
                        (1, ThriftType::Integer) => head.values = compact.integer()?,
                        _ => compact.skip(of)?,
                    }
                }
            }
            _ => compact.skip(of)?,
        }
    }
    Ok(head)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use std::sync::Arc;

    use parquet::basic::Type as Physical;
    use parquet::schema::types::{ColumnDescriptor, ColumnPath, Type as Schema};

    use super::*;

    /// A page with a checksum, in Thrift's compact protocol.
    fn page(body: &[u8], checksum: Option<u32>) -> Vec<u8> {
        let mut page = Vec::new();
        let integer = |page: &mut Vec<u8>, tag: u8, n: i32| {
            page.push(tag);
            let mut left = ((n << 1) ^ (n >> 31)) as u32;
            while left > 0x7f {
                page.push(left as u8 | 0x80);
                left >>= 7;
            }
            page.push(left as u8);
        };
        integer(&mut page, 0x15, 0);
        integer(&mut page, 0x15, body.len() as i32);
        integer(&mut page, 0x15, body.len() as i32);
        if let Some(checksum) = checksum {
            integer(&mut page, 0x15, checksum as i32);
        }
        page.push(if checksum.is_some() { 0x1c } else { 0x2c });
        integer(&mut page, 0x15, 1);
        page.extend([0, 0]);
        page.extend(body);
        page
    }

    fn checked(file: &[u8]) -> Result<(), Damage> {
        let of = Schema::primitive_type_builder("n", Physical::BYTE_ARRAY)
            .build()
            .unwrap();
        let column = ColumnDescriptor::new(Arc::new(of), 0, 0, ColumnPath::from("n"));
        let column = ColumnChunkMetaData::builder(Arc::new(column))
            .set_data_page_offset(0)
            .set_total_compressed_size(file.len() as i64)
            .build()
            .unwrap();
        check_pages(&column, |start, length| {
            Ok::<_, Damage>(Bytes::copy_from_slice(&file[start as usize..(start + length) as usize]))
        })
    }

    /// In a file with checksums, a changed letter silently became another text.
    #[test]
    fn a_page_with_other_bytes_than_its_checksum_says_is_damage() {
        let bodies = [b"value-00500".to_vec(), vec![7; 3 << 20]];
        for body in bodies {
            let checksum = crc32fast::hash(&body);
            let mut file = page(b"first", Some(crc32fast::hash(b"first")));
            file.extend(page(&body, Some(checksum)));
            assert!(checked(&file).is_ok());
            *file.last_mut().unwrap() ^= 1;
            let Err(Damage(message)) = checked(&file) else {
                panic!("a changed byte was not seen");
            };
            assert!(message.contains("\"n\"") && message.contains("checksum"), "{message}");
            let mut without = page(&body, None);
            *without.last_mut().unwrap() ^= 1;
            assert!(checked(&without).is_ok(), "there is nothing to compare it with");
        }
    }
}
