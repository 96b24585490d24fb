//! The media plane as a running thing: threads, sockets, timers, rings.
//!
//! ```text
//!        commands                     frames (bounded ring per call)
//! hub ──────────────▶ media thread ────────────────────────────────▶ writing thread ──▶ spool
//!  ▲                   sessions       commands (bounded, in order)     captures
//!  └── events (bounded) ──┴──────────────────────────────────────────────┘
//! ```
//!
//! A call belongs to one media thread and that thread's writer, by its id; nothing of a call is shared between
//! threads but its epoch, its ring and the port pool. Nothing waits for something slower: a full ring drops
//! frames and counts them, a datagram that cannot be sent at once is lost, a hub that is behind loses the
//! newest events after several thousand (they raise the epoch first), and a writer that is behind or gone gets
//! no new recordings. A defect in one call ends that call's media or recording, and is reported.

mod call;
mod clock;
mod media_thread;
mod ports;
mod report;
mod ring;
mod socket;
mod writer;

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use self::clock::Clock;
use self::media_thread::{DATAGRAM_BYTES, MediaThread, PlaneFacts, Shared};
use self::ports::PortPool;
use self::report::{Counters, Reporter};
use self::writer::{LINK_MESSAGES, Writer, WriterLink};
use crate::preamble::LockedBudget;
use crate::prompt::PromptSet;
use crate::{CaptureSettings, Command, Event, SpoolError, SpoolWriter};

/// Commands on their way to one media thread: all that its calls get in their lives. Only a thread that hangs
/// lets them pile up.
const COMMANDS: usize = 65_536;
/// Events on their way to the hub; more wait in the threads (see [`report`]).
const EVENTS: usize = 8_192;
/// Locked memory for one second of an asking: both parties, and what both are told, at 8 kHz G.711.
const PREAMBLE_BYTES_A_SECOND: u64 = 32_000;

/// How the plane runs.
#[derive(Debug)]
pub struct PlaneConfig {
    /// The instant from which [`consent::Mono`] counts, the same in the whole process.
    pub origin: Instant,
    /// What descriptions say. Ports are bound on it where it is this machine's own; behind a NAT, where it
    /// is not, on every address.
    pub address: IpAddr,
    /// Ports to use; a call takes two pairs for each stream.
    pub ports: RangeInclusive<u16>,
    /// Media threads, each with a writing thread; at least one. A core relays some 1,000 calls.
    pub media_threads: usize,
    /// The spool directory.
    pub spool: PathBuf,
    /// Where dispatch recordings are written a second time.
    pub second_spool: Option<PathBuf>,
    /// The notices.
    pub prompts: PromptSet,
    /// Locked memory for preambles and look-back, all calls together.
    pub preamble_budget_bytes: usize,
    /// The longest asking that is kept: memory for it is locked when the question is put. A longer one is not
    /// recorded.
    pub preamble_ms: u64,
    /// How long audio of consent lines waits before it is written.
    pub lookback_ms: u64,
}

