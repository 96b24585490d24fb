//! The consent line, row by row of the machine's table.

use std::sync::Arc;

use consent::{
    Arrival, Basis, CallFacts, Direction, Epoch, Event, GateState, Leg, Name, Notice, PartyConsent, PermitId,
    Reason, RecordingOutcome, RuleSet, RuleVersion, Settings, SignalMeaning, SignalSource,
};

use crate::stage::{
    ATTORNEY, Did, NEVER, OFFICE, ON_REQUEST, SIGNALLED, STRANGER, STUDENT, Stage, UNION_LINE, UNION_NUMBER,
    facts, inbound, lines, newcomer, numbers, plan,
};

const OPEN: GateState = GateState::Open;
const SHUT: GateState = GateState::Shut;
const A: Leg = Leg::A;
const B: Leg = Leg::B;

fn heard(leg: Leg, meaning: SignalMeaning) -> Did {
    Did::Heard(leg, meaning, true)
}

fn unheeded(leg: Leg, meaning: SignalMeaning) -> Did {
    Did::Heard(leg, meaning, false)
}

fn both(notice: Notice) -> Vec<Did> {
    vec![Did::Play(A, notice), Did::Play(B, notice)]
}

/// What ends an asking of which both questions still play.
fn refusal(reason: Reason) -> Vec<Did> {
    vec![
        Did::Wipe(reason),
        Did::StopPlaying(A),
        Did::Swallow(A, false),
        Did::StopPlaying(B),
        Did::Swallow(B, false),
        Did::Play(A, Notice::NotRecording),
        Did::Play(B, Notice::NotRecording),
        Did::Decided(SHUT, reason),
    ]
}

fn interruption(reason: Reason, epoch: u32) -> Vec<Did> {
    vec![Did::Decided(SHUT, reason), Did::StartPreamble(epoch)]
}

fn consents(stage: &Stage) -> Vec<PartyConsent> {
    stage.last().parties.iter().map(|party| party.consent).collect()
}

fn opens(stage: &Stage) -> usize {
    stage.did.iter().filter(|did| matches!(did, Did::Open(..))).count()
}

// Idle

#[test]
fn nothing_is_done_before_the_answer() {
    let mut stage = Stage::office();
    stage.press(A, '1');
    stage.change(B);
    assert_eq!(stage.did, []);
    assert_eq!(stage.end(), [Did::Decided(SHUT, Reason::Ended)]);
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::NotAsked);
}

#[test]
fn the_answer_begins_the_asking_with_the_preamble() {
    let mut stage = Stage::office();
    assert_eq!(stage.answer(), [Did::StartPreamble(1), Did::Decided(SHUT, Reason::Asking)]);
    let mut asked = vec![Did::Swallow(A, true), Did::Swallow(B, true)];
    asked.extend(both(Notice::Question));
    assert_eq!(stage.preamble(), asked);
    assert_eq!(stage.preamble(), [], "a second report changes nothing");
}

#[test]
fn outbound_and_internal_calls_are_asked_alike() {
    for direction in [Direction::Outbound, Direction::Internal] {
        let mut stage = Stage::new(&facts(direction, &[STRANGER], &[OFFICE]));
        assert_eq!(stage.answer(), [Did::StartPreamble(1), Did::Decided(SHUT, Reason::Asking)]);
    }
}

#[test]
fn an_on_request_line_asks_when_the_district_party_asks_for_it() {
    for (direction, district) in [(Direction::Inbound, B), (Direction::Outbound, A)] {
        let users = [[ON_REQUEST], [STRANGER]];
        let (called, calling) =
            if direction == Direction::Inbound { (&users[0], &users[1]) } else { (&users[1], &users[0]) };
        let mut stage = Stage::new(&facts(direction, called, calling));
        assert_eq!(stage.request(district), [unheeded(district, SignalMeaning::Request)], "not answered");
        assert_eq!(stage.answer(), [Did::Decided(SHUT, Reason::NotRequested)]);
        let did = stage.request(district);
        assert_eq!(did, [heard(district, SignalMeaning::Request), Did::StartPreamble(1)]);
        stage.preamble();
        stage.press(A, '1');
        stage.press(B, '1');
        assert_eq!(stage.last().reason, Reason::AllAgreed);
        assert!(stage.last().evidence[0].what.contains("asked for a recording"));
    }
}

