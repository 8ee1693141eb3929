//! Maps between names of partitions, which are texts, and names of files, which are bytes.
//!
//! A path that is valid UTF-8 is its own partition. Any other path becomes `./` and its bytes, in which every `%` and
//! every byte that is not UTF-8 is percent-encoded as `%FF`. No path below a folder begins with `./`, so the mapping
//! is one-to-one.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use percent_encoding::percent_decode_str;

const ESCAPED: &str = "./";

/// The partition of a file, by its path below the feed's folder.
pub(crate) fn partition_of(path: &[u8]) -> Arc<str> {
    if let Ok(text) = std::str::from_utf8(path) {
        return text.into();
    }
    let mut partition = ESCAPED.to_string();
    for chunk in path.utf8_chunks() {
        partition.push_str(&chunk.valid().replace('%', "%25"));
        chunk
            .invalid()
            .iter()
            .for_each(|byte| partition.push_str(&format!("%{byte:02X}")));
    }
    partition.into()
}

/// The path of a partition's file below the feed's folder.
pub(crate) fn relative_path(partition: &str) -> PathBuf {
    match partition.strip_prefix(ESCAPED) {
        None => PathBuf::from(partition),
        Some(escaped) => OsString::from_vec(percent_decode_str(escaped).collect()).into(),
    }
}

/// The path of a partition's file in this folder.
pub(crate) fn path_in(folder: &Path, partition: &str) -> PathBuf {
    folder.join(relative_path(partition))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn every_name_has_one_partition_that_leads_back_to_it() {
        let names: [&[u8]; 7] = [
            b"a.csv",
            "sub/straße 100%.csv".as_bytes(),
            b"a%FF.csv",
            b"a\xff.csv",
            b"a%FF\xff.csv",
            b"d\xe9p/\xe9\n.csv",
            b"\xff",
        ];
        let partitions = names.map(partition_of);
        for (name, partition) in names.iter().zip(&partitions) {
            assert_eq!(relative_path(partition).as_os_str().as_bytes(), *name);
        }
        assert_eq!(&*partitions[1], "sub/straße 100%.csv", "what is text stays as it is");
        assert_eq!(&*partitions[3], "./a%FF.csv");
        assert_eq!(&*partitions[4], "./a%25FF%FF.csv");
        let distinct: std::collections::BTreeSet<_> = partitions.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }
}
