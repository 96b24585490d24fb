//! The rules, parsed once into a versioned set: lines, other people's numbers, and how to ask.

use serde::{Deserialize, Serialize};

/// The n-th version of the district's rules; the configuration file's is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleVersion(pub u32);

/// Between which sides a call runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the contract's words, which say what they mean")]
pub enum Direction {
    Inbound,
    Outbound,
    Internal,
}

/// The class of a district line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineClass {
    /// An emergency dispatch line: recorded always.
    Dispatch,
    /// Recorded if all parties consent.
    Consent,
    /// Never recorded.
    Never,
    /// An employee organisation's: never recorded, the other number withheld.
    Union,
}

/// The class of somebody else's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NumberClass {
    /// An employee organisation's.
    Union,
    /// An attorney's, a cleric's, a health provider's.
    Privileged,
    /// A student's.
    Student,
}

/// When the consent question is put on a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// On every call, after the answer.
    #[default]
    EveryCall,
    /// When the district party dials the request code.
    OnRequest,
    /// Never by prompt: only where parties signal it themselves.
    SignalledOnly,
}

/// When the 15-second tone sounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// Never.
    Off,
    /// On dispatch lines.
    #[default]
    Dispatch,
    /// Whenever audio is stored.
    Always,
}

/// How the request and the answers come to stand at the start of a consented recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preamble {
    /// Kept in locked memory until all have agreed.
    #[default]
    Memory,
    /// Nothing is kept; the recording opens with a spoken confirmation and a second key press.
    Repeat,
}

/// A retention tag: `RT-` or the like, upper case, 3 to 32 characters of `A-Z 0-9 -`. Nothing is stored
/// without one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RetentionTag(String);

/// A line of the district.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its full number.
    pub number: E164,
    /// What people call it.
    pub name: String,
    /// Its class.
    pub class: LineClass,
    /// When the question is put (class `consent`).
    pub ask: Ask,
    /// The tag of what is stored from it.
    pub retention: RetentionTag,
    /// Other numbers under which its calls appear.
    pub aliases: Vec<E164>,
    /// The tone on this line, if not the common setting.
    pub tone: Option<Tone>,
}

/// How consent is asked and answered, on every line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The key that agrees.
    pub accept: char,
    /// The key that declines.
    pub decline: char,
    /// The code by which the district party asks for a recording, for example `*81`.
    pub request: String,
    /// The code by which any party takes its consent back, for example `*80`.
    pub withdraw: String,
    /// How long an answer is awaited after the question's end.
    pub answer_timeout_ms: u64,
    /// How often the question is put.
    pub attempts: u32,
    /// How the answers come to stand in the recording.
    pub preamble: Preamble,
    /// The tone.
    pub tone: Tone,
}

/// What is known of a call when its INVITE arrives. Numbers are user parts as received, most
/// trustworthy first; the gateway leaves out what a public peer may not assert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFacts {
    /// Between which sides.
    pub direction: Direction,
    /// Who is called: Request-URI, then To, then History-Info and Diversion.
    pub called: Vec<String>,
    /// Who calls: P-Asserted-Identity (district peers only), then From.
    pub calling: Vec<String>,
    /// Whether it is an emergency call.
    pub emergency: bool,
    /// Whether every peer on the way signals changes of its parties (`party_signals = "verified"`).
    pub parties_signalled: bool,
}
