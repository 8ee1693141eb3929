//! Tests that the page of settings lists the settings that the code reads, with the code's defaults.
//!
//! The code itself lists what it knows: it is given an unknown setting, and names the known ones. With
//! `ALLUVIUM_GOLDEN` set, the page's rows are rewritten: a new setting gets a row without a meaning, which somebody
//! must write.

use std::collections::BTreeMap;

use alluvium::definition::{Dataflow, survey};

use super::{Page, root};
use crate::support::Folder;

const PAGE: &str = "docs/src/reference/settings.md";

/// A name that no setting has.
const UNKNOWN: &str = "zzzzzzzzzzzzzzzz";

/// A place with settings: the headings that list them together, the file, and the file's text before optional
/// settings.
struct Probe {
    headings: &'static [&'static str],
    file: &'static str,
    before: &'static str,
}

const COLUMNS: &str = "[columns]\nid = \"BIGINT\"\nat = \"TIMESTAMP\"\n";

const FEED: &str = "[[feeds]]\nname = \"only\"\nkind = \"files\"\npath = \"d\"\nformat = \"ndjson\"\n";

const PROBES: &[Probe] = &[
    Probe {
        headings: &["dataflow.toml"],
        file: "dataflow.toml",
        before: "name = \"shop\"\n",
    },
    Probe {
        headings: &["http"],
        file: "dataflow.toml",
        before: "name = \"shop\"\n[http]\nlisten = \"127.0.0.1:8080\"\n",
    },
    Probe {
        headings: &["dead_letters"],
        file: "dataflow.toml",
        before: "name = \"shop\"\n[dead_letters]\nbrokers = \"one:9092\"\ntopic = \"dead\"\n",
    },
    Probe {
        headings: &["registry"],
        file: "dataflow.toml",
        before: "name = \"shop\"\n[registry]\nurl = \"http://one:8081\"\n",
    },
    Probe {
        headings: &["Inputs"],
        file: "inputs/orders.toml",
        before: "",
    },
    Probe {
        headings: &["columns"],
        file: "inputs/orders.toml",
        before: "[columns.n]\ntype = \"INT\"\n",
    },
    Probe {
        headings: &["retention"],
        file: "inputs/orders.toml",
        before: "[retention]\ncolumn = \"at\"\nkeep = \"1 day\"\n",
    },
    Probe {
        headings: &["Feeds", "Feeds of files", "Feeds of text files", "Feeds of CSV files"],
        file: "inputs/orders.toml",
        before: "[[feeds]]\nname = \"f\"\nkind = \"files\"\npath = \"drops\"\nformat = \"csv\"\n",
    },
    Probe {
        headings: &["Feeds", "Feeds of files", "Feeds of text files"],
        file: "inputs/orders.toml",
        before: "[[feeds]]\nname = \"f\"\nkind = \"files\"\npath = \"drops\"\nformat = \"ndjson\"\n",
    },
    Probe {
        headings: &["Feeds", "Feeds of files"],
        file: "inputs/orders.toml",
        before: "[[feeds]]\nname = \"f\"\nkind = \"files\"\npath = \"drops\"\nformat = \"parquet\"\n",
    },
    Probe {
        headings: &["Feeds", "Feeds of logs", "Feeds of records"],
        file: "inputs/orders.toml",
        before: "[[feeds]]\nname = \"f\"\nkind = \"log\"\npath = \"live\"\nformat = \"json\"\n",
    },
    Probe {
        headings: &["Feeds", "Feeds of topics", "Feeds of records"],
        file: "inputs/orders.toml",
        before: "[[feeds]]\nname = \"f\"\nkind = \"kafka\"\nbrokers = \"one:9092\"\ntopics = [\"t\"]\nformat = \"json\"\n",
    },
    Probe {
        headings: &[
            "Feeds",
            "Feeds of topics",
            "Feeds of records",
            "Feeds of Canal and Maxwell",
        ],
        file: "inputs/orders.toml",
        before: "[[feeds]]\nname = \"f\"\nkind = \"kafka\"\nbrokers = \"one:9092\"\ntopics = [\"t\"]\nformat = \"canal-json\"\n",
    },
    Probe {
        headings: &["transactions"],
        file: "inputs/orders.toml",
        before: "[[feeds]]\nname = \"f\"\nkind = \"kafka\"\nbrokers = \"one:9092\"\ntopics = [\"t\"]\nformat = \"json\"\n\
                 [feeds.transactions]\ntopic = \"x\"\n",
    },
    Probe {
        headings: &["Feeds", "Feeds of PostgreSQL"],
        file: "inputs/orders.toml",
        before: "[[feeds]]\nname = \"f\"\nkind = \"postgres\"\nurl = \"postgres://u@h/d\"\ntables = [\"a.b\"]\n",
    },
    Probe {
        headings: &["Feeds"],
        file: "inputs/orders.toml",
        before: "[[feeds]]\nname = \"f\"\nkind = \"http\"\nformat = \"json\"\n",
    },
    Probe {
        headings: &["Feeds", "Feeds of generators"],
        file: "inputs/orders.toml",
        before: "[[feeds]]\nname = \"f\"\nkind = \"generate\"\ngenerator = \"devices.telemetry\"\n",
    },
    Probe {
        headings: &["Tables"],
        file: "silver/orders.toml",
        before: "",
    },
    Probe {
        headings: &["expect"],
        file: "silver/orders.toml",
        before: "[expect.positive]\ncheck = \"id > 0\"\n",
    },
    Probe {
        headings: &["kafka"],
        file: "silver/orders.toml",
        before: "key = [\"id\"]\n[kafka]\nbrokers = \"one:9092\"\ntopic = \"t\"\n",
    },
];

