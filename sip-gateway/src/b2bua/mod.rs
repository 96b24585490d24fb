//! The back-to-back user agent: one call, two legs, a dialog of its own on each.
//!
//! Leg A is the caller's: we are its UAS. Leg B is the callee's: we are its UAC. They share no Call-ID,
//! tag, CSeq, Via or Contact.
//!
//! | phase | input | effect | next |
//! |---|---|---|---|
//! | Waiting | Proceed | Routed, INVITE on the best way | Calling |
//! | Waiting | Refuse | the failure to A | ended |
//! | Waiting | no command in time | emergency: as Proceed on the static path; else 500 | Calling or ended |
//! | Waiting, Calling | CANCEL of A | 200, 487 to A; CANCEL to B once it has answered at all (§9.1) | ended |
//! | Calling | 18x of B | Media, Progress, then on to A under a To tag of its own per fork | Calling |
//! | Calling | a failure, or nothing from B | as [`hunt`] says: INVITE on the next way, or the failure to A | Calling or ended |
//! | Calling, Answered | a challenge to a request of ours that our account answers | the request again (`again`) | the same |
//! | Calling | 2xx of B | Media, Answered, then 200 to A, repeated until its ACK | Answered |
//! | Answered | ACK of A | ACK to B | Answered |
//! | Answered | no ACK for 64*T1 | ACK and BYE to B, BYE to A | ended |
//! | Answered | BYE of either | 200, BYE to the other | ended |
//! | any | 2xx of another fork, or after the end | ACK and BYE to it | the same |
//!
//! Transfers have a table of their own in [`transfer`], redirection in [`redirect`].
//!
//! The ACK is passed on end to end, also when it carries no answer to a delayed offer: so B cannot start a
//! re-INVITE that A is not ready for, and one rule serves all. `Ended` is told once, when the first message
//! of the end is on its way; what is left of the call runs out within [`LINGER_MS`].

mod again;
mod asking;
mod awareness;
mod border;
mod calling;
mod destination;
mod digits;
mod ending;
mod forward;
mod glare;
mod hunt;
mod identity;
mod inside;
mod offering;
mod privacy;
mod redirect;
mod reliable;
mod session;
mod session_timer;
mod sips;
mod transfer;

pub(crate) use offering::{Incoming, called_subscriber, escaped};

pub(crate) use border::Border;
#[cfg(any(test, fuzzing))]
pub(crate) use forward::copy_end_to_end;
pub(crate) use forward::{ALLOW, passes_option, supported};
#[cfg(any(test, fuzzing))]
pub(crate) use offering::{Place, address_at, uri_at};
pub(crate) use privacy::refusal as refuse_privacy;
pub(crate) use session_timer::refusal as refuse_session;
pub(crate) use transfer::{Loan, NotLent, NotReplaced, is_answered_option, judge_replaces};

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use consent::{CallId, Leg, Mono};

use crate::core::{Admitted, Deadline, Environment, Origin, Path, TimerKey, Way};
use crate::dialog::{Dialog, DialogId, add_tag};
use crate::topology::Hosts;
use crate::transaction::{Class, Report, T1_64_MS, T4_MS, TxId};
use crate::wire::{Headers, Request, Response, name};
use crate::{Change, EndedBy, Event, LegMedia, PeerId};
use identity::FarEnd;
use session::{Ours, Session, Told};

/// How long the hub may take to decide. It answers within milliseconds; this only bounds a hung one.
const DECISION_MS: u64 = 10_000;

/// The same for an emergency call, which then takes the static path without it.
const EMERGENCY_DECISION_MS: u64 = 250;

const fn decision_ms(emergency: bool) -> u64 {
    if emergency { EMERGENCY_DECISION_MS } else { DECISION_MS }
}

/// Timer C (RFC 3261 §16.6 step 11): how long a callee may ring since its last sign of life.
const TIMER_C_MS: u64 = 200_000;

/// How long an ended call is kept for what may still come: a cancelled INVITE's final response (§9.1), a
/// forked 2xx, the repeats of a 2xx.
const LINGER_MS: u64 = T1_64_MS + T4_MS;