/// F15: a caller's keys never start or steer a recording.
#[test]
fn f15_a_caller_cannot_toggle_recording_with_keys() {
    let mut stage = Stage::new(&inbound(ON_REQUEST));
    stage.answer();
    assert_eq!(stage.request(A), [unheeded(A, SignalMeaning::Request)]);
    assert_eq!(stage.press(A, '1'), []);
    assert_eq!(stage.end(), []);
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::NotAsked);

    let mut asked = Stage::asking();
    asked.press(A, '1');
    assert_eq!(asked.press(A, '1'), [unheeded(A, SignalMeaning::Accept)], "nobody answers for another");
    assert_eq!(asked.wait_ms(70_000).last(), Some(&Did::Decided(SHUT, Reason::PromptIncomplete)));
    assert_eq!(opens(&asked), 0);
}

#[test]
fn a_signalled_only_line_never_asks() {
    let mut stage = Stage::new(&inbound(SIGNALLED));
    assert_eq!(stage.answer(), [Did::Decided(SHUT, Reason::NotRequested)]);
    assert_eq!(stage.request(B), [unheeded(B, SignalMeaning::Request)]);
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::NotAsked);
}

#[test]
fn a_peer_that_hides_its_parties_keeps_the_gate_shut() {
    let hidden = CallFacts { parties_signalled: false, ..inbound(OFFICE) };
    let mut stage = Stage::new(&hidden);
    assert_eq!(stage.answer(), [Did::Decided(SHUT, Reason::PartiesHidden)]);
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::NotPermitted);

    let mut routed = Stage::office();
    routed.call.set_parties_signalled(Leg::B, false);
    assert_eq!(routed.answer(), [Did::Decided(SHUT, Reason::PartiesHidden)]);

    let mut failed_over = Stage::office();
    failed_over.call.set_parties_signalled(Leg::B, false);
    failed_over.call.set_parties_signalled(Leg::B, true);
    assert_eq!(failed_over.answer(), [Did::StartPreamble(1), Did::Decided(SHUT, Reason::Asking)]);
}

#[test]
fn who_withdraws_before_being_asked_is_not_asked() {
    let mut stage = Stage::new(&inbound(ON_REQUEST));
    stage.answer();
    let did = stage.withdraw(A);
    let mut expected = vec![heard(A, SignalMeaning::Withdraw)];
    expected.extend(both(Notice::NotRecording));
    expected.push(Did::Decided(SHUT, Reason::Withdrawn));
    assert_eq!(did, expected);
    assert_eq!(stage.request(B), [unheeded(B, SignalMeaning::Request)]);
}

// Paused

#[test]
fn a_call_answered_on_hold_is_asked_after_it() {
    let mut stage = Stage::office();
    stage.hold(A);
    assert_eq!(stage.answer(), [Did::Decided(SHUT, Reason::Held)]);
    stage.hold(B);
    assert_eq!(stage.resume(A), []);
    assert_eq!(stage.resume(B), [Did::StartPreamble(5)]);
}

// Buffering

#[test]
fn without_locked_memory_nobody_is_asked() {
    let mut stage = Stage::office();
    stage.answer();
    let expected = [Did::Wipe(Reason::NoPreambleMemory), Did::Decided(SHUT, Reason::NoPreambleMemory)];
    assert_eq!(stage.event(Event::PreambleUnavailable), expected);
    assert_eq!(stage.preamble(), []);
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::NotAsked);

    let mut silent = Stage::office();
    silent.answer();
    assert_eq!(silent.wait_ms(1_999), []);
    assert_eq!(silent.wait_ms(1), expected);
}

#[test]
fn the_preamble_of_another_epoch_begins_no_asking() {
    let mut stage = Stage::office();
    stage.answer();
    stage.change(A);
    assert_eq!(stage.event(Event::PreambleStarted { epoch: Epoch(1) }), []);
    assert_eq!(stage.preamble().len(), 4);
}

