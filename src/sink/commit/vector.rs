//! Deletion vectors: which rows of a data file are gone (Delta protocol, "Deletion Vectors" and "Deletion
//! Vector Format").
//!
//! One file per table and commit holds all its vectors:
//! ```text
//! version 1 : u8, then per vector: size : u32 BE | magic : u32 LE, 64-bit Roaring bitmap | CRC-32 : u32 BE
//! ```
//! `size` counts magic and bitmap, and is the descriptor's `sizeInBytes`; the descriptor's `offset` is where
//! `size` stands. Inline vectors are read (others write them) but not written: their z85 text wants a multiple
//! of four bytes, and readers differ in how they take padding.

use bytes::Bytes;
use roaring::RoaringTreemap;
use thiserror::Error;
use uuid::Uuid;

use crate::sink::DeletionVector;

const FORMAT_VERSION: u8 = 1;
const MAGIC: u32 = 1_681_511_377;

/// A vector that cannot be read.
#[derive(Debug, Error)]
pub enum VectorError {
    /// The vector's bytes are inconsistent.
    #[error("deletion vector {name} is damaged: {reason}; restore the file, or the table to an earlier version")]
    Damaged {
        /// The vector's name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Absolute paths are written by cloning tools only.
    #[error("deletion vector {0} lies outside its table; rewrite the table without absolute vectors first")]
    Absolute(String),
}

/// Packs the vectors of one commit into a file: its bytes, and each vector's descriptor in order.
pub fn pack<'a>(id: Uuid, vectors: impl IntoIterator<Item = &'a RoaringTreemap>) -> (Bytes, Vec<DeletionVector>) {
    let mut bytes = vec![FORMAT_VERSION];
    let name = z85::encode(id.as_bytes());
    let mut descriptors = Vec::new();
    for vector in vectors {
        let offset = bytes.len();
        let size = 4 + vector.serialized_size();
        bytes.extend_from_slice(&(size as u32).to_be_bytes());
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        vector.serialize_into(&mut bytes).expect("a Vec takes all");
        let crc = crc32fast::hash(&bytes[offset + 4..]);
        bytes.extend_from_slice(&crc.to_be_bytes());
        descriptors.push(DeletionVector {
            storage_type: "u".into(),
            path_or_inline_dv: name.clone(),
            offset: Some(i32::try_from(offset).expect("vectors of one commit stay below 2 GiB")),
            size_in_bytes: size as i32,
            cardinality: vector.len() as i64,
        });
    }
    (bytes.into(), descriptors)
}

/// The name of a vector file, relative to its table.
pub fn file_name(id: Uuid) -> String {
    format!("deletion_vector_{id}.bin")
}

/// The file that holds a vector, relative to its table; none for an inline one.
pub fn file_of(vector: &DeletionVector) -> Result<Option<String>, VectorError> {
    match vector.storage_type.as_str() {
        "i" => Ok(None),
        "u" => {
            let text = &vector.path_or_inline_dv;
            let damaged = |reason: &str| VectorError::Damaged {
                name: text.clone(),
                reason: reason.into(),
            };
            let split = text
                .len()
                .checked_sub(20)
                .ok_or_else(|| damaged("its name is too short"))?;
            let (prefix, name) = text
                .split_at_checked(split)
                .ok_or_else(|| damaged("its name is not ASCII"))?;
            let id = z85::decode(name).map_err(|e| damaged(&e.to_string()))?;
            let id = Uuid::from_slice(&id).map_err(|e| damaged(&e.to_string()))?;
            Ok(Some(match prefix {
                "" => file_name(id),
                prefix => format!("{prefix}/{}", file_name(id)),
            }))
        }
        _ => Err(VectorError::Absolute(vector.path_or_inline_dv.clone())),
    }
}