/// Early dialogs of one call; provisional responses of further forks are not passed on.
const MAX_FORKS: usize = 16;

/// Requests of one call that wait for the other leg's answer; beyond: 500 with Retry-After.
const MAX_RELAYS: usize = 16;

/// Dialogs of one call, those of further 2xx included, each of which gets ACK and BYE; beyond: dropped.
const MAX_DIALOGS: usize = 64;

/// ACKs kept for repeated 2xx.
const MAX_ACKED: usize = MAX_DIALOGS;

/// Whose transaction it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It runs out by itself.
    Nobody,
    /// A call's.
    Call(CallId, Role),
    /// The ping of an address.
    Ping(Way),
    /// That of our registration with a peer.
    Registration(PeerId),
}

/// What a transaction is to its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The caller's INVITE.
    Invite,
    /// Our INVITE to a peer: index into the attempts.
    Attempt(usize),
    /// A request inside the dialogs, on either leg: its number.
    Relay(u32),
    /// Our re-INVITE to the far end that stays in a transfer.
    Join,
    /// Our re-INVITE to one that is lent.
    Lent,
    /// Our refresh of a leg's session.
    Refresh(Leg),
    /// What we tell a leg of recording.
    Indication(Leg),
    /// An INVITE that replaces a far end.
    Replacing,
}

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallTimer {
    /// The hub's decision.
    Decision,
    /// Timer C.
    Ringing,
    /// A first sign of life from where an INVITE went.
    Silence,
    /// The next repetition of a 2xx.
    RepeatAnswer,
    /// The end of those.
    GiveUpAnswer,
    /// The next repetition of a reliable provisional response in an early dialog of A's.
    Provisional(usize),
    /// Our next refresh of a leg's session.
    Refresh(Leg),
    /// The end of our patience with a re-INVITE that draws provisional responses, then with its CANCEL.
    Patience(Leg),
    /// The end of a leg's session, which nobody has refreshed.
    Expiry(Leg),
    /// Our next try to tell a leg of recording.
    Indication(Leg),
    /// The next thing that a transfer waits for.
    Transfer,
    /// The BYE of whom a transfer has replaced.
    Farewell,
    /// The answer to a re-INVITE that its transfer did not outlive, or its next try.
    Undoing,
    /// The end of an ended call.
    Linger,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Calling,
    Answered,
    Ended,
}

/// Our INVITE to one peer.
struct Attempt {
    /// The leg on which its answer will be.
    leg: Leg,
    path: Path,
    client: TxId,
    branch: String,
    invite: Request,
    sent_at: Mono,
    /// The offer in it, if a transfer's INVITE has one.
    offered: Option<Ours>,
    /// Whether any response came, and one above 100.
    heard: bool,
    ringing: bool,
    /// Whether a final response came, or never will.
    finished: bool,
    /// Whether it is to be cancelled as soon as it is heard (§9.1), and has been.
    unwanted: bool,
    cancelled: bool,
    /// The Reason that the CANCEL carries.
    reason: Option<String>,
    /// How often a longer session was asked for (422).
    raised: u8,
}

/// A dialog of B's and the one of A's that stands for it.
struct Fork {
    /// The INVITE of ours that made it.
    attempt: Option<usize>,
    dialogs: [Dialog; 2],
    reliability: reliable::Reliability,
    /// Its offers and answers, before any dialog is answered.
    session: Option<Box<Session>>,
    /// The answer that A got in a provisional response, as long as it is not settled.
    early_answer: Option<Answer>,
}

/// A body as A got it, with the fields that describe it.
struct Answer {
    headers: Headers,
    body: Bytes,
}

/// A 2xx passed on, whose ACK is awaited.
struct Acceptance {
    /// Who is to send the ACK.
    from: Leg,
    /// CSeq of the INVITE on that leg and on the other.
    sequence: u32,
    other_sequence: u32,
    server: TxId,
    client: TxId,
    response: Response,
    interval_ms: u64,
    /// The credentials of the INVITE on the other leg, for its ACK.
    credentials: Headers,
    /// Whether the other leg has its ACK already, because the call ended meanwhile.
    settled: bool,
}

