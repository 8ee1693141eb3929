//! What another writer's commit means for ours.

use std::collections::BTreeMap;
use std::fmt;

use super::action::{Action, RemoveFile};
use crate::sink::AddFile;

/// A commit that is not ours.
#[derive(Debug)]
pub enum Foreign {
    /// It adds files, or touches no data at all: our places hold.
    Append(Vec<AddFile>),
    /// The same rows in other files, as it claims.
    Rewrite(Rewrite),
    /// It changes rows, or what rows mean: what it did, for people.
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
    /// Whether it took away files as they were just before it, and brought others.
    pub fn fits(&self, before: &BTreeMap<String, AddFile>) -> bool {
        let was = |gone: &RemoveFile| {
            before
                .get(&gone.path)
                .is_some_and(|f| f.deletion_vector == gone.deletion_vector)
        };
        self.removed.iter().all(was) && self.added.iter().all(|come| !before.contains_key(&come.path))
    }
}

impl Foreign {
    /// What a commit's actions come to.
    pub fn of(actions: &[Action]) -> Foreign {
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

/// Who put a commit, for people.
pub struct By<'a>(pub &'a [Action]);

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.0.iter().find_map(|a| a.commit_info.as_ref());
        let field = |names: [&str; 2]| {
            let told = names.into_iter().find_map(|name| info?.get(name)?.as_str());
            told.unwrap_or("unknown").to_string()
        };
        let (engine, operation) = (
            field(["engineInfo", "clientVersion"]),
            field(["operation", "operationName"]),
        );
        write!(f, "another writer ({engine}, {operation})")
    }
}
