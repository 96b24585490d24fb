//! Who knows of recording, and who wants it (RFC 7866 §6.1.2, §6.3, §7.1.2, §7.1.3, §7.3.1), on each leg for
//! itself. We offer `record-aware` to everybody; a leg is *aware* once it has said so, until somebody else is at it.
//!
//! | § | seen | effect |
//! |---|---|---|
//! | 7.1.2 | a description of ours goes to an aware leg | it says what is *due* there: that we record, or the other leg does; `on` before `paused` before `off` |
//! | 7.1.2 | one goes to any other leg | it says nothing; what the other side said of its own recording is taken out |
//! | 7.1.2 | what an aware leg heard last is not what is due | the same description, a version later: UPDATE where the leg takes it, else a re-INVITE |
//! | 7.3.1 | `a=record` of a leg | it is due at the other; Records |
//! | 7.1.3 | `a=recordpref` of a leg, in any offer or answer, however that fares | Preference; it goes no further |
//! | 6026 7.2 | either in a 2xx that comes again, or of whom nobody waits for any more | nothing |
//!
//! | such an UPDATE or re-INVITE | effect |
//! |---|---|
//! | while another exchange is under way, or a refresh of the leg | later, with what is due then |
//! | is on its way | no other to this leg; exchanges of either leg are refused with 491 |
//! | 2xx | what has become due meanwhile |
//! | 491 | again, as [`glare`](super::glare) says |
//! | 408, 481, no answer (RFC 3261 §12.2.1.2) | the call ends |
//! | 500, 503, 504, transport failure | again after Retry-After, 10 s at most, or [`RETRY_MS`] |
//! | another failure, of UPDATE | again, as a re-INVITE |
//! | another failure; the [`MAX_TRIES`]th | no more of it, until something else is due |
//! | cancelled, as [`asking`](super::asking) says | no re-INVITE to this leg any more |
//!
//! No command of the hub waits for any of this. A callee is heard once it has answered: before, any of several
//! telephones may ring. A preference in a request that also shows another identity counts for whoever was there
//! before, since it is told first. An emergency call is left alone: both attributes pass as they are.
//!
//! Left out: an indication for each stream (ours is for the whole session), and tones.

use bytes::Bytes;
use consent::{Leg, Mono};

use super::asking::Asked;
use super::session::{self, Found, Numbered};
use super::{Call, CallTimer, EndedBy, Phase, Role};
use crate::core::Environment;
use crate::sdp::{RecordLine, Recording};
use crate::transaction::{Report, TxId};
use crate::wire::{Headers, Method, Response, delta_seconds, name};
use crate::{End, Event};

/// The option tag.
pub(crate) const OPTION: &str = "record-aware";

/// How often one state is offered to a leg.
const MAX_TRIES: u8 = 5;

/// How often what is in the way is looked at again.
const WAIT_MS: u64 = 500;

/// How long an indication waits after a failure that names no time, and at most after one that does.
const RETRY_MS: u64 = 2_000;
const LONGEST_RETRY_S: u32 = 10;

/// What is known of recording on a call.
#[derive(Debug, Default)]
pub(super) struct Awareness {
    /// What the gateway does.
    ours: Recording,
    legs: [Aware; 2],
}

/// A leg as to recording.
#[derive(Debug, Default)]
struct Aware {
    aware: bool,
    /// What its far end says it does itself, and what the hub knows of that.
    records: Recording,
    told: Recording,
    indication: Option<Indication>,
    tried: Tried,
    /// Before when it is not to be offered again.
    not_before: Mono,
    /// Whether its far end refused an UPDATE: it is told by re-INVITE.
    by_invite: bool,
    /// Whether its far end left a re-INVITE without an answer: it gets no other.
    dallies: bool,
}

/// What was offered to a leg last.
#[derive(Debug, Default)]
struct Tried {
    what: Recording,
    /// In vain, in a row.
    times: u8,
}

/// An UPDATE or re-INVITE of ours on its way, and the description in it.
#[derive(Debug)]
struct Indication {
    asked: Asked,
    offer: Numbered,
}

