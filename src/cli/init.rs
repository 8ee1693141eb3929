//! The command `init`: creates a small working dataflow to start from. Its files are in `template/`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::{UsageError, holds_anything};

/// Make a small dataflow to start from
///
/// It has one input with two feeds, a Silver and a Gold table, a few sample rows and a test.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium init shop
  alluvium run shop --until-caught-up")]
pub struct InitArgs {
    /// The folder to make; the last part of its path becomes the dataflow's name
    #[arg(value_name = "NAME")]
    folder: PathBuf,
}

/// The placeholder for the dataflow's name in the template.
const NAME: &str = "{{name}}";

/// The path and text of every file.
const FILES: [(&str, &str); 14] = [
    (".gitignore", include_str!("template/gitignore")),
    ("dataflow.toml", include_str!("template/dataflow.toml")),
    ("inputs/orders.toml", include_str!("template/inputs/orders.toml")),
    ("silver/orders.sql", include_str!("template/silver/orders.sql")),
    ("silver/orders.toml", include_str!("template/silver/orders.toml")),
    ("gold/sales_by_day.sql", include_str!("template/gold/sales_by_day.sql")),
    (
        "gold/sales_by_day.toml",
        include_str!("template/gold/sales_by_day.toml"),
    ),
    (
        "drops/orders/2026-01-05.csv",
        include_str!("template/drops/orders/2026-01-05.csv"),
    ),
    (
        "drops/orders/2026-01-06.csv",
        include_str!("template/drops/orders/2026-01-06.csv"),
    ),
    ("live/orders/0.ndjson", include_str!("template/live/orders/0.ndjson")),
    (
        "tests/the_newest_version_counts/1/inputs/orders.csv",
        include_str!("template/tests/the_newest_version_counts/1/inputs/orders.csv"),
    ),
    (
        "tests/the_newest_version_counts/1/expect/gold.sales_by_day.csv",
        include_str!("template/tests/the_newest_version_counts/1/expect/gold.sales_by_day.csv"),
    ),
    (
        "tests/the_newest_version_counts/2/inputs/orders.csv",
        include_str!("template/tests/the_newest_version_counts/2/inputs/orders.csv"),
    ),
    (
        "tests/the_newest_version_counts/2/expect/gold.sales_by_day.csv",
        include_str!("template/tests/the_newest_version_counts/2/expect/gold.sales_by_day.csv"),
    ),
];

/// Runs the command.
///
/// # Errors
/// `UsageError` if the folder is not empty or the name is invalid; otherwise a file cannot be written.
pub fn run(args: InitArgs) -> Result<ExitCode> {
    create(&args.folder)?;
    let folder = args.folder.display();
    let mut out = io::stdout().lock();
    writeln!(out, "made {folder}; next:")?;
    writeln!(out, "  alluvium check {folder}")?;
    writeln!(out, "  alluvium run {folder} --until-caught-up")?;
    writeln!(
        out,
        "  alluvium query {folder} \"SELECT * FROM gold.sales_by_day ORDER BY day\""
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the template into a folder that is empty or does not exist yet.
pub(super) fn create(folder: &Path) -> Result<()> {
    let name = folder
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| {
            name.chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        })
        .ok_or_else(|| {
            UsageError::new(
                format!("{} gives no name to the dataflow", folder.display()),
                "let its last part be letters, digits, _, - and . alone",
            )
        })?;
    if folder.is_file() {
        return Err(UsageError::new(format!("{} is a file", folder.display()), "name a folder to make").into());
    }
    if holds_anything(folder).with_context(|| format!("could not look into {}", folder.display()))? {
        return Err(UsageError::new(
            format!("{} is not empty", folder.display()),
            "name a folder that is empty or not there yet: nothing is overwritten",
        )
        .into());
    }
    for (path, text) in FILES {
        let path = folder.join(path);
        let parent = path.parent().expect("every file of the template lies in the folder");
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, text.replace(NAME, &name)))
            .with_context(|| format!("could not write {}", path.display()))?;
    }
    Ok(())
}