// Asking

#[test]
fn when_both_agree_the_gate_opens_for_exactly_the_epoch_asked() {
    let mut stage = Stage::asking();
    assert_eq!(stage.press(A, '1'), [heard(A, SignalMeaning::Accept), Did::StopPlaying(A)]);
    stage.played(B, true);
    let mut expected = vec![
        heard(B, SignalMeaning::Accept),
        Did::Open(0, 1, Some(1), None),
        Did::Swallow(A, false),
        Did::Swallow(B, false),
    ];
    expected.extend(both(Notice::Recording));
    expected.push(Did::Decided(OPEN, Reason::AllAgreed));
    assert_eq!(stage.press(B, '1'), expected);
    assert_eq!(consents(&stage), [PartyConsent::Given; 2]);
    assert_eq!(stage.last().basis, Some(Basis::AllPartyConsent));
    assert!(stage.last().clause.contains("52-570d(a)(1)"));
    assert_eq!(stage.call.poll_timeout(), None);
    assert_eq!(stage.end(), [Did::Close(0), Did::Decided(SHUT, Reason::Ended)]);
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::Recorded);
    assert_eq!(stage.call.basis(), Some(Basis::AllPartyConsent));
}

#[test]
fn the_evidence_tells_how_each_party_was_asked_and_agreed() {
    let mut stage = Stage::asking();
    stage.wait_ms(340);
    stage.press(A, '1');
    stage.wait_ms(8_000);
    stage.played(B, true);
    stage.wait_ms(1_000);
    stage.press(B, '1');
    let told: Vec<_> = stage.last().evidence.iter().map(|e| (e.leg, e.what.as_str())).collect();
    assert_eq!(
        told,
        [
            (Some(A), "the question began, attempt 1"),
            (Some(B), "the question began, attempt 1"),
            (Some(A), "agreed 340 ms after the question began, before its end"),
            (Some(B), "heard the question to its end"),
            (Some(B), "agreed 9340 ms after the question began, after its end"),
        ]
    );
}

/// F14: one party's yes is not all parties' yes.
#[test]
fn f14_one_partys_agreement_is_not_all_parties_agreement() {
    for leg in Leg::BOTH {
        let mut stage = Stage::asking();
        stage.press(leg, '1');
        stage.played(leg.other(), true);
        stage.wait_ms(10_000);
        stage.played(leg.other(), true);
        let did = stage.wait_ms(10_000);
        assert_eq!(did[0], Did::Wipe(Reason::NoAnswer));
        assert_eq!(did.last(), Some(&Did::Decided(SHUT, Reason::NoAnswer)));
        assert_eq!(opens(&stage), 0);
        let side = if leg == A { "called" } else { "calling" };
        assert!(stage.last().otherwise.contains(side), "{}", stage.last().otherwise);
    }
}

#[test]
fn a_decline_wipes_the_preamble_and_is_told_to_both() {
    let mut stage = Stage::asking();
    let mut expected = vec![heard(B, SignalMeaning::Decline)];
    expected.extend(refusal(Reason::Declined));
    assert_eq!(stage.press(B, '2'), expected);
    assert_eq!(consents(&stage), [PartyConsent::Asked, PartyConsent::Declined]);
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::Refused);
    assert_eq!(stage.press(B, '1'), [], "the question is closed");
    assert_eq!(stage.change(A), [], "and is not opened again");
    assert_eq!(stage.end(), []);
}

#[test]
fn who_agreed_may_still_decline_until_all_have_agreed() {
    let mut stage = Stage::asking();
    stage.press(A, '1');
    assert_eq!(stage.press(A, '2').last(), Some(&Did::Decided(SHUT, Reason::Declined)));
    assert_eq!(stage.press(B, '1'), []);
    assert_eq!(opens(&stage), 0);
}

#[test]
fn the_withdrawal_code_is_a_no_while_asking() {
    let mut stage = Stage::asking();
    stage.press(A, '1');
    let did = stage.withdraw(A);
    assert_eq!(did[..2], [heard(A, SignalMeaning::Withdraw), Did::Wipe(Reason::Declined)]);
    assert_eq!(consents(&stage), [PartyConsent::Withdrawn, PartyConsent::Asked]);
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::Refused);
}

