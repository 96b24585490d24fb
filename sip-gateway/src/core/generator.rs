//! Tags, branches, Call-IDs and call ids out of one seed: SHA-256 in counter mode.
//!
//! The tags of stateless answers are keyed hashes of what they answer.
//!
//! Unguessable to whoever does not know the seed (RFC 3261 §19.3 asks 32 bits of a tag; these have 80),
//! and the same again for the same seed, so that a simulated run can be repeated.

use consent::{CallId, Wall};
use sha2::{Digest, Sha256};

/// RFC 3261 §8.1.1.7: a branch of an RFC 3261 element begins so.
pub(crate) const MAGIC_COOKIE: &str = "z9hG4bK";

/// Letters of a token: 32 of them, so that five bits make one without bias; without `l`, `o`, `0`, `1`.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// A deterministic source of identifiers.
pub(crate) struct Generator {
    seed: [u8; 32],
    counter: u64,
}

impl Generator {
    pub(crate) const fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }

    /// A To or From tag.
    pub(crate) fn tag(&mut self) -> String {
        self.token("", 16)
    }

    /// The To tag of an answer to the request with these fields: the same for the same ones, so that it
    /// need not be remembered (RFC 3261 §8.2.7).
    pub(crate) fn tag_for(&self, fields: &[&str]) -> String {
        self.keyed("tag of a stateless answer", fields, 16)
    }

    /// The mark in a branch that a call with these fields has passed here.
    pub(crate) fn mark_of_pass(&self, fields: &[&str]) -> String {
        self.keyed("mark of a pass", fields, 12)
    }

    fn keyed(&self, purpose: &str, fields: &[&str], letters: usize) -> String {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(purpose);
        for field in fields {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        spell("", &hash.finalize().into(), letters)
    }

    /// A Via branch with the magic cookie.
    pub(crate) fn branch(&mut self) -> String {
        self.token(MAGIC_COOKIE, 20)
    }

    /// A Call-ID, without host: RFC 3261 §25.1 allows a bare word, and a host would be topology.
    pub(crate) fn call_id(&mut self) -> String {
        self.token("", 26)
    }

    /// An initial CSeq number, below 2^31 with room to grow (§8.1.1.5).
    pub(crate) fn sequence(&mut self) -> u32 {
        let block = self.block();
        1 + u32::from(u16::from_be_bytes([block[0], block[1]]) & 0x7fff)
    }

    /// The session id and first version of a description (RFC 8866 §5.2: numeric), within what 32-bit
    /// parsers take.
    pub(crate) fn session(&mut self) -> u64 {
        let block = self.block();
        u64::from(u32::from_be_bytes([block[0], block[1], block[2], block[3]]) >> 2)
    }

    /// A number from 0 to `most`, both included. Of 2^64 numbers none is favoured that a call could notice.
    pub(crate) fn up_to(&mut self, most: u32) -> u32 {
        let drawn = self.draw() % (u64::from(most) + 1);
        u32::try_from(drawn).unwrap_or(most)
    }

    /// The client nonce of a digest (RFC 7616 §3.4).
    pub(crate) fn cnonce(&mut self) -> String {
        self.token("", 16)
    }

    /// What sets one nonce of ours apart from another of the same instant, and any other even draw.
    pub(crate) fn draw(&mut self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.block();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// A key for one purpose, which needs no draw.
    pub(crate) fn key(&self, purpose: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(b"key: ");
        hash.update(purpose);
        hash.finalize().into()
    }

    /// A UUIDv7 (RFC 9562 §5.7) of this wall-clock time.
    pub(crate) fn call(&mut self, wall: Wall) -> CallId {
        let block = self.block();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&block[..16]);
        CallId::v7(wall, u128::from_be_bytes(bytes))
    }

    fn token(&mut self, prefix: &str, letters: usize) -> String {
        spell(prefix, &self.block(), letters)
    }

    fn block(&mut self) -> [u8; 32] {
        self.counter = self.counter.wrapping_add(1);
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(self.counter.to_be_bytes());
        hash.finalize().into()
    }
}

fn spell(prefix: &str, block: &[u8; 32], letters: usize) -> String {
    let mut token = String::with_capacity(prefix.len() + letters);
    token.push_str(prefix);
    for byte in block.iter().take(letters) {
        token.push(LETTERS[usize::from(byte & 31)] as char);
    }
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_id_is_a_version_7_uuid_of_its_time() {
        let id = Generator::new([7; 32]).call(Wall(1_700_000_000_123_456)).to_string();
        assert!(id.starts_with("018bcfe5-687b-7"), "{id}");
        assert!(matches!(id.as_bytes()[19], b'8'..=b'b'), "{id}");
    }

    #[test]
    fn the_same_seed_gives_the_same_names_and_another_others() {
        let (mut one, mut same, mut other) =
            (Generator::new([1; 32]), Generator::new([1; 32]), Generator::new([2; 32]));
        let names = |g: &mut Generator| (g.tag(), g.branch(), g.call_id(), g.sequence(), g.session());
        let first = names(&mut one);
        assert_eq!(first, names(&mut same));
        assert_ne!(first, names(&mut one));
        assert_ne!(first, names(&mut other));
    }

    #[test]
    fn the_tag_of_a_stateless_answer_hangs_on_the_seed_and_on_every_field() {
        let (one, other) = (Generator::new([1; 32]), Generator::new([2; 32]));
        let tag = one.tag_for(&["ab", "c"]);
        assert_eq!(tag.len(), 16);
        assert_eq!(tag, one.tag_for(&["ab", "c"]));
        for others in [one.tag_for(&["a", "bc"]), one.tag_for(&["ab", "d"]), other.tag_for(&["ab", "c"])] {
            assert_ne!(tag, others);
        }
    }
}
