//! Tests that everything pages name exists: other pages, headings, files, functions, tests, measured figures.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use regex::Regex;

use super::{Page, chapters, files, pages, root};

/// The README must be short, because it is read before anything else.
const README_LINES: usize = 150;

#[test]
fn the_readme_is_short_and_has_the_two_commands() {
    let readme = Page::read("README.md");
    let lines = readme.text.lines().count();
    assert!(lines < README_LINES, "README.md has {lines} lines");
    for command in ["scripts/demo", "scripts/test"] {
        let says = readme.fences().iter().any(|fence| fence.text.contains(command));
        assert!(says, "README.md does not show {command}");
    }
}

#[test]
fn every_page_is_in_the_summary_once_and_every_entry_is_a_page() {
    let summary = Page::read("docs/src/SUMMARY.md");
    let entry = Regex::new(r"^ *(?:- )?\[[^\]]+\]\(([^)]+)\)$").expect("a pattern");
    let mut listed = Vec::new();
    for line in summary
        .text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let found = entry
            .captures(line)
            .unwrap_or_else(|| panic!("no entry of mdBook: {line:?}"));
        listed.push(PathBuf::from("docs/src").join(&found[1]));
    }
    let mut there: Vec<PathBuf> = chapters().into_iter().map(|page| page.path).collect();
    there.retain(|path| *path != summary.path);
    listed.sort();
    assert_eq!(listed, there, "left: docs/src/SUMMARY.md; right: the pages");
    let book: toml::Table = Page::read("docs/book.toml")
        .text
        .parse()
        .expect("docs/book.toml is TOML");
    assert_eq!(book["book"]["src"].as_str(), Some("src"));
}

#[test]
fn every_page_begins_with_what_it_says() {
    for page in chapters().iter().filter(|page| !page.path.ends_with("SUMMARY.md")) {
        let mut lines = page.text.lines().filter(|line| !line.is_empty());
        let (title, first) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let place = page.path.display();
        assert!(title.starts_with("# "), "{place} has no title: {title}");
        assert!(
            first.starts_with("This page "),
            "{place} does not say what it is for: {first}"
        );
    }
}

/// The anchor of a heading in links, as mdBook and GitHub generate it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(page: &Page) -> BTreeSet<String> {
    let prose = page.prose();
    prose.lines().filter(|line| line.starts_with('#')).map(anchor).collect()
}

/// The path with `..` resolved.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").expect("a pattern");
    let code = Regex::new("`[^`]*`").expect("a pattern");
    for page in pages() {
        let place = page.path.display();
        let own = anchors(&page);
        let prose = page.prose();
        for found in link.captures_iter(&code.replace_all(&prose, "")) {
            let target = &found[1];
            if target.contains("://") {
                continue;
            }
            let (path, heading) = target.split_once('#').map_or((target, None), |(p, h)| (p, Some(h)));
            let known = if path.is_empty() {
                own.clone()
            } else {
                let path = plain(&page.path.parent().unwrap_or(Path::new("")).join(path));
                assert!(
                    root().join(&path).exists(),
                    "{place} links to {target}, which is not there"
                );
                let in_book = path.starts_with("docs/src");
                assert!(
                    in_book || !page.path.starts_with("docs/src"),
                    "{place} links out of the book: {target}"
                );
                match path.extension().is_some_and(|ending| ending == "md") {
                    true => anchors(&Page::read(&path.display().to_string())),
                    false => BTreeSet::new(),
                }
            };
            if let Some(heading) = heading {
                assert!(
                    known.contains(heading),
                    "{place} links to {target}: there is no such heading"
                );
            }
        }
    }
}

