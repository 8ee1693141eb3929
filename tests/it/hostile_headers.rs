//! Tests CSV headers that are very wide, and headers that are repeated within a file.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::commands::{alluvium, exits, text};
use crate::hostile_text::{folder, put, take, with_columns};
use crate::lake::ask;
use crate::support::Folder;

/// Each name of a header was compared with all names before it: a file with 300,000 fields was never read, and held up
/// its feed.
#[test]
fn a_header_of_300_000_fields_is_read_in_seconds_and_the_warning_names_a_few() {
    let folder = folder("");
    let (mut header, mut record) = ("k".to_string(), "a".to_string());
    for field in 1..300_000 {
        write!(header, ",c{field}").unwrap();
        write!(record, ",{}", field % 7).unwrap();
    }
    put(
        &folder,
        "wide.csv",
        format!("{header},x\n{record},1\n{record},2\n{header},x\n"),
    );
    // A header that does not fit is searched for a setting that would make it fit.
    put(
        &folder,
        "other.csv",
        format!("{}\n{record}\n", header.replacen('k', "q", 1)),
    );
    let started = Instant::now();
    let output = alluvium(
        &["run", ".", "--until-caught-up", "--lake", "lakes/lake"],
        folder.path(),
    );
    exits(&output, 0);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(60), "{took:?}");
    let told = text(&output);
    assert!(
        told.contains("no column takes these fields, which are ignored: c1, c2,"),
        "{told}"
    );
    assert!(told.contains(" and 299979 more"), "{told}");
    assert!(told.len() < 20_000, "{} bytes", told.len());
    let dataflow = folder.load("lake");
    assert_eq!(ask(&dataflow, "SELECT k, x FROM silver.t ORDER BY x"), "a,1\na,2");
    assert_eq!(
        ask(
            &dataflow,
            "SELECT count(*) FROM dead_letters WHERE reason LIKE '%none of the columns%'"
        ),
        "1"
    );
}

#[track_caller]
fn taken(settings: &str, bytes: impl AsRef<[u8]>) -> (Folder, String, String) {
    let folder = folder(settings);
    put(&folder, "a.csv", bytes);
    let (rows, letters) = take(&folder);
    (folder, rows, letters)
}

/// A repeated header was recognised only byte for byte: after a byte order mark, or with quotes, it became a row.
#[test]
fn a_header_that_comes_again_is_known_by_its_names() {
    for (settings, bytes) in [
        ("", "\u{feff}k,x\na,1\n\u{feff}k,x\nb,2\n"),
        ("", "k,x\na,1\n\"k\",\"x\"\r\nb,2\n"),
        ("", "\"k\",\"x\"\na,1\nk,\"x\"\nb,2\n"),
        ("trim = true\n", "k , x\na,1\nk,x\nb,2\n"),
        ("ignore_case = true\n", "K,X\na,1\nk,x\nb,2\n"),
        ("", "sep=;\nk;x\na;1\nsep=;\n\u{feff}k;x\nb;2\n"),
    ] {
        let (_, rows, letters) = taken(settings, bytes);
        assert_eq!((rows.as_str(), letters.as_str()), ("a,1\nb,2", ""), "{bytes:?}");
    }
}

/// The byte order mark of an appended file stayed in its first field, and a quote after it opened no field.
#[test]
fn a_byte_order_mark_amid_a_file_is_no_part_of_its_record() {
    let (_, rows, letters) = taken("", "k,x\na,1\n\u{feff}b,2\n\u{feff}\"c\nd\",3\n");
    assert_eq!((rows.as_str(), letters.as_str()), ("a,1\nb,2\n\"c\nd\",3", ""));
    let (_, rows, _) = taken(
        "header = false\ncomment = \"#\"\n",
        "\u{feff}a,1\n\u{feff}#b,2\n\u{feff}c,3\n",
    );
    assert_eq!(rows, "a,1\nc,3");
}

/// After a repeated header with another order, every row had its values swapped, silently.
#[test]
fn a_header_that_comes_again_in_another_order_ends_the_file() {
    let (folder, rows, letters) = taken("", "k,x\na,1\nx,k\n2,b\n3,c\n");
    assert_eq!(rows, "a,1");
    assert_eq!(letters.lines().count(), 1, "{letters}");
    for part in [
        "behind the record of its line 2",
        "its line 3",
        "in another order: ",
        "a file of its own",
    ] {
        assert!(letters.contains(part), "{part:?}: {letters}");
    }
    // The remedy in the letter works.
    put(&folder, "b.csv", "x,k\n2,b\n3,c\n");
    assert_eq!(take(&folder).0, "a,1\nb,2\nc,3");
}

/// A second header of other names in `from` became a row, and the values behind it came into wrong columns.
#[test]
fn a_header_of_other_names_repeats_the_first_or_ends_the_file() {
    let columns = "k = { type = \"VARCHAR\", from = [\"Key\", \"key_no\"] }\n\
                   x = { type = \"VARCHAR\", from = [\"Value\", \"value_no\"] }\n";
    for (bytes, expected, other) in [
        ("Key,Value\na,1\nkey_no,value_no\nb,2\n", "a,1\nb,2", None),
        ("Key,Value\na,1\nvalue_no,key_no\n2,b\n", "a,1", Some("value_no,key_no")),
        ("Key,Value\na,1\nKey,value_no,more\nb,2\n", "a,1\nb,2", Some("3 fields")),
    ] {
        let folder = with_columns(columns, "");
        put(&folder, "a.csv", bytes);
        let (rows, letters) = take(&folder);
        assert_eq!(rows, expected, "{bytes:?}");
        match other {
            None => assert_eq!(letters, "", "{bytes:?}"),
            Some(other) => {
                assert_eq!(letters.lines().count(), 1, "{letters}");
                assert!(letters.contains("line 3") && letters.contains(other), "{letters}");
            }
        }
    }
}
