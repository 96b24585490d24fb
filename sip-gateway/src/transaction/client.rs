//! Client transactions.
//!
//! INVITE (RFC 3261 §17.1.1, RFC 6026 §8.4):
//!
//! | state | input | effects | next |
//! |---|---|---|---|
//! | – | start | transmit, A = T1 (unreliable), B = 64*T1 | Calling |
//! | Calling | Timer A | transmit, A doubled | Calling |
//! | Calling | Timer B | timed out | Terminated |
//! | Calling | transport error | unreachable | Terminated |
//! | Calling, Proceeding | 1xx | deliver; A and B stop | Proceeding |
//! | Calling, Proceeding | 2xx | deliver, M = 64*T1 | Accepted |
//! | Calling, Proceeding | 3xx–6xx | deliver, ACK, D = 32 s (reliable 0) | Completed |
//! | Completed | 3xx–6xx | ACK | Completed |
//! | Completed | Timer D | | Terminated |
//! | Accepted | 2xx | deliver | Accepted |
//! | Accepted | Timer M | | Terminated |
//!
//! Every other request (RFC 3261 §17.1.2):
//!
//! | state | input | effects | next |
//! |---|---|---|---|
//! | – | start | transmit, E = T1 (unreliable), F = 64*T1 | Trying |
//! | Trying | Timer E | transmit, E = min(2E, T2) | Trying |
//! | Proceeding | Timer E | transmit, E = T2 | Proceeding |
//! | Trying, Proceeding | Timer F | timed out | Terminated |
//! | Trying, Proceeding | transport error | unreachable | Terminated |
//! | Trying, Proceeding | 1xx | deliver | Proceeding |
//! | Trying, Proceeding | 2xx–6xx | deliver, K = T4 (reliable 0) | Completed |
//! | Completed | any response | | Completed |
//! | Completed | Timer K | | Terminated |
//!
//! Whatever has no row changes nothing.

use super::{ClientInput, Effect, T1_64_MS, T1_MS, T2_MS, T4_MS, TIMER_D_MS, Timer};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InviteState {
    Calling,
    Proceeding,
    Completed,
    Accepted,
}

/// The INVITE client transaction.
#[derive(Debug)]
pub(crate) struct ClientInvite {
    state: InviteState,
    reliable: bool,
    timer_a_ms: u64,
}

impl ClientInvite {
    pub(crate) const fn new(reliable: bool) -> Self {
        Self { state: InviteState::Calling, reliable, timer_a_ms: T1_MS }
    }

    pub(crate) fn on(&mut self, input: ClientInput, effects: &mut Vec<Effect>) {
        use InviteState::{Accepted, Calling, Completed, Proceeding};
        match (self.state, input) {
            (Calling, ClientInput::Start) => {
                effects.push(Effect::Transmit);
                if !self.reliable {
                    effects.push(Effect::Arm(Timer::A, self.timer_a_ms));
                }
                effects.push(Effect::Arm(Timer::B, T1_64_MS));
            }
            (Calling, ClientInput::Fired(Timer::A)) => {
                self.timer_a_ms *= 2;
                effects.extend([Effect::Transmit, Effect::Arm(Timer::A, self.timer_a_ms)]);
            }
            (Calling, ClientInput::Fired(Timer::B)) => {
                effects.extend([Effect::TimedOut, Effect::Terminate]);
            }
            (Calling, ClientInput::TransportError) => {
                effects.extend([Effect::Unreachable, Effect::Terminate]);
            }
            (Calling | Proceeding, ClientInput::Response(status)) => self.on_response(status, effects),
            (Completed, ClientInput::Response(300..)) => effects.push(Effect::Acknowledge),
            (Accepted, ClientInput::Response(200..=299)) => effects.push(Effect::Deliver),
            (Completed, ClientInput::Fired(Timer::D)) | (Accepted, ClientInput::Fired(Timer::M)) => {
                effects.push(Effect::Terminate);
            }
            _ => {}
        }
    }

