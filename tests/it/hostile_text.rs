//! Tests CSV and text files as they occur in practice: dialects, encodings, headers, and `infer` on them.

use std::io::Write;
use std::path::Path;

use crate::commands::{alluvium, exits, text};
use crate::lake::{ask, assert_newest_is_exact};
use crate::support::{Folder, catch_up, recompute};
use crate::testing::real_data;

/// A dataflow over files of `drops/`, with two text columns, and these settings of its feed.
pub fn folder(settings: &str) -> Folder {
    with_columns("k = \"VARCHAR\"\nx = \"VARCHAR\"\n", settings)
}

pub fn with_columns(columns: &str, settings: &str) -> Folder {
    let folder = Folder::new("text", &[("silver/t.sql", "SELECT * FROM t")]);
    define(&folder, columns, settings);
    folder
}

pub fn define(folder: &Folder, columns: &str, settings: &str) {
    let format = if settings.contains("format =") {
        ""
    } else {
        "format = \"csv\"\n"
    };
    folder.write(
        "inputs/t.toml",
        &format!(
            "[columns]\n{columns}\n[[feeds]]\nname = \"f\"\nkind = \"files\"\npath = \"drops/*\"\n{format}{settings}"
        ),
    );
}

/// Drops a file with these bytes.
pub fn put(folder: &Folder, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.path().join("drops").join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
    std::fs::write(path, bytes).expect("the file is written");
}

pub fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).expect("memory takes it");
    packed.finish().expect("memory takes it")
}

pub fn utf16(text: &str, mark: bool) -> Vec<u8> {
    let mark = if mark { "\u{feff}" } else { "" };
    format!("{mark}{text}")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect()
}

/// Runs until caught up; returns the rows of the table, and the dead letters as (kind, partition, reason).
#[track_caller]
pub fn take(folder: &Folder) -> (String, String) {
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    assert_newest_is_exact(&dataflow, "the text");
    (
        ask(&dataflow, "SELECT * FROM silver.t ORDER BY 1, 2"),
        ask(
            &dataflow,
            "SELECT kind, \"partition\", reason FROM dead_letters ORDER BY 2, 3",
        ),
    )
}

/// The rows of a file with these bytes, which must make no dead letter.
#[track_caller]
fn rows(settings: &str, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let folder = folder(settings);
    put(&folder, name, bytes);
    let (rows, letters) = take(&folder);
    assert_eq!(letters, "", "{name}");
    rows
}

/// Files without any declared column silently became rows of nulls.
#[test]
fn a_file_whose_header_has_no_column_is_a_dead_letter_with_a_guess_what_it_is() {
    for (name, bytes, guess) in [
        (
            "tab",
            &b"k\tx\na\t1\n"[..],
            "it looks tab-separated: set `delimiter = \"\"\\t\"\"`",
        ),
        ("semicolon", b"k;x\na;1\n", "it looks semicolon-separated"),
        ("pipe", b"k|x\na|1\n", "set `delimiter = \"\"|\"\"`"),
        ("case", b"K,X\na,1\n", "in another case: set `ignore_case = true`"),
        ("case and tab", b"K\tX\na\t1\n", "tab-separated"),
        (
            "no header",
            b"a,1\nb,2\n",
            "it has no header line, as its first line is data: set `header = false`",
        ),
        (
            "titles",
            b"Report of May\n\n\"made, by us\"\nk,x\na,1\n",
            "the header is line 4: set `skip_lines = 3`",
        ),
        ("blanks", b" k , x\na,1\n", "set `trim = true`"),
        ("json", b"{\"k\":\"a\"}\n", "it looks like JSON"),
        ("html", b"<html><body>Not found</body></html>\n", "it looks like HTML"),
        ("other", b"who,what\na,b\n", "list its names in the columns' `from`"),
        (
            "utf-16",
            &utf16("k,x\na,1\n", false),
            "it looks UTF-16, without a byte order mark: set `encoding = \"\"utf-16\"\"`",
        ),
        ("latin header", b"k,Gr\xf6\xdfe\na,1\n", "its header is not UTF-8"),
        (
            "zip",
            b"PK\x03\x04\x14\0\0\0\x08\0rest",
            "it is a zip archive; unpack it",
        ),
        (
            "workbook",
            b"PK\x03\x04\x14\0\x06\0\x08\0[Content_Types].xml",
            "it is an Excel workbook",
        ),
        ("parquet", b"PAR1\x15\x04\x15", "it is a Parquet file"),
        ("avro", b"Obj\x01\x04\x16avro", "it is an Avro file"),
    ] {
        let folder = folder("");
        put(&folder, "a.csv", bytes);
        let (rows, letters) = take(&folder);
        assert_eq!(rows, "", "{name}");
        assert!(
            letters.starts_with("file,a.csv,") && letters.contains(guess),
            "{name}: {letters}"
        );
        assert_eq!(letters.lines().count(), 1, "{name}: {letters}");
    }
}

