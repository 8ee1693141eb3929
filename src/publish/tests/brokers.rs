//! Brokers in memory: committed records are visible at once, others never. Any call can be made to fail, before or
//! after it takes effect.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use rdkafka::error::RDKafkaErrorCode;

use crate::publish::channel::Brokers;
use crate::publish::encode::EncodedRecord;
use crate::publish::error::ProduceError;
use crate::publish::refusal::RefusedRecord;
use crate::repr::Epoch;

/// A committed transaction: its epoch, the topics that have it, and records as `topic key value`.
pub type Transaction = (Epoch, Vec<String>, Vec<String>);

/// A cluster that a test shares with its channels.
#[derive(Clone, Default)]
pub struct Cluster(Arc<Mutex<BrokerState>>);

#[derive(Default)]
pub struct BrokerState {
    pub transactions: Vec<Transaction>,
    /// The epochs that the group stores.
    pub epochs: BTreeMap<String, Epoch>,
    /// How often a producer was opened.
    pub opened: usize,
    /// Records with more bytes are refused.
    pub largest: Option<usize>,
    /// All records, with their headers.
    pub records: Vec<EncodedRecord>,
    open: Option<Vec<(String, EncodedRecord)>>,
    calls: usize,
    /// The calls that fail.
    failing: Vec<(usize, When)>,
    down: bool,
}

/// Whether a failing call takes effect first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    Before,
    Behind,
}

impl Cluster {
    pub fn state(&self) -> MutexGuard<'_, BrokerState> {
        self.0.lock().unwrap()
    }

    /// Makes one of the next calls fail, counted from 0.
    pub fn fail(&self, call: usize, when: When) {
        let mut state = self.state();
        (state.calls, state.failing) = (0, vec![(call, when)]);
    }

    /// The number of calls since [`Cluster::fail`].
    pub fn calls(&self) -> usize {
        self.state().calls
    }

    /// While down, every call fails.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// The committed records of a topic, in order.
    pub fn records(&self, topic: &str) -> Vec<String> {
        let state = self.state();
        let all = state.transactions.iter().flat_map(|(_, _, records)| records);
        let of_topic = all.filter_map(|record| record.strip_prefix(&format!("{topic} ")));
        of_topic.map(str::to_string).collect()
    }

    fn call<T>(&self, act: impl FnOnce(&mut BrokerState) -> Result<T, ProduceError>) -> Result<T, ProduceError> {
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

    fn put(&mut self, topic: &str, record: &EncodedRecord) -> Result<(), ProduceError> {
        self.call(|state| {
            if state.largest.is_some_and(|largest| record.size() > largest) {
                return Err(ProduceError::Refused {
                    brokers: "nowhere".into(),
                    refusal: RefusedRecord {
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
            let shown = records
                .iter()
                .map(|(topic, record)| format!("{topic} {} {}", text(&record.key), text(&record.value)));
            let shown = shown.collect();
            state.transactions.push((epoch, topics.to_vec(), shown));
            state.records.extend(records.into_iter().map(|(_, record)| record));
            Ok(())
        })
    }
}
