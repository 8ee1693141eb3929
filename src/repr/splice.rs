//! Takes columns out of rows without decoding: where each column ends follows from its bytes, so rows are split and
//! assembled by copying.
//!
//! This relies on the encoding of [`RowCodec`](super::RowCodec) (arrow-row, ascending, nulls first). A number is one
//! byte, which is 0 for null, and then the number's bytes. A text is 0 for null, 1 if empty, or else 2 and a sequence
//! of blocks: four of 8 bytes, and then blocks of 32 bytes. Each block is followed by a byte that is 255 if another
//! block follows.

use std::ops::Range;

use arrow::datatypes::DataType;
use smallvec::SmallVec;

use super::Row;

/// The length of a column's encoding.
#[derive(Clone, Copy, Debug)]
enum ColumnWidth {
    /// Always this number of bytes.
    Fixed(usize),
    /// As many bytes as its blocks take.
    Blocks,
}

impl ColumnWidth {
    /// Where the column that begins at `start` ends.
    #[inline]
    fn end(self, row: &[u8], start: usize) -> usize {
        match self {
            ColumnWidth::Fixed(bytes) => start + bytes,
            ColumnWidth::Blocks => blocks_end(row, start),
        }
    }

    fn all(types: &[DataType]) -> Option<Vec<ColumnWidth>> {
        types.iter().map(width).collect()
    }
}

/// Finds nulls in rows.
pub struct Nulls {
    /// The widths of all columns but the last; `None` if there are no columns.
    walked: Option<Vec<ColumnWidth>>,
}

impl Nulls {
    /// For rows of columns of these types. `None` if the width of a type among them is not known.
    pub fn new(types: &[DataType]) -> Option<Self> {
        let walked = match types.split_last() {
            None => None,
            Some((_, others)) => Some(ColumnWidth::all(others)?),
        };
        Some(Nulls { walked })
    }

    /// Whether one of the row's columns is null.
    #[inline]
    pub fn any(&self, row: &[u8]) -> bool {
        let Some(walked) = &self.walked else { return false };
        let mut at = 0;
        for width in walked {
            if row[at] == 0 {
                return true;
            }
            at = width.end(row, at);
        }
        row[at] == 0
    }
}

/// Assembles rows from columns of other rows.
pub struct Splice {
    sources: Vec<SpliceSource>,
    pieces: Vec<Piece>,
    /// Whether all columns come from one source, in the order that they have there.
    in_order: bool,
}

struct SpliceSource {
    /// The widths of the columns whose ends have to be known.
    walked: Vec<ColumnWidth>,
    /// The index of this source's first column start among those of all sources.
    first: usize,
    columns: usize,
}

/// Consecutive columns of a source, which are copied together.
struct Piece {
    source: usize,
    columns: Range<usize>,
}

impl Splice {
    /// For rows of these columns, each given as the (source, column) that it is taken from; `sources` has the types of
    /// the columns of each source. `None` if a width that has to be known is not, as for lists and structs.
    pub fn new(sources: &[Vec<DataType>], columns: &[(usize, usize)]) -> Option<Self> {
        let mut pieces: Vec<Piece> = vec![];
        for (source, column) in columns {
            match pieces.last_mut() {
                Some(piece) if piece.source == *source && piece.columns.end == *column => piece.columns.end += 1,
                _ => pieces.push(Piece {
                    source: *source,
                    columns: *column..column + 1,
                }),
            }
        }
        let mut first = 0;
        let mut made = vec![];
        for (index, types) in sources.iter().enumerate() {
            let own = pieces.iter().filter(|piece| piece.source == index);
            // The start and the end of the whole row are known anyway.
            let ends = own.flat_map(|piece| [piece.columns.start, piece.columns.end]);
            let walked = ends.filter(|end| *end < types.len()).max().unwrap_or(0);
            made.push(SpliceSource {
                walked: ColumnWidth::all(&types[..walked])?,
                first,
                columns: types.len(),
            });
            first += walked + 1;
        }
        let ascend = |pair: &[Piece]| pair[0].columns.end <= pair[1].columns.start;
        Some(Splice {
            in_order: made.len() == 1 && pieces.windows(2).all(ascend),
            sources: made,
            pieces,
        })
    }

