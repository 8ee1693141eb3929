//! Recognises a file's format by its first bytes, whatever its name is.
//!
//! Some magic numbers are letters with which a text may begin, too: a column called `PARENT_ID`, or the word
//! "mustard" where a tar archive has its mark. So these count only if the bytes behind them fit the format and cannot
//! be text.

/// A format that is recognised by its magic number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileMark {
    /// A compressed stream, which is decompressed while it is read.
    Packed(Packing),
    /// A Parquet file.
    Parquet,
    /// An Avro object container.
    Avro,
    /// A format that cannot be read: its name, and what to do.
    Other(&'static str, &'static str),
}

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Gzip,
    Zstd,
    /// Snappy's frame format.
    Snappy,
    Bzip2,
    Xz,
}

/// How many bytes are needed to recognise every format; the mark of a tar archive lies furthest in.
pub(crate) const HEAD: usize = 264;

const UNPACK: &str = "unpack it, and drop the files in it";

const RECOMPRESS: &str = "compress it by zstd or gzip instead";

/// The format that a file's first bytes show; none if it may be text.
pub(crate) fn mark(head: &[u8]) -> Option<FileMark> {
    let is = |mark: &[u8]| head.starts_with(mark);
    Some(match head {
        _ if is(b"\x1f\x8b") => FileMark::Packed(Packing::Gzip),
        _ if is(b"\x28\xb5\x2f\xfd") => FileMark::Packed(Packing::Zstd),
        // A skippable frame, before the first frame with data.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => FileMark::Packed(Packing::Zstd),
        _ if is(b"\xff\x06\x00\x00sNaPpY") => FileMark::Packed(Packing::Snappy),
        [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..] if begins_bzip2(rest) => FileMark::Packed(Packing::Bzip2),
        _ if is(b"\xfd7zXZ\x00") => FileMark::Packed(Packing::Xz),
        [b'P', b'A', b'R', b'1' | b'E', rest @ ..] if begins_parquet(rest) => FileMark::Parquet,
        [b'O', b'b', b'j', 1, rest @ ..] if begins_avro(rest) => FileMark::Avro,
        _ if is(b"PK\x03\x04") && contains(head, b"[Content_Types].xml") => {
            FileMark::Other("an Excel workbook", "save its sheet as CSV")
        }
        _ if is(b"PK\x03\x04") || is(b"PK\x05\x06") => FileMark::Other("a zip archive", UNPACK),
        _ if is(b"7z\xbc\xaf\x27\x1c") => FileMark::Other("a 7z archive", UNPACK),
        _ if is(b"Rar!\x1a\x07") => FileMark::Other("a rar archive", UNPACK),
        // The fields before the mark are padded with NUL.
        _ if matches!(head.get(257..263), Some(b"ustar\0" | b"ustar ")) && head[..257].contains(&0) => {
            FileMark::Other("a tar archive", UNPACK)
        }
        _ if is(b"\x04\x22\x4d\x18") => FileMark::Other("compressed by lz4", RECOMPRESS),
        _ if is(b"\x02\x21\x4c\x18") => FileMark::Other("compressed by lz4", RECOMPRESS),
        _ if is(b"\x1f\x9d") => FileMark::Other("compressed by compress", RECOMPRESS),
        _ if is(b"\xff\xfe\x00\x00") || is(b"\x00\x00\xfe\xff") => {
            FileMark::Other("text in UTF-32", "write it in UTF-8, or in UTF-16")
        }
        _ if is(b"\x89LZO\x00\x0d\x0a\x1a\x0a") => FileMark::Other("compressed by lzop", RECOMPRESS),
        _ if begins_lzma(head) => FileMark::Other("compressed by lzma", "compress it by xz, zstd or gzip instead"),
        _ if begins_zlib(head) => FileMark::Other("compressed by zlib", RECOMPRESS),
        _ if begins_hadoop_snappy(head) => FileMark::Other(
            "compressed by snappy in Hadoop's framing",
            "compress it by zstd or gzip instead, or in snappy's own frame format",
        ),
        _ if is(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1") => {
            FileMark::Other("an old Excel workbook", "save its sheet as CSV")
        }
        _ if is(b"ORC") && head.contains(&0) => FileMark::Other("an ORC file", "convert it to Parquet"),
        _ if is(b"ARROW1\x00\x00") => FileMark::Other("an Arrow file", "convert it to Parquet"),
        _ if is(b"SQLite format 3\x00") => FileMark::Other("a SQLite database", "export its table as CSV"),
        _ if is(b"version https://git-lfs.github.com/spec/v1\noid ") => FileMark::Other(
            "a pointer of Git LFS to the file, not the file",
            "fetch the file by `git lfs pull`",
        ),
        [
            b'%',
            b'P',
            b'D',
            b'F',
            b'-',
            b'1'..=b'2',
            b'.',
            b'0'..=b'9',
            b'\r' | b'\n' | b' ',
            ..,
        ] => FileMark::Other("a PDF document", "drop the data that it was made of"),
        _ => return None,
    })
}