#[test]
fn a_file_that_lacks_a_required_column_is_one_dead_letter_and_others_go_on() {
    let folder = with_columns(
        "k = { type = \"VARCHAR\", nullable = false, from = [\"k\", \"key\"] }\nx = \"VARCHAR\"\n",
        "",
    );
    put(&folder, "a.csv", "key,x\na,1\n");
    put(&folder, "b.csv", "x,y\n1,2\n3,4\n");
    put(&folder, "c.csv", "k\nc\n");
    let (rows, letters) = take(&folder);
    assert_eq!(rows, "a,1\nc,");
    assert!(
        letters.contains(
            "its header lacks what is required, \"\"k\"\" (from \"\"k\"\" or \"\"key\"\"): it has \"\"x,y\"\""
        ),
        "{letters}"
    );
    assert_eq!(letters.lines().count(), 1, "{letters}");
}

/// A file that was refused as a whole is not in Bronze, so it stays a dead letter after a restart or a recomputation;
/// once the definition fits, it is read.
#[test]
fn a_refused_file_stays_refused_over_restarts_and_is_read_once_the_definition_fits() {
    let folder = folder("");
    put(&folder, "a.csv", "k;x\na;1\nb;2\n");
    put(&folder, "b.csv", "k,x\nc,3\n");
    let (rows, letters) = take(&folder);
    assert_eq!((rows.as_str(), letters.lines().count()), ("c,3", 1));
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 2);
    recompute(&dataflow, 1);
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM dead_letters"), "1");

    define(&folder, "k = \"VARCHAR\"\nx = \"VARCHAR\"\n", "delimiter = \";\"\n");
    let replayed = alluvium(
        &["dead-letters", ".", "--replay", "--lake", "lakes/lake"],
        folder.path(),
    );
    exits(&replayed, 0);
    let dataflow = folder.load("lake");
    assert_eq!(
        ask(&dataflow, "SELECT k, x FROM silver.t WHERE x <= '2' ORDER BY k"),
        "a,1\nb,2"
    );
    // The other file in Bronze has another delimiter, so its records are now refused one by one.
    let letters = ask(&dataflow, "SELECT kind, reason FROM dead_letters");
    assert!(
        letters.starts_with("record,") && letters.contains("looks comma-separated"),
        "{letters}"
    );
    assert_newest_is_exact(&dataflow, "two delimiters");
}

#[test]
fn what_a_header_lacks_or_has_too_much_is_warned_of_with_the_files_name() {
    let folder = folder("");
    put(&folder, "a.csv", "k,other,k\na,1,b\n");
    put(&folder, "b.csv", "k,X\nb,1\n");
    // Blanks around some names only made those columns null, and no message gave a remedy.
    put(&folder, "c.csv", "k, x\nc, 1\n");
    put(&folder, "d.csv", "k,X \nd,1\n");
    let output = alluvium(&["run", ".", "--until-caught-up"], folder.path());
    exits(&output, 0);
    let told = text(&output);
    for part in [
        "a.csv",
        "it has no field for these columns, which are null: x;",
        "no column takes these fields, which are ignored: other;",
        "several fields have these names, and the first is taken: k",
        "b.csv",
        "x (the header has \"X\": set `ignore_case = true`)",
        "x (the header has \" x\": set `trim = true`)",
        "x (the header has \"X \": set `trim = true` and `ignore_case = true`)",
    ] {
        assert!(told.contains(part), "{part} is not told: {told}");
    }
}

#[test]
fn first_bytes_say_what_a_file_is_whatever_it_is_called() {
    let plain = b"k,x\na,1\n";
    assert_eq!(rows("", "plain.csv.gz", plain), "a,1");
    assert_eq!(rows("", "gz.csv", gzipped(plain)), "a,1");
    assert_eq!(rows("", "twice.csv.gz", gzipped(&gzipped(plain))), "a,1");
    assert_eq!(
        rows("", "zst.gz", zstd::encode_all(&plain[..], 1).expect("packed")),
        "a,1"
    );
    let mut snappy = snap::write::FrameEncoder::new(Vec::new());
    snappy.write_all(plain).expect("memory takes it");
    assert_eq!(rows("", "sz.csv", snappy.into_inner().expect("packed")), "a,1");
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(plain).expect("memory takes it");
    assert_eq!(rows("", "a.csv", bzip2.finish().expect("packed")), "a,1");
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(plain).expect("memory takes it");
    assert_eq!(rows("", "a.xz", xz.finish().expect("packed")), "a,1");
}

/// A CSV whose header began with PARENT_ID was taken for Parquet, and one with "mustard" at a certain place for a tar
/// archive.
#[test]
fn a_text_that_begins_like_another_kind_of_file_is_read() {
    let columns = "k = { type = \"VARCHAR\", from = [\"PARENT_ID\", \"PAR1\", \"ORC\", \"k\"] }\nx = \"VARCHAR\"\n";
    let folder = with_columns(columns, "");
    put(&folder, "a.csv", "PARENT_ID,x\na,1\n");
    put(&folder, "b.csv", "PAR1,x\nb,2\n");
    put(&folder, "c.csv", "ORC\nc\n");
    put(&folder, "d.csv", format!("k,x\nd,{:>257}\n", "mustard"));
    let (rows, letters) = take(&folder);
    assert_eq!(letters, "");
    assert_eq!(rows.replace(' ', ""), "a,1\nb,2\nc,\nd,mustard");
}

