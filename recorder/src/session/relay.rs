//! One `m=` line between the two legs: from a datagram on one socket to a datagram on another.
//!
//! What an accepted packet of an audio stream counts for, by how well its source fits (`latch`):
//!
//! | | `Exact`, `SameIp` | `Foreign` |
//! |---|---|---|
//! | relayed and tapped | yes | yes |
//! | a key is a digit, and an answer | yes | no |
//! | the withdrawal code | withdrawn | withdrawn: the code's digits are reported, nothing else |
//! | the leg heard from during a notice | yes | no, and a notice sent there is not complete |
//! | after the answer | doubt if the fit has changed | doubt, once |

use std::net::{IpAddr, SocketAddr};

use consent::{Epoch, Leg, Notice, Now};
use rtp_rs::RtpReader;

use super::identity::Speaker;
use super::latch::{Described, Fit, Latch, Learning};
use super::numbering::{Numbering, Received, Sent};
use super::payload_type::{Kind, Meaning, PayloadTypes};
use super::playback::{Playback, Spoken};
use super::quality::{Arrival, Reception};
use super::rtcp::{REPORT_BYTES, Translation};
use super::telephone_event::EventPayload;
use super::{Facts, NoticeEnd, Outlet, Party, Path, Port, SplitMix};
use crate::frame::{Codec, Content, Frame, Key, PAYLOAD_BYTES, Payload};
use crate::{Event, LegStatistics, RemoteMedia};

/// Octets of the fixed RTP header (RFC 3550 §5.1).
const HEADER_BYTES: usize = 12;
/// RFC 5761 §4: a second octet in this range is an RTCP packet type.
const RTCP_TYPES: std::ops::RangeInclusive<u8> = 192..=223;
/// RFC 3551 names for the static numbers that telephones still use.
const STATIC_NAMES: [(u8, &str); 7] =
    [(0, "PCMU"), (3, "GSM"), (4, "G723"), (8, "PCMA"), (9, "G722"), (15, "G728"), (18, "G729")];

/// The encoding of a payload type that needs no description (RFC 3551 §6).
#[must_use]
pub fn static_encoding(payload_type: u8) -> Option<&'static str> {
    STATIC_NAMES.iter().find(|(number, _)| *number == payload_type).map(|(_, name)| *name)
}

/// A stream, and what is known of it at each leg.
#[derive(Debug)]
pub(super) struct Stream {
    ends: [End; 2],
}

/// One leg's end of a stream.
#[derive(Debug)]
struct End {
    description: Option<RemoteMedia>,
    rtp: Latch,
    rtcp: Latch,
    speaker: Speaker,
    fit: Option<Fit>,
    reception: Reception,
    received_types: [u32; 128],
    payload_types: PayloadTypes,
    numbering: Numbering,
    playback: Option<Playback>,
}

/// A valid RTP header and what its payload is.
#[derive(Clone, Copy, Debug)]
struct Header {
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    marker: bool,
    payload_type: u8,
    meaning: Meaning,
}

impl Stream {
    pub(super) fn new(random: &mut SplitMix) -> Self {
        Self { ends: [End::new(random), End::new(random)] }
    }

    /// Takes in a leg's description, which came from this IP; `None` for a stream that it refuses.
    pub(super) fn describe(
        &mut self,
        leg: Leg,
        signalled_from: IpAddr,
        description: Option<RemoteMedia>,
        announced: bool,
    ) {
        let end = &mut self.ends[leg.index()];
        let described = |address| Described { address, signalled_from };
        end.rtp.describe(description.as_ref().map(|media| described(media.rtp)), announced);
        end.rtcp.describe(description.as_ref().map(|media| described(media.rtcp)), announced);
        end.description = description;
        if announced {
            end.speaker.expect_change();
            end.fit = None;
        }
        let [a, b] = &mut self.ends;
        a.payload_types = PayloadTypes::new(a.description.as_ref(), b.description.as_ref());
        b.payload_types = PayloadTypes::new(b.description.as_ref(), a.description.as_ref());
    }

