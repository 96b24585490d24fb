//! The reader of a UDP socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::counters::Counters;
use crate::{Input, ListenerId};

/// The largest UDP payload.
const MAX_DATAGRAM_BYTES: usize = 65_535;

/// After an error of receiving, so that a lasting one does not take a core.
const PAUSE: Duration = Duration::from_millis(10);

/// Reads until nobody takes the inputs any more.
pub(super) async fn read(
    listener: ListenerId,
    socket: Arc<UdpSocket>,
    inputs: mpsc::Sender<Input>,
    counters: Arc<Counters>,
) {
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                counters.listener_errors.add();
                tracing::warn!(listener = listener.0, %error, "receiving failed");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        counters.datagrams_in.add();
        let bytes = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        if inputs.send(Input::Datagram { listener, from, bytes }).await.is_err() {
            return;
        }
    }
}