/// A small gzip with damage after its end gave none of its rows, and zeros after its end counted as damage.
#[test]
fn what_stands_before_a_fault_behind_a_gzip_is_read_and_padding_is_none() {
    let folder = folder("");
    let whole = gzipped(b"k,x\na,1\n");
    let mut sum = gzipped(b"k,x\nd,4\n");
    let at = sum.len() - 8;
    sum[at] ^= 1;
    put(&folder, "padded.csv.gz", [whole.clone(), vec![0; 700_000]].concat());
    put(
        &folder,
        "members.csv.gz",
        [gzipped(b"k,x\nb,2\n"), vec![0; 5], gzipped(b"b,3\n")].concat(),
    );
    put(
        &folder,
        "garbage.csv.gz",
        [gzipped(b"k,x\nc,3\n"), b"garbage".to_vec()].concat(),
    );
    put(&folder, "sum.csv.gz", sum);
    let (rows, letters) = take(&folder);
    assert_eq!(rows, "a,1\nb,2\nb,3\nc,3\nd,4");
    assert_eq!(letters.matches("file,").count(), 2, "{letters}");
    for name in ["garbage", "sum"] {
        assert!(letters.contains(&format!("file,{name}.csv.gz")), "{letters}");
    }
}

/// If settings changed that affect how records are counted, records were skipped or read twice.
#[test]
fn a_file_that_grows_is_read_on_where_it_was_when_its_settings_are_others() {
    for (before, text, settings, more, expected) in [
        (
            "",
            "k,x\n#a,1\n#b,2\nc,3\n",
            "comment = \"#\"\n",
            "d,4\n#e,5\nf,6\n",
            "d,4\nf,6",
        ),
        ("", "k,x\na,\"1\n1\"\n", "quote = \"\"\n", "d,4\nf,6\n", "d,4\nf,6"),
        ("quote = \"\"\n", "k,x\nc,\"3\nc,3\n", "", "d,4\nf,6", "d,4\nf,6"),
        ("", "title\n\nk,x\nc,3\n", "skip_lines = 2\n", "d,4\nf,6", "d,4\nf,6"),
    ] {
        let folder = folder(before);
        put(&folder, "a.csv", text);
        take(&folder);
        define(&folder, "k = \"VARCHAR\"\nx = \"VARCHAR\"\n", settings);
        put(&folder, "a.csv", format!("{text}{more}"));
        take(&folder);
        let dataflow = folder.load("lake");
        catch_up(&dataflow, 2);
        let found = ask(
            &dataflow,
            "SELECT k, x FROM silver.t WHERE k IN ('d', 'e', 'f') ORDER BY 1, 2",
        );
        assert_eq!(found, expected, "{settings:?} behind {before:?}");
    }
}

/// UTF-8 that was read as Windows-1252 silently became another text.
#[test]
fn utf_8_that_is_read_as_another_encoding_is_told() {
    let folder = folder("encoding = \"windows-1252\"\n");
    put(&folder, "utf8.csv", "k,x\na,M\u{fc}ller\n");
    put(&folder, "ansi.csv", b"k,x\nb,M\xfcller\n");
    put(&folder, "ascii.csv", b"k,x\nc,Miller\n");
    let output = alluvium(&["run", ".", "--until-caught-up"], folder.path());
    exits(&output, 0);
    let told = text(&output);
    assert_eq!(
        told.matches("is read as windows-1252, and looks like UTF-8 at").count(),
        1,
        "{told}"
    );
    assert!(told.contains("utf8.csv"), "{told}");
}

/// The header of a file that had been appended to another became a row, or a dead letter.
#[test]
fn a_header_that_comes_again_is_no_row() {
    assert_eq!(rows("", "a.csv", "k,x\na,1\nk,x\nb,2\nk,y\n"), "a,1\nb,2\nk,y");
    assert_eq!(rows("", "a.csv", "sep=;\nk;x\na;1\nk;x\n"), "a,1");
    assert_eq!(
        rows("", "one.csv", "k\na\nk\n"),
        "a,\nk,",
        "a single name may be a value"
    );
    assert_eq!(rows("header = false\n", "none.csv", "k,x\nk,x\n"), "k,x\nk,x");
}

/// Columns that name their fields by position fit any first line: one row of each file was silently taken for a
/// header.
#[test]
fn a_first_line_of_data_that_is_taken_for_a_header_is_told() {
    let folder = with_columns(
        "k = { type = \"VARCHAR\", from = 1 }\nx = { type = \"VARCHAR\", from = 2 }\n",
        "",
    );
    put(&folder, "data.csv", "7,1\n8,2\n");
    put(&folder, "header.csv", "key,,\n9,3,\n");
    let output = alluvium(&["run", ".", "--until-caught-up"], folder.path());
    exits(&output, 0);
    let told = text(&output);
    assert_eq!(
        told.matches("looks like data: \"7,1\"; if it is, set `header = false`")
            .count(),
        1,
        "{told}"
    );
    assert_eq!(told.matches("looks like data").count(), 1, "{told}");
    assert!(!told.contains("several fields have these names"), "{told}");
}

