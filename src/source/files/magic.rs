//! What a file is by its first bytes, whatever it is called.
//!
//! Some marks are letters, and a text may begin with them: a column called `PARENT_ID`, the word "mustard" where a tar archive
//! has its mark. So such a mark counts only with bytes behind it that its format has there and no text has.

/// A kind of bytes that begins with a mark of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A stream that is unpacked while it is read.
    Packed(Packing),
    /// A Parquet file.
    Parquet,
    /// An Avro object container.
    Avro,
    /// What is not read: what it is, and what to do.
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

/// Bytes that tell every mark: a tar archive has its own the farthest in.
pub(crate) const HEAD: usize = 264;

const UNPACK: &str = "unpack it, and drop the files in it";

const RECOMPRESS: &str = "compress it by zstd or gzip instead";

/// The mark at the start of a file; none: it may be text.
pub(crate) fn mark(head: &[u8]) -> Option<Mark> {
    let is = |mark: &[u8]| head.starts_with(mark);
    Some(match head {
        _ if is(b"\x1f\x8b") => Mark::Packed(Packing::Gzip),
        _ if is(b"\x28\xb5\x2f\xfd") => Mark::Packed(Packing::Zstd),
        // A frame that may be skipped, before the first that holds something.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Mark::Packed(Packing::Zstd),
        _ if is(b"\xff\x06\x00\x00sNaPpY") => Mark::Packed(Packing::Snappy),
        [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..] if begins_bzip2(rest) => Mark::Packed(Packing::Bzip2),
        _ if is(b"\xfd7zXZ\x00") => Mark::Packed(Packing::Xz),
        [b'P', b'A', b'R', b'1' | b'E', rest @ ..] if begins_parquet(rest) => Mark::Parquet,
        [b'O', b'b', b'j', 1, rest @ ..] if begins_avro(rest) => Mark::Avro,
        _ if is(b"PK\x03\x04") && contains(head, b"[Content_Types].xml") => {
            Mark::Other("an Excel workbook", "save its sheet as CSV")
        }
        _ if is(b"PK\x03\x04") || is(b"PK\x05\x06") => Mark::Other("a zip archive", UNPACK),
        _ if is(b"7z\xbc\xaf\x27\x1c") => Mark::Other("a 7z archive", UNPACK),
        _ if is(b"Rar!\x1a\x07") => Mark::Other("a rar archive", UNPACK),
        // Names and numbers before the mark end with NUL.
        _ if matches!(head.get(257..263), Some(b"ustar\0" | b"ustar ")) && head[..257].contains(&0) => {
            Mark::Other("a tar archive", UNPACK)
        }
        _ if is(b"\x04\x22\x4d\x18") => Mark::Other("compressed by lz4", RECOMPRESS),
        _ if is(b"\x02\x21\x4c\x18") => Mark::Other("compressed by lz4", RECOMPRESS),
        _ if is(b"\x1f\x9d") => Mark::Other("compressed by compress", RECOMPRESS),
        _ if is(b"\xff\xfe\x00\x00") || is(b"\x00\x00\xfe\xff") => {
            Mark::Other("text in UTF-32", "write it in UTF-8, or in UTF-16")
        }
        _ if is(b"\x89LZO\x00\x0d\x0a\x1a\x0a") => Mark::Other("compressed by lzop", RECOMPRESS),
        _ if begins_lzma(head) => Mark::Other("compressed by lzma", "compress it by xz, zstd or gzip instead"),
        _ if begins_zlib(head) => Mark::Other("compressed by zlib", RECOMPRESS),
        _ if begins_hadoop_snappy(head) => Mark::Other(
            "compressed by snappy in Hadoop's framing",
            "compress it by zstd or gzip instead, or in snappy's own frame format",
        ),
        _ if is(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1") => Mark::Other("an old Excel workbook", "save its sheet as CSV"),
        _ if is(b"ORC") && head.contains(&0) => Mark::Other("an ORC file", "convert it to Parquet"),
        _ if is(b"ARROW1\x00\x00") => Mark::Other("an Arrow file", "convert it to Parquet"),
        _ if is(b"SQLite format 3\x00") => Mark::Other("a SQLite database", "export its table as CSV"),
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
        ] => Mark::Other("a PDF document", "drop the data that it was made of"),
        _ => return None,
    })
}

/// Behind `BZh` and the blocks' size: the mark of the first block, its checksum, and a number below 900,000 in 24 bits; or the mark
/// of the end.
fn begins_bzip2(rest: &[u8]) -> bool {
    let is_block = |rest: &[u8]| rest.starts_with(b"1AY&SY") && rest.get(10).is_none_or(|byte| byte & 0x7f < 8);
    is_block(rest) || rest.starts_with(b"\x17rE8P\x90")
}