/// Why the plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// A call needs two pairs of ports.
    #[error("the ports {first} to {last} hold fewer than two whole pairs of an even port and the next")]
    TooFewPorts {
        /// First port of the range.
        first: u16,
        /// Last port of the range.
        last: u16,
    },
    /// The spool cannot be used.
    #[error("the spool cannot be used")]
    Spool(#[from] SpoolError),
    /// The address cannot be bound at all.
    #[error("media ports cannot be bound on {address}")]
    Address {
        /// The address to bind.
        address: IpAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system gives no thread or runtime.
    #[error("a media thread cannot be started")]
    Thread(#[from] io::Error),
}

/// What the plane has counted since its start, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlaneMetrics {
    /// Calls with bound ports.
    pub calls: u64,
    /// Pairs of ports that are free or resting.
    pub free_port_pairs: u64,
    /// Memory locked for preambles and look-back.
    pub locked_bytes: u64,
    /// Datagrams that the system did not take.
    pub unsent_packets: u64,
    /// Datagrams too long to be media, refused unread.
    pub oversized_packets: u64,
    /// Frames dropped because a writing thread was behind.
    pub overrun_frames: u64,
    /// Calls whose media a defect stopped.
    pub failed_calls: u64,
    /// Events dropped because the hub was behind.
    pub shed_events: u64,
}

/// The running plane. Dropping it, or [`stop`](Self::stop), ends every call.
#[derive(Debug)]
pub struct Plane {
    media: Vec<mpsc::Sender<Command>>,
    events: mpsc::Sender<Event>,
    threads: Vec<JoinHandle<()>>,
    counters: Arc<Counters>,
    ports: Arc<Mutex<PortPool>>,
    budget: LockedBudget,
}

impl Plane {
    /// Starts the threads. Events come out of the receiver until the last thread has ended.
    ///
    /// # Errors
    /// [`PlaneError`]; what was started ends by itself then.
    pub fn start(config: PlaneConfig) -> Result<(Self, mpsc::Receiver<Event>), PlaneError> {
        let pool = PortPool::new(&config.ports);
        if pool.len() < 2 {
            let (first, last) = (*config.ports.start(), *config.ports.end());
            return Err(PlaneError::TooFewPorts { first, last });
        }
        let (events, receiver) = mpsc::channel(EVENTS);
        let mut plane = Self {
            media: Vec::new(),
            events,
            threads: Vec::new(),
            counters: Arc::default(),
            ports: Arc::new(Mutex::new(pool)),
            budget: LockedBudget::new(config.preamble_budget_bytes),
        };
        if let Err(error) = plane.budget.check() {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "less memory can be locked than configured; where none can, no consent is asked"
            );
        }
        let bind = address_to_bind(config.address)?;
        let prompts = Arc::new(config.prompts);
        for index in 0..config.media_threads.max(1) {
            let facts = PlaneFacts {
                clock: Clock::new(config.origin),
                bind,
                advertised: config.address,
                prompts: prompts.clone(),
            };
            let spool = SpoolWriter::new(&config.spool, config.second_spool.as_deref())?;
            let preamble_bytes = config.preamble_ms.saturating_mul(PREAMBLE_BYTES_A_SECOND) / 1_000;
            let settings = CaptureSettings {
                lookback_ms: config.lookback_ms,
                preamble_bytes: usize::try_from(preamble_bytes).unwrap_or(usize::MAX),
                budget: plane.budget.clone(),
            };
            plane.start_pair(index, facts, spool, settings)?;
        }
        Ok((plane, receiver))
    }

    /// Gives a command to its call's media thread. Never waits. A thread that is gone, or has fallen tens of
    /// thousands of commands behind, takes none; the hub is told so by the event that says the command failed.
    pub fn send(&self, command: Command) {
        let call = command.call();
        let spread = call.0 ^ call.0 >> 64;
        let index = usize::try_from(spread % self.media.len().max(1) as u128).unwrap_or_default();
        let Some(media) = self.media.get(index) else { return };
        if let Err(mpsc::error::TrySendError::Full(command) | mpsc::error::TrySendError::Closed(command)) =
            media.try_send(command)
        {
            tracing::error!(%call, "a media thread takes no commands");
            if self.events.try_send(failure_of(&command)).is_err() {
                self.counters.shed_events.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What the plane counts.
    #[must_use]
    pub fn metrics(&self) -> PlaneMetrics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let free = self.ports.lock().unwrap_or_else(PoisonError::into_inner).len();
        PlaneMetrics {
            calls: read(&self.counters.calls),
            free_port_pairs: free as u64,
            locked_bytes: self.budget.used_bytes() as u64,
            unsent_packets: read(&self.counters.unsent_packets),
            oversized_packets: read(&self.counters.oversized_packets),
            overrun_frames: read(&self.counters.overrun_frames),
            failed_calls: read(&self.counters.failed_calls),
            shed_events: read(&self.counters.shed_events),
        }
    }

    /// Ends every call, seals what is open, and waits for the threads. The threads wait for the hub to take the
    /// last events, or to drop the receiver.
    pub async fn stop(mut self) {
        self.media.clear();
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().map(JoinHandle::join).collect());
        let outcomes: Vec<std::thread::Result<()>> = joined.await.unwrap_or_default();
        if outcomes.iter().any(Result::is_err) {
            tracing::error!("a thread of the media plane ended by a panic");
        }
    }

    /// One media thread and its writer.
    fn start_pair(
        &mut self,
        index: usize,
        facts: PlaneFacts,
        spool: SpoolWriter,
        settings: CaptureSettings,
    ) -> Result<(), PlaneError> {
        let reporter = || Reporter::new(self.events.clone(), self.counters.clone());
        let (to_writer, messages) = sync_channel(LINK_MESSAGES);
        let writer = Writer::new(facts.clock, messages, spool, settings, reporter());
        let (commands, received) = mpsc::channel(COMMANDS);
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (ports, counters, media_reporter) = (self.ports.clone(), self.counters.clone(), reporter());
        let media = move || {
            let shared = Rc::new(Shared {
                facts,
                ports,
                counters,
                reporter: RefCell::new(media_reporter),
                writer: RefCell::new(WriterLink::new(to_writer)),
                writer_gone: Cell::new(false),
                datagram: RefCell::new([0; DATAGRAM_BYTES]),
            });
            relay(&runtime, &shared, received);
        };
        let named = |name: String| std::thread::Builder::new().name(name);
        self.threads.push(named(format!("writer-{index}")).spawn(move || writer.run())?);
        self.threads.push(named(format!("media-{index}")).spawn(media)?);
        self.media.push(commands);
        Ok(())
    }
}

/// The address itself if it is this machine's, else all of its family.
fn address_to_bind(address: IpAddr) -> Result<IpAddr, PlaneError> {
    match UdpSocket::bind((address, 0)) {
        Ok(_) => Ok(address),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(match address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        }),
        Err(source) => Err(PlaneError::Address { address, source }),
    }
}

/// A media thread's whole life.
fn relay(runtime: &Runtime, shared: &Rc<Shared>, commands: mpsc::Receiver<Command>) {
    let tasks = LocalSet::new();
    tasks.block_on(runtime, MediaThread::new(shared.clone()).run(commands));
    drop(tasks);
    shared.close();
}

/// What the hub is told of a command that no thread took.
fn failure_of(command: &Command) -> Event {
    match command {
        Command::Bind { call, .. } => Event::BindFailed { call: *call },
        Command::StartPreamble { call, .. } => Event::PreambleUnavailable { call: *call },
        Command::OpenTap { permit, .. } => {
            Event::RecordingFailed { call: permit.call(), permit: permit.id(), recording: None }
        }
        other => Event::MediaFailed { call: other.call() },
    }
}
