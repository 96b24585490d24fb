//! Transfer: somebody else takes the place of one leg's far end (RFC 3515, RFC 3891, RFC 3892, RFC 4488,
//! RFC 5589).
//!
//! L is the leg that gives its place up (RFC 5589's transferor), R the one that stays (transferee), T the
//! newcomer (transfer target). The gateway carries a
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
//! | 5589 7.6 | Borrowing | T still rings there | that call is cancelled; Diverted to whom it dialled | Deciding |
//! | | Deciding | Divert | INVITE without offer to T, with Referred-By, and with a Replaces that is not ours | Inviting |
//! | 3515 2.4.5 | Inviting | first 18x of T | NOTIFY 180 | Inviting |
//! | 3725 4.1 | Inviting | 2xx of T with an offer | re-INVITE to R with it, once nothing else is pending | Joining |
//! | | Inviting | 3xx of T | as [`redirect`](super::redirect) says | Inviting, none |
//! | 3261 22.2 | Inviting, Joining | a challenge that our account answers | the request again (`again`) | the same |
//! | | Deciding | nothing in time | an emergency service: as Divert on the static path; else NOTIFY 500 | Inviting, none |
//! | | Inviting | failure of T, or nothing | as [`hunt`](super::hunt) says: INVITE on the next way, or NOTIFY with it, terminated | Inviting, none |
//! | | Borrowing to Joining | any failure | TransferFailed besides | none |
//! | 3891 3 | none | INVITE of T that replaces L | Replacing | Announced |
//! | | Announced | Replace | re-INVITE to R with T's offer, or without | Joining |
//! | 3261 14.2 | Announced to Joining | T's own INVITE or UPDATE; OPTIONS; anything else but BYE | 491; 200; 500 with Retry-After | the same |
//! | 3261 14.1 | Joining | 491 of R | again after a while | Joining |
//! | 3261 12.2.1.2 | Joining | 408 or 481 of R, or nothing | the call ends | ended |
//! | | Joining | other failure of R | T: ACK and BYE, or the failure, or back to its call; NOTIFY with it | none |
//! | | Joining | 2xx of R | Replaced, Media; ACK or 200 to T, ACK to R; NOTIFY 200, terminated | Leaving |
//! | 3261 13.2.1 | Joining | the same, where T offers nothing | Vacated; 200 to T with R's offer; Replaced, Media with T's ACK | Leaving |
//! | 3264 8 | Joining | what fails after R was asked | as [`undoing`] says | |
//! | 5589 6.1 | Leaving | BYE of L; none for [`FAREWELL_MS`] | 200; BYE to L | none |
//! | | Deciding to Joining | BYE of L | 200; no NOTIFY any more; the transfer goes on | the same |
//! | | the same, L gone | any failure above | the call ends | ended |
//! | | Deciding to Joining | BYE of R, the call ends | T is let go, NOTIFY 487 | ended |
//! | | Inviting to Joining | BYE of T; too long without a sign | as a failure of T: 487, 408 | none |
//!
//! | REFER | answer |
//! |---|---|
//! | outside a dialog; of a public peer that may not; in a call to an emergency service | 403 |
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

mod inviting;
mod joining;
mod lending;
mod refer;
mod releasing;
mod replaces;
mod target;
mod undoing;

pub(crate) use lending::{Lent, Loan, NotLent};
pub(crate) use refer::is_answered_option;
pub(crate) use replaces::{NotReplaced, Replaces, judge_replaces};
pub(crate) use target::Target;
pub(super) use undoing::Undoing;

use bytes::Bytes;
use consent::{CallId, Leg, Mono};

use super::asking::Asked;
use super::session::Numbered;
use super::{Call, CallTimer, EndedBy, Fork, Owner, Phase, sips};
use crate::core::Environment;
use crate::dialog::Dialog;
use crate::transaction::TxId;
use crate::wire::{Headers, Method, Request, Response, name, reason_phrase};
use crate::{Change, End, Event};

/// Transfers that one call may try; a PBX that loops must not keep it busy for ever.
const MAX_TRANSFERS: usize = 32;

/// How often something that is in the way is looked at again.
const RETRY_MS: u64 = 200;

/// How long R may take to accept T, whose 2xx waits for its ACK meanwhile: T gives up after 64*T1, 32 s.
const JOINING_MS: u64 = 31_000;

