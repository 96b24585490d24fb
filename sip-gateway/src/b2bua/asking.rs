//! Requests of ours inside the dialogs, and what we ask of one leg by ourselves, at most one thing at a time: to refresh
//! its session ([`session_timer`](super::session_timer)), or to hear of recording ([`awareness`](super::awareness)).
//! Such a re-INVITE keeps every other exchange of the call away, so it does not wait for ever:
//!
//! | § | a re-INVITE has drawn | effect |
//! |---|---|---|
//! | 3261 17.1.1.2 | nothing for 64*T1 | its transaction fails |
//! | 3261 9.1 | nothing but 1xx for 64*T1 since the first | CANCEL; any final response counts as ever |
//! | 3261 9.1 | no final response for 64*T1 after that | given up |

use consent::Leg;

use super::calling::cancel_of;
use super::{Call, CallTimer, Owner, Role, sips};
use crate::core::{Again, Environment, Path};
use crate::dialog::{Dialog, sequence_of};
use crate::digest::credentials_of;
use crate::transaction::{T1_64_MS, TxId};
use crate::wire::{Headers, Method, Request, name};

/// A request of ours on its way.
#[derive(Debug)]
pub(super) struct Asked {
    client: TxId,
    sent: Request,
    path: Path,
    branch: String,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Sent,
    /// A provisional response came.
    Heard,
    Cancelled,
}

impl Asked {
    pub(super) fn is(&self, client: TxId) -> bool {
        self.client == client
    }

    pub(super) const fn client(&self) -> TxId {
        self.client
    }

    /// As it was sent.
    pub(super) const fn request(&self) -> &Request {
        &self.sent
    }

    pub(super) const fn path(&self) -> Path {
        self.path
    }

    pub(super) fn invites(&self) -> bool {
        self.sent.method == Method::INVITE
    }

    /// A re-INVITE is left without an answer.
    pub(super) fn orphan(&self) -> Option<TxId> {
        self.invites().then_some(self.client)
    }

    /// It was challenged, and has been sent again: of this one nothing has been heard.
    pub(super) fn sent_again(&mut self, again: Again) {
        let Again { client, request, path, branch, .. } = again;
        *self = Self { client, sent: request, path, branch, progress: Progress::Sent };
    }

    /// A provisional response came; `true` if it is the first.
    pub(super) fn hear(&mut self) -> bool {
        let first = self.progress == Progress::Sent;
        if first {
            self.progress = Progress::Heard;
        }
        first
    }

    /// CANCEL, if it has been heard of (§9.1), once; `true` if that goes out.
    pub(super) fn cancel(&mut self, env: &mut Environment) -> bool {
        self.cancel_for(env, None)
    }

    /// The same with this Reason.
    pub(super) fn cancel_for(&mut self, env: &mut Environment, reason: Option<String>) -> bool {
        let due = self.progress == Progress::Heard;
        if due {
            self.progress = Progress::Cancelled;
            let mut cancel = cancel_of(&self.sent);
            if let Some(reason) = reason {
                cancel.headers.push(name::REASON, reason);
            }
            env.cancel(self.client, self.path, cancel, self.branch.clone());
        }
        due
    }
}

impl Call {
    /// An UPDATE or re-INVITE of ours in this dialog, as yet without a body.
    pub(super) fn request_in(env: &Environment, dialog: &mut Dialog, method: Method) -> (Request, Path) {
        let (mut sent, path) = (dialog.request(method), dialog.path);
        sent.headers.push(name::MAX_FORWARDS, "70");
        sent.headers.push(name::CONTACT, env.contact(&path, sips::is_sent_to(&sent)));
        (sent, path)
    }

    /// Sends a request in a dialog, with our credentials and Via; `role` is what that is.
    pub(super) fn ask(&self, env: &mut Environment, path: Path, mut sent: Request, role: Role) -> Asked {
        env.authorize(&path, &mut sent);
        let branch = env.stamp_via(&path, &mut sent);
        let client = env.request_with_branch(path, &sent, branch.clone(), Owner::Call(self.id, role));
        Asked { client, sent, path, branch, progress: Progress::Sent }
    }

    fn asked(&self, leg: Leg) -> Option<&Asked> {
        self.refreshing(leg).or_else(|| self.indicated(leg))
    }

    fn asked_mut(&mut self, leg: Leg) -> Option<&mut Asked> {
        match self.refreshing(leg) {
            Some(_) => self.refreshing_mut(leg),
            None => self.indicated_mut(leg),
        }
    }

    /// Whether this waits for its answer.
    pub(super) fn asks(&self, leg: Leg, client: TxId) -> bool {
        self.asked(leg).is_some_and(|asked| asked.is(client))
    }

    /// The same, and whether that is still wanted.
    pub(super) fn asks_still(&self, leg: Leg, client: TxId) -> bool {
        let asked = self.asked(leg).filter(|asked| asked.is(client));
        asked.is_some_and(|asked| asked.progress != Progress::Cancelled)
    }

    /// It was challenged, and has been sent again.
    pub(super) fn asks_again(&mut self, env: &mut Environment, leg: Leg, again: Again) {
        self.disarm(env, CallTimer::Patience(leg));
        if let Some(asked) = self.asked_mut(leg) {
            asked.sent_again(again);
        }
    }

    /// A provisional response: from here on no timer of the transaction's ends it.
    pub(super) fn on_asked_provisional(&mut self, env: &mut Environment, leg: Leg, client: TxId) {
        let asked = self.asked_mut(leg).filter(|asked| asked.is(client) && asked.invites());
        if asked.is_some_and(Asked::hear) {
            self.arm(env, CallTimer::Patience(leg), T1_64_MS);
        }
    }

    /// A re-INVITE of ours has blocked its leg for long enough.
    pub(super) fn on_patience_over(&mut self, env: &mut Environment, leg: Leg) {
        let Some(asked) = self.asked_mut(leg) else { return };
        if asked.cancel(env) {
            self.note_dallying(leg);
            return self.arm(env, CallTimer::Patience(leg), T1_64_MS);
        }
        let client = asked.client;
        let (transactions, mut ports) = env.split();
        transactions.abandon(&mut ports, client);
        self.give_up_refresh(env, leg);
        self.give_up_indication(leg);
    }

    /// What the 2xx to one shows of the far end.
    pub(super) fn heed_accepted(&mut self, env: &mut Environment, fork: usize, leg: Leg, headers: &Headers) {
        self.observe(env, leg, headers, None);
        if let Some(dialog) = self.dialog(fork, leg) {
            dialog.refresh_target(env, headers);
        }
    }

    /// The ACK of an accepted one, if it needs one.
    pub(super) fn acknowledge_asked(&mut self, env: &mut Environment, fork: usize, leg: Leg, asked: &Asked) {
        let Some(dialog) = self.dialog(fork, leg).filter(|_| asked.invites()) else { return };
        let sequence = sequence_of(&asked.sent.headers).unwrap_or_default();
        let (mut ack, path) = (dialog.ack(sequence), dialog.path);
        ack.headers.push(name::MAX_FORWARDS, "70");
        ack.headers.append(&credentials_of(&asked.sent.headers));
        self.acknowledge(env, asked.client, fork, path, ack);
    }
}
