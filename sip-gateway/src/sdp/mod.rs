//! Session descriptions (RFC 8866, RFC 3264): what a leg's says, and the one that the gateway sends instead
//! (RFC 3264; docs/ARCHITECTURE.md). Parsed and written by sdp-types.
//!
//! Left out: the offer/answer state (who may offer when belongs to the dialog), SRTP keys, ICE.

mod leg;
mod multipart;
mod record;
mod rewrite;

use std::borrow::Cow;

use sdp_types::{Attribute, Connection, Media, ParserError, Session};

pub use multipart::{holds_description, locate, splice};
pub use record::{RecordLine, RecordPreference, Recording};
pub use rewrite::{OurSide, rewrite};

/// `m=` lines; more are refused (488). A call with audio, video, text and slides has four.
const MAX_STREAMS: usize = 32;

/// Formats of one `m=` line; more are refused (488). RTP has 128 payload types, phones offer up to 25.
const MAX_FORMATS: usize = 64;

/// The largest RTP payload type (RFC 3550 §5.1: seven bits).
const MAX_PAYLOAD_TYPE: u8 = 127;

/// `a=ptime` and `a=maxptime` beyond this are dropped: no packet holds more.
const MAX_PTIME_MS: u32 = 1000;

/// Why a description is refused; 488 says it to the offerer.
#[derive(Debug, thiserror::Error)]
pub enum SdpError {
    /// Not a session description.
    #[error("malformed session description")]
    Syntax {
        /// Which line; holds nothing that the peer sent but an unknown version.
        source: ParserError,
    },
    /// More than 32 `m=` lines.
    #[error("{count} media streams")]
    TooManyStreams {
        /// How many.
        count: usize,
    },
    /// More than 64 formats on one `m=` line.
    #[error("more than {MAX_FORMATS} formats on one media stream")]
    TooManyFormats,
    /// A payload type that is not 0 to 127, in `m=`, `a=rtpmap` or `a=fmtp` of an RTP stream.
    #[error("payload type out of range")]
    PayloadType,
    /// A `c=` of figures that are no address: a name ends in letters (RFC 3696 §2).
    #[error("no address")]
    Address,
    /// A multipart body without a boundary, or with more parts or deeper than any honest one.
    #[error("malformed multipart body")]
    Multipart,
}

/// A session description that is within bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    session: Session,
}

impl Description {
    /// Reads one. Text that is not UTF-8 is taken as Latin-1.
    ///
    /// # Errors
    /// [`SdpError`], except [`SdpError::Multipart`].
    pub fn parse(octets: &[u8]) -> Result<Self, SdpError> {
        let text = match std::str::from_utf8(octets) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => octets.iter().map(|&octet| char::from(octet)).collect(),
        };
        let mut session = Session::parse(text.as_bytes()).map_err(|source| SdpError::Syntax { source })?;
        let count = session.medias.len();
        if count > MAX_STREAMS {
            return Err(SdpError::TooManyStreams { count });
        }
        session.attributes.retain(is_sane);
        session.connection.iter().try_for_each(check_address)?;
        for media in &mut session.medias {
            media.connections.iter().try_for_each(check_address)?;
            media.attributes.retain(is_sane);
            check_formats(media)?;
        }
        Ok(Self { session })
    }

    /// How many `m=` lines it has.
    pub fn streams(&self) -> usize {
        self.session.medias.len()
    }

    /// Adds the `m=` lines that `known` has beyond its own, refused (RFC 3264 §6, §8.2).
    pub fn pad(&mut self, known: &Self) {
        for media in known.session.medias.iter().skip(self.streams()) {
            self.session.medias.push(Media {
                media: media.media.clone(),
                port: 0,
                num_ports: None,
                proto: media.proto.clone(),
                fmt: media.fmt.clone(),
                media_title: None,
                connections: Vec::new(),
                bandwidths: Vec::new(),
                key: None,
                attributes: Vec::new(),
            });
        }
    }

    /// Takes away the `m=` lines beyond the first `streams`.
    pub fn truncate(&mut self, streams: usize) {
        self.session.medias.truncate(streams);
    }

    /// Its text with this version in `o=`, otherwise as it is.
    pub fn numbered(&self, version: u64) -> Vec<u8> {
        let mut session = self.session.clone();
        session.origin.sess_version = version;
        let mut octets = Vec::with_capacity(1024);
        // Writing to a Vec cannot fail.
        let _ = session.write(&mut octets);
        octets
    }
}

fn check_address(connection: &Connection) -> Result<(), SdpError> {
    let host = connection.connection_address.split('/').next().unwrap_or_default();
    let figures = host.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.');
    if figures && leg::address(connection).is_none() { Err(SdpError::Address) } else { Ok(()) }
}

fn is_rtp(media: &Media) -> bool {
    media.proto.split('/').any(|part| part.eq_ignore_ascii_case("RTP"))
}

fn check_formats(media: &Media) -> Result<(), SdpError> {
    if media.fmt.split_ascii_whitespace().nth(MAX_FORMATS).is_some() {
        return Err(SdpError::TooManyFormats);
    }
    if !is_rtp(media) {
        return Ok(());
    }
    let mapped = media.attributes.iter().filter(|attribute| {
        attribute.attribute.eq_ignore_ascii_case("rtpmap") || attribute.attribute.eq_ignore_ascii_case("fmtp")
    });
    let mapped = mapped.map(|attribute| {
        attribute.value.as_deref().and_then(|value| value.split_ascii_whitespace().next()).unwrap_or_default()
    });
    let mut types = media.fmt.split_ascii_whitespace().chain(mapped);
    if types.all(|text| payload_type(text).is_some()) { Ok(()) } else { Err(SdpError::PayloadType) }
}

fn payload_type(text: &str) -> Option<u8> {
    text.parse().ok().filter(|&number| number <= MAX_PAYLOAD_TYPE)
}

/// A packet time that no receiver could mean is dropped rather than passed on: some crash on it.
fn is_sane(attribute: &Attribute) -> bool {
    let is_time = ["ptime", "maxptime"].iter().any(|name| attribute.attribute.eq_ignore_ascii_case(name));
    !is_time || attribute.value.as_deref().and_then(packet_time_ms).is_some()
}

/// Whole milliseconds of a packet time; a fraction (seen from some gateways) is left aside.
fn packet_time_ms(text: &str) -> Option<u32> {
    let whole = text.trim().split('.').next().unwrap_or_default();
    whole.parse().ok().filter(|time_ms| (1..=MAX_PTIME_MS).contains(time_ms))
}

#[cfg(test)]
mod tests;
