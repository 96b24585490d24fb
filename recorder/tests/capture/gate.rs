//! What passes the tap, and what never does.

use consent::{Basis, Epoch, EpochCounter, GapCause, Leg, Phase, Reason};
use recorder::preamble::LockedBudget;
use recorder::{Capture, CaptureCommand, CaptureSettings, Codec, Content, Event, Frame, Output, Tap};

use crate::rig::{
    CALL, CONSENT, DISPATCH, Rig, causes, dispatch_permit, new_recording, now, settings, tone, wall,
};

#[test]
fn a_dispatch_call_is_recorded_from_its_first_packet_to_its_last() {
    let mut rig = Rig::on(DISPATCH);
    rig.pass(3_000);
    let first = rig.ms;
    rig.talk(2_000);
    rig.answer();
    rig.talk(5_000);
    rig.end();
    let (sealed, recorded) = rig.recorded();
    assert_eq!(sealed.started_at, wall(first));
    assert_eq!(recorded.duration_ms(), 7_000);
    assert_eq!(sealed.ended_at, wall(first + 7_000));
    assert_eq!(sealed.gaps, []);
    assert!(recorded.hears(Leg::A, 440.0, 20, 6_990) && !recorded.hears(Leg::A, 1_000.0, 20, 6_990));
    assert!(recorded.hears(Leg::B, 1_000.0, 20, 6_990) && !recorded.hears(Leg::B, 440.0, 20, 6_990));
    let phases: Vec<_> = sealed.intervals.iter().map(|i| (i.from_s, i.to_s, i.phase, i.basis)).collect();
    let basis = Basis::DispatchLine;
    assert_eq!(phases, [(0.0, 2.0, Phase::EarlyMedia, basis), (2.0, 7.0, Phase::Answered, basis)]);
    let is_start = |event: &&Event| matches!(event, Event::RecordingStarted { .. });
    let Some(Event::RecordingStarted { recording, at, .. }) = rig.events.iter().find(is_start) else {
        panic!("not started: {:?}", rig.events)
    };
    assert_eq!((*recording, *at), (sealed.recording, wall(first)));
    assert!(matches!(rig.outputs[0], Output::Create { twice: true, .. }));
}

#[test]
fn a_consented_recording_begins_with_the_question_and_both_answers() {
    let mut rig = Rig::agreed();
    let agreed_ms = rig.ms - 200;
    rig.talk(3_000);
    rig.end();
    let (sealed, recorded) = rig.recorded();
    assert_eq!(sealed.started_at, wall(200), "from the answer on, not before");
    assert!(recorded.hears(Leg::A, 2_000.0, 40, 980), "the question, as A heard it");
    assert!(recorded.hears(Leg::B, 2_000.0, 40, 980), "the question, as B heard it");
    for (leg, from_ms) in [(Leg::A, 1_010), (Leg::B, 1_310)] {
        assert!(recorded.hears(leg, 697.0, from_ms, from_ms + 80), "{leg:?}'s key, low tone");
        assert!(recorded.hears(leg, 1_209.0, from_ms, from_ms + 80), "{leg:?}'s key, high tone");
    }
    assert!(recorded.hears(Leg::A, 440.0, 2_000, 4_000) && recorded.hears(Leg::B, 1_000.0, 2_000, 4_000));
    let phases: Vec<_> = sealed.intervals.iter().map(|i| (i.phase, i.basis)).collect();
    let basis = Basis::AllPartyConsent;
    assert_eq!(phases, [(Phase::Preamble, basis), (Phase::Answered, basis)]);
    let boundary = sealed.intervals[1].from_s;
    assert!((boundary - (agreed_ms - 200 + 100) as f64 / 1_000.0).abs() < 0.11, "{boundary}");
    assert!(causes(&sealed.gaps).iter().all(|cause| *cause == GapCause::Digit), "{:?}", sealed.gaps);
    assert_eq!(recorded.duration_ms(), rig.ms - 200);
}

