//! The newcomer's answer, the re-INVITE to whom stays, and the exchange of L for T (RFC 3725 §4.1, RFC 3261
//! §13.2.2.4, §14).

use bytes::Bytes;
use consent::Leg;

use super::super::calling::cancel_of;
use super::super::identity::FarEnd;
use super::super::offering::own_ip;
use super::super::session::{self, Ours};
use super::super::sips;
use super::super::{Acceptance, Call, CallTimer, Event, Owner, Role, TIMER_C_MS};
use super::{FAREWELL_MS, Invited, Leaving, Newcomer, RETRY_MS, Reinvite, Said, Stage, Target, Transfer};
use crate::Change;
use crate::core::{Again, DialogPlace, Environment};
use crate::dialog::{Dialog, sequence_of};
use crate::digest::credentials_of;
use crate::transaction::{Report, T1_MS, TxId};
use crate::wire::{Headers, Method, Request, Response, name};

/// RFC 3261 §14.1: at least this long after a 491 where the Call-ID is ours, and up to twice that.
const GLARE_MS: u64 = 2_100;

/// What T's message may tell R of T besides its description.
const SHOWN: [&str; 6] = [
    name::CONTENT_TYPE,
    "Content-Encoding",
    "Content-Disposition",
    name::P_ASSERTED_IDENTITY,
    name::REMOTE_PARTY_ID,
    name::PRIVACY,
];

impl Call {
    /// A response of whom we invite in L's stead.
    pub(in super::super) fn on_target_response(
        &mut self,
        env: &mut Environment,
        index: usize,
        response: Response,
    ) {
        match response.status {
            100..=199 => self.on_target_provisional(env, &response),
            200..=299 => self.on_target_answer(env, index, response),
            _ => self.on_failure(env, index, &response),
        }
    }

    fn on_target_provisional(&mut self, env: &mut Environment, response: &Response) {
        if !self.transfer.as_ref().is_some_and(|transfer| matches!(transfer.stage, Stage::Inviting(_))) {
            return;
        }
        self.arm(env, CallTimer::Transfer, TIMER_C_MS);
        if response.status == 100 {
            return;
        }
        let first = self
            .transfer
            .as_mut()
            .and_then(|transfer| transfer.report.as_mut())
            .is_some_and(|report| !std::mem::replace(&mut report.rang, true));
        if first {
            self.report(env, &Response::new(180));
        }
    }

    fn on_target_answer(&mut self, env: &mut Environment, index: usize, response: Response) {
        // Its ACK waits for R; what comes meanwhile is the same 2xx again, or another fork's, which is
        // declined when it comes once more after the join.
        if !self.transfer.as_ref().is_some_and(|transfer| matches!(transfer.stage, Stage::Inviting(_))) {
            return;
        }
        if let Some(attempt) = self.attempts.get_mut(index) {
            attempt.finished = true;
        }
        self.give_up_hunt(env, Some(index));
        let Some(fork) = self.add_fork(env, index, &response) else {
            return self.fail_transfer(env, &Response::new(503));
        };
        let said = Said { fork, headers: response.headers, body: response.body };
        self.begin_joining(env, Newcomer::Called { attempt: index }, said);
    }

    /// T has said what it has to say: R's turn, as soon as no other exchange is under way.
    pub(super) fn begin_joining(&mut self, env: &mut Environment, newcomer: Newcomer, said: Said) {
        let Some(transfer) = &mut self.transfer else { return };
        transfer.retries = 0;
        transfer.stage = Stage::Joining { newcomer, said, reinvite: None };
        self.reinvite_other(env);
    }

