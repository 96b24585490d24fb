#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs;

use consent::LineClass;
use sqlx::{Connection, SqliteConnection};

use super::*;
use crate::samples::{self, at, call, dispatch_call};
use crate::{CallFilter, Outcome, Stamped};

/// Longer than any healthy run takes, so that only a hang ends in it.
const PATIENCE: Duration = Duration::from_secs(120);

struct Service {
    journal: Arc<Journal>,
    delivery: Delivery,
    stop: watch::Sender<bool>,
}

impl Service {
    fn start(dir: &tempfile::TempDir) -> Self {
        let journal = Arc::new(Journal::start(&dir.path().join("journal")).unwrap());
        let (stop, stopped) = watch::channel(false);
        let delivery = Delivery::start(&journal, &url(dir), stopped);
        Self { journal, delivery, stop }
    }

    async fn append(&self, entries: &[Stamped]) {
        for stamped in entries {
            self.journal.append(stamped).await.unwrap();
        }
    }

    /// Waits until all that was appended is synced, then until it is in the database.
    async fn drain(&self) {
        let written = self.journal.health().written;
        self.journal.synced().wait_for(|synced| *synced >= written).await.unwrap();
        assert!(self.delivery.drain(PATIENCE).await);
    }

    async fn stop(self) {
        self.stop.send(true).unwrap();
        self.delivery.ended().await;
        self.journal.close(PATIENCE).unwrap();
    }
}

fn url(dir: &tempfile::TempDir) -> String {
    format!("sqlite:{}", dir.path().join("data/earmark.db").display())
}

async fn outcomes(dir: &tempfile::TempDir) -> Vec<Outcome> {
    let store = Store::open(&url(dir)).await.unwrap();
    store.calls(&CallFilter::default()).await.unwrap().iter().map(|call| call.outcome).collect()
}

#[tokio::test]
async fn what_is_appended_is_in_the_database_soon_and_once_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    for n in 1..=3 {
        let service = Service::start(&dir);
        service.append(&dispatch_call(n)).await;
        service.drain().await;
        assert!(service.delivery.health().borrow().reachable);
        service.stop().await;
    }
    assert_eq!(outcomes(&dir).await, [Outcome::Answered; 3]);
}

#[tokio::test]
async fn a_database_locked_for_the_length_of_a_call_has_its_record_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(&url(&dir)).await.unwrap());
    let mut locker = SqliteConnection::connect(&url(&dir)).await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut locker).await.unwrap();

    let service = Service::start(&dir);
    service.append(&dispatch_call(1)).await;
    let mut health = service.delivery.health();
    let away = health.wait_for(|health| health.failures > 0).await.unwrap().clone();
    assert!(!away.reachable);
    assert_eq!(away.delivered, 0);
    assert!(away.behind_since.is_some());
    service.append(&dispatch_call(2)).await;

    sqlx::query("ROLLBACK").execute(&mut locker).await.unwrap();
    service.drain().await;
    assert!(service.delivery.health().borrow().reachable);
    service.stop().await;
    assert_eq!(outcomes(&dir).await, [Outcome::Answered; 2]);
}

#[tokio::test]
async fn a_database_that_is_not_there_yet_gets_everything_when_it_is() {
    let dir = tempfile::tempdir().unwrap();
    // A file where the folder should be: the database cannot be made.
    fs::write(dir.path().join("data"), "").unwrap();
    let service = Service::start(&dir);
    service.append(&dispatch_call(1)).await;
    service.delivery.health().wait_for(|health| health.failures > 2).await.unwrap();
    fs::remove_file(dir.path().join("data")).unwrap();
    service.drain().await;
    service.stop().await;
    assert_eq!(outcomes(&dir).await, [Outcome::Answered]);
}

#[tokio::test]
async fn calls_cut_by_a_crash_with_the_database_away_end_with_one_record_each() {
    let dir = tempfile::tempdir().unwrap();
    {
        // The first process never reaches the database.
        let journal = Journal::start(&dir.path().join("journal")).unwrap();
        for stamped in dispatch_call(1).iter().chain(&dispatch_call(2)[..6]) {
            journal.append(stamped).await.unwrap();
        }
        journal.close(PATIENCE).unwrap();
    }
    let service = Service::start(&dir);
    for receipt in service.journal.recover(Wall(samples::START.0 + 60_000_000), &dispatch_call(2)[7..8]) {
        receipt.await.unwrap();
    }
    service.append(&dispatch_call(3)).await;
    service.drain().await;
    service.stop().await;
    let store = Store::open(&url(&dir)).await.unwrap();
    assert_eq!(store.calls(&CallFilter::default()).await.unwrap().len(), 3);
    let cut = store.call(call(2)).await.unwrap().unwrap();
    assert_eq!((cut.outcome, cut.ended_by.as_deref()), (Outcome::Answered, Some("gateway")));
    assert_eq!(cut.recording_outcome, Some(consent::RecordingOutcome::PartlyRecorded));
    assert_eq!(cut.recordings, [samples::recording(2)]);
    assert_eq!(store.unplaced().await.unwrap(), 0);
    assert!(store.audit_verify().await.unwrap().intact());
}

#[tokio::test]
async fn told_to_stop_it_delivers_what_is_synced_and_ends_even_with_the_database_away() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("data"), "").unwrap();
    let service = Service::start(&dir);
    service.append(&[at(0, samples::started(1, LineClass::Never))]).await;
    assert!(!service.delivery.drain(Duration::from_millis(1)).await || service.journal.health().synced == 0);
    service.stop().await;
}
