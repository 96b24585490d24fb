//! SIP and SDP as the telephones speak them: as much as a call needs, written without the gateway's codec.

use std::net::SocketAddr;

/// A request or response, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) start: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Message {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let start = lines.next()?.to_owned();
        let split =
            |line: &str| line.split_once(':').map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned()));
        Some(Self { start, headers: lines.filter_map(split).collect(), body: body.to_owned() })
    }

    pub(crate) fn first(&self, name: &'static str) -> &str {
        self.all(name).next().unwrap_or("")
    }

    pub(crate) fn all<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The status of a response.
    pub(crate) fn status(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }

    /// The method of a request; of a response, that of its CSeq.
    pub(crate) fn method(&self) -> &str {
        match self.status() {
            Some(_) => self.first("CSeq").rsplit(' ').next().unwrap_or(""),
            None => self.start.split(' ').next().unwrap_or(""),
        }
    }

    /// The number in the CSeq, 0 without one.
    pub(crate) fn sequence(&self) -> u32 {
        self.first("CSeq").split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn branch(&self) -> &str {
        parameter(self.first("Via"), "branch")
    }

    /// The response that this request gets: Via, From, To, Call-ID and CSeq are the request's.
    pub(crate) fn response(&self, status: u16, tag: &str, more: &str, body: &str) -> Vec<u8> {
        let mut text = format!("SIP/2.0 {status} Status\r\n");
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            for value in self.all(name) {
                let needs_tag = name == "To" && !value.contains(";tag=") && status > 100;
                let tag = if needs_tag { format!(";tag={tag}") } else { String::new() };
                text.push_str(&format!("{name}: {value}{tag}\r\n"));
            }
        }
        finish(text, more, body)
    }
}

/// Ends a message's head and adds its body, a session description if not empty.
pub(crate) fn finish(mut text: String, more: &str, body: &str) -> Vec<u8> {
    text.push_str(more);
    if !body.is_empty() {
        text.push_str("Content-Type: application/sdp\r\n");
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    text.into_bytes()
}

/// A parameter of a header's value, or nothing.
pub(crate) fn parameter<'a>(value: &'a str, name: &str) -> &'a str {
    let found =
        value.split(';').skip(1).find_map(|part| part.split_once('=').filter(|(n, _)| n.trim() == name));
    found.map_or("", |(_, value)| value.trim())
}

/// The URI of a header's value.
pub(crate) fn uri(value: &str) -> &str {
    let inner = value.split_once('<').map_or(value, |(_, rest)| rest);
    inner.split('>').next().unwrap_or("").trim()
}

/// A session description of one audio stream.
pub(crate) fn description(origin: u64, version: u64, media: SocketAddr, flow: &str) -> String {
    let (ip, port) = (media.ip(), media.port());
    format!(
        "v=0\r\no=- {origin} {version} IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
         a=fmtp:101 0-15\r\na=ptime:20\r\na={flow}\r\n"
    )
}

/// Where a description wants its media, and which way it flows.
pub(crate) fn described(body: &str) -> Option<(SocketAddr, &str)> {
    let line = |prefix: &'static str| body.lines().find_map(move |line| line.trim_end().strip_prefix(prefix));
    let ip = line("c=IN IP4 ")?;
    let port: u16 = line("m=audio ")?.split(' ').next()?.parse().ok()?;
    let flows = ["sendrecv", "sendonly", "recvonly", "inactive"];
    let flow = flows.into_iter().find(|flow| line("a=").is_some() && body.contains(&format!("a={flow}")));
    Some((SocketAddr::new(ip.parse().ok()?, port), flow.unwrap_or("sendrecv")))
}
