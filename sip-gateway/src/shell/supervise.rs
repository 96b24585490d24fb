//! No input may deafen a transport: a reader that panics is started again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::counters::Counters;
use crate::ListenerId;

/// Before a reader is started again, so that one that always fails does not take a core.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs what `start` gives until it ends of itself; after a panic, again.
pub(super) async fn supervise<F>(listener: ListenerId, counters: Arc<Counters>, start: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        // Dropping the set aborts the reader, if this task itself is aborted.
        let mut reader = JoinSet::new();
        reader.spawn(start());
        match reader.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                counters.listener_restarts.add();
                tracing::error!(listener = listener.0, "a reader panicked and is started again");
                tokio::time::sleep(PAUSE).await;
            }
            _ => return,
        }
    }
}
