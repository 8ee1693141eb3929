//! Validates lengths and counts in Thrift's compact protocol, before other code reads the same bytes.
//!
//! The readers of Parquet's footers and page headers allocate by claimed counts before they check that the values
//! exist, and a failed allocation cannot be contained. So they only get bytes that were validated here.
//!
//! 1. A length or count is at most the number of remaining bytes, because each value has at least one byte.
//! 2. Structs and lists are nested at most [`DEPTH`] deep.

/// How deep structs and lists may be nested; those of Parquet are nested five deep.
const DEPTH: usize = 16;

/// Why bytes are not valid Thrift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ThriftError {
    /// The bytes end inside a value, so more may follow.
    Ended,
    /// The bytes make an impossible claim.
    Claims(&'static str),
}

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ThriftType {
    /// The protocol has separate types for true and false.
    Boolean,
    Byte,
    /// An integer of 16, 32 or 64 bits.
    Integer,
    Double,
    Binary,
    /// A list or a set.
    List,
    Map,
    Struct,
}

impl ThriftType {
    fn from_nibble(nibble: u8) -> Result<ThriftType, ThriftError> {
        Ok(match nibble {
            1 | 2 => ThriftType::Boolean,
            3 => ThriftType::Byte,
            4..=6 => ThriftType::Integer,
            7 => ThriftType::Double,
            8 => ThriftType::Binary,
            9 | 10 => ThriftType::List,
            11 => ThriftType::Map,
            12 => ThriftType::Struct,
            _ => return Err(ThriftError::Claims("a field has a type that thrift does not know")),
        })
    }
}

/// Parses a struct's bytes.
#[derive(Clone)]
pub(super) struct Compact<'a> {
    bytes: &'a [u8],
    /// How many bytes were read.
    pub at: usize,
}

impl<'a> Compact<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Compact { bytes, at: 0 }
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn byte(&mut self) -> Result<u8, ThriftError> {
        let byte = self.bytes.get(self.at).ok_or(ThriftError::Ended)?;
        self.at += 1;
        Ok(*byte)
    }

    fn pass(&mut self, length: usize) -> Result<(), ThriftError> {
        if length > self.left() {
            return Err(ThriftError::Ended);
        }
        self.at += length;
        Ok(())
    }

    fn unsigned(&mut self) -> Result<u64, ThriftError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ThriftError::Claims("a number is longer than 64 bits"))
    }

    /// Reads an integer of any width.
    pub fn integer(&mut self) -> Result<i64, ThriftError> {
        let value = self.unsigned()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn length(&mut self) -> Result<usize, ThriftError> {
        usize::try_from(self.unsigned()?).map_err(|_| ThriftError::Claims("a length is beyond all memory"))
    }

    /// Reads the number and type of the struct's next field; none at its end. `last` is the number of the field
    /// before.
    pub fn field(&mut self, last: &mut i64) -> Result<Option<(i64, ThriftType)>, ThriftError> {
        let head = self.byte()?;
        if head == 0 {
            return Ok(None);
        }
        let of = ThriftType::from_nibble(head & 0x0f)?;
        *last = match head >> 4 {
            0 => self.integer()?,
            delta => last.saturating_add(i64::from(delta)),
        };
        Ok(Some((*last, of)))
    }

    /// Reads the number of a list's values, and their type.
    pub fn list(&mut self) -> Result<(usize, ThriftType), ThriftError> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.length()?,
            count => usize::from(count),
        };
        Ok((self.counted(count)?, ThriftType::from_nibble(head & 0x0f)?))
    }

    /// Checks a count, by (1).
    fn counted(&self, count: usize) -> Result<usize, ThriftError> {
        match count <= self.left() {
            true => Ok(count),
            false => Err(ThriftError::Claims("a list claims more values than there are bytes")),
        }
    }

    /// Skips a field's value.
    pub fn skip(&mut self, of: ThriftType) -> Result<(), ThriftError> {
        // The value of a boolean field is part of its header.
        match of {
            ThriftType::Boolean => Ok(()),
            other => self.skip_value(other, 0),
        }
    }

    fn skip_value(&mut self, of: ThriftType, depth: usize) -> Result<(), ThriftError> {
        if depth > DEPTH {
            return Err(ThriftError::Claims("it is nested too deep")); // by (2)
        }
        match of {
            ThriftType::Boolean | ThriftType::Byte => self.pass(1),
            ThriftType::Integer => self.unsigned().map(drop),
            ThriftType::Double => self.pass(8),
            ThriftType::Binary => {
                let length = self.length()?;
                self.pass(length)
            }
            ThriftType::List => {
                let (count, of) = self.list()?;
                (0..count).try_for_each(|_| self.skip_value(of, depth + 1))
            }
            ThriftType::Map => {
                let count = self.length()?;
                if self.counted(count)? == 0 {
                    return Ok(());
                }
                let types = self.byte()?;
                let (keys, values) = (
                    ThriftType::from_nibble(types >> 4)?,
                    ThriftType::from_nibble(types & 0x0f)?,
                );
                (0..count).try_for_each(|_| {
                    self.skip_value(keys, depth + 1)?;
                    self.skip_value(values, depth + 1)
                })
            }
            ThriftType::Struct => {
                let mut last = 0;
                while let Some((_, of)) = self.field(&mut last)? {
                    match of {
                        ThriftType::Boolean => (),
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
        // Field 1 is a list of 2^31 structs.
        let bytes = [0x19, 0xfc, 0x80, 0x80, 0x80, 0x80, 0x08, 0x00];
        let mut compact = Compact::new(&bytes);
        let (_, of) = compact.field(&mut 0).unwrap().unwrap();
        assert_eq!(
            compact.skip(of),
            Err(ThriftError::Claims("a list claims more values than there are bytes"))
        );
        // Lists of lists of lists.
        let deep = [0x19; 100];
        let mut compact = Compact::new(&deep);
        assert_eq!(
            compact.skip(ThriftType::List),
            Err(ThriftError::Claims("it is nested too deep"))
        );
        assert_eq!(
            Compact::new(&[0x18, 0x05, b'a']).skip(ThriftType::Struct),
            Err(ThriftError::Ended)
        );
    }
}
