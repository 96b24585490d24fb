//! The lines that are recorded always, and the calls that are recorded never.

use consent::{
    Arrival, Basis, Direction, EpochCounter, Event, GateState, Joined, Leg, LineClass, Name, Newcomer,
    Notice, PermitId, Reason, RecordingOutcome, Side, SignalMeaning,
};

use crate::stage::{
    ATTORNEY, DISPATCH, Did, NEVER, OFFICE, STRANGER, STUDENT, Stage, UNION_LINE, UNION_NUMBER, facts,
    inbound, known, newcomer,
};

const OPEN: GateState = GateState::Open;
const SHUT: GateState = GateState::Shut;

fn opened_at_once() -> Vec<Did> {
    vec![Did::Open(0, 0, None, None), Did::Decided(OPEN, Reason::DispatchLine)]
}

fn only_shut(reason: Reason) -> Vec<Did> {
    vec![Did::Decided(SHUT, reason)]
}

/// Everything that could make a call recordable, and its end.
fn do_everything(stage: &mut Stage) {
    stage.answer();
    stage.preamble();
    for leg in Leg::BOTH {
        stage.press(leg, '1');
        stage.request(leg);
        stage.played(leg, true);
        stage.hold(leg);
        stage.resume(leg);
        stage.change(leg);
        stage.preamble();
        stage.press(leg, '1');
        stage.withdraw(leg);
    }
    stage.wait_ms(200_000);
    let epoch = stage.raise();
    stage.event(Event::LeftLine { epoch });
    stage.fail(0);
    stage.end();
}

#[test]
fn the_policys_dispatch_number_is_recorded_from_the_first_epoch() {
    let stage = Stage::new(&inbound("+18607427331"));
    assert_eq!(stage.did, opened_at_once());
    assert_eq!(stage.call.class(), LineClass::Dispatch);
    assert_eq!(stage.call.basis(), Some(Basis::DispatchLine));
    assert!(stage.last().clause.contains("52-570d(b)(2)"));
}

#[test]
fn numbers_that_only_resemble_the_dispatch_number_are_not_recorded() {
    for near in ["+12037427331", "+19597427331", "+18607427330"] {
        let mut stage = Stage::new(&inbound(near));
        assert_eq!(stage.did, only_shut(Reason::UnlistedLine), "{near}");
        do_everything(&mut stage);
        assert_eq!(stage.did, only_shut(Reason::UnlistedLine), "{near}");
        assert_eq!(stage.call.recording_outcome(), RecordingOutcome::NeverLine);
        assert_eq!(stage.call.basis(), None);
    }
}

#[test]
fn the_dispatch_line_is_recorded_when_it_calls_out_and_from_inside() {
    for direction in [Direction::Outbound, Direction::Internal] {
        let stage = Stage::new(&facts(direction, &[STRANGER], &[DISPATCH]));
        assert_eq!(stage.did, opened_at_once(), "{direction:?}");
    }
}

#[test]
fn a_caller_that_shows_the_dispatch_number_gets_no_recording() {
    let stage = Stage::new(&facts(Direction::Inbound, &[NEVER], &[DISPATCH]));
    assert_eq!(stage.did, only_shut(Reason::NeverLine));
}

#[test]
fn a_public_peers_diversion_grants_nothing() {
    let stage = Stage::new(&facts(Direction::Inbound, &["+18607427399", DISPATCH, OFFICE], &[STRANGER]));
    assert_eq!(stage.did, only_shut(Reason::UnlistedLine));
}

#[test]
fn a_dispatch_call_is_stored_through_hold_change_doubt_and_withdrawal_until_its_end() {
    let mut stage = Stage::new(&inbound(DISPATCH));
    stage.did.clear();
    stage.answer();
    for leg in Leg::BOTH {
        stage.hold(leg);
        stage.resume(leg);
        stage.change(leg);
        stage.doubt(leg);
        stage.withdraw(leg);
    }
    let ignored = |leg| Did::Heard(leg, SignalMeaning::Withdraw, false);
    assert_eq!(stage.did, [ignored(Leg::A), ignored(Leg::B)]);
    assert_eq!(stage.end(), [Did::Close(0), Did::Decided(SHUT, Reason::Ended)]);
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::Recorded);
    assert_eq!(stage.end(), [], "an end comes once");
}