/// Says that we understand recording indications, in an INVITE, an UPDATE or their 2xx.
pub(super) fn offer(headers: &mut Headers) {
    headers.push(name::SUPPORTED, OPTION);
}

impl Call {
    /// The gate has changed.
    pub(crate) fn indicate(&mut self, env: &mut Environment, recording: Recording) {
        self.awareness.ours = recording;
        self.refit();
        Leg::BOTH.into_iter().for_each(|leg| self.inform(env, leg));
    }

    /// Takes in what a message of a leg says of recording.
    pub(super) fn heed(&mut self, env: &mut Environment, leg: Leg, headers: &Headers, body: &Bytes) {
        let found = session::find(headers, body).ok().flatten();
        self.heed_description(env, leg, headers, found.as_ref());
    }

    /// The same, the description having been read.
    pub(super) fn heed_description(
        &mut self,
        env: &mut Environment,
        leg: Leg,
        headers: &Headers,
        found: Option<&Found>,
    ) {
        if self.is_emergency() || self.phase == Phase::Ended {
            return;
        }
        let aware = &mut self.awareness.legs[leg.index()];
        aware.aware |= [name::SUPPORTED, name::REQUIRE].iter().any(|field| headers.has_token(field, OPTION));
        if let Some(recording) = found.and_then(Found::recording) {
            aware.records = recording;
        }
        if leg == Leg::A || self.answered.is_some() {
            self.tell_recording(env, leg, found);
        }
        self.refit();
        // Not before the message that is being taken in has had its effect.
        for leg in Leg::BOTH.into_iter().filter(|leg| self.is_misinformed(*leg)).collect::<Vec<_>>() {
            self.arm(env, CallTimer::Indication(leg), 0);
        }
    }

    /// The caller's INVITE has been told.
    pub(super) fn heed_caller(&mut self, env: &mut Environment) {
        let (headers, body) = (self.invite.headers.clone(), self.invite.body.clone());
        self.heed(env, Leg::A, &headers, &body);
    }

    /// The callee has answered: what it said last in the dialog that won counts.
    pub(super) fn heed_callee(&mut self, env: &mut Environment, headers: &Headers) {
        let said = self.session.said(Leg::B);
        self.heed_description(env, Leg::B, headers, said.as_ref());
    }

    /// Takes in what the answer to a request of ours says of recording.
    pub(super) fn heed_response(
        &mut self,
        env: &mut Environment,
        role: Role,
        client: TxId,
        response: &Response,
    ) {
        let leg = match role {
            // Whoever is joined is heard once it is a party.
            Role::Join => None,
            _ => self.answerer(role, client),
        };
        if let Some(leg) = leg {
            self.heed(env, leg, &response.headers, &response.body);
        }
    }

    fn tell_recording(&mut self, env: &mut Environment, leg: Leg, found: Option<&Found>) {
        let call = self.id;
        let aware = &mut self.awareness.legs[leg.index()];
        let recording = aware.records;
        if std::mem::replace(&mut aware.told, recording) != recording {
            env.emit(Event::Records { call, leg, recording });
        }
        if let Some(preference) = found.and_then(Found::preference) {
            let peer = self.far_peer(leg).and_then(|peer| env.config.peers.get(peer.0));
            let trusted = peer.is_some_and(|peer| peer.preference_trusted);
            env.emit(Event::Preference { call, leg, preference, trusted });
        }
    }

    /// Somebody else is at a leg, as this message shows.
    pub(super) fn forget_awareness(&mut self, env: &mut Environment, leg: Leg, headers: &Headers) {
        let told = self.awareness.legs[leg.index()].told;
        self.awareness.legs[leg.index()] = Aware { told, ..Aware::default() };
        self.heed_description(env, leg, headers, None);
    }

    /// What is to be said to a leg.
    fn due(&self, leg: Leg) -> Recording {
        self.awareness.ours.max(self.awareness.legs[leg.other().index()].records)
    }