    pub(super) fn reinvite_other(&mut self, env: &mut Environment) {
        if self.invite_pending().is_some() {
            return self.arm(env, CallTimer::Transfer, RETRY_MS);
        }
        let Some(transfer) = &self.transfer else { return };
        let Stage::Joining { newcomer, said, .. } = &transfer.stage else { return };
        let delayed = matches!(newcomer, Newcomer::Calling { .. });
        let (leg, headers, body) = (transfer.leg, said.headers.clone(), said.body.clone());
        let offer = match session::find(&headers, &body) {
            Ok(Some(found)) => Some(found),
            Ok(None) if delayed => None,
            Ok(None) | Err(_) => {
                let unfit = Response::new(488);
                self.release_newcomer(env, &unfit);
                return self.fail_transfer(env, &unfit);
            }
        };
        let Some(dialog) = self.answered.and_then(|fork| self.dialog(fork, leg.other())) else { return };
        let (mut sent, path) = (dialog.request(Method::INVITE), dialog.path);
        sent.headers.push(name::MAX_FORWARDS, "70");
        sent.headers.push(name::CONTACT, env.contact(&path, sips::is_sent_to(&sent)));
        for field in SHOWN {
            sent.headers.copy(&headers, field);
        }
        if let Some(found) = offer {
            sent.body = self.session.rewrite(leg, &found, &body, own_ip(env, &path));
        }
        env.authorize(&path, &mut sent);
        let branch = env.stamp_via(&path, &mut sent);
        self.relays_begun = self.relays_begun.wrapping_add(1);
        let number = self.relays_begun;
        let client =
            env.request_with_branch(path, &sent, branch.clone(), Owner::Call(self.id, Role::Join(number)));
        if let Some(Transfer { stage: Stage::Joining { reinvite, .. }, .. }) = self.transfer.as_deref_mut() {
            *reinvite = Some(Box::new(Reinvite { number, client, sent, path, branch, heard: false }));
        }
        self.arm(env, CallTimer::Transfer, TIMER_C_MS);
    }

    /// The leg that stays, if this re-INVITE went to it.
    pub(in super::super) fn remaining(&self, number: u32) -> Option<Leg> {
        let transfer = self.transfer.as_ref().filter(|_| self.lent_number() != Some(number))?;
        Some(transfer.leg.other())
    }

    /// R's answer to our re-INVITE.
    pub(in super::super) fn on_join_response(
        &mut self,
        env: &mut Environment,
        number: u32,
        client: TxId,
        response: Response,
    ) {
        if self.lent_number() == Some(number) {
            return self.on_lent_response(env, response);
        }
        let Some(reinvite) = self.pending_reinvite(number) else {
            return self.on_stray_response(env, client, &response);
        };
        match response.status {
            100..=199 => reinvite.heard = true,
            200..=299 => self.join(env, &response),
            491 => {
                self.forget_reinvite();
                let wait_ms = GLARE_MS + u64::from(env.generator.sequence()) % GLARE_MS;
                self.arm(env, CallTimer::Transfer, wait_ms);
            }
            _ => self.lose_other(env, &response),
        }
    }

    /// A 2xx again, because our ACK was lost; or one that came after the transfer was given up.
    fn on_stray_response(&mut self, env: &mut Environment, client: TxId, response: &Response) {
        if !(200..300).contains(&response.status) {
            return;
        }
        match self.acked.iter_mut().find(|acked| acked.client == client) {
            Some(acked) => env.transport.send(&mut acked.path, acked.bytes.clone()),
            None => self.acknowledge_stray(env, &response.headers, &Headers::new()),
        }
    }

    pub(in super::super) fn on_join_failed(&mut self, env: &mut Environment, number: u32, report: Report) {
        let failure = Response::new(report.status());
        if self.lent_number() == Some(number) {
            self.on_lent_response(env, failure);
        } else if self.pending_reinvite(number).is_some() {
            self.lose_other(env, &failure);
        }
    }

