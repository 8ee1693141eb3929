//! Tests the binary while it runs: signals, the live status on a terminal, log lines without one, latency files.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use alluvium::run::{self, Options};
use rdkafka::config::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::commands::{alluvium, exits, text};
use crate::lake::ask;
use crate::support::{Folder, PATIENCE, catch_up, catch_up_later, chain};
use crate::testing::{Prerequisite, checkout, skip};

const EVENTS: &str = r#"
[columns]
id = { type = "BIGINT", nullable = false }
[[feeds]]
name = "live"
kind = "log"
path = "live"
format = "json"
"#;

/// A dataflow of events from a log, which commits only when it starts and when it ends.
fn events(name: &str) -> Folder {
    let folder = Folder::new(name, &[("inputs/events.toml", EVENTS)]);
    folder.write(
        "dataflow.toml",
        &format!("name = \"{name}\"\ncommit = \"1 hour\"\ndurability = \"none\"\n"),
    );
    folder.write("gold/sums.sql", "SELECT COUNT(*) AS n, SUM(id) AS ids FROM events");
    append(&folder, 0..10);
    folder
}

fn append(folder: &Folder, ids: std::ops::Range<u32>) {
    let lines: String = ids.map(|id| format!("{{\"value\": {{\"id\": {id}}}}}\n")).collect();
    folder.append("live/0.ndjson", &lines);
}

/// A process whose output is collected while it runs. Dropping it kills the process.
pub struct Running {
    child: Child,
    output: Arc<Mutex<String>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // It may have ended by itself.
        self.child.wait().expect("a child can be waited for");
    }
}

