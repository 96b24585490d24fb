//! The nonces of our own challenges (RFC 7616 §3.3, §5.4, §5.5).
//!
//! A nonce is the time of its issue and a salt, with a keyed hash over both and over whom it is for: issuing
//! one keeps nothing, so that a flood of unauthenticated requests costs no memory. Only one that came back
//! with the right password is remembered, for the counts that were used with it.

use std::collections::BTreeMap;

use consent::Mono;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::PeerId;

/// How long a nonce may be used: long enough for the requests of most calls, short enough that what was
/// overheard is soon worth nothing.
const LIFETIME_MS: u64 = 300_000;

/// Nonces whose counts are remembered. Beyond: the oldest is forgotten, and it and all that are older are
/// stale from then on, which costs their holders one more challenge.
const MAX_USED: usize = 4_096;

/// Bytes of the keyed hash in a nonce: half of SHA-256, which nobody forges (RFC 2104 §5).
const TAG_BYTES: usize = 16;

/// Counts below the highest that may still come: datagrams overtake each other.
const WINDOW: u32 = 64;

/// When a nonce was issued, in µs, and its salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Issued {
    at: Mono,
    salt: u64,
}

/// Makes and recognises the nonces for one peer.
pub(super) struct Nonces {
    key: Hmac<Sha256>,
}

impl Nonces {
    pub(super) fn new(key: &[u8; 32], peer: PeerId) -> Self {
        // RFC 2104 §2 pads a short key with zeros itself; a whole block cannot have a wrong length.
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(key);
        let mut key = Hmac::<Sha256>::new(&block.into());
        key.update(&(peer.0 as u64).to_be_bytes());
        Self { key }
    }

    pub(super) fn issue(&self, at: Mono, salt: u64) -> String {
        let issued = Issued { at, salt };
        let tag = self.tag(issued).finalize().into_bytes();
        let tag = tag.get(..TAG_BYTES).unwrap_or_default();
        hex::encode([&at.0.to_be_bytes()[..], &salt.to_be_bytes(), tag].concat())
    }

    /// A nonce that we issued and that may still be used; `None` for any other.
    pub(super) fn read(&self, nonce: &str, now: Mono) -> Option<Issued> {
        let mut bytes = [0; 16 + TAG_BYTES];
        hex::decode_to_slice(nonce, &mut bytes).ok()?;
        let (at, rest) = bytes.split_first_chunk::<8>()?;
        let (salt, tag) = rest.split_first_chunk::<8>()?;
        let issued = Issued { at: Mono(u64::from_be_bytes(*at)), salt: u64::from_be_bytes(*salt) };
        self.tag(issued).verify_truncated_left(tag).ok()?;
        (now <= issued.at.plus_ms(LIFETIME_MS)).then_some(issued)
    }

    fn tag(&self, issued: Issued) -> Hmac<Sha256> {
        let mut tag = self.key.clone();
        tag.update(&issued.at.0.to_be_bytes());
        tag.update(&issued.salt.to_be_bytes());
        tag
    }
}

/// Which counts were used with which nonces.
#[derive(Debug, Default)]
pub(super) struct Used {
    windows: BTreeMap<Issued, Window>,
    /// The youngest nonce that was forgotten before its time.
    forgotten: Option<Issued>,
}

/// The counts used with one nonce: the highest, and a bit for each below it, the next lower first.
#[derive(Clone, Copy, Debug)]
struct Window {
    highest: u32,
    below: u64,
}

impl Used {
    /// Whether a count is new with this nonce; if so, it is not any more.
    pub(super) fn take(&mut self, issued: Issued, count: u32, now: Mono) -> bool {
        while let Some(first) = self.windows.first_entry().filter(|first| expired(*first.key(), now)) {
            first.remove();
        }
        if let Some(window) = self.windows.get_mut(&issued) {
            return window.take(count);
        }
        if count == 0 || self.forgotten.is_some_and(|forgotten| issued <= forgotten) {
            return false;
        }
        self.windows.insert(issued, Window { highest: count, below: 0 });
        if self.windows.len() > MAX_USED
            && let Some((oldest, _)) = self.windows.pop_first()
        {
            self.forgotten = Some(oldest);
        }
        true
    }
}