    /// Whether this request of ours, of that number, waits for an answer.
    pub(in super::super) fn awaits_join(&self, number: u32, client: TxId) -> bool {
        match self.transfer.as_ref().map(|transfer| &transfer.stage) {
            Some(Stage::Inviting(Newcomer::Lent(lent))) => (lent.number, lent.client) == (number, client),
            Some(Stage::Joining { reinvite: Some(reinvite), .. }) => {
                (reinvite.number, reinvite.client) == (number, client)
            }
            _ => false,
        }
    }

    /// That request has been sent again.
    pub(in super::super) fn joins_again(&mut self, number: u32, again: Again) {
        if let Some(reinvite) = self.pending_reinvite(number) {
            (reinvite.client, reinvite.branch, reinvite.path) = (again.client, again.branch, again.path);
            reinvite.sent = again.request;
            reinvite.heard = false;
        } else if let Some(lent) = self.lent_mut().filter(|lent| lent.number == number) {
            lent.sent_again(&again);
        }
    }

    fn pending_reinvite(&mut self, number: u32) -> Option<&mut Reinvite> {
        match &mut self.transfer.as_mut()?.stage {
            Stage::Joining { reinvite: Some(reinvite), .. } if reinvite.number == number => Some(reinvite),
            _ => None,
        }
    }

    fn forget_reinvite(&mut self) -> Option<Box<Reinvite>> {
        match &mut self.transfer.as_mut()?.stage {
            Stage::Joining { reinvite, .. } => reinvite.take(),
            _ => None,
        }
    }

    /// R does not take T's description.
    fn lose_other(&mut self, env: &mut Environment, failure: &Response) {
        self.forget_reinvite();
        self.release_newcomer(env, failure);
        self.fail_transfer(env, failure);
    }

    /// R has answered: T is in L's place from here on.
    fn join(&mut self, env: &mut Environment, response: &Response) {
        let Ok(Some(found)) = session::find(&response.headers, &response.body) else {
            return self.join_in_vain(env, response);
        };
        let Some(transfer) = self.transfer.take() else { return };
        let Transfer { leg, fork: old, report, gone, target, referred_by, retries, stage } = *transfer;
        let Stage::Joining { newcomer, said, reinvite: Some(reinvite) } = stage else { return };
        self.disarm(env, CallTimer::Transfer);
        let (new, other) = (said.fork, leg.other());
        self.give_place(env, leg, new, &newcomer, &said, target.as_ref());
        self.move_dialog(env, other, (old, new), &response.headers);
        if let Some(dialog) = self.dialog(new, leg) {
            self.heard_from[leg.index()] = dialog.path.to.ip();
        }
        let offered = session::find(&said.headers, &said.body).ok().flatten();
        if let Some(offered) = &offered {
            let told = self.session.describe(leg, offered.media(self.heard_from[leg.index()]), false);
            self.tell(env, told);
        }
        let told = self.session.describe(other, found.media(self.heard_from[other.index()]), false);
        self.tell(env, told);
        let path = self.dialog(new, leg).map_or(reinvite.path, |dialog| dialog.path);
        let body = if self.offered_to(&newcomer).is_some() {
            // It has answered already.
            Bytes::new()
        } else {
            self.session.rewrite(other, &found, &response.body, own_ip(env, &path))
        };
        match &newcomer {
            Newcomer::Calling { server, invite, record, .. } => {
                env.emit(Event::Replaced { call: self.id, record: *record, status: 200 });
                self.accept_newcomer(env, leg, new, (*server, invite), &reinvite, response, body);
            }
            Newcomer::Called { attempt } => {
                let of = self.attempts.get(*attempt).map(Invited::of);
                self.acknowledge_newcomer(env, leg, new, of, &response.headers, body);
                self.acknowledge_reinvite(env, new, other, &reinvite);
            }
            Newcomer::Lent(lent) => {
                let of = Some(lent.invited());
                self.acknowledge_newcomer(env, leg, new, of, &response.headers, body);
                self.acknowledge_reinvite(env, new, other, &reinvite);
                env.emit(Event::Linked { call: self.id, with: lent.of });
                env.loans.push_back(super::Loan::Kept { of: lent.of });
            }
        }
        tracing::debug!(call = %self.id, "transfer done");
        self.transfer = Some(Box::new(Transfer {
            leg,
            fork: old,
            report,
            gone,
            target,
            referred_by,
            retries,
            stage: Stage::Deciding,
        }));
        self.report(env, &Response::new(200));
        let reported = self.transfer.take().is_some_and(|transfer| transfer.report.is_some());
        self.part(env, Leaving { fork: old, leg }, gone, reported);
    }

