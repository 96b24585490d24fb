//! SIP messages as text (RFC 3261 §7, §25), as far as a telephone needs them.
//!
//! A peer's own reader and writer, deliberately not the gateway's: a slip in the one must not be hidden by
//! the same slip in the other. Leaves out multi-line reason phrases, multipart bodies and every header
//! that a telephone does not look at; those stay in [`Message::headers`] as received.

/// Largest datagram read; UDP allows no more.
pub(super) const MAX_MESSAGE_BYTES: usize = 65_535;

/// The first line of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StartLine {
    Request { method: String, uri: String },
    Response { status: u16, reason: String },
}

/// A request or response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) start: StartLine,
    /// Names as written out in full, values unfolded and trimmed, in the order received.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Message {
    pub(super) fn request(method: &str, uri: &str) -> Self {
        let start = StartLine::Request { method: method.to_owned(), uri: uri.to_owned() };
        Self { start, headers: Vec::new(), body: Vec::new() }
    }

    /// A response with what RFC 3261 §8.2.6.2 has it copy from the request; To gets `to_tag` if it has none.
    pub(super) fn response_to(request: &Self, status: u16, to_tag: &str) -> Self {
        let start = StartLine::Response { status, reason: reason_phrase(status).to_owned() };
        let mut response = Self { start, headers: Vec::new(), body: Vec::new() };
        for via in request.all("Via") {
            response.push("Via", via);
        }
        for route in request.all("Record-Route") {
            response.push("Record-Route", route);
        }
        response.push("From", request.header("From").unwrap_or_default());
        let to = request.header("To").unwrap_or_default();
        match tag_of(to) {
            Some(_) => response.push("To", to),
            None => response.push("To", &format!("{to};tag={to_tag}")),
        }
        response.push("Call-ID", request.header("Call-ID").unwrap_or_default());
        response.push("CSeq", request.header("CSeq").unwrap_or_default());
        response
    }

    /// Reads a datagram. `None` if it is not SIP.
    pub(super) fn parse(datagram: &[u8]) -> Option<Self> {
        let split = find(datagram, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(datagram.get(..split)?);
        let rest = datagram.get(split + 4..)?;
        let mut lines = head.split("\r\n").skip_while(|line| line.is_empty());
        let start = StartLine::parse(lines.next()?)?;
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = headers.last_mut() {
                    value.push(' ');
                    value.push_str(line.trim());
                }
                continue;
            }
            let (name, value) = line.split_once(':')?;
            headers.push((full_name(name.trim()).to_owned(), value.trim().to_owned()));
        }
        let mut message = Self { start, headers, body: Vec::new() };
        let length = message.header("Content-Length").and_then(|value| value.parse().ok());
        message.body = rest.get(..length.unwrap_or(rest.len()))?.to_vec();
        Some(message)
    }

    pub(super) fn push(&mut self, name: &str, value: &str) {
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    /// The first header of that name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All headers of that name, in order.
    pub(super) fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.headers
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The method of a request.
    pub(super) fn method(&self) -> Option<&str> {
        match &self.start {
            StartLine::Request { method, .. } => Some(method),
            StartLine::Response { .. } => None,
        }
    }

    /// The status of a response.
    pub(super) fn status(&self) -> Option<u16> {
        match &self.start {
            StartLine::Request { .. } => None,
            StartLine::Response { status, .. } => Some(*status),
        }
    }

    /// The Request-URI.
    pub(super) fn request_uri(&self) -> Option<&str> {
        match &self.start {
            StartLine::Request { uri, .. } => Some(uri),
            StartLine::Response { .. } => None,
        }
    }

    pub(super) fn call_id(&self) -> &str {
        self.header("Call-ID").unwrap_or_default()
    }

    /// CSeq's number and method.
    pub(super) fn cseq(&self) -> Option<(u32, &str)> {
        let (number, method) = self.header("CSeq")?.split_once([' ', '\t'])?;
        Some((number.parse().ok()?, method.trim()))
    }

    /// The branch of the topmost Via.
    pub(super) fn branch(&self) -> Option<&str> {
        parameter(self.header("Via")?, "branch")
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut text = match &self.start {
            StartLine::Request { method, uri } => format!("{method} {uri} SIP/2.0\r\n"),
            StartLine::Response { status, reason } => format!("SIP/2.0 {status} {reason}\r\n"),
        };
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

impl StartLine {
    fn parse(line: &str) -> Option<Self> {
        if let Some(rest) = line.strip_prefix("SIP/2.0 ") {
            let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
            let status = status.parse().ok().filter(|s| (100..700).contains(s))?;
            return Some(Self::Response { status, reason: reason.to_owned() });
        }
        let (method, rest) = line.split_once(' ')?;
        let uri = rest.strip_suffix(" SIP/2.0")?;
        Some(Self::Request { method: method.to_owned(), uri: uri.to_owned() })
    }
}

/// The tag of a From or To value.
pub(super) fn tag_of(name_addr: &str) -> Option<&str> {
    let after = name_addr.rsplit_once('>').map_or(name_addr, |(_, parameters)| parameters);
    parameter(after, "tag")
}

/// The URI of a name-addr or addr-spec, without header parameters.
pub(super) fn uri_of(name_addr: &str) -> &str {
    match name_addr.rsplit_once('<') {
        Some((_, rest)) => rest.split_once('>').map_or(rest, |(uri, _)| uri),
        None => name_addr.split_once(';').map_or(name_addr, |(uri, _)| uri).trim(),
    }
}

/// The user part of a URI, or the number of a `tel:`.
pub(super) fn user_of(uri: &str) -> &str {
    let rest = uri.split_once(':').map_or(uri, |(_, rest)| rest);
    let user = match rest.split_once('@') {
        Some((user, _)) => user,
        None if uri.starts_with("tel:") => rest,
        None => "",
    };
    user.split_once([';', ':']).map_or(user, |(name, _)| name)
}

fn parameter<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    value.split(';').skip(1).find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// RFC 3261 §7.3.3 compact forms.
fn full_name(name: &str) -> &str {
    match name {
        "v" | "V" => "Via",
        "f" | "F" => "From",
        "t" | "T" => "To",
        "i" | "I" => "Call-ID",
        "m" | "M" => "Contact",
        "l" | "L" => "Content-Length",
        "c" | "C" => "Content-Type",
        "s" | "S" => "Subject",
        "k" | "K" => "Supported",
        "e" | "E" => "Content-Encoding",
        _ => name,
    }
}

const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        183 => "Session Progress",
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        481 => "Call/Transaction Does Not Exist",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        491 => "Request Pending",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        603 => "Decline",
        _ => "Unspecified",
    }
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn compact_folded_and_quoted_headers_are_read() {
        let text = b"INVITE sip:+1860@127.0.0.2 SIP/2.0\r\nv: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKa\r\n\
            f: \"a <b>\"\r\n <sip:service@x>;tag=1;x=y\r\nt: <sip:+1860@y;user=phone>\r\ni: c@d\r\n\
            CSeq: 7 INVITE\r\nl: 2\r\n\r\nab trailing";
        let message = Message::parse(text).unwrap();
        assert_eq!(message.branch(), Some("z9hG4bKa"));
        assert_eq!(message.header("From").and_then(tag_of), Some("1"));
        assert_eq!(message.header("From").map(uri_of).map(user_of), Some("service"));
        assert_eq!(message.header("To").and_then(tag_of), None);
        assert_eq!(message.cseq(), Some((7, "INVITE")));
        assert_eq!(message.body, b"ab");
    }

    #[test]
    fn a_response_copies_what_the_rfc_says_and_adds_its_tag() {
        let text = b"BYE sip:x@y SIP/2.0\r\nVia: a;branch=1\r\nVia: b;branch=2\r\nFrom: <sip:a@b>;tag=f\r\n\
            To: <sip:c@d>\r\nCall-ID: i\r\nCSeq: 2 BYE\r\n\r\n";
        let response = Message::response_to(&Message::parse(text).unwrap(), 200, "mine");
        let again = Message::parse(&response.to_bytes()).unwrap();
        assert_eq!(again.status(), Some(200));
        assert_eq!(again.all("Via").count(), 2);
        assert_eq!(again.header("To").and_then(tag_of), Some("mine"));
    }

    #[test]
    fn what_is_not_sip_is_nothing() {
        for bytes in [
            &b""[..],
            b"\r\n\r\n",
            b"HELLO\r\n\r\n",
            b"SIP/2.0 99 X\r\n\r\n",
            b"A b SIP/2.0\r\nno colon\r\n\r\n",
        ] {
            assert_eq!(Message::parse(bytes), None);
        }
        assert_eq!(Message::parse(b"A b SIP/2.0\r\nContent-Length: 9\r\n\r\nshort"), None);
    }
}
