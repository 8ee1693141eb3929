//! The binary as a user and a script meet it: exit codes, messages, a new dataflow's first hour.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::Folder;

fn alluvium(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_alluvium"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("the binary runs")
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[track_caller]
fn exits(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
}

#[test]
fn a_new_dataflow_runs_answers_and_passes_its_own_test() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    exits(&alluvium(&["init", "shop"], at), 0);
    exits(&alluvium(&["check", "shop"], at), 0);
    exits(&alluvium(&["query", "shop", "SELECT 1"], at), 1);
    exits(&alluvium(&["run", "shop", "--until-caught-up"], at), 0);
    exits(&alluvium(&["verify", "shop"], at), 0);
    exits(&alluvium(&["test", "shop"], at), 0);
    exits(&alluvium(&["explain", "shop"], at), 0);
    exits(&alluvium(&["dead-letters", "shop"], at), 0);
    exits(&alluvium(&["init", "shop"], at), 2);
    exits(&alluvium(&["fly", "shop"], at), 2);

    // Another question of the same data: one Gold file is edited, the next run recomputes it from Bronze.
    let gold = std::fs::read_dir(at.join("shop/gold"))
        .expect("a Gold folder")
        .flatten()
        .map(|entry| entry.path());
    let sql = gold
        .filter(|path| path.extension().is_some_and(|e| e == "sql"))
        .min()
        .expect("init writes a Gold table");
    let name = format!("gold.{}", sql.file_stem().expect("a name").to_string_lossy());
    let before = alluvium(
        &[
            "query",
            "shop",
            &format!("SELECT COUNT(*) AS n FROM {name}"),
            "--format",
            "csv",
        ],
        at,
    );
    let filtered = format!(
        "SELECT * FROM ({}) WHERE FALSE",
        std::fs::read_to_string(&sql).expect("readable SQL")
    );
    std::fs::write(&sql, filtered).expect("writable SQL");
    exits(&alluvium(&["verify", "shop"], at), 1);
    exits(&alluvium(&["run", "shop", "--until-caught-up", "-w", "2"], at), 0);
    exits(&alluvium(&["verify", "shop"], at), 0);
    let after = alluvium(
        &[
            "query",
            "shop",
            &format!("SELECT COUNT(*) AS n FROM {name}"),
            "--format",
            "csv",
        ],
        at,
    );
    assert_ne!(text(&before), "n\n0\n");
    assert_eq!(String::from_utf8_lossy(&after.stdout), "n\n0\n");
}

#[test]
fn ten_kinds_of_mistakes_are_told_in_one_run_with_file_line_and_remedy() {
    let folder = Folder::new("mistakes", &[]);
    folder.write(
        "dataflow.toml",
        "name = \"mistakes\"\nlake = \"gs//lake\"\nepock = \"10ms\"\ncommit = \"soon\"\n",
    );
    folder.write(
        "inputs/orders.toml",
        "key = [\"ordr_id\"]\n[columns]\norder_id = \"BIGINTEGER\"\ncustomer = \"VARCHAR\"\namount = \"DOUBLE\"\n\
         [[feeds]]\nname = \"drops\"\nkind = \"flies\"\npath = \"drops/*.csv\"\nformat = \"csv\"\n",
    );
    folder.write("gold/a.sql", "SELECT * FROM gold.b");
    folder.write("gold/b.sql", "SELECT * FROM gold.a");
    let told = alluvium(&["check", "."], folder.path());
    exits(&told, 2);
    let told = text(&told);
    for expected in [
        "dataflow.toml:3",
        "epoch",
        "dataflow.toml:4",
        "inputs/orders.toml:1",
        "ordr_id",
        "inputs/orders.toml:3",
        "BIGINTEGER",
        "inputs/orders.toml:8",
        "flies",
        "gold.a -> gold.b -> gold.a",
    ] {
        assert!(told.contains(expected), "{expected:?} is not in:\n{told}");
    }

    let folder = Folder::new(
        "sql",
        &[(
            "inputs/orders.toml",
            "[columns]\norder_id = \"BIGINT\"\ncustomer = \"VARCHAR\"\namount = \"DOUBLE\"\n\
         [[feeds]]\nname = \"drops\"\nkind = \"files\"\npath = \"drops/*.csv\"\nformat = \"csv\"\n",
        )],
    );
    folder.write("gold/column.sql", "SELECT\n  order_id,\n  amout\nFROM orders");
    folder.write("gold/table.sql", "SELECT order_id\nFROM ordres");
    folder.write("gold/chance.sql", "SELECT order_id, random() AS r FROM orders");
    folder.write("gold/some.sql", "SELECT order_id FROM orders LIMIT 10");
    folder.write(
        "gold/types.sql",
        "SELECT order_id + customer > DATE '2024-01-01' AS x FROM orders",
    );
    folder.write("gold/syntax.sql", "SELECT order_id FRM orders");
    let told = alluvium(&["check", "."], folder.path());
    exits(&told, 2);
    let told = text(&told);
    for expected in [
        "gold/column.sql:3",
        "amount",
        "gold/table.sql:2",
        "orders",
        "gold/chance.sql:1",
        "gold/some.sql:1",
        "gold/types.sql",
        "gold/syntax.sql:1",
    ] {
        assert!(told.contains(expected), "{expected:?} is not in:\n{told}");
    }
}

#[test]
fn the_examples_pass_their_own_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for example in ["retail", "devices", "logistics"] {
        let tested = alluvium(&["test", &format!("dataflows/{example}")], root);
        exits(&tested, 0);
        assert!(text(&tested).contains("0 failed"), "{}", text(&tested));
    }
}