    /// R has accepted, but said nothing that T could use.
    fn join_in_vain(&mut self, env: &mut Environment, response: &Response) {
        let credentials = self.forget_reinvite().map(|reinvite| credentials_of(&reinvite.sent.headers));
        self.acknowledge_stray(env, &response.headers, &credentials.unwrap_or_default());
        let unfit = Response::new(488);
        self.release_newcomer(env, &unfit);
        self.fail_transfer(env, &unfit);
    }

    /// Tells who is there now, before anything of it is passed on.
    fn give_place(
        &mut self,
        env: &mut Environment,
        leg: Leg,
        new: usize,
        newcomer: &Newcomer,
        said: &Said,
        target: Option<&Target>,
    ) {
        let Some((peer, address)) =
            self.dialog(new, leg).map(|dialog| (dialog.path.peer, dialog.remote.clone()))
        else {
            return;
        };
        let far_end = match newcomer {
            Newcomer::Lent(lent) => lent.far_end.clone(),
            Newcomer::Called { .. } | Newcomer::Calling { .. } => FarEnd::new(&said.headers, &address),
        };
        let identity = far_end.identity(&said.headers, !Self::is_public(env, peer));
        let parties_signalled = env.config.peers.get(peer.0).is_some_and(|peer| peer.parties_signalled);
        self.far_ends[leg.index()] = far_end;
        let side = env.side(peer);
        let called = target
            .filter(|_| matches!(newcomer, Newcomer::Called { .. }))
            .map(|target| target.told(env, side));
        let emergency = called.as_ref().is_some_and(|called| called.emergency);
        let called = called.map(|called| called.user);
        let change = Change::Replaced { identity, called, side, emergency, parties_signalled };
        env.emit(Event::Changed { call: self.id, leg, change });
        let ours = match newcomer {
            Newcomer::Lent(lent) => lent.ours.clone(),
            Newcomer::Called { .. } | Newcomer::Calling { .. } => {
                self.offered_to(newcomer).cloned().unwrap_or_else(|| Ours::new(env.generator.session()))
            }
        };
        self.session.replace(leg, ours);
    }

    /// What T was offered when it was called, if anything.
    fn offered_to(&self, newcomer: &Newcomer) -> Option<&Ours> {
        let Newcomer::Called { attempt } = newcomer else { return None };
        self.attempts.get(*attempt)?.offered.as_ref()
    }

    /// From here on R talks to T: its dialog stands beside T's.
    fn move_dialog(
        &mut self,
        env: &mut Environment,
        stays: Leg,
        (old, new): (usize, usize),
        response: &Headers,
    ) {
        let Some(mut dialog) = self.dialog(old, stays).map(|dialog| dialog.clone()) else { return };
        dialog.refresh_target(env, response);
        let place =
            DialogPlace { call: self.id, leg: stays, fork: new, peer: dialog.path.peer, class: self.class };
        env.dialogs.insert(dialog.id.clone(), place);
        if let Some(there) = self.dialog(new, stays) {
            *there = dialog;
        }
        self.answered = Some(new);
        let comes = stays.other();
        self.over[comes.index()] = false;
        if comes == Leg::A
            && let Some((path, tag)) = self.dialog(new, Leg::A).map(|a| (a.path, a.id.local_tag.clone()))
        {
            self.peer = path.peer;
            self.back = path;
            self.tag = tag;
            for field in [name::P_ASSERTED_IDENTITY, name::PRIVACY] {
                self.invite.headers.remove(field);
            }
        }
    }

