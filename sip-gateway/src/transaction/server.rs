//! Server transactions.
//!
//! INVITE (RFC 3261 §17.2.1, RFC 6026 §7.1):
//!
//! | state | input | effects | next |
//! |---|---|---|---|
//! | Proceeding | INVITE | transmit (the last provisional) | Proceeding |
//! | Proceeding | core: 1xx | transmit | Proceeding |
//! | Proceeding | core: 2xx | transmit, L = 64*T1 | Accepted |
//! | Proceeding | core: 3xx–6xx | transmit, G = T1 (unreliable), H = 64*T1 | Completed |
//! | Completed | INVITE | transmit | Completed |
//! | Completed | Timer G | transmit, G = min(2G, T2) | Completed |
//! | Completed | Timer H | timed out | Terminated |
//! | Completed | ACK | I = T4 (reliable 0); G and H stop | Confirmed |
//! | Confirmed | Timer I | | Terminated |
//! | Accepted | core: 2xx | transmit | Accepted |
//! | Accepted | ACK | deliver | Accepted |
//! | Accepted | Timer L | | Terminated |
//! | any | transport error | unreachable | the same (RFC 6026 §7.1) |
//!
//! Every other request (RFC 3261 §17.2.2):
//!
//! | state | input | effects | next |
//! |---|---|---|---|
//! | Trying | core: 1xx | transmit | Proceeding |
//! | Proceeding | request | transmit | Proceeding |
//! | Trying, Proceeding | core: 2xx–6xx | transmit, J = 64*T1 (reliable 0) | Completed |
//! | Completed | request | transmit | Completed |
//! | Completed | Timer J | | Terminated |
//! | any | transport error | unreachable | the same |
//!
//! Whatever has no row changes nothing: a repeated INVITE in Accepted is absorbed, because the user
//! agent core repeats the 2xx.

use super::{Effect, ServerInput, T1_64_MS, T1_MS, T2_MS, T4_MS, Timer};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InviteState {
    Proceeding,
    Completed,
    Confirmed,
    Accepted,
}

/// The INVITE server transaction.
#[derive(Debug)]
pub(crate) struct ServerInvite {
    state: InviteState,
    reliable: bool,
    timer_g_ms: u64,
}

impl ServerInvite {
    pub(crate) const fn new(reliable: bool) -> Self {
        Self { state: InviteState::Proceeding, reliable, timer_g_ms: T1_MS }
    }

    /// Whether a response of this status would go out: any before the first final one, then 2xx after 2xx.
    pub(crate) fn accepts(&self, status: u16) -> bool {
        match self.state {
            InviteState::Proceeding => true,
            InviteState::Accepted => (200..=299).contains(&status),
            InviteState::Completed | InviteState::Confirmed => false,
        }
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.state == InviteState::Accepted
    }

