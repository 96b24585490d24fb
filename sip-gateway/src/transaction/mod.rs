//! The four transaction machines of RFC 3261 §17, with the Accepted state of RFC 6026.
//!
//! A machine holds no message, socket or clock. It is told what happened and says what to do, as a list
//! of [`Effect`]s; [`Transactions`] keeps the messages, the timers and
//! the matching of §17.1.3 and §17.2.3.
//!
//! Left out: RFC 4320's 100 to a non-INVITE request that takes longer than Timer E's cap (allowed, not
//! required), and the retransmission of 2xx and ACK, which belongs to the user agent core (§13.3.1.4).

mod client;
mod room;
mod server;
mod table;

pub(crate) use room::{Class, Full, Room, Within};
pub(crate) use table::{Heard, MergeKey, NewClient, Report, ServerKey, Transactions, TxId, TxTimer};

/// Round-trip estimate (RFC 3261 §17.1.1.1).
pub(crate) const T1_MS: u64 = 500;
/// The longest interval between retransmissions of non-INVITE requests and INVITE responses (§17.1.2.2).
pub(crate) const T2_MS: u64 = 4_000;
/// How long a message stays in the network (§17.1.2.2).
pub(crate) const T4_MS: u64 = 5_000;
/// Timers B, F, H, J, L and M, and how long a 2xx is repeated: 64*T1.
pub(crate) const T1_64_MS: u64 = 64 * T1_MS;
/// Timer D on an unreliable transport: at least 32 s (§17.1.1.2).
pub(crate) const TIMER_D_MS: u64 = 32_000;

/// The timers of RFC 3261 table 4 and RFC 6026 §7 that belong to transactions. (C belongs to the call.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// INVITE request retransmission.
    A,
    /// INVITE transaction timeout.
    B,
    /// Absorbing retransmitted failures of an INVITE.
    D,
    /// Request retransmission.
    E,
    /// Transaction timeout.
    F,
    /// INVITE failure retransmission.
    G,
    /// Waiting for the ACK of a failure.
    H,
    /// Absorbing retransmitted ACKs.
    I,
    /// Absorbing retransmitted requests.
    J,
    /// Absorbing retransmitted responses.
    K,
    /// Absorbing retransmitted INVITEs after a 2xx (RFC 6026).
    L,
    /// Waiting for further 2xx of forks (RFC 6026).
    M,
}

/// What a machine wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Send the request, or the last response.
    Transmit,
    /// Send the ACK of a failure (client INVITE only).
    Acknowledge,
    /// Start a timer, in ms from now.
    Arm(Timer, u64),
    /// Stop a timer.
    Disarm(Timer),
    /// Hand the message that came in to the user agent core.
    Deliver,
    /// Tell the core that nothing came for 64*T1.
    TimedOut,
    /// Tell the core that the transport failed.
    Unreachable,
    /// Forget the transaction.
    Terminate,
}

/// What a client machine may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientInput {
    /// The request is to be sent for the first time.
    Start,
    /// A response of this status came.
    Response(u16),
    /// A timer fired.
    Fired(Timer),
    /// The transport says that the request cannot be delivered.
    TransportError,
}

/// What a server machine may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerInput {
    /// The request came again.
    Request,
    /// Its ACK came.
    Ack,
    /// The core answers with this status.
    Respond(u16),
    /// A timer fired.
    Fired(Timer),
    /// The transport says that the response cannot be delivered.
    TransportError,
}
