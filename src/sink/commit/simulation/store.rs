//! An object store in memory: every operation waits until the simulation decides its fate.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::channel::oneshot;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// The fate of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is done, and answered.
    Done,
    /// It is done, but the answer is lost.
    Lost,
    /// It is not done; the store answers 503.
    Refused,
}

/// An operation that waits.
pub struct WaitingOperation {
    /// The process that waits.
    pub process: usize,
    /// The operation, described for people.
    pub what: String,
    gate: oneshot::Sender<Fate>,
}

impl WaitingOperation {
    /// Decides the operation's fate and lets it go on.
    pub fn decide(self, fate: Fate) {
        // The receiver is gone if the process has died.
        let _ = self.gate.send(fate);
    }
}

/// Numbers from a seed (xorshift64*).
pub struct Random(pub u64);

impl Random {
    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }

    /// Returns true with a probability of `permille` thousandths.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }
}

/// The state that all processes share.
pub struct World {
    /// The content of the store.
    pub objects: Arc<InMemory>,
    /// Operations that wait for a decision.
    pub waiting: Mutex<Vec<WaitingOperation>>,
    /// The random numbers that drive everything.
    pub random: Mutex<Random>,
    /// Whether operations may fail.
    pub faults: Mutex<bool>,
}

impl World {
    /// The random numbers. Hold the guard for a single statement only.
    pub fn random(&self) -> MutexGuard<'_, Random> {
        self.random.lock().unwrap()
    }

    /// Waits until the operation is scheduled; returns its fate.
    pub async fn gate(&self, process: usize, what: String) -> Fate {
        let (gate, decided) = oneshot::channel();
        self.waiting
            .lock()
            .unwrap()
            .push(WaitingOperation { process, what, gate });
        decided.await.unwrap_or(Fate::Refused)
    }
}

/// The store as one process sees it.
#[derive(Clone)]
pub struct SimStore {
    /// The state shared with the other processes.
    pub world: Arc<World>,
    /// The process that uses it.
    pub process: usize,
    /// Whether operations are decided at once: for writers, whose threads wait for the store.
    pub immediate: bool,
}

impl SimStore {
    async fn fate(&self, what: &str, path: &Path) -> Fate {
        if !self.immediate {
            return self.world.gate(self.process, format!("{what} {path}")).await;
        }
        // Several threads may read at once; they must not draw random numbers, because their order is not
        // deterministic.
        if what != "put" || !*self.world.faults.lock().unwrap() {
            return Fate::Done;
        }
        match self.world.random().below(200) {
            0 => Fate::Lost,
            1 => Fate::Refused,
            _ => Fate::Done,
        }
    }

    /// A sleep function: its caller sleeps until it is scheduled.
    pub fn sleep(&self) -> impl Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync + use<> {
        let store = self.clone();
        move |_| {
            let store = store.clone();
            Box::pin(async move {
                if !store.immediate {
                    store.world.gate(store.process, "sleep".into()).await;
                }
            })
        }
    }
}

fn unavailable() -> Error {
    Error::Generic {
        store: "simulated",
        source: "503 Slow Down".into(),
    }
}

macro_rules! decided {
    ($fate:expr, $operation:expr) => {
        match $fate {
            Fate::Refused => Err(unavailable()),
            Fate::Done => $operation,
            Fate::Lost => {
                let _ = $operation;
                Err(unavailable())
            }
        }
    };
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimStore({})", self.process)
    }
}

impl fmt::Display for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimStore({})", self.process)
    }
}

#[async_trait::async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fate = self.fate("put", location).await;
        decided!(
            fate,
            self.world
                .objects
                .put_opts(location, payload.clone(), options.clone())
                .await
        )
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        unreachable!("nothing here is that large")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fate = self.fate("get", location).await;
        decided!(fate, self.world.objects.get_opts(location, options.clone()).await)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        paths
            .and_then(move |path| {
                let store = store.clone();
                async move {
                    let fate = store.fate("delete", &path).await;
                    let deletion = stream::iter([Ok(path.clone())]).boxed();
                    let mut deletion = store.world.objects.delete_stream(deletion);
                    decided!(fate, deletion.try_next().await.map(|_| path.clone()))
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            let fate = store.fate("list", &prefix.clone().unwrap_or_default()).await;
            let found: Result<Vec<ObjectMeta>> = decided!(
                fate,
                store.world.objects.list(prefix.as_ref()).try_collect::<Vec<_>>().await
            );
            match found {
                Ok(found) => stream::iter(found.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(e) => stream::iter(vec![Err(e)]),
            }
        };
        stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let fate = self.fate("list", &prefix.cloned().unwrap_or_default()).await;
        decided!(fate, self.world.objects.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let fate = self.fate("copy", to).await;
        decided!(fate, self.world.objects.copy_opts(from, to, options.clone()).await)
    }
}