/// The header of lzma without a container: the usual properties, the size of the dictionary (a power of two, or one and a half of
/// it), and the length, which is unknown or below 2^40.
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

/// The two bytes of zlib's header: deflate with a window of 32 KiB, without a dictionary, a multiple of 31. Two letters may be the same,
/// so text is none.
fn begins_zlib(head: &[u8]) -> bool {
    let is_header = matches!(head, [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..]);
    is_header && head.len() > 2 && !is_text(head) && std::str::from_utf8(head).is_err()
}

/// A block of Hadoop's: how many bytes it becomes, how many its first part has, both with the most significant byte first; the part
/// says first how many bytes it becomes, at most those.
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

/// Whether no byte is one that text has none of.
pub(crate) fn is_text(head: &[u8]) -> bool {
    head.iter().all(|byte| *byte >= b' ' || byte.is_ascii_whitespace())
}

/// Whether a file's beginning is UTF-16 without a byte order mark: most of its characters are of ASCII, with NUL for one byte.
pub(crate) fn is_unmarked_utf16(head: &[u8]) -> bool {
    let pairs = head[..head.len().min(64)].as_chunks::<2>().0;
    let is = |nul: usize| {
        let of_ascii = |pair: &[u8; 2]| pair[nul] == 0 && pair[1 - nul] != 0;
        pairs.first().is_some_and(of_ascii) && pairs.iter().filter(|pair| of_ascii(pair)).count() * 4 >= pairs.len() * 3
    };
    pairs.len() > 1 && (is(0) || is(1))
}

/// The compression that a name's ending tells and that is not read, where its bytes have no mark.
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

/// Behind the first mark of Parquet: the first field of a page's header, of a bloom filter or of a footer, a number; or the four
/// bytes that say how long an encrypted part is, which has less than 16 MiB.
fn begins_parquet(rest: &[u8]) -> bool {
    rest.first() == Some(&0x15) || rest.get(3) == Some(&0)
}

/// Behind the mark of Avro: how many entries of metadata there are, few as a rule; one of them is the schema.
fn begins_avro(rest: &[u8]) -> bool {
    rest.first().is_none_or(|count| *count < b' ') || contains(rest, b"avro.schema")
}

fn contains(head: &[u8], part: &[u8]) -> bool {
    head.windows(part.len()).any(|window| window == part)
}

impl Packing {
    /// The compression that a name's ending tells.
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

impl Mark {
    /// Why a file of this mark is not read as text, and what to do.
    pub fn not_text(self) -> String {
        match self {
            Mark::Packed(packing) => format!("it is compressed by {} more than twice; unpack it", packing.name()),
            Mark::Parquet => "it is a Parquet file; give it to a feed with `format = \"parquet\"`".to_string(),
            Mark::Avro => "it is an Avro file; give it to a feed with `format = \"avro\"`".to_string(),
            Mark::Other(what, remedy) => format!("it is {what}; {remedy}"),
        }
    }
}

/// What a file is that was to be Parquet or Avro (`wanted`), and what to do; none: its first bytes do not say.
pub(crate) fn instead_of(wanted: Mark, head: &[u8]) -> Option<String> {
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
        Some(Mark::Packed(packing)) => Some(format!("it is compressed by {} as a whole; unpack it", packing.name())),
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
        assert_eq!(mark(&tar), Some(Mark::Other("a tar archive", UNPACK)));
        assert_eq!(mark(b"BZh91AY&SY\x00"), Some(Mark::Packed(Packing::Bzip2)));
        for parquet in [&b"PAR1\x15\x04"[..], b"PARE\x2c\x01\x00\x00nonce", b"PAR1ab \x00"] {
            assert_eq!(mark(parquet), Some(Mark::Parquet));
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
                matches!(mark(bytes), Some(Mark::Other(told, _)) if told.contains(what)),
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
        assert_eq!(mark(b"Obj\x01\x04\x14avro.codec"), Some(Mark::Avro));
        assert_eq!(mark(b"Obj\x01\x42\x16avro.schema"), Some(Mark::Avro));
        assert!(matches!(
            mark(b"ORC\x0a\x14\x0a\x00"),
            Some(Mark::Other("an ORC file", _))
        ));
        assert!(matches!(mark(b"%PDF-1.7\n"), Some(Mark::Other("a PDF document", _))));
    }
}
