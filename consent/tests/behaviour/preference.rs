//! What telephones say of recording (`a=recordpref`, RFC 7866), row by row of the machine's table.

use consent::{
    CallFacts, Direction, Epoch, Event, GateState, Leg, Notice, PartyConsent, Preference, Reason,
    RecordingOutcome, SignalMeaning,
};

use crate::stage::{
    DISPATCH, Did, NEVER, OFFICE, ON_REQUEST, SIGNALLED, STRANGER, Stage, UNION_NUMBER, facts, inbound,
};

const OPEN: GateState = GateState::Open;
const SHUT: GateState = GateState::Shut;
const A: Leg = Leg::A;
const B: Leg = Leg::B;

const ON: Preference = Preference::Recording { trusted: true };
const UNTRUSTED: Preference = Preference::Recording { trusted: false };

fn prefers(stage: &mut Stage, leg: Leg, preference: Preference) -> Vec<Did> {
    stage.arrive(leg);
    let refuses = preference == Preference::NoRecording;
    let epoch = if refuses { stage.raise() } else { Epoch(stage.epoch) };
    stage.event(Event::Preferred { leg, preference, epoch })
}

fn agreed(leg: Leg) -> Did {
    Did::Heard(leg, SignalMeaning::Accept, true)
}

fn noted(leg: Leg) -> Did {
    Did::Heard(leg, SignalMeaning::Accept, false)
}

fn both(notice: Notice) -> Vec<Did> {
    vec![Did::Play(A, notice), Did::Play(B, notice)]
}

/// The gate opens for this epoch, without a question.
fn opening(epoch: u32) -> Vec<Did> {
    let mut did =
        vec![Did::Open(0, epoch, Some(epoch), None), Did::Swallow(A, false), Did::Swallow(B, false)];
    did.extend(both(Notice::Recording));
    did.push(Did::Decided(OPEN, Reason::AllAgreed));
    did
}

fn consents(stage: &Stage) -> Vec<PartyConsent> {
    stage.last().parties.iter().map(|party| party.consent).collect()
}

/// A call to this line on which both telephones have asked for a recording before the answer.
fn both_prefer(line: &str) -> Stage {
    let mut stage = Stage::new(&inbound(line));
    assert_eq!(prefers(&mut stage, A, ON), [agreed(A)]);
    assert_eq!(prefers(&mut stage, B, ON), [agreed(B)]);
    stage
}

#[test]
fn where_every_telephone_asks_for_a_recording_nobody_is_asked() {
    for line in [OFFICE, ON_REQUEST, SIGNALLED] {
        let mut stage = both_prefer(line);
        assert_eq!(stage.answer(), opening(1), "{line}");
        assert_eq!(consents(&stage), [PartyConsent::Given; 2]);
        let evidence: Vec<_> = stage.last().evidence.iter().map(|evidence| evidence.leg).collect();
        assert_eq!(evidence, [Some(A), Some(B)], "each telephone's word is what the decision rests on");
        assert_eq!(stage.end(), [Did::Close(0), Did::Decided(SHUT, Reason::Ended)]);
        assert_eq!(stage.call.recording_outcome(), RecordingOutcome::Recorded);
    }
}

#[test]
fn a_signalled_only_line_waits_for_the_last_telephone_and_never_asks() {
    let mut stage = Stage::new(&inbound(SIGNALLED));
    prefers(&mut stage, A, ON);
    assert_eq!(stage.answer(), [Did::Decided(SHUT, Reason::NotRequested)]);
    assert_eq!(prefers(&mut stage, A, ON), [], "said again");
    let mut did = vec![agreed(B)];
    did.extend(opening(1));
    assert_eq!(prefers(&mut stage, B, ON), did);
}

#[test]
fn who_is_not_trusted_to_speak_for_its_party_is_asked_like_anybody() {
    for line in [OFFICE, SIGNALLED] {
        let mut stage = Stage::new(&inbound(line));
        assert_eq!(prefers(&mut stage, A, UNTRUSTED), [noted(A)]);
        prefers(&mut stage, B, ON);
        let answered = stage.answer();
        assert!(!answered.iter().any(|did| matches!(did, Did::Open(..))), "{line}");
        assert_eq!(prefers(&mut stage, A, UNTRUSTED), [noted(A)]);
        let did = stage.preamble();
        let asked = [Did::Swallow(A, true), Did::Play(A, Notice::Question)];
        assert_eq!(did, if line == OFFICE { &asked[..] } else { &[] }, "{line}");
    }
}