/// An ACK sent, for a 2xx that may be repeated.
struct Acked {
    client: TxId,
    fork: usize,
    path: Path,
    bytes: Bytes,
}

/// A request of one leg that waits for the other's answer.
struct Relay {
    number: u32,
    from: Leg,
    fork: usize,
    server: TxId,
    request: Request,
    /// As it is sent on.
    asked: asking::Asked,
    unwanted: bool,
}

/// One call.
pub(crate) struct Call {
    id: CallId,
    class: Class,
    admitted: Admitted,
    /// Where it has passed through us ([`Environment::passes`]).
    passes: String,
    phase: Phase,
    /// A's INVITE, where its responses go, and the To tag of those that belong to no fork.
    invite: Request,
    server: TxId,
    peer: PeerId,
    back: Path,
    tag: String,
    /// Where each leg's latest message came from; of B, whom we call, until there is one.
    heard_from: [IpAddr; 2],
    /// Where each leg's side is, as far as it has shown.
    hosts: [Arc<Hosts>; 2],
    session: Session,
    /// The media of each leg that the hub knows of.
    told: [Option<LegMedia>; 2],
    timings: [session_timer::Timing; 2],
    awareness: awareness::Awareness,
    /// Whether an emergency service was called, be it dialled, or named by a transfer or a redirection: no timer
    /// ends the call and nobody takes its far ends away. A call-back is none.
    calls_for_help: bool,
    /// Whether the call is an emergency call by the word of a peer that is believed to say who calls.
    mark_believed: bool,
    hunt: hunt::Hunt,
    attempts: Vec<Attempt>,
    forks: Vec<Fork>,
    answered: Option<usize>,
    held_answer: Option<reliable::Held>,
    acceptance: Option<Acceptance>,
    acked: VecDeque<Acked>,
    relays: Vec<Relay>,
    relays_begun: u32,
    far_ends: [FarEnd; 2],
    swallow: [bool; 2],
    transfer: Option<Box<transfer::Transfer>>,
    transfers_begun: usize,
    leaving: Option<transfer::Leaving>,
    arriving: Option<transfer::Arriving>,
    undoing: Option<transfer::Undoing>,
    /// Whether the far end of one leg is another call's for now.
    lent: bool,
    /// Whether a leg's dialog has ended or never will be.
    over: [bool; 2],
    /// The leg that gets its BYE once it has sent its ACK, and the Reason.
    bye_after_ack: Option<(Leg, Option<String>)>,
    /// Client transactions of re-INVITEs that the call did not outlive.
    orphans: Vec<TxId>,
    timers: Vec<(CallTimer, TimerKey)>,
    done: bool,
}

impl Call {
    pub(crate) const fn id(&self) -> CallId {
        self.id
    }

    /// The To tag of what we answer for no callee in particular; `None` while it is that of an answer
    /// without a call, because no INVITE of ours went on and no dialog can come of it.
    pub(crate) fn tag(&self) -> Option<&str> {
        (!self.is_unsent()).then_some(self.tag.as_str())
    }

    /// Whether nothing more is to come.
    pub(crate) const fn is_done(&self) -> bool {
        self.done
    }

    /// Whether it is an emergency call.
    pub(crate) const fn is_emergency(&self) -> bool {
        matches!(self.class, Class::Emergency)
    }

    /// Whether it is one, or has become one by a transfer.
    pub(crate) const fn serves_emergency(&self) -> bool {
        self.is_emergency() || self.calls_for_help
    }

    /// Whether no INVITE of ours went on.
    const fn is_unsent(&self) -> bool {
        self.attempts.is_empty()
    }

