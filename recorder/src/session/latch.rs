//! Symmetric RTP (RFC 4961) that does not bleed: which source address a leg's port listens to.
//!
//! | state | packet from | outcome |
//! |---|---|---|
//! | not described | anybody | refused |
//! | nothing held | the described address | held as `Exact` |
//! | nothing held | the described IP, another port | held as `SameIp` |
//! | nothing held | elsewhere, the described IP is global | refused |
//! | nothing held | the IP that signals for the leg, the described IP is private, link-local, loopback or unspecified | refused, but a candidate (below) |
//! | nothing held | 127.0.0.1 or ::1, the described IP is loopback | refused, but a candidate |
//! | nothing held | elsewhere, the described IP is any of these | refused |
//! | nothing held | elsewhere, on an emergency call | held as `Foreign` at once |
//! | RTCP, nothing held | the IP that RTP holds | held as `SameIp`, or as `Foreign` if RTP does |
//! | held | the held source | accepted |
//! | held | a better fit than the held one | accepted, and held from now on |
//! | held | anything else | refused |
//! | described anew, change announced | - | nothing held |
//! | described anew, for somebody else | whoever was there before | refused, unless it is the address described |
//!
//! A source that the description does not explain is learned only where the description cannot be right
//! for us: it names an address that does not exist outside its owner's network (a client behind NAT: its
//! signalling and its media come from the same outer address), or a loopback one (a client on this host that
//! sends from another interface). Such a candidate is held as `Foreign` once it alone has kept up a plausible
//! stream: [`PROBATION_PACKETS`] in order over [`PROBATION_MS`]. Until then it is sent nothing, and nothing of
//! it is passed on.
//!
//! Whoever is held as `Foreign` is relayed, but nobody vouches that he is the party: what he sends is no
//! evidence of anything but a withdrawal, and after the answer he is doubt (`relay`). He loses the stream
//! to the first packet that fits the description.
//!
//! Left out: ICE (the gateway offers none), and telling apart two equally plausible foreign streams of one
//! address; the first wins.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use consent::Mono;

/// In-order packets that a foreign source must deliver (strict RTP elsewhere in the field asks for 4).
pub(super) const PROBATION_PACKETS: u8 = 4;
/// The shortest time over which it must deliver them: 4 packets of 20 ms; a spray comes faster.
pub(super) const PROBATION_MS: u64 = 50;
/// Foreign sources under observation at once; a fifth replaces the one silent for longest.
const CANDIDATES: usize = 4;

/// One port's view of its far end.
#[derive(Debug, Default)]
pub(super) struct Latch {
    described: Option<Described>,
    held: Option<(SocketAddr, Fit)>,
    candidates: [Option<Candidate>; CANDIDATES],
    /// The source of whoever was there before, and is no party any more.
    former: Option<SocketAddr>,
}

/// Where a leg is, as far as signalling knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Described {
    /// The address that its description names.
    pub(super) address: SocketAddr,
    /// The IP from which the description came.
    pub(super) signalled_from: IpAddr,
}

/// How well a source fits the description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// Another IP; learned.
    Foreign,
    /// The described IP, or for RTCP that of RTP.
    SameIp,
    /// The described address.
    Exact,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    source: SocketAddr,
    ssrc: u32,
    sequence: u16,
    packets: u8,
    since: Mono,
    last: Mono,
}

/// How a source that the description does not explain may be learned.
#[derive(Clone, Copy, Debug)]
pub(super) enum Learning {
    /// From a plausible RTP stream of this SSRC and sequence number.
    Stream {
        /// SSRC of the packet.
        ssrc: u32,
        /// Sequence number of the packet.
        sequence: u16,
    },
    /// From datagrams of any content that keep coming.
    Datagrams,
    /// From its first packet, whatever is described: emergency calls, where hearing the caller outweighs a bled packet.
    AtOnce,
    /// Not at all (RTCP follows RTP).
    Never,
}

impl Latch {
    /// Takes in a description. With `anew` the held source is forgotten.
    pub(super) fn describe(&mut self, described: Option<Described>, anew: bool) {
        self.described = described;
        if anew || described.is_none() {
            self.held = None;
            self.candidates = Default::default();
        }
    }

    /// Somebody else takes the leg's place: who was heard last, or was to be, is heard no more. Where nobody
    /// was meanwhile, that is still who was there before.
    pub(super) fn bar_former(&mut self) {
        let heard = self.held.map(|(held, _)| held).or(self.described.map(|described| described.address));
        self.former = heard.or(self.former);
    }

