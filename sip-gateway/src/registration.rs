//! Our registration with one peer (RFC 3261 §10.2), as a machine without clock, messages and chance: all three
//! are told.
//!
//! | state | input | effect | next |
//! |---|---|---|---|
//! | Idle | due | REGISTER | Registering |
//! | Registering, Refreshing | 2xx that lists our Contact, or no Contact at all | keep what it grants; due after 80 to 90 % of it | Registered |
//! | Registering, Refreshing | 2xx that lists only others | no binding; due after the wait | Waiting |
//! | Registering, Refreshing | 423 with a longer Min-Expires, the first in a row | REGISTER for so long | the same |
//! | Registering, Refreshing | 3xx, any other 4xx but 408, 6xx | no binding; due after the wait | Waiting |
//! | Registering, Refreshing | 408, 5xx, no answer, transport lost | due after the wait | Waiting |
//! | Registered | due | REGISTER | Refreshing |
//! | Registered | its stream is lost | due after the wait | Waiting |
//! | Waiting | due | REGISTER | Refreshing if a binding stands, else Registering |
//! | Registered, Waiting with a binding | leave | REGISTER for 0 s | Unregistering |
//! | Idle, Waiting without one | leave | rest | Idle |
//! | Registering, Refreshing | leave | (§10.2: not before its answer) | the same |
//! | Registering, Refreshing, leaving | 2xx | REGISTER for 0 s | Unregistering |
//! | Registering, Refreshing, leaving | anything else | rest | Idle |
//! | Unregistering | any answer, or none | rest | Idle |
//!
//! 401 and 407 come here only when our credentials have no answer to them (`digest`): they are 4xx. A 3xx is
//! not followed: a peer is whom the configuration names. The wait is RFC 5626 §4.5's: half to the whole of
//! 30 s doubled with each failure in a row, at most half an hour, and no shorter than Retry-After.

use consent::Mono;

use crate::wire::{Headers, NameAddr, Response, Uri, delta_seconds, name};

/// RFC 5626 §4.5, where all registrations of a set have failed: there is one.
const BASE_WAIT_MS: u64 = 30_000;

/// RFC 5626 §4.5.
const MAX_WAIT_MS: u64 = 1_800_000;

/// The longest Retry-After that is honoured.
const MAX_RETRY_AFTER_S: u32 = 3_600;

/// The longest that a registrar may grant, or demand.
const MAX_EXPIRES_S: u32 = 86_400;

/// When a binding is refreshed, in thousandths of what was granted. The rest leaves time for the 32 s of a
/// REGISTER that is lost; the spread keeps gateways that started together apart.
const REFRESH_PERMILLE: [u64; 2] = [800, 900];

/// Routes kept; a registrar that gives more gives none.
const MAX_ROUTES: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    Registering,
    Registered,
    Refreshing,
    Waiting,
    Unregistering,
}

/// What the machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// What it waited for is due.
    Due,
    /// The registrar's final answer.
    Answered(Answer),
    /// No answer came, or there is no way to the registrar.
    Unanswered,
    /// The stream on which the registrar was last heard is gone.
    StreamLost,
    /// The gateway leaves.
    Leave,
}

/// What the machine wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Send a REGISTER that asks for this long; 0 ends the binding.
    Register { expires_s: u32 },
    /// Tell [`Input::Due`] after this long.
    Wait { ms: u64 },
    /// Nothing more is due.
    Rest,
}

/// What a registrar answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Of a 2xx that lists our Contact.
    pub(crate) grant: Option<Grant>,
    pub(crate) min_expires_s: Option<u32>,
    pub(crate) retry_after_s: Option<u32>,
}

/// What a 2xx grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) expires_s: u32,
    /// Service-Route as received (RFC 3608 §5): the way of the requests that open dialogs.
    pub(crate) service_route: Vec<String>,
    /// Path as received (RFC 3327 §5.1): the way of what the registrar's side sends us.
    pub(crate) path: Vec<String>,
}

/// A binding that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Binding {
    until: Mono,
    grant: Grant,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Registration {
    state: State,
    /// What is asked for: as configured, or what the registrar demands.
    asked_s: u32,
    /// Whether the registrar has just demanded more.
    lengthened: bool,
    /// Failures in a row.
    failures: u32,
    binding: Option<Binding>,
    leaving: bool,
}

impl Registration {
    /// One that has yet to be told that it is due; asks for `expires_s`.
    pub(crate) const fn new(expires_s: u32) -> Self {
        Self {
            state: State::Idle,
            asked_s: expires_s,
            lengthened: false,
            failures: 0,
            binding: None,
            leaving: false,
        }
    }

