//! Tests several processes as one run: they make the same tables as one process, keep strangers out, and notice lost
//! peers. Where a test kills, stops, refuses or signals processes, they are the real binary; elsewhere they are
//! threads with real sockets.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use alluvium::run::{Options, RunError};

use crate::lake::{ask, assert_all_are_exact, assert_newest_is_exact};
use crate::support::{Folder, Running, catch_up, chain, free_hosts, run_all, snapshots};
use crate::testing::checkout;

const SECRET: &str = "the secret of these processes";
/// The most time for a process to start, or to end in order.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// The most time in which the others must notice a lost peer.
const LOST: Duration = Duration::from_secs(5);

const ACCOUNTS: &str = r#"
key = ["id"]
order_by = ["version"]
[columns]
id = { type = "BIGINT", nullable = false }
version = "BIGINT"
owner = "VARCHAR"
balance = "BIGINT"
[[feeds]]
name = "drops"
kind = "files"
path = "drops/*.csv"
format = "csv"
[[feeds]]
name = "live"
kind = "log"
path = "live"
format = "json"
"#;

const BY_OWNER: &str =
    "SELECT owner, COUNT(*) AS accounts, SUM(balance) AS balance FROM silver.accounts GROUP BY owner";

/// Accounts that change and are deleted, in six files and six partitions of a log.
fn accounts(name: &str) -> Folder {
    let folder = Folder::new(
        name,
        &[
            ("inputs/accounts.toml", ACCOUNTS),
            (
                "silver/accounts.sql",
                "SELECT id, version, owner, balance FROM accounts",
            ),
            ("silver/accounts.toml", "key = [\"id\"]\n"),
            ("gold/by_owner.sql", BY_OWNER),
            (
                "gold/largest.sql",
                "SELECT owner, id, balance FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY owner ORDER BY balance DESC, id) AS n FROM silver.accounts) WHERE n <= 3",
            ),
            (
                "gold/pairs.sql",
                "SELECT a.owner, COUNT(*) AS pairs FROM silver.accounts a JOIN silver.accounts b ON a.owner = b.owner AND a.balance = b.balance GROUP BY a.owner",
            ),
        ],
    );
    change(&folder, 0);
    folder
}

/// Appends a round of changes: new versions, deletions, and old versions that come late.
fn change(folder: &Folder, round: i64) {
    for part in 0..6 {
        let mut rows = String::from("id,version,owner,balance\n");
        let mut lines = String::new();
        for n in 0..50 {
            let id = part * 50 + n;
            let version = round * 10 + n % 3;
            let updated = (id + round) % 4 == 0;
            // A deletion has no version: if a file has a row of the same key, the outcome depends on which is read
            // first.
            let deleted = !updated && (id + round) % 17 == 0;
            if !deleted {
                rows += &format!("{id},{version},o{},{}\n", (id + round) % 7, (id * 37 + round) % 11);
            }
            if updated {
                lines += &format!(
                    "{{\"key\": {{\"id\": {id}}}, \"value\": {{\"id\": {id}, \"version\": {}, \"owner\": \"o{}\", \"balance\": {}}}}}\n",
                    version + 3 - 2 * (id % 5), // The version differs from the file's.
                    id % 5,
                    id % 13 + round
                );
            } else if deleted {
                lines += &format!("{{\"key\": {{\"id\": {id}}}, \"value\": null}}\n");
            }
        }
        folder.write(&format!("drops/{round}-{part}.csv"), &rows);
        folder.append(&format!("live/{part}.ndjson"), &lines);
    }
}

