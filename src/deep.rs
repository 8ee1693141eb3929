//! Runs work that recurses deeply on a stack that is large enough.
//!
//! SQL that programs generate has chains of a thousand operations, and a plan of it is as deep. To walk, evaluate and
//! drop it takes more stack than a thread has. Memory is committed only for the part of a stack that is used.

/// The size of the stack, in bytes, of threads that plan or evaluate SQL.
pub const STACK: usize = 256 << 20;

/// Runs `work` on a stack with at least half of [`STACK`] left, which is a new one if necessary.
pub fn deep<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(STACK / 2, STACK, work)
}
