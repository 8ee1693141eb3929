//! SQL and expressions with extreme arguments; what `query` may do.
