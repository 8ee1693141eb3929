//! Records that brokers do not take, however often they are sent.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

/// Characters of a key that are told.
const TOLD: usize = 120;

/// A record that was refused, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Its topic.
    pub topic: String,
    /// Its key, as text.
    pub key: String,
    /// Bytes of key, value and headers.
    pub size: usize,
    pub(super) code: RDKafkaErrorCode,
    /// What brokers say.
    pub reason: String,
}

impl Refusal {
    /// Of a record that was not delivered; none where that is no fault of the record.
    pub(super) fn of(error: &KafkaError, message: &BorrowedMessage<'_>) -> Option<Refusal> {
        let code = error.rdkafka_error_code()?;
        let faults = [RDKafkaErrorCode::MessageSizeTooLarge, RDKafkaErrorCode::InvalidRecord];
        if !faults.contains(&code) {
            return None;
        }
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let headers: usize = headers
            .map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len))
            .sum();
        Some(Refusal {
            topic: message.topic().to_string(),
            key: text_of(message.key()),
            size: message.key_len() + message.payload_len() + headers,
            code,
            reason: code.to_string(),
        })
    }

    /// Whether it is the size; else what it holds.
    pub fn is_too_large(&self) -> bool {
        self.code == RDKafkaErrorCode::MessageSizeTooLarge
    }

    /// Of a batch that is too large the largest record is told: the others are there by chance.
    pub(super) fn or_graver(self, other: Option<Refusal>) -> Refusal {
        match other {
            Some(other) if !other.is_too_large() || other.size >= self.size => other,
            _ => self,
        }
    }

    /// What to do.
    pub fn remedy(&self) -> &'static str {
        match self.is_too_large() {
            true => "raise the topic's max.message.bytes, or make the row smaller",
            false => "a topic that is compacted takes no records without keys: set its cleanup.policy to delete",
        }
    }
}

/// A key as text, cut where it is long.
pub(super) fn text_of(key: Option<&[u8]>) -> String {
    let Some(key) = key else {
        return "none".to_string();
    };
    let text = String::from_utf8_lossy(key);
    match text.char_indices().nth(TOLD) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