#[test]
fn who_has_asked_for_it_is_not_asked_and_the_other_is() {
    let mut stage = Stage::office();
    prefers(&mut stage, B, ON);
    assert_eq!(stage.answer(), [Did::StartPreamble(1), Did::Decided(SHUT, Reason::Asking)]);
    assert_eq!(stage.preamble(), [Did::Swallow(A, true), Did::Play(A, Notice::Question)]);
    assert_eq!(consents(&stage), [PartyConsent::NotAsked, PartyConsent::Given]);
    let did = stage.press(A, '1');
    assert_eq!(did.last(), Some(&Did::Decided(OPEN, Reason::AllAgreed)));
    let legs: Vec<_> = stage.last().evidence.iter().map(|evidence| evidence.leg).collect();
    assert!(legs.contains(&Some(B)) && legs.contains(&Some(A)), "{legs:?}");

    let mut silent = Stage::office();
    prefers(&mut silent, B, ON);
    silent.answer();
    silent.preamble();
    silent.played(A, true);
    let did = [silent.wait_ms(10_000), silent.played(A, true), silent.wait_ms(10_000)].concat();
    assert_eq!(did.last(), Some(&Did::Decided(SHUT, Reason::NoAnswer)), "one party's wish is not all's");
}

#[test]
fn whose_telephone_agreed_may_still_say_no_while_the_other_is_asked() {
    let mut stage = Stage::office();
    prefers(&mut stage, B, ON);
    stage.answer();
    assert_eq!(stage.press(B, '2'), [], "nobody is asked yet");
    stage.preamble();
    assert_eq!(stage.press(B, '2').last(), Some(&Did::Decided(SHUT, Reason::Declined)));
    assert_eq!(consents(&stage)[1], PartyConsent::Declined);
}

#[test]
fn a_telephone_may_answer_while_its_party_is_asked() {
    let mut stage = Stage::asking();
    assert_eq!(prefers(&mut stage, A, UNTRUSTED), [noted(A)]);
    assert_eq!(prefers(&mut stage, A, ON), [agreed(A), Did::StopPlaying(A)]);
    assert_eq!(stage.played(A, false), [], "its question was stopped, not cut short");
    let did = prefers(&mut stage, B, ON);
    assert_eq!(did[..2], [agreed(B), Did::StopPlaying(B)]);
    assert_eq!(did.last(), Some(&Did::Decided(OPEN, Reason::AllAgreed)));

    let mut buffering = Stage::office();
    buffering.answer();
    assert_eq!(prefers(&mut buffering, A, ON), [agreed(A)]);
    assert_eq!(prefers(&mut buffering, B, ON), [agreed(B)]);
    assert_eq!(buffering.preamble(), opening(1));
}

#[test]
fn a_wish_that_is_taken_back_before_it_served_does_not_count() {
    let mut stage = both_prefer(OFFICE);
    assert_eq!(prefers(&mut stage, B, Preference::None), []);
    stage.answer();
    assert_eq!(stage.preamble(), [Did::Swallow(B, true), Did::Play(B, Notice::Question)]);

    let mut open = both_prefer(OFFICE);
    open.answer();
    assert_eq!(prefers(&mut open, B, Preference::None), [], "it served: only a refusal ends it");
}

#[test]
fn a_telephone_that_refuses_before_anybody_is_asked_ends_the_matter_in_silence() {
    for line in [OFFICE, ON_REQUEST, SIGNALLED] {
        for answered in [false, true] {
            let mut stage = Stage::new(&inbound(line));
            if answered && line != OFFICE {
                stage.answer();
            }
            let did = prefers(&mut stage, A, Preference::NoRecording);
            let declined =
                [Did::Heard(A, SignalMeaning::Decline, true), Did::Decided(SHUT, Reason::Declined)];
            assert_eq!(did, declined, "{line}");
            assert_eq!(stage.last().parties[0].consent, PartyConsent::Declined);
            assert_eq!(stage.answer(), []);
            prefers(&mut stage, A, ON);
            prefers(&mut stage, B, ON);
            assert!(!stage.did.iter().any(|did| matches!(did, Did::Open(..))), "no is for the call's rest");
            assert_eq!(stage.call.recording_outcome(), RecordingOutcome::Refused);
        }
    }
}