/// In files whose lines end with CR alone, every record was on line 1.
#[test]
fn lines_that_cr_alone_ends_have_their_numbers() {
    let folder = with_columns("k = \"BIGINT\"\nx = { type = \"BIGINT\", from = \"file.line\" }\n", "");
    for (name, end) in [("lf.csv", "\n"), ("crlf.csv", "\r\n"), ("cr.csv", "\r")] {
        put(&folder, name, "k\n7\n\n8\nx\n9\n".replace('\n', end));
    }
    let (rows, letters) = take(&folder);
    let thrice = |row: &str| [row; 3].join("\n");
    assert_eq!(rows, [thrice("7,2"), thrice("8,4"), thrice("9,6")].join("\n"));
    assert_eq!(letters.matches("line 5 of its file").count(), 3, "{letters}");
    let dataflow = folder.load("lake");
    recompute(&dataflow, 2);
    assert_newest_is_exact(&dataflow, "made again from Bronze");
}

/// A byte order mark stayed before the quote, which then opened no field: the header was split at its line break.
#[test]
fn byte_order_marks_are_no_part_of_a_header_with_a_line_break() {
    let folder = with_columns("k = { type = \"VARCHAR\", from = \"k\\nkey\" }\nx = \"VARCHAR\"\n", "");
    put(&folder, "a.csv", b"\xef\xbb\xbf\"k\nkey\",x\r\na,1\r\n");
    put(&folder, "b.csv", utf16("\"k\nkey\",x\r\nb\u{20ac},2\r\n", true));
    assert_eq!(take(&folder), ("a,1\nb\u{20ac},2".to_string(), String::new()));
}

#[test]
fn other_encodings_are_read_and_bronze_holds_utf_8() {
    let folder = folder("encoding = \"windows-1252\"\n");
    put(&folder, "a.csv", b"k,x\nM\xfcller,\x80 5\n");
    assert_eq!(take(&folder).0, "M\u{fc}ller,\u{20ac} 5");
    assert_eq!(
        ask(&folder.load("lake"), "SELECT CAST(payload AS VARCHAR) FROM bronze.t"),
        "\"M\u{fc}ller,\u{20ac} 5\""
    );
    assert_eq!(
        rows("encoding = \"utf-16\"\n", "a.csv", utf16("k,x\na,\u{e9}\n", false)),
        "a,\u{e9}"
    );
    assert_eq!(
        rows(
            "format = \"ndjson\"\nencoding = \"latin-1\"\n",
            "a.ndjson",
            b"{\"k\":\"M\xfcller\"}\n"
        ),
        "M\u{fc}ller,"
    );
}

/// A record that is not UTF-8 is a dead letter that can be shown, and succeeds once the encoding is set, because
/// Bronze has its bytes.
#[test]
fn a_record_that_is_not_utf_8_names_the_setting_and_passes_once_it_is_set() {
    let folder = folder("");
    put(&folder, "a.csv", b"k,x\nM\xfcller,1\nb,2\n");
    let (rows, letters) = take(&folder);
    assert_eq!(rows, "b,2");
    assert!(
        letters.contains("set the feed's `encoding`, perhaps to \"\"windows-1252\"\""),
        "{letters}"
    );
    let shown = alluvium(&["dead-letters", ".", "--lake", "lakes/lake"], folder.path());
    exits(&shown, 0);
    assert!(text(&shown).contains("M\\xfcller,1"), "{}", text(&shown));

    define(
        &folder,
        "k = \"VARCHAR\"\nx = \"VARCHAR\"\n",
        "encoding = \"windows-1252\"\n",
    );
    let (rows, letters) = take(&folder);
    assert_eq!((rows.as_str(), letters.as_str()), ("M\u{fc}ller,1\nb,2", ""));
}

#[test]
fn csv_of_every_dialect_is_read() {
    for (settings, text, expected) in [
        ("delimiter = \"\\t\"\n", "k\tx\na\t\"1\t2\"\n", "a,1\t2"),
        ("", "sep=;\r\nk;x\r\na;1\r\n", "a,1"),
        ("header = false\n", "sep=|\na|1\n", "a,1"),
        ("header = false\n", "a,1\nb,2\n", "a,1\nb,2"),
        ("quote = \"'\"\n", "k,x\n'a,b','it''s'\n", "\"a,b\",it's"),
        ("quote = \"\"\n", "k,x\n6\" plate,\"1\n", "\"6\"\" plate\",\"\"\"1\""),
        ("escape = \"\\\\\"\n", "k,x\n\"a\\\"b\\\nc\",1\n", "\"a\"\"b\nc\",1"),
        ("skip_lines = 2\n", "Report \"of\n\nk,x\na,1\n", "a,1"),
        ("skip_lines = 1\n", "sep=,\nk,x\na,1\n", "a,1"),
        ("comment = \"#\"\n", "# made by us\nk,x\n# \"one\na,1\n#end\n", "a,1"),
        ("trim = true\n", " k , \"x\" \n a , \" 1\" \n", "a, 1"),
        ("ignore_case = true\n", "K,X\na,1\n", "a,1"),
        (
            "delimiter = \";\"\nencoding = \"latin-1\"\nskip_lines = 1\nignore_case = true\n",
            "t\nK;X\na;1\n",
            "a,1",
        ),
    ] {
        assert_eq!(rows(settings, "a.csv", text), expected, "{settings}{text}");
    }
}