fn expired(issued: Issued, now: Mono) -> bool {
    now > issued.at.plus_ms(LIFETIME_MS)
}

impl Window {
    fn take(&mut self, count: u32) -> bool {
        if count > self.highest {
            let step = count - self.highest;
            // The former highest becomes one of those below.
            let shifted = self.below.checked_shl(step).unwrap_or(0);
            self.below = shifted | 1_u64.checked_shl(step - 1).unwrap_or(0);
            self.highest = count;
            return true;
        }
        let Some(back) = (self.highest - count).checked_sub(1).filter(|back| *back < WINDOW) else {
            return false;
        };
        let bit = 1_u64 << back;
        let fresh = count > 0 && self.below & bit == 0;
        self.below |= bit;
        fresh
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const NOW: Mono = Mono(7_000_000);

    fn nonces() -> Nonces {
        Nonces::new(&[3; 32], PeerId(1))
    }

    #[test]
    fn a_nonce_is_known_by_whom_it_was_issued_for_until_it_expires() {
        let nonce = nonces().issue(NOW, 5);
        let issued = Issued { at: NOW, salt: 5 };
        assert_eq!(nonces().read(&nonce, NOW.plus_ms(LIFETIME_MS)), Some(issued));
        assert_eq!(nonces().read(&nonce, NOW.plus_ms(LIFETIME_MS + 1)), None);
        assert_eq!(Nonces::new(&[3; 32], PeerId(2)).read(&nonce, NOW), None);
        assert_eq!(Nonces::new(&[4; 32], PeerId(1)).read(&nonce, NOW), None);
    }

    #[test]
    fn no_letter_of_a_nonce_may_change() {
        let nonce = nonces().issue(NOW, 5);
        for index in 0..nonce.len() {
            let mut changed = nonce.clone().into_bytes();
            changed[index] = if changed[index] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(nonces().read(&changed, NOW), None, "{index}");
        }
        for odd in ["", "0", "zz", &nonce[2..], &format!("{nonce}00")] {
            assert_eq!(nonces().read(odd, NOW), None);
        }
    }

    #[test]
    fn a_count_is_good_once_and_may_come_late_within_the_window() {
        let mut used = Used::default();
        let nonce = Issued { at: NOW, salt: 0 };
        let mut take = |count| used.take(nonce, count, NOW);
        assert!(!take(0));
        for (count, fresh) in [
            (1, true),
            (1, false),
            (3, true),
            (2, true),
            (2, false),
            (0, false),
            (100, true),
            (36, true),
            (36, false),
            (35, false),
            (99, true),
            (u32::MAX, true),
            (u32::MAX, false),
            (u32::MAX - 64, true),
            (u32::MAX - 65, false),
            (100, false),
        ] {
            assert_eq!(take(count), fresh, "{count}");
        }
    }

    #[test]
    fn what_is_forgotten_for_want_of_room_is_stale_and_never_good_again() {
        let mut used = Used::default();
        let nonce = |number: u64| Issued { at: Mono(number), salt: 0 };
        for number in 0..=MAX_USED as u64 {
            assert!(used.take(nonce(number), 1, NOW));
        }
        assert_eq!(used.windows.len(), MAX_USED);
        assert!(!used.take(nonce(0), 1, NOW) && !used.take(nonce(0), 2, NOW));
        assert!(!used.take(nonce(1), 1, NOW) && used.take(nonce(1), 2, NOW));
        assert!(used.take(nonce(1_000_000), 1, NOW));
    }

    #[test]
    fn expired_nonces_take_no_room() {
        let mut used = Used::default();
        used.take(Issued { at: Mono(0), salt: 0 }, 1, NOW);
        let later = NOW.plus_ms(LIFETIME_MS);
        used.take(Issued { at: later, salt: 0 }, 1, later);
        assert_eq!(used.windows.len(), 1);
    }
}
