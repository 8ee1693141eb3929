//! A store that tries failed operations again for a while.
//!
//! Clients of object stores retry by themselves, but for less than a minute. A store that answers 503 for longer
//! should not end a run, which would only start again and ask the same store. So each operation is tried for
//! [`RetryPolicy::budget`], with pauses that grow, and each failure logs a warning with the place. Errors that cannot
//! pass (not found, name taken, no permission, a bad request) are returned at once.
//!
//! Trying again is safe even if only the answer to the first try was lost. A name is written once and determines its
//! content; and a caller of put-if-absent who finds the name taken checks whether the content is its own (as for the
//! ledger and a table's log). Deletions are not tried again, because their callers repeat them anyway. Errors of local
//! disks are not retried, because they (no room, no permission) need a person.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::backoff::Backoff;

/// Sleeps for a duration. Tests replace it.
pub type Sleep = Arc<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// How long to try again.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// The time from the first failure of an operation to its last try.
    pub budget: Duration,
    /// The first pause; each further pause is twice as long as the one before.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            budget: Duration::from_secs(300),
            first: Duration::from_millis(200),
            longest: Duration::from_secs(10),
        }
    }
}

/// See the module's header.
#[derive(Clone)]
pub struct RetryingStore {
    inner: Arc<dyn ObjectStore>,
    patience: RetryPolicy,
    sleep: Sleep,
}

impl RetryingStore {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn ObjectStore>, patience: RetryPolicy) -> RetryingStore {
        let sleep: Sleep = Arc::new(|pause| Box::pin(tokio::time::sleep(pause)));
        RetryingStore { inner, patience, sleep }
    }

    /// Replaces the sleep.
    pub fn sleeping(self, sleep: Sleep) -> RetryingStore {
        RetryingStore { sleep, ..self }
    }

    async fn insist<T, F: Future<Output = Result<T>>>(&self, what: &str, mut ask: impl FnMut() -> F) -> Result<T> {
        let mut waited = Duration::ZERO;
        let mut backoff = Backoff::new(self.patience.first, self.patience.longest);
        let mut since: Option<Instant> = None;
        loop {
            let error = match ask().await {
                Err(error) if may_pass(&error) && waited < self.patience.budget => error,
                outcome => {
                    if let (Ok(_), Some(since)) = (&outcome, since) {
                        tracing::info!(store = %self.inner, what, after = ?since.elapsed(), "the store answers again");
                    }
                    return outcome;
                }
            };
            since.get_or_insert_with(Instant::now);
            let left = self.patience.budget.saturating_sub(waited);
            waited += backoff.most();
            let pause = backoff.pause();
            tracing::warn!(store = %self.inner, what, %error, ?pause, ?left, "the store fails; trying again");
            (self.sleep)(pause).await;
        }
    }
}

/// Whether the same request may succeed later.
fn may_pass(error: &Error) -> bool {
    let Error::Generic { source, .. } = error else {
        return false;
    };
    let message = crate::causes::chain(source.as_ref());
    // The client reports a status only in the text of its error.
    let refused = message.contains("status code: 4");
    let for_now = ["408", "425", "429"];
    !refused
        || for_now
            .iter()
            .any(|code| message.contains(&format!("status code: {code}")))
}

impl fmt::Debug for RetryingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Patient({:?})", self.inner)
    }
}

impl fmt::Display for RetryingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for RetryingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.insist(&format!("put {location}"), || {
            self.inner.put_opts(location, payload.clone(), options.clone())
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.insist(&format!("put {location}"), || {
            self.inner.put_multipart_opts(location, options.clone())
        })
        .await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.insist(&format!("get {location}"), || {
            self.inner.get_opts(location, options.clone())
        })
        .await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            let what = format!("list {}", prefix.clone().unwrap_or_default());
            let listed = store.insist(&what, || store.inner.list(prefix.as_ref()).try_collect::<Vec<_>>());
            match listed.await {
                Ok(found) => stream::iter(found.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => stream::iter(vec![Err(error)]),
            }
        };
        stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let what = format!("list {}", prefix.cloned().unwrap_or_default());
        self.insist(&what, || self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.insist(&format!("copy {from} to {to}"), || {
            self.inner.copy_opts(from, to, options.clone())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(message: &str) -> Error {
        Error::Generic {
            store: "S3",
            source: message.to_string().into(),
        }
    }

    #[tokio::test]
    async fn what_may_pass_is_asked_again_until_the_budget_is_spent_and_the_rest_is_told_at_once() {
        let store = |budget| {
            let inner = Arc::new(object_store::memory::InMemory::new());
            let patience = RetryPolicy {
                budget,
                ..RetryPolicy::default()
            };
            RetryingStore::new(inner, patience).sleeping(Arc::new(|_| Box::pin(std::future::ready(()))))
        };
        let unavailable = "Server returned non-2xx status code: 503 Service Unavailable: slow down";
        for (message, failures, expected) in [
            (unavailable, 7, Ok(8)),
            ("error sending request: connection refused", 7, Ok(8)),
            ("Server returned non-2xx status code: 429 Too Many Requests", 1, Ok(2)),
            (
                "Server returned non-2xx status code: 400 Bad Request: signature",
                1,
                Err(1),
            ),
            (unavailable, 1000, Err(9)),
        ] {
            // The pauses are 200 ms, 400 ms, ... 10 s; eight of them take 35 s.
            let store = store(Duration::from_secs(30));
            let mut asked = 0;
            let answer = store
                .insist("get x", || {
                    asked += 1;
                    std::future::ready(if asked <= failures {
                        Err(generic(message))
                    } else {
                        Ok(())
                    })
                })
                .await;
            assert_eq!(answer.map(|()| asked).map_err(|_| asked), expected, "{message}");
        }
        let taken = Error::AlreadyExists {
            path: "x".into(),
            source: "taken".into(),
        };
        assert!(!may_pass(&taken));
    }
}
