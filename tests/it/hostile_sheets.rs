//! CSV as spreadsheets export it: blank rows, cut numbers, errors, titles; and what `infer` makes of files of several languages
//! and dialects.

use crate::commands::{alluvium, exits, text};
use crate::hostile_text::{define, gzipped, inferred, put, settings, take, utf16, with_columns};
use crate::lake::{ask, assert_newest_is_exact};
use crate::support::{Folder, catch_up, recompute};

#[test]
fn a_number_that_a_spreadsheet_cut_is_a_dead_letter_and_an_exact_one_is_taken() {
    let folder = with_columns(
        "line = { type = \"BIGINT\", from = \"file.line\" }\nid = \"BIGINT\"\nn = \"DECIMAL(38,2)\"\n\
         at = { type = \"TIMESTAMP\", format = \"epoch_ms\" }\nx = \"DOUBLE\"\nt = \"VARCHAR\"\n\
         g = { type = \"DECIMAL(18,2)\", format = \"#,##0.00\" }\n",
        "",
    );
    put(
        &folder,
        "a.csv",
        "id,n,at,x,t,g\n\
         4.68769E+17,,,,,\n\
         ,-1.23457E+11,,,,\n\
         ,,1.70412E+12,,,\n\
         ,,,,,1.23457E+12\n\
         \"4.68769E+17\",,,,,\n\
         1.0E7,1e+05,,,,\n\
         4.68769123456789012E+17,1.50E+01,1.704067200000E+12,,,\n\
         ,,,4.68769E+17,4.68769E+17,1\n",
    );
    let (rows, letters) = take(&folder);
    assert_eq!(
        rows,
        "7,10000000,100000.00,,,,\n\
         8,468769123456789012,15.00,2024-01-01T00:00:00,,,\n\
         9,,,,4.68769e17,4.68769E+17,1.00"
    );
    assert_eq!(letters.lines().count(), 5, "{letters}");
    let cut = "it is what a spreadsheet leaves of a number with more than 11 digits";
    assert_eq!(letters.matches(cut).count(), 5, "{letters}");
    let dataflow = folder.load("lake");
    recompute(&dataflow, 2);
    assert_newest_is_exact(&dataflow, "made again from Bronze");

    // Programs' JSON is exact, be it digits of a BigDecimal in a text.
    let folder = with_columns("id = \"BIGINT\"\nn = \"DECIMAL(38,0)\"\n", "format = \"ndjson\"\n");
    put(
        &folder,
        "a.json",
        "{\"id\":1E+17,\"n\":4.68769E+17}\n{\"id\":\"2E+17\",\"n\":\"1E+20\"}\n",
    );
    assert_eq!(
        take(&folder),
        (
            "100000000000000000,468769000000000000\n200000000000000000,100000000000000000000".to_string(),
            String::new()
        )
    );
}

#[test]
fn errors_of_spreadsheets_and_days_that_they_count_say_what_they_are() {
    let folder = with_columns(
        "n = { type = \"DECIMAL(18,2)\", format = \"#,##0.00\" }\nd = { type = \"DATE\", format = \"%d.%m.%Y\" }\n\
         at = \"TIMESTAMP\"\nok = \"BOOLEAN\"\nt = \"VARCHAR\"\n",
        "",
    );
    put(
        &folder,
        "a.csv",
        "n,d,at,ok,t\n#N/A,,,,\n,#VALUE!,,,\n,,#REF!,,\n,,,####,\n,45291,,,\n,,45291.5,,\n1,31.12.2023,2023-12-31,yes,#REF!\n",
    );
    let (rows, letters) = take(&folder);
    assert_eq!(rows, "1.00,2023-12-31,2023-12-31T00:00:00,true,#REF!");
    assert_eq!(
        letters.matches("it is a spreadsheet's error: mend the formula").count(),
        4,
        "{letters}"
    );
    assert_eq!(
        letters
            .matches("it may be how a spreadsheet counts days, then it is 2023-12-31")
            .count(),
        2,
        "{letters}"
    );
}

