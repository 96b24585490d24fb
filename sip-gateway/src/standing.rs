//! Judging one address of a peer: whether a call should go there, by what calls and OPTIONS pings met.
//!
//! | state | sign | next |
//! |---|---|---|
//! | any but Closed | answered (any response but 503) | Up |
//! | any | 503 with Retry-After (RFC 3261 §20.33, §21.5.4) | Closed until then, at most [`CLOSED_MOST_S`] |
//! | any but Closed | 503 without one | Down for [`DOWN_MS`] |
//! | any but Closed | silent, unreachable | Down for [`DOWN_MS`] |
//! | Closed, its time over | any | as Unknown |
//!
//! Down and Closed end by themselves: the next call then finds out. A call prefers what is Up or Unknown,
//! then what is Down, which is a suspicion, and last what is Closed, which is the peer's own word. It
//! never fails because of them: where nothing else is left, they are tried.
//!
//! A 503 may be one callee's, far behind the address. So an emergency call goes by the order that it was given,
//! and only what is mute, because its last sign within [`DOWN_MS`] was silence or unreachable, comes last.

use consent::Mono;

/// How long after a bad sign an address is passed over. With pings, their signs renew or end it.
const DOWN_MS: u64 = 30_000;

/// The longest Retry-After that is believed: a peer in trouble asks for minutes, a mistaken one for days.
const CLOSED_MOST_S: u32 = 300;

/// What was seen of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It answers.
    Answered,
    /// It answers 503, with this Retry-After.
    Busy { retry_after_s: Option<u32> },
    /// It says nothing.
    Silent,
    /// The transport says that it cannot be reached.
    Unreachable,
}

/// How an address stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing was seen of it yet.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It did not answer, or refused.
    Down { until: Mono },
    /// It asked to be left alone.
    Closed { until: Mono },
}

/// In which order addresses are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// No reason against it.
    Open,
    /// It is suspected to be dead.
    Suspect,
    /// It does not want calls now.
    Closed,
}

/// Whether an address said nothing when it was last spoken to, and until when that counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mute(Option<Mono>);

impl Mute {
    pub(crate) fn on(&mut self, now: Mono, sign: Sign) {
        self.0 = match sign {
            Sign::Answered | Sign::Busy { .. } => None,
            Sign::Silent | Sign::Unreachable => Some(now.plus_ms(DOWN_MS)),
        };
    }

    /// The place of an address among those of an emergency call.
    pub(crate) fn rank(self, now: Mono) -> Rank {
        if self.0.is_some_and(|until| until > now) { Rank::Suspect } else { Rank::Open }
    }
}

impl Standing {
    pub(crate) fn on(&mut self, now: Mono, sign: Sign) {
        let closed = matches!(self, Self::Closed { until } if *until > now);
        match sign {
            Sign::Busy { retry_after_s: Some(seconds @ 1..) } => {
                let closed_ms = u64::from(seconds.min(CLOSED_MOST_S)) * 1_000;
                *self = Self::Closed { until: now.plus_ms(closed_ms) };
            }
            _ if closed => {}
            Sign::Answered => *self = Self::Up,
            Sign::Busy { .. } | Sign::Silent | Sign::Unreachable => {
                *self = Self::Down { until: now.plus_ms(DOWN_MS) };
            }
        }
    }

    pub(crate) fn rank(self, now: Mono) -> Rank {
        match self {
            Self::Down { until } if until > now => Rank::Suspect,
            Self::Closed { until } if until > now => Rank::Closed,
            Self::Unknown | Self::Up | Self::Down { .. } | Self::Closed { .. } => Rank::Open,
        }
    }

    /// Whether the last sign was a good one, or none came yet.
    pub(crate) const fn is_up(self) -> bool {
        matches!(self, Self::Unknown | Self::Up)
    }

    /// Until when it asked to be left alone.
    pub(crate) fn closed_until(self, now: Mono) -> Option<Mono> {
        match self {
            Self::Closed { until } if until > now => Some(until),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Mono = Mono(1_000_000);

    fn after(signs: &[Sign]) -> Standing {
        let mut standing = Standing::default();
        for sign in signs {
            standing.on(T0, *sign);
        }
        standing
    }

    const ASKED: Sign = Sign::Busy { retry_after_s: Some(120) };
    const BUSY: Sign = Sign::Busy { retry_after_s: None };

    #[test]
    fn an_answer_is_up_and_ends_every_suspicion() {
        for before in [&[][..], &[Sign::Answered], &[Sign::Silent], &[Sign::Unreachable], &[BUSY]] {
            let signs = [before, &[Sign::Answered]].concat();
            assert_eq!(after(&signs), Standing::Up, "{before:?}");
        }
    }

    #[test]
    fn silence_a_dead_transport_and_503_are_down_for_a_while() {
        for sign in [Sign::Silent, Sign::Unreachable, BUSY, Sign::Busy { retry_after_s: Some(0) }] {
            for before in [&[][..], &[Sign::Answered]] {
                let standing = after(&[before, &[sign]].concat());
                assert_eq!(standing, Standing::Down { until: T0.plus_ms(30_000) });
                assert!(!standing.is_up());
                assert_eq!(standing.rank(T0.plus_ms(29_999)), Rank::Suspect);
                assert_eq!(standing.rank(T0.plus_ms(30_000)), Rank::Open);
            }
        }
    }

    #[test]
    fn an_emergency_call_passes_over_the_mute_alone() {
        let rank = |signs: &[Sign], later_ms: u64| {
            let mut mute = Mute::default();
            signs.iter().for_each(|sign| mute.on(T0, *sign));
            mute.rank(T0.plus_ms(later_ms))
        };
        for sign in [Sign::Silent, Sign::Unreachable] {
            assert_eq!(rank(&[ASKED, sign], 29_999), Rank::Suspect);
            assert_eq!(rank(&[sign], 30_000), Rank::Open);
            for lives in [ASKED, BUSY, Sign::Answered] {
                assert_eq!(rank(&[sign, lives], 0), Rank::Open, "{lives:?}");
            }
        }
        assert_eq!(rank(&[], 0), Rank::Open);
    }

    #[test]
    fn retry_after_holds_against_every_other_sign_and_is_bounded() {
        for signs in
            [&[ASKED][..], &[ASKED, Sign::Answered], &[Sign::Silent, ASKED, Sign::Silent], &[ASKED, BUSY]]
        {
            let standing = after(signs);
            assert_eq!(standing, Standing::Closed { until: T0.plus_ms(120_000) }, "{signs:?}");
            assert_eq!(standing.rank(T0.plus_ms(119_999)), Rank::Closed);
            assert_eq!(standing.closed_until(T0.plus_ms(119_999)), Some(T0.plus_ms(120_000)));
            assert_eq!(
                (standing.rank(T0.plus_ms(120_000)), standing.closed_until(T0.plus_ms(120_000))),
                (Rank::Open, None)
            );
        }
        let for_a_day = after(&[Sign::Busy { retry_after_s: Some(86_400) }]);
        assert_eq!(for_a_day, Standing::Closed { until: T0.plus_ms(300_000) });
        let mut again = after(&[ASKED]);
        again.on(T0.plus_ms(120_000), Sign::Answered);
        assert_eq!(again, Standing::Up);
        assert!(Rank::Open < Rank::Suspect && Rank::Suspect < Rank::Closed);
    }
}
