//! Thrift's compact protocol, as far as lengths and counts need to be known before others read the same bytes.
//!
//! The readers of Parquet's footers and page headers allocate what a count claims before they look whether so many values are
//! there, and a failed allocation cannot be contained. So they are only given what was walked here first.
//!
//! 1. A length or count is at most the bytes that are left: each value has a byte.
//! 2. Structs and lists nest at most [`DEPTH`] deep.

/// How deep structs and lists may nest; Parquet's own nest five deep.
const DEPTH: usize = 16;

/// What is wrong with thrift's bytes; none of them are needed more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Garbled {
    /// More may follow: the bytes end inside of a value.
    Ended,
    /// They claim what cannot be.
    Claims(&'static str),
}

/// A field's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// True and false are types of their own.
    Boolean,
    Byte,
    /// Of 16, 32 and 64 bits.
    Integer,
    Double,
    Binary,
    /// Also a set.
    List,
    Map,
    Struct,
}

impl Type {
    fn of(nibble: u8) -> Result<Type, Garbled> {
        Ok(match nibble {
            1 | 2 => Type::Boolean,
            3 => Type::Byte,
            4..=6 => Type::Integer,
            7 => Type::Double,
            8 => Type::Binary,
            9 | 10 => Type::List,
            11 => Type::Map,
            12 => Type::Struct,
            _ => return Err(Garbled::Claims("a field has a type that thrift does not know")),
        })
    }
}

/// A walk over a struct's bytes.
#[derive(Clone)]
pub(super) struct Compact<'a> {
    bytes: &'a [u8],
    /// How many were read.
    pub at: usize,
}

impl<'a> Compact<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Compact { bytes, at: 0 }
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn byte(&mut self) -> Result<u8, Garbled> {
        let byte = self.bytes.get(self.at).ok_or(Garbled::Ended)?;
        self.at += 1;
        Ok(*byte)
    }

    fn pass(&mut self, length: usize) -> Result<(), Garbled> {
        if length > self.left() {
            return Err(Garbled::Ended);
        }
        self.at += length;
        Ok(())
    }

    fn unsigned(&mut self) -> Result<u64, Garbled> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Garbled::Claims("a number is longer than 64 bits"))
    }

    /// An integer of any width.
    pub fn integer(&mut self) -> Result<i64, Garbled> {
        let value = self.unsigned()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn length(&mut self) -> Result<usize, Garbled> {
        usize::try_from(self.unsigned()?).map_err(|_| Garbled::Claims("a length is beyond all memory"))
    }

    /// The number and type of the struct's next field; none at its end. `last` is the number of the one before.
    pub fn field(&mut self, last: &mut i64) -> Result<Option<(i64, Type)>, Garbled> {
        let head = self.byte()?;
        if head == 0 {
            return Ok(None);
        }
        let of = Type::of(head & 0x0f)?;
        *last = match head >> 4 {
            0 => self.integer()?,
            delta => last.saturating_add(i64::from(delta)),
        };
        Ok(Some((*last, of)))
    }

    /// How many values a list has, and their type.
    pub fn list(&mut self) -> Result<(usize, Type), Garbled> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.length()?,
            count => usize::from(count),
        };
        Ok((self.counted(count)?, Type::of(head & 0x0f)?))
    }

    /// By (1).
    fn counted(&self, count: usize) -> Result<usize, Garbled> {
        match count <= self.left() {
            true => Ok(count),
            false => Err(Garbled::Claims("a list claims more values than there are bytes")),
        }
    }

    /// Goes past a field's value.
    pub fn skip(&mut self, of: Type) -> Result<(), Garbled> {
        // A boolean field has no bytes but its head's.
        match of {
            Type::Boolean => Ok(()),
            other => self.skip_value(other, 0),
        }
    }

    fn skip_value(&mut self, of: Type, depth: usize) -> Result<(), Garbled> {
        if depth > DEPTH {
            return Err(Garbled::Claims("it is nested too deep")); // by (2)
        }
        match of {
            Type::Boolean | Type::Byte => self.pass(1),
            Type::Integer => self.unsigned().map(drop),
            Type::Double => self.pass(8),
            Type::Binary => {
                let length = self.length()?;
                self.pass(length)
            }
            Type::List => {
                let (count, of) = self.list()?;
                (0..count).try_for_each(|_| self.skip_value(of, depth + 1))
            }
            Type::Map => {
                let count = self.length()?;
                if self.counted(count)? == 0 {
                    return Ok(());
                }
                let types = self.byte()?;
                let (keys, values) = (Type::of(types >> 4)?, Type::of(types & 0x0f)?);
                (0..count).try_for_each(|_| {
                    self.skip_value(keys, depth + 1)?;
                    self.skip_value(values, depth + 1)
                })
            }
            Type::Struct => {
                let mut last = 0;
                while let Some((_, of)) = self.field(&mut last)? {
                    match of {
                        Type::Boolean => (),
                        other => self.skip_value(other, depth + 1)?,
                    }
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    #[test]
    fn claims_beyond_the_bytes_are_refused_without_an_allocation() {
        // Field 1, a list of 2^31 structs.
        let bytes = [0x19, 0xfc, 0x80, 0x80, 0x80, 0x80, 0x08, 0x00];
        let mut compact = Compact::new(&bytes);
        let (_, of) = compact.field(&mut 0).unwrap().unwrap();
        assert_eq!(
            compact.skip(of),
            Err(Garbled::Claims("a list claims more values than there are bytes"))
        );
        // Lists of lists of lists.
        let deep = [0x19; 100];
        let mut compact = Compact::new(&deep);
        assert_eq!(compact.skip(Type::List), Err(Garbled::Claims("it is nested too deep")));
        assert_eq!(
            Compact::new(&[0x18, 0x05, b'a']).skip(Type::Struct),
            Err(Garbled::Ended)
        );
    }
}