    pub(crate) const fn state(&self) -> State {
        self.state
    }

    /// What the registrar granted, while it stands.
    pub(crate) fn grant(&self, now: Mono) -> Option<&Grant> {
        self.binding.as_ref().filter(|binding| now < binding.until).map(|binding| &binding.grant)
    }

    /// Takes an input; `None` if it changes nothing. `draw` is an even draw.
    pub(crate) fn on(&mut self, now: Mono, draw: u64, input: Input) -> Option<Effect> {
        self.leaving |= input == Input::Leave;
        match (self.state, input) {
            (State::Idle | State::Registered | State::Waiting, Input::Due) if !self.leaving => {
                Some(self.register(now))
            }
            (State::Registering | State::Refreshing, Input::Answered(answer)) => {
                Some(self.on_answer(now, draw, answer))
            }
            (State::Registering | State::Refreshing, Input::Unanswered) => Some(self.wait(draw, None)),
            (State::Registered, Input::StreamLost) => {
                self.state = State::Waiting;
                Some(self.wait_for(draw, None))
            }
            (State::Idle | State::Registered | State::Waiting, Input::Leave) => Some(self.unregister(now)),
            (State::Unregistering, Input::Answered(_) | Input::Unanswered) => Some(self.rest()),
            _ => None,
        }
    }

    fn on_answer(&mut self, now: Mono, draw: u64, answer: Answer) -> Effect {
        match (answer.status, answer.grant) {
            (200..=299, Some(grant)) => self.on_grant(now, draw, grant),
            (423, _) if !self.lengthened && self.is_longer(answer.min_expires_s) => {
                self.asked_s = answer.min_expires_s.unwrap_or(self.asked_s);
                self.lengthened = true;
                Effect::Register { expires_s: self.asked_s }
            }
            (408 | 500..=599, _) => self.wait(draw, answer.retry_after_s),
            _ => {
                self.binding = None;
                self.wait(draw, answer.retry_after_s)
            }
        }
    }

    fn on_grant(&mut self, now: Mono, draw: u64, grant: Grant) -> Effect {
        let granted_ms = u64::from(grant.expires_s) * 1_000;
        self.binding = Some(Binding { until: now.plus_ms(granted_ms), grant });
        self.failures = 0;
        self.lengthened = false;
        if self.leaving {
            return self.unregister(now);
        }
        self.state = State::Registered;
        Effect::Wait { ms: granted_ms * between(REFRESH_PERMILLE, draw) / 1_000 }
    }

    fn is_longer(&self, min_expires_s: Option<u32>) -> bool {
        min_expires_s.is_some_and(|min| min > self.asked_s && min <= MAX_EXPIRES_S)
    }

    fn register(&mut self, now: Mono) -> Effect {
        self.state = if self.grant(now).is_some() { State::Refreshing } else { State::Registering };
        Effect::Register { expires_s: self.asked_s }
    }

    /// After a failure.
    fn wait(&mut self, draw: u64, retry_after_s: Option<u32>) -> Effect {
        if self.leaving {
            return self.rest();
        }
        self.failures = self.failures.saturating_add(1);
        self.lengthened = false;
        self.state = State::Waiting;
        self.wait_for(draw, retry_after_s)
    }

    fn wait_for(&self, draw: u64, retry_after_s: Option<u32>) -> Effect {
        let most_ms = BASE_WAIT_MS.checked_shl(self.failures).map_or(MAX_WAIT_MS, |ms| ms.min(MAX_WAIT_MS));
        let ms = most_ms * between([500, 1_000], draw) / 1_000;
        let asked_ms = u64::from(retry_after_s.unwrap_or_default().min(MAX_RETRY_AFTER_S)) * 1_000;
        Effect::Wait { ms: ms.max(asked_ms) }
    }

    fn unregister(&mut self, now: Mono) -> Effect {
        if self.grant(now).is_none() {
            return self.rest();
        }
        self.state = State::Unregistering;
        Effect::Register { expires_s: 0 }
    }

    fn rest(&mut self) -> Effect {
        self.state = State::Idle;
        self.binding = None;
        Effect::Rest
    }
}

/// Evenly between two values.
fn between([low, high]: [u64; 2], draw: u64) -> u64 {
    low + draw % (high - low + 1)
}

