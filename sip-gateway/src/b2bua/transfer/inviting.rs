//! What whom we invite in L's stead answers (RFC 3261 §13.2.2, RFC 3515 §2.4.5).

use super::super::{Call, CallTimer, Owner, TIMER_C_MS};
use super::{Invited, Newcomer, Said, Stage};
use crate::core::Environment;
use crate::dialog::{Dialog, sequence_of};
use crate::wire::{Method, Response, name};

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
        if !self.waits_for_target() {
            return;
        }
        self.arm(env, CallTimer::Transfer, TIMER_C_MS);
        if response.status == 100 {
            return;
        }
        let subscription = self.transfer.as_mut().and_then(|transfer| transfer.subscription.as_mut());
        if subscription.is_some_and(|subscription| !std::mem::replace(&mut subscription.rang, true)) {
            self.report(env, &Response::new(180));
        }
    }

    fn on_target_answer(&mut self, env: &mut Environment, index: usize, response: Response) {
        // Its ACK waits for R; what comes meanwhile is the same 2xx again, or another fork's, which is
        // declined when it comes once more after the join.
        if !self.waits_for_target() {
            return;
        }
        if let Some(attempt) = self.attempts.get_mut(index) {
            attempt.finished = true;
        }
        self.give_up_hunt(env, Some(index));
        let Some(fork) = self.add_fork(env, index, &response) else {
            self.decline_unplaced(env, index, &response);
            return self.fail_transfer(env, &Response::new(503));
        };
        let said = Said { fork, headers: response.headers, body: response.body };
        self.begin_joining(env, Newcomer::Called { attempt: index }, said);
    }

    /// ACK and BYE to a 2xx for whose dialog there is no place.
    fn decline_unplaced(&mut self, env: &mut Environment, index: usize, response: &Response) {
        let Some(attempt) = self.attempts.get(index) else { return };
        let mut dialog = Dialog::of_uac(env, &attempt.invite, &response.headers, attempt.path);
        let mut path = dialog.path;
        let mut ack = dialog.ack(sequence_of(&attempt.invite.headers).unwrap_or_default());
        let mut bye = dialog.request(Method::BYE);
        ack.headers.push(name::MAX_FORWARDS, "70");
        bye.headers.push(name::MAX_FORWARDS, "70");
        env.acknowledge(&mut path, ack);
        env.request(path, bye, Owner::Nobody);
    }

    pub(in super::super) fn waits_for_target(&self) -> bool {
        let stage = self.transfer.as_ref().map(|transfer| &transfer.stage);
        matches!(stage, Some(Stage::Inviting(Invited::Called)))
    }
}
