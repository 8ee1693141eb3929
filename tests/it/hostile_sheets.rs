//! Tests CSV as spreadsheets export it: blank rows, truncated numbers, errors, titles; and `infer` on files in several
//! languages and dialects.

use crate::commands::{alluvium, exits, text};
use crate::hostile_text::{define, gzipped, inferred, put, settings, take, utf16, with_columns};
use crate::lake::{ask, assert_newest_is_exact};
use crate::support::{Folder, catch_up, recompute};

/// `4.68769E+17`, as a spreadsheet writes the id 468768912345678901, was read as 468769000000000000; a truncated
/// number of milliseconds was read as another timestamp.
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

    // JSON numbers of programs are exact, even those of a BigDecimal in a text.
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

/// Errors that a spreadsheet shows in place of values were reported like any text: "add its pattern to the column's
/// `format`".
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

/// Rows with only delimiters, as spreadsheets export them, silently became rows of nulls.
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

    // With the new setting the feed leaves blank rows out, including those in Bronze.
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

    // Without that setting, a row that lacks a required column is refused as before, and not reported as a row of
    // nulls.
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

/// In a file with decimal commas, 1152 pieces were inferred as 1.152.
#[test]
fn infer_reads_the_points_and_commas_of_all_columns_as_one_language() {
    for (csv, line) in [
        (
            "id;amount;pieces\n1;1.234,56;1.152\n2;5,00;2.300\n3;5,00;7\n",
            "pieces = { type = \"INT\", format = \"#.##0,00\" } # 1.152 is 1152, as column amount has decimal commas",
        ),
        (
            "id;amount;pieces\n1;12.50;\"1,152\"\n2;5;\"2,300\"\n",
            "pieces = { type = \"INT\", format = \"#,##0.00\" } # how 1,152 is read follows from column amount, which has decimal points",
        ),
        (
            "id;amount;weight\n1;12,50;\"1.152,5\"\n2;5;\"2,300\"\n",
            "weight = { type = \"DECIMAL(18,3)\", format = \"#.##0,00\" }",
        ),
        ("id;a;b\n1;12.50;1.152\n2;5;2.300\n", "b = \"DECIMAL(18,3)\"\n"),
        (
            "id;b\n1;1.152\n2;2.300\n",
            "b = \"DECIMAL(18,3)\" # nothing in the files tells whether 1.152 is 1152: if it is, declare INT with format = \"#.##0,00\"",
        ),
        (
            "id;a;b;c\n1;12.50;1,5;1.152\n",
            "c = \"DECIMAL(18,3)\" # nothing in the files tells",
        ),
        (
            "id;b\n1;\"1,152\"\n2;\"2,300\"\n",
            "b = \"VARCHAR\" # a number by \"#,##0.00\" or \"#.##0,00\": say which by `format`",
        ),
    ] {
        let drops = Folder::new("drops", &[]);
        put(&drops, "a.csv", csv);
        let (folder, toml) = inferred(&drops.path().join("drops"));
        assert!(toml.contains(line), "{csv}: {toml}");
        assert_eq!(take(&folder).1, "", "{csv}");
    }
    // Another file in the folder counts as evidence too, and so does a number after many plain ones.
    let drops = Folder::new("drops", &[]);
    put(&drops, "a.csv", "id;pieces\n1;1.152\n");
    let many: String = (0..300).map(|n| format!("{n};{}\n", 3_000_000_000u64 + n)).collect();
    put(&drops, "b.csv", format!("id;pieces\n{many}7;0,5\n"));
    let (folder, toml) = inferred(&drops.path().join("drops"));
    assert!(
        toml.contains("pieces = { type = \"DECIMAL(18,2)\", format = \"#.##0,00\" }"),
        "{toml}"
    );
    assert_eq!(take(&folder).1, "");
    assert_eq!(
        ask(&folder.load("lake"), "SELECT MIN(pieces), MAX(pieces) FROM silver.t"),
        "0.50,3000000299.00"
    );
}

