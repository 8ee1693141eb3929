//! Kind `generate`: the events of a built-in generator.

use super::contract::{FeedContract, FeedSurroundings, Unwritable, WriteTarget};
use super::kind::KindOfFeed;
use crate::definition::Format;
use crate::definition::diagnostic::nearest;
use crate::definition::settings::{SettingValue, Settings};
use crate::repr::Position;

/// The kind's properties.
pub(super) const KIND: KindOfFeed = KindOfFeed {
    name: "generate",
    formats: &[Format::Json, Format::DebeziumJson, Format::Csv],
    settings: &[
        "generator",
        "rate",
        "limit",
        "seed",
        "partitions",
        "updates",
        "deletes",
        "duplicates",
        "late",
        "broken",
    ],
    has_usual_format: true,
    takes_formats: Some("this generator"),
    ..KindOfFeed::OF_RECORDS
};

const ROWS: &[Format] = &[Format::Json, Format::Csv];
const ENVELOPES: &[Format] = &[Format::DebeziumJson];

/// The built-in generators with the formats of their events; the first format is the default.
pub const GENERATORS: [(&str, &[Format]); 9] = [
    ("retail.order_lines", ROWS),
    ("retail.products", ENVELOPES),
    ("retail.customers", ENVELOPES),
    ("retail.stock_movements", ENVELOPES),
    ("retail.redemptions", ROWS),
    ("devices.telemetry", ROWS),
    ("logistics.tickets", ROWS),
    ("logistics.permits", ROWS),
    ("logistics.trips", ROWS),
];

/// Settings of a built-in generator.
#[derive(Clone, Debug, PartialEq)]
pub struct Generate {
    /// Which generator (`retail.order_lines`, ...).
    pub generator: String,
    /// Events per second; none: as fast as workers accept them.
    pub rate: Option<f64>,
    /// The total number of events; none: unlimited.
    pub limit: Option<u64>,
    /// The seed: two runs with the same seed generate the same events.
    pub seed: u64,
    /// The number of partitions.
    pub partitions: u32,
    /// The share of updates among all events, from 0 to 1.
    pub updates: f64,
    /// The share of deletes of earlier keys.
    pub deletes: f64,
    /// The share of repeated events.
    pub duplicates: f64,
    /// The share of events with an event time in the past.
    pub late: f64,
    /// The share of events that do not decode.
    pub broken: f64,
}

impl FeedContract for Generate {
    fn describe(&self, _: &FeedSurroundings<'_>) -> String {
        format!("generate {}", self.generator)
    }

    fn formats(&self) -> Option<&'static [Format]> {
        let known = GENERATORS.iter().find(|(name, _)| *name == self.generator);
        Some(known.map_or(&[], |(_, formats)| formats))
    }

    fn changes_rows(&self) -> bool {
        self.updates > 0.0 || self.deletes > 0.0
    }

    fn repeats(&self, _: &Position) -> bool {
        self.rate.is_none()
    }

    fn written_to(&self) -> Result<WriteTarget<'_>, Unwritable> {
        Err(Unwritable {
            reason: "makes its own events",
            help: "name a feed of kind \"files\" or \"log\"; this one is served by `alluvium run`",
        })
    }
}

/// Reads the settings; none if mistakes were reported.
pub(super) fn read(settings: &mut Settings<'_>) -> Option<Generate> {
    let generator = settings
        .require("generator", "\"retail.order_lines\"")
        .and_then(|value| read_generator(&value));
    let rate = match settings.setting("rate", "5800") {
        None => Some(None),
        Some(value) => value.number().and_then(|rate| {
            if rate > 0.0 {
                return Some(Some(rate));
            }
            value.say(
                "setting \"rate\" must be above 0",
                "it is in events per second; without it events come as fast as possible",
            );
            None
        }),
    };
    let limit = settings
        .setting("limit", "100000")
        .map_or(Some(None), |value| value.whole().map(Some));
    let seed = settings.setting("seed", "42").map_or(Some(0), |value| value.whole());
    let partitions = settings.setting("partitions", "4").map_or(Some(1), |value| {
        let partitions = value.whole()?;
        if (1..=1024).contains(&partitions) {
            return Some(partitions as u32);
        }
        value.say("setting \"partitions\" must be 1 to 1024", "write partitions = 4");
        None
    });
    let mut share = |name: &'static str| {
        settings.setting(name, "0.01").map_or(Some(0.0), |value| {
            let share = value.number()?;
            if (0.0..=1.0).contains(&share) {
                return Some(share);
            }
            value.say(
                format!("setting {name:?} is a share of all events, and not from 0 to 1"),
                format!("write {name} = 0.01 for one event in a hundred"),
            );
            None
        })
    };
    let (updates, deletes, duplicates) = (share("updates"), share("deletes"), share("duplicates"));
    let (late, broken) = (share("late"), share("broken"));
    let shares = [updates, deletes, duplicates, late, broken];
    if shares.into_iter().flatten().sum::<f64>() > 1.0 {
        settings.say(
            "the shares of updates, deletes, duplicates, late and broken events are more than 1 together",
            "what they leave of 1 is new rows; make them smaller",
        );
        return None;
    }
    Some(Generate {
        generator: generator?,
        rate: rate?,
        limit: limit?,
        seed: seed?,
        partitions: partitions?,
        updates: updates?,
        deletes: deletes?,
        duplicates: duplicates?,
        late: late?,
        broken: broken?,
    })
}

fn read_generator(value: &SettingValue<'_>) -> Option<String> {
    let text = value.text()?;
    let names = GENERATORS.map(|(name, _)| name);
    if names.contains(&text.value.as_str()) {
        return Some(text.value);
    }
    // `telemetry` is taken for `devices.telemetry`.
    let short = names
        .into_iter()
        .find(|name| name.rsplit('.').next() == Some(&text.value));
    value.say(
        format!("unknown generator {:?}", text.written),
        match short.or_else(|| nearest(&text.value, names)) {
            Some(near) => format!("did you mean {near:?}? generators are {}", names.join(", ")),
            None => format!("generators are {}", names.join(", ")),
        },
    );
    None
}