#[test]
fn a_dispatch_call_that_is_never_answered_keeps_its_early_media() {
    let mut stage = Stage::new(&inbound(DISPATCH));
    assert_eq!(stage.end(), [Did::Close(0), Did::Decided(SHUT, Reason::Ended)]);
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::Recorded);
    assert_eq!(stage.last().parties.len(), 1, "the callee was never on the line");
}

#[test]
fn recording_stops_where_the_call_leaves_the_dispatch_line() {
    let mut stage = Stage::new(&inbound(DISPATCH));
    stage.answer();
    let epoch = stage.raise();
    let did = stage.event(Event::LeftLine { epoch });
    assert_eq!(did, [Did::Close(0), Did::Decided(SHUT, Reason::LeftLine)]);
    assert_eq!(stage.end(), []);
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::PartlyRecorded);
}

#[test]
fn a_recorder_that_fails_on_a_dispatch_line_is_said_once_and_the_permit_lives_on() {
    let mut stage = Stage::new(&inbound(DISPATCH));
    assert_eq!(stage.fail(0), [Did::Decided(SHUT, Reason::RecorderFailed)]);
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::Failed);
    assert_eq!(stage.fail(0), []);
    assert_eq!(stage.end(), [Did::Close(0)]);

    let mut begun = Stage::new(&inbound(DISPATCH));
    begun.event(Event::RecordingStarted { permit: PermitId(0) });
    begun.fail(0);
    assert_eq!(begun.call.recording_outcome(), RecordingOutcome::PartlyRecorded);
}

#[test]
fn union_beats_dispatch_where_both_are_lines_of_the_call() {
    let mut stage = Stage::new(&facts(Direction::Internal, &[DISPATCH], &[UNION_LINE]));
    do_everything(&mut stage);
    assert_eq!(stage.did, only_shut(Reason::Union));
    assert!(stage.call.withholds(stage.call.line_leg().other(), [STRANGER]));
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::UnionLine);
}

#[test]
fn a_dispatch_call_with_a_classified_number_is_stored() {
    for (other, withheld) in [(UNION_NUMBER, true), (ATTORNEY, false), (STUDENT, false)] {
        let stage = Stage::new(&facts(Direction::Inbound, &[DISPATCH], &[other]));
        assert_eq!(stage.did, opened_at_once());
        assert_eq!(stage.call.withholds(Leg::A, [other]), withheld);
    }
}

/// F22: union conversations are never recordable, even with consent.
#[test]
fn f22_a_union_line_or_number_is_not_recorded_whatever_anybody_presses() {
    for facts in [
        inbound(UNION_LINE),
        facts(Direction::Outbound, &[UNION_NUMBER], &[OFFICE]),
        facts(Direction::Inbound, &[OFFICE], &[UNION_NUMBER]),
        facts(Direction::Inbound, &[OFFICE], &[UNION_LINE]),
        facts(Direction::Inbound, &[NEVER], &[UNION_NUMBER]),
    ] {
        let mut stage = Stage::new(&facts);
        do_everything(&mut stage);
        assert_eq!(stage.did, only_shut(Reason::Union));
        assert!(stage.call.withholds(stage.call.line_leg().other(), [STRANGER]));
        assert_eq!(stage.call.recording_outcome(), RecordingOutcome::UnionLine);
        assert_eq!(stage.call.basis(), None);
        assert!(stage.last().clause.contains("cl. 9"));
    }
}

#[test]
fn what_bars_a_call_is_said_once_and_nothing_else_is_ever_done() {
    let emergency = consent::CallFacts { emergency: true, ..inbound(DISPATCH) };
    for (facts, reason, outcome) in [
        (emergency, Reason::Emergency, RecordingOutcome::Emergency),
        (inbound(NEVER), Reason::NeverLine, RecordingOutcome::NeverLine),
        (inbound("service"), Reason::UnlistedLine, RecordingOutcome::NeverLine),
        (
            facts(Direction::Outbound, &[ATTORNEY], &[OFFICE]),
            Reason::Privileged,
            RecordingOutcome::NotPermitted,
        ),
        (facts(Direction::Inbound, &[OFFICE], &[STUDENT]), Reason::Student, RecordingOutcome::NotPermitted),
    ] {
        let mut stage = Stage::new(&facts);
        do_everything(&mut stage);
        assert_eq!(stage.did, only_shut(reason));
        assert_eq!(stage.call.recording_outcome(), outcome);
        assert_eq!(stage.call.poll_timeout(), None);
        assert!(!stage.last().otherwise.is_empty() && !stage.last().evidence.is_empty());
    }
}