#[test]
fn a_silent_party_is_asked_again_alone_and_then_counts_as_refusing() {
    let mut stage = Stage::asking();
    stage.played(A, true);
    assert_eq!(stage.wait_ms(9_999), []);
    assert_eq!(stage.wait_ms(1), [Did::Play(A, Notice::Question)]);
    stage.played(A, true);
    let did = stage.wait_ms(10_000);
    assert_eq!(did[0], Did::Wipe(Reason::NoAnswer));
    assert_eq!(consents(&stage), [PartyConsent::Silent, PartyConsent::Asked]);
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::Refused);
}

#[test]
fn an_answer_to_the_repeated_question_counts() {
    let mut stage = Stage::asking();
    stage.press(B, '1');
    stage.played(A, true);
    stage.wait_ms(10_000);
    stage.press(A, '1');
    assert_eq!(stage.last().reason, Reason::AllAgreed);
}

#[test]
fn an_answer_after_the_last_deadline_is_late_even_if_the_shell_slept() {
    let mut stage = Stage::asking();
    stage.press(B, '1');
    stage.played(A, true);
    stage.wait_ms(10_000);
    stage.played(A, true);
    stage.now.mono = stage.now.mono.plus_ms(10_000);
    let did = stage.press(A, '1');
    assert_eq!(did.last(), Some(&Did::Decided(SHUT, Reason::NoAnswer)));
    assert_eq!(opens(&stage), 0);
}

#[test]
fn a_question_cut_short_counts_as_not_asked() {
    let mut stage = Stage::asking();
    assert_eq!(stage.played(A, false), refusal(Reason::PromptIncomplete));
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::PromptIncomplete);
}

#[test]
fn the_question_that_an_answer_ended_is_not_cut_short() {
    let mut stage = Stage::asking();
    stage.press(A, '1');
    assert_eq!(stage.played(A, false), []);
    stage.press(B, '1');
    assert_eq!(opens(&stage), 1);
}

#[test]
fn a_question_whose_end_nobody_reports_does_not_hang_the_call() {
    let mut stage = Stage::asking();
    assert_eq!(stage.wait_ms(59_999), []);
    assert_eq!(stage.wait_ms(1), refusal(Reason::PromptIncomplete));
    assert_eq!(stage.call.poll_timeout(), None);
}

#[test]
fn a_leg_that_cannot_be_asked_ends_the_asking() {
    let mut stage = Stage::asking();
    let did = stage.event(Event::CannotAsk { leg: A });
    assert_eq!(did[0], Did::Wipe(Reason::CannotAsk));
    let told: Vec<_> = did.iter().filter(|did| matches!(did, Did::Play(..))).collect();
    assert_eq!(told, [&Did::Play(B, Notice::NotRecording)], "only the other leg can hear it");
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::NotAsked);
}

#[test]
fn other_keys_and_keys_within_a_code_are_no_answers() {
    let mut stage = Stage::asking();
    for digit in ['0', '3', '#', 'A', 'x'] {
        assert_eq!(stage.press(A, digit), []);
    }
    assert_eq!(stage.press(A, '*'), []);
    assert_eq!(stage.press(A, '1'), [], "it follows a star");
    assert_eq!(stage.request(B), [unheeded(B, SignalMeaning::Request)], "its 1 is part of the code");
    assert_eq!(stage.press(A, '1').len(), 2);
    assert_eq!(opens(&stage), 0);
}

#[test]
fn a_code_sent_twice_over_two_ways_is_heard_on_each() {
    let mut stage = Stage::recording();
    for digit in ['*', '8'] {
        for source in [SignalSource::TelephoneEvent, SignalSource::Info] {
            stage.event(Event::Digit { leg: A, digit, source, epoch: Epoch(1) });
        }
    }
    let did = stage.event(Event::Digit { leg: A, digit: '0', source: SignalSource::Info, epoch: Epoch(1) });
    assert_eq!(did[1], Did::Revoke(0, Reason::Withdrawn));
}

