//! What `pgoutput` says: PostgreSQL's messages of logical replication, in their first version (a transaction is told whole,
//! once it is committed).
//!
//! A message borrows its bytes. Whatever the bytes are, reading them ends with a message or the reason why it is none, and
//! takes no memory by what they claim of lengths.

use super::lsn::Lsn;

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    /// A transaction begins.
    Begin {
        /// Where its commit is.
        commit: Lsn,
        /// When it was committed, in microseconds of PostgreSQL's time.
        micros: i64,
        /// Its number.
        xid: u32,
    },
    /// It ends.
    Commit {
        /// As its Begin says.
        commit: Lsn,
        /// Behind its commit.
        end: Lsn,
    },
    /// What a table is now; told before its first change, and again once it is another.
    Relation(Relation<'a>),
    Insert {
        relation: u32,
        new: Tuple<'a>,
    },
    Update {
        relation: u32,
        old: Option<Old<'a>>,
        new: Tuple<'a>,
    },
    Delete {
        relation: u32,
        old: Old<'a>,
    },
    Truncate {
        relations: Vec<u32>,
    },
    /// Types, origins, messages.
    Other,
}

/// What a table is.
#[derive(Clone, Debug, PartialEq)]
pub struct Relation<'a> {
    pub oid: u32,
    pub schema: &'a str,
    pub table: &'a str,
    pub columns: Vec<Column<'a>>,
}

/// A column of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Column<'a> {
    pub name: &'a str,
    /// The type's OID.
    pub kind: u32,
    /// Whether updates and deletes tell its value before.
    pub identifies: bool,
}

/// The row before.
#[derive(Clone, Debug, PartialEq)]
pub enum Old<'a> {
    /// Of the columns that identify it alone; the others are null.
    Key(Tuple<'a>),
    /// All of it.
    Row(Tuple<'a>),
}

/// A row, which was looked through when it was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuple<'a> {
    bytes: &'a [u8],
    columns: u16,
}

/// A value of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Null,
    /// A long value, stored apart, that the update has not changed.
    Unchanged,
    /// As PostgreSQL prints it.
    Text(&'a [u8]),
}

impl<'a> Tuple<'a> {
    /// Its values in the order of the columns.
    pub fn values(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut bytes = Bytes(self.bytes);
        (0..self.columns).map(move |_| bytes.value().expect("it was looked through when it was read"))
    }
}

/// Bytes that are read from the front.
struct Bytes<'a>(&'a [u8]);

type Read<T> = Result<T, &'static str>;

const SHORT: &str = "it ends too early";

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        Ok(*self.take(N)?.first_chunk().expect("as many were taken"))
    }

    fn u8(&mut self) -> Read<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Read<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn name(&mut self) -> Read<&'a str> {
        let length = memchr::memchr(0, self.0).ok_or(SHORT)?;
        let name = std::str::from_utf8(self.take(length)?).map_err(|_| "a name is not UTF-8")?;
        self.take(1)?;
        Ok(name)
    }

    fn value(&mut self) -> Read<Value<'a>> {
        match self.u8()? {
            b'n' => Ok(Value::Null),
            b'u' => Ok(Value::Unchanged),
            b't' => {
                let length = self.u32()? as usize;
                self.take(length).map(Value::Text)
            }
            b'b' => Err("a value is in binary, which was not asked for"),
            _ => Err("a value is of no known kind"),
        }
    }

    fn tuple(&mut self) -> Read<Tuple<'a>> {
        let columns = self.u16()?;
        let before = self.0;
        for _ in 0..columns {
            self.value()?;
        }
        let length = before.len() - self.0.len();
        Ok(Tuple {
            bytes: &before[..length],
            columns,
        })
    }

    fn old(&mut self, kind: u8) -> Read<Option<Old<'a>>> {
        match kind {
            b'K' => self.tuple().map(|tuple| Some(Old::Key(tuple))),
            b'O' => self.tuple().map(|tuple| Some(Old::Row(tuple))),
            _ => Ok(None),
        }
    }
}

