//! Locates the checkout and the real data for tests and benchmarks, and decides what happens to a test whose
//! prerequisites are missing. The crate's own tests use it as a module; `tests/it` and `benches` include it by path.

use std::path::PathBuf;

/// A prerequisite of tests. `ALLUVIUM_REQUIRE` lists those that must be there, or `all`. A test without a prerequisite
/// that is not listed there returns early and counts as passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "who includes this file needs some of it")]
pub enum Prerequisite {
    /// `data`: files beside the checkout.
    Data,
    /// `services`: servers that `scripts/services` starts.
    Services,
    /// `tools`: programs that `scripts/test` installs.
    Tools,
}

impl Prerequisite {
    fn name(self) -> &'static str {
        match self {
            Prerequisite::Data => "data",
            Prerequisite::Services => "services",
            Prerequisite::Tools => "tools",
        }
    }
}

/// Prints that a test is skipped because a prerequisite is missing.
///
/// # Panics
/// If `ALLUVIUM_REQUIRE` lists the prerequisite.
#[allow(dead_code, reason = "who includes this file needs some of it")]
pub fn skip(need: Prerequisite, why: &str) {
    let required = std::env::var("ALLUVIUM_REQUIRE").unwrap_or_default();
    let is_required = required.split(',').any(|one| one == "all" || one == need.name());
    assert!(
        !is_required,
        "ALLUVIUM_REQUIRE={required} asks for {}: {why}",
        need.name()
    );
    eprintln!("SKIPPED: {why}");
}

/// The checkout under test. The environment at run time takes precedence over the one at compile time: a build cache
/// that several checkouts share reuses a binary whose sources have not changed, with the folder it was compiled in.
pub fn checkout() -> PathBuf {
    let running = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    running.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")))
}

/// A folder or file of the real data, if it exists in `ALLUVIUM_DATA`, or in `shared/data` beside the checkout.
/// Otherwise calls [`skip`].
pub fn real_data(what: &str) -> Option<PathBuf> {
    let checkout = checkout();
    let beside = checkout.ancestors().skip(1).map(|a| a.join("shared/data"));
    let named = std::env::var_os("ALLUVIUM_DATA").map(PathBuf::from);
    let places = named.into_iter().chain(beside);
    let place = places.map(|data| data.join(what)).find(|place| place.exists());
    if place.is_none() {
        let why = format!("no real data {what:?}: set ALLUVIUM_DATA, or put shared/data beside the checkout");
        skip(Prerequisite::Data, &why);
    }
    place
}
