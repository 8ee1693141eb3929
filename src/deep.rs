//! Room on the stack for expressions that are deep.
//!
//! SQL that programs write has chains of a thousand operations, and a plan of it is as deep as that: to walk it, to
//! evaluate it and to drop it takes a stack that a thread does not have. Memory is taken for what is used of it only.

/// Bytes of stack for threads that plan or evaluate SQL.
pub const STACK: usize = 256 << 20;

/// Runs `work` where [`STACK`] or half of it is left, on a new stack if need be.
pub fn deep<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(STACK / 2, STACK, work)
}