    /// Gives back all that the call holds outside itself.
    pub(crate) fn release(&mut self, env: &mut Environment) {
        env.forget_ladder(self.id);
        for (_, key) in self.timers.drain(..) {
            env.timers.disarm(key);
        }
        for fork in &self.forks {
            for dialog in &fork.dialogs {
                // One that went to another call is that call's.
                if env.dialogs.get(&dialog.id).is_some_and(|place| place.call == self.id) {
                    env.dialogs.remove(&dialog.id);
                }
            }
        }
        let clients = self.attempts.iter().filter(|attempt| !attempt.finished).map(|attempt| attempt.client);
        let clients: Vec<TxId> = clients.chain(self.orphans.iter().copied()).collect();
        for client in clients {
            let (transactions, mut ports) = env.split();
            transactions.abandon(&mut ports, client);
        }
    }

    pub(crate) fn swallow_info_digits(&mut self, leg: Leg, swallow: bool) {
        self.swallow[leg.index()] = swallow;
    }

    /// A response came to one of our requests.
    pub(crate) fn on_response(
        &mut self,
        env: &mut Environment,
        role: Role,
        client: TxId,
        origin: Origin,
        response: Response,
    ) {
        if let Some(leg) = self.answerer(role, client) {
            self.heard_from[leg.index()] = origin.source.ip();
            self.learn(env, leg, &response.headers, origin.source.ip());
        }
        if (200..300).contains(&response.status) {
            self.heed_response(env, role, client, &response);
        }
        match role {
            Role::Attempt(index) => self.on_attempt_response(env, index, origin, response),
            Role::Relay(number) => self.on_relay_response(env, number, client, response),
            Role::Join => self.on_join_response(env, client, &response),
            Role::Lent => self.on_lent_response(env, client, response),
            Role::Refresh(leg) => self.on_refresh_response(env, leg, client, &response),
            Role::Indication(leg) => self.on_indication_response(env, leg, client, &response),
            Role::Invite | Role::Replacing => {}
        }
    }

    /// A transaction timed out or lost its transport.
    pub(crate) fn on_report(&mut self, env: &mut Environment, role: Role, id: TxId, report: Report) {
        match role {
            Role::Attempt(index) => self.on_attempt_failed(env, index, report),
            Role::Relay(number) => self.on_relay_failed(env, number, id, report),
            Role::Join => self.on_join_failed(env, id, report),
            Role::Lent => self.on_lent_response(env, id, Response::new(report.status())),
            Role::Refresh(leg) => self.on_refresh_failed(env, leg, id, report),
            Role::Indication(leg) => self.on_indication_failed(env, leg, id, report),
            // A never acknowledged our failure, or its transport is gone: its leg is over already.
            Role::Invite | Role::Replacing => {}
        }
    }

    pub(crate) fn on_timer(&mut self, env: &mut Environment, timer: CallTimer) {
        self.timers.retain(|(armed, _)| *armed != timer);
        match timer {
            CallTimer::Decision if self.phase == Phase::Calling => self.on_no_diversion(env),
            CallTimer::Decision => self.on_no_decision(env),
            CallTimer::Ringing => self.on_ringing_too_long(env),
            CallTimer::Silence => self.on_silence(env),
            CallTimer::RepeatAnswer => self.repeat_answer(env),
            CallTimer::GiveUpAnswer => self.on_no_ack(env),
            CallTimer::Provisional(fork) => self.repeat_provisional(env, fork),
            CallTimer::Refresh(leg) => self.refresh(env, leg),
            CallTimer::Patience(leg) => self.on_patience_over(env, leg),
            CallTimer::Expiry(leg) => self.on_expiry(env, leg),
            CallTimer::Indication(leg) => self.inform(env, leg),
            CallTimer::Transfer => self.on_transfer_timer(env),
            CallTimer::Farewell => self.on_farewell(env),
            CallTimer::Undoing => self.on_undoing_timer(env),
            CallTimer::Linger => self.done = true,
        }
    }

    fn arm(&mut self, env: &mut Environment, timer: CallTimer, ms: u64) {
        self.disarm(env, timer);
        let key = env.timers.arm(env.now.mono.plus_ms(ms), Deadline::Call(self.id, timer));
        self.timers.push((timer, key));
    }

    fn disarm(&mut self, env: &mut Environment, timer: CallTimer) {
        self.timers.retain(|(armed, key)| {
            if *armed == timer {
                env.timers.disarm(*key);
            }
            *armed != timer
        });
    }

