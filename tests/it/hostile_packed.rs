//! Tests the dead letters of files in unsupported compressions, and of files with damaged compressed bytes.

use std::io::Write;

use crate::hostile_text::{folder, gzipped, put, take, utf16};
use crate::lake::ask;

fn bytes_of(hex: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a digit") as u8;
    hex.as_bytes()
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

/// The letter said that the header is not UTF-8 and advised another encoding, or the bytes became a row of strange
/// characters.
#[test]
fn a_compression_that_is_not_read_is_named_with_what_to_do() {
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(b"k,x\na,1\nb,2\n").expect("memory takes it");
    let zlib = zlib.finish().expect("memory takes it");
    let hadoop = [&b"\0\0\0\x08\0\0\0\x0a\x08\x1c"[..], b"k,x\na,1\n"].concat();
    let lzma = bytes_of("5d00008000ffffffffffffffff00358b1c");
    let brotli = bytes_of("0b0580");
    let files = [
        (
            "a.csv",
            zlib,
            "it is compressed by zlib; compress it by zstd or gzip instead",
        ),
        ("b.csv.snappy", hadoop, "by snappy in Hadoop's framing"),
        (
            "c.csv",
            lzma,
            "it is compressed by lzma; compress it by xz, zstd or gzip instead",
        ),
        (
            "d.csv.br",
            [brotli, b"k,x\na,1\n\x03".to_vec()].concat(),
            "compressed by brotli, which is not read",
        ),
        (
            "e.csv.bz2",
            b"BZh9\x31\x41\x59\x26\x53\x58\x01\x02".to_vec(),
            "by bzip2, and damaged where its first block begins",
        ),
        (
            "f.csv",
            utf16("k,x\na,1\n", false),
            "it looks UTF-16, without a byte order mark",
        ),
        (
            "g.csv",
            b"\xff\xfe\0\0k\0\0\0,\0\0\0x\0\0\0".to_vec(),
            "it is text in UTF-32; write it in UTF-8",
        ),
    ];
    let folder = folder("");
    put(&folder, "good.csv", "k,x\ng,1\n");
    for (name, bytes, _) in &files {
        put(&folder, name, bytes);
    }
    let (rows, letters) = take(&folder);
    assert_eq!(rows, "g,1");
    assert_eq!(letters.lines().count(), files.len(), "{letters}");
    for (name, _, told) in &files {
        let is_told = |line: &str| line.contains(name) && line.contains(told);
        assert!(letters.lines().any(is_told), "{name}: {told}\n{letters}");
    }
}

/// Damaged bytes were judged as a header: the letter advised to set an encoding.
#[test]
fn a_damaged_beginning_of_a_packed_file_is_no_header() {
    let folder = folder("");
    let mut packed = gzipped(b"k,x\na,1\nb,2\n");
    let checksum = packed.len() - 8;
    packed[checksum] ^= 1;
    // This looks as though a byte of the header had changed.
    let mut other = gzipped(b"q,y\na,1\nb,2\n");
    let end = other.len() - 8;
    other[end..].copy_from_slice(&packed[checksum..]);
    put(&folder, "a.csv.gz", &other);
    let (rows, letters) = take(&folder);
    assert_eq!(rows, "");
    assert!(letters.contains("its compressed bytes are damaged: "), "{letters}");
    assert!(!letters.contains("none of the columns"), "{letters}");
}

/// UTF-16 without a byte order mark became a dead letter for each line, or without a header rows of strange
/// characters.
#[test]
fn utf_16_without_a_mark_is_one_letter_of_its_file() {
    for (settings, text) in [
        ("header = false\n", "a,1\nb,2\n"),
        ("format = \"ndjson\"\n", "{\"k\":\"a\"}\n{\"k\":\"b\"}\n"),
    ] {
        let folder = folder(settings);
        put(&folder, "a.txt", utf16(text, false));
        let (rows, letters) = take(&folder);
        assert_eq!(rows, "");
        assert_eq!(
            letters.matches("set `encoding = \"\"utf-16\"\"`").count(),
            1,
            "{letters}"
        );
    }
}

/// A byte that changed within a gzip became another value before the checksum revealed it, and the letter only asked
/// for the remaining rows.
#[test]
fn rows_that_no_checksum_vouches_for_are_told_with_their_number() {
    let folder = folder("");
    let lines = |from: usize, to: usize| -> String { (from..to).map(|n| format!("r{n:05},{n}\n")).collect() };
    let first = gzipped(format!("k,x\n{}", lines(0, 1000)).as_bytes());
    let mut second = gzipped(lines(1000, 3000).as_bytes());
    let checksum = second.len() - 8;
    second[checksum] ^= 1;
    put(&folder, "a.csv.gz", [first, second.clone()].concat());
    // A file with missing bytes has no wrong rows.
    put(
        &folder,
        "torn.csv.gz",
        &gzipped(format!("k,x\n{}", lines(0, 1000)).as_bytes())[..2000],
    );
    let (_, letters) = take(&folder);
    let told = "no checksum vouches for the 2000 records before, from that of line 1002 on";
    assert_eq!(letters.matches(told).count(), 1, "{letters}");
    assert_eq!(letters.matches("no checksum").count(), 1, "{letters}");
    assert_eq!(
        ask(&folder.load("lake"), "SELECT COUNT(*) >= 3000 FROM silver.t"),
        "true"
    );
}

/// Bytes after the end of a packed file were reported as a missing end, and the records before them as possibly wrong;
/// a window that is too large was reported as a file to drop again.
#[test]
fn what_is_no_damage_of_a_packed_file_is_told_as_what_it_is() {
    let folder = folder("");
    let plain = b"k,x\na,1\n";
    put(&folder, "behind.csv.gz", [&gzipped(plain)[..], b"b,2\n"].concat());
    let zstd = zstd::encode_all(&plain[..], 1).expect("packed");
    put(&folder, "behind.csv.zst", [&zstd[..], b"b,2\n"].concat());
    put(&folder, "filled-up.csv.zst", [&zstd[..], &[0; 512]].concat());
    // A stream like that of `zstd --long=31`, with a window of 2 GiB.
    let wide = [&b"\x28\xb5\x2f\xfd\x00\xa8\x41\x00\x00"[..], plain].concat();
    put(&folder, "long.csv.zst", &wide);
    let (rows, letters) = take(&folder);
    assert_eq!(rows, "a,1\na,1\na,1");
    for (name, told) in [
        (
            "behind.csv.gz",
            "behind the record of its line 2: all that gzip compressed was read, and behind its end",
        ),
        (
            "behind.csv.zst",
            "behind the record of its line 2: all that zstd compressed was read, and behind its end",
        ),
        (
            "long.csv.zst",
            "was not read: its zstd frames have a window of more than the 128 MiB that are read",
        ),
    ] {
        let is_told = |line: &str| line.contains(name) && line.contains(told);
        assert!(letters.lines().any(is_told), "{name}: {told}\n{letters}");
    }
    assert!(
        !letters.contains("drop what is missing") && !letters.contains("checksum"),
        "{letters}"
    );
    assert_eq!(letters.lines().count(), 3, "{letters}");
}