    /// How well the source of a packet fits, if the packet is the leg's at all. `sibling` is the IP from
    /// which the leg is known to send on its other port, and how well that fits.
    pub(super) fn admit(
        &mut self,
        at: Mono,
        source: SocketAddr,
        learning: Learning,
        sibling: Option<(IpAddr, Fit)>,
    ) -> Option<Fit> {
        let described = self.described?;
        if self.former == Some(source) && source != described.address {
            return None;
        }
        if let Some((_, fit)) = self.held.filter(|(held, _)| *held == source) {
            return Some(fit);
        }
        let sibling = sibling.filter(|(ip, _)| ip.to_canonical() == source.ip().to_canonical());
        let known = sibling.map(|(_, fit)| fit.min(Fit::SameIp));
        let fit = fit_of(source, described.address).max(known.unwrap_or(Fit::Foreign));
        if self.held.is_some_and(|(_, held)| fit <= held) {
            return None;
        }
        let explained = fit > Fit::Foreign || known.is_some();
        if explained || self.has_proved(at, described, source, learning) {
            self.held = Some((source, fit));
            self.candidates = Default::default();
            return Some(fit);
        }
        None
    }

    /// Forgets a foreign source: the leg has been heard from where it is described.
    pub(super) fn forget_foreign(&mut self) {
        self.held.take_if(|(_, fit)| *fit == Fit::Foreign);
    }

    /// Where to send to the leg: the source held, else the described address. `None` for no address, an
    /// unspecified one (`c=0.0.0.0`) and port 0.
    pub(super) fn destination(&self) -> Option<SocketAddr> {
        let described = self.described?;
        let to = self.held.map_or(described.address, |(held, _)| held);
        (!to.ip().is_unspecified() && to.port() != 0).then_some(to)
    }

    /// The IP from which the leg sends on this port, once known, and how well it fits.
    pub(super) fn held(&self) -> Option<(IpAddr, Fit)> {
        self.held.map(|(held, fit)| (held.ip(), fit))
    }

    /// Whether what is sent to the leg goes to a foreign source.
    pub(super) fn is_foreign(&self) -> bool {
        self.held.is_some_and(|(_, fit)| fit == Fit::Foreign)
    }

    fn has_proved(&mut self, at: Mono, described: Described, source: SocketAddr, learning: Learning) -> bool {
        let stream = match learning {
            Learning::AtOnce => return true,
            Learning::Never => return false,
            _ if !described.is_learnable(source.ip()) => return false,
            Learning::Stream { ssrc, sequence } => Some((ssrc, sequence)),
            Learning::Datagrams => None,
        };
        let candidate = self.candidate(at, source, stream);
        candidate.last = at;
        candidate.packets >= PROBATION_PACKETS && at.since_us(candidate.since) >= PROBATION_MS * 1_000
    }

    /// The candidate for `source` with this packet counted in; begun anew if the packet does not go on
    /// from its last.
    fn candidate(&mut self, at: Mono, source: SocketAddr, stream: Option<(u32, u16)>) -> &mut Candidate {
        let known = self.candidates.iter().position(|slot| slot.is_some_and(|known| known.source == source));
        let index = known.unwrap_or_else(|| self.slot_to_use());
        let (ssrc, sequence) = stream.unwrap_or_default();
        let fresh = Candidate { source, ssrc, sequence, packets: 1, since: at, last: at };
        let slot = &mut self.candidates[index];
        *slot = Some(match *slot {
            Some(seen) if seen.source == source && seen.is_followed_by(stream) => {
                Candidate { sequence, packets: seen.packets.saturating_add(1), ..seen }
            }
            _ => fresh,
        });
        slot.get_or_insert(fresh)
    }

    fn slot_to_use(&self) -> usize {
        let silent_since = |index: &usize| self.candidates[*index].map_or(Mono(0), |slot| slot.last);
        (0..CANDIDATES).min_by_key(silent_since).unwrap_or(0)
    }
}

impl Candidate {
    fn is_followed_by(&self, stream: Option<(u32, u16)>) -> bool {
        stream.is_none_or(|(ssrc, sequence)| {
            ssrc == self.ssrc && (1..=3).contains(&sequence.wrapping_sub(self.sequence))
        })
    }
}

fn fit_of(source: SocketAddr, described: SocketAddr) -> Fit {
    match source.ip().to_canonical() == described.ip().to_canonical() {
        true if source.port() == described.port() => Fit::Exact,
        true => Fit::SameIp,
        false => Fit::Foreign,
    }
}