    /// Tells the hub. Of several early dialogs the last media told are in force (RFC 3960 §3.1); a hold in
    /// one of them is told when it is the one that is answered. After the end there is nothing to tell.
    fn tell(&mut self, env: &mut Environment, told: Vec<Told>) {
        if self.phase == Phase::Ended {
            return;
        }
        for told in told {
            match told {
                Told::Media(leg, media) if self.told[leg.index()].as_ref() != Some(&media) => {
                    self.told[leg.index()] = Some(media.clone());
                    env.emit(Event::Media { call: self.id, leg, media });
                }
                Told::Media(..) => {}
                Told::Changed(_, Change::Held | Change::Resumed) if self.answered.is_none() => {}
                Told::Changed(leg, change) => env.emit(Event::Changed { call: self.id, leg, change }),
            }
        }
    }

    /// Takes in a description of a leg in one of the dialogs. Of several early ones this is the one that is
    /// heard from here on.
    fn describe_in(
        &mut self,
        env: &mut Environment,
        fork: usize,
        from: Leg,
        described: session::Described,
        early: bool,
    ) {
        let mut told = self.session_in(fork).pass(from, described, early);
        if self.answered.is_none() {
            told.extend(self.session_of(fork).retold());
        }
        self.tell(env, told);
    }

    /// The offers and answers in one of the dialogs.
    fn session_of(&self, fork: usize) -> &Session {
        self.forks.get(fork).and_then(|fork| fork.session.as_deref()).unwrap_or(&self.session)
    }

    fn session_in(&mut self, fork: usize) -> &mut Session {
        let early = self.forks.get_mut(fork).and_then(|fork| fork.session.as_deref_mut());
        early.unwrap_or(&mut self.session)
    }

    /// Makes the two dialogs of a callee's response known.
    fn add_fork(&mut self, env: &mut Environment, attempt: usize, response: &Response) -> Option<usize> {
        let made = self.attempts.get(attempt).filter(|_| self.forks.len() < MAX_DIALOGS)?;
        let b = Dialog::of_uac(env, &made.invite, &response.headers, made.path);
        if self.answered.is_some() {
            // A transfer's: beside a copy of the dialog that stays.
            let (leg, fork) = (made.leg, self.forks.len());
            let added = self.add_newcomer(env, leg, b);
            debug_assert!(added.is_none_or(|added| added == fork));
            if let Some(fork) = self.forks.get_mut(fork) {
                fork.attempt = Some(attempt);
            }
            return added;
        }
        let (tag, session) = if self.forks.is_empty() {
            (self.tag.clone(), self.session.clone())
        } else {
            (env.generator.tag(), self.session.beside(Leg::A, env.generator.session()))
        };
        let a = Dialog::of_uas(env, &self.invite, &tag, self.back);
        let fork = self.forks.len();
        for (leg, dialog, peer) in [(Leg::A, &a, self.peer), (Leg::B, &b, made.path.peer)] {
            let place = crate::core::DialogPlace { call: self.id, leg, fork, peer, class: self.class };
            env.add_dialog(dialog.id.clone(), place);
        }
        self.forks.push(Fork::new(Some(attempt), [a, b], Some(Box::new(session))));
        Some(fork)
    }

    /// The leg that answers a request of ours; nobody's where it is not a party yet, or has answered before: a
    /// 2xx that comes again is not what it says now (RFC 6026 §7.2).
    fn answerer(&self, role: Role, client: TxId) -> Option<Leg> {
        match role {
            Role::Attempt(index) => {
                let wanted = self.attempts.get(index).is_some_and(|attempt| !attempt.unwanted);
                (wanted && self.answered.is_none()).then_some(Leg::B)
            }
            Role::Relay(number) => {
                let relay = self.relays.iter().find(|relay| relay.number == number);
                relay.filter(|relay| self.is_present(relay.fork)).map(|relay| relay.from.other())
            }
            Role::Join => self.remaining(client),
            Role::Refresh(leg) | Role::Indication(leg) => self.asks(leg, client).then_some(leg),
            Role::Invite | Role::Lent | Role::Replacing => None,
        }
    }

