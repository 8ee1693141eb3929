//! These tests build containers byte by byte, because no writer makes damaged ones.

use arrow::array::{Array, AsArray};

use super::*;

const MARKER: SyncMarker = *b"0123456789abcdef";

/// Encodes a number.
fn number(n: i64) -> Vec<u8> {
    let mut rest = ((n << 1) ^ (n >> 63)) as u64;
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn bytes(value: &[u8]) -> Vec<u8> {
    [number(value.len() as i64), value.to_vec()].concat()
}

/// A file's header.
fn header(schema: &str, codec: &str) -> Vec<u8> {
    let entries = [("avro.schema", schema), ("avro.codec", codec)];
    let entries = entries.map(|(key, value)| [bytes(key.as_bytes()), bytes(value.as_bytes())].concat());
    [&b"Obj\x01"[..], &number(2), &entries.concat(), &[0], &MARKER].concat()
}

/// A block with this number of records.
fn block(count: i64, records: &[u8]) -> Vec<u8> {
    [number(count), bytes(records), MARKER.to_vec()].concat()
}

const LONGS: &str = r#"{"type":"record","name":"R","fields":[{"name":"n","type":"long"}]}"#;

/// The sizes of a container's batches, its records (for a damaged block the reason), and how reading ended.
fn read(file: &[u8], next: u64, rows: usize) -> (Vec<usize>, Vec<Vec<u8>>, Option<String>) {
    let (mut lengths, mut records) = (Vec::new(), Vec::new());
    let batches = match read_container(file, next, rows) {
        Ok(batches) => batches,
        Err(error) => return (lengths, records, Some(error.to_string())),
    };
    for batch in batches {
        match batch {
            Ok(batch) => {
                lengths.push(batch.num_rows());
                let column = batch.column(0).as_binary::<i32>();
                let damage = batch.column(1).as_string::<i32>();
                assert!((0..batch.num_rows()).all(|row| column.is_null(row) == damage.is_valid(row)));
                records.extend((0..batch.num_rows()).map(|row| match damage.is_valid(row) {
                    true => damage.value(row).as_bytes().to_vec(),
                    false => column.value(row).to_vec(),
                }));
            }
            Err(error) => return (lengths, records, Some(error.to_string())),
        }
    }
    (lengths, records, None)
}

fn longs(numbers: std::ops::Range<i64>) -> Vec<u8> {
    block(
        numbers.end - numbers.start,
        &numbers.flat_map(number).collect::<Vec<_>>(),
    )
}

fn expected(numbers: std::ops::Range<i64>) -> Vec<Vec<u8>> {
    numbers.map(number).collect()
}

#[test]
fn records_come_in_order_from_any_number_on_in_batches_of_any_size() {
    let file = [header(LONGS, "null"), longs(0..100), longs(100..101), longs(101..300)].concat();
    for (next, rows) in [(0, 1000), (0, 7), (99, 100), (100, 1), (250, 64), (300, 5), (900, 5)] {
        let (lengths, records, broken) = read(&file, next, rows);
        assert_eq!(broken, None);
        assert_eq!(records, expected((next as i64).min(300)..300), "from {next} by {rows}");
        assert!(lengths.iter().all(|length| *length <= rows));
    }
}

/// Everything behind a damaged block was lost with it.
#[test]
fn a_damaged_block_is_told_of_and_those_behind_it_are_read() {
    let block = longs(10..20).len();
    let whole = [header(LONGS, "null"), longs(0..10), longs(10..20), longs(20..30)].concat();
    let second = whole.len() - 2 * block;
    let changed = |at: usize, byte: u8| {
        let mut file = whole.clone();
        file[at] = byte;
        file
    };
    let lost = [&whole[..second + 5], &whole[second + 6..]].concat();
    for (file, reason_part) in [
        // In turn: the last byte of its marker; one record less, and one more; a length that is too long, too short,
        // impossible; a lost byte.
        (
            changed(second + block - 1, 0),
            "the sync marker behind it is not the file's",
        ),
        (
            changed(second, number(9)[0]),
            "it claims 9 records, and has bytes of others",
        ),
        (
            changed(second, number(11)[0]),
            "it ends too early at byte 10 of it, in its record 11",
        ),
        (changed(second + 1, number(60)[0]), "the file ends inside of it"),
        (
            changed(second + 1, number(3)[0]),
            "the sync marker behind it is not the file's",
        ),
        (changed(second + 1, number(-3)[0]), "it claims a length that cannot be"),
        (lost, "the sync marker behind it is not the file's"),
    ] {
        for (next, rows) in [(0, 1000), (0, 3), (5, 1000), (10, 1), (11, 4), (20, 1000)] {
            let (_, records, broken) = read(&file, next, rows);
            assert_eq!(broken, None, "{reason_part}");
            let mut expected = [expected(0..10), vec![Vec::new()], expected(20..30)].concat();
            let next = next as usize;
            if next <= 10 {
                let reason = String::from_utf8(records[10 - next].clone()).unwrap();
                let place = format!("block 2 of the file, at its byte {second}, is damaged");
                assert!(
                    reason.starts_with(&place) && reason.contains(reason_part),
                    "{reason_part}: {reason}"
                );
                expected[10] = records[10 - next].clone();
            }
            assert_eq!(records, expected[next..], "{reason_part}, from {next}");
        }
    }
}

#[test]
fn damage_behind_the_last_marker_ends_the_file_and_so_does_too_much_of_it() {
    let whole = [header(LONGS, "null"), longs(0..10), longs(10..20), longs(20..30)].concat();
    let block = longs(20..30).len();
    let torn = whole[..whole.len() - 20].to_vec();
    let begun = whole[..whole.len() - block + 1].to_vec();
    let zeros = [whole.clone(), vec![0; 100_000]].concat();
    for (file, kept, reason_part) in [
        (
            torn,
            20,
            "is damaged, and no other comes behind it: the file ends inside of it",
        ),
        (
            begun,
            20,
            "is damaged, and no other comes behind it: the file ends inside of it",
        ),
        (
            zeros,
            30,
            "is damaged, and no other comes behind it: the sync marker behind it",
        ),
    ] {
        let (_, records, broken) = read(&file, 0, 1000);
        assert_eq!(records, expected(0..kept));
        assert!(
            broken.as_ref().is_some_and(|broken| broken.contains(reason_part)),
            "{broken:?}"
        );
    }
    // A file of markers only: each counts as a damaged block.
    let markers = [header(LONGS, "null"), MARKER.repeat(10_000)].concat();
    let (_, records, broken) = read(&markers, 0, 1000);
    assert_eq!(records.len(), MOST_DAMAGED);
    assert!(
        broken
            .as_ref()
            .is_some_and(|broken| broken.contains("more than 100 of its blocks")),
        "{broken:?}"
    );
}

#[test]
fn records_without_bytes_and_deep_arrays_end() {
    let nothing = r#"{"type":"record","name":"R","fields":[{"name":"n","type":"null"}]}"#;
    let few = [header(nothing, "null"), block(3, &[])].concat();
    assert_eq!(read(&few, 0, 10).1, vec![Vec::<u8>::new(); 3]);
    let reason = |file: &[u8]| String::from_utf8(read(file, 0, 10).1.concat()).unwrap();
    let endless = [header(nothing, "null"), block(i64::MAX, &[])].concat();
    assert!(reason(&endless).contains("claims more values"));
    let plain = [header("\"null\"", "null"), block(i64::MAX, &[])].concat();
    assert!(
        read(&plain, 0, 10)
            .2
            .is_some_and(|broken| broken.contains("no records"))
    );

    let mut items = "\"null\"".to_string();
    for _ in 0..20 {
        items = format!(r#"{{"type":"array","items":{items}}}"#);
    }
    let deep = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"n","type":{items}}}]}}"#);
    let claims = number(i64::MAX).repeat(20);
    let file = [header(&deep, "null"), block(1, &claims)].concat();
    assert!(reason(&file).contains("claims more values"));

    // Records that contain themselves endlessly without any bytes.
    let tree = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"R"},{"name":"b","type":"null"}]}"#;
    let file = [header(tree, "null"), block(1, &[0; 100_000])].concat();
    assert!(reason(&file).contains("nested deeper than 100000 levels"));
    let list = r#"{"type":"record","name":"R","fields":[{"name":"a","type":["null","R"]}]}"#;
    let long_list = [number(1).repeat(1_000_000), number(0)].concat();
    let file = [header(list, "null"), block(1, &long_list)].concat();
    assert_eq!(read(&file, 0, 10).1, [long_list]);
}

