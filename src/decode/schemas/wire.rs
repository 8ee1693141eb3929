//! The header of records behind a schema id: a zero byte, and the id as four bytes, big-endian.

/// The length of the header in bytes.
pub(in crate::decode) const HEADER: usize = 5;

/// Splits a record into the id and the bytes behind the header.
///
/// # Errors
/// There is no header.
pub(in crate::decode) fn split(bytes: &[u8]) -> Result<(u32, &[u8]), String> {
    framed(bytes).ok_or_else(|| {
        let first: Vec<String> = bytes.iter().take(HEADER).map(|byte| format!("{byte:02x}")).collect();
        format!(
            "it has no schema id: it begins with the bytes [{}], not with 00 and four bytes of an id; let its producer \
             use the registry's serializer, or set another format",
            first.join(" ")
        )
    })
}

/// The id and the bytes behind the header, if there is a header. Most records of JSON have none, so this must cost
/// nothing for them.
fn framed(bytes: &[u8]) -> Option<(u32, &[u8])> {
    match bytes {
        [0, a, b, c, d, rest @ ..] => Some((u32::from_be_bytes([*a, *b, *c, *d]), rest)),
        _ => None,
    }
}

/// The id, if there is a header.
pub(in crate::decode) fn id(bytes: &[u8]) -> Option<u32> {
    framed(bytes).map(|(id, _)| id)
}

/// JSON without the header that may precede it; JSON itself never begins with a zero byte.
pub(in crate::decode) fn unwrapped(bytes: &[u8]) -> &[u8] {
    framed(bytes).map_or(bytes, |(_, rest)| rest)
}
