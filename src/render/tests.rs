//! Operators against brute-force oracles.
