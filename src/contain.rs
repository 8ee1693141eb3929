//! Turns panics of code that is not ours into errors.
//!
//! A kernel of DataFusion or Arrow that panics for one row must not end the run: the row is data, and so is its error.
//!
//! Catching a panic is sound only if nothing that outlives it can be left half changed. That holds for the closures
//! that are passed to [`contain`]: they read immutable Arrow arrays and return new ones, and unfinished results are
//! dropped while the stack unwinds. A closure that writes to shared state must not be passed to it.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// How many calls of [`contain`] are on this thread's stack.
    static CONTAINED: Cell<usize> = const { Cell::new(0) };
}

/// Runs a pure computation, and turns a panic in it into an error. The panic is not printed, because the caller
/// reports it in the right place.
///
/// # Errors
/// The panic's message, on one line.
pub fn contain<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    silence();
    let _inside = ContainGuard::enter();
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| message(panic.as_ref()))
}

/// Counts a call of [`contain`] on this thread while it exists.
struct ContainGuard;

impl ContainGuard {
    fn enter() -> ContainGuard {
        CONTAINED.with(|inside| inside.set(inside.get() + 1));
        ContainGuard
    }
}

impl Drop for ContainGuard {
    fn drop(&mut self) {
        CONTAINED.with(|inside| inside.set(inside.get() - 1));
    }
}

/// Keeps the panic hook from printing contained panics.
fn silence() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // While a thread ends, its counter may already be gone.
            if CONTAINED.try_with(Cell::get).unwrap_or(0) == 0 {
                before(info);
            }
        }));
    });
}

/// The message of a panic, on one line.
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