    /// Assembles a row from one row of each source.
    #[inline]
    pub fn row(&self, rows: &[&[u8]]) -> Row {
        let parts: SmallVec<[&[u8]; 8]> = self.parts(rows).collect();
        match parts.as_slice() {
            [part] => Row::new(part),
            parts => Row::concat_all(parts),
        }
    }

    /// Makes a row of the only source's row, which is used up: columns that keep their order are moved in place.
    #[inline]
    pub fn cut(&self, mut row: Row) -> Row {
        if !self.in_order {
            return self.row(&[row.bytes()]);
        }
        let starts = self.starts(&[row.bytes()]);
        let ranges: SmallVec<[Range<usize>; 8]> = (self.pieces.iter())
            .map(|piece| self.range(piece, &starts, row.bytes()))
            .collect();
        row.keep(&ranges);
        row
    }

    /// Appends the bytes of the assembled row to `bytes`.
    #[inline]
    pub fn append(&self, rows: &[&[u8]], bytes: &mut Vec<u8>) {
        self.parts(rows).for_each(|part| bytes.extend_from_slice(part));
    }

    #[inline]
    fn parts<'a>(&'a self, rows: &'a [&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
        let starts = self.starts(rows);
        self.pieces.iter().map(move |piece| {
            let row = rows[piece.source];
            &row[self.range(piece, &starts, row)]
        })
    }

    /// Where the columns begin whose starts have to be known, for one source after the other.
    #[inline]
    fn starts(&self, rows: &[&[u8]]) -> SmallVec<[u32; 32]> {
        let mut starts = SmallVec::new();
        for (source, row) in self.sources.iter().zip(rows) {
            let mut at = 0;
            starts.push(0);
            for width in &source.walked {
                at = width.end(row, at);
                starts.push(at as u32);
            }
        }
        starts
    }

    #[inline]
    fn range(&self, piece: &Piece, starts: &[u32], row: &[u8]) -> Range<usize> {
        let source = &self.sources[piece.source];
        let starts = &starts[source.first..];
        let end = match piece.columns.end == source.columns {
            true => row.len(),
            false => starts[piece.columns.end] as usize,
        };
        starts[piece.columns.start] as usize..end
    }
}

/// Where the text or bytes that begin at `start` end.
#[inline]
fn blocks_end(row: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    if row[start] != 2 {
        return at;
    }
    for block in 0.. {
        at += if block < 4 { 8 } else { 32 } + 1;
        if row[at - 1] != u8::MAX {
            break;
        }
    }
    at
}