#[test]
fn blocks_of_every_codec_are_unpacked() {
    use std::io::Write;
    let records: Vec<u8> = (0..1000).flat_map(number).collect();
    let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    deflate.write_all(&records).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
    bzip2.write_all(&records).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
    xz.write_all(&records).unwrap();
    let sum = crc32fast::hash(&records).to_be_bytes();
    let snappy = [snap::raw::Encoder::new().compress_vec(&records).unwrap(), sum.to_vec()].concat();
    for (codec, packed) in [
        ("null", records.clone()),
        ("deflate", deflate.finish().unwrap()),
        ("snappy", snappy),
        ("zstandard", zstd::encode_all(&records[..], 3).unwrap()),
        ("bzip2", bzip2.finish().unwrap()),
        ("xz", xz.finish().unwrap()),
    ] {
        let file = [header(LONGS, codec), block(1000, &packed)].concat();
        let (_, read_back, broken) = read(&file, 0, 2000);
        assert_eq!(broken, None, "{codec}");
        assert_eq!(read_back, expected(0..1000), "{codec}");
        let mut damaged = packed.clone();
        let middle = damaged.len() / 2;
        damaged.truncate(middle);
        let file = [header(LONGS, codec), block(1000, &damaged), block(1000, &packed)].concat();
        let (_, read_back, broken) = read(&file, 0, 2000);
        assert_eq!((read_back.len(), broken), (1001, None), "{codec}");
        assert_eq!(read_back[1..], expected(0..1000), "{codec}");
    }
    let file = [header(LONGS, "lzo"), block(1, &[0])].concat();
    assert!(
        read(&file, 0, 10)
            .2
            .is_some_and(|broken| broken.contains("its codec \"lzo\" is not known"))
    );
}

#[test]
fn a_block_that_becomes_a_thousand_times_its_bytes_is_refused() {
    let zeros = zstd::encode_all(std::io::repeat(0).take(100 << 20), 3).unwrap();
    let file = [header(LONGS, "zstandard"), block(100 << 20, &zeros)].concat();
    let message = String::from_utf8(read(&file, 0, 10).1.concat()).unwrap();
    assert!(message.contains("more than 67108864 bytes"), "{message}");
}
