//! Puts sealed recordings into the audio store, off the signalling task.
//!
//! A spool file goes only after the store has it, read back and compared, and the journal says so. What
//! cannot be stored stays in the spool, lets the others pass, and is tried again, now and at the next start.
//! Bounded: at most [`WAITING`] recordings wait in memory, and as many that failed; beyond, they wait in the
//! spool for the next start.

use std::collections::VecDeque;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use consent::{E164, RecordingId};
use recorder::Sealed;
use storage::{Objects, Receipt};
use tokio::sync::{mpsc, watch};

use super::ops::Ops;

/// Recordings that may wait for the store.
pub(super) const WAITING: usize = 1024;

/// Between attempts to store what failed: doubles from here, up to [`RETRY_AT_MOST`].
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_AT_MOST: Duration = Duration::from_secs(30);

/// A recording on its way to the store, or there.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) sealed: Box<Sealed>,
    pub(super) line: Option<E164>,
}

/// A recording in the store.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) item: Item,
    pub(super) object: String,
}

/// Stores what comes in until the sender is gone and all is stored.
pub(super) async fn run(
    mut items: mpsc::Receiver<Item>,
    stored: mpsc::Sender<Stored>,
    objects: Arc<Objects>,
    ops: Arc<Ops>,
) {
    let mut failed: VecDeque<Item> = VecDeque::new();
    let (mut wait, mut open) = (RETRY_FIRST, true);
    while open || !failed.is_empty() {
        ops.unstored(failed.len());
        let item = tokio::select! {
            biased;
            item = items.recv(), if open && failed.len() < WAITING => item,
            () = tokio::time::sleep(wait), if !failed.is_empty() => failed.pop_front(),
        };
        let Some(item) = item else {
            open = false;
            continue;
        };
        if let Some(object) = put(&item.sealed, &objects).await {
            wait = RETRY_FIRST;
            if stored.send(Stored { item, object }).await.is_err() {
                return;
            }
        } else {
            ops.store_failures.inc();
            wait = (wait * 2).min(RETRY_AT_MOST);
            failed.push_back(item);
        }
    }
}

async fn put(sealed: &Sealed, objects: &Arc<Objects>) -> Option<String> {
    let (recording, at) = (sealed.recording, sealed.started_at);
    let (file, sha256) = (sealed.file.clone(), sealed.sha256.clone());
    let objects = Arc::clone(objects);
    match tokio::task::spawn_blocking(move || objects.put(recording, at, &file, &sha256)).await {
        Ok(Ok(object)) => return Some(object),
        Ok(Err(error)) => {
            let error = &error as &dyn Error;
            tracing::error!(%recording, error, "cannot store a recording; it stays in the spool");
        }
        Err(error) => tracing::error!(%recording, %error, "storing a recording failed"),
    }
    None
}

/// Removes every spool copy of a stored recording once the journal says on disk that it is stored. What the
/// journal never says, the next start finds in the spool and stores again.
pub(super) async fn clear_when_journalled(
    receipt: Receipt,
    mut synced: watch::Receiver<u64>,
    spools: Vec<PathBuf>,
    recording: RecordingId,
) {
    let Ok(position) = receipt.await else {
        tracing::error!(%recording, "the journal does not take that a recording is stored; its spool file stays");
        return;
    };
    if synced.wait_for(|synced| *synced >= position.seq).await.is_err() {
        return;
    }
    let cleared = tokio::task::spawn_blocking(move || {
        let spools: Vec<&Path> = spools.iter().map(PathBuf::as_path).collect();
        recorder::spool::release(&spools, recording)
    });
    if let Ok(Err(error)) = cleared.await {
        let error = &error as &dyn Error;
        tracing::warn!(%recording, error, "a stored recording's spool file stays; the next start tries again");
    }
}
