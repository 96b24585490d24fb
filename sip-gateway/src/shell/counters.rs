//! What the shell counts. Nothing here is about who talked.

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter, added to by many tasks.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What the sockets have seen since the start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct ShellCounters {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)*
        }

        impl Counters {
            pub(super) fn snapshot(&self) -> ShellCounters {
                ShellCounters { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Datagrams received.
    datagrams_in,
    /// Datagrams handed to the kernel.
    datagrams_out,
    /// Datagrams that the kernel did not take.
    datagrams_lost,
    /// Streams accepted.
    streams_accepted,
    /// Streams closed at once because `max_streams` were open.
    streams_refused,
    /// Streams asked for by the core.
    streams_connected,
    /// Of those, the ones that failed or took too long.
    connects_failed,
    /// Accepted TLS streams that did not come to be secure.
    handshakes_failed,
    /// Streams closed because their peer did not read.
    streams_overflowed,
    /// Streams closed because nothing went either way.
    streams_idle,
    /// Messages queued on a stream.
    stream_messages_out,
    /// Messages for a stream that had ended or was full.
    stream_messages_lost,
    /// Errors of receiving and accepting.
    listener_errors,
    /// Readers that ended by a panic and were started again.
    listener_restarts,
}