/// Whether these bytes may follow `BZh` and the block size: the mark of the first block, its checksum, and a number
/// below 900,000 in 24 bits; or the mark of the stream's end.
fn begins_bzip2(rest: &[u8]) -> bool {
    let is_block = |rest: &[u8]| rest.starts_with(b"1AY&SY") && rest.get(10).is_none_or(|byte| byte & 0x7f < 8);
    is_block(rest) || rest.starts_with(b"\x17rE8P\x90")
}

/// Whether a file begins with the header of bare lzma: the usual properties, the dictionary size (a power of two, or
/// one and a half of it), and the length, which is unknown or below 2^40.
fn begins_lzma(head: &[u8]) -> bool {
    let [0x5d, a, b, c, d, length @ ..] = head else {
        return false;
    };
    let dictionary = u32::from_le_bytes([*a, *b, *c, *d]);
    let lowest = dictionary & dictionary.wrapping_neg();
    let is_usual = dictionary >= 1 << 12 && (dictionary == lowest || dictionary == lowest | lowest << 1);
    let is_length = matches!(length, [_, _, _, _, _, 0, 0, 0, ..]) || length.starts_with(&[0xff; 8]);
    is_usual && is_length
}

/// Whether a file begins with zlib's two-byte header: deflate with a window of 32 KiB, without a dictionary, a
/// multiple of 31. Text may begin with the same two characters, so text is excluded.
fn begins_zlib(head: &[u8]) -> bool {
    let is_header = matches!(head, [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..]);
    is_header && head.len() > 2 && !is_text(head) && std::str::from_utf8(head).is_err()
}

/// Whether a file begins like a block of Hadoop's snappy: the length of its uncompressed data and the length of its
/// first chunk, both big-endian; the chunk begins with its own uncompressed length, which is at most the former.
fn begins_hadoop_snappy(head: &[u8]) -> bool {
    let number = |at: usize| {
        let bytes = head.get(at..at + 4)?.try_into().ok()?;
        Some(u64::from(u32::from_be_bytes(bytes)))
    };
    let (Some(block), Some(part)) = (number(0), number(4)) else {
        return false;
    };
    let (mut claimed, mut shift, mut ended) = (0u64, 0, false);
    for byte in head[8..].iter().take(5) {
        claimed |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if *byte < 0x80 {
            ended = true;
            break;
        }
    }
    ended && (1..=block).contains(&claimed) && block < 1 << 30 && part > 0 && part <= 32 + claimed + claimed / 6
}

/// Whether all bytes may occur in text.
pub(crate) fn is_text(head: &[u8]) -> bool {
    head.iter().all(|byte| *byte >= b' ' || byte.is_ascii_whitespace())
}

/// Whether a file's beginning is UTF-16 without a byte order mark: most characters are ASCII, so one of their bytes
/// is NUL.
pub(crate) fn is_unmarked_utf16(head: &[u8]) -> bool {
    let pairs = head[..head.len().min(64)].as_chunks::<2>().0;
    let is = |nul: usize| {
        let of_ascii = |pair: &[u8; 2]| pair[nul] == 0 && pair[1 - nul] != 0;
        pairs.first().is_some_and(of_ascii) && pairs.iter().filter(|pair| of_ascii(pair)).count() * 4 >= pairs.len() * 3
    };
    pairs.len() > 1 && (is(0) || is(1))
}