    /// What every further description says.
    fn refit(&mut self) {
        if self.is_emergency() {
            return;
        }
        for leg in Leg::BOTH {
            let line = match self.awareness.legs[leg.index()].aware {
                true => RecordLine::Ours(self.due(leg)),
                false => RecordLine::Removed,
            };
            let early = self.forks.iter_mut().filter_map(|fork| fork.session.as_deref_mut());
            early.chain([&mut self.session]).for_each(|session| session.set_record_line(leg, line));
        }
    }

    /// Whether a leg is to be told something that it has not heard.
    fn is_misinformed(&self, leg: Leg) -> bool {
        let (aware, due) = (&self.awareness.legs[leg.index()], self.due(leg));
        let gave_up = aware.tried.what == due && aware.tried.times >= MAX_TRIES;
        self.phase == Phase::Answered
            && !self.over[leg.index()]
            && aware.aware
            && aware.indication.is_none()
            && !gave_up
            && self.means(leg).is_some()
            && self.session.misinforms(leg, due)
    }

    /// By what request a leg may be told.
    fn means(&self, leg: Leg) -> Option<Method> {
        let aware = &self.awareness.legs[leg.index()];
        match self.timings[leg.index()].takes_update() && !aware.by_invite {
            true => Some(Method::UPDATE),
            false => Some(Method::INVITE).filter(|_| !aware.dallies),
        }
    }

    /// Tells a leg what is due, if it has not heard it.
    pub(super) fn inform(&mut self, env: &mut Environment, leg: Leg) {
        if !self.is_misinformed(leg) {
            return self.disarm(env, CallTimer::Indication(leg));
        }
        let due = self.due(leg);
        let aware = &mut self.awareness.legs[leg.index()];
        if aware.tried.what != due {
            aware.tried = Tried { what: due, times: 0 };
        }
        let left_ms = aware.not_before.since_us(env.now.mono).div_ceil(1_000);
        if left_ms > 0 {
            self.arm(env, CallTimer::Indication(leg), left_ms);
        } else if self.is_exchanging(leg) {
            self.arm(env, CallTimer::Indication(leg), WAIT_MS);
        } else {
            self.send_indication(env, leg);
        }
    }

    /// Whether something else is under way that an offer to this leg would cross.
    fn is_exchanging(&self, leg: Leg) -> bool {
        let offers = |relay: &super::Relay| matches!(relay.request.method, Method::INVITE | Method::UPDATE);
        self.exchange_pending().is_some()
            || self.arriving.is_some()
            || self.timings[leg.index()].is_refreshing()
            || self.relays.iter().any(offers)
    }

    fn send_indication(&mut self, env: &mut Environment, leg: Leg) {
        let Some(method) = self.means(leg) else { return };
        let Some(dialog) = self.answered.and_then(|fork| self.dialog(fork, leg)) else { return };
        let (mut sent, path) = Self::request_in(env, dialog, method);
        offer(&mut sent.headers);
        self.keep_timer(env, leg, &mut sent);
        sent.headers.push(name::CONTENT_TYPE, "application/sdp");
        let offer = self.session.repeat(leg);
        sent.body = offer.octets().clone();
        let asked = self.ask(env, path, sent, Role::Indication(leg));
        let aware = &mut self.awareness.legs[leg.index()];
        aware.tried.times += 1;
        aware.indication = Some(Indication { asked, offer });
    }

    /// On whose behalf an indication is on its way.
    pub(super) fn indicating(&self) -> Option<Leg> {
        Leg::BOTH.into_iter().find(|leg| self.is_indicating(leg.other()))
    }

    pub(super) const fn is_indicating(&self, leg: Leg) -> bool {
        self.awareness.legs[leg.index()].indication.is_some()
    }

    pub(super) fn indicated(&self, leg: Leg) -> Option<&Asked> {
        self.awareness.legs[leg.index()].indication.as_ref().map(|indication| &indication.asked)
    }

