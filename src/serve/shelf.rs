//! Puts sealed recordings into the audio store, one after the other, off the signalling task.
//!
//! A spool file goes only after the store has it, read back and compared, and the journal says so. What
//! cannot be stored stays in the spool and is tried again, now and at the next start. Bounded: at most
//! [`WAITING`] recordings wait in memory; beyond, they wait in the spool for the next start.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use consent::E164;
use recorder::Sealed;
use storage::Objects;
use tokio::sync::mpsc;

use super::ops::Ops;

/// Recordings that may wait for the store.
pub(super) const WAITING: usize = 1024;

/// Between attempts to store one: doubles from here, up to [`RETRY_AT_MOST`].
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
    while let Some(item) = items.recv().await {
        let object = put_until_stored(&item.sealed, &objects, &ops).await;
        if stored.send(Stored { item, object }).await.is_err() {
            return;
        }
    }
}

async fn put_until_stored(sealed: &Sealed, objects: &Arc<Objects>, ops: &Ops) -> String {
    let mut wait = RETRY_FIRST;
    loop {
        let objects = Arc::clone(objects);
        let (recording, file, sha256) = (sealed.recording, sealed.file.clone(), sealed.sha256.clone());
        let at = sealed.started_at;
        let put = tokio::task::spawn_blocking(move || objects.put(recording, at, &file, &sha256)).await;
        match put {
            Ok(Ok(object)) => return object,
            Ok(Err(error)) => {
                tracing::error!(recording = %recording, error = &error as &dyn std::error::Error, "cannot store a recording; it stays in the spool");
            }
            Err(error) => tracing::error!(recording = %recording, %error, "storing a recording failed"),
        }
        ops.store_failures.inc();
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_AT_MOST);
    }
}

/// Removes a spool file whose recording is stored and journalled.
pub(super) fn clear(file: &Path) {
    if let Err(error) = std::fs::remove_file(file) {
        tracing::warn!(%error, "a stored recording's spool file cannot be removed; the next start tries again");
    }
}
