//! The bytes that values take.

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;

/// The bytes of the values in rows `start..end` of an array, without validity. Takes constant time for flat
/// types and lists of them; views and structs take a step for each row or column.
pub(super) fn bytes(array: &dyn Array, start: usize, end: usize) -> u64 {
    let rows = (end - start) as u64;
    match array.data_type() {
        DataType::Utf8 => spread(array.as_string::<i32>().offsets(), start, end).len() as u64 + 4 * rows,
        DataType::LargeUtf8 => spread(array.as_string::<i64>().offsets(), start, end).len() as u64 + 8 * rows,
        DataType::Binary => spread(array.as_binary::<i32>().offsets(), start, end).len() as u64 + 4 * rows,
        DataType::LargeBinary => spread(array.as_binary::<i64>().offsets(), start, end).len() as u64 + 8 * rows,
        DataType::Utf8View => views(array.as_string_view().views(), start, end) + 16 * rows,
        DataType::BinaryView => views(array.as_binary_view().views(), start, end) + 16 * rows,
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let of = spread(list.offsets(), start, end);
            bytes(list.values(), of.start, of.end) + 4 * rows
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let of = spread(list.offsets(), start, end);
            bytes(list.values(), of.start, of.end) + 8 * rows
        }
        DataType::FixedSizeList(_, length) => {
            let length = *length as usize;
            bytes(array.as_fixed_size_list().values(), start * length, end * length)
        }
        DataType::Map(_, _) => {
            let map = array.as_map();
            let of = spread(map.offsets(), start, end);
            bytes(map.entries(), of.start, of.end) + 4 * rows
        }
        DataType::Struct(_) => of_all(array.as_struct().columns(), start, end),
        DataType::FixedSizeBinary(width) => *width as u64 * rows,
        DataType::Boolean | DataType::Null => rows,
        other => match other.primitive_width() {
            Some(width) => width as u64 * rows,
            // For unions and dictionaries, Arrow's own size of a slice.
            None => array
                .slice(start, end - start)
                .to_data()
                .get_slice_memory_size()
                .unwrap_or_default() as u64,
        },
    }
}

fn of_all(columns: &[ArrayRef], start: usize, end: usize) -> u64 {
    columns.iter().map(|column| bytes(column, start, end)).sum()
}

/// The range of the items of rows `start..end`.
fn spread<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, start: usize, end: usize) -> std::ops::Range<usize> {
    offsets[start].as_usize()..offsets[end].as_usize()
}

/// The lowest four bytes of a view are its length.
fn views(views: &[u128], start: usize, end: usize) -> u64 {
    views[start..end].iter().map(|view| u64::from(*view as u32)).sum()
}

/// The first row whose value takes more than `most` bytes, and how many it takes.
pub(super) fn above(array: &dyn Array, most: u64) -> Option<(usize, u64)> {
    if bytes(array, 0, array.len()) <= most {
        return None;
    }
    (0..array.len())
        .map(|row| (row, bytes(array, row, row + 1)))
        // A kernel may leave bytes behind a null.
        .find(|(row, bytes)| *bytes > most && array.is_valid(*row))
}

/// A size for messages: `64 MiB`, `1.5 MiB`, `100 bytes`.
pub fn shown(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(*unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, ListBuilder, StringArray, StringBuilder, StringViewArray, StructArray};
    use arrow::datatypes::Field;
    use std::sync::Arc;

    #[test]
    fn values_of_slices_are_counted_and_not_their_neighbours() {
        let texts = StringArray::from(vec!["a", "bcd", "", "efghi"]);
        assert_eq!(bytes(&texts, 1, 3), 3 + 8);
        assert_eq!(bytes(&texts.slice(3, 1), 0, 1), 5 + 4);
        assert_eq!(bytes(&StringViewArray::from(vec!["a", "bcd"]), 1, 2), 3 + 16);
        let mut lists = ListBuilder::new(StringBuilder::new());
        for list in [vec!["abc"], vec!["d", "ef"]] {
            list.into_iter().for_each(|text| lists.values().append_value(text));
            lists.append(true);
        }
        let lists = lists.finish();
        assert_eq!(bytes(&lists, 1, 2), 3 + 8 + 4);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let field = Arc::new(Field::new("x", DataType::Int64, true));
        assert_eq!(bytes(&StructArray::from(vec![(field, numbers)]), 0, 1), 8);
        assert_eq!(above(&texts, 8), Some((3, 9)));
        assert_eq!(above(&texts, 100), None);
    }
}
