//! Makes random changes of the three inputs: new rows and versions, deletions, duplicates, late versions on either of
//! two feeds, and records that do not decode.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::support::Folder;

/// Makes random changes, and remembers them so that updates and deletions are of existing rows.
pub struct Feeder {
    rng: StdRng,
    next_id: i64,
    ver: i64,
    /// Keys of `facts` that exist.
    facts: BTreeSet<i64>,
}

impl Feeder {
    /// Seeds the changes.
    pub fn new(seed: u64) -> Self {
        Feeder {
            rng: StdRng::seed_from_u64(seed),
            next_id: 0,
            ver: 0,
            facts: BTreeSet::new(),
        }
    }

    fn small(&mut self, nulls: f64, below: i64) -> Option<i64> {
        (!self.rng.random_bool(nulls)).then(|| self.rng.random_range(0..below))
    }

    fn event(&mut self) -> String {
        self.next_id += 1;
        if self.rng.random_bool(0.02) {
            return [
                "{\"value\": {\"id\": \"x",
                "{\"value\": {\"id\": null}}",
                "{\"value\": {\"id\": 99999999999999999999}}",
                "[1]",
            ][self.rng.random_range(0..4)]
            .to_string();
        }
        let id = if self.rng.random_bool(0.1) {
            self.rng.random_range(1..=self.next_id)
        } else {
            self.next_id
        };
        let x = match self.rng.random_range(0..12) {
            0 => "null".to_string(),
            1 => "12345.625".to_string(),
            // With multiples of an eighth, every order of addition gives the same bits.
            _ => format!("{}", self.rng.random_range(-1000..1000) as f64 / 8.0),
        };
        let json = |v: Option<i64>| v.map_or("null".to_string(), |v| v.to_string());
        let (k, v) = (json(self.small(0.1, 6)), json(self.small(0.15, 30)));
        let d = json(self.small(0.1, 100_000));
        let s = ["null", "\"a\"", "\"ab\"", "\"b\"", "\"\"", "\"\u{e4}\u{2713}\""][self.rng.random_range(0..6)];
        let second = self.rng.random_range(0..600);
        let ts = if self.rng.random_bool(0.05) {
            "null".to_string()
        } else {
            format!("\"2024-05-01T00:{:02}:{:02}.250\"", second / 60, second % 60)
        };
        let flag = ["true", "false", "null"][self.rng.random_range(0..3)];
        let tags = ["null", "[]", "[\"p\"]", "[\"p\",\"q\",null]"][self.rng.random_range(0..4)];
        format!(
            "{{\"value\": {{\"id\": {id}, \"k\": {k}, \"v\": {v}, \"x\": {x}, \"d\": {d}, \"s\": {s}, \"ts\": {ts}, \"flag\": {flag}, \"tags\": {tags}}}}}"
        )
    }

    /// A change of `facts` for one of its two feeds; it may be an older version.
    fn fact(&mut self) -> String {
        self.ver += 1;
        let ver = if self.rng.random_bool(0.2) {
            self.rng.random_range(0..=self.ver)
        } else {
            self.ver
        };
        let json = |v: Option<i64>| v.map_or("null".to_string(), |v| v.to_string());
        let id = self.rng.random_range(0..40i64);
        if self.facts.contains(&id) && self.rng.random_bool(0.25) {
            self.facts.remove(&id);
            let before = format!("{{\"id\": {id}, \"k\": null, \"v\": null, \"s\": null, \"ver\": {ver}}}");
            return format!(
                "{{\"key\": {{\"id\": {id}}}, \"value\": {{\"op\": \"d\", \"before\": {before}, \"after\": null, \"ts_ms\": 1}}}}"
            );
        }
        let (k, v) = (self.small(0.1, 8), self.small(0.1, 40));
        self.facts.insert(id);
        let op = if self.rng.random_bool(0.5) { "c" } else { "u" };
        let s = ["\"a\"", "\"b\"", "null"][self.rng.random_range(0..3)];
        let after = format!(
            "{{\"id\": {id}, \"k\": {}, \"v\": {}, \"s\": {s}, \"ver\": {ver}}}",
            json(k),
            json(v)
        );
        format!(
            "{{\"key\": {{\"id\": {id}}}, \"value\": {{\"op\": \"{op}\", \"before\": null, \"after\": {after}, \"ts_ms\": 1}}}}"
        )
    }

    fn dim(&mut self) -> String {
        let k = self.rng.random_range(0..8);
        if self.rng.random_bool(0.2) {
            return format!(
                "{{\"key\": {{\"k\": {k}}}, \"value\": {{\"op\": \"d\", \"before\": {{\"k\": {k}}}, \"after\": null, \"ts_ms\": 1}}}}"
            );
        }
        let weight = self.rng.random_range(0..30);
        format!(
            "{{\"value\": {{\"op\": \"u\", \"before\": null, \"after\": {{\"k\": {k}, \"name\": \"n{weight}\", \"weight\": {weight}}}, \"ts_ms\": 1}}}}"
        )
    }

    /// Appends this many changes to the logs of the three inputs.
    pub fn feed(&mut self, folder: &Folder, changes: usize) {
        let mut files: BTreeMap<&str, String> = BTreeMap::new();
        for _ in 0..changes {
            let (path, line) = match self.rng.random_range(0..10) {
                0..5 => (
                    ["live/events/0.ndjson", "live/events/1.ndjson"][self.rng.random_range(0..2)],
                    self.event(),
                ),
                5..7 => ("live/facts_one/0.ndjson", self.fact()),
                7..9 => ("live/facts_two/0.ndjson", self.fact()),
                _ => ("live/dims/0.ndjson", self.dim()),
            };
            let file = files.entry(path).or_default();
            file.push_str(&line);
            file.push('\n');
        }
        for (path, lines) in files {
            folder.append(path, &lines);
        }
    }
}
