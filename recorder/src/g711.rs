//! G.711 µ-law and A-law (ITU-T G.711 tables 1 and 2), both ways, by table.
//!
//! Samples are linear 16-bit. µ-law's 14-bit and A-law's 13-bit values are scaled to the top of the 16 bits.
//! Packet loss concealment (Appendix I) and comfort noise (Appendix II) are left out: what is missing in a
//! recording is silence that is listed, never an invention.

/// Octet to sample, µ-law.
const ULAW: [i16; 256] = {
    let mut table = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        table[octet] = ulaw_expand(octet as u8);
        octet += 1;
    }
    table
};

/// Octet to sample, A-law.
const ALAW: [i16; 256] = {
    let mut table = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        table[octet] = alaw_expand(octet as u8);
        octet += 1;
    }
    table
};

/// Added before the segment is searched (G.711 table 2a, scaled to 16 bits).
const ULAW_BIAS: i32 = 0x84;
/// Beyond it the code word stays the same.
const ULAW_CLIP: i32 = 32_635;
/// A-law transmits with every even bit inverted (G.711 §3.2).
const ALAW_TOGGLE: u8 = 0x55;

/// The octet that is silence in µ-law.
pub const ULAW_SILENCE: u8 = 0xff;
/// The octet that is silence in A-law.
pub const ALAW_SILENCE: u8 = 0xd5;

/// The sample of a µ-law octet.
#[must_use]
pub const fn from_ulaw(octet: u8) -> i16 {
    ULAW[octet as usize]
}

/// The sample of an A-law octet.
#[must_use]
pub const fn from_alaw(octet: u8) -> i16 {
    ALAW[octet as usize]
}

/// The µ-law octet nearest to a sample.
#[must_use]
pub const fn to_ulaw(sample: i16) -> u8 {
    let negative = sample < 0;
    let mut magnitude = (sample as i32).abs();
    if magnitude > ULAW_CLIP {
        magnitude = ULAW_CLIP;
    }
    magnitude += ULAW_BIAS;
    let segment = 31 - (magnitude as u32).leading_zeros() - 7;
    let step = (magnitude >> (segment + 3)) & 0x0f;
    let word = (segment << 4) as u8 | step as u8;
    !(word | if negative { 0x80 } else { 0 })
}

/// The A-law octet nearest to a sample.
#[must_use]
pub const fn to_alaw(sample: i16) -> u8 {
    let positive = sample >= 0;
    let magnitude = if positive { sample as i32 } else { -(sample as i32) - 1 } >> 4;
    let word = if magnitude < 16 {
        magnitude as u8
    } else {
        let segment = 31 - (magnitude as u32).leading_zeros() - 3;
        (segment << 4) as u8 | ((magnitude >> (segment - 1)) & 0x0f) as u8
    };
    (word | if positive { 0x80 } else { 0 }) ^ ALAW_TOGGLE
}

const fn ulaw_expand(octet: u8) -> i16 {
    let word = !octet;
    let segment = (word >> 4) & 0x07;
    let magnitude = ((((word & 0x0f) as i32) << 3) + ULAW_BIAS) << segment;
    let magnitude = (magnitude - ULAW_BIAS) as i16;
    if word & 0x80 != 0 { -magnitude } else { magnitude }
}

const fn alaw_expand(octet: u8) -> i16 {
    let word = octet ^ ALAW_TOGGLE;
    let segment = (word >> 4) & 0x07;
    let step = ((word & 0x0f) as i32) << 4;
    let magnitude = match segment {
        0 => step + 8,
        _ => (step + 0x108) << (segment - 1),
    };
    if word & 0x80 != 0 { magnitude as i16 } else { -(magnitude as i16) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_code_words_of_the_recommendation() {
        assert_eq!(from_ulaw(0x80), 32_124);
        assert_eq!(from_ulaw(0x00), -32_124);
        assert_eq!(from_ulaw(0xff), 0);
        assert_eq!(from_ulaw(0x7f), 0);
        assert_eq!(from_alaw(0xaa), 32_256);
        assert_eq!(from_alaw(0x2a), -32_256);
        assert_eq!(from_alaw(0xd5), 8);
        assert_eq!(from_alaw(0x55), -8);
        assert_eq!(to_ulaw(0), ULAW_SILENCE);
        assert_eq!(to_alaw(0), ALAW_SILENCE);
    }

    #[test]
    fn every_octet_survives_decoding_and_encoding() {
        for octet in 0..=255u8 {
            assert_eq!(to_alaw(from_alaw(octet)), octet);
            // µ-law has two zeros; the negative one comes back as the positive one.
            let expected = if octet == 0x7f { 0xff } else { octet };
            assert_eq!(to_ulaw(from_ulaw(octet)), expected);
        }
    }

    #[test]
    fn no_sample_is_off_by_more_than_half_a_step() {
        for sample in i16::MIN..=i16::MAX {
            let (ulaw, alaw) = (from_ulaw(to_ulaw(sample)), from_alaw(to_alaw(sample)));
            let size = i32::from(sample).abs();
            assert!((i32::from(ulaw) - i32::from(sample)).abs() <= size / 32 + 644, "{sample}: {ulaw}");
            assert!((i32::from(alaw) - i32::from(sample)).abs() <= size / 32 + 512, "{sample}: {alaw}");
            if size < 1_000 {
                assert!((i32::from(ulaw) - i32::from(sample)).abs() <= 34, "{sample}: {ulaw}");
                assert!((i32::from(alaw) - i32::from(sample)).abs() <= 34, "{sample}: {alaw}");
            }
        }
    }
}
