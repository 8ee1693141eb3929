//! A process that does not lead: its workers, readers and writers, conducted by process 0.
//!
//! Commands are carried out on the link's thread, where they come, so that an epoch opens here as soon as the word is
//! here. What the workers say goes to process 0 as it changes.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::conductor::{ASK, Conducted};
use super::control::{self, Command, FiguresHead, Garbled, PreparedHead, Progress, Report, Start};
use super::memory::Memory;
use super::shared::{Event, Shared};
use super::{RunError, lags, team};
use crate::causes;
use crate::cluster::{Heard, Link, Member, Peer};
use crate::latency::Latency;
use crate::repr::Epoch;
use crate::sink::{LiveFile, Prepared, WriterStats};
use crate::source::{Delivery, Readers};

/// How often figures for people are told.
const FIGURES: Duration = Duration::from_secs(1);
/// How long process 0 may take to say good-bye.
const GOOD_BYE: Duration = Duration::from_secs(2);

/// The link to process 0.
pub struct Leader {
    peer: Peer,
    link: Arc<Link>,
    start: Receiver<(Box<Start>, Vec<Vec<LiveFile>>)>,
    hands: Arc<OnceLock<Hands>>,
}

/// What commands reach.
pub struct Hands {
    pub shared: Arc<Shared>,
    pub latency: Arc<Latency>,
    pub seals: Vec<Sender<Epoch>>,
    pub workers: Vec<Thread>,
}

impl Leader {
    /// Over the control socket to process 0.
    pub fn start(member: &Member, socket: TcpStream, events: &Sender<Event>, ours: bool) -> Result<Leader, RunError> {
        let (peer, events) = (member.peer(0), events.clone());
        let (sender, start) = bounded(1);
        let hands = Arc::new(OnceLock::<Hands>::new());
        let (hearing, of) = (hands.clone(), peer.clone());
        let link = Link::start(socket, "process 0", move |heard| match heard {
            Heard::Message(message) => {
                if let Err(source) = obey(&message, &of, &hearing, &sender, &events) {
                    let peer = of.clone();
                    let _ = events.send(Event::Failed(RunError::Garbled { peer, source }));
                }
            }
            Heard::Lost(loss) => team::lost(&events, of.clone(), loss, ours),
        });
        let link = link.map_err(|source| RunError::Thread {
            what: "the link to process 0",
            source,
        })?;
        Ok(Leader {
            peer,
            link: Arc::new(link),
            start,
            hands,
        })
    }

    /// Waits until process 0 has opened the lake.
    pub fn wait_for_start(&self, events: &Receiver<Event>) -> Result<(Box<Start>, Vec<Vec<LiveFile>>), RunError> {
        crossbeam_channel::select! {
            recv(self.start) -> start => start.map_err(|_| RunError::WorkersGone),
            recv(events) -> event => match event {
                Ok(Event::Failed(error)) => Err(error),
                _ => Err(RunError::WorkersGone), // nothing else is told before the start
            }
        }
    }

    /// From now on commands are carried out.
    pub fn ready(&self, hands: Hands) {
        let known = self.hands.set(hands);
        assert!(known.is_ok(), "a process is ready once");
        self.report(&Report::Ready);
    }

    fn report(&self, report: &Report) {
        self.link.send(control::encode(report, &[]));
    }

    /// Hands what writers prepare to process 0's committer, until they hang up.
    pub fn forward(&self, writers: Vec<Arc<WriterStats>>) -> impl FnOnce(Receiver<Prepared>) + Send + 'static {
        let link = self.link.clone();
        move |prepared| {
            for part in prepared {
                let tables = writers.first().map_or(0, |w| w.tables.len());
                let corrected = |table: usize| {
                    let of = |w: &Arc<WriterStats>| w.tables[table].corrections.load(Ordering::Acquire);
                    writers.iter().map(of).sum()
                };
                link.send(PreparedHead::encode(part, (0..tables).map(corrected).collect()));
            }
        }
    }

    /// The run failed here.
    pub fn fail(&self, error: &RunError) {
        if !matches!(error, RunError::Peer { peer, .. } | RunError::Lost { peer, .. } if *peer == self.peer) {
            self.report(&Report::Failed(causes::chain(error)));
        }
    }

    /// Says that all has ended here, and good-bye, and waits for process 0's.
    pub fn end(self, figures: FiguresHead, latency: &Latency) {
        self.link.send(figures.encode(&latency.take_parts()));
        self.report(&Report::Done);
        self.part(GOOD_BYE);
    }

    /// Says good-bye.
    pub fn part(self, patience: Duration) {
        // The forwarding thread has ended: this is the last hand on the link.
        if let Ok(mut link) = Arc::try_unwrap(self.link) {
            link.finish();
            link.wait(patience);
        }
    }
}

