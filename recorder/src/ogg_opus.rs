//! Ogg Opus (RFC 7845) as a recording holds it: 8 kHz, two channels, one party each, 20 ms packets.
//!
//! `Encoder` makes pages as the audio comes, so that everything up to the last page can be played after a
//! crash, and `closing_page` ends such a stream without the encoder. [`PcmReader`] reads a stream back.
//! Left out: chaining, channel mappings other than mono and stereo, output gain, DTX (silence is a fact and
//! is encoded as one).

use std::io::Cursor;

use opus::{Application, Bitrate, Channels};

/// Sample rate of recordings in Hz: that of the telephone network, which Opus takes as it is.
pub const SAMPLE_RATE: u32 = 8_000;
/// Samples of one channel in an Opus packet: 20 ms, the packet time of telephones.
pub const PACKET_SAMPLES: usize = 160;
/// Channels of a recording: the caller's leg left, the callee's right.
pub const CHANNELS: usize = 2;
/// One packet's samples of both channels, interleaved.
pub(crate) type StereoPacket = [i16; PACKET_SAMPLES * CHANNELS];

/// Ogg Opus counts time at 48 kHz whatever the input's rate (RFC 7845 §4).
const GRANULE_PER_SAMPLE: u64 = 6;
const GRANULE_PER_PACKET: u64 = PACKET_SAMPLES as u64 * GRANULE_PER_SAMPLE;
/// 32 kbit/s in two channels carries telephone speech without audible loss.
const BIT_RATE: i32 = 32_000;
const COMPLEXITY: i32 = 10;
/// The most that an Opus packet of one frame may take (RFC 6716 §3.2.1).
const PACKET_BYTES_MAX: usize = 1_275;
/// Pages of a second: longer ones make seeking coarse, and no more than 255 lacing values fit into one
/// (RFC 3533 §6).
const SILENT_PACKETS_PER_PAGE: u64 = 50;
/// Packets of silence after which the encoder's state has come to rest.
const SETTLING_PACKETS: u64 = 5;
/// A SILK narrowband stereo 20 ms packet with an empty frame (RFC 6716 §3.1, code 0): the decoder conceals it.
const EMPTY_PACKET: [u8; 1] = [0b0000_1100];

const CONTINUES: u8 = 0;
const BEGINS_STREAM: u8 = 0x02;
const ENDS_STREAM: u8 = 0x04;

/// The Opus encoder refused a setting or a packet.
#[derive(Debug, thiserror::Error)]
#[error("the Opus encoder failed")]
pub struct EncodeError {
    #[source]
    source: opus::Error,
}

/// Why a stream cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The Ogg framing is broken.
    #[error("not a sound Ogg stream")]
    Ogg {
        /// What the reader found.
        #[source]
        source: ogg::OggReadError,
    },
    /// The first packet is not an identification header for mono or stereo (RFC 7845 §5.1).
    #[error("no Opus identification header for one or two channels")]
    Head,
    /// A packet is not Opus.
    #[error("packet {packet} is not Opus")]
    Packet {
        /// Counted from 0, headers left out.
        packet: u64,
        /// What the decoder found.
        #[source]
        source: opus::Error,
    },
}

/// Encodes one recording. Bytes come out a page at a time.
#[derive(Debug)]
pub(crate) struct Encoder {
    opus: opus::Encoder,
    serial: u32,
    next_page: u32,
    lookahead: u64,
    /// Packets in pages already handed out.
    paged: u64,
    packets: Vec<u8>,
    lengths: Vec<usize>,
}

