//! Parses the messages of `pgoutput`, PostgreSQL's logical replication, in protocol version 1: a transaction is sent
//! whole, once it is committed.
//!
//! A message borrows its bytes. For any bytes, parsing returns a message or the reason why they are none, and it does
//! not allocate by lengths that they claim.

use super::lsn::Lsn;

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplicationMessage<'a> {
    /// A transaction begins.
    Begin {
        /// The LSN of its commit.
        commit: Lsn,
        /// Its commit time, in microseconds since PostgreSQL's epoch.
        micros: i64,
        /// Its transaction id.
        xid: u32,
    },
    /// A transaction ends.
    Commit {
        /// The same as in its Begin.
        commit: Lsn,
        /// The LSN behind its commit.
        end: Lsn,
    },
    /// A table's definition; sent before its first change, and again after it has changed.
    Relation(Relation<'a>),
    Insert {
        relation: u32,
        new: Tuple<'a>,
    },
    Update {
        relation: u32,
        old: Option<OldTuple<'a>>,
        new: Tuple<'a>,
    },
    Delete {
        relation: u32,
        old: OldTuple<'a>,
    },
    Truncate {
        relations: Vec<u32>,
    },
    /// Types, origins, and logical messages, which are ignored.
    Other,
}

/// A table's definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Relation<'a> {
    pub oid: u32,
    pub schema: &'a str,
    pub table: &'a str,
    pub columns: Vec<RelationColumn<'a>>,
}

/// A column of it.
#[derive(Clone, Debug, PartialEq)]
pub struct RelationColumn<'a> {
    pub name: &'a str,
    /// The type's OID.
    pub kind: u32,
    /// Whether it belongs to the replica identity, so that updates and deletes contain its old value.
    pub identifies: bool,
}

/// The old row.
#[derive(Clone, Debug, PartialEq)]
pub enum OldTuple<'a> {
    /// Only the columns of the replica identity; the others are null.
    Key(Tuple<'a>),
    /// All columns.
    Row(Tuple<'a>),
}

/// A row, whose structure was validated when it was parsed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuple<'a> {
    bytes: &'a [u8],
    columns: u16,
}

/// A value of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TupleValue<'a> {
    Null,
    /// An unchanged value that is stored out of line (TOAST) and is therefore not sent.
    Unchanged,
    /// The value in PostgreSQL's text format.
    Text(&'a [u8]),
}

impl<'a> Tuple<'a> {
    /// Its values in the order of the columns.
    pub fn values(&self) -> impl Iterator<Item = TupleValue<'a>> + use<'a> {
        let mut bytes = Bytes(self.bytes);
        (0..self.columns).map(move |_| bytes.value().expect("it was looked through when it was read"))
    }
}

/// Consumes bytes from the front.
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

    fn value(&mut self) -> Read<TupleValue<'a>> {
        match self.u8()? {
            b'n' => Ok(TupleValue::Null),
            b'u' => Ok(TupleValue::Unchanged),
            b't' => {
                let length = self.u32()? as usize;
                self.take(length).map(TupleValue::Text)
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

    fn old(&mut self, kind: u8) -> Read<Option<OldTuple<'a>>> {
        match kind {
            b'K' => self.tuple().map(|tuple| Some(OldTuple::Key(tuple))),
            b'O' => self.tuple().map(|tuple| Some(OldTuple::Row(tuple))),
            _ => Ok(None),
        }
    }
}

