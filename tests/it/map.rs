//! Compares `scripts/map --summary` with `map.txt` beside this file, line by line, so that the structure of the code
//! does not get worse. `ALLUVIUM_GOLDEN=1 cargo test --test it map::` rewrites the file; review the difference before
//! committing it.

use std::path::Path;
use std::process::Command;

/// Whether a figure may only decrease. The counts of files and types only show how large the code is.
fn is_bound(what: &str) -> bool {
    !["files without tests", "public types"].contains(&what)
}

/// Public type names that may exist more than once, each with the reason.
const SHARED_NAMES: &[(&str, &str)] = &[];

/// The output of `scripts/map`.
fn map(option: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join("scripts/map")).arg(option).output();
    let output = output.expect("python3 is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("the map is text")
}

fn figures(text: &str) -> Vec<(&str, u64)> {
    let lines = text.lines().filter_map(|line| line.rsplit_once(": "));
    let figures = lines.map(|(what, figure)| (what, figure.parse().expect("a figure stands behind the colon")));
    figures.collect()
}

#[test]
fn the_map_is_no_worse_than_it_was() {
    let text = map("--summary");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/map.txt");
    if std::env::var_os("ALLUVIUM_GOLDEN").is_some() {
        std::fs::write(&kept, &text).expect("the file may be written");
    }
    let kept = std::fs::read_to_string(kept).expect("the file is there");
    let (now, before) = (figures(&text), figures(&kept));
    let names = |figures: &[(&str, u64)]| figures.iter().map(|(what, _)| what.to_string()).collect::<Vec<_>>();
    assert_eq!(
        names(&now),
        names(&before),
        "the lines of the map have changed: write map.txt anew"
    );
    for ((what, now), (_, before)) in now.into_iter().zip(before) {
        assert!(
            !is_bound(what) || now <= before,
            "{what}: {now}, it was {before}; `scripts/map` names them"
        );
    }
}

#[test]
fn a_public_type_name_exists_once() {
    let text = map("--names");
    let name = |line: &str| line.split(' ').next().unwrap_or_default().to_string();
    let twice: Vec<String> = text
        .lines()
        .filter(|line| !SHARED_NAMES.iter().any(|(shared, _)| *shared == name(line)))
        .map(String::from)
        .collect();
    assert!(
        twice.is_empty(),
        "say by the name what the type is, or list it in SHARED_NAMES with a reason:\n{}",
        twice.join("\n")
    );
    for (shared, _) in SHARED_NAMES {
        assert!(
            text.lines().any(|line| name(line) == *shared),
            "{shared} exists once by now: take it off SHARED_NAMES"
        );
    }
}