#[test]
fn what_was_said_between_the_answer_and_a_late_question_is_not_kept() {
    let mut rig = Rig::on(CONSENT);
    rig.answer();
    rig.voices.iter_mut().for_each(|voice| voice.hz = 1_700.0);
    rig.talk(200);
    // Something else that the gateway says begins nothing.
    let content =
        Content::Told { codec: Codec::Pcmu, timestamp: 0, question: false, payload: tone(440.0, 0) };
    let told = Frame { leg: Leg::A, epoch: rig.epoch.current(), at: now(rig.ms), content };
    rig.frame(&told);
    rig.talk(200);
    rig.voices.iter_mut().for_each(|voice| voice.hz = 1_000.0);
    let asked_ms = rig.ms;
    rig.ask(1_000);
    rig.digit(Leg::A, '1');
    rig.digit(Leg::B, '1');
    rig.talk(3_000);
    rig.end();
    let (sealed, recorded) = rig.recorded();
    assert_eq!(sealed.started_at, wall(asked_ms), "from the question's first sample on");
    for leg in Leg::BOTH {
        assert!(recorded.hears(leg, 2_000.0, 40, 980), "the question");
        assert!(!recorded.hears(leg, 1_700.0, 0, 400) && recorded.hears(leg, 1_000.0, 0, 400), "{leg:?}");
    }
}

#[test]
fn without_agreement_nothing_is_written_at_all() {
    for outcome in ["decline", "silence", "hang up", "party changed"] {
        let mut rig = Rig::on(CONSENT);
        rig.talk(200);
        rig.answer();
        rig.ask(1_000);
        rig.digit(Leg::A, '1');
        match outcome {
            "decline" => rig.digit(Leg::B, '2'),
            "silence" => {
                rig.talk(12_000);
                let mut actions = Vec::new();
                rig.call.on_timeout(now(rig.ms), &mut actions);
                assert!(actions.iter().any(|action| matches!(action, consent::Action::WipePreamble(_))));
                rig.command(CaptureCommand::WipePreamble { reason: Reason::NoAnswer });
            }
            "hang up" => {}
            _ => {
                rig.change(|epoch| consent::Event::PartyChanged { leg: Leg::B, epoch });
                rig.talk(1_000);
            }
        }
        rig.talk(2_000);
        rig.end();
        let wiped = |event: &&Event| matches!(event, Event::PreambleWiped { held_ms: 1_000.., .. });
        assert!(rig.events.iter().find(wiped).is_some(), "{outcome}: {:?}", rig.events);
        assert!(rig.files.is_empty() && rig.sealed.is_empty(), "{outcome}");
        assert!(rig.outputs.iter().all(|output| matches!(output, Output::Event(_))), "{outcome}");
    }
}

#[test]
fn a_consents_a_frame_is_captured_b_leaves_the_buffer_is_not_written() {
    let mut rig = Rig::agreed();
    rig.talk(3_000);
    let written = rig.files.values().map(Vec::len).sum::<usize>();
    // Somebody else is on B from here on; signalling is slow to tell the media plane.
    rig.pending = Some(Vec::new());
    rig.voices[1].hz = 1_700.0;
    rig.change(|epoch| consent::Event::PartyChanged { leg: Leg::B, epoch });
    rig.talk(900);
    rig.catch_up();
    rig.talk(3_000);
    rig.end();
    assert!(written > 0);
    let (_, recorded) = rig.recorded();
    let duration_ms = recorded.duration_ms();
    assert!(!recorded.hears(Leg::B, 1_700.0, 0, duration_ms), "the newcomer is nowhere");
    assert!(recorded.hears(Leg::B, 1_000.0, duration_ms - 500, duration_ms));
}

#[test]
fn a_frame_stamped_before_the_change_is_not_stored_under_the_next_permit() {
    let permit_of = |rig: &mut Rig| {
        rig.pending = Some(Vec::new());
        rig.digit(Leg::B, '1');
        let actions = rig.pending.take().unwrap();
        actions.into_iter().find_map(|action| match action {
            consent::Action::Open { permit, .. } => Some(permit),
            _ => None,
        })
    };
    let mut rig = Rig::on(CONSENT);
    rig.answer();
    rig.ask(200);
    rig.digit(Leg::A, '1');
    let permit = permit_of(&mut rig).unwrap();
    let tap = Tap::open(CALL, permit);
    let frame = |epoch| Frame {
        leg: Leg::A,
        epoch,
        at: now(0),
        content: Content::Told { codec: Codec::Pcmu, timestamp: 0, question: false, payload: tone(440.0, 0) },
    };
    assert!(tap.admit(&frame(rig.epoch.current())).is_some());
    assert!(tap.admit(&frame(Epoch(rig.epoch.current().0 - 1))).is_none());
    assert!(tap.admit(&frame(Epoch(rig.epoch.current().0 + 1))).is_none());
}