#[test]
fn an_answer_pressed_before_a_change_does_not_count_after_it() {
    let mut stage = Stage::asking();
    stage.doubt(B);
    stage.preamble();
    let late = Event::Digit { leg: A, digit: '1', source: SignalSource::TelephoneEvent, epoch: Epoch(1) };
    assert_eq!(stage.event(late), [unheeded(A, SignalMeaning::Accept)]);
    stage.press(B, '1');
    assert_eq!(opens(&stage), 0);
}

#[test]
fn a_key_counts_from_the_first_sample_of_the_legs_own_question() {
    let mut stage = Stage::office();
    stage.answer();
    stage.event(Event::PreambleStarted { epoch: Epoch(1) });
    assert_eq!(stage.press(A, '1'), [unheeded(A, SignalMeaning::Accept)], "it does not play yet");
    stage.playing(A);
    assert_eq!(stage.press(B, '1'), [unheeded(B, SignalMeaning::Accept)], "it plays to the other alone");
    assert_eq!(stage.press(A, '1')[0], heard(A, SignalMeaning::Accept));
    let earlier = Event::Playing { leg: B, notice: Notice::Question, epoch: Epoch(0) };
    let notice = Event::Playing { leg: B, notice: Notice::Stopped, epoch: Epoch(1) };
    for other in [earlier, notice] {
        stage.event(other);
        assert_eq!(stage.press(B, '1'), [unheeded(B, SignalMeaning::Accept)], "not this question");
    }
    stage.playing(B);
    stage.press(B, '1');
    assert_eq!(opens(&stage), 1);
}

#[test]
fn a_key_pressed_before_the_question_is_no_answer_however_late_it_is_reported() {
    let mut stage = Stage::office();
    stage.answer();
    let pressed_at = stage.now;
    stage.wait_ms(40);
    stage.preamble();
    let asked_at = std::mem::replace(&mut stage.now, pressed_at);
    assert_eq!(stage.press(A, '1'), [unheeded(A, SignalMeaning::Accept)]);
    assert_eq!(stage.press(B, '2'), [unheeded(B, SignalMeaning::Decline)]);
    stage.now = asked_at;
    assert_eq!(stage.press(A, '1')[0], heard(A, SignalMeaning::Accept));
}

#[test]
fn a_change_while_asking_wipes_and_asks_everybody_again() {
    for (reason, change) in [
        (Reason::PartyChanged, Stage::change as fn(&mut Stage, Leg) -> Vec<Did>),
        (Reason::Doubt, Stage::doubt as fn(&mut Stage, Leg) -> Vec<Did>),
    ] {
        let mut stage = Stage::asking();
        stage.press(A, '1');
        let did = change(&mut stage, B);
        assert_eq!(did[0], Did::Wipe(reason));
        assert!(did.ends_with(&interruption(reason, 2)), "{did:?}");
        stage.preamble();
        stage.press(B, '1');
        assert_eq!(opens(&stage), 0, "A has not agreed to the new party");
        assert!(stage.press(A, '1').contains(&Did::Open(0, 2, Some(2), None)));
        assert_eq!(stage.call.recording_outcome(), RecordingOutcome::Recorded);
    }
}

#[test]
fn a_hold_while_asking_wipes_and_asks_after_the_resume() {
    let mut stage = Stage::asking();
    stage.press(B, '1');
    let did = stage.hold(A);
    assert_eq!(did[0], Did::Wipe(Reason::Held));
    assert_eq!(did.last(), Some(&Did::Decided(SHUT, Reason::Held)));
    assert_eq!(stage.press(A, '1'), []);
    assert_eq!(stage.resume(A), [Did::StartPreamble(3)]);
}

#[test]
fn the_asking_is_repeated_five_times_and_no_more() {
    let mut stage = Stage::asking();
    for _ in 0..5 {
        assert!(stage.change(A).contains(&Did::StartPreamble(stage.epoch)));
        stage.preamble();
    }
    let did = stage.change(A);
    assert!(!did.iter().any(|did| matches!(did, Did::StartPreamble(_))), "{did:?}");
    assert!(did.contains(&Did::Decided(SHUT, Reason::PartyChanged)));
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::NotPermitted);
    assert_eq!(stage.change(A), []);
    assert!(stage.last().evidence.iter().any(|e| e.what.contains("too often")));
}

