//! Tests the command as its user sees it: arguments, exit codes, and a first dataflow that loads.

use clap::CommandFactory;

use super::*;
use crate::definition::cases;

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
}

fn run_line(line: &str) -> u8 {
    match parse(line) {
        Err(error) => u8::try_from(error.exit_code()).expect("a small exit code"),
        Ok(command) => match command.run() {
            Ok(code) if code == ExitCode::SUCCESS => 0,
            Ok(_) => FAILED,
            Err(error) => code_of(&error),
        },
    }
}

#[test]
fn the_arguments_are_consistent_and_every_command_and_argument_has_help() {
    Cli::command().debug_assert();
    let cli = Cli::command();
    for command in cli.get_subcommands() {
        assert!(command.get_about().is_some(), "{} has no help", command.get_name());
        assert!(
            command.get_after_help().is_some(),
            "{} has no example",
            command.get_name()
        );
        for argument in command.get_arguments().filter(|a| a.get_id() != "help") {
            assert!(
                argument.get_help().is_some(),
                "{} {}",
                command.get_name(),
                argument.get_id()
            );
        }
    }
    let names: Vec<&str> = cli.get_subcommands().map(|c| c.get_name()).collect();
    assert_eq!(
        names,
        [
            "check",
            "explain",
            "plan",
            "run",
            "query",
            "verify",
            "rebuild",
            "backfill",
            "test",
            "dead-letters",
            "generate",
            "produce",
            "init",
            "infer",
        ]
    );
}

#[test]
fn every_command_takes_the_dataflow_first() {
    for line in [
        "alluvium check flow",
        "alluvium explain flow",
        "alluvium explain flow gold.x",
        "alluvium run flow -w 4 --until-caught-up --for 60s --lake s3://bucket/x",
        "alluvium run flow -w 4 -n 2 -p 1 -h hosts.txt --secret-file cluster.secret --listen 0.0.0.0:4000",
        "alluvium query flow SELECT --snapshot 1767225600000 --format csv",
        "alluvium verify flow --table gold.x --table silver.y",
        "alluvium verify flow --against s3://bucket/x",
        "alluvium rebuild flow --into other --from lake -w 2",
        "alluvium backfill flow orders a.csv b/*.csv s3://bucket/x/ --feed drops --rate 5000 --again --detach",
        "alluvium backfill flow orders --from-bronze --since 2026-01-31 --until 2026-01-31T12:00:00Z",
        "alluvium dead-letters flow --replay --input orders --rate 100",
        "alluvium dead-letters flow --replay --table gold.x",
        "alluvium test flow late -w 2",
        "alluvium dead-letters flow --format json",
        "alluvium generate flow orders.live --generator retail.orders --limit 10 --late 0.5",
        "alluvium init flow",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn wrong_arguments_end_with_exit_code_2() {
    for line in [
        "alluvium",
        "alluvium rum flow",
        "alluvium run",
        "alluvium run flow -w 0",
        "alluvium run flow --for soon",
        "alluvium run flow --for 0s",
        "alluvium query flow",
        "alluvium query flow SELECT --format xml",
        "alluvium generate flow orders.live --generator g --late 1.5",
        "alluvium verify flow --against other --snapshot 1",
        "alluvium rebuild flow",
        "alluvium backfill flow",
        "alluvium backfill flow orders",
        "alluvium backfill flow orders a.csv --from-bronze",
        "alluvium backfill flow orders a.csv --since 2026-01-31",
        "alluvium backfill flow orders --from-bronze --again",
        "alluvium backfill flow orders --from-bronze --since yesterday",
        "alluvium backfill flow orders a.csv --rate 0",
        "alluvium backfill flow orders a.csv --feed f --format csv",
        "alluvium dead-letters flow --input orders",
        "alluvium dead-letters flow --replay --snapshot 5",
        "alluvium check /no/such/folder",
        "alluvium run /no/such/folder",
    ] {
        assert_eq!(run_line(line), 2, "{line}");
    }
}

#[test]
fn init_makes_a_dataflow_that_loads_and_refuses_to_overwrite() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let folder = scratch.path().join("shop");
    let line = format!("alluvium init {}", folder.display());
    assert_eq!(run_line(&line), 0);

    let dataflow = load(&folder, &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(dataflow.name, "shop");
    let names: Vec<String> = dataflow.tables.iter().map(|t| t.qualified_name()).collect();
    assert_eq!(names, ["silver.orders", "gold.sales_by_day"]);
    assert_eq!(dataflow.inputs[0].feeds.len(), 2);
    let cases = cases(&folder).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(cases.len(), 1);
    assert_eq!(cases[0].steps.len(), 2);
    assert!(folder.join("drops/orders/2026-01-05.csv").is_file());

    assert_eq!(run_line(&format!("alluvium check {}", folder.display())), 0);
    assert_eq!(run_line(&format!("alluvium explain {} gold.nope", folder.display())), 2);
    assert_eq!(run_line(&format!("alluvium test {} nope", folder.display())), 2);
    assert_eq!(
        run_line(&format!("alluvium run {} --lake http://x", folder.display())),
        2
    );

    std::fs::write(folder.join("dataflow.toml"), "mine").expect("the file is writable");
    assert_eq!(run_line(&line), 2);
    let text = std::fs::read_to_string(folder.join("dataflow.toml")).expect("the file is readable");
    assert_eq!(text, "mine");
    assert_eq!(run_line(&format!("alluvium check {}", folder.display())), 2);
}

#[test]
fn init_fills_an_empty_folder_and_refuses_a_file_or_a_nameless_path() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let empty = scratch.path().join("empty");
    std::fs::create_dir(&empty).expect("a folder");
    assert_eq!(run_line(&format!("alluvium init {}", empty.display())), 0);
    let file = scratch.path().join("file");
    std::fs::write(&file, "").expect("a file");
    assert_eq!(run_line(&format!("alluvium init {}", file.display())), 2);
    assert_eq!(run_line("alluvium init /"), 2);
}

#[test]
fn the_lake_of_the_command_replaces_that_of_the_definition() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let folder = scratch.path().join("shop");
    init::create(&folder).expect("a new dataflow");
    let source = |lake: Option<&str>| SourceAndLake {
        folder: folder.clone(),
        lake: lake.map(str::to_string),
    };
    let lake = |given| source(given).load().expect("a good definition").lake;
    assert!(lake(None).ends_with("/shop/lake"));
    assert_eq!(lake(Some("s3://bucket/x/")), "s3://bucket/x");
    let here = std::env::current_dir().expect("a current folder");
    assert_eq!(lake(Some("elsewhere")), here.join("elsewhere").to_string_lossy());
}

#[test]
fn an_error_prints_its_chain_of_causes_and_diagnostics_their_count() {
    let error = anyhow::anyhow!("disk full")
        .context("could not write a.parquet")
        .context("the run failed");
    assert_eq!(
        describe(&error),
        "error: the run failed\n  caused by: could not write a.parquet\n  caused by: disk full"
    );
    assert_eq!(code_of(&error), FAILED);

    let error = load(Path::new("/no/such/folder"), &|_| None)
        .map(|_| ())
        .expect_err("no folder");
    let error = anyhow::Error::from(error);
    assert!(describe(&error).ends_with("\n1 mistake"), "{}", describe(&error));
    assert_eq!(code_of(&error), WRONG);
}