/// The compression that a file's name suggests but that has no magic number and cannot be read.
pub(crate) fn unread_of_name(name: &str) -> Option<&'static str> {
    let (_, ending) = name.rsplit_once('.')?;
    Some(match ending.to_ascii_lowercase().as_str() {
        "br" => "brotli",
        "lzma" => "lzma",
        "lz4" => "lz4",
        "lzo" => "lzo",
        "zlib" | "zz" => "zlib",
        "z" => "compress",
        _ => return None,
    })
}

/// Whether these bytes may follow Parquet's magic number: the first field of a page header, a bloom filter or a
/// footer, which is an integer; or the four-byte length of an encrypted part, which is less than 16 MiB.
fn begins_parquet(rest: &[u8]) -> bool {
    rest.first() == Some(&0x15) || rest.get(3) == Some(&0)
}

/// Whether these bytes may follow Avro's magic number: the number of metadata entries, which is small, one of them
/// the schema.
fn begins_avro(rest: &[u8]) -> bool {
    rest.first().is_none_or(|count| *count < b' ') || contains(rest, b"avro.schema")
}

fn contains(head: &[u8], part: &[u8]) -> bool {
    head.windows(part.len()).any(|window| window == part)
}

impl Packing {
    /// The compression that a name's suffix declares.
    pub fn of_name(name: &str) -> Option<Packing> {
        let (_, ending) = name.rsplit_once('.')?;
        Some(match ending.to_ascii_lowercase().as_str() {
            "gz" | "gzip" => Packing::Gzip,
            "zst" | "zstd" => Packing::Zstd,
            "sz" | "snappy" => Packing::Snappy,
            "bz2" => Packing::Bzip2,
            "xz" => Packing::Xz,
            _ => return None,
        })
    }

    /// Whether a member may begin with these bytes, which may be incomplete.
    pub fn may_begin(self, bytes: &[u8]) -> bool {
        let mark: &[u8] = match self {
            Packing::Gzip => b"\x1f\x8b",
            Packing::Zstd if matches!(bytes.first(), Some(0x50..=0x5f)) => {
                return b"\x2a\x4d\x18".starts_with(&bytes[1..bytes.len().min(4)]);
            }
            Packing::Zstd => b"\x28\xb5\x2f\xfd",
            Packing::Snappy => b"\xff\x06\x00\x00sNaPpY",
            Packing::Bzip2 => b"BZh",
            Packing::Xz => b"\xfd7zXZ\x00",
        };
        mark.starts_with(&bytes[..bytes.len().min(mark.len())])
    }

    pub fn name(self) -> &'static str {
        match self {
            Packing::Gzip => "gzip",
            Packing::Zstd => "zstd",
            Packing::Snappy => "snappy",
            Packing::Bzip2 => "bzip2",
            Packing::Xz => "xz",
        }
    }
}

impl FileMark {
    /// Why a file of this format cannot be read as text, and what to do.
    pub fn not_text(self) -> String {
        match self {
            FileMark::Packed(packing) => format!("it is compressed by {} more than twice; unpack it", packing.name()),
            FileMark::Parquet => "it is a Parquet file; give it to a feed with `format = \"parquet\"`".to_string(),
            FileMark::Avro => "it is an Avro file; give it to a feed with `format = \"avro\"`".to_string(),
            FileMark::Other(what, remedy) => format!("it is {what}; {remedy}"),
        }
    }
}

