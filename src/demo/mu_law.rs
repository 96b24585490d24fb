//! G.711 µ-law to linear samples (ITU-T G.711 table 2a), for what the demonstration played and heard. Not the
//! recorder's table: what checks a decoder must not share its errors.

/// µ-law of silence.
pub const SILENCE: u8 = 0xFF;

/// What is added before companding, and taken off after expanding.
const BIAS: i32 = 0x84;

/// One sample, 16 bits full scale.
#[must_use]
pub const fn to_linear(code: u8) -> i16 {
    let code = !code;
    let exponent = (code >> 4) & 7;
    let magnitude = ((((code as i32 & 0x0F) << 3) + BIAS) << exponent) - BIAS;
    // At most 32,124, so the narrowing is exact.
    (if code & 0x80 == 0 { magnitude } else { -magnitude }) as i16
}

/// The code of a sample, by the nearest of all; for tones, not for speed.
#[must_use]
pub fn from_linear(sample: i16) -> u8 {
    (0..=u8::MAX).min_by_key(|&code| to_linear(code).abs_diff(sample)).unwrap_or(SILENCE)
}

/// The mean magnitude of samples, 16 bits full scale; 0 for none.
#[must_use]
pub fn mean_magnitude(codes: &[u8]) -> u32 {
    let sum: u64 = codes.iter().map(|&code| u64::from(to_linear(code).unsigned_abs())).sum();
    u32::try_from(sum / (codes.len() as u64).max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_and_the_middle_of_the_table() {
        assert_eq!([0x00, 0x80, 0xFF, 0x7F, 0xE7].map(to_linear), [-32_124, 32_124, 0, 0, 260]);
    }

    #[test]
    fn every_code_comes_back_but_for_the_sign_of_zero() {
        for code in 0..=u8::MAX {
            assert_eq!(to_linear(from_linear(to_linear(code))), to_linear(code));
        }
    }
}
