//! SIP messages (RFC 3261 §7) as the test's telephones read and write them, and the little SDP they speak.

use std::net::{IpAddr, SocketAddr};

/// A request or a response.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    /// Request-Line or Status-Line.
    pub(crate) start: String,
    /// Header fields in order, compact names written out.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// Reads a datagram; `None` if it is no SIP message.
    pub(crate) fn parse(datagram: &[u8]) -> Option<Self> {
        let end = datagram.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&datagram[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let start = lines.next()?.to_owned();
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':')?;
            headers.push((long_name(name.trim()).to_owned(), value.trim().to_owned()));
        }
        Some(Self { start, headers, body: datagram[end + 4..].to_vec() })
    }

    /// The datagram; Content-Length is added.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The status code of a response.
    pub(crate) fn status(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }

    /// The method of a request.
    pub(crate) fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The Request-URI.
    pub(crate) fn uri(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The first field of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All fields of that name.
    pub(crate) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let name = name.to_owned();
        self.headers
            .iter()
            .filter(move |(present, _)| present.eq_ignore_ascii_case(&name))
            .map(|(_, value)| value.as_str())
    }

    /// Call-ID.
    pub(crate) fn call_id(&self) -> &str {
        self.header("Call-ID").unwrap_or_default()
    }

    /// Number and method of CSeq.
    pub(crate) fn cseq(&self) -> (u32, &str) {
        let (number, method) =
            self.header("CSeq").and_then(|value| value.split_once(' ')).unwrap_or(("0", ""));
        (number.trim().parse().unwrap_or(0), method.trim())
    }

    /// The URI in the Contact.
    pub(crate) fn contact(&self) -> Option<String> {
        let value = self.header("Contact")?;
        let uri = value.split_once('<').map_or(value, |(_, rest)| rest.split('>').next().unwrap_or(rest));
        Some(uri.to_owned())
    }

    /// The session description, if the body is one or holds one.
    pub(crate) fn description(&self) -> Option<Description> {
        Description::parse(&String::from_utf8_lossy(&self.body))
    }

    /// Adds a field.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// What a telephone reads of a session description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Description {
    /// Where its audio wants to be sent.
    pub(crate) rtp: SocketAddr,
    /// The payload type of telephone events.
    pub(crate) events: Option<u8>,
    /// `sendrecv`, `sendonly`, `recvonly` or `inactive`.
    pub(crate) direction: String,
}

impl Description {
    fn parse(text: &str) -> Option<Self> {
        let lines = || text.lines().map(str::trim_end);
        let address: IpAddr = lines().find_map(|line| line.strip_prefix("c=IN IP4 "))?.parse().ok()?;
        let audio = lines().find_map(|line| line.strip_prefix("m=audio "))?;
        let port = audio.split(' ').next()?.parse().ok()?;
        let events = lines()
            .filter_map(|line| line.strip_prefix("a=rtpmap:")?.split_once(' '))
            .find(|(_, encoding)| encoding.starts_with("telephone-event/8000"))
            .and_then(|(number, _)| number.parse().ok());
        let direction = lines()
            .filter_map(|line| line.strip_prefix("a="))
            .find(|name| ["sendrecv", "sendonly", "recvonly", "inactive"].contains(name))
            .unwrap_or("sendrecv");
        Some(Self { rtp: SocketAddr::new(address, port), events, direction: direction.to_owned() })
    }
}

/// The description of a telephone at `rtp`: PCMU and telephone events.
pub(crate) fn describe(rtp: SocketAddr, version: u32, direction: &str) -> String {
    let (address, port) = (rtp.ip(), rtp.port());
    format!(
        "v=0\r\no=phone 4711 {version} IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
         a=fmtp:101 0-16\r\na=ptime:20\r\na={direction}\r\n"
    )
}

fn long_name(name: &str) -> &str {
    match name {
        "i" => "Call-ID",
        "m" => "Contact",
        "e" => "Content-Encoding",
        "l" => "Content-Length",
        "c" => "Content-Type",
        "f" => "From",
        "s" => "Subject",
        "k" => "Supported",
        "t" => "To",
        "v" => "Via",
        other => other,
    }
}
