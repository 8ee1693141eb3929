//! Classifies the commits of other writers by what they mean for ours.

use std::collections::BTreeMap;
use std::fmt;

use super::action::{Action, RemoveFile};
use crate::sink::AddFile;

/// The kinds of commits that other writers put.
#[derive(Debug)]
pub enum Foreign {
    /// It adds files, or touches no data at all: the row positions that we know still hold.
    Append(Vec<AddFile>),
    /// It claims to put the same rows into other files.
    Rewrite(Rewrite),
    /// It changes rows, or how rows are to be read; the text says for people what it did.
    Change(String),
}

/// An OPTIMIZE.
#[derive(Debug)]
pub struct Rewrite {
    /// Files that went.
    pub removed: Vec<RemoveFile>,
    /// Files that came.
    pub added: Vec<AddFile>,
}

impl Rewrite {
    /// Whether it removed files exactly as they were just before it, and added others.
    pub fn fits(&self, before: &BTreeMap<String, AddFile>) -> bool {
        let was = |remove: &RemoveFile| {
            before
                .get(&remove.path)
                .is_some_and(|f| f.deletion_vector == remove.deletion_vector)
        };
        let fresh = |come: &AddFile| {
            !before.contains_key(&come.path) || self.removed.iter().any(|remove| remove.path == come.path)
        };
        self.removed.iter().all(was) && self.added.iter().all(fresh)
    }
}

impl Foreign {
    /// Classifies a commit by its actions.
    pub fn from_actions(actions: &[Action]) -> Foreign {
        let removed: Vec<&RemoveFile> = actions.iter().filter_map(|a| a.remove.as_ref()).collect();
        let added: Vec<&AddFile> = actions.iter().filter_map(|a| a.add.as_ref()).collect();
        let changing: Vec<_> = removed.iter().filter(|r| r.data_change).collect();
        if actions.iter().any(|a| a.protocol.is_some()) {
            Foreign::Change("changed the table's protocol".into())
        } else if actions.iter().any(|a| a.meta_data.is_some()) {
            Foreign::Change("changed the table's schema or settings".into())
        } else if let Some(first) = changing.first() {
            let count = changing.len();
            Foreign::Change(format!(
                "removed or changed rows of {count} data files ({}, ...)",
                first.path
            ))
        } else if removed.is_empty() {
            Foreign::Append(added.into_iter().cloned().collect())
        } else if let Some(add) = added.iter().find(|a| a.data_change) {
            Foreign::Change(format!("replaced data files by other rows ({}, ...)", add.path))
        } else {
            Foreign::Rewrite(Rewrite {
                removed: removed.into_iter().cloned().collect(),
                added: added.into_iter().cloned().collect(),
            })
        }
    }
}

/// Displays who put a commit and with which operation.
pub struct CommitAuthor<'a>(pub &'a [Action]);

impl fmt::Display for CommitAuthor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.0.iter().find_map(|a| a.commit_info.as_ref());
        let field = |names: [&str; 2]| {
            let value = names.into_iter().find_map(|name| info?.get(name)?.as_str());
            value.unwrap_or("unknown").to_string()
        };
        let (engine, operation) = (
            field(["engineInfo", "clientVersion"]),
            field(["operation", "operationName"]),
        );
        write!(f, "another writer ({engine}, {operation})")
    }
}
