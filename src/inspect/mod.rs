//! A capture read: the ladders of its calls, what its media were like, and what the rules would have said.
//!
//! It is read once, from its beginning, and never as a whole in memory: what is kept of it is bounded, and
//! what is left out is counted and said.

mod capture;
mod judge;
mod media;
mod packet;
mod signalling;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use consent::Wall;
use serde::Serialize;
use sip_gateway::Limits;
use sip_gateway::wire::{Message, parse_datagram};
use storage::Utc;

use self::capture::{CaptureError, Ending};
pub(crate) use self::judge::{Finding, Judgement};
use self::media::Media;
use self::packet::Packet;
use self::signalling::{Dialogue, Signalling, begins_as_sip};
use self::stream::Streams;
use crate::config::Config;

/// What a message of a capture may be like: as large as a datagram.
const LIMITS: Limits = Limits {
    max_calls: 1,
    max_message_bytes: 65_535,
    max_headers: 256,
    max_streams: 1,
    requests_per_s: None,
};

/// What a capture shows.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) packets: u64,
    pub(crate) began_at: Option<String>,
    pub(crate) ended_at: Option<String>,
    /// What could not be read, or was left out.
    pub(crate) remarks: Vec<String>,
    pub(crate) calls: Vec<CallReport>,
    /// Dialogues without an INVITE, by the method that they began with.
    pub(crate) other_exchanges: BTreeMap<String, u64>,
    pub(crate) streams: Vec<StreamReport>,
}

/// One Call-ID.
#[derive(Debug, Serialize)]
pub(crate) struct CallReport {
    /// Null where numbers are masked: some telephones put one into it.
    pub(crate) call_id: Option<String>,
    pub(crate) began_at: String,
    pub(crate) rungs: Vec<RungReport>,
    pub(crate) left_out: u32,
    /// Null without a configuration, or where the capture began in the midst of the call.
    pub(crate) rules: Option<Judgement>,
}

/// One message.
#[derive(Debug, Serialize)]
pub(crate) struct RungReport {
    pub(crate) after_ms: u64,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) message: String,
    pub(crate) method: String,
    pub(crate) sdp: bool,
    pub(crate) repeats: u32,
}

/// One stream of RTP.
#[derive(Debug, Serialize)]
pub(crate) struct StreamReport {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) ssrc: u32,
    pub(crate) codec: String,
    pub(crate) packets: u64,
    pub(crate) lost: u64,
    pub(crate) jitter_ms: f64,
    pub(crate) mos: Option<f64>,
    pub(crate) duration_s: f64,
    /// Index into `calls` of the call whose description announced it.
    pub(crate) call: Option<usize>,
}

