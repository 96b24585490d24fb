//! What the hub tells the core to do with a call.

use std::net::SocketAddr;

use consent::{CallId, Leg, Side};

use crate::sdp::Recording;

/// An instruction for one call. Unknown calls are ignored: they may just have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The call is journalled and its media ports are bound: send the INVITE on.
    Proceed {
        /// Which call.
        call: CallId,
        /// To whom.
        route: Route,
        /// Our RTP addresses, one pair (towards A, towards B) per `m=` line that will be relayed; further
        /// `m=` lines are refused with port 0. RTCP is on the next port. Empty: descriptions pass with
        /// their own addresses (emergency calls when no port can be bound).
        media: Vec<[SocketAddr; 2]>,
    },
    /// Where the one is whom a transfer or redirection names; answers [`Event::Diverted`](crate::Event::Diverted).
    Divert {
        /// Which call.
        call: CallId,
        /// To whom.
        route: Route,
    },
    /// The INVITE that replaces a far end is journalled: go on with it; answers
    /// [`Event::Replacing`](crate::Event::Replacing).
    Replace {
        /// Which call.
        call: CallId,
        /// The id given to that INVITE.
        record: CallId,
    },
    /// Answer the INVITE with a failure.
    Refuse {
        /// Which call.
        call: CallId,
        /// 4xx, 5xx or 6xx.
        status: u16,
        /// Its text in a Warning (RFC 3261 §20.43, code 399) or Reason; ASCII, no personal data.
        text: &'static str,
        /// Retry-After in seconds, for 503.
        retry_after_s: Option<u32>,
    },
    /// End the call on both legs (BYE, CANCEL or a final answer, whichever applies).
    End {
        /// Which call.
        call: CallId,
        /// The text of the Reason header (RFC 3326).
        text: &'static str,
    },
    /// From now on, whether digits that a leg sends in INFO are told but not passed on (while a question
    /// is open, so that no IVR behind the other leg takes the answer).
    SwallowInfoDigits {
        /// Which call.
        call: CallId,
        /// Whose digits.
        leg: Leg,
        /// Swallow, or pass on again.
        swallow: bool,
    },
    /// Whether the call is recorded from now on: told to the legs that understand it (RFC 7866 §7.1.2).
    Indicate {
        /// Which call.
        call: CallId,
        /// What the gateway does.
        recording: Recording,
    },
    /// Take no new calls from now on (503 with Retry-After), emergency calls excepted.
    Drain,
    /// End our registrations: the last calls are over.
    Leave,
}

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// To the peers of this side, in their order, with failover.
    pub side: Side,
    /// The user part to dial, where it is not the one received (outside prefix stripped, `911` for `9911`).
    pub user: Option<String>,
}
