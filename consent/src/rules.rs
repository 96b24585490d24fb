//! The rules, parsed once into a versioned set: lines, other people's numbers, and how to ask.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Dialled, E164, Numbering, PhoneContext};

/// The longest request or withdrawal code, in digits.
const LONGEST_CODE: usize = 8;

/// The most often a party may be asked, so that an asking is bounded.
const MOST_ATTEMPTS: u32 = 10;

/// Bounds of the answer timeout, in ms: below, nobody can answer; above, the asking holds up the call.
const ANSWER_TIMEOUT_MS: std::ops::RangeInclusive<u64> = 1_000..=120_000;

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

/// A name that somebody goes by: a user part as received.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    /// The user part.
    pub user: &'a str,
    known: bool,
}

/// What is known of a call when its INVITE arrives. Names are most trustworthy first; the gateway leaves out
/// what a peer may not assert.
#[derive(Clone, PartialEq, Eq)]
pub struct CallFacts<'a> {
    /// Between which sides.
    pub direction: Direction,
    /// Who is called: Request-URI, then To, then History-Info and Diversion (what a public peer says in any but
    /// the first can only bar).
    pub called: Vec<Name<'a>>,
    /// Who calls: P-Asserted-Identity (of peers that are trusted with it), then From.
    pub calling: Vec<Name<'a>>,
    /// Whether it is an emergency call.
    pub emergency: bool,
    /// Whether every peer on the way signals changes of its parties (`party_signals = "verified"`).
    pub parties_signalled: bool,
}

impl<'a> Name<'a> {
    /// A name that is known: the gateway routes by it, or a peer vouches for it that is trusted with identities.
    /// No other is ever a dispatch line's.
    #[must_use]
    pub const fn known(user: &'a str) -> Self {
        Self { user, known: true }
    }

    /// A name that somebody gives: a telephone may write what it likes.
    #[must_use]
    pub const fn said(user: &'a str) -> Self {
        Self { user, known: false }
    }

    /// Whether it is [known](Self::known).
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.known
    }
}

impl fmt::Debug for CallFacts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFacts")
            .field("direction", &self.direction)
            .field("emergency", &self.emergency)
            .field("parties_signalled", &self.parties_signalled)
            .finish_non_exhaustive()
    }
}

impl RetentionTag {
    /// The tag's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RetentionTag {
    type Error = RuleError;

    fn try_from(tag: String) -> Result<Self, RuleError> {
        let fits = (3..=32).contains(&tag.len())
            && tag.starts_with(|c: char| c.is_ascii_uppercase())
            && !tag.ends_with('-')
            && tag.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b'-'));
        if fits { Ok(Self(tag)) } else { Err(RuleError::RetentionTag { tag }) }
    }
}

impl From<RetentionTag> for String {
    fn from(tag: RetentionTag) -> Self {
        tag.0
    }
}

impl fmt::Display for RetentionTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for Settings {
    /// The contract's defaults.
    fn default() -> Self {
        Self {
            accept: '1',
            decline: '2',
            request: "*81".to_owned(),
            withdraw: "*80".to_owned(),
            answer_timeout_ms: 10_000,
            attempts: 2,
            preamble: Preamble::Memory,
            tone: Tone::Dispatch,
        }
    }
}

/// Why rules are refused. The messages are for the administrator who wrote them: they quote the district's
/// own lines and settings, and so belong on a terminal, never in a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Not a retention tag.
    #[error(
        "\"{tag}\" is not a retention tag: 3 to 32 of A-Z, 0-9 and -, beginning with a letter, as in RT-DISP-ROUTINE"
    )]
    RetentionTag {
        /// The text.
        tag: String,
    },
    /// A number or alias belongs to two lines (or twice to one).
    #[error("{number} is given twice among lines and aliases: by \"{first}\" and by \"{second}\"")]
    DuplicateNumber {
        /// The number.
        number: E164,
        /// Name of the line that has it.
        first: String,
        /// Name of the line that has it again.
        second: String,
    },
    /// A number has two classes.
    #[error("{number} is listed with two classes, {first:?} and {second:?}")]
    ContradictoryClass {
        /// The number.
        number: E164,
        /// One.
        first: NumberClass,
        /// The other.
        second: NumberClass,
    },
    /// A key or code has something that no telephone key sends.
    #[error("{setting} has '{character}', which is not a telephone key (0-9, *, #, A-D)")]
    NotAKey {
        /// Which setting.
        setting: &'static str,
        /// The character.
        character: char,
    },
    /// A code is empty or too long.
    #[error("{setting} has {length} keys, where 1 to 8 are allowed")]
    CodeLength {
        /// Which setting.
        setting: &'static str,
        /// Its length.
        length: usize,
    },
    /// A key or code begins with (or is) another: pressing the one would be the other.
    #[error("{longer} (\"{code}\") begins with {shorter}, so the two cannot be told apart")]
    Overlap {
        /// The setting that begins with the other.
        longer: &'static str,
        /// Its value.
        code: String,
        /// The other setting.
        shorter: &'static str,
    },
    /// Never asked, or too often.
    #[error("{attempts} attempts, where 1 to 10 are allowed")]
    Attempts {
        /// The value.
        attempts: u32,
    },
    /// Too short or too long.
    #[error("{answer_timeout_ms} ms for an answer, where 1 s to 120 s are allowed")]
    AnswerTimeout {
        /// The value in ms.
        answer_timeout_ms: u64,
    },
    /// `preamble = "repeat"`.
    #[error("the preamble \"repeat\" is not available yet")]
    PreambleRepeat,
}

