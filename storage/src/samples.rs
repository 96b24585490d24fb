//! Calls for the tests, entry by entry.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use consent::{
    Basis, CallId, Decision, Direction, Evidence, Gap, GapCause, GateState, Interval, Leg, LineClass,
    PartyConsent, PartyState, Phase, Reason, RecordingId, RecordingOutcome, RetentionTag, RuleVersion,
    Signal, SignalMeaning, SignalSource, Wall,
};

use crate::{
    Attestation, CallEnded, CallStarted, ElsewhereState, Entry, IdentityVerdict, LadderPart, LegMediaRecord,
    Outcome, RecordingRow, Rung, Stamped, Verstat,
};

/// 2026-11-22T18:00:00.123456Z.
pub(crate) const START: Wall = Wall(1_795_370_400_123_456);

pub(crate) fn call(n: u128) -> CallId {
    CallId(0x019a_0000_0000_7000_8000_0000_0000_0000 + n)
}

pub(crate) fn recording(n: u128) -> RecordingId {
    RecordingId(0x019b_0000_0000_7000_8000_0000_0000_0000 + n)
}

pub(crate) fn tag(text: &str) -> RetentionTag {
    RetentionTag::try_from(text.to_owned()).unwrap()
}

pub(crate) fn at(ms: i64, entry: Entry) -> Stamped {
    Stamped { at: Wall(START.0 + ms * 1_000), entry }
}

pub(crate) fn started(n: u128, class: LineClass) -> Entry {
    Entry::CallStarted(Box::new(CallStarted {
        call: call(n),
        node: "gw1".into(),
        line: Some("+18607427331".parse().unwrap()),
        line_class: class,
        retention: tag("RT-CDR"),
        direction: Direction::Inbound,
        from: Some("+18605550123".into()),
        to: Some("+18607427331".into()),
        privacy: false,
        emergency: false,
        identity_verdict: None,
        foreign_caller_id: false,
        sip_call_id: format!("a{n}@caller"),
        linked_calls: vec![call(900)],
    }))
}

pub(crate) fn decision(
    ms: i64,
    gate: GateState,
    reason: Reason,
    consents: &[(Leg, PartyConsent)],
) -> Decision {
    let at = Wall(START.0 + ms * 1_000);
    let basis = match reason {
        Reason::DispatchLine => Some(Basis::DispatchLine),
        Reason::AllAgreed => Some(Basis::AllPartyConsent),
        _ => None,
    };
    Decision {
        at,
        gate,
        basis,
        clause: "POL-DISPATCH".into(),
        rule_version: RuleVersion(1),
        reason,
        parties: consents.iter().map(|&(leg, consent)| PartyState { leg, ordinal: 0, consent }).collect(),
        evidence: vec![Evidence { at, leg: Some(Leg::B), what: "the line is of class dispatch".into() }],
        otherwise: "another line".into(),
    }
}

pub(crate) fn stored(n: u128, of: u128) -> RecordingRow {
    RecordingRow {
        id: recording(n),
        call: call(of),
        line: Some("+18607427331".parse().unwrap()),
        started_at: Wall(START.0 + 1_000_000),
        ended_at: Wall(START.0 + 5_000_000),
        duration_s: 4.0,
        basis: Basis::DispatchLine,
        rule_version: RuleVersion(1),
        channels: vec!["caller".into(), "dispatch".into()],
        codec: "opus".into(),
        bytes: 4711,
        sha256: "ab".repeat(32),
        retention: tag("RT-DISP-ROUTINE"),
        object: format!("2026/11/{}.earmark", recording(n)),
        wrapped_key: "00ff".into(),
        intervals: vec![Interval {
            from_s: 0.0,
            to_s: 4.0,
            basis: Basis::DispatchLine,
            clause: "c".into(),
            rule_version: RuleVersion(1),
            phase: Phase::Answered,
        }],
        gaps: vec![Gap { from_s: 1.0, to_s: 1.5, cause: GapCause::Loss, leg: Some(Leg::B) }],
        quarantine: vec![],
    }
}

pub(crate) fn ended(n: u128, recording_outcome: RecordingOutcome, basis: Option<Basis>) -> Entry {
    let media = LegMediaRecord {
        codec: Some("PCMU".into()),
        packets: 200,
        lost: 1,
        jitter_ms: 0.25,
        mos: Some(4.25),
    };
    Entry::CallEnded(Box::new(CallEnded {
        call: call(n),
        outcome: Outcome::Answered,
        final_status: Some(200),
        ended_by: Some("caller".into()),
        end_cause: None,
        recording_outcome,
        basis,
        media: [media, LegMediaRecord::default()],
    }))
}