impl Answer {
    /// Reads a response to a REGISTER that bound `contact` and asked for `asked_s`.
    pub(crate) fn read(response: &Response, contact: &str, asked_s: u32) -> Self {
        let headers = &response.headers;
        let granted = (200..=299).contains(&response.status);
        Self {
            status: response.status,
            grant: granted.then(|| Grant::read(headers, contact, asked_s)).flatten(),
            min_expires_s: headers.first(MIN_EXPIRES).and_then(delta_seconds),
            retry_after_s: headers.first(name::RETRY_AFTER).and_then(delta_seconds),
        }
    }
}

const MIN_EXPIRES: &str = "Min-Expires";
const SERVICE_ROUTE: &str = "Service-Route";
const PATH: &str = "Path";

impl Grant {
    /// RFC 3261 §10.2.4: the expiry of our Contact, else of the whole, else what was asked for.
    fn read(headers: &Headers, contact: &str, asked_s: u32) -> Option<Self> {
        let whole = headers.first(name::EXPIRES).and_then(delta_seconds);
        let own = match headers.contains(name::CONTACT) {
            true => {
                let ours = headers.list(name::CONTACT).filter_map(|known| NameAddr::parse(known).ok());
                ours.into_iter().find(|known| is_same(known.uri, contact))?.params.get("expires")
            }
            false => None,
        };
        let expires_s = own.and_then(delta_seconds).or(whole).unwrap_or(asked_s).min(MAX_EXPIRES_S);
        (expires_s > 0).then(|| Self {
            expires_s,
            service_route: routes(headers, SERVICE_ROUTE),
            path: routes(headers, PATH),
        })
    }
}

/// Whether two Contacts are ours (RFC 3261 §19.1.4 as far as we write them): user, host and port. A
/// registrar may add parameters.
fn is_same(one: &str, other: &str) -> bool {
    match (Uri::parse(one), Uri::parse(other)) {
        (Ok(Uri::Sip(one)), Ok(Uri::Sip(other))) => {
            one.user == other.user
                && one.host.eq_ignore_ascii_case(other.host)
                && one.port_or_usual() == other.port_or_usual()
        }
        _ => false,
    }
}

