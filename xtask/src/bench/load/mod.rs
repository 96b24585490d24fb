//! The load: a telephone that calls, one that answers, and the packets between them.
//!
//! Each telephone sends again what is not answered (RFC 3261 §17.1, §13.3.1.4), so that an overloaded peer is
//! met as it would be by any other telephone; on a machine that keeps up nothing is sent twice. A call is
//! named by its caller's Call-ID, also in [`CALL`], which a gateway passes on though it changes the Call-ID.

mod callee;
mod caller;
mod packets;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

pub(super) use callee::Callee;
pub(super) use caller::{Caller, Delay, Tally};
pub(super) use packets::Packets;

use crate::steps::Failure;

/// The header field that names a call to both telephones.
const CALL: &str = "X-Bench-Call";
/// Where a telephone at any address wants its RTP.
const RTP_PORT: u16 = 40_000;
/// T1 and T2 of RFC 3261 §17.1.1.1.
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
/// How long a telephone waits for a message before it looks at the clock again.
const GLANCE: Duration = Duration::from_millis(1);

fn bind(address: SocketAddr) -> Result<UdpSocket, Failure> {
    let socket = UdpSocket::bind(address)
        .map_err(|error| Failure::check(format!("cannot listen at {address}: {error}")))?;
    socket
        .set_read_timeout(Some(GLANCE))
        .map_err(|error| Failure::check(format!("cannot set a timeout at {address}: {error}")))?;
    Ok(socket)
}

/// The values of a header field, in order.
fn fields<'a>(message: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    message.lines().take_while(|line| !line.is_empty()).filter_map(move |line| {
        let (present, value) = line.split_once(':')?;
        present.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    fields(message, name).next()
}

/// Which call, at both telephones: the n-th of the caller that began at `session`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct CallName {
    session: u128,
    number: u32,
}

impl CallName {
    /// Reads the value of [`CALL`] or of the caller's Call-ID.
    fn read(value: &str) -> Option<Self> {
        let (number, session) = value.split_once('-')?;
        Some(Self { session: session.parse().ok()?, number: number.parse().ok()? })
    }

    /// Which call a message belongs to.
    fn of(message: &str) -> Option<Self> {
        Self::read(field(message, CALL)?)
    }
}

impl fmt::Display for CallName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.number, self.session)
    }
}

/// What is to be done at which instant.
struct Agenda<T> {
    /// The number tells equal instants apart.
    entries: BTreeMap<(Instant, u64), T>,
    entered: u64,
}

impl<T> Agenda<T> {
    const fn new() -> Self {
        Self { entries: BTreeMap::new(), entered: 0 }
    }

    fn enter(&mut self, at: Instant, what: T) {
        self.entered += 1;
        self.entries.insert((at, self.entered), what);
    }

    fn take_due(&mut self) -> Option<T> {
        let first = self.entries.first_entry()?;
        (first.key().0 <= Instant::now()).then(|| first.remove())
    }
}

/// The URI between the angle brackets of a Contact or Record-Route.
fn uri(value: &str) -> &str {
    let rest = value.split_once('<').map_or(value, |(_, rest)| rest);
    rest.split('>').next().unwrap_or(rest)
}

fn response(request: &str, status: &str, address: SocketAddr, body: &str) -> String {
    let mut text = format!("SIP/2.0 {status}\r\n");
    for line in request.lines().take_while(|line| !line.is_empty()) {
        let name = line.split(':').next().unwrap_or_default();
        let copied = ["Via", "Record-Route", "From", "Call-ID", "CSeq", CALL];
        if copied.iter().any(|copied| name.eq_ignore_ascii_case(copied)) {
            text.push_str(line);
            text.push_str("\r\n");
        }
    }
    let to = field(request, "To").unwrap_or_default();
    let tag = if to.contains(";tag=") { "" } else { ";tag=bench" };
    let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    text.push_str(&format!(
        "To: {to}{tag}\r\nContact: <sip:bench@{address}>\r\n{content}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    text
}

fn description(address: SocketAddr) -> String {
    let host = address.ip();
    format!(
        "v=0\r\no=bench 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n\
         m=audio {RTP_PORT} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\n"
    )
}

/// Where a message's session description wants audio.
fn rtp_address(message: &str) -> Option<SocketAddr> {
    let host = message.lines().find_map(|line| line.strip_prefix("c=IN IP4 "))?;
    let port = message.lines().find_map(|line| line.strip_prefix("m=audio "))?.split(' ').next()?;
    Some(SocketAddr::new(host.trim().parse().ok()?, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a gateway between them: the load itself loses no call and no packet.
    #[test]
    fn the_telephones_understand_each_other() -> Result<(), Failure> {
        let network = (std::process::id() % 250) as u8;
        let address = |host| SocketAddr::from(([127, 76, network, host], 5060));
        let callee = Callee::start(address(2), Duration::from_millis(5))?;
        let mut caller = Caller::new(address(3), address(2))?;
        caller.place("+18607427399", 100, Duration::from_millis(200), Duration::from_millis(10))?;
        caller.settle()?;
        let tally = caller.tally();
        assert_eq!((tally.placed, tally.completed, tally.failed()), (20, 20, 0));
        assert_eq!(caller.delays(&callee).len(), 20);
        let mut caller = Caller::new(address(4), address(2))?;
        caller.establish("+18607427399", 5, 100)?;
        let packets = Packets::start(&caller.media(), &callee.media())?;
        while packets.received() < 100 {
            std::thread::sleep(GLANCE);
        }
        packets.stop();
        caller.hang_up()?;
        callee.stop();
        Ok(())
    }

    /// With nobody to answer: the call is sent again, and fails.
    #[test]
    fn a_call_that_nobody_hears_is_sent_again() -> Result<(), Failure> {
        let network = (std::process::id() % 250) as u8;
        let address = |host| SocketAddr::from(([127, 77, network, host], 5060));
        let silent = bind(address(2))?;
        let mut caller = Caller::new(address(3), address(2))?;
        caller.place("+18607427399", 1, Duration::from_millis(600), Duration::ZERO)?;
        assert_eq!((caller.tally().placed, caller.tally().repeated), (1, 1));
        drop(silent);
        Ok(())
    }
}
