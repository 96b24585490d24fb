//! `earmark serve`: opens what the configuration names, in an order in which nothing can be lost, and
//! runs until SIGTERM.

mod certificates;
mod clock;
mod figures;
mod found;
mod ops;
mod shelf;
mod signalling;

use std::error::Error;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use consent::Notice;
use prometheus_client::metrics::gauge::Gauge;
use recorder::prompt::PromptSet;
use recorder::{Plane, PlaneConfig, Sealed};
use sip_gateway::{Core, Listener, PeerId, Sockets};
use storage::{Delivery, Entry, Journal, MasterKey, Objects, Recordings, Stamped, Store};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing_subscriber::EnvFilter;

use crate::commands::Failure;
use crate::config::{Config, KeySource};
use crate::hub::{self, Hub};
use certificates::Certificates;
use clock::Clock;
use figures::{SignallingHealth, Sources};
use found::Found;
use ops::Ops;
use shelf::{Item, Stored};
use signalling::{Inputs, OwnThread, Signalling, UnderWay};

/// One or two media threads carry a district's calls many times over; more would only share
/// the cores with signalling, as a second does on a single core.
const MOST_MEDIA_THREADS: usize = 2;

/// How long the journal has to take the last entries when the service stops.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(5);

/// How long the store has to take the last recordings when the service stops; what is left is stored at
/// the next start.
const SHELF_PATIENCE: Duration = Duration::from_secs(10);

/// What an asking takes beyond its questions and waits for answers: the start of media after the answer, and
/// digits on their way.
const PREAMBLE_MARGIN_MS: u64 = 5_000;

/// How long the start waits for a database that does not answer.
const DATABASE_AT_START: Duration = Duration::from_secs(1);

/// Runs the service until SIGTERM or SIGINT.
///
/// # Errors
/// If something that a gateway cannot be without cannot be opened: a folder, the key, a port.
pub(crate) async fn run(config: Config) -> Result<(), Failure> {
    log_to_stderr();
    let clock = Clock::start();
    for remark in &config.remarks {
        tracing::info!("configuration: {remark}");
    }
    let tls = config.read_tls()?;
    let spools: Vec<PathBuf> = [Some(config.data_dir.join("spool")), config.storage.second_spool.clone()]
        .into_iter()
        .flatten()
        .collect();
    for folder in [&config.data_dir, &config.storage.audio].into_iter().chain(&spools) {
        make_folder(folder)?;
    }
    let journal = Journal::start(&config.data_dir.join("journal"));
    let journal = Arc::new(journal.map_err(|error| Failure::journal(&config, error))?);
    let objects = Arc::new(Objects::open(&config.storage.audio).map_err(Failure::unavailable)?);
    let master = master_key(&config, &objects)?;

    let recovered = recover(&spools, &master, &journal, clock).await;

    let (plane, media) = Plane::start(plane_config(&config, clock)?).map_err(Failure::unavailable)?;
    let thread = OwnThread::start()
        .map_err(|source| Failure::Io { what: "starting the thread of signalling".to_owned(), source })?;
    let (sockets, listeners, network) = bind(&config, thread.runtime())?;
    let mut gateway = config.gateway.clone();
    gateway.listeners = listeners;
    let mut seed = [0; 32];
    storage::fill_random(&mut seed).map_err(Failure::unavailable)?;
    let rules = Arc::new(config.rules.clone());
    let hub = Hub::new(config.node.clone(), Arc::clone(&rules))
        .with_own_numbers(config.own_numbers.as_slice().into());
    let is_dispatch = move |offer: &_| hub::is_dispatch(offer, &rules);
    let mut core = Core::new(Arc::new(gateway.clone()), seed, is_dispatch);
    let found = Found::open(&config.data_dir, &gateway.peers);
    for (peer, plan) in found.plans() {
        core.recall(clock.now(), peer, plan);
    }
    let resolver = sockets.resolver(config.dns.clone());

    make_database(&config.storage.database).await;
    let (stop_delivery, delivery_stop) = watch::channel(false);
    let delivery = Delivery::start(&journal, &config.storage.database, delivery_stop);
    let (health, told) = watch::channel(SignallingHealth::default());
    let sources = Sources {
        journal: Arc::clone(&journal),
        delivery: delivery.health(),
        signalling: told,
        unstored: Gauge::default(),
    };
    let ops = Arc::new(Ops::new(sources, gateway.peers.iter().map(|peer| peer.name.clone())));
    for peer in (0..gateway.peers.len()).map(PeerId) {
        ops.peer_is_up(peer, core.is_up(peer));
    }
    let (to_shelf, shelf_in) = mpsc::channel::<Item>(shelf::WAITING);
    let (shelf_out, stored) = mpsc::channel::<Stored>(shelf::WAITING);
    let shelf = tokio::spawn(shelf::run(shelf_in, shelf_out, objects, Arc::clone(&ops)));
    let ops_address = ops::start(config.ops, Arc::clone(&ops))
        .await
        .map_err(|source| Failure::Io { what: format!("ops.listen {}", config.ops), source })?;
    let certificates = Certificates::new(&config, sockets.tls(), Arc::clone(&ops));
    certificates.put(tls);
    let terminated =
        terminated(certificates).map_err(|source| Failure::Io { what: "signals".to_owned(), source })?;
    let mut signalling = Signalling {
        clock,
        core,
        hub,
        sockets,
        resolver,
        found,
        plane,
        journal: Arc::clone(&journal),
        master,
        shelf: to_shelf,
        spools,
        ops,
        health,
        background: Handle::current(),
        under_way: UnderWay::default(),
    };
    let inputs = Inputs { network, media, stored };
    for sealed in recovered {
        signalling.store(Box::new(sealed), None);
    }
    let ready = move || announce(&gateway.listeners, ops_address);
    let finished = thread.run(signalling.run(inputs, ready, terminated, config.drain)).await;
    let finished = finished.ok_or_else(|| Failure::Other(anyhow::anyhow!("signalling ended by a defect")))?;
    tracing::info!("no call is left; closing");
    close(finished, shelf, journal, stop_delivery, delivery).await
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("EARMARK_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // Fails only where a test has set a subscriber before.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).try_init();
}

fn make_folder(path: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Failure::Io { what: format!("cannot make the folder {}", path.display()), source })
}

