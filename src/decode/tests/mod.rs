//! Tests of decoders from the outside: what users send, and the result.

mod avro;
mod columnar;
mod csv;
mod debezium;
mod debezium_avro;
mod fields;
mod flat;
mod isolation;
mod json;
mod protobuf;
mod real;
mod recorded;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::BinaryArray;
use arrow::util::display::array_value_to_string;

use crate::decode::Decoder;
use crate::decode::decoded::{ChangeOp, Decoded, Payloads, Raw};
use crate::definition::{
    Column, Feed, FeedKind, FileFeed, Format, Input, Kafka, KafkaClient, KafkaStart, LogFeed, OnMissing,
};
use crate::registry::Registries;

/// A column for a definition.
#[derive(Clone)]
struct Col(Column);

fn col(name: &str, sql_type: &str) -> Col {
    Col(Column {
        name: name.to_string(),
        sql_type: sql_type.parse().unwrap(),
        nullable: true,
        from: vec![name.to_string()],
        format: Vec::new(),
        null: Vec::new(),
    })
}

impl Col {
    fn from(mut self, names: &[&str]) -> Col {
        self.0.from = names.iter().map(|n| n.to_string()).collect();
        self
    }

    fn format(mut self, formats: &[&str]) -> Col {
        self.0.format = formats.iter().map(|n| n.to_string()).collect();
        self
    }

    fn null(mut self, texts: &[&str]) -> Col {
        self.0.null = texts.iter().map(|n| n.to_string()).collect();
        self
    }

    fn required(mut self) -> Col {
        self.0.nullable = false;
        self
    }
}

/// An input with one feed.
fn input(format: Format, key: &[&str], columns: Vec<Col>) -> Input {
    let columns: Vec<Column> = columns.into_iter().map(|c| c.0).collect();
    Input {
        name: "things".to_string(),
        description: None,
        columns: columns.clone(),
        key: key.iter().map(|k| k.to_string()).collect(),
        order_by: Vec::new(),
        dedup_key: Vec::new(),
        bronze: true,
        retention: None,
        evolved: vec![],
        feeds: vec![Feed {
            name: "feed".to_string(),
            kind: match format {
                Format::Avro | Format::Parquet => FeedKind::Files(FileFeed {
                    path: String::new(),
                    rules: Default::default(),
                }),
                _ => FeedKind::Log(LogFeed {
                    path: PathBuf::new(),
                    rules: Default::default(),
                }),
            },
            format,
            wire: Default::default(),
            columns,
            max_record: 16 << 20,
        }],
        file: PathBuf::new(),
    }
}

/// A feed that reads topics.
fn kafka(topics: &[&str]) -> FeedKind {
    FeedKind::Kafka(Kafka {
        client: KafkaClient {
            brokers: "broker:9092".into(),
            options: Default::default(),
        },
        topics: topics.iter().map(|topic| topic.to_string()).collect(),
        start: KafkaStart::Earliest,
        on_missing: OnMissing::Stop,
        group: None,
        transactions: None,
    })
}

/// A decoder that needs no registry, or whose registry always answers.
struct Ready(Decoder);

impl Ready {
    fn decode(&mut self, raw: Raw) -> Decoded {
        self.0.decode(raw).unwrap()
    }
}

fn decoder(format: Format, key: &[&str], columns: Vec<Col>) -> Ready {
    let input = input(format, key, columns);
    Ready(Decoder::new(&input, &input.feeds[0], &Registries::new(None)).unwrap())
}

/// A record's key and value.
type KeyAndValue<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// Records with values and keys, and a header.
fn keyed(header: Option<&str>, records: &[KeyAndValue<'_>]) -> Raw {
    Raw {
        payloads: Payloads::Records {
            headers: None,
            values: records.iter().map(|(_, value)| *value).collect::<BinaryArray>(),
            keys: records
                .iter()
                .any(|(key, _)| key.is_some())
                .then(|| records.iter().map(|(key, _)| *key).collect::<BinaryArray>()),
            ts_ms: vec![None; records.len()],
        },
        offsets: (0..records.len() as u64).collect(),
        header: header.map(Arc::from),
        cut: Vec::new(),
        place: Default::default(),
    }
}

fn raw<T: AsRef<[u8]>>(header: Option<&str>, records: &[T]) -> Raw {
    let records: Vec<_> = records.iter().map(|r| (None, Some(r.as_ref()))).collect();
    keyed(header, &records)
}

/// One line for each row: record, operation, values.
fn rows(decoded: &Decoded) -> Vec<String> {
    let values = |row: usize| {
        let columns = decoded.rows.columns().iter();
        let texts = columns.map(|c| {
            if c.is_null(row) {
                "-".to_string()
            } else {
                array_value_to_string(c, row).unwrap()
            }
        });
        texts.collect::<Vec<_>>().join("|")
    };
    assert_eq!(decoded.rows.num_rows(), decoded.ops.len());
    assert_eq!(decoded.record.len(), decoded.ops.len());
    (0..decoded.ops.len())
        .map(|row| {
            let op = match decoded.ops[row] {
                ChangeOp::Upsert => '+',
                ChangeOp::Delete => '-',
                ChangeOp::Truncate => '0',
            };
            format!("{}{op} {}", decoded.record[row], values(row))
        })
        .collect()
}

/// One line for each reject.
fn rejects(decoded: &Decoded) -> Vec<String> {
    let line = |r: &crate::decode::decoded::Reject| format!("{}: {}", r.record.unwrap(), r.reason);
    decoded.rejects.iter().map(line).collect()
}
