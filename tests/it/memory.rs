//! Tests `memory_limit`: a run above the limit reads no feed, and loses nothing.

use crate::lake::{ask, assert_newest_is_exact};
use crate::runs::Running;
use crate::support::{Folder, catch_up};

#[test]
fn above_its_memory_a_run_takes_nothing_and_loses_nothing() {
    let folder = Folder::new(
        "memory",
        &[
            (
                "inputs/events.toml",
                "[columns]\nid = \"BIGINT\"\n[[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live\"\nformat = \"json\"\n",
            ),
            ("gold/counts.sql", "SELECT COUNT(*) AS n FROM events"),
        ],
    );
    let settings = "name = \"memory\"\nepoch = \"1ms\"\ncommit = \"5ms\"\ndurability = \"none\"\n";
    let append = |from: u32, to: u32| {
        let lines: String = (from..to)
            .map(|id| format!("{{\"value\": {{\"id\": {id}}}}}\n"))
            .collect();
        folder.append("live/0.ndjson", &lines);
    };
    append(0, 10);
    catch_up(&folder.load("lake"), 1);
    // Any process takes more memory than this.
    folder.write("dataflow.toml", &format!("{settings}memory_limit = \"1 MiB\"\n"));
    let bounded = folder.load("lake");
    let running = Running::alluvium(&folder, &["-w", "2", "--lake", "lakes/lake"]);
    // The past is loaded nevertheless; its snapshot changes nothing.
    running.wait_for("every table is as recomputed");
    running.wait_for("no feed is read until");
    append(10, 5000);
    // The records are in front of a worker, which passes them by each time it goes through its loop.
    running.report_until(|_| running.handed_over("events.live") == 4990);
    running.wait_for_reports(5);
    assert_eq!(ask(&bounded, "SELECT n FROM gold.counts"), "10", "nothing is taken");
    running.stop();
    folder.write("dataflow.toml", settings);
    let free = folder.load("lake");
    catch_up(&free, 1);
    assert_eq!(ask(&free, "SELECT n FROM gold.counts"), "5000");
    assert_newest_is_exact(&free, "without a limit");
}