impl Described {
    /// Whether the leg may be sending from an IP that its description does not name.
    fn is_learnable(self, source: IpAddr) -> bool {
        const HOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let (own, source) = (self.address.ip().to_canonical(), source.to_canonical());
        let signals = source == self.signalled_from.to_canonical();
        !is_global(own) && (signals || own.is_loopback() && HOST.contains(&source))
    }
}

/// Whether an IP means the same host everywhere: not unspecified, loopback, private (RFC 1918, RFC 4193),
/// shared (RFC 6598, carriers' NAT) or link-local.
fn is_global(ip: IpAddr) -> bool {
    let local = match ip {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let shared = first == 100 && second & 0xc0 == 64;
            v4.is_private() || v4.is_link_local() || shared
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    !(local || ip.is_loopback() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Where the signalling of every leg below comes from, and media that are not what they say.
    const SIGNALLED_FROM: &str = "203.0.113.9";
    const NAT: &str = "203.0.113.9:31000";

    fn described(text: &str) -> Latch {
        let mut latch = Latch::default();
        latch.describe(Some(at(text)), true);
        latch
    }

    fn at(text: &str) -> Described {
        Described { address: address(text), signalled_from: SIGNALLED_FROM.parse().unwrap() }
    }

    fn stream(sequence: u16) -> Learning {
        Learning::Stream { ssrc: 7, sequence }
    }

    fn send(latch: &mut Latch, ms: u64, from: &str, sequence: u16) -> bool {
        latch.admit(Mono::default().plus_ms(ms), address(from), stream(sequence), None).is_some()
    }

    #[test]
    fn nobody_is_heard_before_the_description() {
        assert!(!send(&mut Latch::default(), 0, "10.0.0.1:4000", 1));
    }

    #[test]
    fn who_was_there_before_is_not_heard_after_somebody_else_has_come() {
        let [before, after] = ["10.0.0.1:4000", "10.0.0.1:5000"].map(address);
        let mut latch = described("10.0.0.1:4000");
        assert_eq!(latch.admit(Mono(0), before, Learning::Never, None), Some(Fit::Exact));
        latch.bar_former();
        latch.describe(Some(at("10.0.0.1:5000")), true);
        assert_eq!(latch.admit(Mono(1), before, Learning::Never, None), None);
        assert_eq!(latch.admit(Mono(2), after, Learning::Never, None), Some(Fit::Exact));
        // A relay in between may have one address for both.
        latch.bar_former();
        latch.describe(Some(at("10.0.0.1:5000")), true);
        assert_eq!(latch.admit(Mono(3), after, Learning::Never, None), Some(Fit::Exact));
        // Nobody is there for a while: who was is remembered.
        latch.bar_former();
        latch.describe(None, true);
        latch.bar_former();
        latch.describe(Some(at("10.0.0.1:6000")), true);
        assert_eq!(latch.admit(Mono(4), after, Learning::Never, None), None);
    }

    #[test]
    fn the_described_address_is_heard_at_once_and_others_never_after() {
        let mut latch = described("10.0.0.1:4000");
        assert!(send(&mut latch, 0, "10.0.0.1:4000", 1));
        for n in 0..100 {
            assert!(!send(&mut latch, u64::from(n) * 20, "10.0.0.9:4000", n));
            assert!(!send(&mut latch, u64::from(n) * 20, "10.0.0.1:4002", n));
        }
        assert_eq!(latch.destination(), Some(address("10.0.0.1:4000")));
    }

    #[test]
    fn a_better_fit_takes_over_and_a_worse_one_does_not() {
        let mut latch = described("10.0.0.1:4000");
        assert!(send(&mut latch, 0, "10.0.0.1:4002", 1));
        assert!(send(&mut latch, 20, "10.0.0.1:4000", 2));
        assert!(!send(&mut latch, 40, "10.0.0.1:4002", 3));
    }

    #[test]
    fn a_foreign_source_is_heard_after_a_plausible_stream_and_then_stays() {
        let mut latch = described("127.0.0.11:4000");
        let heard: Vec<bool> =
            (0..6).map(|n| send(&mut latch, u64::from(n) * 20, "127.0.0.1:4000", n)).collect();
        assert_eq!(heard, [false, false, false, true, true, true]);
        assert!((0..50).all(|n| !send(&mut latch, 200 + u64::from(n) * 20, "127.0.0.3:4000", n)));
    }

    #[test]
    fn a_foreign_source_is_learned_only_where_the_description_cannot_be_right() {
        let learned = |described_at: &str, from: &str| {
            let mut latch = described(described_at);
            (0..20).any(|n| send(&mut latch, u64::from(n) * 20, from, n))
        };
        let strangers = ["203.0.113.10:31000", "10.0.0.9:4000", "127.0.0.1:4000", "[2001:db8::9]:4000"];
        for local in [
            "0.0.0.0:4000",
            "10.0.0.5:4000",
            "172.31.0.5:4000",
            "192.168.1.5:4000",
            "100.64.0.1:4000",
            "100.127.255.1:4000",
            "169.254.1.1:4000",
            "[fd00::1]:4000",
            "[fe80::1]:4000",
            "[::]:4000",
            "[::ffff:10.0.0.5]:4000",
        ] {
            assert!(learned(local, NAT) && learned(local, "[::ffff:203.0.113.9]:9"), "{local}");
            assert!(strangers.iter().all(|stranger| !learned(local, stranger)), "{local}");
        }
        for global in [
            "198.51.100.7:4000",
            "172.32.0.5:4000",
            "100.128.0.1:4000",
            "[2001:db8::1]:4000",
            "[::ffff:198.51.100.7]:4000",
        ] {
            assert!(!learned(global, NAT), "{global}");
            assert!(strangers.iter().all(|stranger| !learned(global, stranger)), "{global}");
        }
        assert!(learned("127.0.0.11:4000", "127.0.0.1:4000"));
        assert!(learned("127.0.0.11:4000", "[::ffff:127.0.0.1]:4000"));
        assert!(!learned("127.0.0.11:4000", "127.0.0.66:4000"));
        assert!(learned("127.0.0.11:4000", NAT));
        assert!(!learned("127.0.0.11:4000", "203.0.113.10:31000"));
        assert!(!learned("[::1]:4000", "203.0.113.10:31000"));
    }

    #[test]
    fn rtcp_of_a_foreign_source_is_foreign_and_is_forgotten_with_it() {
        let mut latch = described("10.0.0.1:4001");
        let admit = |latch: &mut Latch, from: &str, sibling: Option<(&str, Fit)>| {
            let sibling = sibling.map(|(ip, fit)| (ip.parse().unwrap(), fit));
            latch.admit(Mono::default(), address(from), Learning::Never, sibling)
        };
        assert_eq!(admit(&mut latch, "203.0.113.9:9", None), None);
        assert_eq!(
            admit(&mut latch, "203.0.113.9:9", Some(("203.0.113.9", Fit::Foreign))),
            Some(Fit::Foreign)
        );
        assert!(latch.is_foreign());
        latch.forget_foreign();
        assert_eq!(latch.destination(), Some(address("10.0.0.1:4001")));
        assert_eq!(admit(&mut latch, "203.0.113.9:9", Some(("10.0.0.1", Fit::Exact))), None);
        assert_eq!(admit(&mut latch, "10.0.0.1:9", Some(("10.0.0.1", Fit::Exact))), Some(Fit::SameIp));
        latch.forget_foreign();
        assert_eq!(latch.destination(), Some(address("10.0.0.1:9")));
    }

    #[test]
    fn a_burst_or_a_stream_out_of_order_is_not_learned() {
        let mut latch = described("10.0.0.1:4000");
        assert!((0..40).all(|n| !send(&mut latch, 0, NAT, n)));
        assert!((0..40).all(|n| !send(&mut latch, 20 * u64::from(n), "203.0.113.9:31002", n * 100)));
        assert_eq!(latch.destination(), Some(address("10.0.0.1:4000")));
    }

    #[test]
    fn a_learned_source_gives_way_to_the_described_one() {
        let mut latch = described("10.0.0.1:4000");
        let learned = (0..5).map(|n| send(&mut latch, u64::from(n) * 20, NAT, n)).last();
        assert_eq!(learned, Some(true));
        assert!(send(&mut latch, 120, "10.0.0.1:4000", 1));
        assert!(!send(&mut latch, 140, NAT, 6));
    }

    #[test]
    fn an_announced_change_latches_anew_and_a_refresh_does_not() {
        let mut latch = described("10.0.0.1:4000");
        assert!(send(&mut latch, 0, "10.0.0.1:4000", 1));
        latch.describe(Some(at("10.0.0.1:4000")), false);
        assert!(!send(&mut latch, 20, "10.0.0.2:5000", 2));
        latch.describe(Some(at("10.0.0.2:5000")), true);
        assert!(send(&mut latch, 40, "10.0.0.2:5000", 3));
        assert!(!send(&mut latch, 60, "10.0.0.1:4000", 4));
    }

    #[test]
    fn an_unspecified_address_is_sent_nothing() {
        assert_eq!(described("0.0.0.0:4000").destination(), None);
        assert_eq!(described("10.0.0.1:0").destination(), None);
    }
}