impl Probe {
    /// Tries a dataflow with this setting at the place: returns the dataflow, and the messages.
    fn tried(&self, setting: &str) -> (Option<Dataflow>, String) {
        let text = format!("{}{setting}\n", self.before);
        let of_input = |text: &str| {
            let columns = if text.contains("[columns.") { "" } else { COLUMNS };
            match text.contains("[[feeds]]") {
                true => format!("{columns}{text}"),
                false => format!("{text}{columns}{FEED}"),
            }
        };
        let folder = Folder::new("shop", &[("silver/orders.sql", "SELECT * FROM orders\n")]);
        folder.write("inputs/orders.toml", &of_input(""));
        match self.file {
            "inputs/orders.toml" => folder.write(self.file, &of_input(&text)),
            file => folder.write(file, &text),
        }
        if text.contains("\"http\"") {
            folder.write("dataflow.toml", "name = \"shop\"\n[http]\nlisten = \"127.0.0.1:1\"\n");
        }
        let survey = survey(folder.path(), &|_| None);
        let dataflow = survey.dataflow.filter(|_| survey.found.0.is_empty());
        let place = folder.path().display().to_string();
        let dataflow = dataflow.map(|mut dataflow| {
            dataflow.folder = "shop".into();
            dataflow
        });
        (dataflow, survey.found.to_string().replace(&place, "shop"))
    }

    /// The settings that the code knows at this place.
    fn known(&self) -> Vec<String> {
        let (_, said) = self.tried(&format!("{UNKNOWN} = 1"));
        let mut lines = said.lines().skip_while(|line| !line.contains(UNKNOWN));
        let help = lines.find_map(|line| line.split_once("known here: "));
        let (_, known) = help.unwrap_or_else(|| panic!("{:?}: no settings are told:\n{said}", self.headings));
        known.split(", ").map(str::to_string).collect()
    }
}

/// A row in a table of settings.
struct Row {
    name: String,
    default: String,
    meaning: String,
}

impl Row {
    fn read(line: &str) -> Option<Row> {
        let line = line.strip_prefix("| `")?;
        let (name, rest) = line.split_once("` | ")?;
        let (default, meaning) = match rest.strip_prefix("| ") {
            Some(meaning) => ("", meaning),
            None => rest.split_once(" | ")?,
        };
        Some(Row {
            name: name.to_string(),
            default: default.to_string(),
            meaning: meaning.strip_suffix(" |")?.trim().to_string(),
        })
    }
}

/// The rows of a page, by heading.
fn tables(text: &str) -> BTreeMap<String, Vec<Row>> {
    let mut tables: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    let mut heading = String::new();
    for line in text.lines() {
        if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim().trim_matches('`').to_string();
        }
        tables.entry(heading.clone()).or_default().extend(Row::read(line));
    }
    tables.retain(|_, rows| !rows.is_empty());
    tables
}

