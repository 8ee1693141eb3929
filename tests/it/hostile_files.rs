//! Tests malformed folders: names that are not text, links that loop or lead outside, FIFOs, folders without
//! permission, the lake's own files. Whatever the folder has, a run reads the rest, ends when asked to, and reports
//! what it left out.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

use crate::commands::{alluvium, exits, text};
use crate::lake::{ask, assert_newest_is_exact};
use crate::poison;
use crate::runs;
use crate::support::{Folder, Running, catch_up, recompute, snapshots};

/// An input of whole numbers from files, with further settings of its feed.
fn input(path: &str, format: &str, more: &str) -> String {
    format!(
        "[columns]\nn = \"BIGINT\"\n[[feeds]]\nname = \"drops\"\nkind = \"files\"\nformat = \"{format}\"\npath = \"{path}\"\n{more}\n"
    )
}

/// A dataflow whose input `rows` reads this path.
fn folder(path: &str, more: &str) -> Folder {
    let folder = Folder::new("hostile", &[("inputs/rows.toml", &input(path, "csv", more))]);
    folder.write("silver/rows.sql", "SELECT n FROM rows");
    folder.write("drops/a.csv", "n\n1\n");
    folder
}

/// The numbers in the Silver table.
fn numbers(folder: &Folder, lake: &str) -> String {
    let dataflow = folder.load(lake);
    assert_newest_is_exact(&dataflow, lake);
    ask(&dataflow, "SELECT n FROM silver.rows ORDER BY n").replace('\n', " ")
}

fn mkfifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

/// Runs the binary until it has caught up; it must end by itself.
fn run(folder: &Folder) -> Output {
    run_as(Command::new(env!("CARGO_BIN_EXE_alluvium")), folder)
}