impl Encoder {
    /// A fresh encoder and the two header pages of its stream.
    pub(crate) fn new(serial: u32, recording: &str) -> Result<(Self, Vec<u8>), EncodeError> {
        let failed = |source| EncodeError { source };
        let mut opus =
            opus::Encoder::new(SAMPLE_RATE, Channels::Stereo, Application::Voip).map_err(failed)?;
        opus.set_bitrate(Bitrate::Bits(BIT_RATE)).map_err(failed)?;
        opus.set_complexity(COMPLEXITY).map_err(failed)?;
        opus.set_vbr(true).map_err(failed)?;
        opus.set_dtx(false).map_err(failed)?;
        let lookahead = u64::try_from(opus.get_lookahead().map_err(failed)?).unwrap_or_default();
        let mut encoder = Self {
            opus,
            serial,
            next_page: 0,
            lookahead,
            paged: 0,
            packets: Vec::new(),
            lengths: Vec::new(),
        };
        let mut pages = Vec::with_capacity(256);
        let head = identification_header(lookahead * GRANULE_PER_SAMPLE);
        encoder.write_page(&mut pages, BEGINS_STREAM, 0, &[head.len()], &head);
        let tags = comment_header(recording);
        encoder.write_page(&mut pages, CONTINUES, 0, &[tags.len()], &tags);
        Ok((encoder, pages))
    }

    /// Encodes 20 ms; they wait for the next page.
    pub(crate) fn push(&mut self, pcm: &StereoPacket) -> Result<(), EncodeError> {
        let start = self.packets.len();
        self.packets.resize(start + PACKET_BYTES_MAX, 0);
        let length =
            self.opus.encode(pcm, &mut self.packets[start..]).map_err(|source| EncodeError { source });
        let length = length.inspect_err(|_| self.packets.truncate(start))?;
        self.packets.truncate(start + length);
        self.lengths.push(length);
        Ok(())
    }

    /// Packets that wait for the next page.
    pub(crate) fn waiting(&self) -> usize {
        self.lengths.len()
    }

    /// Samples of a channel that are in pages and can be played whatever follows.
    pub(crate) fn playable_samples(&self) -> u64 {
        (self.paged * PACKET_SAMPLES as u64).saturating_sub(self.lookahead)
    }

    /// Puts what waits into a page.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) {
        if !self.lengths.is_empty() {
            self.take_page(out, CONTINUES, None);
        }
    }

    /// Appends `packets` of silence and flushes. Silence of hours costs the encoder nothing: once its state
    /// has come to rest, the packet that it made last is repeated.
    pub(crate) fn silence(&mut self, packets: u64, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let settling = packets.min(SETTLING_PACKETS);
        for _ in 0..settling {
            self.push(&[0; PACKET_SAMPLES * CHANNELS])?;
        }
        let last = self.lengths.last().copied().unwrap_or_default();
        let silent = self.packets[self.packets.len() - last..].to_vec();
        self.flush(out);
        let mut left = packets - settling;
        while left > 0 {
            let count = left.min(SILENT_PACKETS_PER_PAGE);
            for _ in 0..count {
                self.packets.extend_from_slice(&silent);
                self.lengths.push(silent.len());
            }
            self.flush(out);
            left -= count;
        }
        Ok(())
    }

    /// Ends the stream so that it plays exactly `samples` of each channel (RFC 7845 §4.5). All of them have
    /// been pushed.
    pub(crate) fn finish(mut self, samples: u64, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        while (self.paged + self.lengths.len() as u64) * (PACKET_SAMPLES as u64) < samples + self.lookahead
            || self.lengths.is_empty()
        {
            self.push(&[0; PACKET_SAMPLES * CHANNELS])?;
        }
        self.take_page(out, ENDS_STREAM, Some((samples + self.lookahead) * GRANULE_PER_SAMPLE));
        Ok(())
    }

    /// Ends the stream at its last page and throws away what waits. Returns the samples it plays.
    pub(crate) fn abandon(mut self, out: &mut Vec<u8>) -> u64 {
        self.packets.clear();
        self.lengths.clear();
        let granule = (self.paged * GRANULE_PER_PACKET).max(self.lookahead * GRANULE_PER_SAMPLE);
        write_page(
            out,
            ENDS_STREAM,
            granule,
            self.serial,
            self.next_page,
            &[EMPTY_PACKET.len()],
            &EMPTY_PACKET,
        );
        self.playable_samples()
    }

    fn take_page(&mut self, out: &mut Vec<u8>, flags: u8, granule: Option<u64>) {
        self.paged += self.lengths.len() as u64;
        let granule = granule.unwrap_or(self.paged * GRANULE_PER_PACKET);
        let (lengths, packets) = (std::mem::take(&mut self.lengths), std::mem::take(&mut self.packets));
        self.write_page(out, flags, granule, &lengths, &packets);
        (self.lengths, self.packets) = (lengths, packets);
        self.lengths.clear();
        self.packets.clear();
    }

    fn write_page(&mut self, out: &mut Vec<u8>, flags: u8, granule: u64, lengths: &[usize], body: &[u8]) {
        write_page(out, flags, granule, self.serial, self.next_page, lengths, body);
        self.next_page = self.next_page.wrapping_add(1);
    }
}

