//! From what the planes say to what the record holds.

use consent::{Basis, CallId, E164, Leg, RecordingOutcome, RetentionTag};
use recorder::{LegStatistics, RemoteMedia, Sealed, StreamFormat};
use sip_gateway::{Cause, End, EndedBy, Flow, Ladder, MediaKind, StreamMedia, Validation, Verdict};
use storage::{
    Attestation, CallEnded, EndCause, Entry, IdentityVerdict, LadderPart, LegMediaRecord, Outcome,
    RecordingRow, Rung, Verstat,
};

/// RFC 4566: what is meant where `a=ptime` is silent, for all codecs of telephony.
const DEFAULT_PTIME_MS: u32 = 20;

/// The tag of the call record itself.
#[expect(clippy::expect_used, reason = "both literals are well-formed tags")]
pub(super) fn call_tag(emergency: bool) -> RetentionTag {
    let tag = if emergency { "RT-CDR-911" } else { "RT-CDR" };
    RetentionTag::try_from(tag.to_owned()).expect("a literal tag")
}

/// What the channels of a recording are called, caller's leg first.
pub(super) fn channels(line_leg: Leg) -> [String; 2] {
    Leg::BOTH.map(|leg| {
        let role = if leg == Leg::A { "caller" } else { "callee" };
        let side = if leg == line_leg { "line" } else { "other party" };
        format!("{role} ({side})")
    })
}

pub(super) fn remote_media(stream: &StreamMedia) -> Option<RemoteMedia> {
    let (rtp, rtcp) = (stream.rtp?, stream.rtcp?);
    Some(RemoteMedia {
        rtp,
        rtcp,
        audio: stream.kind == MediaKind::Audio,
        sends: matches!(stream.flow, Flow::SendRecv | Flow::SendOnly),
        receives: matches!(stream.flow, Flow::SendRecv | Flow::RecvOnly),
        formats: stream
            .formats
            .iter()
            .map(|format| StreamFormat {
                payload_type: format.payload_type,
                encoding: format.encoding.clone(),
                clock_rate: format.clock_rate,
            })
            .collect(),
        ptime_ms: stream.ptime_ms.unwrap_or(DEFAULT_PTIME_MS),
    })
}

pub(super) fn ended(
    call: CallId,
    end: &End,
    answered: bool,
    recording_outcome: RecordingOutcome,
    basis: Option<Basis>,
    statistics: Option<&[LegStatistics; 2]>,
) -> CallEnded {
    CallEnded {
        call,
        outcome: outcome(end, answered),
        final_status: end.final_status,
        ended_by: end.by.map(|by| {
            match by {
                EndedBy::Caller => "caller",
                EndedBy::Callee => "callee",
                EndedBy::Gateway => "gateway",
            }
            .to_owned()
        }),
        end_cause: end.cause.map(|cause| match cause {
            Cause::SessionExpired => EndCause::SessionExpired,
        }),
        recording_outcome,
        basis,
        media: statistics.map_or_else(Default::default, |legs| {
            [&legs[0], &legs[1]].map(|leg| LegMediaRecord {
                codec: leg.codec.clone(),
                packets: leg.packets,
                lost: leg.lost,
                jitter_ms: leg.jitter_ms,
                mos: leg.mos,
            })
        }),
    }
}

pub(super) fn verdict(verdict: Verdict) -> IdentityVerdict {
    IdentityVerdict {
        verstat: match verdict.validation {
            Validation::Passed => Verstat::Passed,
            Validation::Failed => Verstat::Failed,
            Validation::NotDone => Verstat::NotDone,
        },
        attestation: verdict.attestation.map(|attestation| match attestation {
            sip_gateway::Attestation::Full => Attestation::A,
            sip_gateway::Attestation::Partial => Attestation::B,
            sip_gateway::Attestation::Gateway => Attestation::C,
        }),
    }
}

/// The contract's outcome of a call by its final status (RFC 3261 §21).
fn outcome(end: &End, answered: bool) -> Outcome {
    if answered {
        return Outcome::Answered;
    }
    if end.cancelled {
        return Outcome::Cancelled;
    }
    match end.final_status {
        Some(486 | 600) => Outcome::Busy,
        Some(408 | 480 | 487) => Outcome::NoAnswer,
        Some(401..=403 | 405 | 407 | 433 | 603 | 607 | 608) => Outcome::Rejected,
        _ => Outcome::Failed,
    }
}

/// A recording without a single interval has no basis, and so is not one.
pub(super) fn stored(sealed: &Sealed, line: Option<E164>, object: String) -> Entry {
    let Some(first) = sealed.intervals.first() else {
        return Entry::RecordingFailed { call: sealed.call, recording: Some(sealed.recording) };
    };
    Entry::RecordingStored(Box::new(RecordingRow {
        id: sealed.recording,
        call: sealed.call,
        line,
        started_at: sealed.started_at,
        ended_at: sealed.ended_at,
        duration_s: sealed.duration_s,
        basis: first.basis,
        rule_version: first.rule_version,
        channels: sealed.channels.clone(),
        codec: sealed.codec.clone(),
        bytes: sealed.bytes,
        sha256: sealed.sha256.clone(),
        retention: sealed.retention.clone(),
        object,
        wrapped_key: hex::encode(&sealed.wrapped_key),
        intervals: sealed.intervals.clone(),
        gaps: sealed.gaps.clone(),
        quarantine: Vec::new(),
    }))
}

pub(super) fn ladder(ladder: Ladder) -> Entry {
    let rungs = ladder.rungs.into_iter().map(|rung| {
        let sip_gateway::Rung { position, after_ms, leg, peer, sent, message, method, sdp, repeats } = rung;
        Rung { position, after_ms, leg, peer, sent, message, method, sdp, repeats }
    });
    Entry::CallLadder(Box::new(LadderPart {
        call: ladder.call,
        rungs: rungs.collect(),
        left_out: ladder.left_out,
    }))
}

pub(super) fn found(sealed: &Sealed) -> Option<Entry> {
    let basis = sealed.intervals.first()?.basis;
    let Sealed { call, recording, ended_at, .. } = *sealed;
    Some(Entry::RecordingFound { call, recording, basis, ended_at })
}