#[test]
fn no_notice_is_played_on_a_dispatch_line() {
    let mut stage = Stage::new(&inbound(DISPATCH));
    do_everything(&mut stage);
    assert!(!stage.did.iter().any(|did| matches!(did, Did::Play(_, Notice::Question | Notice::Recording))));
    assert_eq!(stage.decisions.len(), 2);
    assert_eq!(stage.decisions[1].reason, Reason::LeftLine);
    assert!(stage.call.line().is_some_and(|line| line.class == LineClass::Dispatch));
}

#[test]
fn only_another_lines_class_ends_a_dispatch_recording() {
    let mut stage = Stage::new(&inbound(DISPATCH));
    for number in [UNION_NUMBER, ATTORNEY, STUDENT, STRANGER, DISPATCH] {
        assert_eq!(
            stage.call.arrival(Leg::A, &newcomer(&[Name::known(number)])),
            Arrival::Change,
            "{number}"
        );
    }
    assert_eq!(
        stage.call.arrival(Leg::A, &newcomer(&[Name::known(NEVER)])),
        Arrival::Barred(Reason::NeverLine)
    );
    let epoch = stage.raise();
    let did = stage.event(Event::Barred { leg: Leg::A, epoch, reason: Reason::NeverLine });
    assert_eq!(did, [Did::Close(0), Did::Decided(GateState::Shut, Reason::NeverLine)]);
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::PartlyRecorded);
}

/// A PBX shows its main number in place of an extension: whoever is dialled, asserted and in From all count.
#[test]
fn every_name_of_a_newcomer_counts() {
    let dispatch = Stage::new(&inbound(DISPATCH));
    let office = Stage::new(&inbound(OFFICE));
    let main = STRANGER;
    let line = dispatch.call.line_leg();
    for (names, on_dispatch, on_office) in [
        (&[main, DISPATCH][..], Arrival::Change, Arrival::Change),
        (&[main, OFFICE], Arrival::OffLine, Arrival::Change),
        (&[main, UNION_LINE], Arrival::OffLine, Arrival::Barred(Reason::Union)),
        (&[DISPATCH, NEVER], Arrival::Barred(Reason::NeverLine), Arrival::Barred(Reason::NeverLine)),
        (&[STUDENT, ATTORNEY], Arrival::OffLine, Arrival::Barred(Reason::Privileged)),
        (&[NEVER, UNION_NUMBER], Arrival::OffLine, Arrival::Barred(Reason::Union)),
        (&[], Arrival::OffLine, Arrival::Change),
    ] {
        assert_eq!(dispatch.call.arrival(line, &newcomer(&known(names))), on_dispatch, "{names:?}");
        assert_eq!(office.call.arrival(Leg::B, &newcomer(&known(names))), on_office, "{names:?}");
    }
    let written = [Name::known(OFFICE), Name::said(DISPATCH)];
    assert_eq!(
        dispatch.call.arrival(line, &newcomer(&written)),
        Arrival::OffLine,
        "whoever writes that From"
    );
    let of_another = [Name::known("7427331;phone-context=town-b.example")];
    assert_eq!(
        dispatch.call.arrival(line, &newcomer(&of_another)),
        Arrival::OffLine,
        "another town's number"
    );
    let barred = [Name::known(OFFICE), Name::said(NEVER)];
    assert_eq!(office.call.arrival(Leg::B, &newcomer(&barred)), Arrival::Barred(Reason::NeverLine));
    let (named, service) = ([Name::known(DISPATCH)], [Name::known("911")]);
    let public = Newcomer { side: Side::Public, ..newcomer(&named) };
    assert_eq!(dispatch.call.arrival(line, &public), Arrival::OffLine, "a public peer's word grants nothing");
    let emergency = Newcomer { side: Side::Public, emergency: true, ..newcomer(&service) };
    assert_eq!(dispatch.call.arrival(line, &emergency), Arrival::OffLine);
    assert_eq!(dispatch.call.arrival(line.other(), &emergency), Arrival::Change);
    assert_eq!(office.call.arrival(Leg::B, &emergency), Arrival::Barred(Reason::Emergency));
}