    /// Somebody else takes a leg's place with its next description.
    pub(super) fn bar_former(&mut self, leg: Leg) {
        let end = &mut self.ends[leg.index()];
        end.rtp.bar_former();
        end.rtcp.bar_former();
    }

    /// The call was answered: on each leg the speaker may change once.
    pub(super) fn expect_change_of_speakers(&mut self) {
        for end in &mut self.ends {
            end.speaker.expect_change();
        }
    }

    /// Whether it is audio for every leg that has described it, and one has.
    pub(super) fn is_audio(&self) -> bool {
        let mut described = self.ends.iter().filter_map(|end| end.description.as_ref()).peekable();
        described.peek().is_some() && described.all(|media| media.audio)
    }

    /// Whether both legs take part in it.
    pub(super) fn is_shared(&self) -> bool {
        self.ends.iter().all(|end| end.description.is_some())
    }

    pub(super) fn description(&self, leg: Leg) -> Option<&RemoteMedia> {
        self.ends[leg.index()].description.as_ref()
    }

    pub(super) fn playbacks(&self) -> impl Iterator<Item = &Playback> {
        self.ends.iter().filter_map(|end| end.playback.as_ref())
    }

    /// Begins or stops a notice; returns the one that it ends.
    pub(super) fn set_playback(&mut self, leg: Leg, playback: Option<Playback>) -> Option<Playback> {
        std::mem::replace(&mut self.ends[leg.index()].playback, playback)
    }

    /// What was received from a leg, all but the packets refused.
    pub(super) fn statistics(&self, leg: Leg) -> LegStatistics {
        let (end, other) = (&self.ends[leg.index()], &self.ends[leg.other().index()]);
        let codec = end.main_encoding(other);
        LegStatistics {
            packets: end.reception.packets(),
            lost: end.reception.lost(),
            jitter_ms: end.reception.jitter_ms(),
            mos: end.reception.mean_opinion(codec.as_deref().unwrap_or_default()),
            first_packet_at: end.reception.first_packet_at(),
            refused: 0,
            codec,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one packet's whole context, taken apart by the caller")]
    pub(super) fn on_packet(
        &mut self,
        facts: &Facts,
        party: &mut Party,
        tapped: bool,
        at: Now,
        path: Path,
        source: SocketAddr,
        packet: &mut [u8],
        out: &mut impl Outlet,
    ) {
        let opaque = facts.emergency || !self.is_audio();
        let [a, b] = &mut self.ends;
        let (from, to) = if path.leg == Leg::A { (a, b) } else { (b, a) };
        let mut crossing = Crossing { facts, party, from, to, at, path, source, tapped };
        let passed = if opaque {
            crossing.datagram(packet, out)
        } else if path.port == Port::Rtcp || packet.get(1).is_some_and(|octet| RTCP_TYPES.contains(octet)) {
            crossing.rtcp(packet, out)
        } else {
            crossing.rtp(packet, out)
        };
        if passed.is_none() {
            crossing.party.refused += 1;
        }
    }

    /// Sends the packets of a notice that are due to `path.leg`; how it ended, if it did.
    pub(super) fn play_on(
        &mut self,
        facts: &Facts,
        now: Now,
        path: Path,
        out: &mut impl Outlet,
    ) -> Option<NoticeEnd> {
        let end = &mut self.ends[path.leg.index()];
        loop {
            let (destination, strayed) = (end.destination(), end.rtp.is_foreign());
            let playback = end.playback.as_mut().filter(|playback| playback.due() <= now.mono)?;
            if strayed {
                playback.on_strayed();
            }
            let spoken = destination.and_then(|to| Some((to, playback.next(now.mono)?)));
            let Some((to, spoken)) = spoken else {
                let (notice, complete) = (playback.notice(), playback.is_complete());
                end.playback = None;
                return Some(NoticeEnd { notice, complete });
            };
            let (notice, format) = (playback.notice(), playback.format());
            let Facts { call, epoch, .. } = facts;
            let (leg, epoch) = (path.leg, epoch.current());
            end.speak(epoch, now, path, to, format, notice, &spoken, out);
            if spoken.first {
                out.report(Event::Playing { call: *call, leg, notice, epoch, at: now });
            }
        }
    }
}

/// A packet on its way from one end of a stream to the other.
struct Crossing<'a> {
    facts: &'a Facts,
    party: &'a mut Party,
    from: &'a mut End,
    to: &'a mut End,
    at: Now,
    path: Path,
    source: SocketAddr,
    tapped: bool,
}

/// `None`: the packet is refused.
type Passed = Option<()>;

impl Crossing<'_> {
    /// Anything, as it is.
    fn datagram(&mut self, packet: &[u8], out: &mut impl Outlet) -> Passed {
        let learning = if self.facts.emergency { Learning::AtOnce } else { Learning::Datagrams };
        self.admit(learning)?;
        if self.path.port == Port::Rtp
            && let Some(header) = self.from.header_of(packet)
        {
            self.from.receive(self.at, header);
        }
        let to = self.onward();
        let destination = match to.port {
            Port::Rtp => self.to.destination(),
            Port::Rtcp => self.to.rtcp.destination(),
        };
        if let Some(destination) = destination {
            out.send(to, destination, packet);
        }
        Some(())
    }

