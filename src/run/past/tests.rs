//! Checks the decisions of [`super::sources`], case by case.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use super::blueprint::{Blueprint, PartStanding};
use super::sources::{InputSource, PastSources, StatefulParts, StoredState, TableSource};
use crate::definition::{self, Dataflow};
use crate::plan::{self, Graph};
use crate::repr::Epoch;

const EPOCH: Epoch = 700;

/// A definition and its plan.
struct Planned {
    dataflow: Arc<Dataflow>,
    graph: Graph,
    first: StatefulParts,
    blueprint: Blueprint,
}

impl Planned {
    /// A shop with keyed orders and append-only clicks. Each of `edits` is (file, text) and replaces the file; an
    /// empty text removes it.
    fn new(edits: &[(&str, &str)]) -> Planned {
        let folder = tempfile::tempdir().unwrap();
        let columns =
            "[columns]\nid = { type = \"BIGINT\", nullable = false }\ncustomer = \"VARCHAR\"\namount = \"BIGINT\"\n";
        let feed = "[[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live\"\nformat = \"json\"\n";
        let usual = [
            ("dataflow.toml", "name = \"shop\"\n".to_string()),
            ("inputs/orders.toml", format!("key = [\"id\"]\n{columns}{feed}")),
            ("inputs/clicks.toml", format!("{columns}{feed}")),
            ("silver/orders.sql", "SELECT id, customer, amount FROM orders".into()),
            (
                "silver/clicks.sql",
                "SELECT id, customer, amount FROM clicks WHERE amount > 0".into(),
            ),
            (
                "gold/clicked.sql",
                "SELECT customer, COUNT(*) AS n, SUM(amount) AS amount FROM silver.clicks GROUP BY customer".into(),
            ),
        ];
        let edits = edits.iter().map(|(path, text)| (*path, text.to_string()));
        for (path, text) in usual.into_iter().chain(edits) {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match text.is_empty() {
                true => fs::remove_file(path).unwrap(),
                false => fs::write(path, text).unwrap(),
            }
        }
        let dataflow = Arc::new(definition::load(folder.path(), &|_| None).unwrap_or_else(|e| panic!("{e}")));
        let graph = plan::compile(&dataflow).unwrap_or_else(|e| panic!("{e:?}"));
        let first = StatefulParts::from_graph(&dataflow, &graph);
        let blueprint = Blueprint::from_dataflow(&dataflow, &graph, &first);
        Planned {
            dataflow,
            graph,
            first,
            blueprint,
        }
    }

    /// How this definition is restored over an intact lake with the blueprint `then`.
    fn over(&self, then: &Blueprint) -> PastSources {
        self.decide(&StoredState {
            blueprint: Some(then),
            unfit: BTreeSet::new(),
            unfit_inputs: BTreeSet::new(),
            unfit_sums: false,
        })
    }

    fn decide(&self, stored: &StoredState<'_>) -> PastSources {
        let (dataflow, graph) = (&self.dataflow, &self.graph);
        PastSources::decide(dataflow, graph, &self.first, &self.blueprint, (EPOCH, stored))
    }

    fn input(&self, name: &str) -> usize {
        let mut inputs = self.dataflow.inputs.iter();
        inputs
            .position(|input| input.name == name)
            .expect("an input of the shop")
    }

    fn table(&self, name: &str) -> usize {
        let mut tables = self.graph.tables.iter();
        tables
            .position(|table| table.name == name)
            .expect("a table of the shop")
    }

    /// The sources of orders and clicks; of their Silver tables and the Gold one; and whether sums are loaded.
    fn said(&self, sources: &PastSources) -> ([InputSource; 2], [TableSource; 3], bool) {
        let inputs = ["orders", "clicks"].map(|input| sources.inputs[self.input(input)]);
        let tables = ["silver.orders", "silver.clicks", "gold.clicked"].map(|table| sources.tables[self.table(table)]);
        (inputs, tables, !sources.sums.is_empty())
    }
}

const STATE: InputSource = InputSource::State { reformed: false };
const STANDS: TableSource = TableSource::Itself { fed: false };
const FED: TableSource = TableSource::Itself { fed: true };

#[test]
fn what_means_what_it_meant_is_loaded() {
    let shop = Planned::new(&[]);
    let sources = shop.over(&shop.blueprint);
    let expected = (
        [STATE, InputSource::None],
        [TableSource::Graph, STANDS, TableSource::Graph],
        true,
    );
    assert_eq!(shop.said(&sources), expected);
    assert!(sources.since.values().all(|since| *since == 0), "{sources:?}");
}

#[test]
fn of_a_lake_nobody_knows_all_is_made_again() {
    let shop = Planned::new(&[]);
    let stored = StoredState {
        blueprint: None,
        unfit: BTreeSet::new(),
        unfit_inputs: BTreeSet::new(),
        unfit_sums: false,
    };
    let sources = shop.decide(&stored);
    let expected = ([InputSource::Bronze; 2], [TableSource::Graph; 3], false);
    assert_eq!(shop.said(&sources), expected);
    assert!(sources.since.values().all(|since| *since == EPOCH + 1), "{sources:?}");
    // An input without Bronze can only read its feeds again.
    let orders = "key = [\"id\"]\nbronze = false\n[columns]\nid = \"BIGINT\"\ncustomer = \"VARCHAR\"\namount = \"BIGINT\"\n\
                  [[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live\"\nformat = \"json\"\n";
    let shop = Planned::new(&[("inputs/orders.toml", orders)]);
    let (inputs, ..) = shop.said(&shop.over(&Blueprint::default()));
    assert_eq!(inputs, [InputSource::Feeds, InputSource::Bronze]);
}

