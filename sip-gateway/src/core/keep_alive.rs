//! Keep-alive of the streams that we opened (RFC 5626 §3.5.1, §4.4.1): a double CRLF from us, a CRLF back.
//!
//! | state | input | effect | next |
//! |---|---|---|---|
//! | Quiet | ready | wait 95 to 120 s | Quiet |
//! | Quiet | time is up | ping, wait 10 s | Pinged |
//! | Pinged | a CRLF alone | the peer answers pings; wait 95 to 120 s | Quiet |
//! | Pinged | any other bytes | wait 95 to 120 s | Quiet |
//! | Pinged | time is up, the peer answers pings | close | – |
//! | Pinged | time is up, the peer has never answered one | wait 95 to 120 s | Quiet |
//!
//! The last row is there because §3.5.1 sends pings only to those that are known to answer, and many a PBX
//! does not: to close its streams would cost it calls. What it leaves half open the kernel's probes find.
//! Left out: the Flow-Timer field and RFC 6223's `keep`, by which such an agreement is made.

/// §4.4.1: from 95 to 120 s, drawn anew each time, so that the streams of many do not ping at once.
pub(crate) const INTERVAL_MS: u64 = 95_000;
pub(crate) const SPREAD_MS: u32 = 25_000;

/// §4.4.1: how long a pong may take.
const PONG_MS: u64 = 10_000;

/// What we send, and what is sent back.
pub(crate) const PING: &[u8] = b"\r\n\r\n";
pub(crate) const PONG: &[u8] = b"\r\n";

/// What is to be done when time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Send a ping; time is up again after so many ms.
    Ping(u64),
    /// Nothing, until after the next interval.
    Wait,
    /// Close the stream.
    Close,
}

/// The keep-alive of one stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeepAlive {
    pinged: bool,
}

impl KeepAlive {
    /// Time is up.
    pub(crate) const fn on_time(&mut self, peer_answers: bool) -> Due {
        self.pinged = !self.pinged;
        match (self.pinged, peer_answers) {
            (true, _) => Due::Ping(PONG_MS),
            (false, true) => Due::Close,
            (false, false) => Due::Wait,
        }
    }

    /// Bytes came. Whether a ping was open, so that the next interval begins.
    pub(crate) const fn on_bytes(&mut self) -> bool {
        std::mem::replace(&mut self.pinged, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_answered_and_the_next_interval_begins() {
        let mut stream = KeepAlive::default();
        assert!(!stream.on_bytes(), "nothing was asked");
        assert_eq!(stream.on_time(true), Due::Ping(PONG_MS));
        assert!(stream.on_bytes());
        assert!(!stream.on_bytes());
        assert_eq!(stream.on_time(true), Due::Ping(PONG_MS));
    }

    #[test]
    fn silence_closes_only_where_pings_are_answered() {
        let mut stream = KeepAlive::default();
        stream.on_time(false);
        assert_eq!(stream.on_time(false), Due::Wait);
        assert_eq!(stream.on_time(true), Due::Ping(PONG_MS));
        assert_eq!(stream.on_time(true), Due::Close);
    }
}