fn width(data_type: &DataType) -> Option<ColumnWidth> {
    use DataType::*;
    let bytes = match data_type {
        Boolean => 1,
        Utf8 | LargeUtf8 | Binary | LargeBinary => return Some(ColumnWidth::Blocks),
        FixedSizeBinary(bytes) => *bytes as usize,
        other => other.primitive_width()?,
    };
    Some(ColumnWidth::Fixed(1 + bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
        StringArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::{Field, Schema};
    use proptest::prelude::*;

    use super::*;
    use crate::repr::RowCodec;

    fn codec(columns: &[ArrayRef]) -> RowCodec {
        let fields: Vec<Field> = columns
            .iter()
            .map(|column| Field::new("c", column.data_type().clone(), true))
            .collect();
        RowCodec::new(Arc::new(Schema::new(fields))).unwrap()
    }

    fn types(columns: &[ArrayRef]) -> Vec<DataType> {
        columns.iter().map(|column| column.data_type().clone()).collect()
    }

    /// Columns of all kinds, with one row each.
    fn columns() -> impl Strategy<Value = Vec<ArrayRef>> {
        let text = prop::option::of(prop_oneof![
            "[a-z]{0,10}",
            "[a-z]{30,34}",
            "[a-z]{60,70}",
            "\u{fffd}{0,12}"
        ]);
        let bytes = prop::option::of(prop::collection::vec(prop_oneof![Just(0xFFu8), any::<u8>()], 0..70));
        let column = prop_oneof![
            text.prop_map(|text| Arc::new(StringArray::from(vec![text])) as ArrayRef),
            bytes.prop_map(|bytes| Arc::new(BinaryArray::from(vec![bytes.as_deref()])) as ArrayRef),
            any::<Option<i64>>().prop_map(|number| Arc::new(Int64Array::from(vec![number])) as ArrayRef),
            any::<Option<i32>>().prop_map(|number| Arc::new(Int32Array::from(vec![number])) as ArrayRef),
            any::<Option<i32>>().prop_map(|number| Arc::new(Date32Array::from(vec![number])) as ArrayRef),
            any::<Option<bool>>().prop_map(|truth| Arc::new(BooleanArray::from(vec![truth])) as ArrayRef),
            any::<Option<f64>>().prop_map(|number| Arc::new(Float64Array::from(vec![number])) as ArrayRef),
            any::<Option<i64>>().prop_map(|time| Arc::new(TimestampMicrosecondArray::from(vec![time])) as ArrayRef),
            any::<Option<i64>>()
                .prop_map(|number| Arc::new(Decimal128Array::from(vec![number.map(i128::from)])) as ArrayRef),
        ];
        prop::collection::vec(column, 1..7)
    }

    proptest! {
        #[test]
        fn a_spliced_row_is_the_encoding_of_its_columns(
            left in columns(),
            right in columns(),
            picks in prop::collection::vec((0usize..2, any::<prop::sample::Index>()), 0..9),
        ) {
            let sources = [&left, &right];
            let picks: Vec<(usize, usize)> =
                picks.iter().map(|(source, column)| (*source, column.index(sources[*source].len()))).collect();
            let picked: Vec<ArrayRef> = picks.iter().map(|(source, column)| sources[*source][*column].clone()).collect();
            let expected = codec(&picked).encode_rows(&picked, 1).unwrap();
            let rows = sources.map(|columns| codec(columns).encode_rows(columns, 1).unwrap().swap_remove(0));
            let splice = Splice::new(&sources.map(|columns| types(columns)), &picks).expect("types that can be walked");
            let spliced = splice.row(&[rows[0].bytes(), rows[1].bytes()]);
            prop_assert_eq!(&spliced, &expected[0]);
            let mut appended = vec![7];
            splice.append(&[rows[0].bytes(), rows[1].bytes()], &mut appended);
            prop_assert_eq!(&appended[1..], spliced.bytes());
            for (start, column) in left.iter().enumerate() {
                let cut = Splice::new(&[types(&left)], &[(0, start)]).expect("types that can be walked");
                let alone = codec(std::slice::from_ref(column)).encode_rows(std::slice::from_ref(column), 1).unwrap();
                prop_assert_eq!(&cut.cut(rows[0].clone()), &alone[0]);
            }
            let own: Vec<_> = picks.iter().filter(|(source, _)| *source == 0).copied().collect();
            let own = Splice::new(&[types(&left)], &own).expect("types that can be walked");
            prop_assert_eq!(own.cut(rows[0].clone()), own.row(&[rows[0].bytes()]));
            let other: Vec<_> = (0..left.len()).step_by(2).map(|column| (0, column)).collect();
            let other = Splice::new(&[types(&left)], &other).expect("types that can be walked");
            prop_assert_eq!(other.cut(rows[0].clone()), other.row(&[rows[0].bytes()]));
            let nulls = Nulls::new(&types(&left)).expect("types that can be walked");
            prop_assert_eq!(nulls.any(rows[0].bytes()), left.iter().any(|column| column.null_count() == 1));
        }
    }

    #[test]
    fn what_cannot_be_walked_is_refused_only_where_it_stands_in_the_way() {
        let list = DataType::List(Field::new("item", DataType::Int64, true).into());
        let types = [vec![DataType::Int64, list, DataType::Utf8]];
        assert!(Splice::new(&types, &[(0, 2)]).is_none());
        assert!(Splice::new(&types, &[(0, 0)]).is_some());
        assert!(Splice::new(&types, &[(0, 0), (0, 1), (0, 2)]).is_some());
    }
}
