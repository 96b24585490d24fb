//! Who may bring another call: what a peer may begin, what one source address may send, and calls that are in all
//! likelihood one call going round.
//!
//! | limit | beyond it, an ordinary call | counted as |
//! |---|---|---|
//! | the gateway's calls at once | offered as [`Excess::Capacity`]: 503 with a record | [`Refusal::Capacity`] |
//! | a peer's calls at once | offered as [`Excess::Calls`]: 503 with a record | [`Refusal::Calls`] |
//! | a peer's calls a minute, transfers to the public side among them | offered as [`Excess::Rate`]: 503 with a record; a transfer fails | [`Refusal::Rate`] |
//! | unanswered calls of one caller to one number by one peer | offered as [`Excess::Loop`]: 482 with a record | [`Refusal::Loop`] |
//! | requests outside dialogs of one source address a second | 503 without a record, as for all such requests | [`Refusal::Flood`] |
//!
//! A rate is a token bucket: after a rest, as many at once as it lasts for its whole time, then one by one. Emergency
//! and dispatch calls take tokens as long as there are any, and pass without. Sources have a bucket each, up to
//! [`MAX_SOURCES`]; those beyond share one, until others have rested.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;

use consent::{CallId, Mono};

use crate::transaction::Class;
use crate::wire::before_params;
use crate::{Command, Config, Offer, PeerId};

/// Sources with a bucket of their own.
const MAX_SOURCES: usize = 4_096;

/// How often, at most, it is looked which sources have rested.
const SWEEP_EVERY_MS: u64 = 1_000;

/// Unanswered calls of one caller to one number by one peer: this part of all calls, so that a loop whose PBX sets
/// Max-Forwards anew leaves room for others,
const SHARE_ALIKE: usize = 4;

/// but no fewer, because people may all call one number in the name of their office.
const LEAST_ALIKE: usize = 32;

/// How soon one of all lines in use may be free again.
const LINES_FREE_AFTER_S: u32 = 10;

const SECOND_US: u64 = 1_000_000;
const MINUTE_US: u64 = 60 * SECOND_US;

/// Why something of a peer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The gateway has all the calls that it takes, or more to do than it can, or is stopping.
    Capacity,
    /// The peer has all the calls that it may.
    Calls,
    /// The peer has had all the calls of this minute.
    Rate,
    /// Its source address has sent all the requests of this second.
    Flood,
    /// It may not call there.
    Destination,
    /// The call has been here before.
    Loop,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Capacity, Self::Calls, Self::Rate, Self::Flood, Self::Destination, Self::Loop];

    /// Its word in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Capacity => "capacity",
            Self::Calls => "calls",
            Self::Rate => "rate",
            Self::Flood => "flood",
            Self::Destination => "destination",
            Self::Loop => "loop",
        }
    }
}

/// Which limit a call would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Excess {
    /// The gateway's calls at once.
    Capacity,
    /// Its peer's calls at once.
    Calls,
    /// Its peer's calls in a minute.
    Rate {
        /// Seconds until there may be another.
        retry_after_s: u32,
    },
    /// Calls that one caller has ringing at one number: in all likelihood one call that goes round.
    Loop,
}

impl Excess {
    /// Refuses a call for it.
    #[must_use]
    pub const fn refuse(self, call: CallId) -> Command {
        let (status, text, retry_after_s) = match self {
            Self::Capacity => (503, "All lines of the gateway are in use", Some(LINES_FREE_AFTER_S)),
            Self::Calls => (503, "All lines of this peer are in use", Some(LINES_FREE_AFTER_S)),
            Self::Rate { retry_after_s } => {
                (503, "This peer has had its calls of this minute", Some(retry_after_s))
            }
            Self::Loop => (482, "This call goes round and round", None),
        };
        Command::Refuse { call, status, text, retry_after_s }
    }
}

impl From<Excess> for Refusal {
    fn from(excess: Excess) -> Self {
        match excess {
            Excess::Capacity => Self::Capacity,
            Excess::Calls => Self::Calls,
            Excess::Rate { .. } => Self::Rate,
            Excess::Loop => Self::Loop,
        }
    }
}

/// So many in so long.
#[derive(Clone, Copy)]
struct Rate {
    burst: u64,
    interval_us: u64,
}

impl Rate {
    fn new(count: NonZeroU32, in_us: u64) -> Self {
        let burst = u64::from(count.get());
        Self { burst, interval_us: (in_us / burst).max(1) }
    }
}

/// A token bucket, as the time at which it will be full again.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    full_at: Mono,
}

impl Bucket {
    /// Seconds until there is a token, rounded up; `None`: there is one.
    fn wait_s(self, rate: Rate, now: Mono) -> Option<u32> {
        let spare_us = (rate.burst - 1).saturating_mul(rate.interval_us);
        let wait_us = self.full_at.since_us(now).saturating_sub(spare_us);
        (wait_us > 0).then(|| u32::try_from(wait_us.div_ceil(SECOND_US)).unwrap_or(u32::MAX))
    }