/// Of files with different numbers of title lines, one determined the settings for all, and records of the others were
/// taken for headers.
#[test]
fn infer_names_the_files_that_want_other_settings_than_the_most() {
    let drops = Folder::new("drops", &[]);
    for name in ["a.csv", "b.csv", "c.csv"] {
        put(&drops, name, "k,x\na,1\nb,2\n");
    }
    put(&drops, "two.csv", "Report of May\n\nk,x\na,1\nc,3\n");
    put(&drops, "padded.csv", "Report of June,,\n,,\nk,x,y\na,1,1\nc,3,1\n");
    put(&drops, "semicolon.csv", "k;x\na;1\nb;2\n");
    put(&drops, "bytes.csv", b"k,x\nM\xfcller,1\n");
    put(&drops, "utf8.csv", "k,x\nM\u{fc}ller,1\n");
    put(&drops, "also.csv", "k,x\nM\u{fc}ller,1\n");
    put(&drops, "mark.csv", b"\xef\xbb\xbfk,x\nM\xc3\xbcller,1\n");
    put(&drops, "told.csv", "sep=;\nk;x\nz;9\n");
    put(&drops, "lines.json", "{\"k\":1}\n{\"k\":2}\n");
    let output = alluvium(&["infer", "drops/*"], drops.path());
    exits(&output, 0);
    let toml = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    for (file, wants) in [
        ("two.csv", "wants skip_lines = 2, not 0"),
        ("padded.csv", "wants skip_lines = 2, not 0"),
        ("semicolon.csv", "wants delimiter = \";\""),
        ("bytes.csv", "wants encoding = \"windows-1252\""),
        ("lines.json", "it is JSON"),
    ] {
        for (lines, start) in [
            (&toml, "# Passed over: "),
            (&told, "warning: not read by what follows: "),
        ] {
            let line = lines.lines().find(|line| line.starts_with(&format!("{start}{file}: ")));
            assert!(line.is_some_and(|line| line.contains(wants)), "{file}: {lines}");
        }
    }
    assert!(!told.contains("mark.csv") && !told.contains("told.csv"), "{told}");
    assert!(toml.contains("looked at 7 of 12 files and 10 records"), "{toml}");
    assert!(
        settings(&toml).starts_with("[columns]\nk = \"VARCHAR\"\nx = \"INT\"\n[[feeds]]"),
        "{toml}"
    );
    assert!(
        !toml.contains("skip_lines = 2\n") && !toml.contains("\ndelimiter"),
        "{toml}"
    );

    // If most files have titles, the one without is named.
    let drops = Folder::new("drops", &[]);
    put(&drops, "a.csv", "Report of May\n\nk,x\na,1\nc,3\n");
    put(&drops, "b.csv", "Report of June\n\nk,x\na,1\nc,3\n");
    put(&drops, "c.csv", "k,x\na,1\nc,3\n");
    let output = alluvium(&["infer", "drops"], drops.path());
    exits(&output, 0);
    let told = text(&output);
    assert!(
        told.contains("\nskip_lines = 2\n")
            && told.contains("c.csv: it is CSV of another dialect, and wants skip_lines = 0, not 2"),
        "{told}"
    );
}

/// The output of `infer` reads the sampled files to the same rows, however they are packed and named.
#[test]
fn infer_of_packed_misnamed_and_told_files_reads_them_as_it_says() {
    let plain = "k;x;n\na;1,5;1\nb;2,5;\n";
    let quoted = "\"k\";\"x\";\"n\"\n\"a\";\"1,5\";\"1\"\n\"b\";\"2,5\";\"\"\n";
    let titled = "sep=;\r\nReport;;\r\n;;\r\nk;x;n\r\na;1,5;1\r\nb;2,5;\r\n";
    let zst = |text: &str| zstd::encode_all(text.as_bytes(), 1).expect("it is packed");
    for (what, pattern, files) in [
        ("plain", "drops/*.csv", vec![("a.csv", plain.as_bytes().to_vec())]),
        (
            "told",
            "drops/*.csv",
            vec![("a.csv", format!("sep=;\n{plain}").into_bytes())],
        ),
        ("gz", "drops/*.csv.gz", vec![("a.csv.gz", gzipped(plain.as_bytes()))]),
        (
            "gz told",
            "drops/*.csv.gz",
            vec![("a.csv.gz", gzipped(format!("sep=;\r\n{plain}").as_bytes()))],
        ),
        ("zst", "drops/*.zst", vec![("a.csv.zst", zst(plain))]),
        ("plain gz", "drops/*.gz", vec![("a.csv.gz", plain.as_bytes().to_vec())]),
        ("misnamed", "drops/*.csv", vec![("a.csv", gzipped(plain.as_bytes()))]),
        ("txt", "drops", vec![("a.txt", zst(plain))]),
        ("quoted", "drops", vec![("a.csv", quoted.as_bytes().to_vec())]),
        ("titled", "drops", vec![("a.csv", titled.as_bytes().to_vec())]),
        ("utf-16", "drops", vec![("a.csv", utf16(plain, true))]),
        (
            "utf-16 told",
            "drops",
            vec![("a.csv", utf16(&format!("sep=;\n{plain}"), true))],
        ),
    ] {
        let drops = Folder::new("drops", &[]);
        for (name, bytes) in files {
            put(&drops, name, bytes);
        }
        let (folder, toml) = inferred(&drops.path().join(pattern));
        let said = settings(&toml);
        for part in [
            "k = \"VARCHAR\"",
            "x = { type = \"DECIMAL(18,2)\", format = \"#.##0,00\" }",
            "delimiter = \";\"",
        ] {
            assert!(said.contains(part), "{what}: {toml}");
        }
        assert_eq!(
            take(&folder),
            ("a,1.50,1\nb,2.50,".to_string(), String::new()),
            "{what}: {toml}"
        );
    }
    // Plain files and files that name their delimiter are mixed, packed or not.
    let drops = Folder::new("drops", &[]);
    put(&drops, "a.csv", plain);
    put(&drops, "b.csv", format!("sep=;\n{plain}"));
    put(
        &drops,
        "c.csv.gz",
        gzipped(format!("sep=|\n{}", plain.replace(';', "|")).as_bytes()),
    );
    let (folder, toml) = inferred(&drops.path().join("drops/*.csv*"));
    assert!(!toml.contains("Passed over"), "{toml}");
    assert_eq!(
        take(&folder),
        (
            ["a,1.50,1"; 3].join("\n") + "\n" + &["b,2.50,"; 3].join("\n"),
            String::new()
        )
    );
}

