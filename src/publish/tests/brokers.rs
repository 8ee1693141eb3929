//! Brokers in memory: what is committed is there at once, what is not never is. Any call may fail, before it has its effect
//! or behind it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use rdkafka::error::RDKafkaErrorCode;

use crate::publish::channel::Brokers;
use crate::publish::encode::Keyed;
use crate::publish::error::ProduceError;
use crate::publish::refusal::Refusal;
use crate::repr::Epoch;

/// A committed transaction: its epoch, the topics that have it, and records as `topic key value`.
pub type Transaction = (Epoch, Vec<String>, Vec<String>);

/// Shared by a test and the channels it makes.
#[derive(Clone, Default)]
pub struct Cluster(Arc<Mutex<State>>);

#[derive(Default)]
pub struct State {
    pub transactions: Vec<Transaction>,
    /// As the group has them.
    pub epochs: BTreeMap<String, Epoch>,
    /// How often a producer was opened.
    pub opened: usize,
    /// Records of more bytes are refused.
    pub largest: Option<usize>,
    /// All records with their headers.
    pub records: Vec<Keyed>,
    open: Option<Vec<(String, Keyed)>>,
    calls: usize,
    /// Which calls fail.
    failing: Vec<(usize, When)>,
    down: bool,
}

/// Whether a call that fails has its effect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    Before,
    Behind,
}

impl Cluster {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The calls to come are counted from 0; this one fails.
    pub fn fail(&self, call: usize, when: When) {
        let mut state = self.state();
        (state.calls, state.failing) = (0, vec![(call, when)]);
    }

    /// How many calls there were since.
    pub fn calls(&self) -> usize {
        self.state().calls
    }

    /// Nothing succeeds, until they are up.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// What is committed of a topic, in order.
    pub fn records(&self, topic: &str) -> Vec<String> {
        let state = self.state();
        let all = state.transactions.iter().flat_map(|(_, _, records)| records);
        let of_topic = all.filter_map(|record| record.strip_prefix(&format!("{topic} ")));
        of_topic.map(str::to_string).collect()
    }

    fn call<T>(&self, act: impl FnOnce(&mut State) -> Result<T, ProduceError>) -> Result<T, ProduceError> {
        let mut state = self.state();
        let call = state.calls;
        state.calls += 1;
        let failed = || ProduceError::Brokers {
            brokers: "nowhere".into(),
            doing: "do as a test wants",
            reason: "it fails".into(),
            passes: true,
        };
        let of_call = state.failing.iter().find(|(failing, _)| *failing == call);
        let when = match (of_call, state.down) {
            (_, true) => Some(When::Before),
            (of_call, false) => of_call.map(|(_, when)| *when),
        };
        if when == Some(When::Before) {
            return Err(failed());
        }
        let done = act(&mut state);
        if when == Some(When::Behind) {
            return Err(failed());
        }
        done
    }
}

fn text(bytes: &Option<Vec<u8>>) -> String {
    bytes
        .as_ref()
        .map_or("-".into(), |bytes| String::from_utf8_lossy(bytes).into_owned())
}

impl Brokers for Cluster {
    fn open(&mut self, topics: &[String]) -> Result<Vec<Epoch>, ProduceError> {
        self.call(|state| {
            state.open = None;
            state.opened += 1;
            let epoch = |topic: &String| state.epochs.get(topic).copied().unwrap_or(0);
            Ok(topics.iter().map(epoch).collect())
        })
    }

    fn begin(&mut self) -> Result<(), ProduceError> {
        self.call(|state| {
            assert!(state.open.is_none(), "one transaction at a time");
            state.open = Some(Vec::new());
            Ok(())
        })
    }

    fn put(&mut self, topic: &str, record: &Keyed) -> Result<(), ProduceError> {
        self.call(|state| {
            if state.largest.is_some_and(|largest| record.size() > largest) {
                return Err(ProduceError::Refused {
                    brokers: "nowhere".into(),
                    refusal: Refusal {
                        topic: topic.into(),
                        key: "a key".into(),
                        size: record.size(),
                        code: RDKafkaErrorCode::MessageSizeTooLarge,
                        reason: "too large".into(),
                    },
                });
            }
            let open = state.open.as_mut().expect("a transaction was begun");
            open.push((topic.to_string(), record.clone()));
            Ok(())
        })
    }

    fn commit(&mut self, epoch: Epoch, topics: &[String]) -> Result<(), ProduceError> {
        self.call(|state| {
            let records = state.open.take().expect("a transaction was begun");
            for topic in topics {
                state.epochs.insert(topic.clone(), epoch);
            }
            let told = records
                .iter()
                .map(|(topic, record)| format!("{topic} {} {}", text(&record.key), text(&record.value)));
            let told = told.collect();
            state.transactions.push((epoch, topics.to_vec(), told));
            state.records.extend(records.into_iter().map(|(_, record)| record));
            Ok(())
        })
    }
}