/// Ends a stream that broke off after whole pages: the page to append, and how many samples of each channel
/// the stream then plays. `None` if there is no whole header, or if it has ended already.
pub(crate) fn closing_page(stream: &[u8]) -> Option<(Vec<u8>, u64)> {
    let mut rest = stream;
    let (mut last, mut head) = (None, None);
    while let Some((page, after)) = PageHeader::split(rest) {
        if head.is_none() {
            head = Some(Head::parse(page.body)?);
        }
        last = Some(page);
        rest = after;
    }
    let (last, head) = (last?, head?);
    if last.flags & ENDS_STREAM != 0 {
        return None;
    }
    let granule = last.granule.max(u64::from(head.pre_skip));
    let mut page = Vec::with_capacity(32);
    let next = last.sequence.wrapping_add(1);
    write_page(&mut page, ENDS_STREAM, granule, last.serial, next, &[EMPTY_PACKET.len()], &EMPTY_PACKET);
    Some((page, (granule - u64::from(head.pre_skip)) / GRANULE_PER_SAMPLE))
}

/// How many samples of each channel a stream plays that has its last page.
pub(crate) fn closed_samples(stream: &[u8]) -> Option<u64> {
    let (mut rest, mut head, mut samples) = (stream, None, None);
    while let Some((page, after)) = PageHeader::split(rest) {
        if head.is_none() {
            head = Some(Head::parse(page.body)?);
        }
        let pre_skip = head.as_ref().map_or(0, |head| u64::from(head.pre_skip));
        if page.flags & ENDS_STREAM != 0 {
            samples = Some(page.granule.saturating_sub(pre_skip) / GRANULE_PER_SAMPLE);
        }
        rest = after;
    }
    samples
}

/// Decodes a stream at 8 kHz, packet by packet, without pre-skip and what is trimmed from the end.
pub struct PcmReader<'a> {
    packets: ogg::PacketReader<Cursor<&'a [u8]>>,
    opus: opus::Decoder,
    channels: usize,
    pre_skip: u64,
    decoded: u64,
    count: u64,
}

impl<'a> PcmReader<'a> {
    /// Reads the stream's headers.
    ///
    /// # Errors
    /// [`DecodeError`] if it is not Ogg Opus of one or two channels.
    pub fn new(stream: &'a [u8]) -> Result<Self, DecodeError> {
        let mut packets = ogg::PacketReader::new(Cursor::new(stream));
        let ogg = |source| DecodeError::Ogg { source };
        let first = packets.read_packet().map_err(ogg)?.ok_or(DecodeError::Head)?;
        let head = Head::parse(&first.data).ok_or(DecodeError::Head)?;
        packets.read_packet().map_err(ogg)?.ok_or(DecodeError::Head)?;
        let layout = if head.channels == 1 { Channels::Mono } else { Channels::Stereo };
        let opus = opus::Decoder::new(SAMPLE_RATE, layout).map_err(|_| DecodeError::Head)?;
        let pre_skip = u64::from(head.pre_skip) / GRANULE_PER_SAMPLE;
        Ok(Self { packets, opus, channels: usize::from(head.channels), pre_skip, decoded: 0, count: 0 })
    }

