//! Panics of code that is not ours, as errors.
//!
//! A kernel of DataFusion or Arrow that panics over one row must not end the run: the row is data, and so is its error.
//!
//! Catching a panic is sound only where nothing that outlives it can be half changed. That holds for what is given to
//! [`contain`]: it reads immutable Arrow arrays and returns new ones, and what it had begun is dropped as the stack unwinds.
//! Nothing that writes to shared state may be given to it.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// How many calls of [`contain`] this thread is in.
    static CONTAINED: Cell<usize> = const { Cell::new(0) };
}

/// Runs a pure computation; a panic in it becomes an error that says what the panic said. It is not printed, as the caller
/// tells it where it belongs.
///
/// # Errors
/// The message of the panic, on one line.
pub fn contain<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    silence();
    let _inside = Inside::enter();
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| message(panic.as_ref()))
}

/// Counts this thread in as long as it lives.
struct Inside;

impl Inside {
    fn enter() -> Inside {
        CONTAINED.with(|inside| inside.set(inside.get() + 1));
        Inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        CONTAINED.with(|inside| inside.set(inside.get() - 1));
    }
}

/// Keeps the panic hook from printing panics that are contained.
fn silence() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // A thread that is going away has no counter any more.
            if CONTAINED.try_with(Cell::get).unwrap_or(0) == 0 {
                before(info);
            }
        }));
    });
}

/// What a panic said, on one line.
pub fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_and_the_thread_goes_on() {
        assert_eq!(contain(|| 1 + 1), Ok(2));
        assert_eq!(
            contain(|| panic!("no\n  such {}", "digit")),
            Err::<(), _>("no such digit".to_string())
        );
        let nested = contain(|| contain(|| -> u8 { panic!("inner") }));
        assert_eq!(nested, Ok(Err("inner".to_string())));
        assert_eq!(CONTAINED.with(Cell::get), 0);
    }
}
