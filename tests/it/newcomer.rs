//! Tests problems of a user who had only the README: silent failures, misleading messages, and commands that refused
//! what feeds accept.

use crate::avro_bytes::long;
use crate::commands::{alluvium, exits, text};
use crate::hostile_columnar::NUMBERS;
use crate::hostile_columnar::samples::{avro_block, avro_header};
use crate::hostile_text::{define, folder, gzipped, inferred, put, take, with_columns};
use crate::lake::ask;
use crate::restart::parquet_of;
use crate::support::{Folder, catch_up};

/// Runs the command until it has caught up; returns its output.
#[track_caller]
fn said(folder: &Folder, code: i32) -> String {
    let output = alluvium(&["run", ".", "--until-caught-up"], folder.path());
    exits(&output, code);
    text(&output)
}

/// For a file without an extension, `infer` wrote a path that a feed takes for a folder, and `backfill` took it for
/// one too.
#[test]
fn a_file_without_an_ending_is_read_by_what_infer_writes_and_by_backfill() {
    for name in ["datafile", "05", "a[1]"] {
        let drops = Folder::new("drops", &[]);
        put(&drops, name, "k,n\na,1\nb,2\n");
        put(&drops, "other", "k,n\nc,3\n");
        let path = drops.path().join("drops").join(name);
        let (folder, toml) = inferred(&path);
        let (rows, letters) = take(&folder);
        assert_eq!((rows.as_str(), letters.as_str()), ("a,1\nb,2", ""), "{toml}");

        let folder = with_columns("k = \"VARCHAR\"\nn = \"INT\"", "");
        folder.write("archive/x", "");
        std::fs::copy(&path, folder.path().join("archive").join(name)).expect("it is copied");
        std::fs::create_dir_all(folder.path().join("drops")).expect("the folder is made");
        let output = alluvium(&["backfill", ".", "t", &format!("archive/{name}")], folder.path());
        exits(&output, 0);
        assert!(text(&output).contains("fed 2 records"), "{}", text(&output));
    }
    // If the user writes the path, the error gives the remedy.
    let folder = folder("");
    put(&folder, "05", "k,x\na,1\n");
    let input = std::fs::read_to_string(folder.path().join("inputs/t.toml")).expect("it is there");
    folder.write("inputs/t.toml", &input.replace("drops/*", "drops/05"));
    let told = said(&folder, 1);
    assert!(
        told.contains("it is a file, and a path whose last part has no dot"),
        "{told}"
    );
    let remedy = told
        .split("write path = \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    folder.write(
        "inputs/t.toml",
        &input.replace("drops/*", remedy.expect("the path is told")),
    );
    assert_eq!(take(&folder), ("a,1".to_string(), String::new()));
}

/// A second format in the files suppressed the note on the first one's days and months.
#[test]
fn infer_writes_lists_of_formats_and_tells_which_may_be_meant() {
    let drops = Folder::new("drops", &[]);
    put(&drops, "2017.csv", "at,n\n1/2/17 0:21,1\n");
    put(&drops, "2018.csv", "at,n\n2018-01-01 00:00:01,2\n");
    let (_, toml) = inferred(&drops.path().join("drops"));
    let told = "at = \"VARCHAR\" # a date by [\"%m/%d/%y %H:%M\", \"%Y-%m-%d %H:%M:%S\"] or [\"%d/%m/%y %H:%M\", \"%Y-%m-%d %H:%M:%S\"]: \
                say which by `format`";
    assert!(toml.contains(told), "{toml}");
    put(&drops, "2019.csv", "at,n\n2019-01-31T00:00:01.5,3\n1/31/17 0:22,4\n");
    let (folder, toml) = inferred(&drops.path().join("drops"));
    let (rows, letters) = take(&folder);
    assert_eq!(letters, "", "{toml}");
    assert_eq!(
        rows, "2017-01-02T00:21:00,1\n2017-01-31T00:22:00,4\n2018-01-01T00:00:01,2\n2019-01-31T00:00:01.500,3",
        "{toml}"
    );
}

