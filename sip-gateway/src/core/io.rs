//! What crosses between the core and whatever carries its bytes.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::locate::{Answer, Plan, Question, Unanswered};
use crate::{Event, Ladder, ListenerId, PeerId};

/// Names a stream. The shell names those that it accepts with even numbers, the core those that it asks
/// for with odd ones, so neither waits for the other. A number is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// What the shell tells the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A datagram came.
    Datagram {
        /// On this listener.
        listener: ListenerId,
        /// From this address.
        from: SocketAddr,
        /// The whole datagram.
        bytes: Bytes,
    },
    /// A stream was accepted. One on a TLS listener waits for [`Output::Secure`]. (One that the core asked
    /// for is open as soon as it is asked for: what is sent on it meanwhile waits in the shell.)
    StreamOpened {
        /// Its name, even.
        stream: StreamId,
        /// On this listener.
        listener: ListenerId,
        /// From this address.
        from: SocketAddr,
    },
    /// A stream that the core asked for is connected, or one that it let in has shaken hands.
    StreamReady {
        /// Its name.
        stream: StreamId,
        /// The names in the certificate that its client has shown and that has been verified (RFC 5922
        /// §7.1); none without one.
        certified: Vec<String>,
    },
    /// Bytes came on a stream, cut anywhere.
    StreamBytes {
        /// Its name.
        stream: StreamId,
        /// At least one byte.
        bytes: Bytes,
    },
    /// A stream ended, failed, or could not be connected. Also sent after [`Output::CloseStream`].
    StreamClosed {
        /// Its name.
        stream: StreamId,
    },
    /// A datagram to this address could not be sent: the system knows no way.
    Undeliverable {
        /// Where it should have gone.
        to: SocketAddr,
    },
    /// DNS has been asked about a peer.
    Resolved {
        /// About whom.
        peer: PeerId,
        /// What was asked, as in [`Output::Resolve`].
        question: Question,
        /// What it says.
        answer: Result<Answer, Unanswered>,
    },
}

/// What the core wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Something happened on a call: goes to the hub.
    Event(Event),
    /// What is new of a call's messages; also after its [`Event::Ended`]. For the record, if there is room.
    Ladder(Box<Ladder>),
    /// Send a datagram.
    Datagram {
        /// From this listener.
        listener: ListenerId,
        /// To this address.
        to: SocketAddr,
        /// The whole datagram.
        bytes: Bytes,
    },
    /// Send bytes on a stream.
    Stream {
        /// Its name.
        stream: StreamId,
        /// One whole message.
        bytes: Bytes,
    },
    /// Open a stream.
    Connect {
        /// Its name, odd.
        stream: StreamId,
        /// From this listener's address (any port).
        listener: ListenerId,
        /// To this address.
        to: SocketAddr,
        /// Of this peer, whose certificate a TLS stream must show.
        peer: PeerId,
    },
    /// Shake hands on an accepted TLS stream. Ends in [`Input::StreamReady`] or [`Input::StreamClosed`].
    Secure {
        /// Its name.
        stream: StreamId,
    },
    /// Close a stream, after what was sent on it.
    CloseStream {
        /// Its name.
        stream: StreamId,
    },
    /// Ask DNS about a peer, and tell the answer in [`Input::Resolved`]. No call waits for it.
    Resolve {
        /// About whom.
        peer: PeerId,
        /// What to ask.
        question: Question,
    },
    /// A peer was found elsewhere than before: to be kept for the next start
    /// ([`Core::recall`](crate::Core::recall)).
    Found {
        /// Who.
        peer: PeerId,
        /// Where.
        plan: Plan,
    },
    /// Whether calls can be expected to reach a peer has changed since [`Core::is_up`](crate::Core::is_up).
    Reachable {
        /// Who.
        peer: PeerId,
        /// Whether they can.
        up: bool,
    },
}
