//! Refuses records that are longer than `max_record`: they become dead letters, and their neighbours are decoded
//! without them.
//!
//! Whether a record is too long was decided when it was read, and Bronze stores that decision with the record's first
//! bytes. So a replay refuses the same records for the same reason, even if `max_record` has changed since.

use crate::decode::decoded::{CutRecord, Decoded, Payloads, Raw, Reject};

/// How many bytes of a record longer than `max_record` are kept.
pub(crate) const FIRST_BYTES: usize = 64 << 10;

/// Why such a record becomes a dead letter.
fn reason(cut: &CutRecord) -> String {
    format!(
        "the record has {} bytes, more than max_record allows; its first {} bytes are kept: have its source write smaller \
         records, or raise max_record of its feed and bring it again",
        cut.length,
        cut.length.min(FIRST_BYTES as u64)
    )
}

/// The records of a batch that are not cut.
pub(super) fn whole_records(raw: &Raw) -> Raw {
    let mut whole = vec![true; raw.len()];
    raw.cut.iter().for_each(|cut| whole[cut.record as usize] = false);
    raw.part(|record| whole[record])
}

/// Adds rejects for cut records to what the other records of `raw` decoded to.
pub(super) fn with_cut_records(mut decoded: Decoded, raw: Raw) -> Decoded {
    let mut cut = raw.cut.iter().map(|cut| cut.record).peekable();
    // The index of each uncut record among all records.
    let places: Vec<u32> = (0..raw.len() as u32)
        .filter(|record| cut.next_if_eq(record).is_none())
        .collect();
    let place = |record: &mut u32| *record = places[*record as usize];
    decoded.record.iter_mut().for_each(place);
    decoded
        .transactions
        .iter_mut()
        .for_each(|transaction| place(&mut transaction.record));
    decoded
        .rejects
        .iter_mut()
        .filter_map(|reject| reject.record.as_mut())
        .for_each(place);
    decoded.rejects.extend(raw.cut.iter().map(|cut| Reject {
        record: Some(cut.record),
        reason: reason(cut),
    }));
    decoded.rejects.sort_by_key(|reject| reject.record);
    let mut times = match &raw.payloads {
        Payloads::Records { ts_ms, .. } => ts_ms.clone(),
        Payloads::Columns { .. } => Vec::new(),
    };
    times.resize(raw.len(), None);
    for (place, time) in places.iter().zip(&decoded.source_ms) {
        times[*place as usize] = *time;
    }
    decoded.source_ms = times;
    decoded.raw = raw;
    decoded
}