#[test]
fn a_dispatch_tap_ends_where_the_call_leaves_the_line_and_a_permit_of_another_call_opens_nothing() {
    let frame = |epoch| Frame {
        leg: Leg::A,
        epoch,
        at: now(0),
        content: Content::Told { codec: Codec::Pcmu, timestamp: 0, question: false, payload: tone(440.0, 0) },
    };
    let tap = Tap::open(CALL, dispatch_permit());
    let epoch = EpochCounter::default();
    for change in [EpochCounter::raise, EpochCounter::raise] {
        assert!(tap.admit(&frame(change(&epoch))).is_some());
    }
    for change in [EpochCounter::leave_line, EpochCounter::raise, EpochCounter::leave_line] {
        assert!(tap.admit(&frame(change(&epoch))).is_none());
    }
    assert!(Tap::open(consent::CallId(1), dispatch_permit()).admit(&frame(Epoch(0))).is_none());
}

#[test]
fn withdrawal_ends_the_recording_before_it() {
    let mut rig = Rig::agreed();
    rig.talk(4_000);
    rig.voices[0].hz = 600.0;
    rig.talk(400);
    rig.withdraw(Leg::A);
    rig.talk(3_000);
    rig.end();
    let (sealed, recorded) = rig.recorded();
    assert!(recorded.duration_ms() > 4_000 - 2_000);
    assert!(!recorded.hears(Leg::A, 600.0, 0, recorded.duration_ms()), "the look-back was wiped");
    assert_eq!(sealed.intervals.last().unwrap().to_s, sealed.duration_s);
    assert_eq!(rig.capture.poll_timeout(), None);
    assert!(!rig.capture.wants_frames());
}

#[test]
fn withdrawal_within_the_look_back_leaves_no_file() {
    let mut rig = Rig::on(CONSENT);
    rig.answer();
    rig.ask(200);
    rig.digit(Leg::A, '1');
    rig.digit(Leg::B, '1');
    rig.talk(200);
    rig.withdraw(Leg::B);
    rig.talk(2_000);
    rig.end();
    assert!(rig.files.is_empty() && rig.sealed.is_empty());
}

#[test]
fn a_hold_is_silence_of_its_length_and_listed() {
    let mut rig = Rig::agreed();
    rig.talk(2_000);
    let held_ms = rig.ms;
    rig.voices[1].hz = 1_700.0;
    rig.change(|epoch| consent::Event::Held { leg: Leg::B, epoch });
    rig.talk(70_000);
    rig.voices[1].hz = 1_000.0;
    let resumed_ms = rig.ms;
    rig.change(|epoch| consent::Event::Resumed { leg: Leg::B, epoch });
    rig.talk(2_000);
    rig.change(|epoch| consent::Event::Held { leg: Leg::A, epoch });
    rig.talk(1_000);
    rig.change(|epoch| consent::Event::Resumed { leg: Leg::A, epoch });
    rig.talk(2_000);
    rig.end();
    let (sealed, recorded) = rig.recorded();
    let holds: Vec<_> = sealed.gaps.iter().filter(|gap| gap.cause == GapCause::Hold).collect();
    let [first, second] = holds[..] else { panic!("{:?}", sealed.gaps) };
    assert!((first.from_s - (held_ms - 200) as f64 / 1_000.0).abs() <= 0.020, "{first:?}");
    assert!((first.to_s - (resumed_ms - 200) as f64 / 1_000.0).abs() <= 0.020, "{first:?}");
    assert_eq!(first.leg, None);
    assert!((second.to_s - second.from_s - 1.0).abs() <= 0.020, "{second:?}");
    assert!(!recorded.hears(Leg::B, 1_700.0, 0, recorded.duration_ms()), "music on hold is not kept");
    let (from_ms, to_ms) = (held_ms - 200 + 60, resumed_ms - 200 - 60);
    let quiet = &recorded.channels[0][from_ms as usize * 8..to_ms as usize * 8];
    assert!(quiet.iter().all(|sample| sample.abs() < 16));
    assert!(recorded.hears(Leg::A, 440.0, to_ms + 120, to_ms + 1_000));
    assert_eq!(recorded.duration_ms(), rig.ms - 200);
    assert_eq!(sealed.intervals.len(), 4, "preamble, and three times the conversation");
    assert_eq!(rig.sealed.len(), 1);
}