    fn take(&mut self, rate: Rate, now: Mono) {
        self.full_at = Mono(self.full_at.max(now).0.saturating_add(rate.interval_us));
    }
}

/// What calls that go round have in common: peer, caller, called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Alike(PeerId, String, String);

impl Alike {
    /// `None` for a caller without a name: many of them may call one number.
    pub(crate) fn of(offer: &Offer) -> Option<Self> {
        let caller = before_params(offer.caller.asserted.first().unwrap_or(&offer.caller.from));
        let nameless = offer.caller.privacy || caller.is_empty() || caller.eq_ignore_ascii_case("anonymous");
        let called = before_params(&offer.request_user);
        (!nameless).then(|| Self(offer.peer, caller.to_owned(), called.to_owned()))
    }
}

/// A call's place among those under way, until [`Admission::end`].
#[must_use]
pub(crate) struct Admitted {
    /// Whose INVITE began it: a transfer does not change that.
    peer: PeerId,
    /// As long as it is not answered.
    alike: Option<Alike>,
}

#[derive(Clone, Copy, Default)]
struct PeerLoad {
    calls: usize,
    minute: Bucket,
    refused: [u64; Refusal::ALL.len()],
}

/// What is under way, and what has been of late.
pub(crate) struct Admission {
    peers: Vec<PeerLoad>,
    sources: HashMap<IpAddr, Bucket>,
    other_sources: Bucket,
    swept_at: Mono,
    unanswered: HashMap<Alike, usize>,
}

impl Admission {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            peers: vec![PeerLoad::default(); config.peers.len()],
            sources: HashMap::new(),
            other_sources: Bucket::default(),
            swept_at: Mono(0),
            unanswered: HashMap::new(),
        }
    }

    /// Takes a request outside dialogs.
    ///
    /// # Errors
    /// Seconds after which another may come: its source has sent too many.
    pub(crate) fn take_request(&mut self, config: &Config, now: Mono, source: IpAddr) -> Result<(), u32> {
        let Some(most) = config.limits.requests_per_s else { return Ok(()) };
        let rate = Rate::new(most, SECOND_US);
        let bucket = self.bucket(now, network(source));
        if let Some(wait_s) = bucket.wait_s(rate, now) {
            return Err(wait_s);
        }
        bucket.take(rate, now);
        Ok(())
    }

    fn bucket(&mut self, now: Mono, source: IpAddr) -> &mut Bucket {
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&source) {
            if now >= self.swept_at.plus_ms(SWEEP_EVERY_MS) {
                self.swept_at = now;
                self.sources.retain(|_, bucket| bucket.full_at > now);
            }
            if self.sources.len() >= MAX_SOURCES {
                return &mut self.other_sources;
            }
        }
        self.sources.entry(source).or_default()
    }

    /// What a new ordinary call of this peer would exceed.
    pub(crate) fn excess(&self, config: &Config, now: Mono, offer: &Offer) -> Option<Excess> {
        let (load, allowance) = (self.peers.get(offer.peer.0)?, &config.peers.get(offer.peer.0)?.allowance);
        if allowance.max_calls.is_some_and(|most| load.calls >= most) {
            return Some(Excess::Calls);
        }
        let alike = Alike::of(offer).and_then(|alike| self.unanswered.get(&alike));
        let most_alike = (config.limits.max_calls / SHARE_ALIKE).max(LEAST_ALIKE);
        if alike.is_some_and(|calls| *calls >= most_alike) {
            return Some(Excess::Loop);
        }
        self.wait_s(config, now, offer.peer).map(|retry_after_s| Excess::Rate { retry_after_s })
    }

    fn wait_s(&self, config: &Config, now: Mono, peer: PeerId) -> Option<u32> {
        let minute = config.peers.get(peer.0)?.allowance.calls_per_minute?;
        self.peers.get(peer.0)?.minute.wait_s(Rate::new(minute, MINUTE_US), now)
    }

    /// Takes a call of a peer's minute that no INVITE of its begins; `false`: there is none.
    pub(crate) fn take_call(&mut self, config: &Config, now: Mono, peer: PeerId) -> bool {
        if self.wait_s(config, now, peer).is_some() {
            self.refused(peer, Refusal::Rate);
            return false;
        }
        self.count_call(config, now, peer);
        true
    }

    fn count_call(&mut self, config: &Config, now: Mono, peer: PeerId) {
        let minute = config.peers.get(peer.0).and_then(|peer| peer.allowance.calls_per_minute);
        let (Some(minute), Some(load)) = (minute, self.peers.get_mut(peer.0)) else { return };
        let rate = Rate::new(minute, MINUTE_US);
        if load.minute.wait_s(rate, now).is_none() {
            load.minute.take(rate, now);
        }
    }

    /// A call has been offered.
    pub(crate) fn begin(&mut self, config: &Config, now: Mono, class: Class, offer: &Offer) -> Admitted {
        let peer = offer.peer;
        if let Some(load) = self.peers.get_mut(peer.0) {
            load.calls += 1;
        }
        if offer.excess.is_some() {
            return Admitted { peer, alike: None };
        }
        self.count_call(config, now, peer);
        let alike = Alike::of(offer).filter(|_| class == Class::Ordinary);
        if let Some(alike) = &alike {
            *self.unanswered.entry(alike.clone()).or_default() += 1;
        }
        Admitted { peer, alike }
    }

    /// It has been answered.
    pub(crate) fn answered(&mut self, admitted: &mut Admitted) {
        let Some(alike) = admitted.alike.take() else { return };
        if let Some(calls) = self.unanswered.get_mut(&alike) {
            *calls -= 1;
            if *calls == 0 {
                self.unanswered.remove(&alike);
            }
        }
    }

    /// It has ended.
    pub(crate) fn end(&mut self, admitted: &mut Admitted) {
        self.answered(admitted);
        if let Some(load) = self.peers.get_mut(admitted.peer.0) {
            load.calls = load.calls.saturating_sub(1);
        }
    }

    /// Counts a refusal.
    pub(crate) fn refused(&mut self, peer: PeerId, why: Refusal) {
        let counter = self.peers.get_mut(peer.0).and_then(|load| load.refused.get_mut(why as usize));
        if let Some(counter) = counter {
            *counter += 1;
        }
    }

    /// What has been refused, by peer and reason.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (PeerId, Refusal, u64)> {
        self.peers.iter().enumerate().flat_map(|(peer, load)| {
            Refusal::ALL.into_iter().zip(load.refused).map(move |(why, count)| (PeerId(peer), why, count))
        })
    }
}

