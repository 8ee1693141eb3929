//! The header of records behind a schema id: a zero byte, and four bytes of the id, big-endian.

/// Bytes of the header.
pub(super) const HEADER: usize = 5;

/// The id and what is behind it.
///
/// # Errors
/// There is no header.
pub(super) fn split(bytes: &[u8]) -> Result<(u32, &[u8]), String> {
    match bytes {
        [0, a, b, c, d, rest @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), rest)),
        _ => {
            let first: Vec<String> = bytes.iter().take(HEADER).map(|byte| format!("{byte:02x}")).collect();
            Err(format!(
                "it has no schema id: it begins with the bytes [{}], not with 00 and four bytes of an id; let its producer \
                 use the registry's serializer, or set another format",
                first.join(" ")
            ))
        }
    }
}

/// The id, if there is a header.
pub(super) fn id(bytes: &[u8]) -> Option<u32> {
    split(bytes).ok().map(|(id, _)| id)
}

/// JSON without the header that it may be behind: no JSON begins with a zero byte.
pub(super) fn unwrapped(bytes: &[u8]) -> &[u8] {
    match split(bytes) {
        Ok((_, rest)) => rest,
        Err(_) => bytes,
    }
}