/// The rules in one version: immutable, and shared by all calls that began under them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    version: RuleVersion,
    numbering: Numbering,
    lines: Vec<Line>,
    line_index: BTreeMap<E164, usize>,
    number_classes: BTreeMap<E164, NumberClass>,
    settings: Settings,
}

impl RuleSet {
    /// Checks the rules as a whole.
    ///
    /// # Errors
    /// The first offence found, with the offender's name.
    pub fn new(
        version: RuleVersion,
        numbering: Numbering,
        lines: Vec<Line>,
        numbers: Vec<(E164, NumberClass)>,
        settings: Settings,
    ) -> Result<Self, RuleError> {
        settings.check()?;
        let line_index = index_lines(&lines)?;
        let number_classes = index_classes(numbers)?;
        Ok(Self { version, numbering, lines, line_index, number_classes, settings })
    }

    /// The version.
    #[must_use]
    pub const fn version(&self) -> RuleVersion {
        self.version
    }

    /// The numbering plan.
    #[must_use]
    pub const fn numbering(&self) -> &Numbering {
        &self.numbering
    }

    /// How consent is asked and answered.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The lines, in the order in which they were given.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The line of a call: the district's number that it is called by or calls from.
    ///
    /// The called side is looked at first, then the calling side (not for inbound calls); within a side the
    /// most trustworthy candidate first. Where several lines match, the class decides: union, never, dispatch,
    /// consent; within a class, the first. A dispatch line counts only by a [known](Name::known) name that is no
    /// number of another plan, so that no telephone opens its basis by what it writes. Of an inbound call the
    /// Request-URI counts, the first of `called`; a public peer wrote the rest, which grants nothing: it
    /// counts only where it names a union or never line, and no dispatch line was dialled, whose recording no
    /// caller can switch off. Of an outbound call the called side only bars so too: whatever line it was diverted
    /// from, it has left it.
    #[must_use]
    pub fn line_of(&self, facts: &CallFacts<'_>) -> Option<&Line> {
        let (granting, calling) = match facts.direction {
            Direction::Inbound => (1, [].as_slice()),
            Direction::Outbound => (0, facts.calling.as_slice()),
            Direction::Internal => (facts.called.len(), facts.calling.as_slice()),
        };
        let first = facts.called.first().and_then(|name| self.line_named(name));
        let is_dispatch = |line: &Line| line.class == LineClass::Dispatch;
        if facts.direction == Direction::Inbound && first.is_some_and(is_dispatch) {
            return first;
        }
        let called = facts.called.iter().enumerate().filter_map(|(place, name)| {
            self.line_named(name).filter(|line| place < granting || line.class.bars())
        });
        let calling = calling.iter().filter_map(|name| self.line_named(name));
        // `min_by_key` keeps the first of equals.
        called.chain(calling).min_by_key(|line| line.class.rank())
    }

    /// The line that a name names; a dispatch line only if the name is known, and no number of another plan.
    pub(crate) fn line_named(&self, name: &Name<'_>) -> Option<&Line> {
        let grants = || name.is_known() && PhoneContext::of(name.user).is_certain();
        self.line(name.user).filter(|line| line.class != LineClass::Dispatch || grants())
    }

    /// Whether a user part is one of the district's lines, by its number or an alias.
    #[must_use]
    pub fn is_line(&self, user: &str) -> bool {
        self.line(user).is_some()
    }

    /// The class of somebody's number. A number of a union line counts as a union number wherever it
    /// appears.
    #[must_use]
    pub fn number_class(&self, user: &str) -> Option<NumberClass> {
        let Dialled::Full(number) = self.numbering.normalise(user) else { return None };
        let listed = self.number_classes.get(&number).copied();
        let by_line = self.line_by_number(&number).filter(|line| line.class == LineClass::Union);
        by_line.map(|_| NumberClass::Union).or(listed)
    }

