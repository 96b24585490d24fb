//! Transfer: somebody else takes the place of one leg's far end (RFC 3515, RFC 3891, RFC 3892, RFC 4488,
//! RFC 5589).
//!
//! L is the leg that gives its place up, R the one that stays, T the newcomer. The gateway carries a
//! transfer out itself: R never sees the REFER, only a re-INVITE; L never sees T. Nothing of L's and R's
//! call changes before R has taken T's description; until then every failure leaves the call as it was.
//!
//! | § | state | input | effect | next |
//! |---|---|---|---|---|
//! | 3515 2.4.2 | none | REFER of L | 202, NOTIFY 100, Diverted | Deciding |
//! | 4488 4 | none | REFER of L, `Refer-Sub: false` | 202 with `Refer-Sub: false`; no NOTIFY ever | Deciding |
//! | 5589 7.1 | none | REFER of L whose Replaces names a dialog of ours | 202, NOTIFY 100, the other call is asked for it | Borrowing |
//! | | Borrowing | it is lent | re-INVITE without offer to T, whom L's other call had reached | Inviting |
//! | | Borrowing | it is busy | asked again each [`RETRY_MS`] | Borrowing |
//! | | Deciding | Divert | INVITE without offer to T, with Referred-By, and with a Replaces that is not ours | Inviting |
//! | 3515 2.4.5 | Inviting | first 18x of T | NOTIFY 180 | Inviting |
//! | 3725 4.1 | Inviting | 2xx of T with an offer | re-INVITE to R with it, once nothing else is pending | Joining |
//! | | Inviting | 3xx of T | as [`redirect`](super::redirect) says | Inviting, none |
//! | 3261 22.2 | Inviting, Joining | a challenge that our account answers | the request again (`again`) | the same |
//! | | Deciding | nothing in time | an emergency service: as Divert on the static path; else NOTIFY 500 | Inviting, none |
//! | | Inviting | failure of T, or nothing | as [`hunt`](super::hunt) says: INVITE on the next way, or NOTIFY with it, terminated | Inviting, none |
//! | 3891 3 | none | INVITE of T that replaces L | re-INVITE to R with its offer, or without | Joining |
//! | 3261 14.1 | Joining | 491 of R | again after a while | Joining |
//! | | Joining | other failure of R | T: ACK and BYE, or the failure, or back to its call; NOTIFY with it | none |
//! | | Joining | 2xx of R | NewParty, Media; ACK or 200 to T, ACK to R; NOTIFY 200, terminated | Leaving |
//! | 5589 6.1 | Leaving | BYE of L; none for [`FAREWELL_MS`] | 200; BYE to L | none |
//! | | Deciding to Joining | BYE of L | 200; no NOTIFY any more; the transfer goes on | the same |
//! | | the same, L gone | any failure above | the call ends | ended |
//! | | Deciding to Joining | BYE of R, the call ends | T is let go, NOTIFY 487 | ended |
//! | | Inviting, Joining | BYE of T; too long without a sign | as a failure of T: 487, 408 | none |
//!
//! | REFER | answer |
//! |---|---|
//! | outside a dialog; of a public peer that may not; in an emergency call | 403 |
//! | before the answer; while another is in progress | 491 |
//! | without exactly one Refer-To; with a method but INVITE; to a scheme but `sip:` and `tel:` | 400, 501, 416 |
//! | the [`MAX_TRANSFERS`]th of a call | 403 |
//!
//! A Replaces in Refer-To that names L's dialog of another call of ours leads to that call's far end T,
//! whose own dialog is taken over: the two far ends are joined in here, the other call ends, and the two
//! records are linked. One that names no dialog of ours is for the peer that owns it, and goes there in the
//! INVITE as it came. One that names a dialog of another peer's is treated as not ours.
//!
//! Left out: early media of T (L's music is what R hears), T's REFER before it has joined, a
//! subscription that outlives its dialog (RFC 5057), and GRUUs.

mod joining;
mod lending;
mod refer;
mod replaces;
mod target;

pub(crate) use lending::{Lent, Loan};
pub(crate) use refer::is_answered_option;
pub(crate) use replaces::{Replaces, judge_replaces};
pub(crate) use target::Target;

use bytes::Bytes;
use consent::{CallId, Leg};

use super::{Attempt, Call, CallTimer, EndedBy, Phase};
use crate::End;
use crate::core::Environment;
use crate::dialog::sequence_of;
use crate::digest::credentials_of;
use crate::transaction::TxId;
use crate::wire::{Headers, Method, Request, Response, name, reason_phrase};