    /// 200 to whom replaces L; its ACK is passed on to R as that of any re-INVITE.
    #[expect(clippy::too_many_arguments, reason = "two ends of one exchange")]
    fn accept_newcomer(
        &mut self,
        env: &mut Environment,
        leg: Leg,
        fork: usize,
        (server, invite): (TxId, &Request),
        reinvite: &Reinvite,
        response: &Response,
        body: Bytes,
    ) {
        let Some((tag, path)) = self.dialog(fork, leg).map(|d| (d.id.local_tag.clone(), d.path)) else {
            return;
        };
        let mut accepted = response.clone();
        accepted.body = body;
        let reply = self.reply(env, invite, &path, &tag, &accepted);
        let acceptance = Acceptance {
            from: leg,
            sequence: sequence_of(&invite.headers).unwrap_or_default(),
            other_sequence: sequence_of(&reinvite.sent.headers).unwrap_or_default(),
            server,
            client: reinvite.client,
            response: reply,
            interval_ms: T1_MS,
            credentials: credentials_of(&reinvite.sent.headers),
            settled: false,
        };
        self.accept(env, acceptance);
    }

    /// ACK to T with R's description.
    fn acknowledge_newcomer(
        &mut self,
        env: &mut Environment,
        leg: Leg,
        fork: usize,
        of: Option<Invited>,
        answer: &Headers,
        body: Bytes,
    ) {
        let Some(Invited { client, sequence, credentials }) = of else { return };
        let Some(dialog) = self.dialog(fork, leg) else { return };
        let (mut ack, path) = (dialog.ack(sequence), dialog.path);
        ack.headers.push(name::MAX_FORWARDS, "70");
        ack.headers.append(&credentials);
        for field in [name::CONTENT_TYPE, "Content-Encoding", "Content-Disposition"] {
            ack.headers.copy(answer, field);
        }
        ack.body = body;
        self.acknowledge(env, client, fork, path, ack);
    }

    fn acknowledge_reinvite(&mut self, env: &mut Environment, fork: usize, leg: Leg, reinvite: &Reinvite) {
        let Some(dialog) = self.dialog(fork, leg) else { return };
        let (mut ack, path) =
            (dialog.ack(sequence_of(&reinvite.sent.headers).unwrap_or_default()), dialog.path);
        ack.headers.push(name::MAX_FORWARDS, "70");
        ack.headers.append(&credentials_of(&reinvite.sent.headers));
        self.acknowledge(env, reinvite.client, fork, path, ack);
    }

    /// ACK to a 2xx of a re-INVITE that nobody waits for any more.
    fn acknowledge_stray(&mut self, env: &mut Environment, response: &Headers, credentials: &Headers) {
        let tag = |field| crate::dialog::tag_of(response, field).unwrap_or_default();
        let id = crate::dialog::DialogId {
            call_id: response.first(name::CALL_ID).unwrap_or_default().to_owned(),
            local_tag: tag(name::FROM),
            remote_tag: tag(name::TO),
        };
        let Some(place) = env.dialogs.get(&id).copied().filter(|place| place.call == self.id) else { return };
        let Some(dialog) = self.dialog(place.fork, place.leg) else { return };
        let (mut ack, mut path) = (dialog.ack(sequence_of(response).unwrap_or_default()), dialog.path);
        ack.headers.push(name::MAX_FORWARDS, "70");
        ack.headers.append(credentials);
        env.stamp_via(&path, &mut ack);
        env.transport.send(&mut path, ack.to_bytes());
    }

