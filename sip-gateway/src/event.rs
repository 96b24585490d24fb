//! What the core tells the hub about calls. Events carry numbers and names: they are for records and
//! rules, never for logs.

use consent::{CallId, Leg, Side};

use crate::sdp::{RecordPreference, Recording};
use crate::{Excess, LegMedia, PeerId};

/// Something happened on a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An initial INVITE was accepted from a peer; 100 has been sent. The core waits for
    /// [`Command::Proceed`](crate::Command::Proceed) or `Refuse` and goes no further on its own; after 10 s
    /// it answers 500. Only an emergency call goes on by itself, to the public peers (a call-back to the
    /// district's) and without our media, after 250 ms or a `Refuse`.
    Offered(Box<Offer>),
    /// The INVITE went out to a peer (again, after a failover).
    Routed {
        /// Which call.
        call: CallId,
        /// To whom.
        peer: PeerId,
        /// Its side.
        side: Side,
        /// Our Call-ID on that leg.
        sip_call_id: String,
        /// Whether the peer signals changes of its parties.
        parties_signalled: bool,
    },
    /// A provisional answer other than 100 came from the callee and was passed on.
    Progress {
        /// Which call.
        call: CallId,
        /// 180, 183, …
        status: u16,
    },
    /// A leg's session description took effect (offer or answer, initial or in a re-INVITE or UPDATE).
    /// Sent before the message that completes the exchange leaves the gateway.
    Media {
        /// Which call.
        call: CallId,
        /// Whose description.
        leg: Leg,
        /// What it says.
        media: LegMedia,
    },
    /// The callee's 2xx arrived and is about to be passed on.
    Answered {
        /// Which call.
        call: CallId,
    },
    /// Something about who is at a leg's far end changed. Sent before any message or media of the
    /// change is passed on.
    Changed {
        /// Which call.
        call: CallId,
        /// Where.
        leg: Leg,
        /// What.
        change: Change,
    },
    /// A digit came in a SIP INFO (`application/dtmf-relay` or `application/dtmf`).
    Digit {
        /// Which call.
        call: CallId,
        /// Whose.
        leg: Leg,
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
    },
    /// A leg said whether it wants to be recorded (`a=recordpref`, RFC 7866 §7.1.3), in an offer or answer. Of
    /// a callee, before [`Event::Answered`]: what it said last.
    Preference {
        /// Which call.
        call: CallId,
        /// Whose.
        leg: Leg,
        /// What it wants.
        preference: RecordPreference,
        /// Whether its peer is trusted to speak for its party here.
        trusted: bool,
    },
    /// A leg said that it records, or does no more (`a=record`, RFC 7866 §7.3.1).
    Records {
        /// Which call.
        call: CallId,
        /// Whose.
        leg: Leg,
        /// What it does.
        recording: Recording,
    },
    /// Somebody else is to be called: L of a transfer (REFER) or the callee's side (3xx) names whom. The core
    /// waits for [`Command::Divert`](crate::Command::Divert), 10 s; for an emergency service 250 ms, then it goes on
    /// to the public peers by itself.
    Diverted {
        /// Which call.
        call: CallId,
        /// In whose place.
        leg: Leg,
        /// Whom.
        target: Target,
    },
    /// A transfer has come to nothing: whoever was at that leg is there still, and nobody is called in its place.
    TransferFailed {
        /// Which call.
        call: CallId,
        /// In whose place.
        leg: Leg,
    },
    /// An INVITE was accepted that is to replace the far end of one of our legs. The core waits for
    /// [`Command::Replace`](crate::Command::Replace).
    Replacing(Box<Replacement>),
    /// What became of it.
    ReplacementEnded {
        /// The call whose far end it was to replace.
        call: CallId,
        /// The id given to the INVITE.
        record: CallId,
        /// Its final status.
        status: u16,
    },
    /// Whoever was at a leg's far end has lost the place to somebody who has not said where to send to. Nothing
    /// that comes on that leg is anybody's before [`Change::Replaced`] and the [`Event::Media`] after it.
    Vacated {
        /// Which call.
        call: CallId,
        /// Where.
        leg: Leg,
        /// Who is to come there.
        identity: Identity,
        /// From which side.
        side: Side,
    },
    /// The far end of another call was joined to this one.
    Linked {
        /// Which call goes on.
        call: CallId,
        /// Which one has lost its far end, and ends.
        with: CallId,
    },
    /// The call is over: every dialog of it is ended or ending.
    Ended {
        /// Which call.
        call: CallId,
        /// How.
        end: End,
    },
}

impl Event {
    /// On which call.
    #[must_use]
    pub fn call(&self) -> CallId {
        match self {
            Self::Offered(offer) => offer.call,
            Self::Replacing(replacement) => replacement.call,
            Self::Diverted { call, .. }
            | Self::TransferFailed { call, .. }
            | Self::ReplacementEnded { call, .. }
            | Self::Vacated { call, .. }
            | Self::Linked { call, .. }
            | Self::Routed { call, .. }
            | Self::Progress { call, .. }
            | Self::Media { call, .. }
            | Self::Answered { call }
            | Self::Changed { call, .. }
            | Self::Digit { call, .. }
            | Self::Preference { call, .. }
            | Self::Records { call, .. }
            | Self::Ended { call, .. } => *call,
        }
    }
}