    /// The weightiest class among all numbers of a call, on either side: union, privileged, student.
    pub(crate) fn number_class_of(&self, facts: &CallFacts<'_>) -> Option<NumberClass> {
        let names = facts.called.iter().chain(&facts.calling);
        names.filter_map(|name| self.number_class(name.user)).min_by_key(|class| class.rank())
    }

    /// The district's line that a user part names, by its number or an alias.
    #[must_use]
    pub fn line(&self, user: &str) -> Option<&Line> {
        self.numbering.normalise(user).number().and_then(|number| self.line_by_number(number))
    }

    fn line_by_number(&self, number: &E164) -> Option<&Line> {
        self.line_index.get(number).and_then(|&index| self.lines.get(index))
    }
}

impl LineClass {
    /// Whether nothing is ever stored of its calls.
    const fn bars(self) -> bool {
        matches!(self, Self::Union | Self::Never)
    }

    /// Lower wins where several lines match (docs/POLICY.md, "Which rule wins").
    const fn rank(self) -> u8 {
        match self {
            Self::Union => 0,
            Self::Never => 1,
            Self::Dispatch => 2,
            Self::Consent => 3,
        }
    }
}

impl NumberClass {
    const fn rank(self) -> u8 {
        match self {
            Self::Union => 0,
            Self::Privileged => 1,
            Self::Student => 2,
        }
    }
}

impl Settings {
    fn check(&self) -> Result<(), RuleError> {
        if self.preamble == Preamble::Repeat {
            return Err(RuleError::PreambleRepeat);
        }
        if !(1..=MOST_ATTEMPTS).contains(&self.attempts) {
            return Err(RuleError::Attempts { attempts: self.attempts });
        }
        if !ANSWER_TIMEOUT_MS.contains(&self.answer_timeout_ms) {
            return Err(RuleError::AnswerTimeout { answer_timeout_ms: self.answer_timeout_ms });
        }
        let codes = [
            ("accept", self.accept.to_string()),
            ("decline", self.decline.to_string()),
            ("request", self.request.clone()),
            ("withdraw", self.withdraw.clone()),
        ];
        for (setting, code) in &codes {
            check_code(setting, code)?;
        }
        check_overlaps(&codes)
    }
}

fn check_code(setting: &'static str, code: &str) -> Result<(), RuleError> {
    let length = code.chars().count();
    if !(1..=LONGEST_CODE).contains(&length) {
        return Err(RuleError::CodeLength { setting, length });
    }
    match code.chars().find(|&c| !is_key(c)) {
        Some(character) => Err(RuleError::NotAKey { setting, character }),
        None => Ok(()),
    }
}

fn check_overlaps(codes: &[(&'static str, String)]) -> Result<(), RuleError> {
    for (index, (one, one_code)) in codes.iter().enumerate() {
        for (other, other_code) in codes.iter().skip(index + 1) {
            if other_code.starts_with(one_code) {
                return Err(RuleError::Overlap { longer: other, code: other_code.clone(), shorter: one });
            }
            if one_code.starts_with(other_code) {
                return Err(RuleError::Overlap { longer: one, code: one_code.clone(), shorter: other });
            }
        }
    }
    Ok(())
}

/// Whether a telephone key sends it (RFC 4733 §3.2, events 0 to 15).
const fn is_key(c: char) -> bool {
    matches!(c, '0'..='9' | '*' | '#' | 'A'..='D')
}

fn index_lines(lines: &[Line]) -> Result<BTreeMap<E164, usize>, RuleError> {
    let mut index = BTreeMap::new();
    for (position, line) in lines.iter().enumerate() {
        for number in std::iter::once(&line.number).chain(&line.aliases) {
            match index.entry(number.clone()) {
                Entry::Vacant(free) => {
                    free.insert(position);
                }
                Entry::Occupied(taken) => {
                    let first = lines.get(*taken.get()).map(|l| l.name.clone()).unwrap_or_default();
                    let (number, second) = (number.clone(), line.name.clone());
                    return Err(RuleError::DuplicateNumber { number, first, second });
                }
            }
        }
    }
    Ok(index)
}

fn index_classes(numbers: Vec<(E164, NumberClass)>) -> Result<BTreeMap<E164, NumberClass>, RuleError> {
    let mut classes = BTreeMap::new();
    for (number, class) in numbers {
        match classes.get(&number) {
            Some(&first) if first != class => {
                return Err(RuleError::ContradictoryClass { number, first, second: class });
            }
            _ => {
                classes.insert(number, class);
            }
        }
    }
    Ok(classes)
}
