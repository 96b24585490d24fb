//! Names of calls, recordings, legs and sides.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Wall;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl $name {
            /// A UUIDv7 (RFC 9562 §5.7) of this instant, from these random bits.
            #[must_use]
            pub const fn v7(at: Wall, random: u128) -> Self {
                Self(v7(at, random))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let v = self.0;
                write!(
                    f,
                    "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                    (v >> 96) as u32,
                    (v >> 80) as u16,
                    (v >> 64) as u16,
                    (v >> 48) as u16,
                    v & 0xffff_ffff_ffff
                )
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// A call: one initial INVITE accepted from a peer. UUIDv7, made by the shell.
    CallId
}
id! {
    /// A recording: one segment of consented or dispatch audio. UUIDv7, made by the shell.
    RecordingId
}

/// 48 bits of Unix milliseconds, version 7, variant 10, the rest random.
#[expect(clippy::cast_sign_loss, reason = "an instant before 1970 is clamped to it")]
const fn v7(at: Wall, random: u128) -> u128 {
    let unix_ms = if at.0 > 0 { (at.0 / 1_000) as u128 } else { 0 };
    let version = 0x7 << 76;
    let variant = 0b10 << 62;
    let random = random & !(0xf << 76 | 0b11 << 62) & ((1 << 80) - 1);
    (unix_ms & 0xffff_ffff_ffff) << 80 | version | variant | random
}

/// Not a UUID in its hyphenated form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected 8-4-4-4-12 hexadecimal digits")]
pub struct InvalidId;

fn parse(text: &str) -> Result<u128, InvalidId> {
    let hyphens = [8, 13, 18, 23];
    if text.len() != 36 {
        return Err(InvalidId);
    }
    let mut value = 0u128;
    for (index, byte) in text.bytes().enumerate() {
        if hyphens.contains(&index) {
            if byte != b'-' {
                return Err(InvalidId);
            }
            continue;
        }
        let digit = (byte as char).to_digit(16).ok_or(InvalidId)?;
        value = value << 4 | u128::from(digit);
    }
    Ok(value)
}

/// One of the two legs of a call through the back-to-back user agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Leg {
    /// The caller's leg: the INVITE came in on it.
    A,
    /// The callee's leg: our INVITE went out on it.
    B,
}

impl Leg {
    /// Both legs, caller first.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other leg.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// 0 for A, 1 for B: indexes a two-element array.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }
}

/// On which side of the gateway a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The district's own PBX: its assertions of identity are believed.
    District,
    /// A carrier or anybody else: its assertions grant nothing.
    Public,
}