/// A dispatch call of a verified caller, recorded from its answer to its end.
pub(crate) fn dispatch_call(n: u128) -> Vec<Stamped> {
    let id = call(n);
    let row = stored(n, n);
    let mut began = at(0, started(n, LineClass::Dispatch));
    if let Entry::CallStarted(started) = &mut began.entry {
        let attestation = Some(Attestation::A);
        started.identity_verdict = Some(IdentityVerdict { verstat: Verstat::Passed, attestation });
    }
    vec![
        began,
        at(10, Entry::CallRouted { call: id, sip_call_id: format!("b{n}@gw1") }),
        at(100, Entry::CallRinging { call: id }),
        at(1_000, Entry::CallAnswered { call: id }),
        at(
            1_000,
            Entry::Decided {
                call: id,
                decision: decision(1_000, GateState::Open, Reason::DispatchLine, &[]),
            },
        ),
        at(
            1_020,
            Entry::RecordingStarted {
                call: id,
                recording: row.id,
                basis: row.basis,
                retention: row.retention.clone(),
            },
        ),
        at(
            5_000,
            Entry::Decided { call: id, decision: decision(5_000, GateState::Shut, Reason::Ended, &[]) },
        ),
        at(5_100, Entry::RecordingStored(Box::new(row))),
        at(5_200, ended(n, RecordingOutcome::Recorded, Some(Basis::DispatchLine))),
    ]
}

/// A consent call: both agree, an idle digit, then the callee withdraws.
pub(crate) fn consent_call(n: u128) -> Vec<Stamped> {
    use PartyConsent::{Asked, Given, Withdrawn};
    let id = call(n);
    let decided = |ms, gate, reason, a, b| {
        at(ms, Entry::Decided { call: id, decision: decision(ms, gate, reason, &[(Leg::A, a), (Leg::B, b)]) })
    };
    let signalled = |ms: i64, leg, meaning, source, effective| {
        let at = Wall(START.0 + ms * 1_000);
        let signal = Signal { at, leg, ordinal: 0, meaning, source, effective };
        Stamped { at, entry: Entry::Signalled { call: id, signal } }
    };
    vec![
        at(0, started(n, LineClass::Consent)),
        at(1_000, Entry::CallAnswered { call: id }),
        at(
            1_001,
            Entry::PartyJoined { call: id, leg: Leg::B, ordinal: 0, identity: Some("+18607427310".into()) },
        ),
        decided(1_002, GateState::Shut, Reason::Asking, Asked, Asked),
        at(2_500, Entry::RecordedElsewhere { call: id, leg: Leg::B, state: ElsewhereState::On }),
        signalled(3_000, Leg::A, SignalMeaning::Accept, SignalSource::TelephoneEvent, true),
        signalled(4_000, Leg::B, SignalMeaning::Accept, SignalSource::Info, true),
        decided(4_000, GateState::Open, Reason::AllAgreed, Given, Given),
        signalled(6_000, Leg::A, SignalMeaning::Decline, SignalSource::InBand, false),
        signalled(9_000, Leg::B, SignalMeaning::Withdraw, SignalSource::Info, true),
        decided(9_000, GateState::Shut, Reason::Withdrawn, Given, Withdrawn),
        at(9_500, Entry::PreambleWiped { call: id, held_ms: 1_000, reason: Reason::Withdrawn }),
        at(12_000, ended(n, RecordingOutcome::Withdrawn, Some(Basis::AllPartyConsent))),
    ]
}

pub(crate) fn rung(position: u16, message: &str, repeats: u32) -> Rung {
    Rung {
        position,
        after_ms: u32::from(position) * 10,
        leg: if position.is_multiple_of(2) { Leg::A } else { Leg::B },
        peer: "carrier".into(),
        sent: position % 2 == 1,
        message: message.into(),
        method: "INVITE".into(),
        sdp: position < 2,
        repeats,
    }
}

pub(crate) fn ladder(n: u128, rungs: &[Rung], left_out: u32) -> Entry {
    Entry::CallLadder(Box::new(LadderPart { call: call(n), rungs: rungs.to_vec(), left_out }))
}