/// Reads a message. The error: why it is none.
pub fn read(bytes: &[u8]) -> Result<Message<'_>, &'static str> {
    let mut bytes = Bytes(bytes);
    let message = match bytes.u8()? {
        b'B' => Message::Begin {
            commit: Lsn(bytes.u64()?),
            micros: bytes.u64()? as i64,
            xid: bytes.u32()?,
        },
        b'C' => {
            bytes.u8()?; // no flags yet
            let (commit, end) = (Lsn(bytes.u64()?), Lsn(bytes.u64()?));
            bytes.u64()?; // when, as its Begin says
            Message::Commit { commit, end }
        }
        b'R' => {
            let (oid, schema, table) = (bytes.u32()?, bytes.name()?, bytes.name()?);
            bytes.u8()?; // the replica identity, which the columns' flags tell too
            let mut columns = Vec::new();
            for _ in 0..bytes.u16()? {
                let identifies = bytes.u8()? & 1 == 1;
                let (name, kind) = (bytes.name()?, bytes.u32()?);
                bytes.u32()?; // the type's modifier
                columns.push(Column { name, kind, identifies });
            }
            // What it writes for `pg_catalog`.
            let schema = if schema.is_empty() { "pg_catalog" } else { schema };
            Message::Relation(Relation {
                oid,
                schema,
                table,
                columns,
            })
        }
        b'I' => {
            let relation = bytes.u32()?;
            if bytes.u8()? != b'N' {
                return Err("an insert has no new row");
            }
            Message::Insert {
                relation,
                new: bytes.tuple()?,
            }
        }
        b'U' => {
            let relation = bytes.u32()?;
            let mut kind = bytes.u8()?;
            let old = bytes.old(kind)?;
            if old.is_some() {
                kind = bytes.u8()?;
            }
            if kind != b'N' {
                return Err("an update has no new row");
            }
            Message::Update {
                relation,
                old,
                new: bytes.tuple()?,
            }
        }
        b'D' => {
            let relation = bytes.u32()?;
            let kind = bytes.u8()?;
            let old = bytes.old(kind)?.ok_or("a delete does not say of what")?;
            Message::Delete { relation, old }
        }
        b'T' => {
            let count = bytes.u32()?;
            bytes.u8()?; // CASCADE and RESTART IDENTITY
            let mut relations = Vec::new();
            for _ in 0..count {
                relations.push(bytes.u32()?);
            }
            Message::Truncate { relations }
        }
        b'O' | b'Y' | b'M' => return Ok(Message::Other),
        _ => return Err("it is of no known kind"),
    };
    match bytes.0 {
        [] => Ok(message),
        _ => Err("it goes on behind its end"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Messages as PostgreSQL 15 sent them, of `INSERT`, `UPDATE` of a key, `UPDATE` with a long value unchanged, `DELETE`
    /// and `TRUNCATE`.
    fn recorded() -> Vec<Vec<u8>> {
        let lines = include_str!("recorded.txt").lines().filter(|line| !line.is_empty());
        let bytes = |line: &str| {
            let digits = line.as_bytes().chunks(2);
            digits
                .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
                .collect()
        };
        lines.map(bytes).collect()
    }

    #[test]
    fn what_postgresql_sent_is_read() {
        let recorded = recorded();
        let messages: Vec<Message<'_>> = recorded.iter().map(|bytes| read(bytes).unwrap()).collect();
        let kinds: String = messages
            .iter()
            .map(|message| match message {
                Message::Begin { .. } => 'B',
                Message::Commit { .. } => 'C',
                Message::Relation(_) => 'R',
                Message::Insert { .. } => 'I',
                Message::Update { old: None, .. } => 'u',
                Message::Update {
                    old: Some(Old::Key(_)), ..
                } => 'K',
                Message::Update {
                    old: Some(Old::Row(_)), ..
                } => 'O',
                Message::Delete { old: Old::Key(_), .. } => 'd',
                Message::Delete { old: Old::Row(_), .. } => 'D',
                Message::Truncate { .. } => 'T',
                Message::Other => '.',
            })
            .collect();
        assert_eq!(kinds, "BRIICBuKCBdCBRTCBRICBRODC");
        let [
            Message::Begin { commit, .. },
            Message::Relation(relation),
            Message::Insert { new, .. },
            ..,
        ] = &messages[..]
        else {
            panic!("{messages:?}")
        };
        let Message::Commit { commit: same, end } = messages[4] else {
            panic!("{:?}", messages[4])
        };
        assert!(*commit == same && end > same);
        assert_eq!((relation.schema, relation.table), ("public", "recorded"));
        let columns: Vec<(&str, u32, bool)> = relation
            .columns
            .iter()
            .map(|c| (c.name, c.kind, c.identifies))
            .collect();
        assert_eq!(
            columns,
            [
                ("id", 20, true),
                ("name", 25, false),
                ("price", 1700, false),
                ("long", 25, false)
            ]
        );
        let values: Vec<Value<'_>> = new.values().collect();
        assert_eq!(
            values[..3],
            [
                Value::Text(b"1"),
                Value::Text("\u{e4}\"x".as_bytes()),
                Value::Text(b"12.50")
            ]
        );
        let Message::Update { new, .. } = &messages[6] else {
            panic!("{:?}", messages[6])
        };
        assert_eq!(new.values().last(), Some(Value::Unchanged));
    }

    /// How many bytes a message takes beside those that it borrows, at most.
    fn taken(message: &Message<'_>) -> usize {
        match message {
            Message::Relation(relation) => relation.columns.capacity() * size_of::<Column<'_>>(),
            Message::Truncate { relations } => relations.capacity() * size_of::<u32>(),
            _ => 0,
        }
    }

    proptest! {
        #[test]
        fn bytes_that_were_changed_are_read_or_refused(
            which in any::<prop::sample::Index>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
            whole in any::<bool>(),
        ) {
            let recorded = recorded();
            let mut bytes = recorded[which.index(recorded.len())].clone();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if !whole {
                bytes.truncate(cut.index(bytes.len()));
            }
            if let Ok(message) = read(&bytes) {
                prop_assert!(taken(&message) <= 16 * bytes.len() + 256, "{message:?}");
                if let Message::Insert { new, .. } | Message::Update { new, .. } = &message {
                    prop_assert_eq!(new.values().count(), usize::from(new.columns));
                }
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }
    }
}