#[test]
fn every_file_and_function_that_a_page_names_exists() {
    let path = Regex::new(r"^(?:src|tests|docs|benches|scripts|dataflows)/[A-Za-z0-9_./@-]*").expect("a pattern");
    let script = Regex::new(r"(?m)(?:^|\s)(scripts/[A-Za-z0-9_./@-]+)").expect("a pattern");
    for page in pages() {
        let place = page.path.display();
        for code in page.code() {
            let Some(found) = path.find(&code) else { continue };
            let (named, rest) = (found.as_str(), &code[found.end()..]);
            if rest.starts_with(['<', '*', '{']) {
                continue; // This is a pattern of names.
            }
            let file = root().join(named);
            assert!(file.exists(), "{place} names {named}, which is not there");
            let Some(name) = rest.strip_prefix("::") else { continue };
            let defined = Regex::new(&format!(r"\b(?:fn|struct|enum|trait|type|const) {name}\b")).expect("a pattern");
            let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{named}: {e}"));
            assert!(
                defined.is_match(&text),
                "{place} names {name} of {named}, which has none"
            );
        }
        for fence in page.fences() {
            for found in script.captures_iter(&fence.text) {
                assert!(root().join(&found[1]).exists(), "{}: no {}", fence.place, &found[1]);
            }
        }
    }
}

/// The commands, with their sections on the page of commands.
fn commands() -> BTreeMap<String, String> {
    let page = Page::read("docs/src/reference/commands.md").text;
    let sections = page
        .split("\n## ")
        .skip(1)
        .filter_map(|section| section.split_once('\n'));
    sections
        .map(|(name, text)| (name.to_string(), text.to_string()))
        .collect()
}

#[test]
fn every_command_and_option_that_a_page_shows_exists() {
    let commands = commands();
    let option = Regex::new(r"(?:^|\s)(--[a-z][a-z-]*|-[a-z])\b").expect("a pattern");
    let call = Regex::new(r"\balluvium ([a-z][a-z-]*) ?([^|;&#\n]*)").expect("a pattern");
    let mut tried = 0;
    for page in pages() {
        let spans = page.code();
        // Prose may mention a command without the program's name: `run --until-caught-up`.
        let short = spans.iter().filter(|span| {
            span.split_once(" -")
                .is_some_and(|(name, _)| commands.contains_key(name))
        });
        let short: Vec<String> = short.map(|span| format!("alluvium {span}")).collect();
        let fences = page
            .fences()
            .into_iter()
            .filter(|fence| matches!(fence.language.as_str(), "sh" | "bash"));
        let fences: Vec<String> = fences.map(|fence| fence.text.replace("\\\n", " ")).collect();
        for text in spans.iter().chain(&short).chain(&fences) {
            for found in call.captures_iter(text) {
                let (name, rest) = (&found[1], &found[2]);
                let place = page.path.display();
                let section = commands
                    .get(name)
                    .unwrap_or_else(|| panic!("{place}: no command {name}: {text}"));
                // Quoted text is SQL, or a pattern.
                let unquoted: String = rest.split(['"', '\'']).step_by(2).collect();
                for option in option.captures_iter(&unquoted) {
                    tried += 1;
                    let known = Regex::new(&format!(r"(?m)^\| `(?:-\w, )?{}\b", &option[1])).expect("a pattern");
                    let short = section.contains(&format!("| `{},", &option[1]));
                    assert!(
                        known.is_match(section) || short,
                        "{place}: {name} has no {}: {text}",
                        &option[1]
                    );
                }
            }
        }
    }
    assert!(tried > 30, "pages show commands");
}

/// The names of modules and functions below a folder, from which test paths are made.
fn names_of_tests(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    functions(folder, &mut names);
    let mut paths = Vec::new();
    files(folder, "rs", &mut paths);
    for path in paths {
        let below = path.strip_prefix(folder).expect("below the folder").with_extension("");
        names.extend(below.iter().map(|part| part.to_string_lossy().into_owned()));
    }
    names
}