/// A failed export leaves an empty file, which was read silently.
#[test]
fn files_of_nothing_and_names_in_another_case_are_said_once() {
    let folder = folder("");
    let input = std::fs::read_to_string(folder.path().join("inputs/t.toml")).expect("it is there");
    folder.write("inputs/t.toml", &input.replace("drops/*", "drops/*.csv*"));
    put(&folder, "empty.csv", "");
    put(&folder, "mark.csv", "\u{feff}\r\n");
    put(&folder, "packed.csv.gz", gzipped(b""));
    put(&folder, "header.csv", "k,x\n");
    put(&folder, "rows.csv", "k,x\na,1\n");
    put(&folder, "X.CSV", "k,x\nlost,1\n");
    put(&folder, "Y.CSV", "k,x\nlost,2\n");
    let told = said(&folder, 0);
    let empty: Vec<&str> = told
        .lines()
        .filter(|line| line.contains("the file holds nothing"))
        .collect();
    for name in ["empty.csv", "mark.csv", "packed.csv.gz"] {
        assert_eq!(
            empty.iter().filter(|line| line.contains(name)).count(),
            1,
            "{name}: {told}"
        );
    }
    assert_eq!(empty.len(), 3, "{told}");
    assert_eq!(
        told.matches("differ from the feed's path in the case").count(),
        1,
        "{told}"
    );
    assert!(
        told.contains("2 of the names differ") && told.contains("drops/X.CSV;"),
        "{told}"
    );
    // Once the file has content, it is read.
    put(&folder, "empty.csv", "k,x\nb,2\n");
    let dataflow = definition(&folder);
    catch_up(&dataflow, 1);
    assert_eq!(ask(&dataflow, "SELECT * FROM silver.t ORDER BY 1"), "a,1\nb,2");

    for format in ["parquet", "avro"] {
        let folder = with_columns("id = \"BIGINT\"\nx = \"BIGINT\"", &format!("format = \"{format}\"\n"));
        put(&folder, "nothing", "");
        let (_, letters) = take(&folder);
        assert!(letters.starts_with("file,nothing,"), "{format}: {letters}");
    }
}

/// Loads the dataflow with the lake that commands use.
fn definition(folder: &Folder) -> std::sync::Arc<alluvium::definition::Dataflow> {
    std::sync::Arc::new(alluvium::definition::load(folder.path(), &|_| None).expect("it loads"))
}

/// `--format json` was refused, and files in another format or with other column names silently became rows of nulls.
#[test]
fn a_backfill_takes_the_formats_of_feeds_and_says_which_columns_are_null_throughout() {
    let folder = with_columns("k = \"VARCHAR\"\nx = \"VARCHAR\"\ny = \"VARCHAR\"\n", "");
    std::fs::create_dir_all(folder.path().join("drops")).expect("the folder is made");
    folder.write(
        "archive/a.json",
        "[{\"k\": \"a\", \"x\": \"1\", \"y\": \"2\"},\n {\"k\": \"b\"}]",
    );
    folder.write(
        "archive/b.json",
        "{\"k\": \"c\", \"X\": \"1\", \"Y\": \"2\"}\n{\"k\": \"d\", \"X\": \"1\"}\n",
    );
    let backfill = |file: &str| {
        let output = alluvium(&["backfill", ".", "t", file, "--format", "json"], folder.path());
        exits(&output, 0);
        text(&output)
    };
    let told = backfill("archive/a.json");
    assert!(told.contains("fed 2 records") && !told.contains("are null"), "{told}");
    let told = backfill("archive/b.json");
    assert!(
        told.contains("in all of its records these columns are null: x, y;"),
        "{told}"
    );
    let dataflow = definition(&folder);
    assert_eq!(
        ask(&dataflow, "SELECT * FROM silver.t ORDER BY 1"),
        "a,1,2\nb,,\nc,,\nd,,"
    );
}