#[test]
fn columns_are_taken_by_the_places_of_their_fields() {
    let columns = "k = { type = \"VARCHAR\", from = 3 }\nx = { type = \"VARCHAR\", from = [\"x\", 1] }\n";
    let folder = with_columns(columns, "header = false\n");
    put(&folder, "a.csv", "1,ignored,a\n2,ignored,b,more\n3,ignored\n");
    let (rows, letters) = take(&folder);
    assert_eq!(rows, "a,1\nb,2");
    assert!(
        letters.contains("the record has 2 fields, and a column is field 3"),
        "{letters}"
    );
    // With a header, a name takes precedence over a position, and a field without a name has its position.
    let folder = with_columns(columns, "");
    put(&folder, "a.csv", ",x,\n1,2,a\n");
    assert_eq!(take(&folder), ("a,2".to_string(), String::new()));
    // Without names, columns match fields by order, so their numbers must agree.
    let folder = self::folder("header = false\n");
    put(&folder, "a.csv", "a,1\nb\n");
    let (rows, letters) = take(&folder);
    assert_eq!(rows, "a,1");
    assert!(
        letters.contains("the record has 1 fields, the columns are 2"),
        "{letters}"
    );
}

#[test]
fn numbers_and_booleans_as_people_write_them_are_exact_or_refused() {
    let columns = "k = \"VARCHAR\"\n\
                   amount = { type = \"DECIMAL(38,2)\", format = [\"#,##0.00\", \"($#,##0.00)\"] }\n\
                   paid = { type = \"BOOLEAN\", format = \"J|N\" }\nopen = \"BOOLEAN\"\n\
                   total = { type = \"BIGINT\", format = \"#.##0\" }\n";
    let folder = with_columns(columns, "delimiter = \";\"\n");
    put(
        &folder,
        "a.csv",
        "k;amount;paid;open;total\n\
         a;123,456,789,012,345,678,901,234,567,890,123,456.78;J;on;1.234.567\n\
         b;(1,234.50);n;N;-5\n\
         c;$5;;off;\n\
         d;1,5;J;on;1\n\
         e;1;ja;on;1\n\
         f;1;J;o;1\n\
         g;1;J;on;1.5\n\
         h;1.005;J;on;1\n",
    );
    let (rows, letters) = take(&folder);
    assert_eq!(
        rows,
        "a,123456789012345678901234567890123456.78,true,true,1234567\n\
         b,-1234.50,false,false,-5\n\
         c,5.00,,false,"
    );
    for part in [
        "\"\"amount\"\": \"\"1,5\"\" is not a DECIMAL(38,2); add its pattern",
        "\"\"paid\"\": \"\"ja\"\" is not a BOOLEAN; add its words",
        "\"\"open\"\": \"\"o\"\" is not a BOOLEAN; say what is true",
        "\"\"total\"\": \"\"1.5\"\" is not a BIGINT",
        "\"\"amount\"\": \"\"1.005\"\" has more digits",
    ] {
        assert!(letters.contains(part), "{part}: {letters}");
    }
    assert_eq!(letters.lines().count(), 5, "{letters}");
}

#[test]
fn a_number_that_two_patterns_read_differently_is_refused() {
    let columns = "k = \"VARCHAR\"\nx = { type = \"DOUBLE\", format = [\"#,##0.00\", \"#.##0,00\"] }\n";
    let folder = with_columns(columns, "delimiter = \";\"\n");
    put(&folder, "a.csv", "k;x\na;1.234\nb;1.234,5\nc;12\n");
    let (rows, letters) = take(&folder);
    assert_eq!(rows, "b,1234.5\nc,12.0");
    assert!(letters.contains("may be two by the column's `format`"), "{letters}");
}

