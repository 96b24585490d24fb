//! The newcomer's answer, the re-INVITE to whom stays, and the exchange of L for T (RFC 3725 §4.1, RFC 3261
//! §13.2.2.4, §14).

use bytes::Bytes;
use consent::Leg;

use super::super::glare::retry_later;
use super::super::identity::FarEnd;
use super::super::offering::{own_ip, request_subscriber};
use super::super::session::{self, Found, Ours};
use super::super::{Acceptance, Call, CallTimer, EndedBy, Event, Fork, Role};
use super::{
    Arriving, Borrowed, Invited, JOINING_MS, Leaving, Loan, Newcomer, RETRY_MS, Reinvite, Said, Stage, Taker,
    Target, Transfer,
};
use crate::core::{Again, DialogPlace, Environment};
use crate::dialog::{Dialog, sequence_of};
use crate::digest::credentials_of;
use crate::transaction::{Report, T1_MS, TxId};
use crate::wire::{Headers, Method, Request, Response, name};
use crate::{Change, End};

/// What T's message may tell R of T besides its description.
const SHOWN: [&str; 3] = [name::P_ASSERTED_IDENTITY, name::REMOTE_PARTY_ID, name::PRIVACY];

/// T's coming, once R has accepted it.
struct Join {
    /// L's leg, which is T's now, and R's.
    leg: Leg,
    stays: Leg,
    /// L's dialog and T's.
    old: usize,
    new: usize,
    /// Whom L has named.
    target: Option<Target>,
    /// Whether T was offered something and has answered it.
    answers: bool,
    reinvite: Box<Reinvite>,
}

impl Call {
    /// T has said what it has to say: R's turn, as soon as no other exchange is under way.
    pub(super) fn begin_joining(&mut self, env: &mut Environment, newcomer: Newcomer, said: Said) {
        let Some(transfer) = &mut self.transfer else { return };
        transfer.give_up_at = env.now.mono.plus_ms(JOINING_MS);
        transfer.stage = Stage::Joining { newcomer, said, reinvite: None };
        self.reinvite_other(env);
    }

    pub(super) fn reinvite_other(&mut self, env: &mut Environment) {
        if self.invite_pending().is_some() {
            return self.arm(env, CallTimer::Transfer, RETRY_MS);
        }
        let Some(transfer) = &self.transfer else { return };
        let Stage::Joining { newcomer, said, .. } = &transfer.stage else { return };
        let delayed = matches!(newcomer, Newcomer::Calling(_));
        let (leg, headers, body) = (transfer.leg, said.headers.clone(), said.body.clone());
        let said_in = said.fork;
        let left_ms = transfer.give_up_at.since_us(env.now.mono) / 1_000;
        let offer = match session::find(&headers, &body) {
            Ok(Some(found)) => Some(found),
            Ok(None) if delayed => None,
            Ok(None) | Err(_) => return self.fail_transfer(env, &Response::new(488)),
        };
        let stays = leg.other();
        let Some(said_from) = self.dialog(said_in, leg).map(|dialog| dialog.path) else { return };
        let Some(dialog) = self.answered.and_then(|fork| self.dialog(fork, stays)) else { return };
        let (mut sent, path) = Self::request_in(env, dialog, Method::INVITE);
        self.keep_timer(env, stays, &mut sent);
        self.learn(env, leg, &headers, said_from.to.ip());
        let border = self.border(env, (leg, said_from.peer), &headers, &path);
        for field in name::OF_A_BODY.into_iter().chain(SHOWN) {
            border.cross_all(&headers, field, &mut sent.headers);
        }
        if let Some(found) = &offer {
            self.learn_media(env, leg, &found.media(said_from.to.ip()));
        }
        let ours = (own_ip(env, &path), &*self.hosts[leg.index()]);
        let offer = offer.map(|found| {
            let offer = self.session.rewrite(leg, &found, &body, ours);
            sent.body = found.replaced(&body, &offer);
            offer
        });
        let sent = Box::new(Reinvite { asked: self.ask(env, path, sent, Role::Join), offer });
        if let Some(Transfer { stage: Stage::Joining { reinvite, .. }, .. }) = self.transfer.as_deref_mut() {
            *reinvite = Some(sent);
        }
        self.arm(env, CallTimer::Transfer, left_ms);
    }