/// Numbers truncated by a spreadsheet silently became a DOUBLE, and its errors a text; blank rows prevented a key.
#[test]
fn infer_says_what_a_spreadsheet_did_to_a_column() {
    let drops = Folder::new("drops", &[]);
    put(
        &drops,
        "a.csv",
        "Orders,,\n,,\nid,ref,sum\n1,4.68769E+17,1.5\n2,468769123456789012,#DIV/0!\n3,5,2.5\n,,\n,,\n",
    );
    let (folder, toml) = inferred(&drops.path().join("drops"));
    for part in [
        "ref = \"VARCHAR\" # digits of 4.68769E+17 are lost",
        "sum = \"DECIMAL(18,2)\" # #DIV/0! is taken as null",
        "null = \"#DIV/0!\"",
        "skip_lines = 2",
        "# blank_rows = \"skip\" # leaves out rows",
        "# key = [\"id\"]",
    ] {
        assert!(toml.contains(part), "{part}: {toml}");
    }
    let (rows, letters) = take(&folder);
    assert_eq!((rows.lines().count(), letters.as_str()), (5, ""), "{rows}");
}

/// The advice for one file of a folder would have broken all others; now it names a remedy for that file only.
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
    // One file is repaired and so becomes readable; a replay removes its letter.
    put(&folder, "b.csv", "k,x\nb,2\n");
    // The other one gets a feed of its own.
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

/// Letters of files gave record numbers, which users cannot look up; now they give lines of the file.
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

/// A header with one name too few (each record ends with a delimiter) was silently skipped.
#[test]
fn infer_tells_of_a_header_whose_width_is_not_that_of_its_records() {
    let drops = Folder::new("drops", &[]);
    put(&drops, "a.csv", "a,b\n1,2,\n4,\u{2212}5,\n7,8,\n");
    let (folder, toml) = inferred(&drops.path().join("drops"));
    assert!(
        toml.contains("# Line 1 looks like a header with 2 names, and records have 3 fields"),
        "{toml}"
    );
    assert_eq!(take(&folder), ("1,2,\n4,-5,\n7,8,".to_string(), String::new()));
}

/// For records that end with a delimiter, the advice was to quote fields that contain delimiters, of which there were
/// none.
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

/// The second of two fields with the same name was left out, and quotes after blanks broke fields and hid the header.
#[test]
fn infer_takes_fields_of_one_name_and_quotes_behind_blanks() {
    let drops = Folder::new("drops", &[]);
    put(&drops, "a.csv", "id,name,name\n1,a,\"b\"\n2, \"c, d\",e\n");
    let (folder, toml) = inferred(&drops.path().join("drops"));
    for part in ["column_3 = { type = \"VARCHAR\", from = 3 }", "trim = true"] {
        assert!(toml.contains(part), "{part}: {toml}");
    }
    assert_eq!(take(&folder), ("1,a,b\n2,\"c, d\",e".to_string(), String::new()));
}

/// If numbers had NA for null, the country code NA became null too; and a column with its own list of nulls lost the
/// other words.
#[test]
fn infer_takes_a_code_that_looks_like_null_for_a_code() {
    let drops = Folder::new("drops", &[]);
    put(
        &drops,
        "a.csv",
        "id,country,n,m,note\n1,NA,NA,5,NA\n2,DE,5,-,x\n3,FR,7,7,Y\n",
    );
    let (folder, toml) = inferred(&drops.path().join("drops"));
    for part in [
        "country = { type = \"VARCHAR\", null = [] } # NA is no null here: all other texts are written like it",
        "m = { type = \"INT\", null = [\"-\", \"NA\"] }",
        "note = \"VARCHAR\"\n",
        "null = \"NA\"",
    ] {
        assert!(toml.contains(part), "{part}: {toml}");
    }
    assert_eq!(
        take(&folder),
        ("1,NA,,5,\n2,DE,5,,x\n3,FR,7,7,Y".to_string(), String::new())
    );
}