/// The first of two patterns won, so days silently became months.
#[test]
fn a_date_that_two_patterns_read_differently_is_refused() {
    let columns = "k = \"VARCHAR\"\nx = { type = \"DATE\", format = [\"%d/%m/%Y\", \"%m/%d/%Y\", \"%m/%d/%y\"] }\n";
    let folder = with_columns(columns, "");
    put(
        &folder,
        "a.csv",
        "k,x\na,03/04/2024\nb,13/04/2024\nc,04/13/2024\nd,04/04/2024\ne,04/13/24\n",
    );
    let (rows, letters) = take(&folder);
    assert_eq!(rows, "b,2024-04-13\nc,2024-04-13\nd,2024-04-04\ne,2024-04-13");
    assert!(letters.contains("may be two by the column's `format`"), "{letters}");
    assert_eq!(letters.lines().count(), 1, "{letters}");
    for (sql_type, formats) in [
        ("TIMESTAMP", "\"epoch_ms\", \"epoch_s\""),
        ("BINARY", "\"hex\", \"base64\""),
        ("DECIMAL(9,2)", "\"digits\", \"#,##0.00\""),
    ] {
        let columns = format!("k = \"VARCHAR\"\nx = {{ type = \"{sql_type}\", format = [{formats}] }}\n");
        let folder = with_columns(&columns, "");
        let checked = alluvium(&["check", "."], folder.path());
        exits(&checked, 2);
        assert!(
            text(&checked).contains("cannot stand beside another"),
            "{}",
            text(&checked)
        );
    }
}

#[test]
fn json_records_without_any_column_are_dead_letters() {
    let folder = folder("format = \"ndjson\"\n");
    put(
        &folder,
        "a.ndjson",
        "{\"K\":\"a\",\"X\":1}\n{}\n{\"k\":null}\n{\"x\":\"1\"}\n",
    );
    let (rows, letters) = take(&folder);
    assert_eq!(rows, ",1\n,");
    assert_eq!(letters.lines().count(), 2, "{letters}");
    assert!(
        letters.contains("the record has no field that a column takes"),
        "{letters}"
    );
}

#[test]
fn a_text_among_parquet_files_and_a_parquet_file_of_other_columns_say_what_they_are() {
    let folder = folder("format = \"parquet\"\n");
    put(&folder, "a.parquet", "k,x\na,1\n");
    put(&folder, "b.parquet", gzipped(b"k,x\na,1\n"));
    let (rows, letters) = take(&folder);
    assert_eq!(rows, "");
    assert!(
        letters.contains("it looks like text; give it to a feed with `format = \"\"csv\"\"`"),
        "{letters}"
    );
    assert!(
        letters.contains("it is compressed by gzip as a whole; unpack it"),
        "{letters}"
    );
}

#[test]
fn mistakes_in_csv_settings_are_told_with_what_is_known() {
    for (settings, told) in [
        (
            "delimiter = \";;\"\n",
            "setting \"delimiter\" must be one ASCII character, and is \";;\"",
        ),
        (
            "delimiter = \"\"\n",
            "setting \"delimiter\" must be one ASCII character",
        ),
        ("quote = \",\"\n", "quote and delimiter are the same character"),
        ("delimiter = '\"'\n", "quote and delimiter are the same character"),
        ("encoding = \"ebcdic\"\n", "unknown encoding \"ebcdic\""),
        ("delimeter = \";\"\n", "did you mean \"delimiter\"?"),
        (
            "format = \"ndjson\"\ndelimiter = \";\"\n",
            "setting \"delimiter\" does not fit here",
        ),
        (
            "format = \"parquet\"\nencoding = \"latin-1\"\n",
            "setting \"encoding\" does not fit here",
        ),
        ("columns = { k = { from = 0 } }\n", "fields are counted from 1"),
        (
            "columns = { k = { format = \"#,##0\" } }\n",
            "format \"#,##0\" does not fit type VARCHAR",
        ),
    ] {
        let folder = folder(settings);
        let output = alluvium(&["check", "."], folder.path());
        exits(&output, 2);
        assert!(text(&output).contains(told), "{settings}: {}", text(&output));
    }
}

/// Uses `infer` on these files as the input `t` of a dataflow with a table of all columns; checks it and runs it.
#[track_caller]
pub fn inferred(path: &Path) -> (Folder, String) {
    let folder = Folder::new("text", &[("silver/t.sql", "SELECT * FROM t")]);
    let output = alluvium(&["infer", &path.display().to_string()], folder.path());
    exits(&output, 0);
    let toml = String::from_utf8(output.stdout).expect("it is text");
    folder.write("inputs/t.toml", &toml);
    exits(&alluvium(&["check", "."], folder.path()), 0);
    (folder, toml)
}

/// The lines of a definition, without comments and the path.
pub fn settings(toml: &str) -> String {
    let lines = toml
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("path = "));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