#[test]
fn a_call_that_leaves_the_dispatch_line_stops_there_with_nothing_dropped() {
    let mut rig = Rig::on(DISPATCH);
    rig.answer();
    rig.talk(3_000);
    rig.voices[1].hz = 1_700.0;
    rig.leave_line();
    rig.talk(2_000);
    rig.end();
    let (_, recorded) = rig.recorded();
    assert_eq!(recorded.duration_ms(), 3_000);
    assert!(recorded.hears(Leg::B, 1_000.0, 2_800, 3_000) && !recorded.hears(Leg::B, 1_700.0, 0, 3_000));
}

#[test]
fn a_call_that_left_the_dispatch_line_is_not_stored_however_late_the_tap_is_closed() {
    let mut rig = Rig::on(DISPATCH);
    rig.answer();
    rig.talk(3_000);
    rig.pending = Some(Vec::new());
    rig.voices.iter_mut().for_each(|voice| voice.hz = 1_700.0);
    rig.leave_line();
    rig.talk(2_000);
    rig.catch_up();
    rig.end();
    let (_, recorded) = rig.recorded();
    for leg in Leg::BOTH {
        assert!(!recorded.hears(leg, 1_700.0, 0, recorded.duration_ms()), "{leg:?}");
    }
    assert!(recorded.hears(Leg::A, 440.0, 2_800, 3_000) && recorded.hears(Leg::B, 1_000.0, 2_800, 3_000));
}

#[test]
fn without_locked_memory_nobody_is_recorded() {
    let budget = LockedBudget::new(4_096);
    let mut rig = Rig::with(CONSENT, CaptureSettings { budget: budget.clone(), ..settings() });
    rig.talk(200);
    rig.answer();
    assert!(rig.events.contains(&Event::PreambleUnavailable { call: CALL }));
    rig.talk(1_000);
    rig.end();
    assert!(rig.files.is_empty());
    assert_eq!(budget.used_bytes(), 0);
}

#[test]
fn a_preamble_that_outgrows_its_memory_is_wiped() {
    let mut rig = Rig::with(CONSENT, CaptureSettings { preamble_bytes: 65_536, ..settings() });
    rig.answer();
    rig.ask(20);
    rig.talk(20_000);
    let position = |wanted: &Event| rig.events.iter().position(|event| event == wanted);
    let unavailable = position(&Event::PreambleUnavailable { call: CALL }).unwrap();
    assert!(matches!(
        rig.events[unavailable - 1],
        Event::PreambleWiped { reason: Reason::NoPreambleMemory, held_ms: 3_000..4_000, .. }
    ));
    assert!(!rig.capture.wants_frames());
}

#[test]
fn locked_memory_is_given_back() {
    let budget = LockedBudget::new(1 << 24);
    let mut rig = Rig::with(CONSENT, CaptureSettings { budget: budget.clone(), ..settings() });
    rig.answer();
    assert_eq!(budget.used_bytes(), 1 << 20);
    rig.ask(1_000);
    rig.digit(Leg::A, '1');
    rig.digit(Leg::B, '1');
    rig.talk(2_000);
    assert!(budget.used_bytes() < 1 << 18, "{}", budget.used_bytes());
    rig.end();
    assert_eq!(budget.used_bytes(), 0);
}

