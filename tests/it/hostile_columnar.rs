//! Parquet, Avro, JSON and change records that are damaged, extreme or unusual.
