//! Inputs against the batch oracle.