/// Parses a message; the error is the reason why it is invalid.
pub fn read(bytes: &[u8]) -> Result<ReplicationMessage<'_>, &'static str> {
    let mut bytes = Bytes(bytes);
    let message = match bytes.u8()? {
        b'B' => ReplicationMessage::Begin {
            commit: Lsn(bytes.u64()?),
            micros: bytes.u64()? as i64,
            xid: bytes.u32()?,
        },
        b'C' => {
            bytes.u8()?; // no flags yet
            let (commit, end) = (Lsn(bytes.u64()?), Lsn(bytes.u64()?));
            bytes.u64()?; // the commit time, which the Begin has, too
            ReplicationMessage::Commit { commit, end }
        }
        b'R' => {
            let (oid, schema, table) = (bytes.u32()?, bytes.name()?, bytes.name()?);
            bytes.u8()?; // the replica identity, which the columns' flags show, too
            let mut columns = Vec::new();
            for _ in 0..bytes.u16()? {
                let identifies = bytes.u8()? & 1 == 1;
                let (name, kind) = (bytes.name()?, bytes.u32()?);
                bytes.u32()?; // the type's modifier
                columns.push(RelationColumn { name, kind, identifies });
            }
            // The server writes `pg_catalog` as an empty name.
            let schema = if schema.is_empty() { "pg_catalog" } else { schema };
            ReplicationMessage::Relation(Relation {
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
            ReplicationMessage::Insert {
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
            ReplicationMessage::Update {
                relation,
                old,
                new: bytes.tuple()?,
            }
        }
        b'D' => {
            let relation = bytes.u32()?;
            let kind = bytes.u8()?;
            let old = bytes.old(kind)?.ok_or("a delete does not say of what")?;
            ReplicationMessage::Delete { relation, old }
        }
        b'T' => {
            let count = bytes.u32()?;
            bytes.u8()?; // flags for CASCADE and RESTART IDENTITY
            let mut relations = Vec::new();
            for _ in 0..count {
                relations.push(bytes.u32()?);
            }
            ReplicationMessage::Truncate { relations }
        }
        b'O' | b'Y' | b'M' => return Ok(ReplicationMessage::Other),
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

    /// Messages that PostgreSQL 15 sent for `INSERT`, `UPDATE` of a key, `UPDATE` with an unchanged long value,
    /// `DELETE` and `TRUNCATE`.
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
        let messages: Vec<ReplicationMessage<'_>> = recorded.iter().map(|bytes| read(bytes).unwrap()).collect();
        let kinds: String = messages
            .iter()
            .map(|message| match message {
                ReplicationMessage::Begin { .. } => 'B',
                ReplicationMessage::Commit { .. } => 'C',
                ReplicationMessage::Relation(_) => 'R',
                ReplicationMessage::Insert { .. } => 'I',
                ReplicationMessage::Update { old: None, .. } => 'u',
                ReplicationMessage::Update {
                    old: Some(OldTuple::Key(_)),
                    ..
                } => 'K',
                ReplicationMessage::Update {
                    old: Some(OldTuple::Row(_)),
                    ..
                } => 'O',
                ReplicationMessage::Delete {
                    old: OldTuple::Key(_), ..
                } => 'd',
                ReplicationMessage::Delete {
                    old: OldTuple::Row(_), ..
                } => 'D',
                ReplicationMessage::Truncate { .. } => 'T',
                ReplicationMessage::Other => '.',
            })
            .collect();
        assert_eq!(kinds, "BRIICBuKCBdCBRTCBRICBRODC");
        let [
            ReplicationMessage::Begin { commit, .. },
            ReplicationMessage::Relation(relation),
            ReplicationMessage::Insert { new, .. },
            ..,
        ] = &messages[..]
        else {
            panic!("{messages:?}")
        };
        let ReplicationMessage::Commit { commit: same, end } = messages[4] else {
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
        let values: Vec<TupleValue<'_>> = new.values().collect();
        assert_eq!(
            values[..3],
            [
                TupleValue::Text(b"1"),
                TupleValue::Text("\u{e4}\"x".as_bytes()),
                TupleValue::Text(b"12.50")
            ]
        );
        let ReplicationMessage::Update { new, .. } = &messages[6] else {
            panic!("{:?}", messages[6])
        };
        assert_eq!(new.values().last(), Some(TupleValue::Unchanged));
    }

    /// The most memory, in bytes, that a message allocates besides the bytes it borrows.
    fn taken(message: &ReplicationMessage<'_>) -> usize {
        match message {
            ReplicationMessage::Relation(relation) => relation.columns.capacity() * size_of::<RelationColumn<'_>>(),
            ReplicationMessage::Truncate { relations } => relations.capacity() * size_of::<u32>(),
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
                if let ReplicationMessage::Insert { new, .. } | ReplicationMessage::Update { new, .. } = &message {
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