fn obey(
    message: &[u8],
    leader: &Peer,
    hands: &OnceLock<Hands>,
    start: &Sender<(Box<Start>, Vec<Vec<LiveFile>>)>,
    events: &Sender<Event>,
) -> Result<(), Garbled> {
    let (command, more) = control::decode::<Command>(message)?;
    let tell = |event| {
        let _ = events.send(event);
    };
    match (command, hands.get()) {
        (Command::Start(mut command), None) => {
            let tables = command.tables(more)?;
            let _ = start.send((command, tables));
        }
        (Command::Failed(message), _) => tell(Event::Failed(RunError::Peer {
            peer: leader.clone(),
            message,
        })),
        (Command::Open(epoch), Some(hands)) => {
            hands.shared.open.store(epoch, Ordering::Release);
            hands.wake();
        }
        (Command::Seal(epoch), Some(hands)) => {
            for worker in &hands.seals {
                // A worker that is gone has told why.
                let _ = worker.send(epoch);
            }
            hands.shared.weight.observe_sealed(epoch);
            hands.shared.live.store(true, Ordering::Release);
            hands.wake();
        }
        (Command::Committed(epoch), Some(hands)) => {
            if hands.shared.weight.observe_committed(epoch) {
                hands.wake();
            }
            let now = Instant::now();
            hands
                .latency
                .observe_closed(hands.shared.frontier(), now, SystemTime::now());
            hands.latency.observe_committed(epoch, now, SystemTime::now());
            tell(Event::Committed(epoch));
        }
        (Command::Ask, Some(hands)) => {
            let asked = hands.shared.asked.iter();
            asked.for_each(|asked| asked.store(true, Ordering::Release));
            hands.wake();
        }
        (Command::Drain, _) => tell(Event::Drain),
        (Command::Stop { again }, _) => tell(Event::End(again)),
        (command, _) => return Err(format!("{command:?} is out of place").into()),
    }
    Ok(())
}

impl Hands {
    fn wake(&self) {
        self.workers.iter().for_each(Thread::unpark);
    }
}

/// Tells process 0 what happens here, until it says that the run is over.
pub struct Follower<'a> {
    pub leader: &'a Leader,
    pub shared: Arc<Shared>,
    pub events: Receiver<Event>,
    pub latency: Arc<Latency>,
    pub queues: Vec<Sender<Delivery>>,
    pub readers: Option<Readers>,
    /// How much there is here, and whether it lets feeds be read.
    pub memory: Memory,
    pub until_caught_up: bool,
    pub told: Told,
}

/// What process 0 knows already.
#[derive(Default)]
pub struct Told {
    progress: Progress,
    caught_up: bool,
    drained: bool,
    inputs: Vec<[u64; 4]>,
    ignored: BTreeMap<(usize, String), u64>,
    snapshot: Epoch,
}