/// So that commands find a database as soon as the service is ready. A call never waits for it.
async fn make_database(url: &str) {
    match tokio::time::timeout(DATABASE_AT_START, Store::open(url)).await {
        Ok(Ok(store)) => store.close().await,
        Ok(Err(error)) => {
            tracing::error!(
                error = &error as &dyn Error,
                "the database is away; the journal keeps its entries"
            );
        }
        Err(_) => tracing::error!("the database does not answer; the journal keeps its entries"),
    }
}

/// The master key; a new one at the first start.
fn master_key(config: &Config, objects: &Objects) -> Result<MasterKey, Failure> {
    let key = match &config.storage.key {
        KeySource::Environment(name) => MasterKey::from_env(name),
        KeySource::File(path) if path.exists() => MasterKey::load(path),
        KeySource::File(path) => MasterKey::create(path, recordings(config, objects)?),
    };
    key.map_err(|error| Failure::key(config, error))
}

fn recordings(config: &Config, objects: &Objects) -> Result<Recordings, Failure> {
    let spool = config.data_dir.join("spool");
    let failed = |source| Failure::Io { what: format!("cannot read {}", spool.display()), source };
    let spooled = fs::read_dir(&spool).map_err(failed)?.next().is_some();
    let exist = spooled || !objects.is_empty().map_err(Failure::unavailable)?;
    Ok(if exist { Recordings::Exist } else { Recordings::None })
}

/// Seals what an earlier process left in the spool and ends the records it left open; what it sealed, to be
/// stored once calls are taken again.
async fn recover(spools: &[PathBuf], master: &MasterKey, journal: &Journal, clock: Clock) -> Vec<Sealed> {
    let found = recover_spools(spools, master);
    let now = clock.now().wall;
    let entries: Vec<_> =
        found.iter().filter_map(hub::found).map(|entry| Stamped { at: now, entry }).collect();
    for receipt in journal.recover(now, &entries) {
        if let Err(error) = receipt.await {
            tracing::error!(error = &error as &dyn Error, "the journal does not take the end of an old call");
        }
    }
    let started = Entry::Audit {
        actor: "gateway".to_owned(),
        action: "service.start".to_owned(),
        object: None,
        detail: None,
    };
    drop(journal.append(&Stamped { at: now, entry: started }));
    found
}