fn run_as(mut command: Command, folder: &Folder) -> Output {
    let child = command
        .args(["run", ".", "--until-caught-up", "--lake", "lakes/lake"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    finish(child, Duration::from_secs(120))
}

/// Waits for a process, which must end within this time.
fn finish(mut child: Child, within: Duration) -> Output {
    let started = Instant::now();
    while child.try_wait().expect("the process can be asked").is_none() {
        if started.elapsed() > within {
            child.kill().expect("it can be killed");
            let output = child.wait_with_output().expect("its output");
            panic!("the run did not end: {}", text(&output));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().expect("its output")
}

/// A command that runs as root but obeys file modes; none if that is not available.
fn obeying() -> Option<Command> {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-dac_override,-dac_read_search", "--"]);
    let mut probe = Command::new("setpriv");
    probe.args(["--bounding-set", "-dac_override,-dac_read_search", "--", "true"]);
    if !probe.status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: permissions cannot be obeyed here");
        return None;
    }
    command.arg(env!("CARGO_BIN_EXE_alluvium"));
    Some(command)
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("the mode is set");
}

fn messages(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One name that was not UTF-8, even of a hidden file or one beside the glob's files, made every run panic while
/// listing.
#[test]
fn names_that_are_not_utf8_are_read_and_keep_their_rows_over_restarts() {
    let folder = folder("drops/**/*.csv", "");
    let put = |name: &[u8], n: u32| {
        let path = folder.path().join("drops").join(OsStr::from_bytes(name));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
        std::fs::write(path, format!("n\n{n}\n")).expect("the file is written");
    };
    put(b"caf\xe9.csv", 2);
    put(b"d\xff/b%FF.csv", 3);
    put(b"b%FF.csv", 4);
    put(b"b\xff.csv", 5);
    put(b"\xff.txt", 90);
    put(b"._\xfe.csv", 91);
    put(b"line\nbreak\x1b[31m.csv", 6);
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 2);
    assert_eq!(numbers(&folder, "lake"), "1 2 3 4 5 6");
    assert_eq!(
        ask(
            &dataflow,
            "SELECT DISTINCT \"partition\" FROM bronze.rows WHERE \"partition\" LIKE './%' ORDER BY 1"
        ),
        "./b%FF.csv\n./caf%E9.csv\n./d%FF/b%25FF.csv"
    );
    put(b"more\xff.csv", 7);
    catch_up(&dataflow, 1);
    assert_eq!(numbers(&folder, "lake"), "1 2 3 4 5 6 7");
    recompute(&dataflow, 1);
    assert_eq!(numbers(&folder, "lake"), "1 2 3 4 5 6 7");
}

/// A damaged file with an escape sequence in its name wrote that sequence to the user's terminal.
#[test]
fn names_with_escapes_of_terminals_are_shown_escaped() {
    let folder = folder("drops/*.csv.gz", "");
    folder.write("drops/a\x1b]0;owned\x07\nerror: b.csv.gz", "\u{1}\u{0}no gzip");
    mkfifo(&folder.path().join("drops/f\x1b[2J.csv.gz"));
    let ran = run(&folder);
    exits(&ran, 0);
    let told = messages(&ran);
    assert!(!told.contains('\x1b') && !told.contains('\x07'), "{told:?}");
    assert!(told.contains("a\\u{1b}]0;owned\\u{7}\\nerror: b.csv.gz"), "{told}");
    assert!(
        told.contains("f\\u{1b}[2J.csv.gz is a FIFO, not a file, and is left out"),
        "{told}"
    );
}

/// With one link to a parent folder, rows came 41 times; with two folders that linked to each other, the listing never
/// ended; and a link to itself ended the run.
#[test]
fn links_that_loop_bring_each_row_once_and_are_told() {
    let folder = folder("drops/**/*.csv", "");
    folder.write("drops/x/b.csv", "n\n2\n");
    folder.write("drops/y/c.csv", "n\n3\n");
    let link = |target: &str, name: &str| symlink(target, folder.path().join("drops").join(name)).expect("a link");
    link("..", "x/up");
    link(".", "self");
    link("../y", "x/y");
    link("../x", "y/x");
    link("itself.csv", "itself.csv");
    link("nowhere.csv", "gone.csv");
    link("a.csv", "latest.csv");
    let ran = run(&folder);
    exits(&ran, 0);
    assert_eq!(numbers(&folder, "lake"), "1 2 3");
    let told = messages(&ran);
    for (name, what) in [
        ("x/up", "leads up to"),
        ("self", "leads up to"),
        ("itself.csv", "leads nowhere"),
        ("gone.csv", "leads nowhere"),
    ] {
        let lines = told
            .lines()
            .filter(|line| line.contains(&format!("drops/{name} {what}")));
        assert_eq!(lines.count(), 1, "{name}: {told}");
    }
}

/// A feed waited for folders whose paths are too long for system calls, and `run --until-caught-up` failed after 80 s.
#[test]
fn folders_deeper_than_a_path_reaches_are_left_out_and_told_and_the_others_are_read() {
    for (name, levels) in [("a".to_string(), 3_000), ("n".repeat(200), 60)] {
        let folder = folder("drops/**/*.csv", "");
        let drops = folder.path().join("drops");
        // A path can be only so long, so a deep chain of folders is made by moving one chain below another.
        let at_once = 1_800 / (name.len() + 1);
        for part in 0..levels / at_once {
            let below = drops.join("next").join(vec![name.as_str(); at_once - 1].join("/"));
            std::fs::create_dir_all(&below).expect("the folders are made");
            std::fs::write(below.join("b.csv"), "n\n2\n").expect("the file is written");
            if part > 0 {
                std::fs::rename(drops.join(&name), below.join(&name)).expect("they are moved");
            }
            std::fs::rename(drops.join("next"), drops.join(&name)).expect("they are moved");
        }
        let ran = run(&folder);
        let numbers = numbers(&folder, "lake");
        let removed = Command::new("rm").arg("-rf").arg(drops.join(&name)).status();
        assert!(removed.expect("rm runs").success());
        exits(&ran, 0);
        assert_eq!(numbers, "1 2 2", "of the files at three depths one lies too deep");
        let told = messages(&ran);
        let lines = told
            .lines()
            .filter(|line| line.contains("has a path of more than 4095 bytes"));
        assert_eq!(
            lines.map(|line| line.len() < 1_000).collect::<Vec<_>>(),
            [true],
            "{told}"
        );
    }
}

/// By a link, anybody who could write to a drop folder could have any file that the process may read copied into
/// Bronze.
#[test]
fn links_out_of_the_folder_are_refused_and_told_unless_the_feed_allows_them() {
    for (more, expected) in [("", "1 2"), ("follow_links = true", "1 2 7 8")] {
        let folder = folder("drops/**/*.csv", more);
        folder.write("outside/secret.csv", "n\n7\n");
        folder.write("outside/more/d.csv", "n\n8\n");
        folder.write("drops/.held/b.csv", "n\n2\n");
        let link =
            |target: PathBuf, name: &str| symlink(target, folder.path().join("drops").join(name)).expect("a link");
        link(folder.path().join("outside/secret.csv"), "s.csv");
        link(folder.path().join("outside/more"), "more");
        link(PathBuf::from("/"), "root");
        link(PathBuf::from(".held/b.csv"), "b.csv");
        let ran = run(&folder);
        exits(&ran, 0);
        assert_eq!(numbers(&folder, "lake"), expected, "{more}");
        let refused = messages(&ran)
            .lines()
            .filter(|line| line.contains("follow_links = true"))
            .count();
        assert_eq!(refused, if more.is_empty() { 2 } else { 0 }, "{}", messages(&ran));
    }
}

/// If the dataflow's folder had brackets in its name, the feed's folder was taken to be above it: links to anything
/// beside it were followed, and partitions had its name in theirs, so that a moved dataflow read all of its files
/// again.
#[test]
fn a_dataflow_in_a_folder_with_brackets_has_its_own_feeds_folder() {
    let around = tempfile::tempdir().expect("a temporary folder");
    let put = |path: &str, text: &str| {
        let path = around.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
        std::fs::write(path, text).expect("the file is written");
    };
    put("a [x]*/dataflow.toml", "name = \"odd\"\n");
    put("a [x]*/inputs/rows.toml", &input("drops/**/*.csv", "csv", ""));
    put("a [x]*/silver/rows.sql", "SELECT n FROM rows");
    put("a [x]*/drops/a.csv", "n\n1\n");
    put("secret/s.csv", "n\n7\n");
    let drops = around.path().join("a [x]*/drops");
    symlink(around.path().join("secret/s.csv"), drops.join("s.csv")).expect("a link");
    let ran = alluvium(&["run", "a [x]*", "--until-caught-up"], around.path());
    exits(&ran, 0);
    assert!(messages(&ran).contains("follow_links = true"), "{}", messages(&ran));
    let sql = "SELECT \"partition\", CAST(payload AS VARCHAR) FROM bronze.rows";
    let asked = alluvium(&["query", "a [x]*", sql, "--format", "csv"], around.path());
    assert!(text(&asked).ends_with("\na.csv,1\n"), "{}", text(&asked));
}

/// Opening a FIFO waits for a writer: the feed stood still, and the run reacted neither to SIGTERM nor to the end of
/// the other feeds.
#[test]
fn fifos_sockets_and_devices_are_never_opened() {
    let folder = folder("drops/*", "");
    mkfifo(&folder.path().join("drops/b.csv"));
    let _socket = UnixListener::bind(folder.path().join("drops/c.csv")).expect("a socket");
    symlink("/dev/zero", folder.path().join("drops/d.csv")).expect("a link");
    folder.write("live/0.ndjson", "{\"value\": {\"n\": 5}}\n");
    folder.write(
        "inputs/rows.toml",
        &(input("drops/*", "csv", "follow_links = true")
            + "[[feeds]]\nname = \"live\"\nkind = \"log\"\nformat = \"json\"\npath = \"live\"\nfollow_links = true\n"),
    );
    mkfifo(&folder.path().join("live/1.ndjson"));
    symlink("/dev/zero", folder.path().join("live/2.ndjson")).expect("a link");
    std::fs::create_dir(folder.path().join("live/3.ndjson")).expect("a folder");
    symlink("4.ndjson", folder.path().join("live/4.ndjson")).expect("a link");
    let ran = run(&folder);
    exits(&ran, 0);
    assert_eq!(numbers(&folder, "lake"), "1 5");
    let told = messages(&ran);
    for name in [
        "b.csv is a FIFO",
        "c.csv is a socket",
        "d.csv is a device",
        "1.ndjson is left out of the log: it is a FIFO",
        "2.ndjson is left out of the log: it is a device",
        "3.ndjson is left out",
        "4.ndjson is left out",
    ] {
        assert!(told.contains(name), "{name}: {told}");
    }

    // A run without end reacts to SIGTERM once both feeds have seen what is in their folders.
    let endless = runs::Running::alluvium(&folder, &["--lake", "lakes/lake"]);
    for part in [
        " started ",
        "b.csv is a FIFO",
        "1.ndjson is left out of the log: it is a FIFO",
    ] {
        endless.wait_for(part);
    }
    let told = Instant::now();
    endless.stop();
    assert!(told.elapsed() < Duration::from_secs(30));
}

/// One folder or file without permission ended the run, or such a file became a dead letter and was never read.
#[test]
fn what_may_not_be_read_is_named_others_are_read_and_it_is_read_once_it_may_be() {
    let Some(command) = obeying() else { return };
    let folder = folder("drops/**/*.csv", "");
    folder.write(
        "inputs/rows.toml",
        &(input("drops/**/*.csv", "csv", "")
            + "[[feeds]]\nname = \"live\"\nkind = \"log\"\nformat = \"json\"\npath = \"live\"\n"),
    );
    folder.write("drops/shut/b.csv", "n\n2\n");
    folder.write("drops/c.csv", "n\n3\n");
    folder.write("live/0.ndjson", "{\"value\": {\"n\": 4}}\n");
    folder.write("live/1.ndjson", "{\"value\": {\"n\": 5}}\n");
    let shut = ["drops/shut", "drops/c.csv", "live/1.ndjson"].map(|name| folder.path().join(name));
    shut.iter().for_each(|path| mode(path, 0o000));
    let ran = run_as(command, &folder);
    exits(&ran, 1);
    let told = messages(&ran);
    for cause in [
        "error: not caught up: feed rows.drops: could not read ",
        "/drops/shut: Permission denied",
        "error: not caught up: feed rows.live: could not read ",
        "/live/1.ndjson: Permission denied",
    ] {
        assert!(told.contains(cause), "{cause}: {told}");
    }
    assert_eq!(
        told.matches("waits: could not read").count(),
        2,
        "each is told once: {told}"
    );
    assert_eq!(numbers(&folder, "lake"), "1 4", "the others are read");
    shut.iter().for_each(|path| mode(path, 0o755));
    exits(&run(&folder), 0);
    assert_eq!(numbers(&folder, "lake"), "1 2 3 4 5");
    let dataflow = folder.load("lake");
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM dead_letters"), "0");
}

/// A run that goes on reads a repaired folder without a restart.
#[test]
fn a_run_goes_on_by_itself_once_a_folder_may_be_read_again() {
    let Some(mut command) = obeying() else { return };
    let folder = folder("drops/**/*.csv", "");
    folder.write("drops/shut/b.csv", "n\n2\n");
    let shut = folder.path().join("drops/shut");
    mode(&shut, 0o000);
    let run = runs::Running::start(
        command
            .args(["run", ".", "--lake", "lakes/lake"])
            .current_dir(folder.path()),
    );
    let dataflow = folder.load("lake");
    let has = |rows: &str| snapshots(&dataflow) > 0 && ask(&dataflow, "SELECT COUNT(*) FROM silver.rows") == rows;
    run.wait_for("waits: could not read");
    run.wait_until(|_| has("1"));
    mode(&shut, 0o755);
    run.wait_for("waits no more");
    run.wait_until(|_| has("2"));
    run.stop();
    assert_eq!(numbers(&folder, "lake"), "1 2");
}

/// The feed read what the run wrote, which made the run write more.
#[test]
fn a_feed_does_not_read_the_lakes_own_files() {
    let folder = Folder::new(
        "hostile",
        &[("inputs/rows.toml", &input("**/*.parquet", "parquet", ""))],
    );
    folder.write("silver/rows.sql", "SELECT n FROM rows");
    let checked = alluvium(&["check", "."], folder.path());
    exits(&checked, 2);
    assert!(
        text(&checked).contains("inputs/rows.toml: feed \"drops\" would read the lake's own files, such as "),
        "{}",
        text(&checked)
    );
    // The lake's files are also left out when they are reached by a link.
    folder.write("inputs/rows.toml", &input("drops/**/*", "csv", "follow_links = true"));
    folder.write("drops/a.csv", "n\n1\n");
    let dataflow = folder.load("lake");
    std::fs::create_dir_all(folder.lake("lake").join("silver")).expect("a folder");
    symlink(folder.lake("lake"), folder.path().join("drops/lake")).expect("a link");
    catch_up(&dataflow, 1);
    catch_up(&dataflow, 1);
    let ran = run(&folder);
    exits(&ran, 0);
    assert_eq!(numbers(&folder, "lake"), "1");
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM dead_letters"), "0");
    assert!(
        messages(&ran).contains("drops/lake/silver holds the lake's own files, which are left out"),
        "{}",
        messages(&ran)
    );
}

/// A glob that matched nothing read nothing, silently.
#[test]
fn what_is_not_read_is_said_with_what_is_near() {
    let told = |path: &str, prepare: &dyn Fn(&Folder)| {
        let folder = folder(path, "");
        prepare(&folder);
        let ran = run(&folder);
        exits(&ran, 0);
        messages(&ran)
    };
    let nothing = |_: &Folder| {};
    let said = told("drop/*.csv", &nothing);
    assert!(said.contains("/drop does not exist (there is "), "{said}");
    let said = told("drops/*.CSV", &nothing);
    assert!(said.contains("holds 1 other file (1 of .csv)"), "{said}");
    let said = told("drops/b.csv", &nothing);
    assert!(
        said.contains("drops/b.csv does not exist; did you mean a.csv?"),
        "{said}"
    );
    let said = told("drops/*.csv", &|folder| {
        folder.write("drops/_b.csv", "n\n2\n");
        folder.write("drops/.c.csv", "n\n2\n");
    });
    assert!(
        said.contains("2 of the names begin with _ or . and are left out, such as "),
        "{said}"
    );

    let log = |prepare: &dyn Fn(&Folder)| {
        let folder = folder("drops/*.csv", "");
        folder.write(
            "inputs/rows.toml",
            "[columns]\nn = \"BIGINT\"\n[[feeds]]\nname = \"live\"\nkind = \"log\"\nformat = \"json\"\npath = \"live\"\n",
        );
        prepare(&folder);
        let ran = run(&folder);
        exits(&ran, 0);
        messages(&ran)
    };
    let said = log(&|folder| folder.write("live/0.json", "{}"));
    assert!(
        said.contains("has no <partition>.ndjson: it holds 1 other file (1 of .json)"),
        "{said}"
    );
    let said = log(&|folder| folder.write("live/0.ndjson", "{\"value\": {\"n\": 1}}\n{\"value\": {\"n\": 2}}"));
    assert!(
        said.contains("at byte 20, has no newline and waits: 19 bytes"),
        "{said}"
    );
    // A log's folder has files with names similar to partitions': the feed does not read them, and says so.
    let said = log(&|folder| {
        ["0.ndjson", "1.NDJSON", "2.ndjson.gz"]
            .iter()
            .for_each(|name| folder.write(&format!("live/{name}"), "{\"value\": {\"n\": 1}}\n"));
    });
    let told = "2 of the files differ from <partition>.ndjson in the case of letters, or are packed";
    assert_eq!(said.matches(told).count(), 1, "{said}");
}

/// A month that was published again under another name counted twice.
#[test]
fn a_file_with_the_bytes_of_one_that_was_read_is_skipped_over_restarts_too() {
    let folder = folder("drops/*.csv", "duplicates = \"skip\"");
    folder.write("drops/b.csv", "n\n1\n");
    folder.write("drops/c.csv", "n\n2\n");
    let ran = run(&folder);
    exits(&ran, 0);
    assert_eq!(numbers(&folder, "lake"), "1 2");
    let told = messages(&ran);
    assert_eq!(told.matches("holds the same bytes as").count(), 1, "{told}");
    folder.write("drops/c again.csv", "n\n2\n");
    folder.write("drops/d.csv", "n\n3\n");
    folder.write("drops/c.csv", "n\n2\n"); // The file is rewritten with the same content.
    let ran = run(&folder);
    exits(&ran, 0);
    assert_eq!(numbers(&folder, "lake"), "1 2 3");
    assert!(messages(&ran).contains("c again.csv holds the same bytes as c.csv, which was read: it is skipped"));
    let dataflow = folder.load("lake");
    recompute(&dataflow, 2);
    assert_eq!(numbers(&folder, "lake"), "1 2 3");
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM dead_letters"), "0");
}

/// A file that was read before it was complete became a dead letter when the rest came, and the rest was never read.
#[test]
fn a_file_that_is_completed_by_appending_is_read_on() {
    let folder = folder("drops/*.csv", "");
    folder.write("drops/b.csv", "n\n2\n3");
    folder.write("drops/torn.csv", "n\n4\n5");
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    assert_eq!(numbers(&folder, "lake"), "1 2 3 4 5");
    folder.append("drops/a.csv", "10\n11\n");
    folder.append("drops/b.csv", "\n20\n");
    catch_up(&dataflow, 1);
    assert_eq!(numbers(&folder, "lake"), "1 2 3 4 5 10 11 20");
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM dead_letters"), "0");
    // The last record was read half, which is reported; the records after it are read.
    folder.append("drops/torn.csv", "6\n7\n");
    folder.append("drops/a.csv", "12\n");
    catch_up(&dataflow, 2);
    assert_eq!(numbers(&folder, "lake"), "1 2 3 4 5 7 10 11 12 20");
    let letters = ask(&dataflow, "SELECT reason FROM dead_letters");
    assert!(letters.contains("its record of line 3 was taken half"), "{letters}");
    catch_up(&dataflow, 1);
    recompute(&dataflow, 1);
    assert_eq!(numbers(&folder, "lake"), "1 2 3 4 5 7 10 11 12 20");
}

/// Two files that have only a header hold the same bytes; when the skipped one grew, it was reported as changed.
#[test]
fn a_file_that_was_skipped_and_then_grew_is_read() {
    let folder = folder("drops/*.csv", "duplicates = \"skip\"");
    for name in ["b", "c", "d"] {
        folder.write(&format!("drops/{name}.csv"), "n\n");
    }
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    folder.append("drops/b.csv", "2\n");
    folder.append("drops/c.csv", "3\n");
    folder.append("drops/d.csv", "3\n");
    catch_up(&dataflow, 1);
    assert_eq!(numbers(&folder, "lake"), "1 2 3");
    // A file that has become equal to another one by growing counts as known too.
    folder.append("drops/a.csv", "4\n");
    catch_up(&dataflow, 2);
    folder.write("drops/e.csv", "n\n1\n4\n");
    catch_up(&dataflow, 1);
    recompute(&dataflow, 1);
    assert_eq!(numbers(&folder, "lake"), "1 2 3 4");
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM dead_letters"), "0");
}

fn packed(text: &str) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, text.as_bytes()).expect("memory takes it");
    packed.finish().expect("memory takes it")
}

/// A file that was refused while it was being written, or that was repaired under its own name, was reported as
/// changed after reading, and none of its rows were read.
#[test]
fn a_file_that_was_refused_is_read_once_it_is_whole_or_repaired() {
    let folder = folder("drops/*", "");
    let put = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.path().join("drops").join(name), bytes).expect("the file is written");
    };
    let rows = |from: u32, to: u32| (from..to).map(|n| format!("{n}\n")).collect::<String>();
    let gz = packed(&format!("n\n{}", rows(1_000, 9_000)));
    put("header.csv", b"number");
    put("quote.csv", b"n\n10\n\"1");
    put("gz.csv.gz", &gz[..gz.len() / 2]);
    put("other.csv", b"k\n12\n");
    put("zip.csv", b"PK\x03\x04 is an archive");
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    let letters = || {
        ask(
            &dataflow,
            "SELECT \"partition\", reason FROM dead_letters ORDER BY 1, 2",
        )
    };
    let refused = letters();
    assert_eq!(refused.lines().count(), 5, "{refused}");
    let taken = ask(&dataflow, "SELECT COUNT(*) FROM silver.rows WHERE n >= 1000");
    assert!((1..8_000).contains(&taken.parse::<u32>().expect("a count")), "{taken}");

    put("header.csv", b"number,n\n0,13\n");
    put("quote.csv", b"n\n10\n\"11\"\n");
    put("gz.csv.gz", &gz);
    put("other.csv", b"n\n12\n");
    put("zip.csv", b"n\n14\n");
    catch_up(&dataflow, 2);
    catch_up(&dataflow, 1);
    let check = |what: &str| {
        let small = "SELECT n FROM silver.rows WHERE n < 1000 ORDER BY n";
        assert_eq!(ask(&dataflow, small).replace('\n', " "), "1 10 11 12 13 14", "{what}");
        let large = "SELECT COUNT(*), COUNT(DISTINCT n) FROM silver.rows WHERE n >= 1000";
        assert_eq!(ask(&dataflow, large), "8000,8000", "{what}");
        assert_newest_is_exact(&dataflow, what);
    };
    check("once they are whole");
    assert_eq!(letters(), refused, "nothing more is wrong");
    let numbered = "SELECT MIN(\"offset\"), MAX(\"offset\" + records), SUM(records) FROM bronze.rows WHERE \"partition\" = 'gz.csv.gz'";
    assert_eq!(ask(&dataflow, numbered), "0,8000,8000");
    recompute(&dataflow, 1);
    check("made again from Bronze");

    let replayed = alluvium(
        &["dead-letters", ".", "--replay", "--lake", "lakes/lake"],
        folder.path(),
    );
    exits(&replayed, 0);
    check("behind a replay");
    assert_eq!(letters(), "");
}

