//! What the core counts. Numbers only.

/// Counters since start, and gauges of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that came from peers and were well-formed.
    pub requests_in: u64,
    /// Responses that came from peers and were well-formed.
    pub responses_in: u64,
    /// Messages sent, retransmissions included.
    pub messages_out: u64,
    /// Datagrams and streams from sources that are no peer: they get nothing.
    pub dropped_unknown_source: u64,
    /// Messages that could not be read and not be answered either; those that a stream broke off among them.
    pub dropped_malformed: u64,
    /// Messages that could not be read and were answered 4xx or 5xx.
    pub refused_malformed: u64,
    /// Responses that belong to no transaction.
    pub dropped_stray_response: u64,
    /// ACKs that belong to no dialog.
    pub dropped_stray_ack: u64,
    /// Requests of calls, new or not, refused because their room in the transaction table is full.
    pub shed_transactions: u64,
    /// Initial INVITEs refused without asking the hub: while draining, or ordinary ones beyond the limits.
    pub shed_calls: u64,
    /// Streams closed: beyond a limit, from no peer, unframeable, idle within a message, or without a pong.
    pub closed_streams: u64,
    /// Repetitions of requests, absorbed.
    pub absorbed_requests: u64,
    /// Repetitions of responses, absorbed.
    pub absorbed_responses: u64,
    /// Requests of peers that we challenged.
    pub challenged: u64,
    /// Of those, the ones that came with wrong credentials.
    pub refused_credentials: u64,
    /// Challenges of peers that we answered.
    pub answered_challenges: u64,
    /// Calls offered.
    pub calls_offered: u64,
    /// Emergency services called, by transfers and redirections too; answering points that call back are none.
    pub emergency_calls: u64,
    /// Calls answered.
    pub calls_answered: u64,
    /// Gauge: transactions alive.
    pub transactions: usize,
    /// Gauge: dialogs alive, early ones included.
    pub dialogs: usize,
    /// Gauge: timers armed.
    pub timers: usize,
    /// Gauge: calls that have ended and whose transactions still run out.
    pub calls_lingering: usize,
}
