//! Sorts rows by numbers that hold their first bytes. A sort that follows a pointer for each row that it compares
//! spends most of its time waiting for memory.

use std::cmp::Ordering;

use super::Update;

/// The first bytes of a row as numbers that compare as the bytes do. Sixteen bytes hold a short text and most of a
/// number behind it; with eight, rows themselves would be compared about twice as often.
pub type Prefix = (u64, u64);

/// Puts the indices `0..count` into `order`, sorted by the bytes of their rows, and then by `then`, which is called
/// only for rows with equal prefixes. Prefixes leave out the bytes that all rows begin with.
pub fn sort<'a>(
    order: &mut Vec<(Prefix, u32)>,
    count: usize,
    bytes: impl Fn(usize) -> &'a [u8],
    then: impl Fn(usize, usize) -> Ordering,
) {
    // Rows of one table often have a common beginning, and differ only behind it.
    let first = if count > 0 { bytes(0) } else { &[] };
    let alike = (1..count).fold(first.len(), |alike, index| common(&first[..alike], bytes(index)));
    let position = |index| u32::try_from(index).expect("fewer than 2^32 rows are sorted at once");
    order.clear();
    order.extend((0..count).map(|index| (prefix(&bytes(index)[alike..]), position(index))));
    order.sort_unstable_by(|(left_prefix, left), (right_prefix, right)| {
        left_prefix
            .cmp(right_prefix)
            .then_with(|| then(*left as usize, *right as usize))
    });
}

/// Adds up the differences of equal rows at equal times, drops those that cancel, and sorts the rest by row and time.
pub fn consolidate(updates: &mut Vec<Update>) {
    let compare = |a: usize, b: usize| (&updates[a].0, updates[a].1).cmp(&(&updates[b].0, updates[b].1));
    let mut order = vec![];
    sort(&mut order, updates.len(), |index| updates[index].0.bytes(), compare);
    let mut summed: Vec<Update> = Vec::with_capacity(updates.len());
    for (_, index) in order {
        let (row, time, diff) = std::mem::take(&mut updates[index as usize]);
        match summed.last_mut() {
            Some(last) if last.1 == time && last.0 == row => last.2 += diff,
            _ => summed.push((row, time, diff)),
        }
    }
    summed.retain(|(_, _, diff)| *diff != 0);
    *updates = summed;
}

/// The length of the common beginning.
#[inline]
fn common(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

/// The first bytes, padded with zeros.
#[inline]
fn prefix(bytes: &[u8]) -> Prefix {
    let bits = match bytes.first_chunk::<16>() {
        Some(bytes) => u128::from_be_bytes(*bytes),
        None => (0..16).fold(0, |prefix, index| {
            prefix << 8 | u128::from(bytes.get(index).copied().unwrap_or(0))
        }),
    };
    ((bits >> 64) as u64, bits as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repr::Row;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn positions_are_in_the_order_of_their_rows(
            beginning in vec(0u8..2, 0..20),
            rows in vec(vec(0u8..3, 0..24), 0..60),
        ) {
            let rows: Vec<Vec<u8>> = rows.into_iter().map(|row| [beginning.clone(), row].concat()).collect();
            let mut order = vec![];
            sort(&mut order, rows.len(), |index| &rows[index], |left, right| {
                rows[left].cmp(&rows[right]).then(left.cmp(&right))
            });
            let mut expected: Vec<usize> = (0..rows.len()).collect();
            expected.sort_by(|left, right| rows[*left].cmp(&rows[*right]));
            let sorted: Vec<usize> = order.iter().map(|(_, index)| *index as usize).collect();
            prop_assert_eq!(sorted, expected);
        }

        #[test]
        fn consolidated_updates_are_those_of_differential(
            updates in vec((vec(0u8..2, 0..40), 0u64..3, -1i64..2), 0..60),
        ) {
            let mut updates: Vec<Update> =
                updates.into_iter().map(|(row, time, diff)| (Row::new(&row), time, diff)).collect();
            let mut expected = updates.clone();
            differential_dataflow::consolidation::consolidate_updates(&mut expected);
            consolidate(&mut updates);
            prop_assert_eq!(updates, expected);
        }
    }
}
