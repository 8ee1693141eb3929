//! Where tests and benchmarks find what they read: the checkout, and the real data beside it. Shared by the
//! crate's own tests and, by path, by `tests/it` and `benches`.

use std::path::PathBuf;

/// The checkout under test. Asked when the test runs, because a build cache that several checkouts share keeps
/// a binary whose sources have not changed, along with the folder it was compiled in.
pub fn checkout() -> PathBuf {
    let running = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    running.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")))
}

/// A folder or file of the real data, if it is here: under `ALLUVIUM_DATA`, or under `shared/data` beside the checkout.
pub fn real_data(what: &str) -> Option<PathBuf> {
    let checkout = checkout();
    let beside = checkout.ancestors().skip(1).map(|a| a.join("shared/data"));
    let named = std::env::var_os("ALLUVIUM_DATA").map(PathBuf::from);
    let places = named.into_iter().chain(beside);
    let found = places.map(|data| data.join(what)).find(|place| place.exists());
    if found.is_none() {
        eprintln!("SKIPPED: no real data {what:?}: set ALLUVIUM_DATA, or put shared/data beside the checkout");
    }
    found
}
