//! Whom a peer may not call on the public side: what toll fraud earns by (ITU-T E.156), and what an administrator adds.
//!
//! | pattern | numbers |
//! |---|---|
//! | `all` | every one, and what is no number |
//! | `international` | outside the country; with country 1 also the islands that are dialled like one's own |
//! | `premium` | +979 (ITU-T E.169.2); with country 1 also area code 900 and exchange 976 |
//! | `+1900` | those that begin so |
//!
//! Of a peer's patterns the one that matches the most digits decides; of two that match as many, the refusal.
//! Wherever anything is refused, so is what only the carrier knows the way of:
//!
//! | refused | for example |
//! |---|---|
//! | what is no number, with eight digits or more before any letter, its context's included | `01…` through an operator, `1010288…` through another carrier, `011442071838750,`, `8750;phone-context=+101144207183` |
//! | +1 and eight digits or more that are none of the North American plan's | `+101129051234` |
//! | a number that parameters lead elsewhere (RFC 4694) | `rn`, `cic`, `npdi` |
//! | a number whose parameters cannot be read | two `phone-context`, `+44x`; digits without a name |
//!
//! Left out: prices, and the parts of other countries' numbers that are dear: list them.

use std::str::FromStr;

use consent::{Dialled, E164, Numbering, PhoneContext};

use crate::wire::{before_params, user_params};

/// Area codes of country code 1 that belong neither to the United States and their territories nor to Canada.
const ISLANDS: [&str; 21] = [
    "242", "246", "264", "268", "284", "345", "441", "473", "649", "658", "664", "721", "758", "767", "784",
    "809", "829", "849", "868", "869", "876",
];

/// Shorter ones are services, extensions and feature codes.
const LONG: usize = 8;

/// Parameters that choose another way than the number's (RFC 4694 §4).
const ROUTING: [&str; 3] = ["rn", "cic", "npdi"];

/// How much of an island's number is matched as being abroad: more than `+1` is, less than its own area code.
const AMONG_AREA_CODES: usize = "+1NP".len();

/// Numbers of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// All.
    All,
    /// Outside the country.
    International,
    /// Those that cost more than the way there.
    Premium,
    /// Those that begin with this: `+` and digits.
    Prefix(String),
}

/// A text that is no [`Pattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither all, international, premium, nor + and 1 to 15 digits")]
pub struct NoPattern;

impl FromStr for Pattern {
    type Err = NoPattern;

    fn from_str(text: &str) -> Result<Self, NoPattern> {
        match text {
            "all" => Ok(Self::All),
            "international" => Ok(Self::International),
            "premium" => Ok(Self::Premium),
            _ => {
                let digits = text.strip_prefix('+').ok_or(NoPattern)?;
                let fits =
                    (1..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
                if fits { Ok(Self::Prefix(text.to_owned())) } else { Err(NoPattern) }
            }
        }
    }
}

impl Pattern {
    /// How much of the number it matches, `+` included; `None`: not at all.
    fn matches(&self, number: &E164, country: &str) -> Option<usize> {
        let (number, home) = (number.as_str(), format!("+{country}"));
        let national = number.strip_prefix(&home);
        let north_american = national.filter(|_| country == "1");
        match self {
            Self::All => Some(0),
            Self::International => match north_american {
                Some(national) => {
                    ISLANDS.iter().any(|area| national.starts_with(area)).then_some(AMONG_AREA_CODES)
                }
                None => national.is_none().then_some(1),
            },
            Self::Premium => match north_american {
                Some(national) if national.starts_with("900") => Some("+1900".len()),
                Some(national) if national.get(3..6) == Some("976") => Some("+1NPA976".len()),
                _ => number.starts_with("+979").then_some("+979".len()),
            },
            Self::Prefix(prefix) => number.starts_with(prefix.as_str()).then_some(prefix.len()),
        }
    }
}

/// Whom a peer may not call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destinations {
    numbering: Numbering,
    refused: Vec<Pattern>,
    allowed: Vec<Pattern>,
}

impl Destinations {
    /// Those that `refused` matches, but not those that `allowed` matches more closely.
    #[must_use]
    pub const fn new(numbering: Numbering, refused: Vec<Pattern>, allowed: Vec<Pattern>) -> Self {
        Self { numbering, refused, allowed }
    }

    /// Whether the user part (or telephone-subscriber), with its parameters, may not be dialled.
    #[must_use]
    pub fn refuse(&self, user: &str) -> bool {
        if self.refused.is_empty() {
            return false;
        }
        if is_led_elsewhere(user) || PhoneContext::of(user) == PhoneContext::Unreadable {
            return true;
        }
        match self.numbering.normalise(user) {
            Dialled::Full(number) if !(number.breaks_north_american_plan() && is_long(number.as_str())) => {
                let country = self.numbering.country();
                let closest = |patterns: &[Pattern]| {
                    patterns.iter().filter_map(|pattern| pattern.matches(&number, country)).max()
                };
                let refused = closest(&self.refused);
                refused.is_some() && refused >= closest(&self.allowed)
            }
            Dialled::Full(_) | Dialled::Other(_) => self.refused.contains(&Pattern::All) || is_long(user),
        }
    }
}

/// With the digits of the context that completes it. Whatever stands between them: a carrier may pass over it.
fn is_long(user: &str) -> bool {
    let context = user_params(user).find(|(name, _)| name.eq_ignore_ascii_case("phone-context"));
    let context = context.and_then(|(_, value)| value?.strip_prefix('+')).unwrap_or_default();
    let dialled = before_params(user).chars().take_while(|c| !c.is_alphabetic());
    context.chars().chain(dialled).filter(|c| c.is_numeric()).count() >= LONG
}