/// How long L has for its own BYE.
const FAREWELL_MS: u64 = 2_000;

/// A transfer in progress.
pub(super) struct Transfer {
    /// L: whose place is given up, and the dialog of it.
    leg: Leg,
    fork: usize,
    subscription: Option<Subscription>,
    /// Whether L has hung up already.
    pub(super) gone: bool,
    pub(super) target: Option<Target>,
    referred_by: Option<String>,
    /// Until when what is in the way may be.
    give_up_at: Mono,
    stage: Stage,
}

/// The implicit subscription of a REFER: its id, and whether it was told of ringing.
struct Subscription {
    id: u32,
    rang: bool,
}

enum Stage {
    Borrowing { replaces: Replaces },
    Deciding,
    Announced { taker: Taker, said: Said },
    Inviting(Invited),
    Joining { newcomer: Newcomer, said: Said, reinvite: Option<Box<Reinvite>> },
}

/// T, as long as it has not answered.
enum Invited {
    /// We call it: the hunt's INVITEs.
    Called,
    /// It was the far end of another call; its dialog here.
    Lent { borrowed: Box<Borrowed>, fork: usize },
}

/// T, as soon as it has said something.
enum Newcomer {
    Called { attempt: usize },
    Lent(Box<Borrowed>),
    Calling(Taker),
}

/// An INVITE that replaces L.
struct Taker {
    server: TxId,
    record: CallId,
    invite: Box<Request>,
}

/// The far end of another call, and our re-INVITE to it.
struct Borrowed {
    lent: Box<Lent>,
    reinvite: Reinvite,
}

/// What T has said, and in which of the call's dialogs.
struct Said {
    fork: usize,
    headers: Headers,
    body: Bytes,
}

/// A re-INVITE of ours, and the description in it.
pub(super) struct Reinvite {
    asked: Asked,
    offer: Option<Numbered>,
}

/// L's dialog after T has taken its place.
pub(super) struct Leaving {
    fork: usize,
    leg: Leg,
}

/// T is in L's place, but has not said where: what is to be told with its ACK.
pub(super) struct Arriving {
    pub(super) leg: Leg,
    pub(super) change: Change,
}

impl Transfer {
    fn new(leg: Leg, fork: usize, give_up_at: Mono, stage: Stage) -> Self {
        Self {
            leg,
            fork,
            subscription: None,
            gone: false,
            target: None,
            referred_by: None,
            give_up_at,
            stage,
        }
    }

    /// The dialog of T's that is known already.
    fn newcomers_fork(&self) -> Option<usize> {
        match &self.stage {
            Stage::Announced { said, .. } | Stage::Joining { said, .. } => Some(said.fork),
            Stage::Inviting(Invited::Lent { fork, .. }) => Some(*fork),
            Stage::Inviting(Invited::Called) | Stage::Borrowing { .. } | Stage::Deciding => None,
        }
    }

    /// The far end of another call, if that is T.
    fn borrowed(&mut self) -> Option<&mut Borrowed> {
        match &mut self.stage {
            Stage::Inviting(Invited::Lent { borrowed, .. })
            | Stage::Joining { newcomer: Newcomer::Lent(borrowed), .. } => Some(borrowed),
            _ => None,
        }
    }

    /// Tells L how far the transfer is: nothing if it wants no word or has gone.
    fn report(&self, env: &mut Environment, forks: &mut [Fork], response: &Response) {
        let Some(subscription) = self.subscription.as_ref().filter(|_| !self.gone) else { return };
        if let Some(fork) = forks.get_mut(self.fork) {
            subscription.notify(&mut fork.dialogs[self.leg.index()], env, response);
        }
    }
}