#[test]
fn the_page_of_settings_has_those_that_the_code_asks_for() {
    let text = Page::read(PAGE).text;
    if std::env::var_os("ALLUVIUM_GOLDEN").is_some() {
        std::fs::write(root().join(PAGE), renewed(&text)).expect("the page is written");
        return;
    }
    let tables = tables(&text);
    for (heading, rows) in &tables {
        let probed = PROBES.iter().any(|probe| probe.headings.contains(&heading.as_str()));
        assert!(probed, "{PAGE}: nothing asks the code about {heading}");
        for row in rows {
            assert!(
                !row.meaning.is_empty(),
                "{PAGE}, {heading}: {} has no meaning",
                row.name
            );
        }
    }
    for probe in PROBES {
        let listed = probe.headings.iter().flat_map(|heading| &tables[*heading]);
        let mut listed: Vec<&str> = listed.map(|row| row.name.as_str()).collect();
        listed.sort_unstable();
        let known = probe.known();
        let place = probe.headings;
        assert_eq!(
            listed, known,
            "left: {place:?} of {PAGE}; right: what the code knows there"
        );
    }
}

/// The page with a row for each setting that the code knows: existing rows stay unchanged in their order, and a new
/// row is added under the last heading of its place.
fn renewed(text: &str) -> String {
    let tables = tables(text);
    let listed = |heading: &str, name: &String| tables[heading].iter().any(|row| row.name == *name);
    let places: Vec<(&Probe, Vec<String>)> = PROBES.iter().map(|probe| (probe, probe.known())).collect();
    let mut page = String::new();
    let mut heading = "";
    for line in text.lines() {
        if let Some(title) = line.strip_prefix('#') {
            heading = title.trim_start_matches('#').trim().trim_matches('`');
        }
        let here = places.iter().filter(|(probe, _)| probe.headings.contains(&heading));
        let is_known = |row: Row| here.clone().any(|(_, known)| known.contains(&row.name));
        if Row::read(line).is_none_or(is_known) {
            page += line;
            page += "\n";
        }
        if !line.starts_with("|---") {
            continue;
        }
        let mut new: Vec<&String> = Vec::new();
        for (probe, known) in here.filter(|(probe, _)| probe.headings.last() == Some(&heading)) {
            let of_none = |name: &&String| !probe.headings.iter().any(|heading| listed(heading, name));
            new.extend(known.iter().filter(of_none));
        }
        new.dedup();
        for name in new {
            page += &format!("| `{name}` | | |\n");
        }
    }
    page
}

#[test]
fn a_default_on_the_page_of_settings_is_what_the_code_takes() {
    let tables = tables(&Page::read(PAGE).text);
    let mut tried = 0;
    for probe in PROBES {
        let without = format!(
            "{:?}",
            probe.tried("").0.unwrap_or_else(|| panic!("{}", probe.tried("").1))
        );
        for row in probe.headings.iter().flat_map(|heading| &tables[*heading]) {
            let value = row.default.strip_prefix('`').and_then(|value| value.strip_suffix('`'));
            let Some(value) = value else {
                assert!(
                    matches!(row.default.as_str(), "" | "required"),
                    "{:?}: {} has the default {}",
                    probe.headings,
                    row.name,
                    row.default
                );
                continue;
            };
            tried += 1;
            let (with, said) = probe.tried(&format!("{} = {value}", row.name));
            let with = with.unwrap_or_else(|| panic!("{:?}: {} = {value}: {said}", probe.headings, row.name));
            assert_eq!(
                erased(&format!("{with:?}")),
                erased(&without),
                "{:?}: {} = {value} is not the default",
                probe.headings,
                row.name
            );
        }
    }
    assert!(tried > 40, "the page has defaults");
}

/// Removes the names of temporary folders.
fn erased(text: &str) -> String {
    let temporary = std::env::temp_dir().join(".tmp").display().to_string();
    let mut parts = text.split(&temporary);
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |text, part| {
        let name = part.find(|c: char| !c.is_alphanumeric()).unwrap_or(part.len());
        text + "shop" + &part[name..]
    })
}
