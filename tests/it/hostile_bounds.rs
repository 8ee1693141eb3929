//! Memory bounded by bytes: large records, large values, many of them.