    /// RTCP, on its own port or multiplexed (RFC 5761).
    fn rtcp(&mut self, packet: &[u8], out: &mut impl Outlet) -> Passed {
        let fit = self.admit(Learning::Never)?;
        self.on_heard(fit);
        let mut report = [0; REPORT_BYTES];
        let translation = Translation {
            onward: &self.to.numbering,
            back: &self.from.numbering,
            source: &self.to.reception,
            cname: &self.facts.cname,
        };
        let length = translation.translate(packet, &mut report).ok()?;
        let to = self.onward();
        let latch = if to.port == Port::Rtp { &self.to.rtp } else { &self.to.rtcp };
        if let Some((destination, report)) = latch.destination().zip(report.get(..length))
            && length > 0
        {
            out.send(to, destination, report);
        }
        Some(())
    }

    /// RTP audio and telephone events.
    fn rtp(&mut self, packet: &mut [u8], out: &mut impl Outlet) -> Passed {
        let header = self.from.header_of(packet)?;
        let fit = self.admit(Learning::Stream { ssrc: header.ssrc, sequence: header.sequence })?;
        self.on_heard(fit);
        self.from.receive(self.at, header);
        self.watch_speaker(header, fit, out);
        let payload = RtpReader::new(packet).ok()?;
        let payload = payload.payload();
        let swallowed = if header.meaning.kind == Kind::TelephoneEvent {
            self.telephone_event(header, fit, payload, out);
            self.party.swallow
        } else {
            self.tap_audio(header, payload, out);
            false
        };
        self.forward(header, payload.len(), swallowed, packet, out);
        Some(())
    }

    fn admit(&mut self, learning: Learning) -> Option<Fit> {
        let End { rtp, rtcp, .. } = &mut *self.from;
        if self.path.port == Port::Rtcp {
            return rtcp.admit(self.at.mono, self.source, learning, rtp.held());
        }
        let fit = rtp.admit(self.at.mono, self.source, learning, None)?;
        if fit > Fit::Foreign {
            rtcp.forget_foreign();
        }
        Some(fit)
    }

    fn on_heard(&mut self, fit: Fit) {
        if fit > Fit::Foreign
            && let Some(playback) = &mut self.from.playback
        {
            playback.on_heard();
        }
    }

    /// Raises the epoch before anything of an unannounced speaker is stamped.
    fn watch_speaker(&mut self, header: Header, fit: Fit, out: &mut impl Outlet) {
        let Facts { call, epoch, answered, .. } = self.facts;
        let (at, source) = (self.at.mono, self.source);
        let unannounced = self.from.speaker.is_unannounced(at, source, header.ssrc, *answered);
        let unexplained = *answered && self.from.is_unexplained(fit);
        if unannounced || unexplained {
            let epoch = epoch.raise();
            self.party.doubt(*call, self.path.leg, at, epoch, out);
        }
    }

