//! A change of an input's key, encoded as bytes: `u32 length(order) ++ order ++ arrival ++ flag ++ [until] ++
//! [unchanged] ++ row`.
//!
//! - `order`: the `order_by` columns, arrow-row encoded (ascending, nulls first).
//! - `arrival`: feed u16, epoch u64, partition hash u32, offset u64, sub-index u16, big-endian.
//! - `until`: u64, only if retention expires the row (a bit of the flag says so).
//! - `unchanged`: u16 number, then a u16 for each column that the source left out; only if there are any (another
//!   bit).
//!
//! `order ++ arrival` is the version: its bytes compare by `order_by`, then by the feeds' order in the definition,
//! then by arrival. All parts come from what Bronze keeps, so a batch recomputation orders changes alike.

use crate::repr::{Epoch, Row};

/// The effect of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Flag {
    /// The key has this row.
    Live = 0,
    /// The key is gone.
    Gone = 1,
    /// The key is gone, without an `order_by` value that says as of when: it removes whatever row exists when it
    /// arrives.
    GoneUnordered = 2,
    /// Everything that arrived before it is gone.
    Truncate = 3,
    /// Created by the operator itself: state that has expired by then may be forgotten.
    Forget = 4,
}

/// Where and when a change arrived. It is ordered by epoch first, so it refines the graph's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// The epoch at which it arrived.
    pub epoch: Epoch,
    /// Index into `Input::feeds`.
    pub feed: u16,
    /// Hash of the partition's name.
    pub partition: u32,
    /// The record's offset.
    pub offset: u64,
    /// The number of the change within its record.
    pub sub: u16,
}

const ARRIVAL: usize = 24;
/// The flag's bit that says that `until` follows.
const ENDS: u8 = 0x80;
/// The flag's bit that says that `unchanged` follows.
const PARTIAL: u8 = 0x40;

impl Arrival {
    fn bytes(&self) -> [u8; ARRIVAL] {
        let mut bytes = [0; ARRIVAL];
        bytes[0..2].copy_from_slice(&self.feed.to_be_bytes());
        bytes[2..10].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[10..14].copy_from_slice(&self.partition.to_be_bytes());
        bytes[14..22].copy_from_slice(&self.offset.to_be_bytes());
        bytes[22..24].copy_from_slice(&self.sub.to_be_bytes());
        bytes
    }
}

/// The parts of a change to encode.
pub struct ChangeParts<'a> {
    /// The `order_by` columns.
    pub order: &'a [u8],
    /// Where and when it arrived.
    pub arrival: Arrival,
    /// Its effect.
    pub flag: Flag,
    /// The first epoch at which retention has expired the row; `Epoch::MAX`: never.
    pub until: Epoch,
    /// Columns whose values the source left out: they take the values of the current row.
    pub unchanged: &'a [u16],
    /// The input's row.
    pub row: &'a [u8],
}

/// Encodes a change.
pub fn encode(buffer: &mut Vec<u8>, parts: &ChangeParts<'_>) -> Row {
    buffer.clear();
    buffer.extend_from_slice(&(parts.order.len() as u32).to_le_bytes());
    buffer.extend_from_slice(parts.order);
    buffer.extend_from_slice(&parts.arrival.bytes());
    let ends = if parts.until == Epoch::MAX { 0 } else { ENDS };
    let partial = if parts.unchanged.is_empty() { 0 } else { PARTIAL };
    buffer.push(parts.flag as u8 | ends | partial);
    if ends != 0 {
        buffer.extend_from_slice(&parts.until.to_be_bytes());
    }
    if partial != 0 {
        buffer.extend_from_slice(&(parts.unchanged.len() as u16).to_be_bytes());
        for column in parts.unchanged {
            buffer.extend_from_slice(&column.to_be_bytes());
        }
    }
    buffer.extend_from_slice(parts.row);
    Row::new(buffer)
}

/// An encoded change.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    bytes: &'a [u8],
    order: usize,
}

impl<'a> Change<'a> {
    /// Wraps the bytes that [`encode`] wrote.
    #[inline]
    pub fn read(bytes: &'a [u8]) -> Self {
        let (length, bytes) = bytes.split_first_chunk::<4>().expect("a change starts with a length");
        Change {
            bytes,
            order: u32::from_le_bytes(*length) as usize,
        }
    }

    /// The `order_by` columns.
    pub fn order(&self) -> &'a [u8] {
        &self.bytes[..self.order]
    }

    /// The version; the greater one is newer.
    #[inline]
    pub fn version(&self) -> &'a [u8] {
        &self.bytes[..self.order + ARRIVAL]
    }

    /// The change's effect.
    #[inline]
    pub fn flag(&self) -> Flag {
        match self.bytes[self.order + ARRIVAL] & !(ENDS | PARTIAL) {
            0 => Flag::Live,
            1 => Flag::Gone,
            2 => Flag::GoneUnordered,
            3 => Flag::Truncate,
            _ => Flag::Forget,
        }
    }

    /// The first epoch at which retention has expired the row; `Epoch::MAX`: never.
    #[inline]
    pub fn until(&self) -> Epoch {
        match (self.has(ENDS), self.rest().first_chunk()) {
            (true, Some(until)) => Epoch::from_be_bytes(*until),
            _ => Epoch::MAX,
        }
    }

    /// The input's row.
    #[inline]
    pub fn row(&self) -> &'a [u8] {
        let rest = self.behind_until();
        match self.has(PARTIAL) {
            true => &rest[2 + 2 * self.unchanged().len()..],
            false => rest,
        }
    }

    /// Columns whose values the source left out.
    pub fn unchanged(&self) -> impl ExactSizeIterator<Item = usize> + 'a {
        let rest = self.behind_until();
        let columns = match self.has(PARTIAL) {
            true => &rest[2..2 + 2 * usize::from(u16::from_be_bytes([rest[0], rest[1]]))],
            false => &[],
        };
        columns
            .chunks_exact(2)
            .map(|c| usize::from(u16::from_be_bytes([c[0], c[1]])))
    }

    fn has(&self, bit: u8) -> bool {
        self.bytes[self.order + ARRIVAL] & bit != 0
    }

    fn behind_until(&self) -> &'a [u8] {
        &self.rest()[if self.has(ENDS) { size_of::<Epoch>() } else { 0 }..]
    }

    /// The bytes after the flag.
    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.order + ARRIVAL + 1..]
    }

    /// Where and when it arrived.
    #[inline]
    pub fn arrival(&self) -> Arrival {
        let at = |range: std::ops::Range<usize>| {
            let mut number = [0u8; 8];
            let bytes = &self.bytes[self.order + range.start..self.order + range.end];
            number[8 - bytes.len()..].copy_from_slice(bytes);
            u64::from_be_bytes(number)
        };
        Arrival {
            feed: at(0..2) as u16,
            epoch: at(2..10),
            partition: at(10..14) as u32,
            offset: at(14..22),
            sub: at(22..24) as u16,
        }
    }
}