/// Transfers that one call may try; a PBX that loops must not keep it busy for ever.
const MAX_TRANSFERS: usize = 32;

/// How often something that is in the way is looked at again.
const RETRY_MS: u64 = 200;

/// How long it may be in the way: T waits for its ACK meanwhile.
const RETRY_LIMIT: u32 = 40;

/// How long L has for its own BYE.
const FAREWELL_MS: u64 = 2_000;

/// A transfer in progress.
pub(super) struct Transfer {
    /// L: whose place is given up, and the early dialog of it.
    leg: Leg,
    fork: usize,
    report: Option<Report>,
    /// Whether L has hung up already.
    pub(super) gone: bool,
    pub(super) target: Option<Target>,
    referred_by: Option<String>,
    retries: u32,
    stage: Stage,
}

/// The implicit subscription of a REFER: its id, and whether it was told of ringing.
struct Report {
    id: u32,
    rang: bool,
}

enum Stage {
    Borrowing { replaces: Replaces },
    Deciding,
    Inviting(Newcomer),
    Joining { newcomer: Newcomer, said: Said, reinvite: Option<Box<Reinvite>> },
}

/// How T comes.
enum Newcomer {
    /// We call it: index into the attempts.
    Called { attempt: usize },
    /// It replaces L by an INVITE of its own.
    Calling { server: TxId, record: CallId, invite: Box<Request>, fork: usize },
    /// It was the far end of another call.
    Lent(Box<Lent>),
}

/// What T has said, and in which of the call's dialogs.
struct Said {
    fork: usize,
    headers: Headers,
    body: Bytes,
}

/// Our INVITE to T, as its ACK needs it.
struct Invited {
    client: TxId,
    sequence: u32,
    credentials: Headers,
}

impl Invited {
    fn of(attempt: &Attempt) -> Self {
        let sent = &attempt.invite.headers;
        let sequence = sequence_of(sent).unwrap_or_default();
        Self { client: attempt.client, sequence, credentials: credentials_of(sent) }
    }
}

/// Our re-INVITE to R.
struct Reinvite {
    number: u32,
    client: TxId,
    sent: Request,
    path: crate::core::Path,
    branch: String,
    heard: bool,
}

/// L's dialog after T has taken its place.
pub(super) struct Leaving {
    fork: usize,
    leg: Leg,
}

impl Call {
    /// The leg whose place is being given up, once a re-INVITE to the other may be on its way.
    pub(super) fn joining_leg(&self) -> Option<Leg> {
        let transfer = self.transfer.as_ref()?;
        matches!(&transfer.stage, Stage::Joining { reinvite: Some(_), .. }).then_some(transfer.leg)
    }

    /// Whether a request of R's has nobody to go to, because L has hung up during its transfer.
    pub(super) fn lacks_far_end(&self) -> bool {
        self.lent || self.transfer.as_ref().is_some_and(|transfer| transfer.gone)
    }

    /// Whether this attempt is a transfer's that is in progress.
    pub(super) fn is_target(&self, attempt: usize) -> bool {
        self.transfer.as_ref().is_some_and(|transfer| match &transfer.stage {
            Stage::Inviting(_) => self.hunts(attempt),
            Stage::Joining { newcomer, .. } => {
                matches!(newcomer, Newcomer::Called { attempt: called } if *called == attempt)
            }
            Stage::Borrowing { .. } | Stage::Deciding => false,
        })
    }

    /// Takes the BYE of somebody who is no party of the call any more, or not yet: L during its transfer or
    /// after it, T before it has joined. Otherwise `false`.
    pub(super) fn takes_leave(&mut self, env: &mut Environment, fork: usize, leg: Leg) -> bool {
        if self.leaving.take_if(|leaving| (leaving.fork, leaving.leg) == (fork, leg)).is_some() {
            self.disarm(env, CallTimer::Farewell);
            return true;
        }
        let Some(transfer) = &mut self.transfer else { return false };
        if transfer.leg != leg {
            return false;
        }
        if transfer.fork == fork {
            transfer.gone = true;
        } else {
            let there = match &transfer.stage {
                Stage::Joining { said, .. } => said.fork == fork,
                Stage::Inviting(Newcomer::Lent(lent)) => lent.fork == fork,
                _ => false,
            };
            if there {
                self.lose_newcomer(env);
            }
            return there;
        }
        self.drop_acceptance_of(env, leg);
        self.over[leg.index()] = true;
        true
    }