/// F3: a first Contact of a 3xx that is off the line, or a transfer there and back, costs no more than that.
#[test]
fn a_call_that_comes_back_to_a_dispatch_line_is_stored_again() {
    for answered in [false, true] {
        let mut stage = Stage::new(&inbound(DISPATCH));
        if answered {
            stage.answer();
        }
        let counter = EpochCounter::default();
        let line = stage.call.line_leg();
        let mut comes = |leg, name| {
            let arrival = stage.call.arrival(leg, &newcomer(&[Name::known(name)]));
            let event = arrival.begin(leg, &counter);
            (arrival, stage.event(event))
        };
        let left = [Did::Close(0), Did::Decided(SHUT, Reason::LeftLine)];
        assert_eq!(comes(line, OFFICE), (Arrival::OffLine, left.to_vec()));
        assert_eq!(comes(line.other(), NEVER), (Arrival::Barred(Reason::NeverLine), vec![]));
        assert_eq!(comes(line, DISPATCH), (Arrival::Change, vec![]), "with that caller nothing is stored");
        let (arrival, did) = comes(line.other(), STRANGER);
        assert_eq!(arrival, Arrival::OnLine);
        assert_eq!(did.last(), Some(&Did::Decided(OPEN, Reason::DispatchLine)));
        assert!(matches!(did[0], Did::Open(1, first, None, None) if first == counter.current().0), "{did:?}");
        let outcome = if answered { RecordingOutcome::PartlyRecorded } else { RecordingOutcome::Recorded };
        assert_eq!(stage.call.recording_outcome(), outcome);
        assert_eq!(stage.end(), [Did::Close(1), Did::Decided(SHUT, Reason::Ended)]);
    }
}

#[test]
fn a_union_partys_number_is_withheld_wherever_it_comes_and_the_lines_own_never() {
    let mut stage = Stage::new(&inbound(DISPATCH));
    stage.answer();
    let (line, other) = (stage.call.line_leg(), stage.call.line_leg().other());
    for names in [&[UNION_NUMBER][..], &[STRANGER, UNION_NUMBER], &[UNION_LINE]] {
        assert!(
            stage.call.withholds(other, names.iter().copied())
                && stage.call.withholds(line, names.iter().copied()),
            "{names:?}"
        );
    }
    assert!(!stage.call.withholds(other, [STRANGER, ATTORNEY, DISPATCH]), "none has come yet");
    assert_eq!(stage.call.join(other, [STRANGER, UNION_NUMBER]), Joined { ordinal: 1, withheld: true });
    assert_eq!(stage.call.join(other, [STRANGER]), Joined { ordinal: 2, withheld: true }, "perhaps the same");
    assert_eq!(stage.call.join(line, [OFFICE]), Joined { ordinal: 1, withheld: false });

    let mut union = Stage::new(&inbound(UNION_LINE));
    assert_eq!(union.call.join(union.call.line_leg(), [UNION_LINE]), Joined { ordinal: 0, withheld: false });
    assert!(union.call.withholds(union.call.line_leg().other(), [STRANGER]));
}

/// A PBX that shows its main number for the union line that a transfer has called.
#[test]
fn another_identity_alone_brings_no_call_back_to_its_line() {
    let mut stage = Stage::new(&inbound(DISPATCH));
    stage.answer();
    let counter = EpochCounter::default();
    let (line, caller) = (stage.call.line_leg(), stage.call.line_leg().other());
    let shown = |name| Newcomer { same_dialog: true, ..newcomer(name) };
    for (leg, who, arrival) in [
        (caller, newcomer(&[Name::known(UNION_LINE)]), Arrival::Barred(Reason::Union)),
        (caller, shown(&[Name::known(STRANGER)]), Arrival::Doubt),
        (line, shown(&[Name::known(DISPATCH)]), Arrival::Change),
        (line, newcomer(&[Name::known(DISPATCH)]), Arrival::Change),
    ] {
        assert_eq!(stage.call.arrival(leg, &who), arrival);
        stage.did.clear();
        stage.event(arrival.begin(leg, &counter));
        assert!(!stage.did.iter().any(|did| matches!(did, Did::Open(..))));
    }
    assert_eq!(stage.call.arrival(caller, &newcomer(&[Name::known(STRANGER)])), Arrival::OnLine);
}
