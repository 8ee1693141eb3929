//! Splits decoded records in two: a front part that is handed over now, and a rest that waits.

use arrow::array::Array;

use crate::decode::decoded::{Decoded, FilePlace, Payloads, Raw, Reject};

impl Raw {
    /// Takes the first records out.
    ///
    /// # Panics
    /// If the payloads are columns, which cannot be split by records.
    fn split_front(&mut self, records: usize) -> Raw {
        let Payloads::Records {
            values,
            keys,
            headers,
            ts_ms,
        } = &mut self.payloads
        else {
            panic!("columnar payloads are not split");
        };
        let rest = values.len() - records;
        let behind = ts_ms.split_off(records);
        let front = Payloads::Records {
            values: values.slice(0, records),
            keys: keys.as_ref().map(|keys| keys.slice(0, records)),
            headers: headers.as_ref().map(|headers| headers.slice(0, records)),
            ts_ms: std::mem::replace(ts_ms, behind),
        };
        *values = values.slice(records, rest);
        *keys = keys.as_ref().map(|keys| keys.slice(records, rest));
        *headers = headers.as_ref().map(|headers| headers.slice(records, rest));
        let behind = self.offsets.split_off(records);
        let cut = self.cut.partition_point(|cut| (cut.record as usize) < records);
        self.cut[cut..].iter_mut().for_each(|cut| cut.record -= records as u32);
        let lines = records.min(self.place.lines.len()); // records that are no text have no lines
        Raw {
            payloads: front,
            offsets: std::mem::replace(&mut self.offsets, behind),
            header: self.header.clone(),
            cut: take_front(&mut self.cut, cut),
            place: FilePlace {
                lines: take_front(&mut self.place.lines, lines),
                ..self.place.clone()
            },
        }
    }
}

impl Decoded {
    /// Takes the first records out, with their changes. All counts of ignored fields go with them.
    ///
    /// # Panics
    /// If the payloads are columns, which cannot be split by records.
    pub fn split_front(&mut self, records: usize) -> Decoded {
        let at = records as u32;
        let raw = self.raw.split_front(records);
        let changes = self.record.partition_point(|record| *record < at);
        let rest = self.rows.num_rows() - changes;
        let front_rows = self.rows.slice(0, changes);
        self.rows = self.rows.slice(changes, rest);
        let mut front = Decoded {
            raw,
            rows: front_rows,
            ops: take_front(&mut self.ops, changes),
            record: take_front(&mut self.record, changes),
            source_ms: take_front(&mut self.source_ms, records),
            rejects: Vec::new(),
            ignored_fields: std::mem::take(&mut self.ignored_fields),
            unchanged: Vec::new(),
            transactions: Vec::new(),
        };
        let unchanged = self.unchanged.partition_point(|(row, _)| (*row as usize) < changes);
        front.unchanged = take_front(&mut self.unchanged, unchanged);
        let transactions = self.transactions.partition_point(|transaction| transaction.record < at);
        front.transactions = take_front(&mut self.transactions, transactions);
        let is_front = |reject: &Reject| reject.record.is_none_or(|record| record < at);
        (front.rejects, self.rejects) = std::mem::take(&mut self.rejects).into_iter().partition(is_front);
        self.record.iter_mut().for_each(|record| *record -= at);
        self.unchanged.iter_mut().for_each(|(row, _)| *row -= changes as u32);
        self.transactions
            .iter_mut()
            .for_each(|transaction| transaction.record -= at);
        self.rejects
            .iter_mut()
            .filter_map(|reject| reject.record.as_mut())
            .for_each(|record| *record -= at);
        front
    }
}

/// Takes the first elements out.
fn take_front<T>(elements: &mut Vec<T>, count: usize) -> Vec<T> {
    let rest = elements.split_off(count);
    std::mem::replace(elements, rest)
}