    /// Tells L how far the transfer is (RFC 3515 §2.4.4): nothing if it wants no word or has gone.
    fn report(&mut self, env: &mut Environment, response: &Response) {
        let Some(transfer) = &self.transfer else { return };
        let Some(report) = transfer.report.as_ref().filter(|_| !transfer.gone) else { return };
        let (id, fork, leg) = (report.id, transfer.fork, transfer.leg);
        let phrase =
            if response.reason.is_empty() { reason_phrase(response.status) } else { &response.reason };
        let body = format!("SIP/2.0 {} {phrase}\r\n", response.status);
        let state = if response.status < 200 { "active;expires=180" } else { "terminated;reason=noresource" };
        let Some(dialog) = self.dialog(fork, leg) else { return };
        let (mut notify, path) = (dialog.request(Method::NOTIFY), dialog.path);
        let contact = env.contact(&path, super::sips::is_sent_to(&notify));
        let headers = &mut notify.headers;
        headers.push(name::MAX_FORWARDS, "70");
        headers.push(name::CONTACT, contact);
        headers.push(name::EVENT, format!("refer;id={id}"));
        headers.push("Subscription-State", state);
        headers.push(name::CONTENT_TYPE, "message/sipfrag;version=2.0");
        notify.body = body.into();
        env.request(path, notify, super::Owner::Nobody);
    }

    /// The transfer has come to nothing: L is told why, and keeps the call unless it has hung up.
    pub(super) fn fail_transfer(&mut self, env: &mut Environment, failure: &Response) {
        self.disarm(env, CallTimer::Transfer);
        self.report(env, &super::forward::map_failure(failure));
        let Some(transfer) = self.transfer.take() else { return };
        tracing::debug!(call = %self.id, status = failure.status, "transfer failed");
        if transfer.gone {
            let by = if transfer.leg == Leg::A { EndedBy::Caller } else { EndedBy::Callee };
            let end = End { by: Some(by), final_status: Some(200), cancelled: false };
            let reason = format!("SIP;cause={}", failure.status);
            self.finish(env, end, None, Some(&reason));
        }
    }

    /// The call ends under the transfer: T is let go.
    pub(super) fn abandon_transfer(&mut self, env: &mut Environment) {
        self.disarm(env, CallTimer::Transfer);
        self.disarm(env, CallTimer::Farewell);
        if let Some(leaving) = self.leaving.take() {
            self.bid_farewell(env, &leaving);
        }
        if self.transfer.is_none() {
            return;
        }
        let terminated = Response::new(487);
        self.report(env, &terminated);
        self.release_newcomer(env, &terminated);
        self.transfer = None;
    }

    pub(super) fn on_transfer_timer(&mut self, env: &mut Environment) {
        let Some(transfer) = &mut self.transfer else { return };
        match &transfer.stage {
            Stage::Borrowing { .. } | Stage::Joining { reinvite: None, .. } => {
                transfer.retries += 1;
                if transfer.retries > RETRY_LIMIT {
                    let pending = Response::new(491);
                    self.release_newcomer(env, &pending);
                    return self.fail_transfer(env, &pending);
                }
                if matches!(transfer.stage, Stage::Borrowing { .. }) {
                    self.borrow(env);
                } else {
                    self.reinvite_other(env);
                }
            }
            Stage::Deciding => self.on_no_route(env),
            Stage::Inviting(_) | Stage::Joining { .. } => {
                let timeout = Response::new(408);
                self.release_newcomer(env, &timeout);
                self.fail_transfer(env, &timeout);
            }
        }
    }

    pub(super) fn on_farewell(&mut self, env: &mut Environment) {
        if let Some(leaving) = self.leaving.take() {
            self.bid_farewell(env, &leaving);
        }
    }

    fn bid_farewell(&mut self, env: &mut Environment, leaving: &Leaving) {
        let Some(dialog) = self.dialog(leaving.fork, leaving.leg) else { return };
        let (mut bye, path) = (dialog.request(Method::BYE), dialog.path);
        bye.headers.push(name::MAX_FORWARDS, "70");
        env.request(path, bye, super::Owner::Nobody);
    }

    /// A 3xx of T names somebody else; `None` if there is no transfer that waits for T.
    pub(super) fn divert_transfer(&mut self, target: &Target) -> Option<Leg> {
        let transfer = self.transfer.as_mut()?;
        let replaces = transfer.target.take().and_then(|target| target.replaces);
        transfer.target = Some(Target { replaces, ..target.clone() });
        transfer.stage = Stage::Deciding;
        Some(transfer.leg)
    }

    /// Whether a transfer may begin now.
    fn may_transfer(&self) -> bool {
        self.phase == Phase::Answered && self.transfer.is_none() && !self.lent
    }
}