    pub(crate) fn on(&mut self, input: ServerInput, effects: &mut Vec<Effect>) {
        use InviteState::{Accepted, Completed, Confirmed, Proceeding};
        match (self.state, input) {
            (Proceeding | Completed, ServerInput::Request) => effects.push(Effect::Transmit),
            (Proceeding, ServerInput::Respond(..=199)) => effects.push(Effect::Transmit),
            (Proceeding, ServerInput::Respond(200..=299)) => {
                self.state = Accepted;
                effects.extend([Effect::Transmit, Effect::Arm(Timer::L, T1_64_MS)]);
            }
            (Proceeding, ServerInput::Respond(300..)) => {
                self.state = Completed;
                effects.push(Effect::Transmit);
                if !self.reliable {
                    effects.push(Effect::Arm(Timer::G, self.timer_g_ms));
                }
                effects.push(Effect::Arm(Timer::H, T1_64_MS));
            }
            (Completed, ServerInput::Fired(Timer::G)) => {
                self.timer_g_ms = (self.timer_g_ms * 2).min(T2_MS);
                effects.extend([Effect::Transmit, Effect::Arm(Timer::G, self.timer_g_ms)]);
            }
            (Completed, ServerInput::Fired(Timer::H)) => {
                effects.extend([Effect::TimedOut, Effect::Terminate]);
            }
            (Completed, ServerInput::Ack) => {
                self.state = Confirmed;
                let timer_i_ms = if self.reliable { 0 } else { T4_MS };
                effects.extend([
                    Effect::Disarm(Timer::G),
                    Effect::Disarm(Timer::H),
                    Effect::Arm(Timer::I, timer_i_ms),
                ]);
            }
            (Accepted, ServerInput::Respond(200..=299)) => effects.push(Effect::Transmit),
            (Accepted, ServerInput::Ack) => effects.push(Effect::Deliver),
            (Confirmed, ServerInput::Fired(Timer::I)) | (Accepted, ServerInput::Fired(Timer::L)) => {
                effects.push(Effect::Terminate);
            }
            (_, ServerInput::TransportError) => effects.push(Effect::Unreachable),
            _ => {}
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestState {
    Trying,
    Proceeding,
    Completed,
}

/// The server transaction of every request but INVITE and ACK.
#[derive(Debug)]
pub(crate) struct ServerRequest {
    state: RequestState,
    reliable: bool,
}

impl ServerRequest {
    pub(crate) const fn new(reliable: bool) -> Self {
        Self { state: RequestState::Trying, reliable }
    }

    /// Whether no final response has been given yet.
    pub(crate) fn is_open(&self) -> bool {
        self.state != RequestState::Completed
    }

    pub(crate) fn on(&mut self, input: ServerInput, effects: &mut Vec<Effect>) {
        use RequestState::{Completed, Proceeding, Trying};
        match (self.state, input) {
            (Trying | Proceeding, ServerInput::Respond(..=199)) => {
                self.state = Proceeding;
                effects.push(Effect::Transmit);
            }
            (Trying | Proceeding, ServerInput::Respond(200..)) => {
                self.state = Completed;
                let timer_j_ms = if self.reliable { 0 } else { T1_64_MS };
                effects.extend([Effect::Transmit, Effect::Arm(Timer::J, timer_j_ms)]);
            }
            (Proceeding | Completed, ServerInput::Request) => effects.push(Effect::Transmit),
            (Completed, ServerInput::Fired(Timer::J)) => effects.push(Effect::Terminate),
            (_, ServerInput::TransportError) => effects.push(Effect::Unreachable),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Effect::{Arm, Deliver, Disarm, Terminate, TimedOut, Transmit, Unreachable};
    use ServerInput::{Ack, Fired, Request, Respond, TransportError};

    fn invite(reliable: bool, inputs: &[ServerInput]) -> Vec<Effect> {
        let mut machine = ServerInvite::new(reliable);
        last(inputs, |input, effects| machine.on(input, effects))
    }

    fn request(reliable: bool, inputs: &[ServerInput]) -> Vec<Effect> {
        let mut machine = ServerRequest::new(reliable);
        last(inputs, |input, effects| machine.on(input, effects))
    }

    fn last(inputs: &[ServerInput], mut on: impl FnMut(ServerInput, &mut Vec<Effect>)) -> Vec<Effect> {
        let mut effects = Vec::new();
        for input in inputs {
            effects.clear();
            on(*input, &mut effects);
        }
        effects
    }

    #[test]
    fn invite_proceeding_repeats_the_last_provisional() {
        assert_eq!(invite(false, &[Respond(100)]), [Transmit]);
        assert_eq!(invite(false, &[Respond(180), Request]), [Transmit]);
        assert_eq!(invite(false, &[Respond(100), TransportError]), [Unreachable]);
    }

    #[test]
    fn invite_failure_is_repeated_by_timer_g_until_the_ack() {
        assert_eq!(invite(false, &[Respond(486)]), [Transmit, Arm(Timer::G, 500), Arm(Timer::H, 32_000)]);
        assert_eq!(invite(true, &[Respond(486)]), [Transmit, Arm(Timer::H, 32_000)]);
        let mut inputs = vec![Respond(486)];
        for interval_ms in [1_000, 2_000, 4_000, 4_000] {
            inputs.push(Fired(Timer::G));
            assert_eq!(invite(false, &inputs), [Transmit, Arm(Timer::G, interval_ms)]);
        }
        inputs.push(Request);
        assert_eq!(invite(false, &inputs), [Transmit]);
        inputs.push(Ack);
        assert_eq!(invite(false, &inputs), [Disarm(Timer::G), Disarm(Timer::H), Arm(Timer::I, 5_000)]);
    }

    #[test]
    fn invite_completed_times_out_by_timer_h() {
        assert_eq!(invite(false, &[Respond(486), Fired(Timer::H)]), [TimedOut, Terminate]);
        assert_eq!(invite(false, &[Respond(486), TransportError]), [Unreachable]);
    }

    #[test]
    fn invite_confirmed_absorbs_all_until_timer_i() {
        assert_eq!(invite(false, &[Respond(486), Ack, Request]), []);
        assert_eq!(invite(false, &[Respond(486), Ack, Ack]), []);
        assert_eq!(invite(false, &[Respond(486), Ack, Fired(Timer::G)]), []);
        assert_eq!(invite(false, &[Respond(486), Ack, Fired(Timer::I)]), [Terminate]);
        assert_eq!(
            invite(true, &[Respond(486), Ack]),
            [Disarm(Timer::G), Disarm(Timer::H), Arm(Timer::I, 0)]
        );
    }

    #[test]
    fn invite_accepted_absorbs_the_invite_and_lets_the_core_repeat_the_2xx() {
        assert_eq!(invite(false, &[Respond(200)]), [Transmit, Arm(Timer::L, 32_000)]);
        assert_eq!(invite(false, &[Respond(200), Request]), []);
        assert_eq!(invite(false, &[Respond(200), Respond(200)]), [Transmit]);
        assert_eq!(invite(false, &[Respond(200), Respond(486)]), []);
        assert_eq!(invite(false, &[Respond(200), Ack]), [Deliver]);
        assert_eq!(invite(false, &[Respond(200), Fired(Timer::L)]), [Terminate]);
        assert_eq!(invite(false, &[Respond(200), TransportError]), [Unreachable]);
    }

    #[test]
    fn request_trying_absorbs_and_proceeding_repeats() {
        assert_eq!(request(false, &[Request]), []);
        assert_eq!(request(false, &[Respond(100)]), [Transmit]);
        assert_eq!(request(false, &[Respond(100), Request]), [Transmit]);
    }

    #[test]
    fn request_completed_repeats_the_final_until_timer_j() {
        assert_eq!(request(false, &[Respond(200)]), [Transmit, Arm(Timer::J, 32_000)]);
        assert_eq!(request(true, &[Respond(100), Respond(405)]), [Transmit, Arm(Timer::J, 0)]);
        assert_eq!(request(false, &[Respond(200), Request]), [Transmit]);
        assert_eq!(request(false, &[Respond(200), Respond(500)]), []);
        assert_eq!(request(false, &[Respond(200), Fired(Timer::J)]), [Terminate]);
        assert_eq!(request(false, &[Respond(200), TransportError]), [Unreachable]);
    }
}
