//! Who is speaking on a leg, as far as RTP can tell: one transport source and one SSRC.
//!
//! | seen | before the answer | after it |
//! |---|---|---|
//! | the first packet | nothing | nothing |
//! | another source or SSRC, once, soon after an announced description | nothing | nothing |
//! | another source or SSRC, once, soon after the answer | nothing | nothing: a ringback generator gives way to the callee |
//! | a straggler of the speaker before the announced one, soon | nothing | nothing |
//! | another source or SSRC otherwise | nothing | unannounced: doubt |
//!
//! "Soon" is [`ALLOWED_MS`] from the first packet that follows the announcement, however late that comes.

use std::net::SocketAddr;

use consent::Mono;

/// How long an announced change may take from the first packet after the announcement: packets of the
/// old source are still on their way, and a far end switches within a second.
const ALLOWED_MS: u64 = 2_000;

/// The last known speaker of a leg's stream.
#[derive(Debug, Default)]
pub(super) struct Speaker {
    known: Option<(SocketAddr, u32)>,
    before: Option<(SocketAddr, u32)>,
    allowance: Allowance,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Allowance {
    #[default]
    Spent,
    FromFirstPacket,
    Until(Mono),
    Used(Mono),
}

impl Speaker {
    /// Signalling says that the speaker may change now.
    pub(super) fn expect_change(&mut self) {
        self.allowance = Allowance::FromFirstPacket;
    }

    /// Takes in an accepted packet; true if it is of another speaker than expected.
    pub(super) fn is_unannounced(&mut self, at: Mono, source: SocketAddr, ssrc: u32, answered: bool) -> bool {
        if self.allowance == Allowance::FromFirstPacket {
            self.allowance = Allowance::Until(at.plus_ms(ALLOWED_MS));
        }
        let speaker = Some((source, ssrc));
        if self.known.is_none() || self.known == speaker || !answered {
            self.known = speaker;
            return false;
        }
        if matches!(self.allowance, Allowance::Used(until) if at <= until) && self.before == speaker {
            return false;
        }
        self.before = self.known;
        self.known = speaker;
        match self.allowance {
            Allowance::Until(until) if at <= until => {
                self.allowance = Allowance::Used(until);
                false
            }
            _ => {
                self.allowance = Allowance::Spent;
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(speaker: &mut Speaker, ms: u64, port: u16, ssrc: u32, answered: bool) -> bool {
        let source = SocketAddr::from(([10, 0, 0, 1], port));
        speaker.is_unannounced(Mono::default().plus_ms(ms), source, ssrc, answered)
    }

    #[test]
    fn before_the_answer_changes_mean_nothing() {
        let mut speaker = Speaker::default();
        assert!((0..10).all(|n| !seen(&mut speaker, 0, 4_000 + n, u32::from(n), false)));
    }

    #[test]
    fn the_first_speaker_after_the_answer_is_no_change() {
        let mut speaker = Speaker::default();
        assert!(!seen(&mut speaker, 0, 4_000, 1, true));
        assert!(!seen(&mut speaker, 20, 4_000, 1, true));
    }

    #[test]
    fn a_new_ssrc_or_source_that_nothing_announced_is_noticed_once() {
        let mut speaker = Speaker::default();
        assert!(!seen(&mut speaker, 0, 4_000, 1, true));
        assert!(seen(&mut speaker, 20, 4_000, 2, true));
        assert!(!seen(&mut speaker, 40, 4_000, 2, true));
        assert!(seen(&mut speaker, 60, 4_002, 2, true));
    }

    #[test]
    fn one_change_is_allowed_after_an_announcement_and_only_soon() {
        let mut speaker = Speaker::default();
        assert!(!seen(&mut speaker, 0, 4_000, 1, true));
        speaker.expect_change();
        assert!(!seen(&mut speaker, 60_000, 4_000, 1, true));
        assert!(!seen(&mut speaker, 60_500, 4_002, 2, true), "the announced one");
        assert!(!seen(&mut speaker, 60_510, 4_000, 1, true), "a straggler");
        assert!(!seen(&mut speaker, 60_515, 4_002, 2, true));
        assert!(seen(&mut speaker, 60_520, 4_002, 3, true), "a second");
        speaker.expect_change();
        assert!(!seen(&mut speaker, 61_000, 4_002, 3, true));
        assert!(seen(&mut speaker, 63_001, 4_002, 4, true), "too late");
    }
}
