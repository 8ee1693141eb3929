//! Configures logging: which events are logged, and the format of a line: one line for each event, with untrusted
//! values escaped.

use std::error::Error;
use std::fmt::{self, Debug};
use std::panic::PanicHookInfo;

use anyhow::Result;
use tracing::field::{Field, Visit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use super::UsageError;
use crate::causes;
use crate::contain;
use crate::shown::shown;

/// The default filter. Libraries warn of their internals in their own terms; what concerns a user also arrives as an
/// error.
const USUAL: &str = "error,alluvium=info";

/// Starts to log to stderr; `filter` is the user's, if set.
///
/// # Errors
/// The filter is invalid.
pub(super) fn start(filter: Option<String>) -> Result<()> {
    let filter = match filter.filter(|text| !text.trim().is_empty()) {
        None => EnvFilter::new(USUAL),
        Some(text) => EnvFilter::try_new(&text).map_err(|error| {
            UsageError::new(
                format!("bad ALLUVIUM_LOG: {error}"),
                "write a level (error, warn, info, debug, trace), or as in warn,alluvium::sink=debug",
            )
        })?,
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| crate::run::AboveStatus)
        .with_ansi(false)
        .with_target(false)
        .fmt_fields(HarmlessFields)
        .init();
    std::panic::set_hook(Box::new(tell_panic));
    Ok(())
}

/// Logs a panic like other events. The code that catches the panic reports its consequences.
fn tell_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let place = panic.location().map(ToString::to_string);
    let message = contain::message(panic.payload());
    tracing::warn!(thread = thread.name(), place, "panicked: {message}");
}

/// Formats the fields of an event in the default format (the message, then `name=value`), each escaped by [`shown`].
struct HarmlessFields;

impl<'writer> FormatFields<'writer> for HarmlessFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = FieldWriter {
            writer,
            is_empty: true,
            written: Ok(()),
        };
        fields.record(&mut line);
        line.written
    }
}

struct FieldWriter<'writer> {
    writer: Writer<'writer>,
    is_empty: bool,
    written: fmt::Result,
}

impl FieldWriter<'_> {
    fn push(&mut self, field: &Field, value: &str) {
        // The bridge from the `log` crate stores an event's origin in such fields.
        if self.written.is_err() || field.name().starts_with("log.") {
            return;
        }
        let space = if std::mem::take(&mut self.is_empty) { "" } else { " " };
        let value = shown(value);
        self.written = match field.name() {
            "message" => write!(self.writer, "{space}{value}"),
            name => write!(
                self.writer,
                "{space}{}={value}",
                name.strip_prefix("r#").unwrap_or(name)
            ),
        };
    }
}

impl Visit for FieldWriter<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.push(field, value),
            _ => self.push(field, &format!("{value:?}")),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.push(field, &causes::chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.push(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_and_nothing_of_it_acts_on_a_terminal() {
        let written = Written::default();
        let out = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || out.clone())
            .with_ansi(false)
            .with_target(false)
            .without_time()
            .fmt_fields(HarmlessFields)
            .finish();
        let name = "a\u{1b}[2J\nWARN forged\u{9b}31m.csv";
        tracing::subscriber::with_default(subscriber, || {
            let error = io::Error::other(anyhow::anyhow!("no {name}"));
            tracing::warn!(file = %name, text = name, rows = 3, error = &error as &dyn Error, "could not read {name}");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(!text.trim_end().contains(char::is_control), "{text:?}");
        let name = "a\\u{1b}[2J\\nWARN forged\\u{9b}31m.csv";
        assert!(
            text.contains(&format!("could not read {name} file={name} text=")),
            "{text}"
        );
        assert!(text.contains(&format!("rows=3 error=no {name}")), "{text}");
    }
}
