//! Determines who put a request, as far as a local disk shows that, and what this user may read.
//!
//! A run with more rights than the requester must not read files for him that he could not read himself. The
//! requester is the owner of the request's file, by the metadata of the file that was open while it was read. The
//! requester is the run's own user if a file that the run has just created in the lake, and never given a name, has
//! the same owner. (Some network shares assign all files to one user.) A file with a name cannot show which user the
//! run is, because others could have put it there. For any other requester, the permissions of the file and of every
//! folder above it decide, for owner, groups and others. His groups are those in `/etc/group`, and the group of the
//! request's file.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A user, by the ids on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    uid: u32,
    groups: BTreeSet<u32>,
    /// Whether the user is the one who runs the server.
    is_server: bool,
}

impl Requester {
    /// The owner of a file. `own` is the metadata of a file that the run itself created, if it could.
    pub fn from_metadata(file: &Metadata, own: Option<&Metadata>) -> Requester {
        // On another disk, the same number may be another user.
        let is_own = |own: &Metadata| (own.dev(), own.uid()) == (file.dev(), file.uid());
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let named = groups_of(file.uid(), &read("/etc/passwd"), &read("/etc/group"));
        Requester {
            uid: file.uid(),
            groups: named.into_iter().chain([file.gid()]).collect(),
            is_server: own.is_some_and(is_own),
        }
    }

    /// The user's id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Whether this user may read an open file: read the file itself, and pass through every folder above it. The
    /// path must be canonical.
    ///
    /// # Errors
    /// The metadata of a folder cannot be read.
    pub fn may_read(&self, file: &Metadata, path: &Path) -> io::Result<bool> {
        const READ: u32 = 4;
        const PASS: u32 = 1;
        if self.is_server {
            return Ok(true);
        }
        if !self.has(READ, file) {
            return Ok(false);
        }
        for folder in path.ancestors().skip(1) {
            if !self.has(PASS, &std::fs::metadata(folder)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn has(&self, right: u32, of: &Metadata) -> bool {
        let shift = match (self.uid == of.uid(), self.groups.contains(&of.gid())) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        self.uid == 0 || of.mode() >> shift & right != 0
    }
}

/// The groups of a user, by the contents of the system's files.
fn groups_of(uid: u32, passwd: &str, group: &str) -> Vec<u32> {
    let uid = uid.to_string();
    let mut users = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let Some(user) = users.find(|user| user.get(2) == Some(&uid.as_str())) else {
        return vec![];
    };
    let own = user.get(3).copied();
    let groups = group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let member = groups.filter(|group| {
        group
            .get(3)
            .is_some_and(|names| names.split(',').any(|name| name == user[0]))
    });
    let numbers: Vec<String> = member
        .filter_map(|group| group.get(2).map(ToString::to_string))
        .collect();
    let all = numbers.iter().map(String::as_str).chain(own);
    all.filter_map(|gid| gid.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn permissions_of_the_file_and_of_all_folders_above_decide() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let inner = folder.path().canonicalize().unwrap().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let file = inner.join("a.csv");
        std::fs::write(&file, "a").unwrap();
        let owned = std::fs::metadata(&file).unwrap();
        let user = |uid, group| Requester {
            uid,
            groups: [group].into(),
            is_server: false,
        };
        let (stranger, member) = (
            user(owned.uid() + 1000, owned.gid() + 1000),
            user(owned.uid() + 1000, owned.gid()),
        );
        let owner = Requester::from_metadata(&owned, None);
        assert!(!owner.is_server && Requester::from_metadata(&owned, Some(&owned)).is_server);
        let may = |modes: (u32, u32)| {
            std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(modes.0)).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(modes.1)).unwrap();
            let found = std::fs::metadata(&file).unwrap();
            [&owner, &member, &stranger].map(|user| user.may_read(&found, &file).unwrap())
        };
        assert_eq!(may((0o755, 0o644)), [true, true, true]);
        assert_eq!(may((0o755, 0o640)), [true, true, false]);
        assert_eq!(may((0o755, 0o600)), [true, false, false]);
        assert_eq!(may((0o700, 0o644)), [true, false, false]);
        assert_eq!(
            may((0o750, 0o604)),
            [true, false, false],
            "who is of the group does not count as one of the others"
        );
        let found = std::fs::metadata(&file).unwrap();
        assert!(user(0, 0).may_read(&found, &file).unwrap(), "root may");
        let server = Requester {
            is_server: true,
            ..stranger.clone()
        };
        assert!(server.may_read(&found, &file).unwrap(), "the run reads what it can");
    }

    #[test]
    fn groups_are_those_of_the_systems_files() {
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
        let group = "root:x:0:\nann:x:1000:\ndata:x:50:bob,ann\nother:x:51:bob,anna\n";
        assert_eq!(groups_of(1000, passwd, group), [50, 1000]);
        assert_eq!(groups_of(7, passwd, group), Vec::<u32>::new());
    }
}
