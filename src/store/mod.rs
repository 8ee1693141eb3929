//! Object stores by URL: one way to open them, for lakes and feeds alike.

mod closing;
mod patient;

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;

pub use closing::Closing;
pub use patient::{Patience, Patient, Sleep};

/// The store that a URL names, and the path within it. `options` are the store's own (`aws_region`,
/// `azure_storage_account_key`, ...), and beat the environment's. A failure that may pass is waited for ([`Patient`]).
///
/// # Errors
/// A URL of an unknown kind, or options that the store refuses. Nothing is contacted.
pub fn open(
    url: &Url,
    options: &BTreeMap<String, String>,
) -> Result<(Arc<dyn ObjectStore>, Path), object_store::Error> {
    let (store, path) = object_store::parse_url_opts(url, with_environment(options))?;
    let store: Arc<dyn ObjectStore> = store.into();
    Ok((Arc::new(Patient::new(store, Patience::default())), path))
}

/// The environment's settings of the clouds' stores, then the user's own.
fn with_environment(options: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = std::env::vars()
        .filter(|(name, _)| ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|p| name.starts_with(p)))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    all.extend(options.iter().map(|(k, v)| (k.to_ascii_lowercase(), v.clone())));
    all
}