/// Whoever has one IPv6 address has all of its /64.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const fn at(ms: u64) -> Mono {
        Mono(1_000_000).plus_ms(ms)
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_one_by_one() {
        let rate = Rate::new(NonZeroU32::new(6).unwrap(), MINUTE_US);
        let mut bucket = Bucket::default();
        for _ in 0..6 {
            assert_eq!(bucket.wait_s(rate, at(0)), None);
            bucket.take(rate, at(0));
        }
        assert_eq!(bucket.wait_s(rate, at(0)), Some(10));
        assert_eq!(bucket.wait_s(rate, at(9_001)), Some(1));
        assert_eq!(bucket.wait_s(rate, at(10_000)), None);
        bucket.take(rate, at(10_000));
        assert_eq!(bucket.wait_s(rate, at(10_000)), Some(10));
        let rested = at(10_000 + 60_000);
        for _ in 0..6 {
            assert_eq!(bucket.wait_s(rate, rested), None);
            bucket.take(rate, rested);
        }
        assert_eq!(bucket.wait_s(rate, rested), Some(10));
    }

    fn config() -> Config {
        Config {
            listeners: Vec::new(),
            peers: Vec::new(),
            routes: crate::Routes::default(),
            emergency: Vec::new(),
            limits: crate::Limits {
                max_calls: 1,
                max_message_bytes: 1,
                max_headers: 1,
                max_streams: 1,
                requests_per_s: NonZeroU32::new(1),
            },
            session_timer: crate::SessionTimer::default(),
        }
    }

    #[test]
    fn sources_are_bounded_those_beyond_share_one_bucket_and_those_that_rest_give_way() {
        let config = config();
        let mut admission = Admission::new(&config);
        let source = |n: usize| IpAddr::from(u32::try_from(0x0A00_0000 + n).unwrap().to_be_bytes());
        for n in 0..MAX_SOURCES {
            assert_eq!(admission.take_request(&config, at(0), source(n)), Ok(()));
        }
        let (one, other) = (source(MAX_SOURCES), source(MAX_SOURCES + 1));
        assert_eq!(admission.take_request(&config, at(0), one), Ok(()));
        assert_eq!(admission.take_request(&config, at(0), other), Err(1), "they share");
        assert_eq!(admission.sources.len(), MAX_SOURCES);
        assert_eq!(admission.take_request(&config, at(2_000), one), Ok(()));
        assert_eq!(admission.take_request(&config, at(2_000), other), Ok(()), "each has its own again");
        assert_eq!(admission.sources.len(), 2);
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_a_64() {
        let config = config();
        let mut admission = Admission::new(&config);
        for (source, taken) in [
            ("2001:db8:0:1::1", Ok(())),
            ("2001:db8:0:1:ffff::1", Err(1)),
            ("2001:db8:0:2::1", Ok(())),
            ("10.0.0.1", Ok(())),
            ("::ffff:10.0.0.1", Err(1)),
            ("10.0.0.2", Ok(())),
        ] {
            assert_eq!(admission.take_request(&config, at(0), source.parse().unwrap()), taken, "{source}");
        }
    }
}
