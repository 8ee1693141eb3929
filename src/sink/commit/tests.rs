//! The committer against real tables.