/// Whether a record had been read half was decided by the stored bytes: for packed or UTF-16 text, a complete record
/// had to be dropped again.
#[test]
fn what_is_appended_to_packed_or_utf_16_text_tears_no_record() {
    let folder = folder("drops/*", "");
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let add = |name: &str, bytes: &[u8]| {
        let path = folder.path().join("drops").join(name);
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("it opens");
        std::io::Write::write_all(&mut file, bytes).expect("it is written");
    };
    add("gz.csv.gz", &packed("n\n2\n"));
    add("utf16.csv", &utf16("\u{feff}n\n3\n"));
    add("torn.csv.gz", &packed("n\n4\n5"));
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    add("gz.csv.gz", &packed("20\n"));
    add("utf16.csv", &utf16("30\n"));
    add("torn.csv.gz", &packed("6\n40\n"));
    catch_up(&dataflow, 1);
    catch_up(&dataflow, 1);
    assert_eq!(numbers(&folder, "lake"), "1 2 3 4 5 20 30 40");
    let letters = ask(&dataflow, "SELECT \"partition\", reason FROM dead_letters");
    assert!(
        letters.starts_with("torn.csv.gz,") && letters.contains("its record of line 3 was taken half"),
        "{letters}"
    );
    assert_eq!(letters.lines().count(), 1, "{letters}");
}