#[test]
fn every_command_of_cargo_that_a_page_shows_has_something_to_run() {
    let call = Regex::new(r"\bcargo (test|bench) ([^`|;#\n]*)").expect("a pattern");
    let (lib, it) = (
        names_of_tests(&root().join("src")),
        names_of_tests(&root().join("tests/it")),
    );
    for page in pages() {
        let place = page.path.display();
        let fences = page.fences().into_iter().filter(|fence| fence.language == "sh");
        let texts: Vec<String> = page.code().into_iter().chain(fences.map(|fence| fence.text)).collect();
        for found in texts.iter().flat_map(|text| call.captures_iter(text)) {
            let words: Vec<&str> = found[2].split_whitespace().collect();
            let text = &found[0];
            let (known, words) = match (&found[1], words.as_slice()) {
                ("bench", ["--bench", name, ..]) => {
                    let file = root().join("benches").join(format!("{name}.rs"));
                    let is_there = file.exists() || root().join("benches").join(name).join("main.rs").exists();
                    assert!(is_there, "{place}: there is no benchmark {name}");
                    continue;
                }
                ("test", ["--lib", words @ ..]) => (&lib, words),
                ("test", ["--test", "it", words @ ..]) => (&it, words),
                _ => panic!(
                    "{place}: {text} is neither `cargo test --lib`, `cargo test --test it` nor `cargo bench --bench`"
                ),
            };
            let filters = words.iter().position(|word| *word == "--").unwrap_or(words.len());
            assert!(
                filters <= 1,
                "{place}: {text}: cargo takes one name; more of them stand behind --"
            );
            for word in words.iter().filter(|word| !word.starts_with('-')) {
                for part in word.split("::").filter(|part| !part.is_empty()) {
                    assert!(
                        known.iter().any(|name| name.contains(part)),
                        "{place}: {text}: no test is called {part}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_map_has_every_module_in_the_order_of_the_code() {
    let module = Regex::new(r"(?m)^//! \| \[?`(\w+)`\]? \|").expect("a pattern");
    let lib = Page::read("src/lib.rs").text;
    let declared: Vec<&str> = module
        .captures_iter(&lib)
        .map(|found| found.extract::<1>().1[0])
        .collect();
    let row = Regex::new(r"(?m)^\| `src/(\w+)(?:\.rs)?` \|").expect("a pattern");
    let page = Page::read("docs/src/about/architecture.md").text;
    let shown: Vec<&str> = row
        .captures_iter(&page)
        .map(|found| found.extract::<1>().1[0])
        .collect();
    assert_eq!(
        shown, declared,
        "left: docs/src/about/architecture.md; right: src/lib.rs"
    );
}

#[test]
fn measured_figures_are_those_of_the_results() {
    let results = Page::read("benches/RESULTS.md").text;
    let page = Page::read("docs/src/about/measurements.md");
    let figures = Regex::new(r"^\d[\d.,k]*(?: / \d[\d.,k]*)*").expect("a pattern");
    let rows: Vec<&str> = page.text.lines().filter(|line| line.starts_with("| ")).collect();
    let mut tried = 0;
    for row in rows {
        let cell = row.split('|').nth(2).expect("a second cell").trim();
        if let Some(found) = figures.find(cell) {
            tried += 1;
            assert!(
                results.contains(found.as_str()),
                "benches/RESULTS.md has no {}: {row}",
                found.as_str()
            );
        }
    }
    assert!(tried > 5, "the page has figures");
}

/// Collects the names of all functions in the Rust files below a folder.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    let mut paths = Vec::new();
    files(folder, "rs", &mut paths);
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a source file");
        let named = text.split("fn ").skip(1).map(|rest| {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            rest[..end.unwrap_or(rest.len())].to_string()
        });
        names.extend(named);
    }
}

/// The last cell of each row in a page's tables, without the table heads.
fn last_cells(page: &str) -> Vec<(&str, &str)> {
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| Some((row, row.trim_end().strip_suffix('|')?.rsplit('|').next()?.trim())));
    cells
        .filter(|(_, cell)| *cell != "test" && !cell.starts_with("---"))
        .collect()
}

#[test]
fn every_row_about_bad_input_names_a_test_that_exists() {
    let page = Page::read("docs/src/operating/bad-input.md");
    let mut known = BTreeSet::new();
    functions(&root().join("src"), &mut known);
    functions(&root().join("tests"), &mut known);
    for (row, cell) in last_cells(&page.text) {
        let tests: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "this row names no test in backticks: {row}");
        for test in tests {
            let name = test.rsplit("::").next().unwrap_or(test);
            assert!(
                known.contains(name),
                "there is no test {test}, which this row names: {row}"
            );
        }
    }
}