    /// L's dialog is to end: L does it, or we do. Whom L's successor replaced by an INVITE gets its BYE at
    /// once (RFC 3891 §3), as does one that wanted no word.
    fn part(&mut self, env: &mut Environment, leaving: Leaving, gone: bool, reported: bool) {
        if gone {
            return;
        }
        if let Some(earlier) = self.leaving.replace(leaving) {
            self.bid_farewell(env, &earlier);
        }
        if reported {
            self.arm(env, CallTimer::Farewell, FAREWELL_MS);
        } else {
            self.on_farewell(env);
        }
    }

    /// T hangs up before it has joined.
    pub(super) fn lose_newcomer(&mut self, env: &mut Environment) {
        let terminated = Response::new(487);
        self.over_newcomer();
        self.release_newcomer(env, &terminated);
        self.fail_transfer(env, &terminated);
    }

    fn over_newcomer(&mut self) {
        if let Some(lent) = self.lent_mut() {
            lent.hung_up = true;
        }
    }

    /// Lets T go, whichever way it came.
    pub(super) fn release_newcomer(&mut self, env: &mut Environment, failure: &Response) {
        let Some(transfer) = &mut self.transfer else { return };
        let leg = transfer.leg;
        match std::mem::replace(&mut transfer.stage, Stage::Deciding) {
            Stage::Borrowing { .. } | Stage::Deciding => {}
            Stage::Inviting(Newcomer::Called { .. }) => self.give_up_hunt(env, None),
            Stage::Inviting(Newcomer::Lent(lent)) => {
                self.orphans.push(lent.client);
                env.loans.push_back(super::Loan::Back(lent));
            }
            Stage::Inviting(Newcomer::Calling { .. }) => {}
            Stage::Joining { newcomer, said, reinvite } => {
                if let Some(reinvite) = reinvite {
                    self.abandon_reinvite(env, *reinvite);
                }
                self.turn_away(env, leg, newcomer, &said, failure);
            }
        }
    }

    fn turn_away(
        &mut self,
        env: &mut Environment,
        leg: Leg,
        newcomer: Newcomer,
        said: &Said,
        failure: &Response,
    ) {
        match newcomer {
            Newcomer::Called { attempt } => {
                let of = self.attempts.get(attempt).map(Invited::of);
                self.acknowledge_newcomer(env, leg, said.fork, of, &Headers::new(), Bytes::new());
                let leaving = Leaving { fork: said.fork, leg };
                self.bid_farewell(env, &leaving);
            }
            Newcomer::Calling { server, invite, fork, record } => {
                let mapped = super::super::forward::map_failure(failure);
                env.emit(Event::Replaced { call: self.id, record, status: mapped.status });
                let tag = self.dialog(fork, leg).map(|dialog| dialog.id.local_tag.clone());
                let bare = Response::new(mapped.status);
                let reply = self.reply(env, &invite, &self.back, tag.as_deref().unwrap_or(&self.tag), &bare);
                env.respond(server, &reply);
            }
            Newcomer::Lent(lent) => {
                // What it had before is its answer again.
                let mut answer = Headers::new();
                answer.push(name::CONTENT_TYPE, "application/sdp");
                let of = Some(lent.invited());
                let sent = Bytes::copy_from_slice(lent.ours.sent());
                self.acknowledge_newcomer(env, leg, lent.fork, of, &answer, sent);
                env.loans.push_back(super::Loan::Back(lent));
            }
        }
    }

    fn abandon_reinvite(&mut self, env: &mut Environment, reinvite: Reinvite) {
        if reinvite.heard {
            env.cancel(reinvite.client, reinvite.path, cancel_of(&reinvite.sent), reinvite.branch);
        }
        self.orphans.push(reinvite.client);
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
        env.dialogs.insert(dialog.id.clone(), place);
        let dialogs = match leg {
            Leg::A => [dialog, stays],
            Leg::B => [stays, dialog],
        };
        self.forks.push(super::super::Fork { attempt: super::super::NO_ATTEMPT, dialogs });
        Some(fork)
    }
}
