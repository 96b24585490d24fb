//! The task that brings the journal's entries to the database, for as long as the service runs.
//!
//! | state | event | does | next |
//! |---|---|---|---|
//! | away | retry is due | opens the database | here; away, the next retry later |
//! | here | entries are synced | delivers a batch | here |
//! | here | delivery fails | keeps the batch, closes the database | away |
//! | any | stop | delivers what is synced, once more | ended |
//!
//! The call never waits for it. It takes only what is synced: what a power cut can take from the journal
//! must not be in the database already, or its number would be given out twice. What the database has,
//! and no open call needs for its recovery, the journal may let go.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use consent::{CallId, Wall};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::journal::{Folder, Found, Journal, JournalId, Reader};
use crate::{Entry, Store, StoreError};

/// How many entries go into one transaction, at most.
const BATCH: usize = 2_048;

/// From one round of delivery to the next, at least: the more entries go together, the less each costs.
const ROUND_EVERY: Duration = Duration::from_millis(500);

/// After how many entries the journal is asked to let go of delivered files.
const PRUNE_EVERY: u64 = 10_000;

/// After a failure the database is left alone for this long at first, doubling up to [`RETRY_AT_MOST`].
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// A database that comes back is noticed within this.
const RETRY_AT_MOST: Duration = Duration::from_secs(2);

/// The running delivery. Ends when told to stop; dropping it leaves the task running.
#[derive(Debug)]
pub struct Delivery {
    task: JoinHandle<()>,
    health: watch::Receiver<DeliveryHealth>,
    synced: watch::Receiver<u64>,
}

/// How the delivery is, for readiness and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryHealth {
    /// Whether the last thing asked of the database was done.
    pub reachable: bool,
    /// Sequence number of the last entry in the database.
    pub delivered: u64,
    /// Failed attempts since start.
    pub failures: u64,
    /// Entries kept aside because they fit nowhere, since start.
    pub unplaced: u64,
    /// Entries that the journal lost, since start.
    pub lost: u64,
    /// Since when entries wait for the database; `None` if none do.
    pub behind_since: Option<Wall>,
}

struct Courier {
    journal: Arc<Journal>,
    url: String,
    store: Option<Store>,
    reader: Option<(Reader, Folder)>,
    /// Read and not yet delivered.
    batch: Vec<Found>,
    /// Positions at which the open calls began.
    open: BTreeMap<CallId, u64>,
    /// The position last given to [`Journal::prune`].
    pruned: u64,
    /// Whether the database's position was compared with the journal's end.
    compared: bool,
    health: DeliveryHealth,
    report: watch::Sender<DeliveryHealth>,
}

/// Why a round of delivery did not succeed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot read the journal in {}", folder.display())]
    Journal { folder: PathBuf, source: io::Error },
}

impl Delivery {
    /// Starts delivering `journal` to the database at `url`, which need not be there yet, until `stop`
    /// says so (or its sender is gone). Within a tokio runtime.
    #[must_use]
    pub fn start(journal: &Arc<Journal>, url: &str, stop: watch::Receiver<bool>) -> Self {
        let (report, health) = watch::channel(DeliveryHealth::default());
        let synced = journal.synced();
        let courier = Courier {
            journal: Arc::clone(journal),
            url: url.to_owned(),
            store: None,
            reader: None,
            batch: Vec::new(),
            open: BTreeMap::new(),
            pruned: 0,
            compared: false,
            health: DeliveryHealth::default(),
            report,
        };
        let task = tokio::spawn(courier.run(journal.synced(), stop));
        Self { task, health, synced }
    }

    /// How it is, as it changes.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<DeliveryHealth> {
        self.health.clone()
    }

    /// Waits, at most for `patience`, until all that is synced now is in the database; whether it is.
    pub async fn drain(&self, patience: Duration) -> bool {
        let goal = *self.synced.borrow();
        let mut health = self.health.clone();
        let delivered = health.wait_for(|health| health.delivered >= goal);
        matches!(tokio::time::timeout(patience, delivered).await, Ok(Ok(_)))
    }

    /// Waits until it has ended after being told to stop.
    pub async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "delivery to the database ended in disorder");
        }
    }
}

