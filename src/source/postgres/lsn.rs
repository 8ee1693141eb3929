//! Places in PostgreSQL's log, and how far a feed has come.

use std::fmt;
use std::str::FromStr;

use crate::source::Position;

/// A place in the write-ahead log: a byte from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

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

/// How far a feed has come, of which server, and with which tables. It is the tag of its [`Position`], whose number counts
/// the feed's records: places in the log do not tell records apart, nor do they grow from record to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Transactions that commit before it are taken.
    pub lsn: Lsn,
    /// The server's system identifier.
    pub system: String,
    /// The tables whose first rows are taken: what identifies each, and its name then.
    pub tables: Vec<(u32, String)>,
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.lsn, self.system)?;
        self.tables
            .iter()
            .try_for_each(|(oid, name)| write!(f, " {oid}:{name}"))
    }
}

impl Reached {
    /// What a position's tag says.
    pub fn of(position: &Position) -> Option<Reached> {
        let mut words = position.tag.as_deref()?.splitn(3, ' ');
        let (lsn, system) = (words.next()?.parse().ok()?, words.next()?.to_string());
        let mut tables: Vec<(u32, String)> = Vec::new();
        for word in words
            .next()
            .unwrap_or_default()
            .split(' ')
            .filter(|word| !word.is_empty())
        {
            match word.split_once(':').map(|(oid, name)| (oid.parse(), name)) {
                Some((Ok(oid), name)) => tables.push((oid, name.to_string())),
                // A name with a space in it.
                _ => {
                    let (_, name) = tables.last_mut()?;
                    name.push(' ');
                    name.push_str(word);
                }
            }
        }
        Some(Reached { lsn, system, tables })
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
        for tables in [
            vec![],
            vec![(7, "public.orders"), (8, "public.two words"), (9, "a.b:c")],
        ] {
            let reached = Reached {
                lsn: Lsn(77),
                system: "7412345678901234567".into(),
                tables: tables.into_iter().map(|(oid, name)| (oid, name.to_string())).collect(),
            };
            let position = Position {
                tag: Some(reached.to_string()),
                ..Position::default()
            };
            assert_eq!(Reached::of(&position), Some(reached));
        }
        assert_eq!(Reached::of(&Position::default()), None);
    }
}