/// What a file is that was expected to be Parquet or Avro (`wanted`), and what to do; none if its first bytes do not
/// show it.
pub(crate) fn instead_of(wanted: FileMark, head: &[u8]) -> Option<String> {
    let text = || {
        let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
        let is_text = !head.is_empty() && is_text(head);
        is_text.then(|| match head[0] {
            b'{' | b'[' => "it looks like JSON; give it to a feed with `format = \"ndjson\"`".to_string(),
            b'<' => "it looks like HTML or XML; look what the one who wrote it was told".to_string(),
            _ => "it looks like text; give it to a feed with `format = \"csv\"`".to_string(),
        })
    };
    match mark(head) {
        Some(found) if found == wanted => None,
        Some(FileMark::Packed(packing)) => {
            Some(format!("it is compressed by {} as a whole; unpack it", packing.name()))
        }
        Some(found) => Some(found.not_text()),
        None => text(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_told_from_text_that_begins_alike() {
        for text in [
            "BZhello,1",
            "ORCHID,price",
            "PAR,1",
            "Objects,1",
            "PK,name",
            "7zip",
            "(%PDF",
            "%PDF-share,1.4",
            "k,x\n",
            "PARENT_ID,b\n1,x\n",
            "PARENT\x01ID\n",
            "PARE",
            "PAR1\tx\n1\t2\n",
            "Obj\x01name\n",
            "BZh91AY&SY,a column\n",
            "ORC\n1\n",
            "ORC\tx\n1\t2\n",
            "x\u{1},1\n",
            "x^2,y\n\u{1},1\n",
            "]\u{0}\u{0},x\n",
            &format!("{:>256}mustard,1\n", "m"),
            &format!("{:>257}ustar 1\n", ""),
        ] {
            assert_eq!(mark(text.as_bytes()), None, "{text}");
        }
        let mut tar = vec![0; HEAD];
        tar[..5].copy_from_slice(b"a.csv");
        tar[257..263].copy_from_slice(b"ustar\0");
        assert_eq!(mark(&tar), Some(FileMark::Other("a tar archive", UNPACK)));
        assert_eq!(mark(b"BZh91AY&SY\x00"), Some(FileMark::Packed(Packing::Bzip2)));
        for parquet in [&b"PAR1\x15\x04"[..], b"PARE\x2c\x01\x00\x00nonce", b"PAR1ab \x00"] {
            assert_eq!(mark(parquet), Some(FileMark::Parquet));
        }
        for (bytes, what) in [
            (
                &b"\x5d\x00\x00\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00\x34"[..],
                "lzma",
            ),
            (b"\x5d\x00\x00\x00\x01\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x34", "lzma"),
            (b"\x78\x9c\xcbN\xd2\xa9\xe0J\xd41\xe4\x02\x00\x00", "zlib"),
            (b"\x00\x00\x00\x08\x00\x00\x00\x0a\x08\x1ck,x\na,1\n", "snappy"),
            (b"\x02\x21\x4c\x18\x0a\x00\x00\x00", "lz4"),
        ] {
            assert!(
                matches!(mark(bytes), Some(FileMark::Other(message, _)) if message.contains(what)),
                "{what}"
            );
        }
        for (head, is) in [
            (&b"k\x00,\x00"[..], true),
            (b"\x00k\x00,\x00", true),
            (b"k\x00", false),
            (b"k\x00,\x00x1", false),
            (b"\x00\x00\x00\x00", false),
        ] {
            assert_eq!(is_unmarked_utf16(head), is, "{head:?}");
        }
        assert_eq!(mark(b"Obj\x01\x04\x14avro.codec"), Some(FileMark::Avro));
        assert_eq!(mark(b"Obj\x01\x42\x16avro.schema"), Some(FileMark::Avro));
        assert!(matches!(
            mark(b"ORC\x0a\x14\x0a\x00"),
            Some(FileMark::Other("an ORC file", _))
        ));
        assert!(matches!(
            mark(b"%PDF-1.7\n"),
            Some(FileMark::Other("a PDF document", _))
        ));
        assert!(matches!(
            mark(b"%PDF-1.7\n"),
            Some(FileMark::Other("a PDF document", _))
        ));
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n";
        for message in [
            mark(pointer).unwrap().not_text(),
            instead_of(FileMark::Parquet, pointer).unwrap(),
        ] {
            assert!(message.contains("git lfs pull"), "{message}");
        }
    }
}
