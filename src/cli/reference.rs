//! Checks that the book's page of commands equals what the definitions of the arguments say.
//!
//! `ALLUVIUM_GOLDEN=1 cargo test --lib reference` writes the page again.

use std::fmt::Write as _;
use std::path::Path;

use clap::builder::StyledStr;
use clap::{Arg, Command, CommandFactory};

use super::Cli;

const HEAD: &str = "\
# Commands

This page lists every command with its arguments, as `alluvium COMMAND --help` tells them.

It is written from the code. Exit codes are 0: success, 1: the run failed or a difference was found, 2: the command or the definition is
invalid. What a run waits for, and how it ends, is under [running](../operating/running.md).
";

/// Escapes plain text for a cell or a paragraph of Markdown.
fn escaped(text: &str) -> String {
    let code = text.split('`').enumerate().map(|(n, part)| match n % 2 {
        0 => part.replace('<', "\\<").replace('*', "\\*"),
        _ => format!("`{part}`"),
    });
    code.collect::<String>().replace('|', "\\|")
}

fn text_of(styled: Option<&StyledStr>) -> String {
    styled.map(ToString::to_string).unwrap_or_default()
}

/// An argument's notation.
fn written(arg: &Arg) -> String {
    let values: Vec<String> = arg
        .get_value_names()
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect();
    let value = values.join(" ");
    if arg.is_positional() {
        return if arg.is_required_set() {
            value
        } else {
            format!("[{value}]")
        };
    }
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    match arg.get_action().takes_values() {
        true => format!("{} {value}", names.join(", ")),
        false => names.join(", "),
    }
}

fn command_page(command: &Command) -> String {
    let mut command = command.clone();
    let usage = command.render_usage().to_string();
    let about = text_of(command.get_long_about().or(command.get_about()));
    let (first, more) = about.split_once("\n\n").unwrap_or((&about, ""));
    let mut page = format!(
        "\n## {}\n\n{}.\n",
        command.get_name(),
        escaped(first.trim_end_matches('.'))
    );
    if !more.is_empty() {
        let _ = write!(page, "\n{}\n", escaped(more));
    }
    let _ = write!(
        page,
        "\n```text\n{}\n```\n\n",
        usage.trim_start_matches("Usage: ").trim_end()
    );
    page += "| argument | default | meaning |\n|---|---|---|\n";
    for arg in command.get_arguments().filter(|arg| arg.get_id() != "help") {
        let help = text_of(arg.get_help()).replace('\n', " ");
        let values = arg.get_possible_values();
        let choice = match values.is_empty() || !arg.get_action().takes_values() {
            true => String::new(),
            false => {
                let names: Vec<String> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
                format!(": {}", names.join(", "))
            }
        };
        let defaults = match arg.get_action().takes_values() {
            true => arg.get_default_values(),
            false => &[],
        };
        let default: String = defaults
            .iter()
            .map(|value| format!("`{}` ", value.to_string_lossy()))
            .collect();
        let _ = writeln!(page, "| `{}` | {default}| {}{choice} |", written(arg), escaped(&help));
    }
    let examples = text_of(command.get_after_help());
    if let Some((_, lines)) = examples.split_once(":\n") {
        page += "\n```text\n";
        for line in lines.lines() {
            let _ = writeln!(page, "{}", line.trim_start());
        }
        page += "```\n";
    }
    page
}

#[test]
fn the_page_of_commands_is_what_the_arguments_say() {
    let mut cli = Cli::command();
    cli.build();
    let commands = cli.get_subcommands().filter(|command| command.get_name() != "help");
    let page = commands.fold(HEAD.to_string(), |page, command| page + &command_page(command));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src/reference/commands.md");
    if std::env::var_os("ALLUVIUM_GOLDEN").is_some() {
        std::fs::write(&path, &page).expect("the page is written");
    }
    let existing = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        existing == page,
        "docs/src/reference/commands.md is not what the arguments say; ALLUVIUM_GOLDEN=1 cargo test --lib reference writes it"
    );
}
