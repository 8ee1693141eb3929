//! Settings that feeds of several kinds share: `path`, `follow_links` and `on_missing`.

use crate::definition::location::LocationError;
use crate::definition::settings::{SettingValue, Settings, Text};

/// The setting `path` as it is written.
pub(super) struct WrittenPath<'f> {
    value: SettingValue<'f>,
    text: Text,
}

/// Reads only `path`; none if mistakes were reported.
pub(super) fn read_path<'f>(settings: &mut Settings<'f>) -> Option<WrittenPath<'f>> {
    let value = settings.require("path", "\"drops/orders/*.csv\"")?;
    let text = value.text()?;
    Some(WrittenPath { value, text })
}

impl WrittenPath<'_> {
    /// Converts the path with `locate`; none if that failed, which is reported.
    pub fn located<T>(&self, locate: impl FnOnce(&str) -> Result<T, LocationError>) -> Option<T> {
        let located = locate(&self.text.value);
        let say = |error: LocationError| {
            let message = format!("bad path {:?}: {error}", self.text.written);
            self.value.say(message, error.help());
        };
        located.map_err(say).ok()
    }
}

/// What to do if the source no longer has the next record: retention removed it before it was read, or a log was
/// replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMissing {
    /// The partition waits, and the feed reports what is missing.
    #[default]
    Stop,
    /// Reading continues at the first existing record; missing records are counted, and reported as a dead letter.
    Earliest,
}

/// Reads only `on_missing`; none if mistakes were reported.
pub(super) fn read_on_missing(settings: &mut Settings<'_>) -> Option<OnMissing> {
    match settings.setting("on_missing", "\"stop\"") {
        None => Some(OnMissing::Stop),
        Some(value) => value.choice(&[("stop", OnMissing::Stop), ("earliest", OnMissing::Earliest)]),
    }
}

/// Reads only `follow_links`; none if mistakes were reported.
pub(super) fn read_follow_links(settings: &mut Settings<'_>) -> Option<bool> {
    match settings.setting("follow_links", "true") {
        None => Some(false),
        Some(value) => value.boolean(),
    }
}