/// F5: a call that ends during the question leaves a reason.
#[test]
fn f5_hanging_up_during_the_question_is_said() {
    let mut stage = Stage::asking();
    assert_eq!(
        stage.end(),
        [Did::Wipe(Reason::PromptIncomplete), Did::Decided(SHUT, Reason::PromptIncomplete)]
    );
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::PromptIncomplete);

    let mut heard = Stage::asking();
    heard.played(A, true);
    heard.played(B, true);
    assert_eq!(heard.end(), [Did::Wipe(Reason::Ended), Did::Decided(SHUT, Reason::Ended)]);
    assert_eq!(heard.call.recording_outcome(), RecordingOutcome::Refused);

    let mut early = Stage::office();
    early.answer();
    assert_eq!(early.end(), [Did::Wipe(Reason::Ended), Did::Decided(SHUT, Reason::Ended)]);
    assert_eq!(early.call.recording_outcome(), RecordingOutcome::NotAsked);
}

// Open and Suspended

#[test]
fn nothing_is_stored_during_a_hold_and_the_recording_goes_on_after_it() {
    let mut stage = Stage::recording();
    assert_eq!(stage.hold(A), [Did::Suspend(0), Did::Decided(SHUT, Reason::Held)]);
    assert_eq!(stage.hold(B), []);
    assert_eq!(stage.resume(A), [], "the other still holds");
    let reopened = [Did::Open(1, 5, Some(5), Some(0)), Did::Decided(OPEN, Reason::AllAgreed)];
    assert_eq!(stage.resume(B), reopened);
    assert!(stage.last().evidence.iter().any(|e| e.what.starts_with("agreed")), "consent is its ground");
    assert_eq!(stage.hold(B)[0], Did::Suspend(1));
    assert_eq!(stage.resume(B)[0], Did::Open(2, 7, Some(7), Some(1)));
    assert_eq!(stage.end()[0], Did::Close(2));
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::Recorded);
}

#[test]
fn a_call_that_ends_on_hold_is_closed() {
    let mut stage = Stage::recording();
    stage.hold(B);
    assert_eq!(stage.end(), [Did::Close(0), Did::Decided(SHUT, Reason::Ended)]);
}

#[test]
fn a_new_party_stops_the_recording_and_all_are_asked_again() {
    let mut stage = Stage::recording();
    let mut expected = vec![Did::Revoke(0, Reason::PartyChanged)];
    expected.extend(interruption(Reason::PartyChanged, 2));
    assert_eq!(stage.change(B), expected);
    assert_eq!(consents(&stage), [PartyConsent::Given, PartyConsent::NotAsked]);
    assert_eq!(stage.last().parties[1].ordinal, 1);
    stage.preamble();
    stage.press(B, '1');
    assert!(stage.press(A, '1').contains(&Did::Open(1, 2, Some(2), None)), "a new recording");
    stage.end();
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::PartlyRecorded);
}

#[test]
fn a_new_party_that_declines_leaves_the_first_part() {
    let mut stage = Stage::recording();
    stage.change(B);
    stage.preamble();
    stage.press(B, '2');
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::PartlyRecorded);
}

#[test]
fn doubt_stops_the_recording_and_all_are_asked_again() {
    let mut stage = Stage::recording();
    let mut expected = vec![Did::Revoke(0, Reason::Doubt)];
    expected.extend(interruption(Reason::Doubt, 2));
    assert_eq!(stage.doubt(A), expected);
    assert_eq!(stage.last().parties[0].ordinal, 0, "nobody knows that it is somebody else");
}

#[test]
fn a_party_that_changes_during_a_hold_is_asked_after_it() {
    let mut stage = Stage::recording();
    stage.hold(A);
    assert_eq!(
        stage.change(A),
        [Did::Revoke(0, Reason::PartyChanged), Did::Decided(SHUT, Reason::PartyChanged)]
    );
    assert_eq!(stage.resume(A), [Did::StartPreamble(4)]);
}