/// An initial INVITE as the hub needs it. User parts are percent-decoded and whole, with their parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The id given to the call.
    pub call: CallId,
    /// From which peer.
    pub peer: PeerId,
    /// Its side.
    pub side: Side,
    /// Whether that peer signals changes of its parties.
    pub parties_signalled: bool,
    /// Whether an emergency form was dialled, or an answering point calls back: the static path.
    pub emergency: bool,
    /// Which limit it would exceed; the hub answers with [`Excess::refuse`]. Of emergency and dispatch calls: none.
    pub excess: Option<Excess>,
    /// User part (or telephone-subscriber of a `tel:`) of the Request-URI.
    pub request_user: String,
    /// User part of To, which the caller's telephone wrote.
    pub to_user: String,
    /// Users of History-Info and Diversion, oldest first. Only the district's peers that are trusted with
    /// identities grant anything by them.
    pub diverted_from: Vec<String>,
    /// Who calls.
    pub caller: Identity,
    /// What was found of the caller's number, if a trusted peer says so.
    pub verdict: Option<Verdict>,
    /// Call-ID of the caller's leg.
    pub sip_call_id: String,
    /// The offer, unless delayed.
    pub media: Option<LegMedia>,
}

/// Whom a transfer or redirection names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// User part (or telephone-subscriber of a `tel:`), percent-decoded, with its parameters.
    pub user: String,
    /// The side of the peer that its host names, if it names one.
    pub side: Option<Side>,
    /// The side of whoever names it; for a redirection, the district's if the caller or whoever redirects is
    /// there.
    pub from: Side,
    /// Whether it is an emergency form.
    pub emergency: bool,
}

/// An INVITE with Replaces (RFC 3891) as the hub needs it: it gets a record of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// The call that goes on.
    pub call: CallId,
    /// Whose far end is to be replaced.
    pub leg: Leg,
    /// The id given to the INVITE.
    pub record: CallId,
    /// Who sends it.
    pub caller: Identity,
    /// From which side.
    pub side: Side,
    /// User part of its Request-URI; often empty.
    pub request_user: String,
    /// Its Call-ID.
    pub sip_call_id: String,
}

/// Who a far end says it is; user parts as in [`Offer`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User parts of P-Asserted-Identity, a few at the most; none from peers that are not trusted with it.
    pub asserted: Vec<String>,
    /// User part of From; for a callee, whom the gateway dialled.
    pub from: String,
    /// Whether its peer is trusted with identities: then `from` counts where nothing is asserted.
    pub trusted: bool,
    /// Whether Privacy (`id` of RFC 3325, `user` of RFC 3323) withholds it.
    pub privacy: bool,
}

/// What a verification service found of a caller's number (RFC 8224 §6.2, ATIS-1000074).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `verstat` (3GPP TS 24.229 §7.2A.20).
    pub validation: Validation,
    /// How far the network that signed vouches for it, if that is said.
    pub attestation: Option<Attestation>,
}

/// Whether a number was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validation {
    /// `TN-Validation-Passed`.
    Passed,
    /// `TN-Validation-Failed`.
    Failed,
    /// `No-TN-Validation`.
    NotDone,
}

/// How far a network vouches for a caller's number (RFC 8588 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attestation {
    /// A: it knows the caller, and that the number is his.
    Full,
    /// B: it knows the caller only.
    Partial,
    /// C: it knows only where the call came in.
    Gateway,
}

/// A change at a leg's far end (docs/POLICY.md, "Who is on the line").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The leg put the other on hold.
    Held,
    /// The leg took the other off hold.
    Resumed,
    /// Another identity (P-Asserted-Identity, From, Contact user) or `isfocus`.
    NewParty {
        /// Who it now says it is.
        identity: Identity,
        /// The user that was called to reach it, if that may still be there.
        called: Option<String>,
    },
    /// Somebody else is there, by a transfer (REFER, Replaces).
    Replaced {
        /// Who it says it is.
        identity: Identity,
        /// The user that was called to reach it, if we called it.
        called: Option<String>,
        /// On which side it is.
        side: Side,
        /// Whether it was called by an emergency form.
        emergency: bool,
        /// Whether its peer signals changes of its parties.
        parties_signalled: bool,
    },
    /// Another session origin that nothing announced.
    NewOrigin,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Who ended it, if anybody did.
    pub by: Option<EndedBy>,
    /// The final status of the INVITE as the caller got it; `None` if it got none.
    pub final_status: Option<u16>,
    /// Whether the caller cancelled before an answer.
    pub cancelled: bool,
    /// Why the gateway ended it, where it was not the hub that had it do so.
    pub cause: Option<Cause>,
}

/// Why the gateway ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Nobody refreshed a leg's session (RFC 4028 §10).
    SessionExpired,
}

impl End {
    /// The end of an answered call.
    pub(crate) const fn by(by: EndedBy) -> Self {
        Self { by: Some(by), final_status: Some(200), cancelled: false, cause: None }
    }
}

/// Who ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the contract's words")]
pub enum EndedBy {
    Caller,
    Callee,
    Gateway,
}

impl EndedBy {
    /// Whoever is at this leg.
    pub(crate) const fn of(leg: Leg) -> Self {
        match leg {
            Leg::A => Self::Caller,
            Leg::B => Self::Callee,
        }
    }
}