/// Reads a vector out of its file's bytes.
pub fn unpack(file: &[u8], vector: &DeletionVector) -> Result<RoaringTreemap, VectorError> {
    let damaged = |reason: &str| VectorError::Damaged {
        name: vector.path_or_inline_dv.clone(),
        reason: reason.into(),
    };
    let start = vector.offset.unwrap_or(0) as usize;
    let word = |at: usize| -> Option<[u8; 4]> { file.get(at..at + 4)?.try_into().ok() };
    let size = u32::from_be_bytes(word(start).ok_or_else(|| damaged("it is cut off"))?) as usize;
    if size != vector.size_in_bytes as usize {
        return Err(damaged("its size is not its descriptor's"));
    }
    let data = file
        .get(start + 4..start + 4 + size)
        .ok_or_else(|| damaged("it is cut off"))?;
    let crc = word(start + 4 + size).ok_or_else(|| damaged("it is cut off"))?;
    if crc32fast::hash(data) != u32::from_be_bytes(crc) {
        return Err(damaged("its checksum differs"));
    }
    bitmap(data, vector)
}

/// Reads an inline vector.
pub fn inline(vector: &DeletionVector) -> Result<RoaringTreemap, VectorError> {
    let data = z85::decode(&vector.path_or_inline_dv).map_err(|e| VectorError::Damaged {
        name: vector.path_or_inline_dv.clone(),
        reason: e.to_string(),
    })?;
    bitmap(&data, vector)
}

fn bitmap(data: &[u8], vector: &DeletionVector) -> Result<RoaringTreemap, VectorError> {
    let damaged = |reason: String| VectorError::Damaged {
        name: vector.path_or_inline_dv.clone(),
        reason,
    };
    let Some((magic, rest)) = data.split_first_chunk::<4>() else {
        return Err(damaged("it is cut off".into()));
    };
    if u32::from_le_bytes(*magic) != MAGIC {
        return Err(damaged("its magic number differs".into()));
    }
    let bitmap = RoaringTreemap::deserialize_from(rest).map_err(|e| damaged(e.to_string()))?;
    match bitmap.len() as i64 == vector.cardinality {
        true => Ok(bitmap),
        false => Err(damaged("its cardinality is not its descriptor's".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_one_file_read_back_each() {
        let vectors: Vec<RoaringTreemap> = vec![
            [1u64, 3, 5].into_iter().collect(),
            (0..100_000u64).filter(|i| i % 7 == 0).collect(),
            [u64::from(u32::MAX) + 9].into_iter().collect(),
        ];
        let id = Uuid::new_v4();
        let (bytes, descriptors) = pack(id, &vectors);
        assert_eq!(descriptors[0].offset, Some(1));
        for (vector, descriptor) in vectors.iter().zip(&descriptors) {
            assert_eq!(&unpack(&bytes, descriptor).unwrap(), vector);
            assert_eq!(file_of(descriptor).unwrap(), Some(file_name(id)));
        }
    }

    #[test]
    fn an_inline_vector_of_another_writer_reads() {
        // From delta-kernel's tests of deletion vectors.
        let vector = DeletionVector {
            storage_type: "i".into(),
            path_or_inline_dv: "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L".into(),
            offset: None,
            size_in_bytes: 44,
            cardinality: 6,
        };
        let rows: Vec<u64> = inline(&vector).unwrap().iter().collect();
        assert_eq!(rows, [3, 4, 7, 11, 18, 29]);
    }

    #[test]
    fn the_protocols_own_example_of_a_relative_path_resolves() {
        let vector = DeletionVector {
            storage_type: "u".into(),
            path_or_inline_dv: "ab^-aqEH.-t@S}K{vb[*k^".into(),
            offset: Some(4),
            size_in_bytes: 40,
            cardinality: 6,
        };
        let file = file_of(&vector).unwrap().unwrap();
        assert_eq!(file, "ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin");
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let rows: RoaringTreemap = (0..50u64).collect();
        let (bytes, descriptors) = pack(Uuid::new_v4(), [&rows]);
        let mut broken = bytes.to_vec();
        broken[20] ^= 1;
        let error = unpack(&broken, &descriptors[0]).unwrap_err();
        assert!(error.to_string().contains("checksum"), "{error}");
    }
}
