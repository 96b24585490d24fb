//! Instants as the contract prints them.

use std::fmt;

use consent::Wall;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// An instant, printed in RFC 3339 in UTC with milliseconds (`2026-11-22T18:00:00.123Z`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Utc(pub Wall);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", timestamp(self.0).strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))
    }
}

impl Serialize for Utc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<i64> for Utc {
    fn from(us: i64) -> Self {
        Self(Wall(us))
    }
}

/// Year and month, `2026/11`.
pub(crate) fn month(at: Wall) -> String {
    timestamp(at).strftime("%Y/%m").to_string()
}

/// Beyond the years that a calendar knows, the nearest that it does.
fn timestamp(at: Wall) -> Timestamp {
    let nearest = if at.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_microsecond(at.0).unwrap_or(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_cut_to_milliseconds_and_always_print() {
        assert_eq!(Utc(Wall(1_795_370_400_123_999)).to_string(), "2026-11-22T18:00:00.123Z");
        assert_eq!(Utc(Wall(0)).to_string(), "1970-01-01T00:00:00.000Z");
        for at in [i64::MIN, i64::MAX] {
            assert!(Utc(Wall(at)).to_string().ends_with('Z'));
        }
        assert_eq!(month(Wall(1_795_370_400_123_999)), "2026/11");
    }
}
