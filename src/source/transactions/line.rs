//! The way from readers to their keeper, and what it has to say to them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, select_biased};

use super::gate::Look;
use crate::source::Delivery;
use crate::source::outlet::{Ended, Hand};

/// Deliveries that may wait for a keeper.
pub const DELIVERIES: usize = 16;

/// What readers tell a keeper.
pub enum Message {
    /// A partition is there.
    Partition(Place),
    /// It is read, from here on.
    Opened(Place, Opened),
    /// A reader has found its partitions for the first time.
    Found,
    Delivery(Box<Delivery>),
    /// A partition is read to its end.
    AtEnd(Place),
    /// It is not: records of it cannot be handed over yet.
    Behind(Place),
    /// What was there when a partition was found is handed over.
    Caught(Place),
    /// Where a partition ends, as it was asked.
    Look(Place, Look),
}

/// A partition, as readers name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub input: usize,
    pub feed: usize,
    pub partition: Arc<str>,
}

/// How a partition was found.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// The first record to read.
    pub from: u64,
    /// Behind the last record.
    pub end: u64,
    /// A snapshot knows it.
    pub known: bool,
}

/// A reader's way to its keeper.
#[derive(Clone)]
pub struct Line {
    sender: Sender<Message>,
    said: Arc<Mutex<Said>>,
}

/// What a keeper says to readers.
#[derive(Default)]
pub struct Said {
    /// Partitions that should bring nothing more for now.
    pub full: HashSet<Place>,
    /// Where partitions end now is asked for, since then.
    pub asked: Option<Instant>,
}

impl Line {
    fn place(hand: &Hand, partition: &Arc<str>) -> Place {
        Place {
            input: hand.input,
            feed: hand.feed,
            partition: partition.clone(),
        }
    }

    fn send(&self, hand: &Hand, message: Message) -> Result<(), Ended> {
        select_biased! {
            recv(hand.stop) -> _ => Err(Ended::Stopped),
            // A keeper that is gone has told why.
            send(self.sender, message) -> sent => sent.map_err(|_| Ended::Stopped),
        }
    }

    /// A partition is there, and will be read.
    pub fn announce(&self, hand: &Hand, partition: &Arc<str>) -> Result<(), Ended> {
        self.send(hand, Message::Partition(Line::place(hand, partition)))
    }

    /// A partition is read from now on.
    pub fn open(&self, hand: &Hand, partition: &Arc<str>, opened: Opened) -> Result<(), Ended> {
        self.send(hand, Message::Opened(Line::place(hand, partition), opened))
    }

    /// Every partition there is was announced by this reader.
    pub fn found(&self, hand: &Hand) -> Result<(), Ended> {
        self.send(hand, Message::Found)
    }

    /// Hands a delivery over to the keeper.
    pub fn keep(&self, hand: &Hand, delivery: Delivery) -> Result<(), Ended> {
        self.send(hand, Message::Delivery(Box::new(delivery)))
    }

    /// A partition is read to its end.
    pub fn at_end(&self, hand: &Hand, partition: &Arc<str>) -> Result<(), Ended> {
        self.send(hand, Message::AtEnd(Line::place(hand, partition)))
    }

    /// A partition has records that cannot be handed over yet.
    pub fn behind(&self, hand: &Hand, partition: &Arc<str>) -> Result<(), Ended> {
        self.send(hand, Message::Behind(Line::place(hand, partition)))
    }

    /// What was there when a partition was found is handed over.
    pub fn caught(&self, hand: &Hand, partition: &Arc<str>) -> Result<(), Ended> {
        self.send(hand, Message::Caught(Line::place(hand, partition)))
    }

    /// Where a partition ends, as it was asked.
    pub fn look(&self, hand: &Hand, partition: &Arc<str>, look: Look) -> Result<(), Ended> {
        self.send(hand, Message::Look(Line::place(hand, partition), look))
    }

    /// Whether a partition should bring nothing more for now.
    pub fn is_full(&self, hand: &Hand, partition: &Arc<str>) -> bool {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        !said.full.is_empty() && said.full.contains(&Line::place(hand, partition))
    }

    /// Where partitions end is asked for; the time is for the answer.
    pub fn asked(&self) -> Option<Instant> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).asked
    }
}

/// A way to a new keeper, and what it keeps once it is started.
pub fn line() -> (Line, KeeperEnd) {
    let (sender, messages) = bounded(DELIVERIES);
    let said: Arc<Mutex<Said>> = Arc::default();
    let end = KeeperEnd {
        messages,
        said: said.clone(),
    };
    (Line { sender, said }, end)
}

/// The keeper's end of a [`Line`].
pub struct KeeperEnd {
    pub messages: Receiver<Message>,
    said: Arc<Mutex<Said>>,
}

impl KeeperEnd {
    pub fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