    /// How many channels the samples are of.
    #[must_use]
    pub const fn channels(&self) -> usize {
        self.channels
    }

    /// The next packet's samples, channels interleaved; `None` at the end.
    ///
    /// # Errors
    /// [`DecodeError`] at a packet or page that is not sound.
    pub fn next_samples(&mut self) -> Result<Option<Vec<i16>>, DecodeError> {
        let Some(packet) = self.packets.read_packet().map_err(|source| DecodeError::Ogg { source })? else {
            return Ok(None);
        };
        // 120 ms is the longest packet there is (RFC 6716 §3.2.5).
        let mut pcm = vec![0; PACKET_SAMPLES * 6 * self.channels];
        let failed = |source| DecodeError::Packet { packet: self.count, source };
        let samples = self.opus.decode(&packet.data, &mut pcm, false).map_err(failed)? as u64;
        self.count += 1;
        let from = self.pre_skip.saturating_sub(self.decoded).min(samples);
        let mut to = samples;
        if packet.last_in_stream() {
            let end = packet.absgp_page() / GRANULE_PER_SAMPLE;
            to = end.saturating_sub(self.decoded).clamp(from, samples);
        }
        self.decoded += samples;
        pcm.truncate(to as usize * self.channels);
        pcm.drain(..from as usize * self.channels);
        Ok(Some(pcm))
    }
}

/// Decodes a whole stream at 8 kHz: the number of channels, and each channel's samples.
///
/// # Errors
/// [`DecodeError`] if the stream is not sound.
pub fn decode_pcm(stream: &[u8]) -> Result<(usize, Vec<Vec<i16>>), DecodeError> {
    let mut reader = PcmReader::new(stream)?;
    let channels = reader.channels();
    let mut audio = vec![Vec::new(); channels];
    while let Some(samples) = reader.next_samples()? {
        for frame in samples.chunks_exact(channels) {
            for (channel, sample) in audio.iter_mut().zip(frame) {
                channel.push(*sample);
            }
        }
    }
    Ok((channels, audio))
}

impl std::fmt::Debug for PcmReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PcmReader").field("channels", &self.channels).finish_non_exhaustive()
    }
}

struct Head {
    channels: u8,
    pre_skip: u16,
}

impl Head {
    fn parse(packet: &[u8]) -> Option<Self> {
        let rest = packet.strip_prefix(b"OpusHead")?;
        let [version, channels, skip_low, skip_high, _, _, _, _, _, _, family, ..] = *rest else {
            return None;
        };
        let known = version < 16 && family == 0 && (1..=2).contains(&channels);
        known.then_some(Self { channels, pre_skip: u16::from_le_bytes([skip_low, skip_high]) })
    }
}

struct PageHeader<'a> {
    flags: u8,
    granule: u64,
    serial: u32,
    sequence: u32,
    body: &'a [u8],
}

impl<'a> PageHeader<'a> {
    /// The first page of `stream`, which we wrote ourselves, and what follows it.
    fn split(stream: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let rest = stream.strip_prefix(b"OggS\0")?;
        let (flags, rest) = rest.split_first()?;
        let (granule, rest) = rest.split_first_chunk::<8>()?;
        let (serial, rest) = rest.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<4>()?;
        let (_checksum, rest) = rest.split_first_chunk::<4>()?;
        let (segments, rest) = rest.split_first()?;
        let (lacing, rest) = rest.split_at_checked(usize::from(*segments))?;
        let (body, rest) = rest.split_at_checked(lacing.iter().map(|value| usize::from(*value)).sum())?;
        let page = Self {
            flags: *flags,
            granule: u64::from_le_bytes(*granule),
            serial: u32::from_le_bytes(*serial),
            sequence: u32::from_le_bytes(*sequence),
            body,
        };
        Some((page, rest))
    }
}

