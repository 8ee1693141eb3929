//! The properties of a kind of feed in definitions: its name, its formats, and its own settings.

use crate::definition::Format;

/// A kind of feed. [`KindOfFeed::OF_RECORDS`] has the properties of most kinds.
pub(super) struct KindOfFeed {
    /// The value of `kind`.
    pub name: &'static str,
    /// The formats that its feeds accept, in the order in which messages list them.
    pub formats: &'static [Format],
    /// The settings that not every kind has, and this one has. (`tables` is not among them, because two formats have
    /// it, too.)
    pub settings: &'static [&'static str],
    /// Whether `format` is optional; the default is the first format.
    pub has_usual_format: bool,
    /// What accepts formats, in the words of messages; none: the kind.
    pub takes_formats: Option<&'static str>,
    /// Whether its feeds read whole files, whose text has a dialect.
    pub reads_files: bool,
    /// The message about `registry` and related settings if no format of the kind uses schema ids.
    pub without_registry: &'static str,
}

impl KindOfFeed {
    /// A kind of records whose format must be given.
    pub const OF_RECORDS: KindOfFeed = KindOfFeed {
        name: "",
        formats: &[
            Format::Json,
            Format::DebeziumJson,
            Format::Avro,
            Format::DebeziumAvro,
            Format::JsonSchema,
            Format::Protobuf,
            Format::CanalJson,
            Format::MaxwellJson,
            Format::Raw,
        ],
        settings: &[],
        has_usual_format: false,
        takes_formats: None,
        reads_files: false,
        without_registry: "it is for records of a stream, not for files; remove it",
    };

    /// Whether some format of the kind uses schema ids.
    pub fn has_schemas(&self) -> bool {
        self.formats.contains(&Format::Protobuf)
    }
}