    pub(super) fn indicated_mut(&mut self, leg: Leg) -> Option<&mut Asked> {
        self.awareness.legs[leg.index()].indication.as_mut().map(|indication| &mut indication.asked)
    }

    /// A re-INVITE to a leg is cancelled because it draws no answer.
    pub(super) fn note_dallying(&mut self, leg: Leg) {
        self.awareness.legs[leg.index()].dallies |= self.is_indicating(leg);
    }

    /// An indication was neither accepted nor refused.
    pub(super) fn give_up_indication(&mut self, leg: Leg) {
        self.awareness.legs[leg.index()].indication = None;
    }

    /// The far end's answer to an indication.
    pub(super) fn on_indication_response(
        &mut self,
        env: &mut Environment,
        leg: Leg,
        client: TxId,
        response: &Response,
    ) {
        if response.status < 200 {
            return self.on_asked_provisional(env, leg, client);
        }
        let indication = &mut self.awareness.legs[leg.index()].indication;
        let Some(indication) = indication.take_if(|indication| indication.asked.is(client)) else {
            // A 2xx again: our ACK was lost.
            self.acknowledge_again(env, client);
            return;
        };
        self.disarm(env, CallTimer::Patience(leg));
        if response.status < 300 {
            self.on_indicated(env, leg, indication, response);
        } else {
            self.on_indication_refused(env, leg, indication, response);
        }
    }

    fn on_indicated(&mut self, env: &mut Environment, leg: Leg, indication: Indication, response: &Response) {
        let Some(fork) = self.answered else { return };
        self.heed_accepted(env, fork, leg, &response.headers);
        self.session.take(leg, indication.offer);
        if let Ok(Some(found)) = session::find(&response.headers, &response.body) {
            let told = self.session.reassert(leg, found.media(self.heard_from[leg.index()]));
            self.tell(env, told);
        }
        self.acknowledge_asked(env, fork, leg, &indication.asked);
        self.take_timer(env, leg, &response.headers);
        self.awareness.legs[leg.index()].tried.times = 0;
        self.inform(env, leg);
    }

    fn on_indication_refused(
        &mut self,
        env: &mut Environment,
        leg: Leg,
        indication: Indication,
        failure: &Response,
    ) {
        let wait_ms = match failure.status {
            408 | 481 => return self.lose_leg(env, leg),
            491 => self.glare_wait_ms(env, leg),
            500 | 503 | 504 => {
                let asked = failure.headers.first(name::RETRY_AFTER).and_then(delta_seconds);
                asked.map_or(RETRY_MS, |seconds| u64::from(seconds.min(LONGEST_RETRY_S)) * 1_000)
            }
            _ if !indication.asked.invites() => {
                self.awareness.legs[leg.index()].by_invite = true;
                0
            }
            _ => {
                self.awareness.legs[leg.index()].tried.times = MAX_TRIES;
                return;
            }
        };
        self.awareness.legs[leg.index()].not_before = env.now.mono.plus_ms(wait_ms);
        self.inform(env, leg);
    }

    /// No answer to an indication.
    pub(super) fn on_indication_failed(
        &mut self,
        env: &mut Environment,
        leg: Leg,
        client: TxId,
        report: Report,
    ) {
        if self.asks(leg, client) {
            self.on_indication_response(env, leg, client, &Response::new(report.status()));
        }
    }

    fn lose_leg(&mut self, env: &mut Environment, leg: Leg) {
        if self.phase == Phase::Answered && !self.over[leg.index()] && !self.calls_for_help {
            self.finish(env, End::by(EndedBy::of(leg)), None, None);
        }
    }

    /// The call ends under our indications.
    pub(super) fn stop_indications(&mut self, env: &mut Environment) {
        for leg in Leg::BOTH {
            self.disarm(env, CallTimer::Indication(leg));
            self.disarm(env, CallTimer::Patience(leg));
            let indication = self.awareness.legs[leg.index()].indication.take();
            self.orphans.extend(indication.and_then(|indication| indication.asked.orphan()));
        }
    }
}