    fn on_response(&mut self, status: u16, effects: &mut Vec<Effect>) {
        effects.extend([Effect::Disarm(Timer::A), Effect::Disarm(Timer::B)]);
        match status {
            ..=199 => {
                self.state = InviteState::Proceeding;
                effects.push(Effect::Deliver);
            }
            200..=299 => {
                self.state = InviteState::Accepted;
                effects.extend([Effect::Deliver, Effect::Arm(Timer::M, T1_64_MS)]);
            }
            300.. => {
                self.state = InviteState::Completed;
                let timer_d_ms = if self.reliable { 0 } else { TIMER_D_MS };
                effects.extend([Effect::Acknowledge, Effect::Arm(Timer::D, timer_d_ms), Effect::Deliver]);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestState {
    Trying,
    Proceeding,
    Completed,
}

/// The client transaction of every request but INVITE and ACK.
#[derive(Debug)]
pub(crate) struct ClientRequest {
    state: RequestState,
    reliable: bool,
    timer_e_ms: u64,
}

impl ClientRequest {
    pub(crate) const fn new(reliable: bool) -> Self {
        Self { state: RequestState::Trying, reliable, timer_e_ms: T1_MS }
    }

    pub(crate) fn on(&mut self, input: ClientInput, effects: &mut Vec<Effect>) {
        use RequestState::{Completed, Proceeding, Trying};
        match (self.state, input) {
            (Trying, ClientInput::Start) => {
                effects.push(Effect::Transmit);
                if !self.reliable {
                    effects.push(Effect::Arm(Timer::E, self.timer_e_ms));
                }
                effects.push(Effect::Arm(Timer::F, T1_64_MS));
            }
            (Trying, ClientInput::Fired(Timer::E)) => {
                self.timer_e_ms = (self.timer_e_ms * 2).min(T2_MS);
                effects.extend([Effect::Transmit, Effect::Arm(Timer::E, self.timer_e_ms)]);
            }
            (Proceeding, ClientInput::Fired(Timer::E)) => {
                effects.extend([Effect::Transmit, Effect::Arm(Timer::E, T2_MS)]);
            }
            (Trying | Proceeding, ClientInput::Fired(Timer::F)) => {
                effects.extend([Effect::TimedOut, Effect::Terminate]);
            }
            (Trying | Proceeding, ClientInput::TransportError) => {
                effects.extend([Effect::Unreachable, Effect::Terminate]);
            }
            (Trying | Proceeding, ClientInput::Response(..=199)) => {
                self.state = Proceeding;
                effects.push(Effect::Deliver);
            }
            (Trying | Proceeding, ClientInput::Response(200..)) => {
                self.state = Completed;
                let timer_k_ms = if self.reliable { 0 } else { T4_MS };
                effects.extend([
                    Effect::Disarm(Timer::E),
                    Effect::Disarm(Timer::F),
                    Effect::Arm(Timer::K, timer_k_ms),
                    Effect::Deliver,
                ]);
            }
            (Completed, ClientInput::Fired(Timer::K)) => effects.push(Effect::Terminate),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ClientInput::{Fired, Response, Start, TransportError};
    use Effect::{Acknowledge, Arm, Deliver, Disarm, Terminate, TimedOut, Transmit, Unreachable};

    fn invite(reliable: bool, inputs: &[ClientInput]) -> Vec<Effect> {
        let mut machine = ClientInvite::new(reliable);
        last(inputs, |input, effects| machine.on(input, effects))
    }

    fn request(reliable: bool, inputs: &[ClientInput]) -> Vec<Effect> {
        let mut machine = ClientRequest::new(reliable);
        last(inputs, |input, effects| machine.on(input, effects))
    }

    fn last(inputs: &[ClientInput], mut on: impl FnMut(ClientInput, &mut Vec<Effect>)) -> Vec<Effect> {
        let mut effects = Vec::new();
        for input in inputs {
            effects.clear();
            on(*input, &mut effects);
        }
        effects
    }

    #[test]
    fn invite_start_arms_a_and_b() {
        assert_eq!(invite(false, &[Start]), [Transmit, Arm(Timer::A, 500), Arm(Timer::B, 32_000)]);
        assert_eq!(invite(true, &[Start]), [Transmit, Arm(Timer::B, 32_000)]);
    }

    #[test]
    fn invite_calling_timer_a_doubles_without_a_cap() {
        let mut inputs = vec![Start];
        for interval_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000] {
            inputs.push(Fired(Timer::A));
            assert_eq!(invite(false, &inputs), [Transmit, Arm(Timer::A, interval_ms)]);
        }
    }

    #[test]
    fn invite_calling_timer_b_and_transport_error_end_it() {
        assert_eq!(invite(false, &[Start, Fired(Timer::B)]), [TimedOut, Terminate]);
        assert_eq!(invite(false, &[Start, TransportError]), [Unreachable, Terminate]);
    }

    #[test]
    fn invite_provisional_stops_a_and_b_for_good() {
        let stop = [Disarm(Timer::A), Disarm(Timer::B), Deliver];
        assert_eq!(invite(false, &[Start, Response(180)]), stop);
        assert_eq!(invite(false, &[Start, Response(100), Response(183)]), stop);
        assert_eq!(invite(false, &[Start, Response(100), Fired(Timer::A)]), []);
        assert_eq!(invite(false, &[Start, Response(100), Fired(Timer::B)]), []);
    }

    #[test]
    fn invite_2xx_goes_to_accepted_and_every_2xx_is_delivered() {
        let accepted = [Disarm(Timer::A), Disarm(Timer::B), Deliver, Arm(Timer::M, 32_000)];
        assert_eq!(invite(false, &[Start, Response(200)]), accepted);
        assert_eq!(invite(false, &[Start, Response(180), Response(202)]), accepted);
        assert_eq!(invite(false, &[Start, Response(200), Response(200)]), [Deliver]);
        assert_eq!(invite(false, &[Start, Response(200), Response(486)]), []);
        assert_eq!(invite(false, &[Start, Response(200), Response(180)]), []);
        assert_eq!(invite(false, &[Start, Response(200), Fired(Timer::M)]), [Terminate]);
    }

    #[test]
    fn invite_failure_is_acknowledged_each_time_and_delivered_once() {
        let first = |timer_d_ms| {
            [Disarm(Timer::A), Disarm(Timer::B), Acknowledge, Arm(Timer::D, timer_d_ms), Deliver]
        };
        assert_eq!(invite(false, &[Start, Response(486)]), first(32_000));
        assert_eq!(invite(true, &[Start, Response(180), Response(603)]), first(0));
        assert_eq!(invite(false, &[Start, Response(486), Response(486)]), [Acknowledge]);
        assert_eq!(invite(false, &[Start, Response(486), Response(200)]), []);
        assert_eq!(invite(false, &[Start, Response(486), Fired(Timer::D)]), [Terminate]);
    }

    #[test]
    fn request_start_arms_e_and_f() {
        assert_eq!(request(false, &[Start]), [Transmit, Arm(Timer::E, 500), Arm(Timer::F, 32_000)]);
        assert_eq!(request(true, &[Start]), [Transmit, Arm(Timer::F, 32_000)]);
    }

    #[test]
    fn request_timer_e_doubles_up_to_t2_and_is_t2_once_proceeding() {
        let mut inputs = vec![Start];
        for interval_ms in [1_000, 2_000, 4_000, 4_000] {
            inputs.push(Fired(Timer::E));
            assert_eq!(request(false, &inputs), [Transmit, Arm(Timer::E, interval_ms)]);
        }
        let proceeding = [Start, Response(100), Fired(Timer::E)];
        assert_eq!(request(false, &proceeding), [Transmit, Arm(Timer::E, 4_000)]);
    }

    #[test]
    fn request_timer_f_and_transport_error_end_it_in_both_open_states() {
        for open in [vec![Start], vec![Start, Response(100)]] {
            let after = |input| request(false, &[open.clone(), vec![input]].concat());
            assert_eq!(after(Fired(Timer::F)), [TimedOut, Terminate]);
            assert_eq!(after(TransportError), [Unreachable, Terminate]);
        }
    }

    #[test]
    fn request_final_is_delivered_once_and_its_repeats_absorbed() {
        let done = |timer_k_ms| [Disarm(Timer::E), Disarm(Timer::F), Arm(Timer::K, timer_k_ms), Deliver];
        assert_eq!(request(false, &[Start, Response(200)]), done(5_000));
        assert_eq!(request(true, &[Start, Response(100), Response(481)]), done(0));
        assert_eq!(request(false, &[Start, Response(200), Response(200)]), []);
        assert_eq!(request(false, &[Start, Response(200), Fired(Timer::K)]), [Terminate]);
    }
}
