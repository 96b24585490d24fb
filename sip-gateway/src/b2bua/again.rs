//! Requests of a call that were challenged and are sent again, without the other leg noticing (RFC 3261
//! §22.2, §22.3).

use consent::Mono;

use super::{Attempt, Call, Role};
use crate::core::{Again, DialogPlace, Environment};
use crate::dialog::sequence_of;
use crate::transaction::TxId;

impl Call {
    /// Whether an answer to the challenge of this request of ours would still serve.
    pub(crate) fn wants_again(&self, role: Role, client: TxId) -> bool {
        match role {
            Role::Attempt(index) => {
                self.hunts(index) && self.attempts.get(index).is_some_and(|attempt| attempt.client == client)
            }
            Role::Relay(number) => {
                let waits = self.relays.iter().find(|relay| relay.number == number);
                waits.is_some_and(|relay| relay.asked.is(client) && !relay.unwanted)
            }
            Role::Join | Role::Lent => self.awaits_join(client),
            Role::Refresh(leg) | Role::Indication(leg) => self.asks_still(leg, client),
            Role::Invite | Role::Replacing => false,
        }
    }

    /// The request has been sent again. What was heard so far was not of this one.
    pub(crate) fn sent_again(&mut self, env: &mut Environment, role: Role, again: Again) {
        match role {
            Role::Attempt(index) => self.invited_again(env, index, again),
            Role::Relay(number) => {
                if let Some(relay) = self.relays.iter_mut().find(|relay| relay.number == number) {
                    relay.asked.sent_again(again);
                }
            }
            Role::Join => self.joins_again(again),
            Role::Lent => self.borrows_again(again),
            Role::Refresh(leg) | Role::Indication(leg) => self.asks_again(env, leg, again),
            Role::Invite | Role::Replacing => {}
        }
    }

    fn invited_again(&mut self, env: &mut Environment, index: usize, again: Again) {
        let sequence = sequence_of(&again.request.headers).unwrap_or_default();
        let Some(attempt) = self.attempts.get_mut(index) else { return };
        let leg = attempt.leg;
        attempt.sent_again(again, env.now.mono);
        for fork in self.forks.iter_mut().filter(|fork| fork.attempt == Some(index)) {
            let dialog = &mut fork.dialogs[leg.index()];
            dialog.local_seq = dialog.local_seq.max(sequence);
        }
        self.await_sign(env, index);
    }

    /// The next sequence number of ours in a dialog.
    pub(crate) fn next_sequence(&mut self, place: DialogPlace) -> Option<u32> {
        self.dialog(place.fork, place.leg).map(|dialog| dialog.next_sequence())
    }
}

impl Attempt {
    fn sent_again(&mut self, again: Again, now: Mono) {
        (self.client, self.branch, self.path) = (again.client, again.branch, again.path);
        self.invite = again.request;
        self.sent_at = now;
        self.heard = false;
    }
}