#[test]
fn audio_of_a_dispatch_call_is_written_within_a_second_and_of_a_consent_call_within_two() {
    for (line, allowed_ms) in [(DISPATCH, 1_000), (CONSENT, 2_000)] {
        let mut rig = if line == DISPATCH { Rig::on(line) } else { Rig::agreed() };
        rig.talk(3_000);
        for _ in 0..100 {
            rig.talk(20);
            let file = rig.files.values().next().unwrap();
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join(format!("{}.part", consent::RecordingId(1))), file).unwrap();
            let sealed = recorder::spool::recover(directory.path(), &|_, _| Some(crate::rig::KEY.into()));
            let start_ms = (sealed[0].started_at.0 - wall(0).0) / 1_000;
            let unwritten_ms = rig.ms as i64 - start_ms - (sealed[0].duration_s * 1_000.0) as i64;
            assert!(unwritten_ms <= allowed_ms, "{line}: {unwritten_ms} ms");
        }
    }
}

#[test]
fn frames_lost_to_a_full_queue_are_the_recorders_gap() {
    let mut rig = Rig::on(DISPATCH);
    rig.talk(1_000);
    rig.command(CaptureCommand::Overrun { leg: Leg::A });
    let voice = rig.voices[0];
    rig.voices[0].sends = false;
    rig.talk(100);
    rig.voices[0] = voice;
    for _ in 0..5 {
        let _lost = rig.spoken(Leg::A);
    }
    rig.talk(1_000);
    rig.end();
    let (sealed, _) = rig.recorded();
    let gaps: Vec<_> = sealed.gaps.iter().map(|gap| (gap.from_s, gap.to_s, gap.cause, gap.leg)).collect();
    assert_eq!(gaps, [(1.0, 1.1, GapCause::Overrun, Some(Leg::A))]);
}

#[test]
fn a_failed_file_ends_the_recording_and_says_so() {
    let mut rig = Rig::on(DISPATCH);
    rig.talk(2_000);
    let recording = *rig.files.keys().next().unwrap();
    rig.command(CaptureCommand::WriteFailed { recording });
    rig.talk(1_000);
    let failed = |event: &Event| matches!(event, Event::RecordingFailed { recording: Some(failed), .. } if *failed == recording);
    assert_eq!(rig.events.iter().filter(|event| failed(event)).count(), 1);
    assert!(rig.sealed.is_empty());
}

#[test]
fn a_permit_that_continues_an_unknown_recording_is_a_failure() {
    let mut capture = Capture::new(CALL, settings());
    let permit = dispatch_permit();
    let id = permit.id();
    let earlier = consent::PermitId(99);
    capture.on_command(now(0), CaptureCommand::OpenTap { permit, target: Err(earlier) });
    let failed = Event::RecordingFailed { call: CALL, permit: id, recording: None };
    assert_eq!(capture.poll_output(), Some(Output::Event(failed)));
}

#[test]
fn a_recording_shorter_than_a_page_is_announced_before_it_is_sealed() {
    let mut rig = Rig::on(DISPATCH);
    rig.talk(60);
    rig.end();
    let (sealed, recorded) = rig.recorded();
    assert_eq!(recorded.duration_ms(), 60);
    assert!(
        matches!(rig.events[..], [Event::RecordingStarted { recording, .. }] if recording == sealed.recording)
    );
}

#[test]
fn a_second_recording_closes_the_first() {
    let mut capture = Capture::new(CALL, settings());
    let mut frame = Frame {
        leg: Leg::A,
        epoch: Epoch(0),
        at: now(0),
        content: Content::Told { codec: Codec::Pcmu, timestamp: 0, question: false, payload: tone(440.0, 0) },
    };
    for id in [1, 2] {
        let target = Ok(new_recording(id, false));
        capture.on_command(now(0), CaptureCommand::OpenTap { permit: dispatch_permit(), target });
        frame.at = now(id as u64 * 20);
        capture.on_frame(&frame);
    }
    capture.on_command(now(100), CaptureCommand::End);
    let outputs: Vec<_> = std::iter::from_fn(|| capture.poll_output()).collect();
    let finished = outputs.iter().filter(|output| matches!(output, Output::Finish { .. })).count();
    assert_eq!(finished, 2);
}
