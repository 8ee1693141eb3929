//! Records that brokers refuse, however often they are sent.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

/// The most characters of a key that are shown.
const TOLD: usize = 120;

/// A refused record, and the reason.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusedRecord {
    /// The record's topic.
    pub topic: String,
    /// The record's key, as text.
    pub key: String,
    /// Bytes of key, value and headers.
    pub size: usize,
    pub(super) code: RDKafkaErrorCode,
    /// The brokers' reason.
    pub reason: String,
}

impl RefusedRecord {
    /// The refusal of an undelivered record; none if the error is not due to the record.
    pub(super) fn from_error(error: &KafkaError, message: &BorrowedMessage<'_>) -> Option<RefusedRecord> {
        let code = error.rdkafka_error_code()?;
        let faults = [RDKafkaErrorCode::MessageSizeTooLarge, RDKafkaErrorCode::InvalidRecord];
        if !faults.contains(&code) {
            return None;
        }
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let headers: usize = headers
            .map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len))
            .sum();
        Some(RefusedRecord {
            topic: message.topic().to_string(),
            key: text_of(message.key()),
            size: message.key_len() + message.payload_len() + headers,
            code,
            reason: code.to_string(),
        })
    }

    /// Whether the record's size is the reason; otherwise its content is.
    pub fn is_too_large(&self) -> bool {
        self.code == RDKafkaErrorCode::MessageSizeTooLarge
    }

    /// Chooses between two refused records. If a batch is too large, its largest record is reported: the others are in
    /// it by chance.
    pub(super) fn or_graver(self, other: Option<RefusedRecord>) -> RefusedRecord {
        match other {
            Some(other) if !other.is_too_large() || other.size >= self.size => other,
            _ => self,
        }
    }

    /// The remedy, for the user.
    pub fn remedy(&self) -> &'static str {
        match self.is_too_large() {
            true => "raise the topic's max.message.bytes, or make the row smaller",
            false => "a topic that is compacted takes no records without keys: set its cleanup.policy to delete",
        }
    }
}

/// A key as text, truncated if it is long.
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