fn recover_spools(spools: &[PathBuf], master: &MasterKey) -> Vec<Sealed> {
    let unwrap = |recording, wrapped: &[u8]| master.unwrap(recording, wrapped).ok();
    let mut found: Vec<Sealed> = Vec::new();
    for sealed in spools.iter().flat_map(|folder| recorder::recover(folder, &unwrap)) {
        match found.iter_mut().find(|other| other.recording == sealed.recording) {
            // The second writer's copy of the same recording: the longer one is kept.
            Some(other) if other.duration_s < sealed.duration_s => *other = sealed,
            Some(_) => {}
            None => found.push(sealed),
        }
    }
    found
}

fn plane_config(config: &Config, clock: Clock) -> Result<PlaneConfig, Failure> {
    let prompts = PromptSet::load(config.prompts.as_deref(), &config.languages)
        .map_err(|error| Failure::Usage(format!("consent.prompts: {error}")))?;
    let settings = config.rules.settings();
    let attempt_ms = prompts.prompt(Notice::Question).duration_ms() + settings.answer_timeout_ms;
    Ok(PlaneConfig {
        origin: clock.origin(),
        address: config.media_address,
        ports: config.media_ports.clone(),
        media_threads: available_parallelism().map_or(1, usize::from).min(MOST_MEDIA_THREADS),
        spool: config.data_dir.join("spool"),
        second_spool: config.storage.second_spool.clone(),
        prompts,
        preamble_budget_bytes: config.preamble_memory_bytes,
        preamble_ms: u64::from(settings.attempts) * attempt_ms + PREAMBLE_MARGIN_MS,
        lookback_ms: config.lookback_ms,
    })
}

type Bound = (Sockets, Vec<Listener>, mpsc::Receiver<sip_gateway::Input>);

fn bind(config: &Config, datagrams: &Handle) -> Result<Bound, Failure> {
    let limits = &config.gateway.limits;
    Sockets::bind(&config.gateway.listeners, limits, datagrams)
        .map_err(|source| Failure::Io { what: "sip.listen cannot be bound".to_owned(), source })
}

/// Resolves at SIGTERM or SIGINT. SIGHUP reads the certificates again; all else is changed by a restart in
/// this version.
fn terminated(certificates: Certificates) -> io::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup: Signal = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = term.recv() => return,
                _ = interrupt.recv() => return,
                _ = hangup.recv() => {
                    tracing::warn!("SIGHUP: certificates are read again; restart to apply any other change");
                    let certificates = certificates.clone();
                    // Not waited for: whoever waits for the end of the service has calls to attend to.
                    drop(tokio::task::spawn_blocking(move || certificates.reload()));
                }
            }
        }
    })
}

/// The contract's line on stdout, and systemd's notice.
#[expect(clippy::print_stdout, reason = "the contract's one line")]
fn announce(listeners: &[Listener], ops: SocketAddr) {
    let sip: Vec<_> = listeners
        .iter()
        .map(|listener| format!("{}:{}", listener.transport.word(), listener.address))
        .collect();
    println!("ready sip={} ops=http://{ops}", sip.join(","));
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "no systemd to notify");
    }
}

/// Lets store, journal and database have what is left, each for a bounded time.
async fn close(
    finished: Signalling,
    shelf: tokio::task::JoinHandle<()>,
    journal: Arc<Journal>,
    stop_delivery: watch::Sender<bool>,
    delivery: Delivery,
) -> Result<(), Failure> {
    let Signalling { plane, shelf: to_shelf, .. } = finished;
    plane.stop().await;
    drop(to_shelf);
    if tokio::time::timeout(SHELF_PATIENCE, shelf).await.is_err() {
        tracing::warn!("recordings are left in the spool; the next start stores them");
    }
    let mut synced = journal.synced();
    let all = synced.wait_for(|synced| {
        let health = journal.health();
        health.queued == 0 && *synced >= health.written
    });
    if tokio::time::timeout(JOURNAL_PATIENCE, all).await.is_err() {
        tracing::error!("the journal's disk does not take the last entries");
    }
    if !delivery.drain(JOURNAL_PATIENCE).await {
        tracing::warn!("the database is behind the journal; the next start delivers what is missing");
    }
    // The receiver is gone only if delivery ended by itself, and then there is nothing to stop.
    let _ = stop_delivery.send(true);
    delivery.ended().await;
    Ok(())
}