#[test]
fn infer_writes_an_input_that_runs_as_it_is() {
    let drops = Folder::new("drops", &[]);
    put(
        &drops,
        "2025.csv",
        "Report of the year\n\nOrder No;Zip;Day;Amount;Paid;Units;Note\n\
         1;01234;31.12.2024;1.234,50;yes;5;\n2;99999;01.02.2025;5,00;no;NA;\"a;b\"\n",
    );
    put(
        &drops,
        "2026.csv",
        "Report of the year\n\nOrder No;Zip;Day;Amount;Paid;Units;Note;Extra\n3;00001;13.01.2026;-0,5;no;7;;x\n",
    );
    let (folder, toml) = inferred(&drops.path().join("drops"));
    assert_eq!(
        settings(&toml),
        "null = \"NA\"\n\
         [columns]\n\
         order_no = { type = \"INT\", from = \"Order No\" }\n\
         zip = { type = \"VARCHAR\", from = \"Zip\" } # digits that are no number\n\
         day = { type = \"DATE\", from = \"Day\", format = \"%d.%m.%Y\" }\n\
         amount = { type = \"DECIMAL(18,2)\", from = \"Amount\", format = \"#.##0,00\" }\n\
         paid = { type = \"BOOLEAN\", from = \"Paid\" }\n\
         units = { type = \"INT\", from = \"Units\" }\n\
         note = { type = \"VARCHAR\", from = \"Note\" }\n\
         extra = { type = \"VARCHAR\", from = \"Extra\" }\n\
         [[feeds]]\n\
         name = \"files\"\n\
         kind = \"files\"\n\
         format = \"csv\"\n\
         delimiter = \";\"\n\
         skip_lines = 2"
    );
    assert!(toml.contains("looked at 2 of 2 files and 3 records"), "{toml}");
    assert!(toml.contains("# key = [\"order_no\"]"), "{toml}");
    let (rows, letters) = take(&folder);
    assert_eq!(letters, "");
    assert_eq!(
        rows,
        "1,01234,2024-12-31,1234.50,true,5,,\n2,99999,2025-02-01,5.00,false,,a;b,\n3,00001,2026-01-13,-0.50,false,7,,x"
    );
}

#[test]
fn infer_reads_lines_of_json_with_objects_inside_and_texts_of_other_encodings() {
    let drops = Folder::new("drops", &[]);
    put(
        &drops,
        "a.txt",
        "{\"id\":9007199254740993,\"who\":{\"name\":\"Ann\",\"tags\":[\"x\"]},\"code\":\"007\",\"at\":\"2026-01-05T10:00:00Z\"}\n\
         {\"id\":2,\"price\":2.5,\"open\":true,\"who\":null}\n",
    );
    let (folder, toml) = inferred(&drops.path().join("drops/a.txt"));
    assert_eq!(
        settings(&toml),
        "[columns]\n\
         id = \"BIGINT\"\n\
         code = \"VARCHAR\" # digits that are no number\n\
         at = \"TIMESTAMP\"\n\
         who_name = { type = \"VARCHAR\", from = \"who.name\" }\n\
         who_tags = { type = \"VARCHAR[]\", from = \"who.tags\" }\n\
         price = \"DECIMAL(18,2)\"\n\
         open = \"BOOLEAN\"\n\
         [[feeds]]\n\
         name = \"files\"\n\
         kind = \"files\"\n\
         format = \"ndjson\""
    );
    let dataflow = folder.load("lake");
    assert_eq!(catch_up(&dataflow, 1).rejected, 0);
    assert_eq!(
        ask(&dataflow, "SELECT id, code, price, who_name FROM silver.t ORDER BY id"),
        "2,,2.50,\n9007199254740993,007,,Ann"
    );

    let latin = Folder::new("drops", &[]);
    put(&latin, "a.csv", b"# made by us\nname\tsize\nM\xfcller\t1\n\x80uro\t2\n");
    let (folder, toml) = inferred(&latin.path().join("drops"));
    for setting in ["delimiter = \"\\t\"", "comment = \"#\"", "encoding = \"windows-1252\""] {
        assert!(toml.contains(setting), "{toml}");
    }
    assert_eq!(
        take(&folder),
        ("M\u{fc}ller,1\n\u{20ac}uro,2".to_string(), String::new())
    );
}

#[test]
fn infer_says_what_it_cannot_read_and_where_nothing_is() {
    let folder = Folder::new("drops", &[("drops/empty.csv", "")]);
    put(&folder, "other/a.zip", b"PK\x03\x04rest");
    for (path, told) in [
        (
            "nothing/*.csv",
            "there is no file with something in it at nothing/*.csv",
        ),
        ("drops/other/a.zip", "it is a zip archive; unpack it"),
        ("nosuch://bucket/a.csv", "could not open"),
    ] {
        let output = alluvium(&["infer", path], folder.path());
        exits(&output, 1);
        assert!(text(&output).contains(told), "{}", text(&output));
    }
}