impl Follower<'_> {
    /// Follows until the end. Also gives back what has been told, for the last figures.
    pub fn follow(mut self) -> Result<(Conducted, Told), RunError> {
        let mut draining = false;
        let mut figures = Instant::now();
        loop {
            let asks = (self.until_caught_up || draining) && !self.told.drained;
            match self.events.recv_timeout(if asks { ASK } else { FIGURES }) {
                Ok(Event::Progress) => self.shared.look(),
                Ok(Event::Failed(error)) => return Err(error),
                Ok(Event::Report) => {
                    tracing::info!("{}", self.latency.figures());
                    let feeds = self.readers.as_ref().map(Readers::statuses).unwrap_or_default();
                    tracing::info!("{}", lags::report(&feeds));
                    self.memory.ask(&self.shared, Instant::now());
                }
                Ok(Event::Stop) => self.leader.report(&Report::Stop),
                Ok(Event::Evolves(met)) => self.leader.report(&Report::Evolves(met)),
                Ok(Event::Committed(epoch)) => self.told.snapshot = epoch,
                Ok(Event::Drain) => {
                    draining = true;
                    if let Some(readers) = self.readers.take() {
                        readers.stop()?;
                    }
                    // What is in the queues of a run that ends is taken.
                    self.shared.held.store(false, Ordering::Release);
                }
                Ok(Event::End(again)) => {
                    let snapshot = self.told.snapshot;
                    let conducted = Conducted {
                        snapshot,
                        corrections: None,
                        unread: vec![],
                        again: again.then(Vec::new),
                        files: None,
                    };
                    return Ok((conducted, self.told));
                }
                Ok(Event::Commit(_)) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(RunError::WorkersGone),
            }
            if let Some(error) = self.readers.as_ref().and_then(Readers::failure) {
                return Err(error.into());
            }
            if let Some(report) = self.memory.report(&self.shared, Instant::now()) {
                tracing::info!("{report}");
            }
            if let Some((above, say)) = self.memory.look(Instant::now()) {
                self.shared.held.store(above && !draining, Ordering::Release);
                say.inspect(|say| tracing::warn!("{say}"));
            }
            self.tell_progress();
            self.tell_end(draining);
            if figures.elapsed() >= FIGURES {
                figures = Instant::now();
                self.tell_figures();
            }
        }
    }

    fn tell_progress(&mut self) {
        // Looked at first: what an epoch before it holds is then there to be seen.
        let frontier = self.shared.frontier();
        self.latency.observe_closed(frontier, Instant::now(), SystemTime::now());
        let progress = Progress {
            frontier,
            taken: self.shared.taken.swap(0, Ordering::AcqRel),
            full: self.shared.full.swap(false, Ordering::AcqRel),
            heavy: self.shared.weight.is_due(),
            replayed: self.shared.replayed(),
            violations: self.shared.take_violations(),
        };
        if progress != self.told.progress || progress.taken > 0 || progress.full || progress.heavy {
            let report = Report::Progress(progress);
            self.leader.report(&report);
            if let Report::Progress(progress) = report {
                // Told once each: only what lasts is compared.
                self.told.progress = Progress {
                    taken: 0,
                    full: false,
                    heavy: false,
                    violations: vec![],
                    ..progress
                };
            }
        }
    }

    fn tell_end(&mut self, draining: bool) {
        // Asked in this order: readers that are exhausted have nothing left to put into the queues.
        let exhausted = self.readers.as_ref().is_none_or(Readers::exhausted);
        let empty = self.queues.iter().all(|queue| queue.is_empty());
        if draining && empty && !self.told.drained {
            self.told.drained = true;
            self.leader.report(&Report::Drained);
        }
        let caught_up = exhausted && empty;
        if self.until_caught_up && caught_up != self.told.caught_up {
            self.told.caught_up = caught_up;
            self.tell_figures(); // with what feeds wait for
            self.leader.report(&Report::CaughtUp(caught_up));
        }
    }

    fn tell_figures(&mut self) {
        let mut figures = self.told.figures(&self.shared);
        figures.feeds = self.readers.as_ref().map(Readers::statuses).unwrap_or_default();
        self.leader.link.send(figures.encode(&self.latency.take_parts()));
    }
}

impl Told {
    /// What counters have come to since the last time.
    pub fn figures(&mut self, shared: &Shared) -> FiguresHead {
        let of = |counters: &super::shared::InputCounters| {
            let counts = [
                &counters.records,
                &counters.replayed,
                &counters.rejected,
                &counters.rejected_files,
            ];
            counts.map(|count| count.load(Ordering::Relaxed))
        };
        let now: Vec<[u64; 4]> = shared.inputs.iter().map(of).collect();
        self.inputs.resize(now.len(), [0; 4]);
        let since = |(now, before): (&[u64; 4], &[u64; 4])| [0, 1, 2, 3].map(|i| now[i] - before[i]);
        let inputs = now.iter().zip(&self.inputs).map(since).collect();
        self.inputs = now;
        let ignored = shared.ignored();
        let more = ignored.iter().filter_map(|((input, field), records)| {
            let before = self.ignored.get(&(*input, field.clone())).copied().unwrap_or(0);
            (*records > before).then(|| (*input, field.clone(), records - before))
        });
        let ignored_since = more.collect();
        self.ignored = ignored;
        FiguresHead {
            inputs,
            ignored: ignored_since,
            ..FiguresHead::default()
        }
    }
}
