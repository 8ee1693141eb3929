//! A store that is out of order for a while is waited for.
//!
//! Clients of object stores try again by themselves, for less than a minute. A store that answers 503 for longer should not end
//! a run that would only start again and ask the same store: so each operation is tried for [`Patience::budget`], with
//! pauses that grow, and a warning that names the place each time. What cannot pass (not found, taken, no permission, a
//! request that the store calls wrong) is told at once.
//!
//! Trying again is safe where the answer to a first try was lost: names are put once and stand for their content, and who
//! puts if absent and finds the name taken looks whether the content is its own (the ledger, a table's log). Deletions are
//! not tried again: whoever deletes comes back by itself. Local disks are not waited for: what fails there
//! (no room, no permission) wants a person.

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

/// How to wait.
pub type Sleep = Arc<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the first failure of an operation to its last try.
    pub budget: Duration,
    /// The first pause; each is twice the one before.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            budget: Duration::from_secs(300),
            first: Duration::from_millis(200),
            longest: Duration::from_secs(10),
        }
    }
}

/// See the module's header.
#[derive(Clone)]
pub struct Patient {
    inner: Arc<dyn ObjectStore>,
    patience: Patience,
    sleep: Sleep,
}

impl Patient {
    /// A store, waited for.
    pub fn new(inner: Arc<dyn ObjectStore>, patience: Patience) -> Patient {
        let sleep: Sleep = Arc::new(|pause| Box::pin(tokio::time::sleep(pause)));
        Patient { inner, patience, sleep }
    }

    /// The same, sleeping otherwise.
    pub fn sleeping(self, sleep: Sleep) -> Patient {
        Patient { sleep, ..self }
    }

    async fn insist<T, F: Future<Output = Result<T>>>(&self, what: &str, mut ask: impl FnMut() -> F) -> Result<T> {
        let (mut waited, mut pause) = (Duration::ZERO, self.patience.first);
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
            tracing::warn!(store = %self.inner, what, %error, ?pause, ?left, "the store fails; trying again");
            (self.sleep)(pause).await;
            waited += pause;
            pause = (pause * 2).min(self.patience.longest);
        }
    }
}

/// Whether the same request may be answered later.
fn may_pass(error: &Error) -> bool {
    let Error::Generic { source, .. } = error else {
        return false;
    };
    let told = crate::causes::chain(source.as_ref());
    // The client tells a status by its text alone.
    let refused = told.contains("status code: 4");
    let for_now = ["408", "425", "429"];
    !refused
        || for_now
            .iter()
            .any(|code| told.contains(&format!("status code: {code}")))
}

impl fmt::Debug for Patient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Patient({:?})", self.inner)
    }
}

impl fmt::Display for Patient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Patient {
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

    fn generic(told: &str) -> Error {
        Error::Generic {
            store: "S3",
            source: told.to_string().into(),
        }
    }

    #[tokio::test]
    async fn what_may_pass_is_asked_again_until_the_budget_is_spent_and_the_rest_is_told_at_once() {
        let store = |budget| {
            let inner = Arc::new(object_store::memory::InMemory::new());
            let patience = Patience {
                budget,
                ..Patience::default()
            };
            Patient::new(inner, patience).sleeping(Arc::new(|_| Box::pin(std::future::ready(()))))
        };
        let unavailable = "Server returned non-2xx status code: 503 Service Unavailable: slow down";
        for (told, failures, expected) in [
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
            // 200 ms, 400 ms, ... 10 s: eight pauses are 35 s.
            let store = store(Duration::from_secs(30));
            let mut asked = 0;
            let answer = store
                .insist("get x", || {
                    asked += 1;
                    std::future::ready(if asked <= failures { Err(generic(told)) } else { Ok(()) })
                })
                .await;
            assert_eq!(answer.map(|()| asked).map_err(|_| asked), expected, "{told}");
        }
        let taken = Error::AlreadyExists {
            path: "x".into(),
            source: "taken".into(),
        };
        assert!(!may_pass(&taken));
    }
}
