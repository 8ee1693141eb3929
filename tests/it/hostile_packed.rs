//! Files that are compressed in ways that are not read, or whose compressed bytes are damaged: what their letters say.

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

/// Each was a header that is no UTF-8, with the advice to set another encoding, or a row of strange characters.
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

/// What damaged bytes became was judged as a header: the letter told to set an encoding.
#[test]
fn a_damaged_beginning_of_a_packed_file_is_no_header() {
    let folder = folder("");
    let mut packed = gzipped(b"k,x\na,1\nb,2\n");
    let checksum = packed.len() - 8;
    packed[checksum] ^= 1;
    // As though a byte of its header had changed.
    let mut other = gzipped(b"q,y\na,1\nb,2\n");
    let end = other.len() - 8;
    other[end..].copy_from_slice(&packed[checksum..]);
    put(&folder, "a.csv.gz", &other);
    let (rows, letters) = take(&folder);
    assert_eq!(rows, "");
    assert!(letters.contains("its compressed bytes are damaged: "), "{letters}");
    assert!(!letters.contains("none of the columns"), "{letters}");
}

/// Text in UTF-16 whose mark is missing was a dead letter for each of its lines, and without a header rows of strange characters.
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

/// A byte that changed within a gzip became another value before the checksum told, and the letter asked for the rest alone.
#[test]
fn rows_that_no_checksum_vouches_for_are_told_with_their_number() {
    let folder = folder("");
    let lines = |from: usize, to: usize| -> String { (from..to).map(|n| format!("r{n:05},{n}\n")).collect() };
    let first = gzipped(format!("k,x\n{}", lines(0, 1000)).as_bytes());
    let mut second = gzipped(lines(1000, 3000).as_bytes());
    let checksum = second.len() - 8;
    second[checksum] ^= 1;
    put(&folder, "a.csv.gz", [first, second.clone()].concat());
    // Bytes that are missing are no wrong ones.
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