fn is_led_elsewhere(user: &str) -> bool {
    user_params(user).any(|(name, _)| {
        let nameless = !name.is_empty() && !name.contains(char::is_alphabetic);
        nameless || ROUTING.iter().any(|routing| name.eq_ignore_ascii_case(routing))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn destinations(country: &str, refused: &[&str], allowed: &[&str]) -> Destinations {
        let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let numbering = Numbering::new(country, if country == "1" { "860" } else { "" }, "9").unwrap();
        Destinations::new(numbering, patterns(refused), patterns(allowed))
    }

    #[track_caller]
    fn assert_refused(country: &str, refused: &[&str], allowed: &[&str], users: &[(&str, bool)]) {
        let destinations = destinations(country, refused, allowed);
        for (user, is_refused) in users {
            assert_eq!(destinations.refuse(user), *is_refused, "{user}");
        }
    }

    #[test]
    fn what_is_abroad_is_refused_in_every_written_form() {
        let users = [
            ("+442071838750", true),
            ("011442071838750", true),
            ("9011442071838750", true),
            ("00442071838750", true),
            ("442071838750;phone-context=+", true),
            ("2071838750;phone-context=+44", true),
            ("+1-876-555-0123", true),
            ("18765550123", true),
            ("8765550123", true),
            ("98765550123", true),
            ("01442071838750", true),
            ("101028801144207", true),
            ("*671442071838750", true),
            ("8605550123", false),
            ("+18605550123", false),
            ("+17875550123", false),
            ("+14165550123", false),
            ("5550123", false),
            ("411", false),
            ("7331", false),
            ("*98", false),
            ("conference-20261129-0800", false),
            ("011442071838750,", true),
            ("011_442071838750", true),
            ("1876~5550123", true),
            ("_011442071838750", true),
            ("+44x2071838750", false),
            ("12345678-line", true),
            ("1234567-line", false),
            ("0;11442071838750", true),
            ("+101129051234", true),
            ("+1 (011) 2905-1234", true),
            ("01129051234;phone-context=+1", true),
            ("+1411", false),
            ("8605550123;ext=12345678", false),
            ("8605550123;phone-context=pbx.example.com;user=phone;", false),
            ("8750;phone-context=+101144207183", true),
            ("8750;phone-context=+01144207183", true),
            ("5550123;phone-context=+1203", false),
            ("2075550123;phone-context=+44x", true),
            ("2075550123;phone-context=44", true),
            ("8605550123;phone-context", true),
            ("8605550123;phone-context=", true),
            ("711;phone-context=+1", false),
            ("711;phone-context=pbx.example.com", false),
            ("711", false),
        ];
        assert_refused("1", &["international"], &[], &users);
        let users = [("+18605550123", true), ("+442071838750", false), ("00442071838750", false)];
        assert_refused("44", &["international"], &[], &users);
    }

    #[test]
    fn premium_numbers_are_known() {
        let users = [
            ("19005550123", true),
            ("+18609765012", true),
            ("+979123456789", true),
            ("+18605559765", false),
            ("+442071838750", false),
        ];
        assert_refused("1", &["premium"], &[], &users);
        assert_refused("1", &["premium"], &["+1900555"], &[("19005550123", false), ("19006660123", true)]);
    }

    #[test]
    fn the_closest_pattern_decides_and_of_two_as_close_the_refusal() {
        let users = [
            ("+442071838750", false),
            ("+447000123456", true),
            ("+33123456789", true),
            ("+18605550123", false),
        ];
        assert_refused("1", &["international", "+4470"], &["+44"], &users);
        assert_refused("1", &["+1900"], &["+1900"], &[("+19005550123", true)]);
        let users = [("+18605550123", false), ("+12125550123", true), ("reception", true), ("411", true)];
        assert_refused("1", &["all"], &["+1860"], &users);
    }

    #[test]
    fn whoever_refuses_the_islands_refuses_them_where_the_rest_of_their_country_code_is_allowed() {
        let users =
            [("+18765550123", true), ("8765550123", true), ("8605550123", false), ("+442071838750", true)];
        assert_refused("1", &["all", "international"], &["+1"], &users);
        let users = [("+18765550123", false), ("+18095550123", true)];
        assert_refused("1", &["international"], &["+1876"], &users);
    }

    #[test]
    fn parameters_that_lead_a_number_elsewhere_are_refused() {
        let users = [
            ("8605550123;rn=+442071838750", true),
            ("8605550123;npdi;rn=8605550100", true),
            ("+18605550123;NPDI", true),
            ("8605550123;cic=+10288", true),
            ("411;cic=0288", true),
            ("reception;rn=1", true),
            ("8605550123;phone-context=+1;phone-context=+44", true),
            ("8605550123;ringing;circle=1", false),
        ];
        assert_refused("1", &["premium"], &[], &users);
        assert_refused("1", &[], &[], &[("8605550123;rn=+442071838750", false), ("+101129051234", false)]);
    }

    #[test]
    fn without_a_refusal_everything_may_be_dialled() {
        assert_refused("1", &[], &["+1"], &[("+442071838750", false), ("101028801144207", false)]);
    }

    #[test]
    fn a_pattern_is_a_word_or_a_prefix() {
        for text in ["", "+", "1900", "+19x", "International", "+1234567890123456", "premium "] {
            assert_eq!(text.parse::<Pattern>(), Err(NoPattern), "{text}");
        }
    }
}