    /// The leg that stays, if this re-INVITE to it waits for an answer.
    pub(in super::super) fn remaining(&self, client: TxId) -> Option<Leg> {
        let transfer = self.transfer.as_ref()?;
        match &transfer.stage {
            Stage::Joining { reinvite: Some(reinvite), .. } if reinvite.asked.is(client) => {
                Some(transfer.leg.other())
            }
            _ => None,
        }
    }

    /// R's answer to our re-INVITE.
    pub(in super::super) fn on_join_response(
        &mut self,
        env: &mut Environment,
        client: TxId,
        response: &Response,
    ) {
        let awaited = self.undoes(client) || self.pending_reinvite(client).is_some();
        if let Some(leg) = self.exchange_of_ours().filter(|_| awaited && response.status >= 300) {
            self.put_off_expiry(env, leg.other());
        }
        if self.undoes(client) {
            return self.on_undoing_response(env, response);
        }
        let stays = self.remaining(client);
        let Some(reinvite) = self.pending_reinvite(client) else {
            return self.on_stray_response(env, client, response);
        };
        match response.status {
            100..=199 => {
                reinvite.asked.hear();
            }
            200..=299 => self.join(env, response),
            491 => {
                self.forget_reinvite();
                let wait_ms = stays.map_or(0, |leg| self.glare_wait_ms(env, leg));
                self.arm(env, CallTimer::Transfer, wait_ms);
            }
            408 | 481 => self.lose_remaining(env),
            _ => {
                self.forget_reinvite();
                self.fail_transfer(env, response);
            }
        }
    }

    /// A 2xx again, because our ACK was lost; or one that came after the end.
    pub(super) fn on_stray_response(&mut self, env: &mut Environment, client: TxId, response: &Response) {
        if (200..300).contains(&response.status) && !self.acknowledge_again(env, client) {
            self.acknowledge_stray(env, &response.headers);
        }
    }

    pub(in super::super) fn on_join_failed(&mut self, env: &mut Environment, client: TxId, report: Report) {
        if self.undoes(client) {
            return self.on_undoing_response(env, &Response::new(report.status()));
        }
        if self.pending_reinvite(client).is_none() {
            return;
        }
        match report {
            Report::TimedOut => self.lose_remaining(env),
            Report::Unreachable => {
                self.forget_reinvite();
                self.fail_transfer(env, &Response::new(report.status()));
            }
        }
    }

    /// Whether this re-INVITE of ours waits for an answer.
    pub(in super::super) fn awaits_join(&self, client: TxId) -> bool {
        let pending = match self.transfer.as_ref().map(|transfer| &transfer.stage) {
            Some(Stage::Inviting(Invited::Lent { borrowed, .. })) => Some(&borrowed.reinvite),
            Some(Stage::Joining { reinvite, .. }) => reinvite.as_deref(),
            _ => None,
        };
        pending.is_some_and(|reinvite| reinvite.asked.is(client)) || self.awaits_restoration(client)
    }

    /// Our re-INVITE to R was challenged and has been sent again.
    pub(in super::super) fn joins_again(&mut self, again: Again) {
        match self.transfer.as_deref_mut() {
            Some(Transfer { stage: Stage::Joining { reinvite: Some(reinvite), .. }, .. }) => {
                reinvite.asked.sent_again(again);
            }
            _ => self.restores_again(again),
        }
    }

    fn pending_reinvite(&mut self, client: TxId) -> Option<&mut Reinvite> {
        match &mut self.transfer.as_mut()?.stage {
            Stage::Joining { reinvite: Some(reinvite), .. } if reinvite.asked.is(client) => Some(reinvite),
            _ => None,
        }
    }

    fn forget_reinvite(&mut self) -> Option<Box<Reinvite>> {
        match &mut self.transfer.as_mut()?.stage {
            Stage::Joining { reinvite, .. } => reinvite.take(),
            _ => None,
        }
    }

    /// R's dialog is no more (RFC 3261 §12.2.1.2).
    fn lose_remaining(&mut self, env: &mut Environment) {
        self.forget_reinvite();
        if let Some(stays) = self.transfer.as_ref().map(|transfer| transfer.leg.other()) {
            self.finish(env, End::by(EndedBy::of(stays)), None, None);
        }
    }

