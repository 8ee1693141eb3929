//! Containers are made here byte by byte, since no writer makes damaged ones.

use arrow::array::AsArray;

use super::*;

const MARKER: Marker = *b"0123456789abcdef";

/// A number as Avro writes it.
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

/// A block of so many records.
fn block(count: i64, records: &[u8]) -> Vec<u8> {
    [number(count), bytes(records), MARKER.to_vec()].concat()
}

const LONGS: &str = r#"{"type":"record","name":"R","fields":[{"name":"n","type":"long"}]}"#;

/// The numbers that a container of [`LONGS`] gives, and how its reading ended.
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
                records.extend(column.iter().map(|record| record.unwrap().to_vec()));
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

#[test]
fn what_is_before_a_damaged_block_is_kept_and_the_damage_is_named() {
    let whole = [header(LONGS, "null"), longs(0..10), longs(10..20), longs(20..30)].concat();
    let block = longs(20..30).len();
    // The marker behind the second block.
    let mut marker = whole.clone();
    let at = whole.len() - block - 1;
    marker[at] ^= 1;
    // The third block says one record less, and one more.
    let counts = [9, 11].map(|count| {
        let mut changed = whole.clone();
        changed[whole.len() - block] = number(count)[0];
        changed
    });
    let torn = whole[..whole.len() - 20].to_vec();
    for (file, kept, told) in [
        (marker, 10, "the sync marker behind its block 2"),
        (counts[0].clone(), 20, "it claims 9 records, and has bytes of others"),
        (
            counts[1].clone(),
            20,
            "it ends too early at byte 10 of it, in its record 11",
        ),
        (torn, 20, "its block 3 is torn"),
        (whole[..whole.len() - block + 1].to_vec(), 20, "its block 3 is torn"),
    ] {
        let (_, records, broken) = read(&file, 0, 1000);
        assert_eq!(records, expected(0..kept));
        assert!(
            broken.as_ref().is_some_and(|broken| broken.contains(told)),
            "{broken:?}"
        );
    }
}

#[test]
fn records_without_bytes_and_deep_arrays_end() {
    let nothing = r#"{"type":"record","name":"R","fields":[{"name":"n","type":"null"}]}"#;
    let few = [header(nothing, "null"), block(3, &[])].concat();
    assert_eq!(read(&few, 0, 10).1, vec![Vec::<u8>::new(); 3]);
    let endless = [header(nothing, "null"), block(i64::MAX, &[])].concat();
    assert!(
        read(&endless, 0, 10)
            .2
            .is_some_and(|broken| broken.contains("claims more values"))
    );
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
    assert!(
        read(&file, 0, 10)
            .2
            .is_some_and(|broken| broken.contains("claims more values"))
    );
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
        let file = [header(LONGS, codec), block(1000, &damaged)].concat();
        assert!(read(&file, 0, 2000).2.is_some(), "{codec}");
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
    assert!(
        read(&file, 0, 10)
            .2
            .is_some_and(|broken| broken.contains("more than 67108864 bytes"))
    );
}
