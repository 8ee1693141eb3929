//! Positions in PostgreSQL's write-ahead log, and how far a feed was read.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::repr::Position;

/// A log sequence number: an offset in bytes in the write-ahead log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Lsn(pub u64);

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> String {
        lsn.to_string()
    }
}

impl TryFrom<String> for Lsn {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Lsn, Self::Error> {
        text.parse().map_err(|()| "it is no place in PostgreSQL's log")
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (high, low) = text.split_once('/').ok_or(())?;
        let part = |text: &str| u32::from_str_radix(text, 16).map_err(|_| ());
        Ok(Lsn(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
    }
}

/// How far a feed was read, from which server, and which tables. It is stored as the tag of the feed's [`Position`],
/// whose number counts the feed's records: LSNs neither distinguish records nor grow from record to record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotPosition {
    /// All transactions that commit before this were read.
    pub lsn: Lsn,
    /// The server's system identifier.
    pub system: String,
    /// The tables whose initial copy was read, by OID and name as of then.
    pub tables: Vec<(u32, String)>,
    /// Tables that were read before and were removed from the feed since.
    pub left: Vec<(u32, String)>,
}

impl SlotPosition {
    /// The tag of a position.
    pub fn tag(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers are JSON")
    }

    /// Parses a position's tag.
    pub fn from_position(position: &Position) -> Option<SlotPosition> {
        serde_json::from_str(position.tag.as_deref()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_reached_reads_back() {
        assert_eq!(Lsn(0x1_6B37_4D48).to_string(), "1/6B374D48");
        assert_eq!("16/B374D848".parse(), Ok(Lsn(0x16_B374_D848)));
        for bad in ["", "1", "1/", "x/1", "1/100000000"] {
            assert_eq!(bad.parse::<Lsn>(), Err(()), "{bad}");
        }
        let reached = SlotPosition {
            lsn: Lsn(77),
            system: "7412345678901234567".into(),
            tables: vec![(7, "public.two words".into())],
            left: vec![(9, "a.b\"c".into())],
        };
        let position = Position {
            tag: Some(reached.tag()),
            ..Position::default()
        };
        assert_eq!(SlotPosition::from_position(&position), Some(reached));
        assert_eq!(SlotPosition::from_position(&Position::default()), None);
    }
}