/// Why a file was not inspected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectError {
    /// It cannot be opened.
    #[error("cannot open it")]
    Open(#[source] io::Error),
    /// It is no capture.
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

/// What is counted beside the findings.
#[derive(Default)]
struct Tally {
    packets: u64,
    span: Option<(Wall, Wall)>,
    fragments: u64,
    cut_short: u64,
    unknown_link: u64,
    unreadable: u64,
}

#[derive(Default)]
struct Reading {
    signalling: Signalling,
    media: Media,
    streams: Streams,
    tally: Tally,
}

/// Reads a capture.
///
/// # Errors
/// If the file cannot be opened or is no capture.
pub(crate) fn inspect(file: &Path, config: Option<&Config>, masked: bool) -> Result<Report, InspectError> {
    let file = File::open(file).map_err(InspectError::Open)?;
    let mut reading = Reading::default();
    reading.signalling.masked = masked;
    let ending = capture::read(file, |frame| reading.take(&frame))?;
    Ok(reading.report(ending, config))
}

impl Reading {
    fn take(&mut self, frame: &capture::Frame<'_>) {
        let at = Wall(frame.at_us);
        self.tally.packets += 1;
        let (first, last) = self.tally.span.unwrap_or((at, at));
        self.tally.span = Some((first.min(at), last.max(at)));
        match packet::read(frame.link, frame.bytes) {
            Packet::Udp { from, to, payload } if begins_as_sip(payload) => {
                match parse_datagram(&Bytes::copy_from_slice(payload), &LIMITS) {
                    Ok(message) => heard(&mut self.signalling, &mut self.media, at, (from, to), &message),
                    Err(_) => self.tally.unreadable += 1,
                }
            }
            Packet::Udp { from, to, payload } => self.media.take(at, from, to, payload),
            Packet::Tcp(segment) => {
                let between = (segment.from, segment.to);
                let (signalling, media) = (&mut self.signalling, &mut self.media);
                let each = |message| heard(signalling, media, at, between, &message);
                self.streams.take(&segment, &LIMITS, each);
            }
            Packet::Fragment => self.tally.fragments += 1,
            Packet::CutShort => self.tally.cut_short += 1,
            Packet::UnknownLink => self.tally.unknown_link += 1,
            Packet::Other => {}
        }
    }

    fn report(mut self, ending: Ending, config: Option<&Config>) -> Report {
        let last = self.tally.span.map_or(Wall(0), |(_, last)| last);
        let (signalling, media) = (&mut self.signalling, &mut self.media);
        self.streams
            .finish(&LIMITS, |from, to, message| heard(signalling, media, last, (from, to), &message));
        let mut calls = Vec::new();
        let mut place = BTreeMap::new();
        for (index, dialogue) in self.signalling.dialogues.iter().enumerate() {
            if dialogue.is_call() {
                place.insert(index, calls.len());
                calls.push(call_report(dialogue, config, self.signalling.masked));
            }
        }
        Report {
            packets: self.tally.packets,
            began_at: self.tally.span.map(|(first, _)| Utc(first).to_string()),
            ended_at: self.tally.span.map(|(_, last)| Utc(last).to_string()),
            remarks: self.remarks(ending),
            calls,
            other_exchanges: self.signalling.others(),
            streams: self.media.streams().map(|stream| stream_report(stream, &place)).collect(),
        }
    }

    fn remarks(&self, ending: Ending) -> Vec<String> {
        let mut remarks = Vec::new();
        match ending {
            Ending::Whole => {}
            Ending::CutShort => {
                remarks.push("the file is cut short; what comes before that is shown".to_owned())
            }
            Ending::Damaged => {
                remarks.push("the file is damaged; what comes before that is shown".to_owned())
            }
        }
        let tally = &self.tally;
        let counted = [
            (tally.fragments, "fragments of IP packets were passed over"),
            (tally.cut_short, "packets were captured only in part and passed over"),
            (tally.unknown_link, "packets are of a link layer that is not known here"),
            (tally.unreadable, "messages that begin as SIP cannot be read"),
            (self.streams.gaps, "gaps in TCP connections that carry SIP"),
            (self.streams.left_out, "TCP segments of connections beyond the first 4096 were left out"),
            (self.signalling.left_out, "SIP messages of Call-IDs beyond the first 10000 were left out"),
            (self.media.left_out, "packets of RTP streams beyond the first 4096 were left out"),
        ];
        let counted = counted.into_iter().filter(|(count, _)| *count > 0);
        remarks.extend(counted.map(|(count, what)| format!("{count} {what}")));
        remarks
    }
}

fn heard(
    signalling: &mut Signalling,
    media: &mut Media,
    at: Wall,
    between: (SocketAddr, SocketAddr),
    message: &Message,
) {
    if let Some((dialogue, described)) = signalling.take(at, between, message) {
        media.describe(dialogue, &described);
    }
}

fn call_report(dialogue: &Dialogue, config: Option<&Config>, masked: bool) -> CallReport {
    let rungs = dialogue.rungs.iter().map(|rung| RungReport {
        after_ms: u64::try_from(rung.at.0 - dialogue.began.0).unwrap_or(0) / 1_000,
        from: rung.from,
        to: rung.to,
        message: rung.message.clone(),
        method: rung.method.clone(),
        sdp: rung.sdp,
        repeats: rung.repeats,
    });
    let judged = dialogue.invite.as_ref().zip(config);
    let mut rules =
        judged.map(|((from, invite), config)| judge::judge(config, *from, invite, dialogue.began));
    if let Some(Judgement::Call(finding)) = rules.as_mut().filter(|_| masked) {
        finding.line = None;
    }
    CallReport {
        call_id: (!masked).then(|| dialogue.call_id.clone()),
        began_at: Utc(dialogue.began).to_string(),
        rungs: rungs.collect(),
        left_out: dialogue.left_out,
        rules,
    }
}

fn stream_report(stream: &media::Stream, calls: &BTreeMap<usize, usize>) -> StreamReport {
    let codec = stream.codec();
    StreamReport {
        from: stream.from,
        to: stream.to,
        ssrc: stream.ssrc,
        packets: stream.reception.packets(),
        lost: stream.reception.lost(),
        jitter_ms: stream.reception.jitter_ms(),
        mos: stream.reception.mean_opinion(&codec),
        duration_s: stream.duration_s(),
        call: stream.dialogue.and_then(|dialogue| calls.get(&dialogue).copied()),
        codec,
    }
}