    /// R has accepted.
    fn join(&mut self, env: &mut Environment, response: &Response) {
        let Ok(Some(found)) = session::find(&response.headers, &response.body) else {
            return self.join_in_vain(env, response);
        };
        let Some(mut transfer) = self.transfer.take() else { return };
        let stage = std::mem::replace(&mut transfer.stage, Stage::Deciding);
        let Stage::Joining { newcomer, said, reinvite: Some(reinvite) } = stage else { return };
        self.disarm(env, CallTimer::Transfer);
        let leg = transfer.leg;
        let target = transfer.target.take();
        self.calls_for_help |= target.as_ref().is_some_and(|target| target.emergency);
        let answers = self.offered_to(&newcomer).is_some();
        let (stays, old, new) = (leg.other(), transfer.fork, said.fork);
        let join = Join { leg, stays, old, new, target, answers, reinvite };
        let later = retry_later(env);
        self.end_relays(env, &later, |_| true);
        let offered = session::find(&said.headers, &said.body).ok().flatten();
        self.give_place(env, &join, &newcomer, &said, offered.is_some());
        self.move_dialog(env, &join, &response.headers);
        self.take_timer(env, join.stays, &response.headers);
        if !matches!(newcomer, Newcomer::Calling(_)) {
            self.take_timer(env, leg, &said.headers);
        }
        let offered = offered.as_ref().map(|offered| (offered, &said.body));
        let body = self.exchange(env, &join, offered, &found, &response.body);
        match newcomer {
            Newcomer::Calling(taker) => self.accept_taker(env, &join, &taker, response, body),
            Newcomer::Called { attempt } => {
                let invited = self.attempts.get(attempt);
                if let Some((client, invite)) =
                    invited.map(|invited| (invited.client, invited.invite.clone()))
                {
                    self.acknowledge_newcomer(
                        env,
                        (join.new, leg),
                        (client, &invite),
                        &response.headers,
                        body,
                    );
                }
                self.acknowledge_reinvite(env, (join.new, join.stays), &join.reinvite, Bytes::new());
            }
            Newcomer::Lent(borrowed) => {
                let Borrowed { lent, reinvite } = *borrowed;
                let asked = (reinvite.asked.client(), reinvite.asked.request());
                self.acknowledge_newcomer(env, (join.new, leg), asked, &response.headers, body);
                self.acknowledge_reinvite(env, (join.new, join.stays), &join.reinvite, Bytes::new());
                env.emit(Event::Linked { call: self.id, with: lent.of });
                env.loans.push_back(Loan::Kept { of: lent.of });
            }
        }
        tracing::debug!(call = %self.id, "transfer done");
        transfer.report(env, &mut self.forks, &Response::new(200));
        self.part(env, &transfer);
    }

    /// R has accepted, but said nothing that T could use.
    fn join_in_vain(&mut self, env: &mut Environment, response: &Response) {
        let stays = self.transfer.as_ref().map(|transfer| transfer.leg.other());
        if let (Some(stays), Some(reinvite)) = (stays, self.forget_reinvite()) {
            self.undo_accepted(env, stays, *reinvite, response);
        }
        self.fail_transfer(env, &Response::new(488));
    }

    /// Tells who is there now, before anything of it is passed on; where T has not said where it is, that
    /// nobody is.
    fn give_place(
        &mut self,
        env: &mut Environment,
        join: &Join,
        newcomer: &Newcomer,
        said: &Said,
        described: bool,
    ) {
        let (leg, call) = (join.leg, self.id);
        let Some((peer, address)) =
            self.dialog(join.new, leg).map(|dialog| (dialog.path.peer, dialog.remote.clone()))
        else {
            return;
        };
        let called = join.target.as_ref().filter(|_| matches!(newcomer, Newcomer::Called { .. }));
        let (far_end, ours) = match newcomer {
            Newcomer::Lent(borrowed) => (borrowed.lent.far_end.clone(), borrowed.lent.ours.clone()),
            Newcomer::Called { .. } | Newcomer::Calling(_) => {
                let ours = self.offered_to(newcomer).cloned();
                let ours = ours.unwrap_or_else(|| Ours::new(env.generator.session()));
                let far_end = match &called {
                    Some(target) => FarEnd::called(&said.headers, &address, request_subscriber(&target.uri)),
                    None => FarEnd::calling(&said.headers, &address),
                };
                (far_end, ours)
            }
        };
        let identity = far_end.identity(&said.headers, env.trusts_identity(peer));
        let parties_signalled = env.config.peers.get(peer.0).is_some_and(|peer| peer.parties_signalled);
        let emergency = called.is_some_and(|target| target.emergency);
        let called = far_end.dialled().map(str::to_owned);
        self.far_ends[leg.index()] = far_end;
        self.session.replace(leg, ours);
        let side = env.side(peer);
        self.told[leg.index()] = None;
        self.forget_timing(env, leg);
        self.forget_awareness(env, leg, &said.headers);
        let change =
            Change::Replaced { identity: identity.clone(), called, side, emergency, parties_signalled };
        if described {
            return env.emit(Event::Changed { call, leg, change });
        }
        let told = self.session.vacate(leg);
        self.tell(env, told);
        env.emit(Event::Vacated { call, leg, identity, side });
        self.arriving = Some(Arriving { leg, change });
    }

