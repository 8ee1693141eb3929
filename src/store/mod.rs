//! Opens object stores by URL, in one way for lakes and feeds.

mod closing;
mod retrying;

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;

pub use closing::Closing;
pub use retrying::{RetryPolicy, RetryingStore, Sleep};

/// Opens the store that a URL names, and returns it with the path within it. `options` are the store's own
/// (`aws_region`, `azure_storage_account_key`, ...), and take precedence over the environment's. Operations that fail
/// for reasons that may pass are tried again ([`RetryingStore`]).
///
/// # Errors
/// The URL is of an unknown kind, or the store refuses an option. Nothing is contacted.
pub fn open(
    url: &Url,
    options: &BTreeMap<String, String>,
) -> Result<(Arc<dyn ObjectStore>, Path), object_store::Error> {
    let (store, path) = object_store::parse_url_opts(url, with_environment(options))?;
    let store: Arc<dyn ObjectStore> = store.into();
    Ok((Arc::new(RetryingStore::new(store, RetryPolicy::default())), path))
}

/// Adds the cloud stores' settings from the environment to the user's options, which take precedence.
fn with_environment(options: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = std::env::vars()
        .filter(|(name, _)| ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|p| name.starts_with(p)))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    all.extend(options.iter().map(|(k, v)| (k.to_ascii_lowercase(), v.clone())));
    all
}