#[test]
fn processes_share_the_feeds_and_make_what_one_process_makes_whatever_their_number() {
    let folder = accounts("sizes");
    let (alone, together) = (folder.load("alone"), folder.load("together"));
    let mut taken = 0;
    for (round, size) in [(1, 1), (2, 2), (1, 3), (3, 1), (2, 1)].into_iter().enumerate() {
        if round > 0 {
            change(&folder, round as i64);
        }
        catch_up(&alone, 2);
        let options = Options {
            until_caught_up: true,
            ..Options::default()
        };
        let ended = run_all(&together, size.into(), &options);
        let outcomes: Vec<_> = ended
            .into_iter()
            .map(|o| o.unwrap_or_else(|e| panic!("{size:?}: {}", chain(&e))))
            .collect();
        // Process 0 reports for all.
        let records: Vec<u64> = outcomes.iter().map(|o| o.records).collect();
        taken += records[0];
        assert_eq!(
            ask(&together, "SELECT COUNT(*) FROM bronze.accounts"),
            taken.to_string(),
            "{size:?}"
        );
        assert!(
            records[1..].iter().all(|own| (1..records[0]).contains(own)),
            "feeds are spread: {records:?}"
        );
        let followers: u64 = records[1..].iter().sum();
        assert!(followers < records[0], "process 0 reads, too: {records:?}");
        let corrected = (round > 0).then(Vec::new);
        assert_eq!(
            outcomes[0].corrections, corrected,
            "a restart as {size:?} finds every table as it is recomputed"
        );
        for table in ["silver.accounts", "gold.by_owner", "gold.largest", "gold.pairs"] {
            let rows = |dataflow| {
                let mut rows: Vec<String> = ask(dataflow, &format!("SELECT * FROM {table}"))
                    .lines()
                    .map(String::from)
                    .collect();
                rows.sort();
                rows
            };
            assert_eq!(rows(&together), rows(&alone), "{table} as {size:?}");
        }
    }
    assert_all_are_exact(&together);
}

/// The state of the graph is loaded epoch by epoch. The other processes were not told of these epochs, and a restart
/// with more than two of them never ended.
#[test]
fn a_restart_loads_more_than_an_epoch_takes_however_many_processes_there_are() {
    let folder = accounts("loads");
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    for (round, size) in [(1, 2), (2, 1), (2, 2), (3, 1)].into_iter().enumerate() {
        change(&folder, round as i64 + 1);
        let options = Options {
            until_caught_up: true,
            load_rows: Some(20),
            ..Options::default()
        };
        let outcome = run_all(&dataflow, size.into(), &options).remove(0);
        let outcome = outcome.unwrap_or_else(|e| panic!("{size:?}: {}", chain(&e)));
        assert!(outcome.loaded > 200, "{} rows were loaded as {size:?}", outcome.loaded);
        assert_eq!(outcome.corrections, Some(vec![]), "{size:?}");
        assert_newest_is_exact(&dataflow, &format!("{size:?}"));
    }
}

#[test]
fn every_snapshot_of_processes_that_are_fed_meanwhile_is_exact() {
    let folder = accounts("live");
    for (lake, size) in [("two", (2, 1)), ("four", (2, 2))] {
        let dataflow = folder.load(lake);
        let running = Running::start(dataflow.clone(), size);
        running.wait_until(|| snapshots(&dataflow) > 0);
        for round in 1..12 {
            change(&folder, round);
            std::thread::sleep(Duration::from_millis(40));
        }
        let outcome = running.stop();
        let closed = outcome.figures.lines.iter().find(|line| line.name == "input accounts");
        assert_eq!(
            closed.map(|line| line.count),
            Some(outcome.records),
            "every process's records are measured"
        );
        assert!(assert_all_are_exact(&dataflow) > 3, "{size:?}");
    }
}

#[test]
fn an_expectation_that_fails_in_another_process_stops_all_and_is_told_there() {
    let folder = accounts("expectation");
    folder.write(
        "silver/accounts.toml",
        "key = [\"id\"]\n[expect.small]\ncheck = \"balance < 10\"\non_violation = \"fail\"\n",
    );
    let dataflow = folder.load("lake");
    let options = Options {
        until_caught_up: true,
        ..Options::default()
    };
    let ended = run_all(&dataflow, (2, 1).into(), &options);
    let errors: Vec<RunError> = ended
        .into_iter()
        .map(|ended| ended.expect_err("an expectation fails"))
        .collect();
    assert!(
        matches!(errors[0], RunError::Expectation { .. }),
        "{}",
        chain(&errors[0])
    );
    let told = errors[1].to_string();
    assert!(
        told.starts_with("process 0 at ") && told.contains("violated, which must hold, by"),
        "{told}"
    );
}