/// A corrected file became a dead letter, even if its input allows newer versions.
#[test]
fn a_changed_file_is_a_dead_letter_or_a_correction_as_the_feed_says() {
    let keyed = |more: &str| {
        format!(
            "key = [\"n\"]\n[columns]\nn = {{ type = \"BIGINT\", nullable = false }}\nname = \"VARCHAR\"\n[[feeds]]\nname = \"drops\"\nkind = \"files\"\nformat = \"csv\"\npath = \"drops/*.csv\"\n{more}\n"
        )
    };
    for (more, corrected) in [("", "1:one 2:two"), ("changed = \"correct\"", "1:uno 2:two 3:tre")] {
        let folder = folder("drops/*.csv", "");
        folder.write("inputs/rows.toml", &keyed(more));
        folder.write("silver/rows.sql", "SELECT n, name FROM rows");
        folder.write("drops/a.csv", "n,name\n1,one\n2,two\n");
        let dataflow = folder.load("lake");
        catch_up(&dataflow, 1);
        folder.write("drops/a.csv", "n,name\n1,uno\n3,tre\n");
        catch_up(&dataflow, 1);
        let rows = || {
            assert_newest_is_exact(&dataflow, more);
            ask(&dataflow, "SELECT n || ':' || name FROM silver.rows ORDER BY n").replace('\n', " ")
        };
        assert_eq!(rows(), corrected);
        let letters = ask(&dataflow, "SELECT reason FROM dead_letters");
        assert_eq!(letters.contains("or set changed = "), more.is_empty(), "{letters}");
        if more.is_empty() {
            continue;
        }
        folder.append("drops/a.csv", "4,four\n");
        catch_up(&dataflow, 1);
        assert_eq!(rows(), "1:uno 2:two 3:tre 4:four");
        recompute(&dataflow, 2);
        assert_eq!(rows(), "1:uno 2:two 3:tre 4:four");
    }
    let folder = folder("drops/*.csv", "changed = \"correct\"");
    let checked = alluvium(&["check", "."], folder.path());
    exits(&checked, 2);
    assert!(text(&checked).contains("cannot take changed files as corrections, for the input has no key"));
}

