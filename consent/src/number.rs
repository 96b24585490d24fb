//! Telephone numbers, and what a user part of a SIP or `tel:` URI says under the district's numbering plan.
//!
//! Everything is compared as full E.164. Follows RFC 3966 §3 and §5 (global and local numbers, visual
//! separators, `phone-context`) and the North American Numbering Plan (`NXX NXX XXXX`). Left out: national
//! forms of other countries (with another `country` only international forms are understood), and
//! extensions, which stay as they were dialled.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// RFC 3966 §3 visual separators, and the blank that people type.
const SEPARATORS: [char; 5] = ['-', '.', '(', ')', ' '];

/// The longest number of ITU-T E.164 §6.2.1, in digits.
const MOST_DIGITS: usize = 15;

/// The shortest that is taken for a number with its country code.
const FEWEST_DIGITS: usize = 3;

/// The shortest that is taken for an international number without its `+`: below it, digits after `00`
/// are a service or a slip.
const FEWEST_INTERNATIONAL_DIGITS: usize = 7;

/// A full number: `+` and 3 to 15 digits (ITU-T E.164), the first not 0.
///
/// Its `Debug` form hides the digits, so that no number reaches a log by accident (I4); `Display` shows them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct E164(String);

impl E164 {
    /// The number with its `+`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it begins with the country code 1, but no national number of that plan follows: no telephone has
    /// it, and what a carrier makes of it is its own affair.
    #[must_use]
    pub fn breaks_north_american_plan(&self) -> bool {
        self.0.strip_prefix("+1").is_some_and(|national| !is_nanp_national(national))
    }
}

impl fmt::Display for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("E164(..)")
    }
}

impl FromStr for E164 {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for E164 {
    type Error = NumberError;

    fn try_from(text: String) -> Result<Self, NumberError> {
        let digits = text.strip_prefix('+').ok_or(NumberError::MissingPlus)?;
        if !all_digits(digits) {
            return Err(NumberError::NotDigits);
        }
        if !(FEWEST_DIGITS..=MOST_DIGITS).contains(&digits.len()) {
            return Err(NumberError::Length { digits: digits.len() });
        }
        if digits.starts_with('0') {
            return Err(NumberError::LeadingZero);
        }
        Ok(Self(text))
    }
}

impl From<E164> for String {
    fn from(number: E164) -> Self {
        number.0
    }
}

/// A number, or all that begin alike: `+18607427331`, `+1860742*`.
///
/// Its `Debug` form hides the digits, as that of [`E164`] does.
#[derive(Clone, PartialEq, Eq)]
pub struct NumberBlock {
    digits: E164,
    open: bool,
}

impl NumberBlock {
    /// Whether it has this number.
    #[must_use]
    pub fn contains(&self, number: &E164) -> bool {
        if self.open { number.as_str().starts_with(self.digits.as_str()) } else { *number == self.digits }
    }
}

impl fmt::Debug for NumberBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NumberBlock(..)")
    }
}

impl FromStr for NumberBlock {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        let (digits, open) = text.strip_suffix('*').map_or((text, false), |digits| (digits, true));
        Ok(Self { digits: digits.parse()?, open })
    }
}

/// Why a text is not a number or a numbering plan. Never quotes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// No `+` at its start.
    #[error("a full number begins with '+', for example +18605550100")]
    MissingPlus,
    /// Something other than digits after the `+`.
    #[error("only digits may follow the '+' of a full number")]
    NotDigits,
    /// Too short or too long.
    #[error("a full number has 3 to 15 digits, not {digits}")]
    Length {
        /// How many it has.
        digits: usize,
    },
    /// No country code begins with 0.
    #[error("a full number does not begin with +0")]
    LeadingZero,
    /// Not a country code.
    #[error("the country code is 1 to 3 digits, the first not 0, for example \"1\"")]
    Country,
    /// Not an area code of that country.
    #[error("the area code is three digits, the first 2 to 9, for example \"860\"")]
    AreaCode,
    /// Not an outside prefix.
    #[error("the outside prefix is empty or 1 to 3 digits, for example \"9\"")]
    OutsidePrefix,
}