#[test]
fn withdrawal_stops_it_for_the_rest_of_the_call() {
    for leg in Leg::BOTH {
        for held in [false, true] {
            let mut stage = Stage::recording();
            if held {
                stage.hold(leg);
            }
            let mut expected = vec![heard(leg, SignalMeaning::Withdraw), Did::Revoke(0, Reason::Withdrawn)];
            expected.extend(both(Notice::Stopped));
            expected.push(Did::Decided(SHUT, Reason::Withdrawn));
            assert_eq!(stage.withdraw(leg), expected);
            stage.did.clear();
            stage.resume(leg);
            stage.change(leg);
            stage.request(B);
            stage.press(A, '1');
            assert_eq!(stage.withdraw(leg), [unheeded(leg, SignalMeaning::Withdraw)]);
            assert_eq!(opens(&stage), 0);
            assert_eq!(stage.call.recording_outcome(), RecordingOutcome::Withdrawn);
            assert_eq!(stage.end(), []);
        }
    }
}

#[test]
fn an_epoch_that_nothing_explains_is_doubt() {
    let mut stage = Stage::recording();
    stage.raise();
    let mut expected = vec![Did::Revoke(0, Reason::Doubt)];
    expected.extend(interruption(Reason::Doubt, 2));
    assert_eq!(stage.press(A, '5'), expected);
    assert_eq!(consents(&stage), [PartyConsent::NotAsked; 2]);
}

/// The relay saw another source and raised the epoch; its word is still on its way when hold and resume
/// come. Going on after the resume would record somebody who never agreed.
#[test]
fn an_epoch_skipped_at_a_hold_or_a_resume_is_doubt() {
    let mut at_hold = Stage::recording();
    at_hold.raise();
    assert_eq!(at_hold.hold(B), [Did::Revoke(0, Reason::Doubt), Did::Decided(SHUT, Reason::Doubt)]);

    let mut at_resume = Stage::recording();
    at_resume.hold(B);
    at_resume.raise();
    let mut expected = vec![Did::Revoke(0, Reason::Doubt)];
    expected.extend(interruption(Reason::Doubt, 4));
    assert_eq!(at_resume.resume(B), expected);
}

#[test]
fn a_resume_that_follows_no_hold_is_doubt() {
    let mut stage = Stage::recording();
    assert_eq!(stage.resume(A)[0], Did::Revoke(0, Reason::Doubt));
}

#[test]
fn a_hold_that_comes_late_revokes_what_was_opened_meanwhile() {
    let mut stage = Stage::recording();
    let did = stage.event(Event::Held { leg: B, epoch: Epoch(1) });
    assert_eq!(did, [Did::Revoke(0, Reason::Held), Did::Decided(SHUT, Reason::Held)]);
}

#[test]
fn a_recorder_that_fails_shuts_the_gate_for_the_rest_of_the_call() {
    let mut stage = Stage::recording();
    let expected = [Did::Revoke(0, Reason::RecorderFailed), Did::Decided(SHUT, Reason::RecorderFailed)];
    assert_eq!(stage.fail(0), expected);
    assert_eq!(stage.change(A), []);
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::Failed);

    let mut begun = Stage::recording();
    begun.event(Event::RecordingStarted { permit: PermitId(0) });
    begun.hold(A);
    begun.resume(A);
    assert_eq!(begun.fail(0)[0], Did::Revoke(1, Reason::RecorderFailed), "the recording began under 0");
    assert_eq!(begun.call.recording_outcome(), RecordingOutcome::PartlyRecorded);
    assert_eq!(Stage::recording().fail(3), [], "no such permit");
}

#[test]
fn the_call_leaving_a_dispatch_line_means_nothing_new_on_a_consent_line() {
    let mut stage = Stage::recording();
    let epoch = stage.raise();
    assert_eq!(stage.event(Event::LeftLine { epoch })[0], Did::Revoke(0, Reason::Doubt));
}

// All states

