//! Selects records of a batch.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::{filter, filter_record_batch};

use crate::decode::decoded::{FilePlace, Payloads, Raw};

impl Raw {
    /// The selected records in their order. Cut records are not carried over, because decoders never get any.
    pub(super) fn part(&self, kept: impl Fn(usize) -> bool) -> Raw {
        let kept: Vec<bool> = (0..self.len()).map(kept).collect();
        Raw {
            payloads: self.payloads.part(&kept),
            offsets: picked(&self.offsets, &kept),
            header: self.header.clone(),
            cut: Vec::new(),
            place: FilePlace {
                lines: picked(&self.place.lines, &kept),
                ..self.place.clone()
            },
        }
    }
}

impl Payloads {
    fn part(&self, kept: &[bool]) -> Payloads {
        let mask = BooleanArray::from(kept.to_vec());
        let rows =
            |array: &dyn Array| -> ArrayRef { filter(array, &mask).expect("a mask has a value for each record") };
        match self {
            Payloads::Records {
                values,
                keys,
                headers,
                ts_ms,
            } => Payloads::Records {
                values: rows(values).as_binary::<i32>().clone(),
                keys: keys.as_ref().map(|keys| rows(keys).as_binary::<i32>().clone()),
                headers: headers.as_ref().map(|headers| rows(headers).as_string::<i32>().clone()),
                ts_ms: picked(ts_ms, kept),
            },
            Payloads::Columns { batch, path, tag } => Payloads::Columns {
                batch: filter_record_batch(batch, &mask).expect("a mask has a value for each record"),
                path: path.clone(),
                tag: tag.clone(),
            },
        }
    }
}

/// The selected elements; the property is known either for all records of a batch or for none.
fn picked<T: Copy>(known: &[T], kept: &[bool]) -> Vec<T> {
    let known = known.iter().zip(kept);
    known.filter(|(_, kept)| **kept).map(|(known, _)| *known).collect()
}