/// How the district dials: completes what is not a full number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbering {
    country: String,
    area_code: String,
    outside_prefix: String,
}

/// A user part, understood.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Dialled {
    /// A full number.
    Full(E164),
    /// Not a number of the plan: an extension, a name, a service. As it was received.
    Other(String),
}

impl Dialled {
    /// The full number, if it is one.
    #[must_use]
    pub const fn number(&self) -> Option<&E164> {
        match self {
            Self::Full(number) => Some(number),
            Self::Other(_) => None,
        }
    }
}

impl fmt::Debug for Dialled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Other(_) => "Other(..)",
        })
    }
}

impl fmt::Display for Dialled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(number) => number.as_str(),
            Self::Other(text) => text,
        })
    }
}

/// Whose plan the digits of a user part belong to, as its `phone-context` says (RFC 3966 §5.1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhoneContext {
    /// It has none.
    Absent,
    /// A number's: what it begins with is `+` and digits.
    Global,
    /// A domain's, which may number its telephones as it likes.
    Domain,
    /// More than one, or one that is neither a number's nor a domain's.
    Unreadable,
}

impl PhoneContext {
    /// That of a user part.
    #[must_use]
    pub fn of(user: &str) -> Self {
        let mut contexts = user.split(';').skip(1).filter_map(phone_context);
        match (contexts.next(), contexts.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) if global(value).is_some() => Self::Global,
            (Some(value), None)
                if !value.starts_with('+') && value.contains(|c: char| c == '.' || c.is_alphabetic()) =>
            {
                Self::Domain
            }
            (Some(_), _) => Self::Unreadable,
        }
    }

    /// Whether the number that is read there is the only one that it can be.
    #[must_use]
    pub const fn is_certain(self) -> bool {
        matches!(self, Self::Absent | Self::Global)
    }
}

impl Numbering {
    /// A plan: country code (`1`), area code that completes 7-digit numbers (`860`), prefix dialled for an
    /// outside line (`9`, or empty).
    ///
    /// # Errors
    /// Names the part that is not one. The area code is checked for country `1` only; elsewhere it is
    /// 0 to 5 digits and not used.
    pub fn new(
        country: impl Into<String>,
        area_code: impl Into<String>,
        outside_prefix: impl Into<String>,
    ) -> Result<Self, NumberError> {
        let plan = Self {
            country: country.into(),
            area_code: area_code.into(),
            outside_prefix: outside_prefix.into(),
        };
        if !all_digits(&plan.country)
            || !(1..=3).contains(&plan.country.len())
            || plan.country.starts_with('0')
        {
            return Err(NumberError::Country);
        }
        let area = &plan.area_code;
        let area_fits =
            if plan.is_north_american() { area.len() == 3 && starts_with_n(area) } else { area.len() <= 5 };
        if !area_fits || !all_digits_or_empty(area) {
            return Err(NumberError::AreaCode);
        }
        if !all_digits_or_empty(&plan.outside_prefix) || plan.outside_prefix.len() > 3 {
            return Err(NumberError::OutsidePrefix);
        }
        Ok(plan)
    }

    /// The country code.
    #[must_use]
    pub fn country(&self) -> &str {
        &self.country
    }

    /// The area code that completes 7-digit numbers.
    #[must_use]
    pub fn area_code(&self) -> &str {
        &self.area_code
    }

    /// The prefix for an outside line; may be empty.
    #[must_use]
    pub fn outside_prefix(&self) -> &str {
        &self.outside_prefix
    }