#[test]
fn settings_of_the_district_are_followed() {
    let settings = Settings {
        accept: '5',
        decline: '0',
        withdraw: "##".to_owned(),
        answer_timeout_ms: 60_000,
        attempts: 1,
        ..Settings::default()
    };
    let rules = RuleSet::new(RuleVersion(9), plan(), lines(), numbers(), settings).unwrap();
    let mut stage = Stage::with(Arc::new(rules), &inbound(OFFICE));
    stage.answer();
    stage.preamble();
    assert_eq!(stage.press(A, '1'), []);
    stage.press(A, '5');
    stage.played(B, true);
    assert_eq!(stage.wait_ms(59_999), []);
    stage.press(B, '5');
    assert_eq!((stage.last().reason, stage.last().rule_version), (Reason::AllAgreed, RuleVersion(9)));
    stage.press(B, '#');
    assert_eq!(stage.press(B, '#')[1], Did::Revoke(0, Reason::Withdrawn));
}

#[test]
fn a_party_leaning_on_a_key_cannot_fill_the_ledger() {
    let mut stage = Stage::asking();
    stage.press(A, '1');
    for _ in 0..10_000 {
        stage.press(A, '1');
    }
    let rows = stage.did.iter().filter(|did| matches!(did, Did::Heard(..))).count();
    assert_eq!(rows, 1 + 64);
    assert_eq!(
        stage.press(B, '1')[0],
        heard(B, SignalMeaning::Accept),
        "a row with effect is never left out"
    );
}

#[test]
fn every_decision_gives_its_reasons_and_no_digit() {
    let mut stage = Stage::recording();
    stage.hold(A);
    stage.resume(A);
    stage.change(B);
    stage.preamble();
    stage.withdraw(A);
    for decision in &stage.decisions {
        assert!(
            !decision.clause.is_empty() && !decision.otherwise.is_empty() && !decision.parties.is_empty()
        );
        assert!(decision.otherwise.ends_with('.'), "{}", decision.otherwise);
        let json = serde_json::to_string(&decision.evidence).unwrap();
        assert!(!json.contains("*80") && !json.contains("742"), "{json}");
    }
}

// Barred

#[test]
fn a_newcomer_with_whom_nothing_may_be_stored_ends_it_in_every_state() {
    type Begin = fn() -> Stage;
    let held = || {
        let mut stage = Stage::recording();
        stage.hold(A);
        stage
    };
    let stages: [(&str, Begin); 4] =
        [("idle", Stage::office), ("asking", Stage::asking), ("recording", Stage::recording), ("held", held)];
    for (state, begun) in stages {
        for (number, reason) in [
            (UNION_NUMBER, Reason::Union),
            (UNION_LINE, Reason::Union),
            (NEVER, Reason::NeverLine),
            (ATTORNEY, Reason::Privileged),
            (STUDENT, Reason::Student),
        ] {
            let mut stage = begun();
            assert_eq!(
                stage.call.arrival(B, &newcomer(&[Name::known(STRANGER), Name::known(number)])),
                Arrival::Barred(reason)
            );
            assert_eq!(stage.call.arrival(B, &newcomer(&[Name::known(STRANGER)])), Arrival::Change);
            let epoch = stage.raise();
            let did = stage.event(Event::Barred { leg: B, epoch, reason });
            assert_eq!(did.last(), Some(&Did::Decided(SHUT, reason)), "{state}");
            let revoked = did.contains(&Did::Revoke(0, reason)) || did.contains(&Did::Revoke(1, reason));
            assert_eq!(revoked, matches!(state, "recording" | "held"), "{state}: {did:?}");
            assert_eq!(did.contains(&Did::Wipe(reason)), state == "asking", "{state}: {did:?}");
            let opened = opens(&stage);
            stage.change(B);
            stage.answer();
            stage.request(B);
            assert_eq!(opens(&stage), opened, "{state}");
        }
    }
}

#[test]
fn nobody_speaks_into_an_emergency_call() {
    let mut stage = Stage::recording();
    let epoch = stage.raise();
    let did = stage.event(Event::Barred { leg: B, epoch, reason: Reason::Emergency });
    assert_eq!(did, [Did::Revoke(0, Reason::Emergency), Did::Decided(SHUT, Reason::Emergency)]);
    assert_eq!(stage.call.recording_outcome(), RecordingOutcome::PartlyRecorded);
}