    /// T's ACK has come: it is there now.
    pub(in super::super) fn arrive(&mut self, env: &mut Environment, leg: Leg) {
        if let Some(arriving) = self.arriving.take_if(|arriving| arriving.leg == leg) {
            env.emit(Event::Changed { call: self.id, leg, change: arriving.change });
        }
    }

    /// What T was offered when it was called, if anything.
    fn offered_to(&self, newcomer: &Newcomer) -> Option<&Ours> {
        let Newcomer::Called { attempt } = newcomer else { return None };
        self.attempts.get(*attempt)?.offered.as_ref()
    }

    /// From here on R talks to T: its dialog stands beside T's.
    fn move_dialog(&mut self, env: &mut Environment, join: &Join, response: &Headers) {
        let (stays, comes, new) = (join.stays, join.leg, join.new);
        let Some(mut dialog) = self.dialog(join.old, stays).map(|dialog| dialog.clone()) else { return };
        dialog.refresh_target(env, response);
        let place =
            DialogPlace { call: self.id, leg: stays, fork: new, peer: dialog.path.peer, class: self.class };
        env.add_dialog(dialog.id.clone(), place);
        if let Some(there) = self.dialog(new, stays) {
            *there = dialog;
        }
        self.answered = Some(new);
        self.over[comes.index()] = false;
        let Some(dialog) = self.dialog(new, comes) else { return };
        let (path, tag) = (dialog.path, dialog.id.local_tag.clone());
        self.heard_from[comes.index()] = path.to.ip();
        if comes == Leg::A {
            self.peer = path.peer;
            self.back = path;
            self.tag = tag;
            for field in [name::P_ASSERTED_IDENTITY, name::PRIVACY] {
                self.invite.headers.remove(field);
            }
        }
    }

    /// T's description, if it has given one, and R's; returns R's as T gets it, if it still waits for one.
    fn exchange(
        &mut self,
        env: &mut Environment,
        join: &Join,
        offered: Option<(&Found, &Bytes)>,
        found: &Found,
        body: &Bytes,
    ) -> Bytes {
        let (leg, stays) = (join.leg, join.stays);
        if let (Some((offered, said)), Some(sent)) = (offered, join.reinvite.offer.clone()) {
            let described = offered.passed_as(said, sent, self.heard_from[leg.index()]);
            let told = self.session.pass(leg, described, false);
            self.tell(env, told);
            self.heed_description(env, leg, &Headers::new(), Some(offered));
        }
        self.heed_description(env, stays, &Headers::new(), Some(found));
        if join.answers {
            let told = self.session.describe(stays, found.media(self.heard_from[stays.index()]), false);
            self.tell(env, told);
            return Bytes::new();
        }
        let path = self.dialog(join.new, leg).map_or(join.reinvite.asked.path(), |dialog| dialog.path);
        let source = self.heard_from[stays.index()];
        self.learn_media(env, stays, &found.media(source));
        let ours = (own_ip(env, &path), &*self.hosts[stays.index()]);
        let sent = self.session.rewrite(stays, found, body, ours);
        let on = found.replaced(body, &sent);
        let answered = found.passed_as(body, sent, source);
        let told = self.session.pass(stays, answered, false);
        self.tell(env, told);
        on
    }

    /// 200 to whom replaces L; its ACK is passed on to R as that of any re-INVITE.
    fn accept_taker(
        &mut self,
        env: &mut Environment,
        join: &Join,
        taker: &Taker,
        response: &Response,
        body: Bytes,
    ) {
        env.emit(Event::ReplacementEnded { call: self.id, record: taker.record, status: 200 });
        let Some(dialog) = self.dialog(join.new, join.leg) else { return };
        let (tag, path) = (dialog.id.local_tag.clone(), dialog.path);
        let mut accepted = response.clone();
        accepted.body = body;
        let by = self.end_in(join.new, join.stays);
        let mut reply = self.reply(env, &taker.invite, &path, &tag, &accepted, by);
        self.answer_timer(env, join.leg, &taker.invite, &mut reply);
        let asked = &join.reinvite.asked;
        let acceptance = Acceptance {
            from: join.leg,
            sequence: sequence_of(&taker.invite.headers).unwrap_or_default(),
            other_sequence: sequence_of(&asked.request().headers).unwrap_or_default(),
            server: taker.server,
            client: asked.client(),
            response: reply,
            interval_ms: T1_MS,
            credentials: credentials_of(&asked.request().headers),
            settled: false,
        };
        self.accept(env, acceptance);
    }