    /// What a user part means: a full number in any of its written forms, or something else, kept as it is.
    ///
    /// Understood, with or without visual separators, a leading `tel:` and trailing parameters:
    /// `+18607427331`, `18607427331`, `8607427331`, `7427331` (completed by the area code), `011…` and
    /// `00…`, local numbers with a `phone-context` that begins with `+`, and any of these but the first
    /// behind the outside prefix. A reading without the prefix wins: `9597427331` is area code 959. With a
    /// context that says nothing ([`PhoneContext::is_certain`]) it is what the district would mean by it.
    #[must_use]
    pub fn normalise(&self, user: &str) -> Dialled {
        self.read(user).map_or_else(|| Dialled::Other(user.to_owned()), Dialled::Full)
    }

    fn read(&self, user: &str) -> Option<E164> {
        let subscriber = strip_tel(user.trim());
        let mut parts = subscriber.split(';');
        let compact: String = parts.next()?.chars().filter(|c| !SEPARATORS.contains(c)).collect();
        if let Some(global) = compact.strip_prefix('+') {
            return full(global);
        }
        if !all_digits(&compact) {
            return None;
        }
        match parts.filter_map(phone_context).find_map(global) {
            Some(context) => self.read_in_context(&context, &compact),
            None => self.read_local(&compact),
        }
    }

    /// RFC 3966 §5.1.5: a context that begins with `+` goes before the number.
    fn read_in_context(&self, context: &str, digits: &str) -> Option<E164> {
        let joined = format!("{context}{digits}");
        if context.starts_with('1') {
            if is_nanp_national(joined.get(1..)?) {
                return full(&joined);
            }
        } else if (FEWEST_INTERNATIONAL_DIGITS..=MOST_DIGITS).contains(&joined.len()) {
            return full(&joined);
        }
        if context == self.country { self.read_local(digits) } else { None }
    }

    fn read_local(&self, digits: &str) -> Option<E164> {
        self.read_unprefixed(digits).or_else(|| {
            if self.outside_prefix.is_empty() {
                return None;
            }
            self.read_unprefixed(digits.strip_prefix(self.outside_prefix.as_str())?)
        })
    }

    fn read_unprefixed(&self, digits: &str) -> Option<E164> {
        if self.is_north_american() {
            if is_nanp_national(digits) {
                return full(&format!("1{digits}"));
            }
            if let Some(national) = digits.strip_prefix('1').filter(|rest| is_nanp_national(rest)) {
                return full(&format!("1{national}"));
            }
            if digits.len() == 7 && starts_with_n(digits) {
                return full(&format!("1{}{digits}", self.area_code));
            }
            if let Some(abroad) = digits.strip_prefix("011") {
                return international(abroad);
            }
        }
        international(digits.strip_prefix("00")?)
    }

    fn is_north_american(&self) -> bool {
        self.country == "1"
    }
}

fn strip_tel(user: &str) -> &str {
    match user.get(..4) {
        Some(scheme) if scheme.eq_ignore_ascii_case("tel:") => user.get(4..).unwrap_or_default(),
        _ => user,
    }
}

/// The value of `phone-context`, empty if it has none; `None` for other parameters.
fn phone_context(parameter: &str) -> Option<&str> {
    let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    name.trim().eq_ignore_ascii_case("phone-context").then(|| value.trim())
}

/// The digits of a context that begins with `+`.
fn global(context: &str) -> Option<String> {
    let digits: String = context.strip_prefix('+')?.chars().filter(|c| !SEPARATORS.contains(c)).collect();
    all_digits(&digits).then_some(digits)
}

fn international(digits: &str) -> Option<E164> {
    if digits.len() < FEWEST_INTERNATIONAL_DIGITS { None } else { full(digits) }
}

fn full(digits: &str) -> Option<E164> {
    E164::try_from(format!("+{digits}")).ok()
}

/// `NXX NXX XXXX` with N = 2 to 9.
fn is_nanp_national(digits: &str) -> bool {
    digits.len() == 10 && starts_with_n(digits) && digits.get(3..).is_some_and(starts_with_n)
}

fn starts_with_n(digits: &str) -> bool {
    matches!(digits.bytes().next(), Some(b'2'..=b'9'))
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && all_digits_or_empty(text)
}

fn all_digits_or_empty(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}
