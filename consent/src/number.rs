//! Telephone numbers.
use serde::{Deserialize, Serialize};

/// A full number: `+` and 3 to 15 digits (ITU-T E.164).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct E164(String);
