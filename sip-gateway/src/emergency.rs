//! Which INVITEs are emergency calls. By Request-URI: 911 and its dial-out forms, the 933 test number, and the
//! service URN (RFC 5031). By mark: an answering point that calls back (RFC 7090 §4). Matched before anything
//! else, so it is pure and takes no rule but the dialled forms.
//!
//! In doubt a call is an emergency call: the static path connects it all the same, whereas a missed one
//! could be delayed. Left out: emergency numbers of other countries, unless configured.

use crate::wire::{Headers, Uri};

/// Visual separators of a telephone number (RFC 3966 §5.1.1).
const SEPARATORS: [char; 5] = ['-', '.', '(', ')', ' '];

/// Forms that are matched whatever the configuration says.
const BUILT_IN: [(&str, Dialled911); 4] = [
    ("911", Dialled911::Number { user: "911" }),
    ("9911", Dialled911::Number { user: "911" }),
    ("+1911", Dialled911::Number { user: "911" }),
    ("933", Dialled911::Number { user: "933" }),
];

/// How an emergency call was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialled911 {
    /// As a number.
    Number {
        /// The user part to send on: `911`, or `933` for a test.
        user: &'static str,
    },
    /// As `urn:service:sos` or a subtype: the Request-URI goes on as received.
    Service,
}

impl Dialled911 {
    /// The user part to send on; `None` if the Request-URI goes on as received.
    pub fn user(&self) -> Option<&'static str> {
        match self {
            Self::Number { user } => Some(user),
            Self::Service => None,
        }
    }
}

/// Tells emergency calls by their Request-URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    /// Without separators, in addition to [`BUILT_IN`].
    configured: Vec<(String, Dialled911)>,
}

impl Matcher {
    /// With these dialled forms besides the built-in ones. One that ends in 933 is sent on as 933, any other
    /// as 911.
    pub fn new(dialled: &[String]) -> Self {
        let forms = dialled.iter().map(|form| plain(form)).filter(|form| !form.is_empty());
        let configured = forms.map(|form| {
            let user = if form.ends_with("933") { "933" } else { "911" };
            (form, Dialled911::Number { user })
        });
        Self { configured: configured.collect() }
    }

    /// What was dialled, if it is an emergency call. Any `phone-context`, user parameter and host will do.
    pub fn matches(&self, request_uri: &str) -> Option<Dialled911> {
        let uri = Uri::parse(request_uri).ok()?;
        match uri {
            Uri::Other { scheme, opaque } => {
                (scheme.eq_ignore_ascii_case("urn") && is_sos(opaque)).then_some(Dialled911::Service)
            }
            // A telephone that leaves the host out puts the number in its place.
            Uri::Sip(sip) if sip.user.is_none() => self.number(sip.host),
            Uri::Sip(_) | Uri::Tel(_) => self.number(&uri.user()?),
        }
    }

    fn number(&self, user: &str) -> Option<Dialled911> {
        let user = plain(user);
        let configured = self.configured.iter().map(|(form, dialled)| (form.as_str(), *dialled));
        BUILT_IN.into_iter().chain(configured).find(|(form, _)| *form == user).map(|(_, dialled)| dialled)
    }
}

/// What an INVITE has to do with an emergency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Nothing.
    None,
    /// An answering point calls back.
    CallBack,
    /// An emergency service is called.
    Service,
}

/// Whether an INVITE says that an answering point calls back.
pub fn is_callback(headers: &Headers) -> bool {
    headers.first("Priority").is_some_and(|priority| priority.trim().eq_ignore_ascii_case("psap-callback"))
}

fn plain(number: &str) -> String {
    number.replace(SEPARATORS, "")
}

/// `service:sos` or `service:sos.` and a subtype.
fn is_sos(opaque: &str) -> bool {
    const SOS: &str = "service:sos";
    let Some((start, rest)) = opaque.split_at_checked(SOS.len()) else { return false };
    start.eq_ignore_ascii_case(SOS) && (rest.is_empty() || rest.starts_with(['.', ';']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uri: &str) -> Option<Option<&'static str>> {
        Matcher::new(&["9-911".into(), "9933".into(), "112".into()]).matches(uri).map(|it| it.user())
    }

    #[test]
    fn every_form_of_911_is_an_emergency_call() {
        for uri in [
            "sip:911@example.com",
            "sips:911@example.com",
            "sip:911@192.0.2.1:5060;user=phone",
            "sip:911@[2001:db8::1];transport=tcp",
            "sip:9911@example.com",
            "sip:+1911@example.com;user=phone",
            "sip:+1-911@example.com",
            "sip:9-1-1@example.com",
            "sip:9.1.1@example.com",
            "sip:%39%31%31@example.com",
            "sip:911;phone-context=+1@example.com;user=phone",
            "sip:911;phone-context=example.com@example.com",
            "sip:911:secret@example.com",
            "SIP:911@EXAMPLE.COM",
            "sip:911",
            "tel:911",
            "tel:911;phone-context=+1",
            "tel:911;phone-context=district.example.com",
            "tel:9-1-1;phone-context=+1",
            "tel:+1911",
            "tel:+1-911",
            "TEL:911",
            "sip:112@example.com",
        ] {
            assert_eq!(user(uri), Some(Some("911")), "{uri}");
        }
    }

    #[test]
    fn a_test_call_goes_on_as_933() {
        for uri in ["sip:933@example.com", "tel:933;phone-context=+1", "sip:9933@example.com"] {
            assert_eq!(user(uri), Some(Some("933")), "{uri}");
        }
    }

    #[test]
    fn service_urns_go_on_as_received() {
        for uri in [
            "urn:service:sos",
            "urn:service:sos.police",
            "URN:Service:SOS.fire",
            "urn:service:sos.ecall.manual",
        ] {
            assert_eq!(user(uri), Some(None), "{uri}");
        }
    }

    #[test]
    fn near_misses_are_ordinary_calls() {
        for uri in [
            "sip:9115@example.com",
            "sip:91@example.com",
            "sip:19115550100@example.com",
            "sip:+19115550100@example.com;user=phone",
            "tel:+19115550100",
            "tel:1-911-555-0100",
            "sip:9115550100@example.com",
            "sip:99911@example.com",
            "sip:911a@example.com",
            "sip:a911@example.com",
            "sip:alice@911.example.com",
            "sip:alice@example.com;user=911",
            "sip:5550911@example.com",
            "sip:+44911@example.com",
            "urn:service:sosx",
            "urn:service:counseling",
            "urn:sos",
            "911",
            "",
            "http:911",
        ] {
            assert_eq!(user(uri), None, "{uri}");
        }
    }

    #[test]
    fn an_empty_configured_form_matches_nothing() {
        assert_eq!(Matcher::new(&["".into(), "-".into()]).matches("sip:@example.com"), None);
    }
}