    fn telephone_event(&mut self, header: Header, fit: Fit, payload: &[u8], out: &mut impl Outlet) {
        let Some(event) = EventPayload::parse(payload) else { return };
        let is_evidence = fit > Fit::Foreign;
        let Header { ssrc, timestamp, meaning, .. } = header;
        if let Some(digit) = self.party.keypad.on_event(self.at.mono, ssrc, timestamp, event) {
            let began = event.began(self.at, meaning.clock_rate);
            self.party.press(self.facts, self.path.leg, began, digit, is_evidence, out);
        }
        let answer = event.key().filter(|_| self.party.swallow && is_evidence).map(Key);
        self.tap(Content::Digit { ssrc, timestamp, duration: event.duration, answer }, out);
    }

    fn tap_audio(&mut self, header: Header, payload: &[u8], out: &mut impl Outlet) {
        if !self.from.sends() || !out.wants_frames() {
            return;
        }
        let codec = match header.meaning.kind {
            Kind::Pcmu => Codec::Pcmu,
            Kind::Pcma => Codec::Pcma,
            Kind::ComfortNoise => Codec::ComfortNoise,
            Kind::TelephoneEvent | Kind::OtherAudio => Codec::Other,
        };
        let audio = Payload::copy_of(payload).filter(|_| matches!(codec, Codec::Pcmu | Codec::Pcma));
        let codec = if audio.is_none() && codec != Codec::ComfortNoise { Codec::Other } else { codec };
        let Header { ssrc, sequence, timestamp, marker, .. } = header;
        let payload = audio.unwrap_or(Payload::EMPTY);
        self.tap(Content::Rtp { codec, marker, sequence, timestamp, ssrc, payload }, out);
    }

    fn tap(&self, content: Content, out: &mut impl Outlet) {
        if self.tapped && out.wants_frames() {
            let epoch = self.facts.epoch.current();
            out.tap(Frame { leg: self.path.leg, epoch, at: self.at, content });
        }
    }

    fn forward(
        &mut self,
        header: Header,
        payload_octets: usize,
        swallowed: bool,
        packet: &mut [u8],
        out: &mut impl Outlet,
    ) {
        let received = header.received();
        let Some(destination) = self.to.destination().filter(|_| self.to.playback.is_none()) else {
            return self.to.numbering.pause();
        };
        if swallowed {
            return self.to.numbering.withhold(received);
        }
        if let Some(sent) = self.to.numbering.forward(self.at.mono, received) {
            write_header(packet, header.marker, header.meaning.onward, sent);
            self.to.numbering.count(payload_octets);
            out.send(self.onward(), destination, packet);
        }
    }

    fn onward(&self) -> Path {
        Path { leg: self.path.leg.other(), ..self.path }
    }
}

impl End {
    fn new(random: &mut SplitMix) -> Self {
        let (ssrc, sequence, timestamp) = (random.next() as u32, random.next() as u16, random.next() as u32);
        Self {
            description: None,
            rtp: Latch::default(),
            rtcp: Latch::default(),
            speaker: Speaker::default(),
            fit: None,
            reception: Reception::default(),
            received_types: [0; 128],
            payload_types: PayloadTypes::new(None, None),
            numbering: Numbering::new(ssrc, sequence, timestamp),
            playback: None,
        }
    }

    /// Takes in the fit of a packet after the answer; true if it is a reason for doubt.
    fn is_unexplained(&mut self, fit: Fit) -> bool {
        let before = self.fit.replace(fit);
        before.map_or(fit == Fit::Foreign, |before| fit != before)
    }

    fn sends(&self) -> bool {
        self.description.as_ref().is_some_and(|media| media.sends)
    }