fn routes(headers: &Headers, field: &str) -> Vec<String> {
    let found: Vec<String> = headers.list(field).map(str::to_owned).take(MAX_ROUTES + 1).collect();
    let whole = found.len() <= MAX_ROUTES && found.iter().all(|route| NameAddr::parse(route).is_ok());
    if whole { found } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "tests")]

    use super::*;

    const NOW: Mono = Mono(50_000_000);
    const CONTACT: &str = "sip:trunk@10.0.0.1:5060";

    fn granted(expires_s: u32) -> Input {
        let grant = Some(Grant { expires_s, ..Grant::default() });
        Input::Answered(Answer { status: 200, grant, min_expires_s: None, retry_after_s: None })
    }

    fn failed(status: u16) -> Input {
        Input::Answered(Answer { status, grant: None, min_expires_s: None, retry_after_s: None })
    }

    fn too_brief(min_expires_s: u32) -> Input {
        let min_expires_s = Some(min_expires_s);
        Input::Answered(Answer { status: 423, grant: None, min_expires_s, retry_after_s: None })
    }

    /// A machine in a state, with a binding of 600 s in all that have one.
    fn machine(state: State) -> Registration {
        let mut machine = Registration::new(600);
        let inputs: &[Input] = match state {
            State::Idle => &[],
            State::Registering => &[Input::Due],
            State::Registered => &[Input::Due, granted(600)],
            State::Refreshing => &[Input::Due, granted(600), Input::Due],
            State::Waiting => &[Input::Due, granted(600), Input::Due, Input::Unanswered],
            State::Unregistering => &[Input::Due, granted(600), Input::Leave],
        };
        for input in inputs {
            machine.on(NOW, 0, input.clone());
        }
        assert_eq!(machine.state(), state);
        machine
    }

    /// The effect and the next state of one input, and whether a binding stands.
    fn step(state: State, input: Input) -> (Option<Effect>, State, bool) {
        let mut machine = machine(state);
        let effect = machine.on(NOW, 0, input);
        (effect, machine.state(), machine.grant(NOW).is_some())
    }

    fn register(expires_s: u32) -> Option<Effect> {
        Some(Effect::Register { expires_s })
    }

    fn wait_s(seconds: u64) -> Option<Effect> {
        Some(Effect::Wait { ms: seconds * 1_000 })
    }

    #[test]
    fn what_is_due_is_sent() {
        assert_eq!(step(State::Idle, Input::Due), (register(600), State::Registering, false));
        assert_eq!(step(State::Registered, Input::Due), (register(600), State::Refreshing, true));
        assert_eq!(step(State::Waiting, Input::Due), (register(600), State::Refreshing, true));
        let mut lapsed = machine(State::Waiting);
        assert_eq!(lapsed.on(NOW.plus_ms(600_000), 0, Input::Due), register(600));
        assert_eq!(lapsed.state(), State::Registering);
    }

    #[test]
    fn a_grant_is_refreshed_after_80_to_90_percent_of_it() {
        for state in [State::Registering, State::Refreshing] {
            assert_eq!(step(state, granted(100)), (wait_s(80), State::Registered, true));
        }
        let mut latest = 0;
        for draw in 0..1_000 {
            let Some(Effect::Wait { ms }) = machine(State::Registering).on(NOW, draw, granted(100)) else {
                panic!("no refresh")
            };
            assert!((80_000..=90_000).contains(&ms));
            latest = latest.max(ms);
        }
        assert_eq!(latest, 90_000);
        let mut machine = machine(State::Registering);
        machine.on(NOW, 0, granted(100));
        assert!(
            machine.grant(NOW.plus_ms(99_999)).is_some() && machine.grant(NOW.plus_ms(100_000)).is_none()
        );
    }

    #[test]
    fn a_longer_minimum_is_asked_for_once_and_kept() {
        for state in [State::Registering, State::Refreshing] {
            assert_eq!(step(state, too_brief(900)).0, register(900));
            assert_eq!(step(state, too_brief(900)).1, state);
            for odd in [too_brief(600), too_brief(86_401), failed(423)] {
                assert_eq!(step(state, odd), (wait_s(30), State::Waiting, false));
            }
        }
        let mut machine = machine(State::Registering);
        machine.on(NOW, 0, too_brief(900));
        assert_eq!(machine.on(NOW, 0, too_brief(901)), wait_s(30), "no registrar drives us round and round");
        machine.on(NOW, 0, Input::Due);
        machine.on(NOW, 0, granted(900));
        assert_eq!(machine.on(NOW, 0, Input::Due), register(900));
    }

    #[test]
    fn a_refusal_ends_the_binding_and_is_tried_again_later() {
        for status in [200, 301, 302, 400, 401, 403, 404, 407, 486, 600, 603] {
            for state in [State::Registering, State::Refreshing] {
                assert_eq!(step(state, failed(status)), (wait_s(30), State::Waiting, false), "{status}");
            }
        }
    }

    #[test]
    fn an_outage_leaves_the_binding_until_it_expires() {
        for input in [failed(408), failed(500), failed(503), Input::Unanswered] {
            assert_eq!(step(State::Registering, input.clone()), (wait_s(30), State::Waiting, false));
            assert_eq!(step(State::Refreshing, input), (wait_s(30), State::Waiting, true));
        }
        assert_eq!(step(State::Registered, Input::StreamLost), (wait_s(15), State::Waiting, true));
    }

    /// RFC 5626 §4.5.
    #[test]
    fn waits_double_up_to_half_an_hour_and_start_over_after_success() {
        let mut machine = machine(State::Registering);
        let mut waits = Vec::new();
        for _ in 0..9 {
            let Some(Effect::Wait { ms }) = machine.on(NOW, 500, failed(403)) else { panic!("no wait") };
            waits.push(ms / 1_000);
            machine.on(NOW, 0, Input::Due);
        }
        assert_eq!(waits, [60, 120, 240, 480, 960, 1_800, 1_800, 1_800, 1_800]);
        machine.on(NOW, 0, granted(600));
        machine.on(NOW, 0, Input::Due);
        assert_eq!(machine.on(NOW, 0, failed(403)), wait_s(30));
        machine.failures = u32::MAX;
        assert_eq!(machine.wait_for(500, None), Effect::Wait { ms: MAX_WAIT_MS });
    }

    #[test]
    fn retry_after_is_the_least_wait_within_reason() {
        let later = |seconds| {
            let retry_after_s = Some(seconds);
            let answer = Answer { status: 503, grant: None, min_expires_s: None, retry_after_s };
            step(State::Registering, Input::Answered(answer)).0
        };
        assert_eq!((later(5), later(120), later(u32::MAX)), (wait_s(30), wait_s(120), wait_s(3_600)));
    }

    #[test]
    fn leaving_ends_the_binding_once_the_last_answer_is_there() {
        assert_eq!(step(State::Registered, Input::Leave), (register(0), State::Unregistering, true));
        assert_eq!(step(State::Waiting, Input::Leave), (register(0), State::Unregistering, true));
        assert_eq!(step(State::Idle, Input::Leave), (Some(Effect::Rest), State::Idle, false));
        for state in [State::Registering, State::Refreshing] {
            assert_eq!(step(state, Input::Leave).0, None);
            let mut answered = machine(state);
            answered.on(NOW, 0, Input::Leave);
            assert_eq!(answered.on(NOW, 0, granted(600)), register(0));
            assert_eq!(answered.state(), State::Unregistering);
            let mut refused = machine(state);
            refused.on(NOW, 0, Input::Leave);
            assert_eq!(refused.on(NOW, 0, failed(403)), Some(Effect::Rest));
            assert_eq!(refused.on(NOW, 0, Input::Due), None, "nothing registers a gateway that leaves");
        }
        for input in [granted(1), failed(403), Input::Unanswered] {
            assert_eq!(step(State::Unregistering, input), (Some(Effect::Rest), State::Idle, false));
        }
    }

    #[test]
    fn whatever_has_no_row_changes_nothing() {
        for (state, input) in [
            (State::Idle, granted(600)),
            (State::Idle, Input::StreamLost),
            (State::Registering, Input::Due),
            (State::Registering, Input::StreamLost),
            (State::Registered, granted(9)),
            (State::Registered, Input::Unanswered),
            (State::Waiting, failed(403)),
            (State::Waiting, Input::StreamLost),
            (State::Unregistering, Input::Due),
            (State::Unregistering, Input::Leave),
        ] {
            let before = machine(state).binding;
            let mut after = machine(state);
            assert_eq!(after.on(NOW, 0, input), None);
            assert_eq!((after.state(), after.binding), (state, before));
        }
    }

    fn answer(status: u16, fields: &[(&str, &str)]) -> Answer {
        let mut response = Response::new(status);
        for (name, value) in fields {
            response.headers.push(name, *value);
        }
        Answer::read(&response, CONTACT, 600)
    }

    fn expires_s(fields: &[(&str, &str)]) -> Option<u32> {
        answer(200, fields).grant.map(|grant| grant.expires_s)
    }

    #[test]
    fn our_contacts_expiry_counts_then_the_whole_then_what_was_asked() {
        let others = "<sip:other@10.0.0.1:5060>;expires=7, \"x\" <sip:trunk@10.0.0.1;ob>;q=1;expires=55";
        assert_eq!(expires_s(&[("Contact", others), ("Expires", "99")]), Some(55));
        assert_eq!(expires_s(&[("Contact", "<sip:trunk@10.0.0.1:5060>"), ("Expires", "99")]), Some(99));
        assert_eq!(expires_s(&[("Contact", "<sip:trunk@10.0.0.1:5060>")]), Some(600));
        assert_eq!(expires_s(&[]), Some(600));
        assert_eq!(expires_s(&[("Expires", "4294967295")]), Some(MAX_EXPIRES_S));
        let not_ours = [
            "<sip:trunk@10.0.0.2:5060>",
            "<sip:trunk@10.0.0.1:5070>",
            "<sip:other@10.0.0.1>",
            "<tel:+1>",
            "*",
            "<sip:trunk@10.0.0.1:5060>;expires=0",
        ];
        for contact in not_ours {
            assert_eq!(expires_s(&[("Contact", contact)]), None, "{contact}");
        }
    }

    /// RFC 3608 §5, RFC 3327 §5.1.
    #[test]
    fn routes_are_kept_as_received_or_not_at_all() {
        let route = "<sip:p1.example;lr>, <sip:p2.example;lr>;x=\"a,b\"";
        let fields = [("Service-Route", route), ("Path", "<sip:edge.example;lr;ob>"), ("path", "<sip:b;lr>")];
        let Some(grant) = answer(200, &fields).grant else { panic!("no grant") };
        assert_eq!(grant.service_route, ["<sip:p1.example;lr>", "<sip:p2.example;lr>;x=\"a,b\""]);
        assert_eq!(grant.path, ["<sip:edge.example;lr;ob>", "<sip:b;lr>"]);
        let many = vec!["<sip:p;lr>"; 17].join(",");
        for odd in ["<sip:p1.example", many.as_str()] {
            let grant = answer(200, &[("Service-Route", odd)]).grant;
            assert_eq!(grant.map(|grant| grant.service_route), Some(Vec::new()));
        }
    }

    #[test]
    fn only_a_success_grants_anything() {
        let failure = answer(503, &[("Expires", "60"), ("Retry-After", "17 (maintenance)")]);
        assert_eq!((failure.grant, failure.retry_after_s), (None, Some(17)));
        assert_eq!(answer(423, &[("Min-Expires", "1800")]).min_expires_s, Some(1_800));
    }
}
