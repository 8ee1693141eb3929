//! The way from readers to their keeper.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded, select_biased};

use crate::source::Delivery;
use crate::source::outlet::{Ended, Hand};

/// Deliveries that may wait for a keeper.
pub const DELIVERIES: usize = 64;

/// What readers tell a keeper.
pub enum Message {
    /// A partition is read.
    Partition(Place),
    /// A reader has found its partitions for the first time.
    Found,
    Delivery(Box<Delivery>),
    /// A partition is read to its end.
    AtEnd(Place),
}

/// A partition, as readers name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub input: usize,
    pub feed: usize,
    pub partition: Arc<str>,
}

/// A reader's way to its keeper.
#[derive(Clone)]
pub struct Line {
    sender: Sender<Message>,
    /// Partitions that bring nothing more for now.
    full: Arc<Mutex<HashSet<Place>>>,
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

    /// A partition will be read.
    pub fn announce(&self, hand: &Hand, partition: &Arc<str>) -> Result<(), Ended> {
        self.send(hand, Message::Partition(Line::place(hand, partition)))
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

    /// Whether a partition should bring nothing more for now.
    pub fn is_full(&self, hand: &Hand, partition: &Arc<str>) -> bool {
        let full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        !full.is_empty() && full.contains(&Line::place(hand, partition))
    }
}

/// A way to a new keeper, and what it keeps once it is started.
pub fn line() -> (Line, KeeperEnd) {
    let (sender, messages) = bounded(DELIVERIES);
    let full: Arc<Mutex<HashSet<Place>>> = Arc::default();
    let end = KeeperEnd {
        messages,
        full: full.clone(),
    };
    (Line { sender, full }, end)
}

/// The keeper's end of a [`Line`].
pub struct KeeperEnd {
    pub messages: Receiver<Message>,
    pub full: Arc<Mutex<HashSet<Place>>>,
}