/// A corrected columnar file became a dead letter, and no setting of the feed allowed it.
#[test]
fn a_changed_file_of_columns_is_a_correction_over_restarts_and_rebuilds() {
    let batch = |rows: &[(i64, &str)]| {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(n, _)| *n)));
        let names: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, name)| *name)));
        RecordBatch::try_from_iter([("n", numbers), ("name", names)]).expect("columns of one length")
    };
    type Write = fn(&RecordBatch) -> Vec<u8>;
    let forms: [(&str, Write); 2] = [("parquet", poison::parquet), ("avro", poison::avro)];
    for (format, bytes) in forms {
        let folder = Folder::new("hostile", &[]);
        folder.write(
            "inputs/rows.toml",
            &format!(
                "key = [\"n\"]\n[columns]\nn = {{ type = \"BIGINT\", nullable = false }}\nname = \"VARCHAR\"\n\
                 line = {{ type = \"BIGINT\", from = \"file.line\" }}\n[[feeds]]\nname = \"drops\"\nkind = \"files\"\n\
                 format = \"{format}\"\npath = \"drops/*\"\nchanged = \"correct\"\n"
            ),
        );
        folder.write("silver/rows.sql", "SELECT n, name, line FROM rows");
        let write = |bytes: &[u8]| {
            let path = folder.path().join("drops").join(format!("a.{format}"));
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
            std::fs::write(path, bytes).expect("the file is written");
        };
        let dataflow = folder.load("lake");
        let rows = |what: &str| {
            assert_newest_is_exact(&dataflow, what);
            let rows = "SELECT n || ':' || name || '@' || line FROM silver.rows ORDER BY n";
            ask(&dataflow, rows).replace('\n', " ")
        };
        let first = bytes(&batch(&[(1, "one"), (2, "two"), (3, "three")]));
        write(&first);
        catch_up(&dataflow, 1);
        assert_eq!(rows(format), "1:one@1 2:two@2 3:three@3");
        // Rewriting the same bytes is not a correction.
        write(&first);
        assert_eq!(catch_up(&dataflow, 1).records, 0, "{format}");
        for (change, expected) in [
            (&[(4, "four"), (1, "uno")][..], "1:uno@2 2:two@2 3:three@3 4:four@1"),
            (
                &[(2, "due"), (1, "un"), (5, "five"), (4, "4")][..],
                "1:un@2 2:due@1 3:three@3 4:4@4 5:five@3",
            ),
        ] {
            write(&bytes(&batch(change)));
            assert_eq!(catch_up(&dataflow, 2).records, change.len() as u64, "{format}");
            assert_eq!(rows(format), expected);
            recompute(&dataflow, 2);
            assert_eq!(rows(format), expected);
        }
        assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM dead_letters"), "0");
        let archived = std::fs::read_dir(folder.lake("lake").join("_alluvium/archive/rows")).expect("an archive");
        assert_eq!(archived.count(), 3, "each version is kept: {format}");
    }
}