/// An array, and objects over several lines, were refused, and no key of several columns was proposed.
#[test]
fn infer_reads_json_however_it_is_written_and_proposes_keys_of_several_columns() {
    let lines: Vec<String> = (0..60)
        .map(|n| {
            format!(
                "{{\"order_id\": {}, \"line_no\": {}, \"price\": {}.5}}",
                n / 4,
                n % 4,
                n % 7
            )
        })
        .collect();
    let objects = lines.join(",\n");
    for (text, format) in [
        (lines.join("\n"), "ndjson"),
        (format!("[{objects}]"), "json"),
        (format!("\u{feff}[\n{}\n]", objects.replace(", ", ",\n  ")), "json"),
        (lines.join("\n").replace(", ", ",\n  "), "json"),
    ] {
        let drops = Folder::new("drops", &[]);
        put(&drops, "a.txt", text.as_bytes());
        let (folder, toml) = inferred(&drops.path().join("drops/a.txt"));
        assert!(toml.contains(&format!("format = \"{format}\"")), "{toml}");
        assert!(toml.contains("# key = [\"order_id\", \"line_no\"]"), "{toml}");
        let toml = toml.replace("# key = ", "key = ");
        folder.write("inputs/t.toml", &toml);
        let dataflow = folder.load("lake");
        assert_eq!(catch_up(&dataflow, 1).rejected, 0, "{toml}");
        assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM silver.t"), "60", "{toml}");
    }
    let drops = Folder::new("drops", &[]);
    let rows = (0..60).map(|n| format!("{},{},{}\n", n / 4, n % 4, n % 7));
    put(
        &drops,
        "a.csv",
        format!("shop,day,sold\n{}", rows.collect::<String>()).as_bytes(),
    );
    let (_, toml) = inferred(&drops.path().join("drops"));
    assert!(toml.contains("# key = [\"shop\", \"day\"]"), "{toml}");
}

/// An Avro file of 124 bytes kept `infer` busy for ever, and a Parquet file could crash it.
#[test]
fn infer_ends_whatever_a_file_holds() {
    use crate::avro_bytes::long;
    use crate::hostile_columnar::samples::{avro_block, avro_header, parquet_file};
    let nothing = r#"{"type":"record","name":"R","fields":[{"name":"n","type":"null"}]}"#;
    let deep = (0..20).fold("\"null\"".to_string(), |items, _| {
        format!(r#"{{"type":"array","items":{items}}}"#)
    });
    let deep = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"n","type":{deep}}}]}}"#);
    let parquet = parquet_file(0..40);
    let mut wrong = parquet.clone();
    let end = wrong.len();
    wrong[end - 40..end - 10].fill(0xff);
    let blank = zstd::encode_all(std::io::Read::take(std::io::repeat(b'\n'), 1 << 30), 1).expect("it is packed");
    let one_line = zstd::encode_all(std::io::Read::take(std::io::repeat(b'['), 1 << 30), 1).expect("it is packed");
    let wide = format!("{}\n", "a,".repeat(1 << 21));
    let nested = format!("{{\"a\":{}}}\n", "[".repeat(1 << 20));
    let closed = format!("{{\"a\":{}1{}}}\n", "[".repeat(100_000), "]".repeat(100_000));
    let wrapped = format!("{}1{}\n", "{\"payload\":".repeat(50_000), "}".repeat(50_000));
    let files: [(&str, Vec<u8>); 12] = [
        (
            "endless.avro",
            [avro_header(nothing, "null"), avro_block(i64::MAX, &[0])].concat(),
        ),
        (
            "deep.avro",
            [avro_header(&deep, "null"), avro_block(1, &long(i64::MAX).repeat(20))].concat(),
        ),
        (
            "plain.avro",
            [avro_header("\"null\"", "null"), avro_block(i64::MAX, &[])].concat(),
        ),
        ("wrong.parquet", wrong),
        ("torn.parquet", parquet[..parquet.len() / 2].to_vec()),
        ("blank.csv.zst", blank),
        ("line.json.zst", one_line),
        ("wide.csv", wide.into_bytes()),
        ("nested.json", nested.into_bytes()),
        ("closed.json", closed.into_bytes()),
        ("wrapped.json", wrapped.into_bytes()),
        ("zeros.csv", vec![0; 1 << 20]),
    ];
    let folder = Folder::new("drops", &[]);
    for (name, bytes) in files {
        put(&folder, name, &bytes);
        let started = std::time::Instant::now();
        let output = alluvium(&["infer", &format!("drops/{name}"), "--time", "2s"], folder.path());
        let told = text(&output);
        assert!(output.status.code().is_some_and(|code| code < 2), "{name}: {told}");
        assert!(!told.contains("panicked"), "{name}: {told}");
        assert!(started.elapsed().as_secs() < 60, "{name}: {:?}", started.elapsed());
    }
}

/// The result for real files runs unchanged, and refuses none of their records.
#[test]
fn infer_of_real_files_takes_every_record() {
    for (what, glob, records) in [
        ("online_retail/by-day", "2010-12-0*.csv.gz", None),
        ("citibike_jc", "*.csv.gz", Some("144709")),
        ("beijing_air", "*.csv.gz", Some("420768")),
        ("eventhubs_capture/cosh", "*.avro", Some("380")),
        ("debezium/arroyo", "*.jsonl", None),
    ] {
        let Some(data) = real_data(what) else { continue };
        let (folder, toml) = inferred(&data.join(glob));
        let dataflow = folder.load("lake");
        let outcome = catch_up(&dataflow, 2);
        assert_eq!(
            outcome.rejected,
            0,
            "{what}: {toml}\n{}",
            ask(&dataflow, "SELECT reason FROM dead_letters LIMIT 5")
        );
        if let Some(records) = records {
            assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM silver.t"), records, "{what}");
        }
    }
}
