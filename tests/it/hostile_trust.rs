//! Requests, clients and faults that somebody else causes.