impl Running {
    /// Starts a command.
    pub fn start(command: &mut Command) -> Running {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let output = Arc::new(Mutex::new(String::new()));
        let gather = |mut stream: Box<dyn Read + Send>| {
            let output = output.clone();
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut bytes) {
                    let text = String::from_utf8_lossy(&bytes[..read]);
                    output.lock().expect("nobody panicked").push_str(&text);
                }
            })
        };
        let readers = vec![
            gather(Box::new(child.stdout.take().expect("it is piped"))),
            gather(Box::new(child.stderr.take().expect("it is piped"))),
        ];
        Running { child, output, readers }
    }

    /// `alluvium run` of a dataflow.
    pub fn alluvium(folder: &Folder, arguments: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
        Running::start(command.args(["run", "."]).args(arguments).current_dir(folder.path()))
    }

    /// What it has written so far, to stdout and stderr.
    pub fn output(&self) -> String {
        self.output.lock().expect("nobody panicked").clone()
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success(), "{signal}: {}", self.output());
    }

    /// Waits until its output has this part.
    #[track_caller]
    pub fn wait_for(&self, part: &str) {
        let started = Instant::now();
        while !self.output().contains(part) {
            assert!(started.elapsed() < Duration::from_secs(60), "{part}: {}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until `done` returns true of its output.
    #[track_caller]
    pub fn wait_until(&self, mut done: impl FnMut(&str) -> bool) {
        let started = Instant::now();
        loop {
            // All output of a process that has ended is there before `done` looks at it.
            let has_ended = self.readers.iter().all(|reader| reader.is_finished());
            let output = self.output();
            if done(&output) {
                return;
            }
            assert!(!has_ended, "it ended before what was waited for came: {output}");
            assert!(
                started.elapsed() < PATIENCE,
                "what was waited for did not come: {output}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Requests reports until `done` returns true of its output.
    #[track_caller]
    pub fn report_until(&self, mut done: impl FnMut(&str) -> bool) {
        // Before its start the process does not handle the signal yet.
        self.wait_for(" started ");
        let mut asked: Option<Instant> = None;
        self.wait_until(|output| {
            let is_done = done(output);
            if !is_done && asked.is_none_or(|asked| asked.elapsed() >= Duration::from_millis(50)) {
                self.signal("-USR1");
                asked = Some(Instant::now());
            }
            is_done
        });
    }

    /// Waits for this many further reports, for each of which every worker has gone through its loop. The first of them
    /// may have been requested before.
    #[track_caller]
    pub fn wait_for_reports(&self, more: usize) {
        let reports = |output: &str| {
            let answered = |line: &&str| line.contains(" resident, arrangements ") && !line.contains("did not answer");
            output.lines().filter(answered).count()
        };
        let enough = reports(&self.output()) + more;
        self.report_until(|output| reports(output) >= enough);
    }

    /// Waits until a recursive query is in its rounds: its arrangement is empty before the first one.
    #[track_caller]
    pub fn wait_for_rounds(&self) {
        self.report_until(|output| output.contains(" arrange recursive "));
    }

    /// How many records a feed (`input.feed`) has handed over, by the newest report; 0 before the first report.
    pub fn handed_over(&self, feed: &str) -> u64 {
        let head = format!("feed {feed}: ");
        let output = self.output();
        let told = output.lines().rev().find_map(|line| Some(line.split_once(&head)?.1));
        let count = told
            .and_then(|told| told.split_once(" records"))
            .map(|(count, _)| count);
        count.map_or(0, |count| count.replace(',', "").parse().expect("a number"))
    }

    /// How many records of an input the workers had taken when the run last logged its progress, which it does every ten
    /// seconds unless it is idle; 0 before the first time. Unlike reports, this includes the open epoch.
    pub fn taken(&self, input: &str) -> u64 {
        let output = self.output();
        let mut lines = output.lines().rev();
        let told = lines.find_map(|line| line.split_once(" running records=\"")?.1.split_once('"'));
        let mut inputs = told.map_or("", |(inputs, _)| inputs).split(", ");
        let count = inputs.find_map(|told| told.strip_prefix(input)?.strip_prefix(' '));
        count.map_or(0, |count| count.parse().expect("a number"))
    }

    /// Requests reports until one shows that this many records are in closed epochs.
    #[track_caller]
    fn wait_for_records(&self, records: usize) {
        let told = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let closed = words.iter().position(|word| *word == "arrival-to-closed");
            line.contains("input events") && closed.is_some_and(|at| words[at + 1] == records.to_string())
        };
        self.report_until(|output| output.lines().any(told));
    }

    /// Lets the run finish what it has taken, and ends it.
    #[track_caller]
    pub fn stop(self) {
        self.signal("-TERM");
        let (code, output) = self.end();
        assert_eq!(code, Some(0), "{output}");
    }

    /// Waits for the end; returns the exit code and all output.
    pub fn end(mut self) -> (Option<i32>, String) {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the process can be asked") {
                break status;
            }
            if started.elapsed() > Duration::from_secs(60) {
                self.child.kill().expect("the process is ours");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader ends with its stream");
        }
        (status.code(), self.output())
    }
}

fn sums(folder: &Folder) -> String {
    let asked = Command::new(env!("CARGO_BIN_EXE_alluvium"))
        .args(["query", ".", "SELECT n, ids FROM gold.sums", "--format", "csv"])
        .current_dir(folder.path())
        .output();
    let asked = asked.expect("the binary runs");
    format!(
        "{}{}",
        String::from_utf8_lossy(&asked.stdout),
        String::from_utf8_lossy(&asked.stderr)
    )
}

#[test]
fn a_signal_ends_a_run_with_everything_that_was_read_committed_and_the_report() {
    for signal in ["-INT", "-TERM"] {
        let folder = events("signals");
        let run = Running::alluvium(&folder, &[]);
        run.wait_for_records(10);
        append(&folder, 10..100);
        // USR1 makes it print the report while it runs on.
        run.wait_for_records(100);
        assert!(!run.output().contains("took 100 records"), "{signal}: it still runs");
        run.signal(signal);
        let (code, output) = run.end();
        assert_eq!(code, Some(0), "{signal}: {output}");
        assert!(output.contains("no more input: committing what was taken"), "{output}");
        assert!(output.contains("took 100 records"), "{output}");
        let report = output.rsplit("took 100 records").next().expect("the end of the output");
        let committed = report
            .lines()
            .find(|line| line.contains("input events") && line.contains("to-committed"));
        let committed = committed.unwrap_or_else(|| panic!("no line for the input: {report}"));
        assert_eq!(committed.split_whitespace().nth(3), Some("100"), "{committed}");
        assert_eq!(sums(&folder), "n,ids\n100,4950\n", "{signal}");
    }
}

/// Such a run went on computing, whatever signal it got but SIGKILL.
#[test]
fn a_second_signal_ends_a_run_at_once_and_nothing_is_lost() {
    let folder = events("endless");
    let settings = "name = \"endless\"\ncommit = \"100ms\"\ndurability = \"none\"\n";
    folder.write("dataflow.toml", &format!("{settings}max_rounds = 1000000\n"));
    let sql =
        "WITH RECURSIVE r AS (SELECT id AS n FROM events UNION ALL SELECT n + 1 FROM r) SELECT max(n) AS m FROM r";
    folder.write("gold/endless.sql", sql);
    let run = Running::alluvium(&folder, &[]);
    run.wait_for_rounds();
    let told = Instant::now();
    run.signal("-TERM");
    // A signal counts as the second one only if it comes a second after the first, so it is sent until one does. The run
    // would leave the rounds by itself, with another code, only after four seconds.
    run.wait_until(|output| {
        let is_second = output.contains("asked a second time");
        if !is_second {
            run.signal("-TERM");
        }
        is_second
    });
    let (code, output) = run.end();
    assert_eq!(code, Some(143), "{output}");
    assert!(told.elapsed() < Duration::from_millis(3500), "{output}");

    folder.write("dataflow.toml", &format!("{settings}max_rounds = 5\n"));
    let (code, output) = Running::alluvium(&folder, &["--until-caught-up"]).end();
    assert_eq!(code, Some(0), "{output}");
    assert_eq!(sums(&folder), "n,ids\n10,45\n");
}

/// A report's part on memory lists the arrangements by operator, and the index of each table.
#[test]
fn a_report_tells_what_arrangements_and_indexes_take() {
    let folder = events("reported");
    folder.write(
        "dataflow.toml",
        "name = \"reported\"\ncommit = \"5ms\"\ndurability = \"none\"\n",
    );
    folder.write("silver/kinds.sql", "SELECT DISTINCT id % 7 AS kind FROM events");
    folder.write(
        "gold/kinds.sql",
        "SELECT kind, COUNT(*) AS n FROM silver.kinds GROUP BY kind",
    );
    let run = Running::alluvium(&folder, &["-w", "2"]);
    run.wait_for_records(10);
    let started = Instant::now();
    let told = |output: &str, part: &str| output.lines().any(|line| line.contains(part));
    let all = [
        " resident, arrangements ",
        ", indexes ",
        ": arrange accumulators: ",
        "index of gold.kinds: ",
    ];
    while !all.iter().all(|part| told(&run.output(), part)) {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", run.output());
        run.signal("-USR1");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!run.output().contains("did not answer"), "{}", run.output());
    run.signal("-TERM");
    let (code, output) = run.end();
    assert_eq!(code, Some(0), "{output}");
}

/// A report shows a topic's backlog while nothing is read: which partitions are behind, by how much, and since when.
#[test]
fn a_report_names_the_partitions_that_are_behind() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic("orders", 3, 1).expect("a topic");
    let folder = events("behind");
    let feed = format!(
        "kind = \"kafka\"\nbrokers = \"{}\"\ntopics = [\"orders\"]",
        cluster.bootstrap_servers()
    );
    folder.write(
        "inputs/events.toml",
        &EVENTS.replace("kind = \"log\"\npath = \"live\"", &feed),
    );
    // Any process takes more memory than this: fetched records fill the queues, and the rest waits.
    folder.write(
        "dataflow.toml",
        "name = \"behind\"\ncommit = \"5ms\"\ndurability = \"none\"\nmemory_limit = \"1 MiB\"\n",
    );
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .create()
        .expect("a producer");
    for (partition, records) in [(0, 200_000), (1, 250_000)] {
        for id in 0..records {
            let value = format!("{{\"id\": {id}}}");
            let mut record: BaseRecord<'_, (), String> = BaseRecord::to("orders").partition(partition).payload(&value);
            while let Err((_, back)) = producer.send(record) {
                record = back; // the queue is full
                producer.poll(Duration::from_millis(10));
            }
        }
    }
    producer
        .flush(Duration::from_secs(60))
        .expect("the cluster takes records");
    let run = Running::alluvium(&folder, &["-w", "1"]);
    let started = Instant::now();
    let mut asked = Instant::now();
    while !run.output().contains(" old\n") || !run.output().contains("  orders-0 ") {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", run.output());
        if run.output().contains(" started ") && asked.elapsed() > Duration::from_millis(200) {
            run.signal("-USR1");
            asked = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = run.output();
    let of = |partition: &str| {
        let line = output
            .lines()
            .rfind(|line| line.contains(partition) && line.contains("records behind"))?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == partition)?;
        words[at + 1].replace(',', "").parse::<u64>().ok()
    };
    let (first, second) = (of("orders-0"), of("orders-1"));
    let total = first.unwrap_or(0) + second.unwrap_or(0);
    assert!((200_000..450_000).contains(&total), "{first:?} {second:?}: {output}");
    assert_eq!(of("orders-2"), None, "it is empty: {output}");
    run.signal("-TERM");
    let (code, output) = run.end();
    assert_eq!(code, Some(0), "{output}");
}

#[test]
fn a_stall_of_the_whole_process_shows_in_the_tail() {
    let folder = events("stalled");
    let run = Running::alluvium(&folder, &[]);
    run.wait_for_records(10);
    run.signal("-STOP");
    append(&folder, 10..100);
    // This sleep is the stall: its length is what the report must show, and a stopped process does nothing that ends it.
    std::thread::sleep(Duration::from_millis(1500));
    run.signal("-CONT");
    run.wait_for_records(100);
    run.signal("-TERM");
    let (code, output) = run.end();
    assert_eq!(code, Some(0), "{output}");
    let closed = output
        .lines()
        .rfind(|line| line.starts_with("input events") && line.contains("arrival-to-closed"));
    let closed = closed.unwrap_or_else(|| panic!("no report: {output}"));
    // Ninety of a hundred records waited during the stall; measured from when they were read, none would have.
    assert!(closed.trim_end().ends_with(" s"), "the longest took seconds: {closed}");
    let p99: Vec<&str> = closed.split_whitespace().skip(6).take(2).collect();
    assert_eq!(p99.get(1), Some(&"s"), "99 of 100 did: {closed}");
}

/// Runs a command on a pseudo-terminal with 100 columns, and forwards its output.
const ON_A_TERMINAL: &str = r#"
import fcntl, os, pty, struct, sys, termios
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
while True:
    try:
        written = os.read(terminal, 65536)
    except OSError:
        break
    sys.stdout.buffer.write(written)
    sys.stdout.buffer.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;

#[test]
fn a_terminal_shows_a_live_block_and_a_pipe_log_lines() {
    let folder = events("watched");
    folder.append("live/0.ndjson", "broken\n");
    folder.write(
        "dataflow.toml",
        "name = \"watched\"\ncommit = \"50ms\"\ndurability = \"none\"\n",
    );
    let mut on_terminal = Command::new("python3");
    on_terminal.args([
        "-c",
        ON_A_TERMINAL,
        env!("CARGO_BIN_EXE_alluvium"),
        "run",
        ".",
        "--for",
        "3s",
    ]);
    let run = Running::start(on_terminal.current_dir(folder.path()));
    let (code, output) = run.end();
    assert_eq!(code, Some(0), "{output}");
    let block = output.rsplit("\u{1b}[2K").find(|frame| frame.contains("rows in"));
    let block = block.unwrap_or_else(|| panic!("no live block: {output:?}"));
    for shown in [
        "events",
        " 11 rows in",
        "1 dead letters",
        "lag 0 B",
        "epoch ",
        "snapshot ",
        " s ago",
        "p50 ",
        "p99 ",
    ] {
        assert!(block.contains(shown), "{shown:?} is not in {block:?}");
    }
    let last = output.rsplit("\u{1b}[2K").next().expect("something was written");
    assert!(
        !last.contains("rows in"),
        "the block is taken away at the end: {last:?}"
    );
    assert!(last.contains("took 11 records"), "{last:?}");

    let (code, output) = Running::alluvium(&folder, &["--for", "1s"]).end();
    assert_eq!(code, Some(0), "{output}");
    assert!(!output.contains('\u{1b}') && !output.contains("rows in"), "{output:?}");
    assert!(
        output.contains("INFO audited: every table is as recomputed"),
        "{output}"
    );
}

#[test]
fn hdrhistograms_own_reader_finds_the_reports_figures_in_the_latency_files() {
    let Ok(python) = std::env::var("ALLUVIUM_PYTHON") else {
        skip(
            Prerequisite::Tools,
            "no Python with hdrhistogram: scripts/test installs one",
        );
        return;
    };
    let folder = events("measured");
    append(&folder, 10..3000);
    let dataflow = folder.load("lake");
    let latency = folder.path().join("latency");
    let options = Options {
        until_caught_up: true,
        duration: Some(Duration::from_secs(60)),
        latency_folder: Some(latency.clone()),
        ..Options::default()
    };
    let outcome = run::run(dataflow, &options).unwrap_or_else(|e| panic!("{}", chain(&e)));
    let script = checkout().join("tests/it/latencies.py");
    let read = Command::new(python)
        .arg(script)
        .arg(&latency)
        .output()
        .expect("Python runs");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let mut expected = Vec::new();
    let of_inputs = outcome.figures.lines.iter().filter(|line| line.name == "input events");
    for line in of_inputs {
        let tag = format!("events.{}", line.stage.name());
        let [p50, p99, p999, max] = [line.p50, line.p99, line.p999, line.max].map(|d| d.as_micros());
        expected.push(format!("{tag} {} {p50} {p99} {p999} {max}", line.count));
        expected.push(format!("hgrm {tag} {} {max}", line.count));
    }
    expected.sort();
    let mut found: Vec<String> = String::from_utf8_lossy(&read.stdout)
        .lines()
        .map(String::from)
        .collect();
    found.sort();
    assert_eq!(found, expected);
    assert!(found.len() >= 4, "closed and committed, in both files: {found:?}");
}

/// The soft limit on open files exists for old programs; with a limit of 14, a run with one table fails.
#[test]
fn a_run_may_open_as_many_files_as_the_system_allows() {
    let folder = events("descriptors");
    let limited = |limit: &str| {
        Command::new("sh")
            .args(["-c", &format!("ulimit {limit} 14 && exec \"$@\""), "sh"])
            .arg(env!("CARGO_BIN_EXE_alluvium"))
            .args(["run", "--until-caught-up", "."])
            .current_dir(folder.path())
            .output()
            .expect("the command starts")
    };
    let output = limited("-n");
    exits(&output, 1);
    assert!(text(&output).contains("Too many open files"), "{}", text(&output));
    exits(&limited("-S -n"), 0);
}

/// A second run silently took the lake over from a live one.
#[test]
fn a_run_that_takes_a_lake_over_says_so() {
    let folder = events("takes-over");
    let first = Running::alluvium(&folder, &[]);
    first.wait_for_records(10);
    let second = alluvium(&["run", "--until-caught-up", "."], folder.path());
    exits(&second, 0);
    assert!(
        text(&second).contains("another run is on this lake: this one takes over"),
        "{}",
        text(&second)
    );
    append(&folder, 10..20);
    first.signal("-TERM");
    let (code, output) = first.end();
    assert_eq!(code, Some(1), "{output}");
    let third = text(&alluvium(&["run", "--until-caught-up", "."], folder.path()));
    assert!(!third.contains("another run"), "{third}");
}

/// The moments of `now()` keep coming: a run that waited for the commit of each never ended if a commit took longer
/// than the interval between them.
#[test]
fn a_run_over_now_ends_however_long_its_commits_take() {
    let folder = Folder::new("moments", &[("inputs/events.toml", EVENTS)]);
    folder.write(
        "dataflow.toml",
        "name = \"moments\"\nepoch = \"1ms\"\ncommit = \"1ms\"\ndurability = \"none\"\n",
    );
    for table in 0..60 {
        let sql = format!("SELECT id, {table} AS n FROM events WHERE to_timestamp(id) <= now()");
        folder.write(&format!("gold/t{table}.sql"), &sql);
    }
    append(&folder, 0..10);
    let run = Running::alluvium(&folder, &["--until-caught-up", "--lake", "lakes/lake"]);
    let (code, output) = run.end();
    assert_eq!(code, Some(0), "{output}");
    let rows = alluvium(
        &[
            "query",
            ".",
            "SELECT COUNT(*) FROM gold.t59",
            "--format",
            "csv",
            "--lake",
            "lakes/lake",
        ],
        folder.path(),
    );
    assert!(text(&rows).contains("\n10\n"), "{}", text(&rows));
}

/// A row that expires by now() while no run is active has left by the time of the next run; an audit must not count
/// that as a correction.
#[test]
fn what_left_while_nothing_ran_is_no_correction() {
    let folder = Folder::new("pause", &[("inputs/events.toml", EVENTS)]);
    folder.write(
        "dataflow.toml",
        "name = \"pause\"\nepoch = \"5ms\"\ncommit = \"50ms\"\n",
    );
    let until = std::time::SystemTime::now() + Duration::from_secs(3600);
    let until = until.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // All rows leave the first table, and half of them the second; the third has rows that had to leave before they
    // came.
    let tables = [
        (
            "all",
            format!("SELECT id FROM events WHERE to_timestamp({until}) > now()"),
        ),
        (
            "half",
            format!("SELECT id FROM events WHERE to_timestamp({until} + id % 2 * 100000) > now()"),
        ),
        (
            "counted",
            format!("SELECT count(*) AS n FROM events WHERE to_timestamp({until}) > now()"),
        ),
    ];
    for (table, sql) in &tables {
        folder.write(&format!("gold/{table}.sql"), sql);
    }
    append(&folder, 0..10);
    let dataflow = folder.load("lake");
    let count = |table: &str| ask(&dataflow, &format!("SELECT COUNT(*) FROM gold.{table}"));
    catch_up(&dataflow, 1);
    assert_eq!((count("all"), count("half")), ("10".into(), "10".into()));
    append(&folder, 10..14);
    let outcome = catch_up_later(&dataflow, 1, Duration::from_secs(2 * 3600));
    assert_eq!((count("all"), count("half")), ("0".into(), "7".into()));
    assert_eq!(outcome.corrections, Some(vec![]), "every table is as recomputed");
}