/// A truncated log ended the run and every restart: no feed was read.
#[test]
fn a_log_that_lost_what_was_read_waits_while_other_feeds_are_read_and_goes_on_once_it_is_back() {
    let folder = folder("drops/*.csv", "");
    folder.write(
        "inputs/rows.toml",
        &(input("drops/*.csv", "csv", "")
            + "[[feeds]]\nname = \"live\"\nkind = \"log\"\nformat = \"json\"\npath = \"live\"\n"),
    );
    let line = |n: u32| format!("{{\"value\": {{\"n\": {n}}}}}\n");
    let all = line(2) + &line(3);
    folder.write("live/0.ndjson", &all);
    exits(&run(&folder), 0);
    folder.write("live/0.ndjson", &line(2));
    folder.write("live/1.ndjson", &line(4));
    folder.write("drops/b.csv", "n\n5\n");
    let ran = run(&folder);
    exits(&ran, 1);
    let told = messages(&ran);
    for part in [
        "error: not caught up: feed rows.live: log ",
        "0.ndjson is 20 bytes long, but was read up to byte 40",
        "restore it, or set on_missing = \"earliest\" in the feed",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(numbers(&folder, "lake"), "1 2 3 4 5", "the others are read");
    folder.write("live/0.ndjson", &(all + &line(6)));
    exits(&run(&folder), 0);
    assert_eq!(numbers(&folder, "lake"), "1 2 3 4 5 6");
}

/// To rotate logs, users had to start a new lake.
#[test]
fn a_log_that_is_begun_anew_is_read_from_its_beginning_where_its_feed_says_so() {
    let folder = folder("drops/*.csv", "");
    folder.write(
        "inputs/rows.toml",
        &(input("drops/*.csv", "csv", "")
            + "[[feeds]]\nname = \"live\"\nkind = \"log\"\nformat = \"json\"\npath = \"live\"\non_missing = \"earliest\"\n"),
    );
    let line = |n: u32| format!("{{\"value\": {{\"n\": {n}}}}}\n");
    let dataflow = folder.load("lake");
    let rows = |expected: &str| {
        catch_up(&dataflow, 1);
        assert_eq!(numbers(&folder, "lake"), expected);
    };
    folder.write("live/0.ndjson", &(line(2) + &line(3)));
    rows("1 2 3");
    folder.write("live/0.ndjson", &line(4));
    rows("1 2 3 4");
    folder.append("live/0.ndjson", &line(5));
    rows("1 2 3 4 5");
    std::fs::remove_file(folder.path().join("live/0.ndjson")).expect("it is removed");
    rows("1 2 3 4 5");
    // The new log is longer than the part of the old one that was read, and has other content.
    folder.write(
        "live/0.ndjson",
        &format!("{{\"value\": {{\"n\": {}6}}}}\n{}", " ".repeat(40), line(7)),
    );
    rows("1 2 3 4 5 6 7");
    recompute(&dataflow, 2);
    rows("1 2 3 4 5 6 7");
    let letters = ask(
        &dataflow,
        "SELECT reason FROM dead_letters WHERE kind = 'file' ORDER BY epoch",
    );
    assert_eq!(letters.lines().count(), 2, "{letters}");
    assert!(
        letters.contains("what it holds now is read from its beginning"),
        "{letters}"
    );
}

/// A log line above 64 MiB ended every run.
#[test]
fn a_log_line_above_max_record_is_a_dead_letter_and_its_neighbours_are_read() {
    let folder = folder("drops/*.csv", "");
    folder.write(
        "inputs/rows.toml",
        "[columns]\nn = \"BIGINT\"\nx = \"VARCHAR\"\n[[feeds]]\nname = \"live\"\nkind = \"log\"\nformat = \"json\"\npath = \"live\"\n",
    );
    let long = "x".repeat(40 << 20);
    folder.append("live/0.ndjson", "{\"value\": {\"n\": 1}}\n");
    folder.append("live/0.ndjson", &format!("{{\"value\": {{\"n\": 90, \"x\": \"{long}"));
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    assert_eq!(numbers(&folder, "lake"), "1");
    folder.append("live/0.ndjson", &format!("{long}\"}}}}\n{{\"value\": {{\"n\": 2}}}}\n"));
    catch_up(&dataflow, 2);
    assert_eq!(numbers(&folder, "lake"), "1 2");
    let letters = ask(&dataflow, "SELECT reason FROM dead_letters");
    assert!(letters.contains("more than max_record allows"), "{letters}");
    catch_up(&dataflow, 1);
    recompute(&dataflow, 1);
    assert_eq!(numbers(&folder, "lake"), "1 2");
}

/// The feed skipped all of the line before it looked at another partition.
#[test]
fn a_line_without_end_keeps_no_other_partition_waiting() {
    let folder = folder("drops/*.csv", "");
    folder.write(
        "inputs/rows.toml",
        "[columns]\nn = \"BIGINT\"\n[[feeds]]\nname = \"live\"\nkind = \"log\"\nformat = \"json\"\npath = \"live\"\n",
    );
    folder.append("live/0.ndjson", "{\"value\": {\"n\": 1}}\n");
    let sparse = std::fs::OpenOptions::new()
        .append(true)
        .open(folder.path().join("live/0.ndjson"));
    sparse.and_then(|file| file.set_len(100 << 30)).expect("a sparse tail");
    folder.append("live/1.ndjson", "{\"value\": {\"n\": 2}}\n");
    let dataflow = folder.load("lake");
    let running = Running::start(dataflow.clone(), 1);
    let read = |wanted: &str| {
        running.wait_until(|| {
            snapshots(&dataflow) > 0
                && ask(&dataflow, "SELECT n FROM silver.rows ORDER BY n").replace('\n', " ") == wanted
        });
    };
    read("1 2");
    folder.append("live/1.ndjson", "{\"value\": {\"n\": 3}}\n");
    read("1 2 3");
    running.stop();
}

/// 8 GB of blank lines in a small compressed file took 100 seconds, silently.
#[test]
fn blank_lines_without_end_are_a_dead_letter() {
    let folder = folder("drops/*", "");
    let mut blank = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("an encoder");
    std::io::Write::write_all(&mut blank, b"n\n7\n").expect("it is written");
    for _ in 0..300 {
        std::io::Write::write_all(&mut blank, &[b'\n'; 1 << 20]).expect("it is written");
    }
    let blank = blank.finish().expect("it is whole");
    assert!(blank.len() < 1 << 20);
    std::fs::write(folder.path().join("drops/b.csv.zst"), blank).expect("it is written");
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    assert_eq!(numbers(&folder, "lake"), "1 7");
    let letters = ask(&dataflow, "SELECT reason FROM dead_letters");
    assert!(letters.contains("256 MiB of blank lines"), "{letters}");
}

/// No column could tell which file a row came from, and what the file's path says.
#[test]
fn rows_know_their_file_and_come_to_the_same_when_bronze_is_decoded_again() {
    let columns = "n = \"BIGINT\"\nname = { type = \"VARCHAR\", nullable = false, from = \"file.name\" }\n\
                   path = { type = \"VARCHAR\", from = \"file.path\" }\nline = { type = \"BIGINT\", from = \"file.line\" }\n\
                   modified = { type = \"TIMESTAMP\", from = \"file.modified\" }\n\
                   country = { type = \"VARCHAR\", from = \"path.country\" }\nday = { type = \"DATE\", from = \"path.day\" }\n";
    let folder = Folder::new("placed", &[("silver/rows.sql", "SELECT * FROM rows")]);
    let feed = |name: &str, format: &str| {
        format!(
            "[[feeds]]\nname = \"{name}\"\nkind = \"files\"\nformat = \"{format}\"\npath = \"{name}/**/*.{name}\"\n"
        )
    };
    folder.write(
        "inputs/rows.toml",
        &format!(
            "[columns]\n{columns}{}{}{}",
            feed("csv", "csv"),
            feed("ndjson", "ndjson"),
            feed("parquet", "parquet")
        ),
    );
    folder.write(
        "csv/country=D%20E/day=2026-01-31/a.csv",
        "n\r\n1\r\n\r\n2\r\nx\r\n3\r\n",
    );
    folder.write(
        "ndjson/country=__HIVE_DEFAULT_PARTITION__/b.ndjson",
        "{\"n\": 4}\n\n{\"n\": 5}\n",
    );
    let numbers: arrow::array::ArrayRef = std::sync::Arc::new(arrow::array::Int64Array::from(vec![6, 7]));
    let batch = arrow::array::RecordBatch::try_from_iter([("n", numbers)]).expect("a batch");
    let mut parquet = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a writer");
    parquet.write(&batch).expect("it is written");
    std::fs::create_dir_all(folder.path().join("parquet/country=FR")).expect("a folder");
    let path = folder.path().join("parquet/country=FR/c.parquet");
    std::fs::write(path, parquet.into_inner().expect("it is whole")).expect("it is written");
    let dataflow = folder.load("lake");
    let expected = "1,a.csv,country=D%20E/day=2026-01-31/a.csv,2,D E,2026-01-31,true\n\
                    2,a.csv,country=D%20E/day=2026-01-31/a.csv,4,D E,2026-01-31,true\n\
                    3,a.csv,country=D%20E/day=2026-01-31/a.csv,6,D E,2026-01-31,true\n\
                    4,b.ndjson,country=__HIVE_DEFAULT_PARTITION__/b.ndjson,1,,,true\n\
                    5,b.ndjson,country=__HIVE_DEFAULT_PARTITION__/b.ndjson,3,,,true\n\
                    6,c.parquet,country=FR/c.parquet,1,FR,,true\n\
                    7,c.parquet,country=FR/c.parquet,2,FR,,true";
    let check = |what: &str| {
        assert_newest_is_exact(&dataflow, what);
        let sql =
            "SELECT n, name, path, line, country, day, modified > TIMESTAMP '2020-01-01' FROM silver.rows ORDER BY n";
        assert_eq!(ask(&dataflow, sql), expected, "{what}");
        let letters = ask(&dataflow, "SELECT reason FROM dead_letters");
        assert!(
            letters.contains("line 5 of its file") && !letters.contains('\n'),
            "{what}: {letters}"
        );
    };
    catch_up(&dataflow, 2);
    check("as it was read");
    recompute(&dataflow, 1);
    check("made again from Bronze");
}

/// Files were identified by their names below the glob's fixed part, so a wider glob silently read each of them again.
#[test]
fn a_path_by_which_files_would_be_read_a_second_time_is_refused() {
    let folder = folder("drops/2024/*.csv", "");
    folder.write("drops/2024/a.csv", "n\n1\n");
    folder.write("drops/2025/b.csv", "n\n2\n");
    exits(&run(&folder), 0);
    let widened = input("drops/*/*.csv", "csv", "");
    folder.write("inputs/rows.toml", &widened);
    for refused in [
        run(&folder),
        alluvium(&["plan", ".", "--lake", "lakes/lake"], folder.path()),
    ] {
        exits(&refused, 1);
        let said = text(&refused);
        assert!(
            said.contains("feed drops of input rows") && said.contains("\"drops/2024\""),
            "{said}"
        );
    }
    // The reported remedy works.
    let other = input("drops/2025/*.csv", "csv", "").replace("\"drops\"", "\"newer\"");
    let feed = &other[other.find("[[feeds]]").expect("a feed")..];
    folder.write("inputs/rows.toml", &(input("drops/2024/*.csv", "csv", "") + feed));
    exits(&run(&folder), 0);
    assert_eq!(numbers(&folder, "lake"), "1 2");
    // The same files in another place keep their names; a feed that has read nothing may use any path.
    std::fs::rename(folder.path().join("drops"), folder.path().join("moved")).expect("it is moved");
    let elsewhere = (input("moved/2024/*.csv", "csv", "") + feed).replace("drops/2025", "moved/2025");
    let third = feed
        .replace("\"newer\"", "\"third\"")
        .replace("drops/2025", "moved/none");
    folder.write("inputs/rows.toml", &(elsewhere.clone() + &third));
    exits(&run(&folder), 0);
    folder.write(
        "inputs/rows.toml",
        &(elsewhere + &third.replace("moved/none/*", "moved/2[67]/*")),
    );
    exits(&run(&folder), 0);
    assert_eq!(numbers(&folder, "lake"), "1 2");
}

/// A replay skipped as many records of the new file as the old one had, and removed the letter: rows were lost for
/// good.
#[test]
fn the_letter_of_a_changed_file_stays_until_its_feed_takes_it_for_a_correction() {
    let keyed = |changed: &str| {
        let feed = input("drops/*.csv", "csv", changed);
        format!("key = [\"id\"]\n{}", feed.replace("n = ", "id = \"BIGINT\"\nn = "))
    };
    let folder = folder("drops/*.csv", "");
    folder.write("inputs/rows.toml", &keyed(""));
    folder.write("drops/a.csv", "id,n\n1,1\n2,2\n");
    exits(&run(&folder), 0);
    folder.write("drops/a.csv", "id,n\n1,10\n2,20\n3,30\n");
    exits(&run(&folder), 0);
    let letters = || ask(&folder.load("lake"), "SELECT kind, reason FROM dead_letters");
    let replay = || {
        alluvium(
            &["dead-letters", ".", "--replay", "--lake", "lakes/lake"],
            folder.path(),
        )
    };
    for _ in 0..2 {
        assert!(letters().contains("drops/a.csv changed after"), "{}", letters());
        assert_eq!(numbers(&folder, "lake"), "1 2");
        exits(&replay(), 1);
    }
    folder.write("inputs/rows.toml", &keyed("changed = \"correct\""));
    exits(&replay(), 0);
    assert_eq!(letters(), "");
    assert_eq!(numbers(&folder, "lake"), "10 20 30");
    exits(&run(&folder), 0);
    recompute(&folder.load("lake"), 1);
    assert_eq!(numbers(&folder, "lake"), "10 20 30");
}

/// `plan` announced that records are replayed, but the run was refused.
#[test]
fn a_feed_that_is_gone_is_told_by_plan_as_by_run() {
    let folder = folder("drops/*.csv", "");
    exits(&run(&folder), 0);
    folder.write(
        "inputs/rows.toml",
        &input("drops/*.csv", "csv", "")
            .replace("\"drops\"", "\"other\"")
            .replace("BIGINT", "VARCHAR"),
    );
    for refused in [
        alluvium(&["plan", ".", "--lake", "lakes/lake"], folder.path()),
        run(&folder),
    ] {
        exits(&refused, 1);
        let said = text(&refused);
        assert!(
            said.contains("records of feed \"drops\"") && said.contains("put the feed back"),
            "{said}"
        );
    }
}