#[test]
fn a_lost_part_is_made_again_and_nothing_else() {
    let shop = Planned::new(&[]);
    let whole = || StoredState {
        blueprint: Some(&shop.blueprint),
        unfit: BTreeSet::new(),
        unfit_inputs: BTreeSet::new(),
        unfit_sums: false,
    };
    // The log of sums is lost: the rows that were summed up still stand in a table.
    let sources = shop.decide(&StoredState {
        unfit_sums: true,
        ..whole()
    });
    let expected = (
        [STATE, InputSource::None],
        [TableSource::Graph, FED, TableSource::Graph],
        false,
    );
    assert_eq!(shop.said(&sources), expected);
    assert!(sources.since.values().all(|since| *since == EPOCH + 1), "{sources:?}");
    // That table is lost: it is computed from Bronze, but its sums need no rows.
    let unfit = BTreeSet::from([shop.table("silver.clicks")]);
    let sources = shop.decide(&StoredState { unfit, ..whole() });
    let expected = ([STATE, InputSource::Bronze], [TableSource::Graph; 3], true);
    assert_eq!(shop.said(&sources), expected);
    // The state table of an input is lost.
    let unfit_inputs = BTreeSet::from([shop.input("orders")]);
    let sources = shop.decide(&StoredState {
        unfit_inputs,
        ..whole()
    });
    let expected = (
        [InputSource::Bronze, InputSource::None],
        [TableSource::Graph, STANDS, TableSource::Graph],
        true,
    );
    assert_eq!(shop.said(&sources), expected);
}

#[test]
fn sums_that_are_made_again_keep_their_new_number() {
    let shop = Planned::new(&[]);
    let mut then = shop.blueprint.clone();
    let node = shop.first.sums[0];
    then.keep_sums_since(shop.first.meanings[node], 55);
    let sources = shop.over(&then);
    assert_eq!((sources.since[&node], sources.sums.contains(&node)), (55, true));
    // Another aggregate over the same rows is new; the first one is still loaded.
    let more = Planned::new(&[(
        "gold/days.sql",
        "SELECT amount, COUNT(*) AS n FROM silver.clicks GROUP BY amount",
    )]);
    let sources = more.over(&then);
    let since: BTreeSet<Epoch> = sources.since.values().copied().collect();
    assert_eq!((since, sources.sums.len()), (BTreeSet::from([55, EPOCH + 1]), 1));
    assert_eq!(more.said(&sources).1[1], FED, "its rows are read for the new one");
}

#[test]
fn a_changed_table_is_made_of_the_nearest_thing_that_stands() {
    let shop = Planned::new(&[]);
    // The changed aggregate holds more than sums.
    let changed = Planned::new(&[(
        "gold/clicked.sql",
        "SELECT customer, MAX(amount) AS most FROM silver.clicks GROUP BY customer",
    )]);
    let expected = (
        [STATE, InputSource::None],
        [TableSource::Graph, FED, TableSource::Graph],
        false,
    );
    assert_eq!(changed.said(&changed.over(&shop.blueprint)), expected);
    // A Silver table over events can only be computed from Bronze, and the sums over it are other sums.
    let changed = Planned::new(&[(
        "silver/clicks.sql",
        "SELECT id, customer, amount FROM clicks WHERE amount > 1",
    )]);
    let expected = ([STATE, InputSource::Bronze], [TableSource::Graph; 3], false);
    assert_eq!(changed.said(&changed.over(&shop.blueprint)), expected);
    // Nothing reads clicks any more.
    let dropped = Planned::new(&[("gold/clicked.sql", ""), ("silver/clicks.sql", "")]);
    assert_eq!(
        dropped.over(&shop.blueprint).inputs[dropped.input("clicks")],
        InputSource::None
    );
}

/// Another version may give another meaning to the same text.
#[test]
fn what_a_version_wrote_that_writes_meanings_otherwise_is_not_read() {
    let planned = Planned::new(&[]);
    for field in ["encoding", "format"] {
        let mut stored = serde_json::to_value(&planned.blueprint).unwrap();
        stored[field] = 0.into();
        let then: Blueprint = serde_json::from_value(stored).unwrap();
        assert!(!then.is_readable() && planned.blueprint.is_readable());
        for input in ["orders", "clicks"] {
            assert_eq!(
                then.input(&planned.blueprint, input).standing,
                PartStanding::New,
                "{field}"
            );
        }
        assert_eq!(
            then.table(&planned.blueprint, "gold.clicked"),
            PartStanding::New,
            "{field}"
        );
        let sums = planned.first.sums.iter().map(|node| planned.first.meanings[*node]);
        assert!(
            sums.into_iter().all(|meaning| then.sums_since(meaning).is_none()),
            "{field}"
        );
    }
}