/// The binary as several processes; those still running are killed at the end of the test.
pub struct Processes {
    folder: PathBuf,
    dataflow: PathBuf,
    environment: Vec<(&'static str, String)>,
    pub hosts: Vec<String>,
    workers: usize,
    children: Vec<Option<Child>>,
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for process in 0..self.children.len() {
                eprintln!("--- process {process}:\n{}", self.said(process));
            }
        }
    }
}

impl Processes {
    /// Processes for the dataflow in `folder`.
    pub fn new(folder: &Folder, processes: usize, workers: usize) -> Processes {
        folder.write("cluster.secret", &format!("{SECRET}\n"));
        Self::over(folder.path(), folder.path(), processes, workers)
    }

    /// Processes for another dataflow; logs and hosts are in `folder`.
    pub fn over(folder: &Path, dataflow: &Path, processes: usize, workers: usize) -> Processes {
        let hosts = free_hosts(processes);
        std::fs::write(
            folder.join("hosts.txt"),
            format!("# all of them\n{}\n", hosts.join("\n")),
        )
        .expect("written");
        Processes {
            folder: folder.to_path_buf(),
            dataflow: dataflow.to_path_buf(),
            environment: vec![],
            hosts,
            workers,
            children: (0..processes).map(|_| None).collect(),
        }
    }