#[test]
fn blank_rows_are_rows_of_nulls_that_are_told_or_left_out_as_the_feed_says() {
    let text_of = "k,x\na,1\n,\n\"\",\" \"\n ,\t\nb,\n";
    let columns = "k = \"VARCHAR\"\nx = \"VARCHAR\"\n";
    let folder = with_columns(columns, "");
    put(&folder, "a.csv", text_of);
    put(&folder, "b.csv.gz", gzipped(b"k,x\nc,3\n,\n"));
    put(&folder, "c.csv", "k,x\nd,4\n\"\"\"\",\n");
    let output = alluvium(&["run", ".", "--until-caught-up"], folder.path());
    exits(&output, 0);
    let told = text(&output);
    assert!(told.contains("t: (blank row, all null) 4 times"), "{told}");
    for part in [
        "a.csv\" rows=3",
        "b.csv.gz\" rows=1",
        "set `blank_rows = \"skip\"` to leave them out",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("c.csv"), "a quote is a value: {told}");

    // Now the feed leaves them out: of what Bronze has, too.
    define(&folder, columns, "blank_rows = \"skip\"\n");
    put(&folder, "d.csv", format!("{text_of}  \n"));
    let output = alluvium(&["run", ".", "--until-caught-up"], folder.path());
    exits(&output, 0);
    assert!(text(&output).contains("t: (blank row) 8 times"), "{}", text(&output));
    let rows = alluvium(
        &[
            "query",
            ".",
            "SELECT k, x FROM silver.t ORDER BY k, x",
            "--format",
            "csv",
        ],
        folder.path(),
    );
    let rows = String::from_utf8(rows.stdout).expect("it is text");
    assert_eq!(rows, "k,x\n\"\"\"\",\na,1\na,1\nb,\nb,\nc,3\nd,4\n");
    exits(&alluvium(&["verify", "."], folder.path()), 0);

    // Without it, what a required column lacks is refused as ever, and no row of nulls is told of.
    let folder = with_columns("k = { type = \"VARCHAR\", nullable = false }\nx = \"VARCHAR\"\n", "");
    put(&folder, "a.csv", text_of);
    let output = alluvium(&["run", ".", "--until-caught-up"], folder.path());
    assert!(
        text(&output).contains("new dead letters: 1 record"),
        "{}",
        text(&output)
    );
    assert!(
        text(&output).contains("(blank row, all null) 2 times"),
        "{}",
        text(&output)
    );
}

#[test]
fn blank_rows_is_a_setting_of_csv_with_two_words() {
    for (settings, told) in [
        (
            "blank_rows = \"skipp\"\n",
            "did you mean \"skip\"? it is one of keep, skip",
        ),
        ("blank_rows = true\n", "blank_rows"),
        (
            "format = \"ndjson\"\nblank_rows = \"skip\"\n",
            "setting \"blank_rows\" does not fit here",
        ),
    ] {
        let folder = with_columns("k = \"VARCHAR\"\n", settings);
        let output = alluvium(&["check", "."], folder.path());
        exits(&output, 2);
        assert!(text(&output).contains(told), "{settings}: {}", text(&output));
    }
}