    /// Where media for the leg goes, if it wants any.
    fn destination(&self) -> Option<SocketAddr> {
        let wanted = self.description.as_ref().is_some_and(|media| media.receives);
        self.rtp.destination().filter(|_| wanted)
    }

    /// The header of a valid RTP packet with a payload type that somebody has described. RFC 7983 has
    /// STUN, ZRTP and DTLS outside RTP's version bits.
    fn header_of(&self, packet: &[u8]) -> Option<Header> {
        let reader = RtpReader::new(packet).ok()?;
        let payload_type = reader.payload_type();
        let meaning = self.payload_types.meaning(payload_type)?;
        let (ssrc, sequence) = (reader.ssrc(), reader.sequence_number().into());
        let (timestamp, marker) = (reader.timestamp(), reader.mark());
        Some(Header { ssrc, sequence, timestamp, marker, payload_type, meaning })
    }

    fn receive(&mut self, at: Now, header: Header) {
        let Received { ssrc, sequence, timestamp, clock_rate, timed } = header.received();
        let timestamp = timed.then_some(timestamp);
        self.reception.on_packet(at, Arrival { ssrc, sequence, timestamp, clock_rate });
        let count = &mut self.received_types[usize::from(header.payload_type & 0x7f)];
        *count = count.saturating_add(1);
    }

    /// The encoding that most of its packets had.
    fn main_encoding(&self, other: &Self) -> Option<String> {
        let (number, count) = (0u8..).zip(self.received_types).max_by_key(|(_, count)| *count)?;
        let described = [other, self].into_iter().filter_map(|end| end.description.as_ref());
        let mut formats = described.flat_map(|media| &media.formats);
        let named =
            formats.find(|format| format.payload_type == number).map(|format| format.encoding.clone());
        named.or_else(|| static_encoding(number).map(str::to_owned)).filter(|_| count > 0)
    }

    #[expect(clippy::too_many_arguments, reason = "one packet's whole context")]
    fn speak(
        &mut self,
        epoch: Epoch,
        at: Now,
        path: Path,
        to: SocketAddr,
        (payload_type, law): (u8, Kind),
        notice: Notice,
        spoken: &Spoken,
        out: &mut impl Outlet,
    ) {
        let audio = &spoken.audio[..spoken.length];
        let sent = self.numbering.insert(at.mono, audio.len() as u32, spoken.first);
        let mut packet = [0; HEADER_BYTES + PAYLOAD_BYTES];
        packet[0] = 0x80;
        packet[HEADER_BYTES..][..audio.len()].copy_from_slice(audio);
        let packet = &mut packet[..HEADER_BYTES + audio.len()];
        write_header(packet, false, payload_type, sent);
        self.numbering.count(audio.len());
        out.send(path, to, packet);
        let codec = if law == Kind::Pcma { Codec::Pcma } else { Codec::Pcmu };
        if let Some(payload) = Payload::copy_of(audio).filter(|_| out.wants_frames()) {
            let question = notice == Notice::Question;
            let content = Content::Told { codec, timestamp: sent.timestamp, question, payload };
            out.tap(Frame { leg: path.leg, epoch, at, content });
        }
    }
}

impl Header {
    fn received(&self) -> Received {
        Received {
            ssrc: self.ssrc,
            sequence: self.sequence,
            timestamp: self.timestamp,
            clock_rate: self.meaning.clock_rate,
            timed: self.meaning.kind != Kind::TelephoneEvent,
        }
    }
}

/// Writes our identity over a header; padding, CSRCs, extension and payload stay bit for bit.
fn write_header(packet: &mut [u8], marker: bool, payload_type: u8, sent: Sent) {
    let Some(header) = packet.first_chunk_mut::<HEADER_BYTES>() else { return };
    header[1] = payload_type & 0x7f | if marker || sent.joined { 0x80 } else { 0 };
    header[2..4].copy_from_slice(&sent.sequence.to_be_bytes());
    header[4..8].copy_from_slice(&sent.timestamp.to_be_bytes());
    header[8..12].copy_from_slice(&sent.ssrc.to_be_bytes());
}