impl Subscription {
    /// Tells a state (RFC 3515 §2.4.4).
    fn notify(&self, dialog: &mut Dialog, env: &mut Environment, response: &Response) {
        let phrase =
            if response.reason.is_empty() { reason_phrase(response.status) } else { &response.reason };
        let body = format!("SIP/2.0 {} {phrase}\r\n", response.status);
        let state = if response.status < 200 { "active;expires=180" } else { "terminated;reason=noresource" };
        let (mut notify, path) = (dialog.request(Method::NOTIFY), dialog.path);
        let contact = env.contact(&path, sips::is_sent_to(&notify));
        let headers = &mut notify.headers;
        headers.push(name::MAX_FORWARDS, "70");
        headers.push(name::CONTACT, contact);
        headers.push(name::EVENT, format!("refer;id={}", self.id));
        headers.push("Subscription-State", state);
        headers.push(name::CONTENT_TYPE, "message/sipfrag;version=2.0");
        notify.body = body.into();
        env.request(path, notify, Owner::Nobody);
    }
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
            Stage::Inviting(Invited::Called) => self.hunts(attempt),
            Stage::Joining { newcomer: Newcomer::Called { attempt: called }, .. } => *called == attempt,
            _ => false,
        })
    }

    /// Whether this is a dialog of T's, who is no party yet.
    pub(super) fn is_newcomers(&self, fork: usize, leg: Leg) -> bool {
        let transfer = self.transfer.as_ref().filter(|transfer| transfer.leg == leg);
        transfer.is_some_and(|transfer| transfer.newcomers_fork() == Some(fork))
    }

    /// Whether T is in this leg's place, but has not sent the ACK that says where it is.
    pub(super) fn is_arriving(&self, leg: Leg) -> bool {
        self.arriving.as_ref().is_some_and(|arriving| arriving.leg == leg)
    }

    /// Takes the BYE of somebody who is no party of the call any more, or not yet: L during its transfer or
    /// after it, T before it has joined. Otherwise `false`.
    pub(super) fn takes_leave(&mut self, env: &mut Environment, fork: usize, leg: Leg) -> bool {
        if self.leaving.take_if(|leaving| (leaving.fork, leaving.leg) == (fork, leg)).is_some() {
            self.disarm(env, CallTimer::Farewell);
            return true;
        }
        if self.is_newcomers(fork, leg) {
            self.lose_newcomer(env);
            return true;
        }
        let leaves = |transfer: &&mut Box<Transfer>| (transfer.fork, transfer.leg) == (fork, leg);
        let Some(transfer) = self.transfer.as_mut().filter(leaves) else { return false };
        transfer.gone = true;
        self.drop_acceptance_of(env, leg);
        self.forget_timing(env, leg);
        self.over[leg.index()] = true;
        true
    }

    /// Tells L how far the transfer is.
    fn report(&mut self, env: &mut Environment, response: &Response) {
        if let Some(transfer) = &self.transfer {
            transfer.report(env, &mut self.forks, response);
        }
    }

    /// The transfer has come to nothing: T is let go, L is told why, and keeps the call unless it has hung up.
    pub(super) fn fail_transfer(&mut self, env: &mut Environment, failure: &Response) {
        self.disarm(env, CallTimer::Transfer);
        self.release_newcomer(env, failure);
        let mut told = super::forward::map_failure(failure);
        if self.hosts.iter().any(|hosts| hosts.appear_in(&told.reason)) {
            told.reason = reason_phrase(told.status).to_owned();
        }
        self.report(env, &told);
        let Some(transfer) = self.transfer.take() else { return };
        tracing::debug!(call = %self.id, status = failure.status, "transfer failed");
        env.emit(Event::TransferFailed { call: self.id, leg: transfer.leg });
        if transfer.gone {
            let reason = format!("SIP;cause={}", failure.status);
            self.finish(env, End::by(EndedBy::of(transfer.leg)), None, Some(&reason));
        }
    }

    /// The call ends under the transfer: T is let go.
    pub(super) fn abandon_transfer(&mut self, env: &mut Environment) {
        self.disarm(env, CallTimer::Transfer);
        self.disarm(env, CallTimer::Farewell);
        self.arriving = None;
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
        let Some(transfer) = &self.transfer else { return };
        let in_time = env.now.mono < transfer.give_up_at;
        let failure = match &transfer.stage {
            Stage::Borrowing { .. } if in_time => return self.borrow(env),
            Stage::Joining { reinvite: None, .. } if in_time => return self.reinvite_other(env),
            Stage::Borrowing { .. } | Stage::Joining { reinvite: None, .. } => 491,
            Stage::Deciding => return self.on_no_route(env),
            Stage::Announced { .. } => 500,
            Stage::Inviting(Invited::Called) => return self.on_ringing_too_long(env),
            Stage::Inviting(_) | Stage::Joining { .. } => 408,
        };
        self.fail_transfer(env, &Response::new(failure));
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
        env.request(path, bye, Owner::Nobody);
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
        self.phase == Phase::Answered && self.transfer.is_none() && !self.lent && self.arriving.is_none()
    }
}
