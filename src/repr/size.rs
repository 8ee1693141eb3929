//! How many bytes of memory the values of rows take. Memory that slices share is counted only for the rows that use
//! it, and for each of them, so the size of a row does not depend on the rows beside it.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait, RecordBatch};
use arrow::datatypes::{
    ArrowNativeType, BinaryType, BinaryViewType, ByteArrayType, ByteViewType, DataType, LargeBinaryType, LargeUtf8Type,
    StringViewType, Utf8Type,
};

/// The size of all rows of a batch in bytes.
pub fn batch_bytes(batch: &RecordBatch) -> u64 {
    rows_bytes(batch.columns(), 0..batch.num_rows())
}

/// The size of a range of rows in bytes.
pub fn rows_bytes(columns: &[ArrayRef], rows: Range<usize>) -> u64 {
    columns.iter().map(|column| bytes(column, rows.clone())).sum()
}

/// Splits a batch into slices of at most about `most` bytes each, or of one larger row.
pub fn batch_slices(batch: &RecordBatch, most: u64) -> Vec<RecordBatch> {
    if batch_bytes(batch) <= most {
        return vec![batch.clone()];
    }
    let mut slices = Vec::new();
    let (mut start, mut taken) = (0, 0);
    for row in 0..batch.num_rows() {
        let bytes = rows_bytes(batch.columns(), row..row + 1);
        if row > start && taken + bytes > most {
            slices.push(batch.slice(start, row - start));
            (start, taken) = (row, 0);
        }
        taken += bytes;
    }
    slices.push(batch.slice(start, batch.num_rows() - start));
    slices
}

fn bytes(array: &ArrayRef, rows: Range<usize>) -> u64 {
    let count = rows.len() as u64;
    match array.data_type() {
        DataType::Null => 0,
        DataType::Boolean => count,
        DataType::Utf8 => of_texts::<Utf8Type>(array, rows),
        DataType::LargeUtf8 => of_texts::<LargeUtf8Type>(array, rows),
        DataType::Binary => of_texts::<BinaryType>(array, rows),
        DataType::LargeBinary => of_texts::<LargeBinaryType>(array, rows),
        DataType::Utf8View => of_views::<StringViewType>(array, rows),
        DataType::BinaryView => of_views::<BinaryViewType>(array, rows),
        DataType::FixedSizeBinary(width) => count * u64::from(width.unsigned_abs()),
        DataType::List(_) => of_lists(array.as_list::<i32>(), rows),
        DataType::LargeList(_) => of_lists(array.as_list::<i64>(), rows),
        DataType::FixedSizeList(_, size) => {
            let size = size.unsigned_abs() as usize;
            bytes(array.as_fixed_size_list().values(), rows.start * size..rows.end * size)
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let offsets = map.value_offsets();
            let inner = offsets[rows.start] as usize..offsets[rows.end] as usize;
            rows_bytes(map.entries().columns(), inner)
        }
        DataType::Struct(_) => rows_bytes(array.as_struct().columns(), rows),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let (keys, values) = (dictionary.normalized_keys(), dictionary.values());
            let present = rows.filter(|row| dictionary.keys().is_valid(*row));
            present.map(|row| bytes(values, keys[row]..keys[row] + 1)).sum()
        }
        other => match other.primitive_width() {
            Some(width) => count * width as u64,
            // Parquet and Avro files have no other types.
            None => array.slice(rows.start, rows.len()).get_array_memory_size() as u64,
        },
    }
}

fn of_texts<T: ByteArrayType>(array: &ArrayRef, rows: Range<usize>) -> u64 {
    let offsets = array.as_bytes::<T>().value_offsets();
    (offsets[rows.end].as_usize() - offsets[rows.start].as_usize()) as u64
}

fn of_views<T: ByteViewType>(array: &ArrayRef, rows: Range<usize>) -> u64 {
    // The lower half of a view's first 64-bit word is the length of its value.
    let views = &array.as_byte_view::<T>().views()[rows];
    views.iter().map(|view| u64::from(*view as u32)).sum()
}

fn of_lists<O: OffsetSizeTrait>(lists: &GenericListArray<O>, rows: Range<usize>) -> u64 {
    let offsets = lists.value_offsets();
    bytes(
        lists.values(),
        offsets[rows.start].as_usize()..offsets[rows.end].as_usize(),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int32Array, ListArray, StringArray, StringViewArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn a_row_is_as_large_as_its_own_values() {
        let long = "x".repeat(100);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["a", &long, "bc"])),
            Arc::new(StringViewArray::from(vec!["a", &long, "bc"])),
            Arc::new(DictionaryArray::<Int32Type>::new(
                Int32Array::from(vec![Some(1), Some(0), None]),
                Arc::new(StringArray::from(vec![long.as_str(), "bc"])),
            )),
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
                Some(vec![Some(1)]),
                None,
                Some(vec![Some(2), None]),
            ])),
        ];
        let sizes = |rows: Range<usize>| -> Vec<u64> { columns.iter().map(|c| bytes(c, rows.clone())).collect() };
        assert_eq!(sizes(0..1), [1, 1, 2, 4]);
        assert_eq!(sizes(1..2), [100, 100, 100, 0]);
        assert_eq!(sizes(0..3), [103, 103, 102, 12]);
        let batch = RecordBatch::try_from_iter(["a", "b", "c", "d"].into_iter().zip(columns.clone())).unwrap();
        let slices = |most| -> Vec<usize> { batch_slices(&batch, most).iter().map(RecordBatch::num_rows).collect() };
        assert_eq!(
            (slices(1000), slices(308), slices(10)),
            (vec![3], vec![2, 1], vec![1, 1, 1])
        );
        let sliced: Vec<ArrayRef> = columns.iter().map(|c| c.slice(2, 1)).collect();
        assert_eq!(rows_bytes(&sliced, 0..1), 2 + 2 + 8);
    }
}