    /// Sets these environment variables.
    pub fn with(mut self, environment: Vec<(&'static str, String)>) -> Processes {
        self.environment = environment;
        self
    }

    fn command(&self, process: usize) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
        command.arg("run").arg(&self.dataflow);
        command.args(["-w", &self.workers.to_string(), "-n", &self.hosts.len().to_string()]);
        command
            .args(["-p", &process.to_string(), "-h"])
            .arg(self.folder.join("hosts.txt"));
        command.env_remove("ALLUVIUM_SECRET").stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn log(&self, process: usize) -> PathBuf {
        self.folder.join(format!("process-{process}.log"))
    }

    fn start(&mut self, process: usize, mut command: Command) {
        let log = std::fs::File::create(self.log(process)).expect("a log");
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        self.children[process] = Some(command.spawn().expect("the binary runs"));
    }

    pub fn start_all(&mut self, arguments: &[&str]) {
        for process in 0..self.hosts.len() {
            let mut command = self.command(process);
            command.args(arguments);
            self.start(process, command);
        }
    }

    pub fn said(&self, process: usize) -> String {
        std::fs::read_to_string(self.log(process)).unwrap_or_default()
    }

    pub fn wait_until(&mut self, what: &str, mut done: impl FnMut(&Processes) -> bool) {
        let started = Instant::now();
        while !done(self) {
            assert!(started.elapsed() < PATIENCE, "{what} did not come");
            for (process, child) in self.children.iter_mut().enumerate() {
                let ended = child.as_mut().and_then(|c| c.try_wait().expect("a child"));
                assert!(ended.is_none(), "process {process} ended before {what}: {ended:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn signal(&self, process: usize, signal: &str) {
        let id = self.children[process].as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().expect("kill runs");
        assert!(sent.success(), "{signal}");
    }

    /// Waits until a process has ended; returns its status.
    pub fn end(&mut self, process: usize, within: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            let child = self.children[process].as_mut().expect("it runs");
            if let Some(status) = child.try_wait().expect("a child") {
                self.children[process] = None;
                return status;
            }
            assert!(started.elapsed() < within, "process {process} goes on after {within:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[track_caller]
    pub fn assert_ends(&mut self, process: usize, within: Duration, code: i32, says: &[&str]) {
        let status = self.end(process, within);
        let said = self.said(process);
        assert_eq!(status.code(), Some(code), "process {process}: {said}");
        for says in says {
            assert!(said.contains(says), "process {process} does not say {says:?}: {said}");
        }
    }
}

/// Waits until something is committed, and every process has started.
fn commit_something(processes: &mut Processes, dataflow: &alluvium::definition::Dataflow) {
    let before = snapshots(dataflow);
    processes.wait_until("a snapshot", |p| {
        (0..p.hosts.len()).all(|process| p.said(process).contains("started")) && snapshots(dataflow) > before
    });
}

#[test]
fn a_killed_or_hanging_process_ends_all_within_five_seconds_and_a_restart_goes_on() {
    let folder = accounts("lost");
    let dataflow = folder.load("lake");
    // The process that is hurt, and the signal.
    for (round, (victim, signal)) in [(1, "-KILL"), (0, "-KILL"), (2, "-STOP"), (0, "-STOP")]
        .into_iter()
        .enumerate()
    {
        change(&folder, round as i64 + 1);
        let mut processes = Processes::new(&folder, 3, 1);
        processes.start_all(&["--lake", &dataflow.lake]);
        commit_something(&mut processes, &dataflow);
        processes.signal(victim, signal);
        let name = format!("lost process {victim} at {}", processes.hosts[victim]);
        let started = Instant::now();
        for process in (0..3).filter(|p| *p != victim) {
            let left = LOST.saturating_sub(started.elapsed());
            processes.assert_ends(process, left, 1, &[&name, "a restart resumes from the last snapshot"]);
        }
        match signal {
            "-KILL" => assert_eq!(processes.end(victim, LOST).code(), None),
            _ => {
                processes.signal(victim, "-CONT");
                processes.assert_ends(victim, LOST, 1, &["lost process "]);
            }
        }
    }
    change(&folder, 9);
    let outcome = catch_up(&dataflow, (2, 2));
    assert_eq!(outcome.corrections, Some(vec![]));
    assert_newest_is_exact(&dataflow, "after four losses");
}

#[test]
fn sigterm_to_any_process_commits_what_was_read_and_ends_all() {
    let folder = accounts("term");
    let dataflow = folder.load("lake");
    for victim in [0, 1] {
        change(&folder, victim as i64 + 1);
        let mut processes = Processes::new(&folder, 2, 2);
        processes.start_all(&["--lake", &dataflow.lake]);
        commit_something(&mut processes, &dataflow);
        processes.signal(victim, "-TERM");
        for process in [0, 1] {
            processes.assert_ends(process, PATIENCE, 0, &["newest snapshot"]);
        }
        assert_newest_is_exact(&dataflow, "what was read");
    }
}

#[test]
fn processes_end_together_when_all_is_caught_up_or_the_time_is_over() {
    let folder = accounts("together");
    let dataflow = folder.load("lake");
    for (arguments, round) in [(["--until-caught-up", "--lake"], 1), (["--for=3s", "--lake"], 2)] {
        change(&folder, round);
        let mut processes = Processes::new(&folder, 2, 1);
        // The arguments of process 0 count for all.
        let mut leader = processes.command(0);
        leader.args(arguments).arg(&dataflow.lake);
        processes.start(0, leader);
        let mut follower = processes.command(1);
        follower.args(["--lake", &dataflow.lake]);
        processes.start(1, follower);
        for process in [0, 1] {
            processes.assert_ends(process, PATIENCE, 0, &["took "]);
        }
        assert_newest_is_exact(&dataflow, "what was read");
    }
}

#[test]
fn who_does_not_know_the_secret_or_runs_something_else_is_told_and_refused() {
    let folder = accounts("refused");
    let dataflow = folder.load("lake");
    let mut processes = Processes::new(&folder, 2, 1);
    let lake = ["--lake", dataflow.lake.as_str()];
    let address = processes.hosts[0].clone();

    std::fs::remove_file(folder.path().join("cluster.secret")).expect("it was written");
    processes.start_all(&lake);
    for process in [0, 1] {
        processes.assert_ends(
            process,
            PATIENCE,
            2,
            &["without a secret", "openssl rand -hex 32", "--secret-file"],
        );
    }
    folder.write("short.secret", "short\n");
    let mut short = processes.command(0);
    short
        .args(lake)
        .arg("--secret-file")
        .arg(folder.path().join("short.secret"));
    processes.start(0, short);
    processes.assert_ends(0, PATIENCE, 2, &["a secret of 5 bytes"]);

    folder.write("cluster.secret", SECRET);
    let mut leader = processes.command(0);
    leader.args(lake);
    processes.start(0, leader);
    let mut wrong = processes.command(1);
    wrong.args(lake).env("ALLUVIUM_SECRET", "the secret of somebody else");
    processes.start(1, wrong);
    processes.assert_ends(1, PATIENCE, 1, &["the same secret", &format!("process 0 at {address}")]);
    let refusal = |p: &Processes| {
        let said = p.said(0);
        let line = said
            .lines()
            .find(|line| line.contains("refused a connection"))
            .map(str::to_string);
        line.is_some_and(|line| line.contains("peer=\"127.0.0.1:") && line.contains("wrong proof"))
    };
    processes.wait_until("the refusal in the log", refusal);

    let edited = folder.path().join("edited");
    copy(folder.path(), &edited);
    std::fs::write(
        edited.join("gold/by_owner.sql"),
        BY_OWNER.replace("SUM(balance)", "MAX(balance)"),
    )
    .expect("written");
    let mut other = Command::new(env!("CARGO_BIN_EXE_alluvium"));
    other
        .arg("run")
        .arg(&edited)
        .args(lake)
        .args(["-w", "1", "-n", "2", "-p", "1", "-h"]);
    other
        .arg(folder.path().join("hosts.txt"))
        .arg("--secret-file")
        .arg(folder.path().join("cluster.secret"));
    processes.start(1, other);
    let says = [
        "process 1 runs dataflow \"refused\" (definition ",
        &format!("but process 0 at {address} runs dataflow \"refused\""),
    ];
    processes.assert_ends(1, PATIENCE, 1, &says);
    let mut more = Command::new(env!("CARGO_BIN_EXE_alluvium"));
    more.arg("run")
        .arg(folder.path())
        .args(lake)
        .args(["-w", "3", "-n", "2", "-p", "1", "-h"]);
    more.arg(folder.path().join("hosts.txt"));
    processes.start(1, more);
    processes.assert_ends(1, PATIENCE, 1, &["with -w 3 -n 2", "with -w 1 -n 2"]);

    // Meanwhile, process 0 has waited for the right process.
    let mut right = processes.command(1);
    right.args(lake);
    processes.start(1, right);
    commit_something(&mut processes, &dataflow);
    processes.signal(1, "-TERM");
    for process in [0, 1] {
        processes.assert_ends(process, PATIENCE, 0, &[]);
    }
}

fn copy(from: &Path, to: &Path) {
    for part in [
        "dataflow.toml",
        "inputs/accounts.toml",
        "silver/accounts.sql",
        "silver/accounts.toml",
        "gold/by_owner.sql",
        "gold/largest.sql",
        "gold/pairs.sql",
    ] {
        let target = to.join(part);
        std::fs::create_dir_all(target.parent().expect("a folder")).expect("made");
        std::fs::copy(from.join(part), target).expect("copied");
    }
}

#[test]
fn arguments_that_do_not_fit_together_are_wrong_usage() {
    let folder = accounts("usage");
    let hosts = |text: &str| folder.write("hosts.txt", text);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
        let output = command
            .arg("run")
            .arg(folder.path())
            .args(arguments)
            .current_dir(folder.path());
        let output = output.env("ALLUVIUM_SECRET", SECRET).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(run(&["-n", "2"]).contains("-h hosts.txt"));
    assert!(run(&["-n", "2", "-p", "2", "-h", "hosts.txt"]).contains("no process 2 of 2"));
    hosts("127.0.0.1:4000\n\n# another\n");
    assert!(run(&["-n", "2", "-h", "hosts.txt"]).contains("names 1 of 2 processes"));
    hosts("127.0.0.1:4000\nlocalhost\n");
    assert!(run(&["-n", "2", "-h", "hosts.txt"]).contains("\"localhost\" is not host:port"));
    hosts("127.0.0.1:4000\n127.0.0.1:4000\n");
    assert!(run(&["-n", "2", "-h", "hosts.txt"]).contains("twice"));
}

/// Opens connections to an address until it is stopped: silent ones, slow ones, and garbage. Counts them in `all`.
fn pester(address: &str, stop: &AtomicBool, all: &AtomicUsize) {
    let mut held: Vec<TcpStream> = Vec::new();
    let mut opened = 0;
    while !stop.load(Ordering::Acquire) {
        let Ok(mut stream) = TcpStream::connect(address) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        opened += 1;
        all.fetch_add(1, Ordering::Relaxed);
        // The other side may have closed the connection, which is how it refuses.
        let _ = match opened % 4 {
            0 => stream.write_all(&[0xff; 4096]),
            1 => stream.write_all(b"GET / HTTP/1.1\r\nHost: alluvium\r\n"),
            2 => stream.write_all(b"alluv"),
            _ => Ok(()),
        };
        held.push(stream);
        for (n, stream) in held.iter_mut().enumerate() {
            if n % 4 == 2 && opened % 50 == 0 {
                let _ = stream.write_all(b"i");
            }
        }
        if held.len() > 500 {
            held.drain(..250);
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}

#[test]
fn garbage_and_slow_connections_keep_nobody_from_joining_or_running() {
    let folder = accounts("pestered");
    let dataflow = folder.load("lake");
    let mut processes = Processes::new(&folder, 2, 1);
    let hosts = processes.hosts.clone();
    let stop = AtomicBool::new(false);
    let opened = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let pests: Vec<_> = hosts
            .iter()
            .map(|host| scope.spawn(|| pester(host, &stop, &opened)))
            .collect();
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Release);
            }
        }
        let stopping = Stop(&stop); // This also stops the thread if an assertion fails.
        let mut leader = processes.command(0);
        leader.args(["--lake", &dataflow.lake]);
        processes.start(0, leader);
        // The leader alone has more connections than it holds at once, and refuses some, before the follower comes.
        processes.wait_until("a thousand connections", |processes| {
            opened.load(Ordering::Relaxed) > 1000 && processes.said(0).contains("refused a connection")
        });
        let mut follower = processes.command(1);
        follower.args(["--lake", &dataflow.lake]);
        processes.start(1, follower);
        commit_something(&mut processes, &dataflow);
        change(&folder, 1);
        commit_something(&mut processes, &dataflow);
        processes.signal(0, "-TERM");
        for process in [0, 1] {
            processes.assert_ends(process, PATIENCE, 0, &[]);
        }
        drop(stopping);
        pests
            .into_iter()
            .for_each(|pest| pest.join().expect("a pest does not panic"));
    });
    let opened = opened.into_inner();
    assert!(opened > 1000, "only {opened} connections were tried");
    let refused = processes.said(0).matches("refused a connection").count();
    assert!(
        (1..=200).contains(&refused),
        "{refused} of {opened} refusals are logged"
    );
    assert_newest_is_exact(&dataflow, "in spite of them");
}

#[test]
fn the_script_starts_shows_and_stops_a_local_cluster() {
    let folder = accounts("script");
    let dataflow = folder.load("lake");
    let at = folder.path().join("cluster");
    // The script needs two consecutive ports; the second is usually free.
    let port = free_hosts(1)[0].rsplit_once(':').expect("a port").1.to_string();
    let script = |arguments: &[&str]| {
        let mut command = Command::new(checkout().join("scripts/cluster"));
        command
            .args(arguments)
            .env("ALLUVIUM", env!("CARGO_BIN_EXE_alluvium"))
            .env("ALLUVIUM_CLUSTER", &at)
            .env("ALLUVIUM_PORT", &port);
        let output = command.output().expect("the script runs");
        let said = [output.stdout, output.stderr]
            .map(|s| String::from_utf8_lossy(&s).into_owned())
            .concat();
        (output.status.code(), said)
    };
    let folder_text = folder.path().display().to_string();
    let (code, said) = script(&["start", &folder_text, "-n", "2", "-w", "1", "--lake", &dataflow.lake]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&at.display().to_string()), "it names its folder: {said}");
    let started = Instant::now();
    while snapshots(&dataflow) == 0 {
        assert!(started.elapsed() < PATIENCE, "no snapshot");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (code, said) = script(&["status", &folder_text]);
    assert_eq!((code, said.matches("running").count()), (Some(0), 2), "{said}");
    let (code, said) = script(&["start", &folder_text, "-n", "2"]);
    assert_eq!(code, Some(1), "started twice: {said}");
    let (code, said) = script(&["stop", &folder_text]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = script(&["status", &folder_text]);
    assert_eq!((code, said.matches("running").count()), (Some(1), 0), "{said}");
    let log = std::fs::read_to_string(at.join("process-0.log")).expect("a log");
    assert!(log.contains("newest snapshot"), "it ended in order: {log}");
    assert_newest_is_exact(&dataflow, "what it read");
}