/// The advice for a null key was to make it nullable, which no key can be; a repeated name was reported as taken by no
/// column.
#[test]
fn what_is_said_of_keys_and_names_is_true() {
    let folder = folder("");
    let keyed = |columns: &str| {
        define(&folder, columns, "");
        let input = std::fs::read_to_string(folder.path().join("inputs/t.toml")).expect("it is there");
        folder.write("inputs/t.toml", &format!("key = [\"k\"]\n{input}"));
    };
    keyed("k = { type = \"VARCHAR\", nullable = true }\nx = \"VARCHAR\"");
    let output = alluvium(&["check", "."], folder.path());
    exits(&output, 2);
    assert!(
        text(&output).contains("column \"k\" of the key has nullable = true, and a key is never null"),
        "{}",
        text(&output)
    );
    keyed("k = { type = \"VARCHAR\", from = [\"key\", \"Key\"] }\nx = \"VARCHAR\"");
    put(&folder, "a.csv", "key,x,x\n,1,2\nb,2,3\n");
    put(&folder, "b.csv", "other,x\nc,3\n");
    let told = said(&folder, 0);
    assert!(
        told.contains("name \"x\" comes twice in the header of 2 records,"),
        "{told}"
    );
    assert!(!told.contains("no column takes field \"x\""), "{told}");
    let letters = ask(
        &definition(&folder),
        "SELECT reason FROM dead_letters ORDER BY \"partition\"",
    );
    let letters = letters.replace("\"\"", "\"");
    assert!(
        letters.contains("correct the record, or take the column out of the key, whose columns are never null"),
        "{letters}"
    );
    assert!(
        letters.contains("its header lacks what is required, \"k\" (from \"key\" or \"Key\"): it has \"other,x\"")
            && letters.contains("a column of the key is never null"),
        "{letters}"
    );
    assert!(!letters.contains("nullable"), "{letters}");
}

/// The letter for a row of a Parquet or Avro file did not show the row.
#[test]
fn the_letter_of_a_row_of_a_columnar_file_has_the_row_as_json() {
    let bad = 5_000_000_000;
    let avro = [
        avro_header(NUMBERS, "null"),
        avro_block(2, &[long(7), long(bad)].concat()),
    ]
    .concat();
    for (format, bytes, row) in [
        ("parquet", parquet_of(bad, 1), "{\"id\":5000000000,\"x\":15000000000}"),
        ("avro", avro, "{\"id\":5000000000}"),
    ] {
        let folder = with_columns("id = \"INT\"\nx = \"BIGINT\"", &format!("format = \"{format}\"\n"));
        put(&folder, "a", &bytes);
        let (_, letters) = take(&folder);
        assert_eq!(letters.lines().count(), 1, "{letters}");
        let payload = ask(
            &folder.load("lake"),
            "SELECT CAST(payload AS VARCHAR) FROM dead_letters",
        );
        assert_eq!(payload.replace("\"\"", "\"").trim_matches('"'), row);
    }
}

/// `test` did not report rows that it refused, and warned of its own folders.
#[test]
fn tests_name_the_rows_that_they_refuse_and_nothing_of_their_own_folders() {
    let folder = with_columns("k = { type = \"VARCHAR\", nullable = false }\nx = \"INT\"", "");
    folder.write("tests/first/1/inputs/t.csv", "k,x\na,1\nb,soon\n");
    folder.write("tests/first/1/expect/silver.t.csv", "k,x\na,1\n");
    folder.write(
        "tests/first/2/inputs/t.ndjson",
        "{\"k\": \"c\", \"x\": 3}\n{\"x\": 4}\n",
    );
    folder.write("tests/first/2/expect/silver.t.csv", "x\n1\n3\n");
    let output = alluvium(&["test", "."], folder.path());
    exits(&output, 0);
    let told = text(&output);
    let first = told.find("tests/first/1/inputs/t.csv: ").expect(&told);
    let second = told.find("tests/first/2/inputs/t.ndjson: ").expect(&told);
    assert!(first < second && told.contains("soon"), "{told}");
    assert_eq!(told.matches("1 dead letter by its rows:").count(), 2, "{told}");
    assert!(!told.contains("names nothing"), "{told}");
}

/// A replay that changed nothing named a snapshot that did not exist.
#[test]
fn a_replay_that_changes_nothing_says_so() {
    let folder = with_columns("k = \"VARCHAR\"\nx = \"INT\"", "");
    put(&folder, "a.csv", "k,x\na,1\nb,soon\n");
    said(&folder, 0);
    for _ in 0..2 {
        let output = alluvium(&["dead-letters", ".", "--replay"], folder.path());
        exits(&output, 0);
        let told = text(&output);
        assert!(told.contains("1 dead letter tried again, 1 there now"), "{told}");
        match told.split("committed by snapshot ").nth(1) {
            None => assert!(told.contains("nothing changed"), "{told}"),
            Some(rest) => {
                let epoch: String = rest.chars().take_while(char::is_ascii_digit).collect();
                let output = alluvium(
                    &["query", ".", "SELECT COUNT(*) FROM silver.t", "--snapshot", &epoch],
                    folder.path(),
                );
                exits(&output, 0);
            }
        }
    }
}