impl Courier {
    async fn run(mut self, mut synced: watch::Receiver<u64>, mut stop: watch::Receiver<bool>) {
        let mut wait = RETRY_FIRST;
        loop {
            let began = tokio::time::Instant::now();
            let up_to = *synced.borrow_and_update();
            let pause = match self.round(up_to).await {
                Ok(()) => {
                    wait = RETRY_FIRST;
                    None
                }
                Err(error) => {
                    self.note(&error, *synced.borrow());
                    let pause = wait;
                    wait = (wait * 2).min(RETRY_AT_MOST);
                    Some(pause)
                }
            };
            if *stop.borrow() {
                break;
            }
            let awake = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    // Its sender lives in the journal, which this task holds.
                    None => {
                        tokio::time::sleep_until(began + ROUND_EVERY).await;
                        drop(synced.changed().await);
                    }
                }
            };
            tokio::select! {
                () = awake => {}
                _ = stop.changed() => {}
            }
            if stop.has_changed().is_err() {
                break;
            }
        }
        if let Some(store) = self.store {
            store.close().await;
        }
    }

    /// Delivers everything up to `up_to`.
    async fn round(&mut self, up_to: u64) -> Result<(), Failed> {
        let journal = self.journal.id();
        let store = self.connect(journal).await?;
        while !self.batch.is_empty() || self.read(up_to).await? {
            let delivered = store.deliver_found(&self.batch, wall_now()).await?;
            self.health.unplaced += delivered.unplaced;
            self.health.lost += delivered.lost;
            let seq = self.batch.last().map_or(0, |last| last.position().seq);
            for found in std::mem::take(&mut self.batch) {
                self.follow(&found);
            }
            self.delivered(seq);
        }
        self.delivered(self.health.delivered);
        self.prune();
        Ok(())
    }

    async fn connect(&mut self, journal: JournalId) -> Result<Store, Failed> {
        let store = match &self.store {
            Some(store) => store.clone(),
            None => Store::open(&self.url).await?,
        };
        if !self.compared {
            // Only at the first connection: later the journal only grows.
            store.rewind(journal, self.journal.opened().last_seq, wall_now()).await?;
            self.compared = true;
        }
        self.health.delivered = self.health.delivered.max(store.delivered(journal).await?);
        self.store = Some(store.clone());
        Ok(store)
    }

    /// Reads on; whether there is something to deliver.
    async fn read(&mut self, up_to: u64) -> Result<bool, Failed> {
        while self.batch.is_empty() {
            let found = self.read_on(up_to).await?;
            if found.is_empty() {
                return Ok(false);
            }
            // What an earlier process delivered is only followed.
            let done = self.health.delivered;
            let (old, new): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|found| found.position().seq <= done);
            for found in &old {
                self.follow(found);
            }
            self.batch = new;
        }
        Ok(true)
    }

    async fn read_on(&mut self, up_to: u64) -> Result<Vec<Found>, Failed> {
        let failed = |source| Failed::Journal { folder: self.journal.folder().to_owned(), source };
        let (mut reader, folder) = match self.reader.take() {
            Some(place) => place,
            None => (Reader::new(), Folder::open(self.journal.folder()).map_err(failed)?),
        };
        let reading = tokio::task::spawn_blocking(move || {
            let found = reader.read(&folder, up_to, BATCH);
            (reader, folder, found)
        });
        let (reader, folder, found) = reading.await.map_err(|error| failed(io::Error::other(error)))?;
        self.reader = Some((reader, folder));
        found.map_err(failed)
    }

    /// Keeps in mind from where on the journal is needed to recover what is open.
    fn follow(&mut self, found: &Found) {
        let Found::Entry { position, stamped } = found else { return };
        match &stamped.entry {
            Entry::CallStarted(started) => {
                self.open.entry(started.call).or_insert(position.seq);
            }
            Entry::CallEnded(ended) => {
                self.open.remove(&ended.call);
            }
            _ => {}
        }
    }

    /// Lets go of the journal's files that are delivered and hold no open call's start.
    fn prune(&mut self) {
        let needed = self.open.values().min().copied().unwrap_or(self.health.delivered);
        if needed >= self.pruned + PRUNE_EVERY {
            self.journal.prune(needed);
            self.pruned = needed;
        }
    }

    fn delivered(&mut self, seq: u64) {
        if !self.health.reachable && self.health.failures > 0 {
            tracing::warn!("the database is back");
        }
        self.health.reachable = true;
        self.health.delivered = self.health.delivered.max(seq);
        self.health.behind_since = None;
        self.report.send_replace(self.health.clone());
    }

    fn note(&mut self, error: &Failed, synced: u64) {
        if self.health.reachable || self.health.failures == 0 {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "the database takes nothing; the journal keeps it"
            );
        }
        self.health.failures += 1;
        self.health.reachable = false;
        if synced > self.health.delivered {
            self.health.behind_since.get_or_insert_with(wall_now);
        }
        // Opened anew: what has gone wrong with a connection stays wrong with it.
        self.store = None;
        self.report.send_replace(self.health.clone());
    }
}

/// What the clock on the wall says, µs since 1970.
fn wall_now() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
