//! The decision table of [`super::sources`], case by case: what is fed of which lake.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use super::blueprint::Blueprint;
use super::sources::{First, InputSource, Sources, Stored, TableSource};
use crate::definition::{self, Dataflow};
use crate::plan::{self, Graph};
use crate::repr::Epoch;

const EPOCH: Epoch = 700;

/// A definition and its plan.
struct Planned {
    dataflow: Arc<Dataflow>,
    graph: Graph,
    first: First,
    blueprint: Blueprint,
}

impl Planned {
    /// Keyed orders, and clicks that only come. `edit`s: (file, text), over the usual ones; empty: without it.
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
        let first = First::of(&dataflow, &graph);
        let blueprint = Blueprint::of(&dataflow, &graph, &first);
        Planned {
            dataflow,
            graph,
            first,
            blueprint,
        }
    }

    /// Where this one's past comes from, over a lake in which all is as its blueprint says.
    fn over(&self, then: &Blueprint) -> Sources {
        self.decide(&Stored {
            blueprint: Some(then),
            unfit: BTreeSet::new(),
            unfit_inputs: BTreeSet::new(),
            unfit_sums: false,
        })
    }

    fn decide(&self, stored: &Stored<'_>) -> Sources {
        let (dataflow, graph) = (&self.dataflow, &self.graph);
        Sources::of(dataflow, graph, &self.first, &self.blueprint, (EPOCH, stored))
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

    /// Of orders and clicks; of their Silver tables and the Gold one; and whether sums are loaded.
    fn said(&self, sources: &Sources) -> ([InputSource; 2], [TableSource; 3], bool) {
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
    let stored = Stored {
        blueprint: None,
        unfit: BTreeSet::new(),
        unfit_inputs: BTreeSet::new(),
        unfit_sums: false,
    };
    let sources = shop.decide(&stored);
    let expected = ([InputSource::Bronze; 2], [TableSource::Graph; 3], false);
    assert_eq!(shop.said(&sources), expected);
    assert!(sources.since.values().all(|since| *since == EPOCH + 1), "{sources:?}");
    // One that keeps no Bronze has only its feeds.
    let orders = "key = [\"id\"]\nbronze = false\n[columns]\nid = \"BIGINT\"\ncustomer = \"VARCHAR\"\namount = \"BIGINT\"\n\
                  [[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live\"\nformat = \"json\"\n";
    let shop = Planned::new(&[("inputs/orders.toml", orders)]);
    let (inputs, ..) = shop.said(&shop.over(&Blueprint::default()));
    assert_eq!(inputs, [InputSource::Feeds, InputSource::Bronze]);
}

#[test]
fn a_lost_part_is_made_again_and_nothing_else() {
    let shop = Planned::new(&[]);
    let whole = || Stored {
        blueprint: Some(&shop.blueprint),
        unfit: BTreeSet::new(),
        unfit_inputs: BTreeSet::new(),
        unfit_sums: false,
    };
    // The log of sums: the rows they sum up stand in a table.
    let sources = shop.decide(&Stored {
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
    // That table: of Bronze, but its sums need no rows.
    let unfit = BTreeSet::from([shop.table("silver.clicks")]);
    let sources = shop.decide(&Stored { unfit, ..whole() });
    let expected = ([STATE, InputSource::Bronze], [TableSource::Graph; 3], true);
    assert_eq!(shop.said(&sources), expected);
    // The rows of an input.
    let unfit_inputs = BTreeSet::from([shop.input("orders")]);
    let sources = shop.decide(&Stored {
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
    // Another aggregate over the same rows is new; the first goes on as it was.
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
    // Its aggregate holds more than sums.
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
    // A Silver table over events has only Bronze behind it; what is summed up of it is other sums.
    let changed = Planned::new(&[(
        "silver/clicks.sql",
        "SELECT id, customer, amount FROM clicks WHERE amount > 1",
    )]);
    let expected = ([STATE, InputSource::Bronze], [TableSource::Graph; 3], false);
    assert_eq!(changed.said(&changed.over(&shop.blueprint)), expected);
    // Nobody asks for the past of clicks any more.
    let gone = Planned::new(&[("gold/clicked.sql", ""), ("silver/clicks.sql", "")]);
    assert_eq!(
        gone.over(&shop.blueprint).inputs[gone.input("clicks")],
        InputSource::None
    );
}
