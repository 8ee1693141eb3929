//! The link to process 0, in every other process. Commands are carried out on the link's own thread, so that an epoch
//! opens here as soon as its command arrives.

use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::control::{self, FiguresHead, GarbledMessage, PreparedHead, ProcessCommand, ProcessReport, StartCommand};
use super::loss;
use crate::causes;
use crate::cluster::{Link, LinkEvent, Member, Peer};
use crate::latency::Latency;
use crate::run::RunError;
use crate::run::board::{Board, RunEvent};
use crate::run::lines::WorkerSignals;
use crate::sink::{LiveFile, Prepared, WriterStats};

/// How long to wait for process 0's good-bye.
const GOOD_BYE: Duration = Duration::from_secs(2);

/// The link to process 0.
pub struct Leader {
    peer: Peer,
    link: Arc<Link>,
    start: Receiver<(Box<StartCommand>, Vec<Vec<LiveFile>>)>,
    handles: Arc<OnceLock<FollowerHandles>>,
}

/// What commands act on.
pub struct FollowerHandles {
    pub board: Arc<Board>,
    pub latency: Arc<Latency>,
    pub workers: WorkerSignals,
}

impl Leader {
    /// Starts the link over the control socket to process 0.
    pub fn start(
        member: &Member,
        socket: TcpStream,
        events: &Sender<RunEvent>,
        ours: bool,
    ) -> Result<Leader, RunError> {
        let (peer, events) = (member.peer(0), events.clone());
        let (sender, start) = bounded(1);
        let handles = Arc::new(OnceLock::<FollowerHandles>::new());
        let (hearing, of) = (handles.clone(), peer.clone());
        let link = Link::start(socket, "process 0", move |heard| match heard {
            LinkEvent::Message(message) => {
                if let Err(source) = obey(&message, &of, &hearing, &sender, &events) {
                    let peer = of.clone();
                    let _ = events.send(RunEvent::Failed(RunError::Garbled { peer, source }));
                }
            }
            LinkEvent::Lost(loss) => loss::lost(&events, of.clone(), loss, ours),
        });
        let link = link.map_err(|source| RunError::Thread {
            what: "the link to process 0",
            source,
        })?;
        Ok(Leader {
            peer,
            link: Arc::new(link),
            start,
            handles,
        })
    }

    /// Waits until process 0 has opened the lake.
    pub fn wait_for_start(
        &self,
        events: &Receiver<RunEvent>,
    ) -> Result<(Box<StartCommand>, Vec<Vec<LiveFile>>), RunError> {
        crossbeam_channel::select! {
            recv(self.start) -> start => start.map_err(|_| RunError::WorkersGone),
            recv(events) -> event => match event {
                Ok(RunEvent::Failed(error)) => Err(error),
                _ => Err(RunError::WorkersGone), // no other event is sent before the start
            }
        }
    }

    /// Has commands carried out from now on, and reports to process 0 that this process is ready.
    pub fn ready(&self, handles: FollowerHandles) {
        let known = self.handles.set(handles);
        assert!(known.is_ok(), "a process is ready once");
        self.report(&ProcessReport::Ready);
    }

    /// Sends a report to process 0.
    pub fn report(&self, report: &ProcessReport) {
        self.link.send(control::encode(report, &[]));
    }

    /// Sends figures for people to process 0, with the latencies since the last time.
    pub fn send_figures(&self, figures: FiguresHead, latency: &Latency) {
        self.link.send(figures.encode(&latency.take_parts()));
    }

    /// Returns a function that sends what writers prepare to process 0's committer, until all writers hang up.
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

    /// Reports to process 0 that the run failed here, unless the failure came from process 0.
    pub fn fail(&self, error: &RunError) {
        if !matches!(error, RunError::Peer { peer, .. } | RunError::Lost { peer, .. } if *peer == self.peer) {
            self.report(&ProcessReport::Failed(causes::chain(error)));
        }
    }

    /// Sends the last figures, reports that everything has ended here, and closes the link.
    pub fn end(self, figures: FiguresHead, latency: &Latency) {
        self.link.send(figures.encode(&latency.take_parts()));
        self.report(&ProcessReport::Done);
        self.say_good_bye(GOOD_BYE);
    }

    /// Closes the link with a good-bye, and waits for that of process 0.
    pub fn say_good_bye(self, patience: Duration) {
        // The forwarding thread has ended, so nothing else holds the link.
        if let Ok(mut link) = Arc::try_unwrap(self.link) {
            link.finish();
            link.wait(patience);
        }
    }
}

fn obey(
    message: &[u8],
    leader: &Peer,
    handles: &OnceLock<FollowerHandles>,
    start: &Sender<(Box<StartCommand>, Vec<Vec<LiveFile>>)>,
    events: &Sender<RunEvent>,
) -> Result<(), GarbledMessage> {
    let (command, more) = control::decode::<ProcessCommand>(message)?;
    let tell = |event| {
        let _ = events.send(event);
    };
    match (command, handles.get()) {
        (ProcessCommand::Start(mut command), None) => {
            let tables = command.tables(more)?;
            let _ = start.send((command, tables));
        }
        (ProcessCommand::Failed(message), _) => tell(RunEvent::Failed(RunError::Peer {
            peer: leader.clone(),
            message,
        })),
        (ProcessCommand::Open(epoch), Some(handles)) => {
            handles.board.epochs.open.store(epoch, Ordering::Release);
            handles.workers.wake();
        }
        (ProcessCommand::Seal(epoch), Some(handles)) => {
            handles.workers.seal(epoch);
            handles.board.weight.observe_sealed(epoch);
            handles.board.epochs.live.store(true, Ordering::Release);
            handles.workers.wake();
        }
        (ProcessCommand::Committed(epoch), Some(handles)) => {
            if handles.board.weight.observe_committed(epoch) {
                handles.workers.wake();
            }
            let now = Instant::now();
            handles
                .latency
                .observe_closed(handles.board.epochs.frontier(), now, SystemTime::now());
            handles.latency.observe_committed(epoch, now, SystemTime::now());
            tell(RunEvent::Committed(epoch));
        }
        (ProcessCommand::Ask, Some(handles)) => {
            let asked = handles.board.workers.asked.iter();
            asked.for_each(|asked| asked.store(true, Ordering::Release));
            handles.workers.wake();
        }
        (ProcessCommand::Drain, _) => tell(RunEvent::Drain),
        (ProcessCommand::Stop { again }, _) => tell(RunEvent::End(again)),
        (command, _) => return Err(format!("{command:?} is out of place").into()),
    }
    Ok(())
}