#[test]
fn a_file_that_wants_a_setting_of_its_own_names_what_leaves_the_others_as_they_are() {
    let columns = "k = \"VARCHAR\"\nx = \"VARCHAR\"\n";
    let folder = with_columns(columns, "");
    put(&folder, "a.csv", "k,x\na,1\n");
    put(&folder, "b.csv", "Report of May,\n,\nk,x\nb,2\n");
    put(&folder, "c.csv", "Report of May\nk,x\nc,3\n");
    let (rows, letters) = take(&folder);
    assert_eq!(rows, "a,1");
    for part in [
        "the header is line 3: set `skip_lines = 2`; a setting holds for all files of the feed",
        "the header is line 2: set `skip_lines = 1`; a setting holds for all files of the feed",
        "where only this one needs it, repair the file, or move it to a folder that another feed of the input reads",
    ] {
        assert!(letters.contains(part), "{part}: {letters}");
    }
    // One is repaired, which makes it readable at once; its letter goes by a replay.
    put(&folder, "b.csv", "k,x\nb,2\n");
    // The other one gets a feed.
    std::fs::create_dir_all(folder.path().join("titled")).expect("the folder is made");
    std::fs::rename(folder.path().join("drops/c.csv"), folder.path().join("titled/c.csv")).expect("it is moved");
    define(
        &folder,
        columns,
        "format = \"csv\"\n[[feeds]]\nname = \"titled\"\nkind = \"files\"\npath = \"titled/*\"\nformat = \"csv\"\nskip_lines = 1\n",
    );
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    assert_eq!(ask(&dataflow, "SELECT k, x FROM silver.t ORDER BY k"), "a,1\nb,2\nc,3");
    let replayed = alluvium(
        &["dead-letters", ".", "--replay", "--lake", "lakes/lake"],
        folder.path(),
    );
    let letters = ask(&dataflow, "SELECT \"partition\" FROM dead_letters");
    assert_eq!(letters, "c.csv", "{}", text(&replayed));
    assert_eq!(ask(&dataflow, "SELECT k, x FROM silver.t ORDER BY k"), "a,1\nb,2\nc,3");
}

#[test]
fn numbers_in_the_reasons_of_letters_are_lines_of_the_file() {
    let text_of = "title\n\nk,x\n\"a\nb\",1\n\nd,2,3\ne,4\n\"f,5\ng,6\n";
    let columns = "k = \"VARCHAR\"\nx = \"VARCHAR\"\n";
    let folder = with_columns(columns, "skip_lines = 2\n");
    put(&folder, "plain.csv", text_of);
    put(&folder, "crlf.csv", text_of.replace('\n', "\r\n"));
    put(&folder, "cr.csv", text_of.replace('\n', "\r"));
    put(&folder, "packed.csv", gzipped(text_of.as_bytes()));
    put(&folder, "utf16.csv", utf16(text_of, true));
    put(&folder, "told.csv", text_of.replace("title", "sep=,"));
    let check = |letters: &str| {
        assert_eq!(letters.lines().count(), 12, "{letters}");
        let record = "the record has 3 fields, the header 2; quote fields that hold delimiters or line ends; the record begins on line 7 of its file";
        assert_eq!(letters.matches(record).count(), 6, "{letters}");
        let file = "behind the record of its line 8: a quote in the record that begins on line 9 is never closed";
        assert_eq!(letters.matches(file).count(), 6, "{letters}");
    };
    let (rows, letters) = take(&folder);
    assert_eq!(rows.matches("e,4").count(), 6, "{rows}");
    check(&letters);
    let dataflow = folder.load("lake");
    recompute(&dataflow, 2);
    check(&ask(&dataflow, "SELECT reason FROM dead_letters"));
    assert_newest_is_exact(&dataflow, "made again from Bronze");
}

#[test]
fn records_that_end_with_a_delimiter_say_so_and_how_they_are_read() {
    let columns = "a = \"INT\"\nb = \"INT\"\nrest = \"VARCHAR\"\n";
    let folder = with_columns(columns, "");
    put(&folder, "a.csv", "a,b\n1,2,\n3,4\n5,6,7\n");
    let (rows, letters) = take(&folder);
    assert_eq!(rows, "3,4,");
    assert!(
        letters.contains("the header 2, for the record ends with a delimiter"),
        "{letters}"
    );
    assert!(
        letters.contains("by `header = false` and `skip_lines = 1`"),
        "{letters}"
    );
    assert!(
        letters.contains("the record has 3 fields, the header 2; quote fields"),
        "{letters}"
    );
    let folder = with_columns(columns, "header = false\nskip_lines = 1\n");
    put(&folder, "a.csv", "a,b\n1,2,\n5,6,7\n");
    assert_eq!(take(&folder), ("1,2,\n5,6,7".to_string(), String::new()));
}
