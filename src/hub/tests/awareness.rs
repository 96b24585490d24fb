//! What the legs are told of recording, and what their telephones' wishes do (RFC 7866).

use consent::{Leg, Reason, Side};
use recorder::Command as Media;
use sip_gateway::sdp::{RecordPreference, Recording};
use sip_gateway::{Change, Command as Sip, Event};
use storage::{ElsewhereState, Entry};

use super::{
    CALL, DISPATCH, at, bound, connect, decided, drain, hang_up, hub, offer, proceeded, shared_epoch,
};
use crate::hub::{Hub, Output};

const OFFICE: &str = "7427310";

fn says(hub: &mut Hub, ms: u64, leg: Leg, preference: RecordPreference, trusted: bool) {
    hub.on_gateway(at(ms), Event::Preference { call: CALL, leg, preference, trusted });
}

fn indicated(outputs: &[Output]) -> Vec<Recording> {
    let told = outputs.iter().filter_map(|output| match output {
        Output::Gateway(Sip::Indicate { recording, .. }) => Some(*recording),
        _ => None,
    });
    told.collect()
}

/// A call on which both telephones have asked for a recording, the callee's in its answer.
fn wanted(hub: &mut Hub, trusted: [bool; 2]) -> Vec<Output> {
    hub.on_gateway(at(0), Event::Offered(Box::new(offer(Side::Public, OFFICE))));
    says(hub, 0, Leg::A, RecordPreference::On, trusted[0]);
    bound(hub, at(0));
    hub.on_journalled(at(1), CALL);
    says(hub, 5, Leg::B, RecordPreference::On, trusted[1]);
    hub.on_gateway(at(5), Event::Answered { call: CALL });
    drain(hub)
}

#[test]
fn the_legs_of_a_dispatch_call_are_told_before_its_invite_goes_on() {
    let mut hub = hub();
    let outputs = connect(&mut hub, offer(Side::Public, DISPATCH));
    assert_eq!(indicated(&outputs), [Recording::On]);
    let told = outputs.iter().position(|output| matches!(output, Output::Gateway(Sip::Indicate { .. })));
    let goes_on = outputs.iter().position(|output| proceeded(std::slice::from_ref(output)));
    assert!(told < goes_on, "{outputs:?}");
    says(&mut hub, 9, Leg::A, RecordPreference::Off, true);
    let outputs = drain(&mut hub);
    assert_eq!((indicated(&outputs), decided(&outputs)), (vec![], vec![]), "a dispatch line asks nobody");
    hub.on_media(at(10), recorder::Event::MediaFailed { call: CALL });
    assert_eq!(indicated(&drain(&mut hub)), [], "a second writer may go on");
    hang_up(&mut hub, at(20));
    assert_eq!(indicated(&drain(&mut hub)), [], "nobody is left to be told");
}

#[test]
fn a_call_that_every_telephone_wants_recorded_is_recorded_without_a_question() {
    let mut hub = hub();
    let outputs = wanted(&mut hub, [true, true]);
    assert_eq!((decided(&outputs), indicated(&outputs)), (vec![Reason::AllAgreed], vec![Recording::On]));
    assert!(!outputs.iter().any(|output| matches!(output, Output::Media(Media::StartPreamble { .. }))));
    // Each yes is entered for a party that is on record by then.
    let entries = outputs.iter().filter_map(|output| match output {
        Output::Journal { stamped, .. } => match &stamped.entry {
            Entry::PartyJoined { leg, .. } => Some(("joined", *leg)),
            Entry::Signalled { signal, .. } => Some(("agreed", signal.leg)),
            _ => None,
        },
        _ => None,
    });
    let expected = [("joined", Leg::A), ("agreed", Leg::A), ("joined", Leg::B), ("agreed", Leg::B)];
    assert_eq!(entries.collect::<Vec<_>>(), expected);
    for (ms, change, told) in [(9, Change::Held, Recording::Paused), (11, Change::Resumed, Recording::On)] {
        hub.on_gateway(at(ms), Event::Changed { call: CALL, leg: Leg::A, change });
        assert_eq!(indicated(&drain(&mut hub)), [told]);
    }
}

#[test]
fn a_wish_without_trust_is_no_consent() {
    for trusted in [[true, false], [false, true]] {
        let mut hub = hub();
        let outputs = wanted(&mut hub, trusted);
        assert_eq!((decided(&outputs), indicated(&outputs)), (vec![Reason::Asking], vec![]));
    }
}

#[test]
fn a_telephone_that_refuses_ends_the_recording_whoevers_it_is() {
    for (leg, preference) in [(Leg::A, RecordPreference::Off), (Leg::B, RecordPreference::Pause)] {
        let mut hub = hub();
        let epoch = shared_epoch(&wanted(&mut hub, [true, true]));
        let before = epoch.current();
        says(&mut hub, 9, leg, preference, false);
        assert!(epoch.current() > before, "what is stamped from here on is not covered");
        let outputs = drain(&mut hub);
        assert_eq!((decided(&outputs), indicated(&outputs)), (vec![Reason::Withdrawn], vec![Recording::Off]));
        assert!(outputs.iter().any(|output| matches!(output, Output::Media(Media::Revoke { .. }))));
    }
}

#[test]
fn a_callee_that_answers_with_a_refusal_is_the_party_that_said_no() {
    let mut hub = hub();
    hub.on_gateway(at(0), Event::Offered(Box::new(offer(Side::Public, OFFICE))));
    bound(&mut hub, at(0));
    hub.on_journalled(at(1), CALL);
    says(&mut hub, 5, Leg::B, RecordPreference::Off, false);
    hub.on_gateway(at(5), Event::Answered { call: CALL });
    let outputs = drain(&mut hub);
    assert_eq!(decided(&outputs), [Reason::Asking, Reason::Declined]);
    assert!(!outputs.iter().any(|output| matches!(output, Output::Media(Media::Play { .. }))), "in silence");
}

#[test]
fn what_a_far_end_says_of_its_own_recording_is_on_record_within_bounds() {
    let mut hub = hub();
    connect(&mut hub, offer(Side::Public, OFFICE));
    let states = [Recording::On, Recording::Paused, Recording::Off];
    for (ms, recording) in (9..109).zip(states.into_iter().cycle()) {
        hub.on_gateway(at(ms), Event::Records { call: CALL, leg: Leg::B, recording });
    }
    let outputs = drain(&mut hub);
    let entered = outputs.iter().filter_map(|output| match output {
        Output::Journal { stamped, .. } => match stamped.entry {
            Entry::RecordedElsewhere { leg: Leg::B, state, .. } => Some(state),
            _ => None,
        },
        _ => None,
    });
    let entered: Vec<_> = entered.collect();
    assert_eq!(entered[..3], [ElsewhereState::On, ElsewhereState::Paused, ElsewhereState::Off]);
    assert_eq!(entered.len(), 64);
    assert_eq!(indicated(&outputs), [], "it is nothing that the gateway does");
}