/// RFC 7845 §5.1, channel mapping family 0.
fn identification_header(pre_skip: u64) -> Vec<u8> {
    let mut head = Vec::with_capacity(19);
    head.extend_from_slice(b"OpusHead");
    head.extend_from_slice(&[1, CHANNELS as u8]);
    head.extend_from_slice(&u16::try_from(pre_skip).unwrap_or(u16::MAX).to_le_bytes());
    head.extend_from_slice(&SAMPLE_RATE.to_le_bytes());
    head.extend_from_slice(&[0, 0, 0]);
    head
}

/// RFC 7845 §5.2. Says which recording it is, and nothing about anybody.
fn comment_header(recording: &str) -> Vec<u8> {
    let mut tags = b"OpusTags".to_vec();
    let comment = format!("RECORDING={recording}");
    for field in ["earmark", &comment] {
        if field == comment {
            tags.extend_from_slice(&1u32.to_le_bytes());
        }
        tags.extend_from_slice(&u32::try_from(field.len()).unwrap_or_default().to_le_bytes());
        tags.extend_from_slice(field.as_bytes());
    }
    tags
}

/// RFC 3533 §6. `lengths` are those of whole packets, whose lacing values are at most 255 in number.
fn write_page(
    out: &mut Vec<u8>,
    flags: u8,
    granule: u64,
    serial: u32,
    sequence: u32,
    lengths: &[usize],
    body: &[u8],
) {
    let start = out.len();
    out.extend_from_slice(b"OggS\0");
    out.push(flags);
    out.extend_from_slice(&granule.to_le_bytes());
    out.extend_from_slice(&serial.to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let count_at = out.len();
    out.push(0);
    for length in lengths {
        out.extend(std::iter::repeat_n(255, length / 255));
        out.push((length % 255) as u8);
    }
    let segments = out.len() - count_at - 1;
    debug_assert!(segments <= 255, "too many lacing values for one page");
    out[count_at] = segments as u8;
    out.extend_from_slice(body);
    let checksum = checksum(&out[start..]);
    out[start + 22..start + 26].copy_from_slice(&checksum.to_le_bytes());
}

/// The CRC of RFC 3533 §6: polynomial 0x04c11db7, from 0, neither reflected nor inverted.
fn checksum(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0u32; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = (index as u32) << 24;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 0x8000_0000 != 0 { (value << 1) ^ 0x04c1_1db7 } else { value << 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ TABLE[usize::from((crc >> 24) as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// A tone of `hz` on the left and of twice that on the right, from sample `from` on.
    fn tone(hz: f64, from: usize) -> StereoPacket {
        let mut pcm = [0; PACKET_SAMPLES * CHANNELS];
        for (index, frame) in pcm.chunks_exact_mut(2).enumerate() {
            let time = (from + index) as f64 / f64::from(SAMPLE_RATE);
            frame[0] = ((std::f64::consts::TAU * hz * time).sin() * 8_000.0) as i16;
            frame[1] = ((std::f64::consts::TAU * 2.0 * hz * time).sin() * 8_000.0) as i16;
        }
        pcm
    }

    fn correlation(a: &[i16], b: &[i16]) -> f64 {
        let dot =
            |x: &[i16], y: &[i16]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    fn encode(packets: usize) -> (Encoder, Vec<u8>) {
        let (mut encoder, mut stream) = Encoder::new(7, "r").unwrap();
        for index in 0..packets {
            encoder.push(&tone(300.0, index * PACKET_SAMPLES)).unwrap();
            if encoder.waiting() == 20 {
                encoder.flush(&mut stream);
            }
        }
        (encoder, stream)
    }

    #[test]
    fn a_stream_plays_exactly_what_went_in_and_where_it_was() {
        let (encoder, mut stream) = encode(101);
        let samples = 100 * PACKET_SAMPLES as u64 + 17;
        encoder.finish(samples, &mut stream).unwrap();
        let (channels, audio) = decode_pcm(&stream).unwrap();
        assert_eq!(channels, 2);
        for (channel, hz) in audio.iter().zip([300.0, 600.0]) {
            assert_eq!(channel.len() as u64, samples);
            let expected: Vec<i16> = (0..100).flat_map(|i| tone(hz, i * PACKET_SAMPLES)).step_by(2).collect();
            // The encoder's high-pass filter turns the phase; half a millisecond is all it may move.
            let best = (796..=804).map(|at| correlation(&channel[at..at + 15_000], &expected[800..15_800]));
            assert!(best.fold(0.0, f64::max) > 0.97);
        }
    }

    #[test]
    fn a_stream_cut_after_any_page_can_be_closed_and_played() {
        let (_, stream) = encode(100);
        let (page, samples) = closing_page(&stream).unwrap();
        assert_eq!(samples, 100 * 160 - 52);
        let closed = [stream.clone(), page].concat();
        assert_eq!(decode_pcm(&closed).unwrap().1[0].len() as u64, samples);
        assert!(closing_page(&closed).is_none(), "closed only once");
        let headers = Encoder::new(7, "r").unwrap().1;
        let (page, samples) = closing_page(&headers).unwrap();
        assert_eq!(samples, 0);
        assert!(decode_pcm(&[headers, page].concat()).unwrap().1[0].is_empty());
    }

    #[test]
    fn abandoning_ends_at_the_last_page() {
        let (mut encoder, mut stream) = encode(60);
        encoder.push(&tone(300.0, 0)).unwrap();
        let samples = encoder.abandon(&mut stream);
        assert_eq!(samples, 60 * 160 - 52);
        assert_eq!(decode_pcm(&stream).unwrap().1[1].len() as u64, samples);
    }

    #[test]
    fn hours_of_silence_are_cheap_silent_and_of_the_right_length() {
        let (mut encoder, mut stream) = encode(50);
        encoder.flush(&mut stream);
        let before = stream.len();
        encoder.silence(300 * 50, &mut stream).unwrap();
        assert!(stream.len() - before < 300_000, "{}", stream.len() - before);
        encoder.push(&tone(300.0, 0)).unwrap();
        encoder.finish(301 * 8_000 + 160, &mut stream).unwrap();
        let (_, audio) = decode_pcm(&stream).unwrap();
        assert_eq!(audio[0].len(), 301 * 8_000 + 160);
        assert!(audio[0][8_800..301 * 8_000 - 200].iter().all(|sample| sample.abs() < 8));
        assert!(audio[0][301 * 8_000..].iter().any(|sample| sample.abs() > 1_000));
    }

    #[test]
    fn granules_of_a_day_do_not_wrap() {
        let (mut encoder, mut stream) = encode(1);
        encoder.silence(86_400 * 50 - 1, &mut stream).unwrap();
        encoder.finish(86_400 * 8_000, &mut stream).unwrap();
        let mut packets = ogg::PacketReader::new(Cursor::new(&stream));
        let (mut count, mut end) = (0, 0);
        while let Some(packet) = packets.read_packet().unwrap() {
            count += 1;
            end = packet.absgp_page();
        }
        assert_eq!(count, 2 + 86_400 * 50 + 1, "two headers, and a packet to flush the encoder");
        assert_eq!(end, (86_400 * 8_000 + 52) * 6);
    }

    #[test]
    fn one_party_is_not_heard_in_the_other_partys_channel() {
        let (mut encoder, mut stream) = Encoder::new(7, "r").unwrap();
        for index in 0..250 {
            let mut pcm = tone(350.0, index * PACKET_SAMPLES);
            pcm.iter_mut().skip(1).step_by(2).for_each(|sample| *sample = 0);
            encoder.push(&pcm).unwrap();
            if encoder.waiting() == 20 {
                encoder.flush(&mut stream);
            }
        }
        encoder.finish(40_000, &mut stream).unwrap();
        let (_, audio) = decode_pcm(&stream).unwrap();
        let power = |channel: &[i16]| channel.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
        let crosstalk_db = 10.0 * (power(&audio[1][4_000..]) / power(&audio[0][4_000..])).log10();
        assert!(crosstalk_db < -35.0, "{crosstalk_db} dB");
    }
}