    fn find_fork(&self, attempt: usize, remote_tag: &str) -> Option<usize> {
        self.forks.iter().position(|fork| {
            let leg = self.attempts.get(attempt).map_or(Leg::B, |attempt| attempt.leg);
            fork.attempt == Some(attempt) && fork.dialogs[leg.index()].id.remote_tag == remote_tag
        })
    }

    /// Whether a dialog is one of those in which the parties talk, or may come to.
    fn is_present(&self, fork: usize) -> bool {
        self.answered.is_none_or(|answered| answered == fork)
    }

    fn dialog(&mut self, fork: usize, leg: Leg) -> Option<&mut Dialog> {
        self.forks.get_mut(fork).map(|fork| &mut fork.dialogs[leg.index()])
    }

    /// A response of ours to a request of a leg, made of the response of whoever is named, on the other leg, or
    /// else of our own.
    fn reply(
        &self,
        env: &Environment,
        request: &Request,
        path: &Path,
        tag: &str,
        response: &Response,
        by: Option<(Leg, PeerId)>,
    ) -> Response {
        let border = match by {
            Some(by) => self.border(env, by, &response.headers, path),
            None => Border::none(),
        };
        let mut reply = Response::to(&request.headers, response.status);
        reply.reason = border.phrase(response.status, &response.reason);
        add_tag(&mut reply.headers, tag);
        let method = request.method.as_str();
        if matches!(method, "INVITE" | "UPDATE") && response.status < 300 {
            reply.headers.copy(&request.headers, name::RECORD_ROUTE);
            reply.headers.push(name::CONTACT, env.contact(path, sips::is_asked_by(request)));
        }
        forward::copy_end_to_end(&response.headers, &mut reply.headers, &border);
        if (300..400).contains(&response.status) {
            // Only one that is passed on comes this far.
            for contact in response.headers.all(name::CONTACT) {
                reply.headers.push(name::CONTACT, border.cleared(contact.to_owned()));
            }
        }
        if method == "INVITE" && response.status < 300 && !self.is_emergency() {
            forward::offer_refer(&mut reply.headers, env.may_refer(path.peer));
            awareness::offer(&mut reply.headers);
        }
        // What the far end could have done (RFC 3261 §13.3.1.3) is an address of the other leg's.
        if response.status >= 300
            && !border.whole
            && session::has_description(&response.headers, &response.body)
        {
            calling::leave_out_body(&mut reply.headers, &mut reply.body);
        } else {
            reply.body = border.body(&response.headers, &response.body);
        }
        reply
    }

    /// The way to a leg's far end, once there is one.
    fn way_to(&self, leg: Leg) -> Option<Path> {
        let answered = self.answered.and_then(|fork| self.forks.get(fork));
        let dialog = answered.map(|fork| fork.dialogs[leg.index()].path);
        dialog.or_else(|| match leg {
            Leg::A => Some(self.back),
            Leg::B => self.attempts.last().map(|attempt| attempt.path),
        })
    }

    fn far_peer(&self, leg: Leg) -> Option<PeerId> {
        self.way_to(leg).map(|path| path.peer)
    }

    /// A leg with the peer at its far end in one of the dialogs.
    fn end_in(&self, fork: usize, leg: Leg) -> Option<(Leg, PeerId)> {
        self.forks.get(fork).map(|fork| (leg, fork.dialogs[leg.index()].path.peer))
    }
}

impl Fork {
    fn new(attempt: Option<usize>, dialogs: [Dialog; 2], session: Option<Box<Session>>) -> Self {
        let reliability = reliable::Reliability::default();
        Self { attempt, dialogs, reliability, session, early_answer: None }
    }

    /// The dialog id on a leg.
    fn id(&self, leg: Leg) -> &DialogId {
        &self.dialogs[leg.index()].id
    }
}

/// Our addresses per stream as the hub gives them.
type RelayAddresses = Vec<[SocketAddr; 2]>;
