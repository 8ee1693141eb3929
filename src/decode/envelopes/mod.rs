//! Formats whose records are changes: Debezium's envelopes, those of programs that read MySQL's binlog (`binlog`:
//! Canal, Maxwell), and rows that Debezium has extracted from its envelopes (`flat`).

pub(in crate::decode) mod binlog;
pub(in crate::decode) mod debezium;
pub(in crate::decode) mod flat;