    /// ACK to T with R's description, for this INVITE of ours.
    pub(super) fn acknowledge_newcomer(
        &mut self,
        env: &mut Environment,
        (fork, leg): (usize, Leg),
        (client, invite): (TxId, &Request),
        answer: &Headers,
        body: Bytes,
    ) {
        let Some(dialog) = self.dialog(fork, leg) else { return };
        let (mut ack, path) = (dialog.ack(sequence_of(&invite.headers).unwrap_or_default()), dialog.path);
        ack.headers.push(name::MAX_FORWARDS, "70");
        ack.headers.append(&credentials_of(&invite.headers));
        if let Some(peer) = self.far_peer(leg.other()).filter(|_| !body.is_empty()) {
            let border = self.border(env, (leg.other(), peer), answer, &path);
            for field in name::OF_A_BODY {
                border.cross_all(answer, field, &mut ack.headers);
            }
        }
        ack.body = body;
        self.acknowledge(env, client, fork, path, ack);
    }

    /// ACK to R, with a description if there is one.
    pub(super) fn acknowledge_reinvite(
        &mut self,
        env: &mut Environment,
        place: (usize, Leg),
        reinvite: &Reinvite,
        body: Bytes,
    ) {
        let mut answer = Headers::new();
        answer.push(name::CONTENT_TYPE, "application/sdp");
        let asked = (reinvite.asked.client(), reinvite.asked.request());
        self.acknowledge_newcomer(env, place, asked, &answer, body);
    }

    /// ACK to a 2xx of a re-INVITE that nobody waits for any more.
    fn acknowledge_stray(&mut self, env: &mut Environment, response: &Headers) {
        let Some(place) = self.place_of(env, response) else { return };
        let Some(dialog) = self.dialog(place.fork, place.leg) else { return };
        let (mut ack, mut path) = (dialog.ack(sequence_of(response).unwrap_or_default()), dialog.path);
        ack.headers.push(name::MAX_FORWARDS, "70");
        env.acknowledge(&mut path, ack);
    }

    /// The dialog of this call in which a response came.
    pub(super) fn place_of(&self, env: &Environment, response: &Headers) -> Option<DialogPlace> {
        let tag = |field| crate::dialog::tag_of(response, field).unwrap_or_default();
        let id = crate::dialog::DialogId {
            call_id: response.first(name::CALL_ID).unwrap_or_default().to_owned(),
            local_tag: tag(name::FROM),
            remote_tag: tag(name::TO),
        };
        env.dialogs.get(&id).copied().filter(|place| place.call == self.id)
    }

    /// L's dialog is to end: L does it, or we do. Whom L's successor replaced by an INVITE gets its BYE at
    /// once (RFC 3891 §3), as does one that wanted no word.
    fn part(&mut self, env: &mut Environment, transfer: &Transfer) {
        if transfer.gone {
            return;
        }
        let leaving = Leaving { fork: transfer.fork, leg: transfer.leg };
        if let Some(earlier) = self.leaving.replace(leaving) {
            self.bid_farewell(env, &earlier);
        }
        if transfer.subscription.is_some() {
            self.arm(env, CallTimer::Farewell, super::FAREWELL_MS);
        } else {
            self.on_farewell(env);
        }
    }

    /// A dialog of T's beside a copy of R's, which is put right when T joins. `None` if there are too many.
    pub(in super::super) fn add_newcomer(
        &mut self,
        env: &mut Environment,
        leg: Leg,
        dialog: Dialog,
    ) -> Option<usize> {
        let fork = self.forks.len();
        let stays = self.answered.and_then(|answered| self.dialog(answered, leg.other()))?.clone();
        if fork >= super::super::MAX_DIALOGS {
            return None;
        }
        let place = DialogPlace { call: self.id, leg, fork, peer: dialog.path.peer, class: self.class };
        env.add_dialog(dialog.id.clone(), place);
        let dialogs = match leg {
            Leg::A => [dialog, stays],
            Leg::B => [stays, dialog],
        };
        self.forks.push(Fork::new(None, dialogs, None));
        Some(fork)
    }
}
