//! A telephone's session descriptions (RFC 4566): G.711 µ-law and telephone events, offered and answered
//! (RFC 3264). Leaves out every other codec, ICE and SRTP; further `m=` lines of an offer are refused.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// Static payload type of G.711 µ-law (RFC 3551 §6).
pub(super) const PCMU: u8 = 0;

/// The payload type offered for telephone events; an answer keeps the offerer's.
const TELEPHONE_EVENT: u8 = 101;

/// RFC 3264 direction of a stream, as its describer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Both ways.
    SendRecv,
    /// The describer only sends: the other side is on hold.
    SendOnly,
    /// The describer only listens.
    RecvOnly,
    /// Nothing either way.
    Inactive,
}

/// What a far end wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RemoteDescription {
    pub(super) rtp: SocketAddr,
    pub(super) flow: Flow,
    pub(super) telephone_event: Option<u8>,
    /// The kinds of its `m=` lines with their transport and formats; the audio taken is at `audio`.
    lines: Vec<String>,
    audio: usize,
}

/// What this telephone wants.
#[derive(Clone, Debug)]
pub(super) struct LocalDescription {
    /// The `o=` line's session id: one per instrument.
    pub(super) session: u64,
    /// The `o=` line's version: raised with each change.
    pub(super) version: u64,
    pub(super) rtp: SocketAddr,
    pub(super) flow: Flow,
}

impl Flow {
    pub(super) const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    pub(super) const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    const fn from(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    const fn attribute(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    fn of_attribute(name: &str) -> Option<Self> {
        [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive]
            .into_iter()
            .find(|flow| flow.attribute() == name)
    }
}

impl RemoteDescription {
    /// The first audio stream with µ-law that is not refused; `None` if there is none.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        let mut sections = text.split("\nm=");
        let session = sections.next()?;
        let media: Vec<String> = sections.map(|section| format!("m={section}")).collect();
        let (audio, section) = media.iter().enumerate().find(|(_, section)| carries_mu_law(section))?;
        let port = section.split_whitespace().nth(1)?.parse().ok()?;
        let address = connection(section).or_else(|| connection(session))?;
        let flow = flow_of(section).or_else(|| flow_of(session)).unwrap_or(Flow::SendRecv);
        // RFC 3264 §8.4: the old way to hold.
        let flow = if address.is_unspecified() { Flow::from(flow.sends(), false) } else { flow };
        let telephone_event = telephone_event_of(section);
        let lines = media.iter().filter_map(|section| section.lines().next()).map(str::to_owned).collect();
        Some(Self { rtp: SocketAddr::new(address, port), flow, telephone_event, lines, audio })
    }
}

impl LocalDescription {
    pub(super) fn offer(&self) -> String {
        let mut text = self.session_part();
        self.write_audio(&mut text, self.flow, Some(TELEPHONE_EVENT));
        text
    }

    /// RFC 3264 §6: as many `m=` lines as offered, the direction narrowed to what the offer allows.
    pub(super) fn answer(&self, offer: &RemoteDescription) -> String {
        let mut text = self.session_part();
        let flow = Flow::from(
            self.flow.sends() && offer.flow.receives(),
            self.flow.receives() && offer.flow.sends(),
        );
        for (index, line) in offer.lines.iter().enumerate() {
            if index == offer.audio {
                self.write_audio(&mut text, flow, offer.telephone_event);
                continue;
            }
            let mut parts = line.trim_end().splitn(3, ' ');
            let (kind, _, rest) = (parts.next(), parts.next(), parts.next());
            let (kind, rest) = (kind.unwrap_or("m=audio"), rest.unwrap_or("RTP/AVP 0"));
            text.push_str(&format!("{kind} 0 {rest}\r\n"));
        }
        text
    }

    fn session_part(&self) -> String {
        let address = self.rtp.ip();
        let family = if address.is_ipv4() { "IP4" } else { "IP6" };
        format!(
            "v=0\r\no=- {} {} IN {family} {address}\r\ns=-\r\nc=IN {family} {address}\r\nt=0 0\r\n",
            self.session, self.version
        )
    }

    fn write_audio(&self, text: &mut String, flow: Flow, telephone_event: Option<u8>) {
        let events = telephone_event.map(|pt| format!(" {pt}")).unwrap_or_default();
        let port = self.rtp.port();
        text.push_str(&format!("m=audio {port} RTP/AVP {PCMU}{events}\r\na=rtpmap:{PCMU} PCMU/8000\r\n"));
        if let Some(pt) = telephone_event {
            text.push_str(&format!("a=rtpmap:{pt} telephone-event/8000\r\na=fmtp:{pt} 0-15\r\n"));
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "a=ptime:20\r\na={}\r\n", flow.attribute());
    }
}

fn carries_mu_law(section: &str) -> bool {
    let mut words = section.lines().next().unwrap_or_default().split_whitespace();
    let audio = words.next() == Some("m=audio");
    let open = words.next().is_some_and(|port| port != "0");
    audio && open && words.skip(1).any(|format| format == "0")
}

fn connection(section: &str) -> Option<IpAddr> {
    let line = section.lines().find_map(|line| line.strip_prefix("c=IN "))?;
    let address = line.split_whitespace().nth(1)?;
    address.split('/').next()?.parse().ok()
}

fn flow_of(section: &str) -> Option<Flow> {
    section.lines().find_map(|line| Flow::of_attribute(line.trim_end().strip_prefix("a=")?))
}

fn telephone_event_of(section: &str) -> Option<u8> {
    section.lines().find_map(|line| {
        let (payload_type, encoding) = line.strip_prefix("a=rtpmap:")?.split_once(' ')?;
        let wanted = encoding.trim_end().eq_ignore_ascii_case("telephone-event/8000");
        wanted.then(|| payload_type.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn local() -> LocalDescription {
        let rtp = "127.0.0.2:4000".parse().unwrap();
        LocalDescription { session: 5, version: 1, rtp, flow: Flow::SendRecv }
    }

    #[test]
    fn an_own_offer_reads_back() {
        let read = RemoteDescription::parse(local().offer().as_bytes()).unwrap();
        assert_eq!(read.rtp, local().rtp);
        assert_eq!((read.flow, read.telephone_event), (Flow::SendRecv, Some(101)));
    }

    #[test]
    fn an_answer_keeps_the_offerers_payload_type_refuses_other_streams_and_narrows_the_direction() {
        let offer = b"v=0\r\no=x 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\na=sendonly\r\n\
            m=video 6000 RTP/AVP 31\r\nm=audio 5000 RTP/AVP 8 0 96\r\nc=IN IP4 10.0.0.2\r\n\
            a=rtpmap:96 telephone-event/8000\r\n";
        let offer = RemoteDescription::parse(offer).unwrap();
        assert_eq!(offer.rtp, "10.0.0.2:5000".parse().unwrap());
        let answer = local().answer(&offer);
        assert!(answer.contains("m=video 0 RTP/AVP 31\r\nm=audio 4000 RTP/AVP 0 96\r\n"), "{answer}");
        assert!(answer.ends_with("a=recvonly\r\n"), "{answer}");
    }

    #[test]
    fn a_zero_address_is_hold_and_a_description_without_mu_law_is_none() {
        let hold = b"v=0\r\nc=IN IP4 0.0.0.0\r\nm=audio 5000 RTP/AVP 0\r\n";
        assert_eq!(RemoteDescription::parse(hold).unwrap().flow, Flow::SendOnly);
        assert_eq!(RemoteDescription::parse(b"v=0\r\nc=IN IP4 1.2.3.4\r\nm=audio 5000 RTP/AVP 8\r\n"), None);
    }
}