#[test]
fn a_refusal_while_asked_or_recorded_is_a_withdrawal_whoever_sends_it() {
    for leg in [A, B] {
        let mut asking = Stage::asking();
        let did = prefers(&mut asking, leg, Preference::NoRecording);
        assert_eq!(did[..2], [Did::Heard(leg, SignalMeaning::Decline, true), Did::Wipe(Reason::Declined)]);
        assert_eq!(did.last(), Some(&Did::Decided(SHUT, Reason::Declined)));

        for mut stage in [Stage::recording(), {
            let mut stage = both_prefer(SIGNALLED);
            stage.answer();
            stage
        }] {
            let mut stopped =
                vec![Did::Heard(leg, SignalMeaning::Withdraw, true), Did::Revoke(0, Reason::Withdrawn)];
            stopped.extend(both(Notice::Stopped));
            stopped.push(Did::Decided(SHUT, Reason::Withdrawn));
            assert_eq!(prefers(&mut stage, leg, Preference::NoRecording), stopped);
            assert_eq!(consents(&stage)[leg.index()], PartyConsent::Withdrawn);
            assert_eq!(prefers(&mut stage, leg, ON), [noted(leg)]);
            assert_eq!(stage.call.recording_outcome(), RecordingOutcome::Withdrawn);
        }
    }
}

#[test]
fn a_wish_counts_for_those_who_were_there_when_it_came() {
    for change in [Stage::change, Stage::doubt] {
        let mut before = both_prefer(SIGNALLED);
        change(&mut before, B);
        assert_eq!(before.answer(), [Did::Decided(SHUT, Reason::NotRequested)]);

        let mut stage = both_prefer(SIGNALLED);
        stage.answer();
        let did = change(&mut stage, B);
        assert!(matches!(did[0], Did::Revoke(0, _)), "{did:?}");
        assert_eq!(did[2..], both(Notice::Stopped), "nobody is asked on such a line");
        assert_eq!(prefers(&mut stage, B, ON), [agreed(B)]);
        let did = prefers(&mut stage, A, ON);
        assert_eq!(did[1], Did::Open(1, 2, Some(2), None), "{did:?}");
    }
}

#[test]
fn an_epoch_that_nothing_explains_ends_what_was_wished_before_it() {
    let mut stage = both_prefer(SIGNALLED);
    stage.answer();
    // The relay has met an unknown source; its word is on its way.
    let epoch = stage.raise();
    let did = prefers(&mut stage, A, ON);
    assert_eq!(did[..2], [Did::Revoke(0, Reason::Doubt), Did::Decided(SHUT, Reason::Doubt)]);
    assert_eq!(did.last(), Some(&agreed(A)));
    stage.event(Event::Doubt { leg: B, epoch });
    assert_eq!(prefers(&mut stage, B, ON), [agreed(B)], "nor does what was said in between count");

    // The same before the answer, whose epoch is then not the next one.
    let mut early = both_prefer(SIGNALLED);
    early.raise();
    assert_eq!(early.answer(), [Did::Decided(SHUT, Reason::NotRequested)]);
}

#[test]
fn a_hold_keeps_what_was_wished_and_lets_nothing_open() {
    let mut stage = Stage::new(&inbound(SIGNALLED));
    stage.answer();
    prefers(&mut stage, A, ON);
    stage.hold(A);
    assert_eq!(prefers(&mut stage, B, ON), [agreed(B)]);
    let did = stage.resume(A);
    assert_eq!(did[0], Did::Open(0, 3, Some(3), None));
}

#[test]
fn parties_that_nobody_signals_are_not_recorded_whatever_telephones_say() {
    let mut stage = Stage::new(&CallFacts { parties_signalled: false, ..inbound(SIGNALLED) });
    prefers(&mut stage, A, ON);
    prefers(&mut stage, B, ON);
    assert_eq!(stage.answer(), [Did::Decided(SHUT, Reason::PartiesHidden)]);
}

#[test]
fn on_a_dispatch_line_a_preference_is_noted_and_changes_nothing() {
    let mut stage = Stage::new(&inbound(DISPATCH));
    stage.answer();
    assert_eq!(prefers(&mut stage, A, ON), [noted(A)]);
    let refusal = Did::Heard(A, SignalMeaning::Decline, false);
    assert_eq!(prefers(&mut stage, A, Preference::NoRecording), [refusal]);
    assert_eq!(stage.end(), [Did::Close(0), Did::Decided(SHUT, Reason::Ended)]);
}

#[test]
fn where_nothing_may_be_recorded_no_preference_opens_anything() {
    for facts in [inbound(NEVER), inbound(STRANGER), facts(Direction::Outbound, &[UNION_NUMBER], &[OFFICE])] {
        let mut stage = Stage::new(&facts);
        stage.did.clear();
        stage.answer();
        prefers(&mut stage, A, ON);
        prefers(&mut stage, B, ON);
        assert_eq!(stage.did, []);
    }
}
