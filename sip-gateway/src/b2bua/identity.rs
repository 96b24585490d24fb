//! Who is at a leg's far end, as it says itself (RFC 3261 §20.20, RFC 3325, RFC 4916, RFC 4579), and what was
//! verified of it (RFC 8224). Left out: verifying here, which needs certificates from the whole world.

use super::border::ATTESTED;
use super::privacy::Privacy;
use crate::wire::{Headers, NameAddr, Params, Uri, before_params, name};
use crate::{Attestation, Identity, Validation, Verdict};

/// Reads an identity: P-Asserted-Identity (or Remote-Party-ID, where that is all there is) and the user of
/// From or To.
pub(crate) fn identity(headers: &Headers, field: &str, trusted: bool) -> Identity {
    Identity {
        asserted: if trusted { asserted(headers) } else { None },
        from: headers.first(field).map_or_else(String::new, user_of),
        trusted,
        privacy: Privacy::of(headers).withholds_sender(),
    }
}

/// Users of History-Info, then of Diversion (whose newest comes first, RFC 5806 §5.1): oldest first.
pub(crate) fn diverted_from(headers: &Headers) -> Vec<String> {
    let mut users: Vec<String> = headers.list(name::HISTORY_INFO).map(user_of).collect();
    let diversions: Vec<String> = headers.list(name::DIVERSION).map(user_of).collect();
    users.extend(diversions.into_iter().rev());
    users.retain(|user| !user.is_empty());
    users
}

/// User part of an address with its parameters, percent-decoded.
pub(crate) fn user_of(address: &str) -> String {
    NameAddr::parse(address).map_or_else(|_| String::new(), |address| address.subscriber().into_owned())
}

/// What a verification service has found: `verstat` of P-Asserted-Identity, else of From (3GPP TS 24.229
/// §7.2A.20), some with the attestation behind it (`TN-Validation-Passed-A`), some in a field of its own.
pub(crate) fn verdict(headers: &Headers) -> Option<Verdict> {
    let mut addresses = headers.list(name::P_ASSERTED_IDENTITY).chain(headers.first(name::FROM));
    let verstat = addresses.find_map(verstat)?;
    let (validation, rest) =
        [("TN-Validation-Passed", Validation::Passed), ("TN-Validation-Failed", Validation::Failed)]
            .into_iter()
            .find_map(|(word, validation)| Some((validation, strip_word(&verstat, word)?)))
            .or_else(|| Some((Validation::NotDone, strip_word(&verstat, "No-TN-Validation")?)))?;
    let said = || ATTESTED.iter().find_map(|field| attestation(headers.first(field)?));
    Some(Verdict { validation, attestation: rest.strip_prefix('-').and_then(attestation).or_else(said) })
}

/// The parameter `verstat` of an address: of its number (RFC 3966 §3) or of its URI.
fn verstat(address: &str) -> Option<String> {
    let address = NameAddr::parse(address).ok()?;
    let of = |params: &str| {
        params.split(';').filter_map(|param| param.split_once('=')).find_map(|(name, value)| {
            name.trim().eq_ignore_ascii_case("verstat").then(|| value.trim().trim_matches('"').to_owned())
        })
    };
    match address.parsed_uri().ok()? {
        Uri::Sip(uri) => uri.user.and_then(of).or_else(|| of(uri.params.as_str())),
        Uri::Tel(uri) => of(uri.params.as_str()),
        Uri::Other { .. } => None,
    }
}

fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (start, rest) = (text.get(..word.len())?, text.get(word.len()..)?);
    let whole = rest.is_empty() || rest.starts_with('-');
    (start.eq_ignore_ascii_case(word) && whole).then_some(rest)
}

/// The first word of `A`, `"B"`, `C-Diverted`, or of `attestation-level="A"`.
fn attestation(text: &str) -> Option<Attestation> {
    let value = text.rsplit_once('=').map_or(text, |(_, value)| value).trim().trim_matches('"');
    match value.split('-').next()? {
        "A" | "a" => Some(Attestation::Full),
        "B" | "b" => Some(Attestation::Partial),
        "C" | "c" => Some(Attestation::Gateway),
        _ => None,
    }
}

fn asserted(headers: &Headers) -> Option<String> {
    let address = headers.list(name::P_ASSERTED_IDENTITY).next();
    let address = address.or_else(|| headers.list(name::REMOTE_PARTY_ID).next())?;
    Some(user_of(address)).filter(|user| !user.is_empty())
}

/// What is known of a far end; tells whether a later message is from somebody else.
#[derive(Clone, Debug, Default)]
pub(crate) struct FarEnd {
    asserted: Option<String>,
    address: String,
    contact: Option<String>,
    focus: bool,
}

impl FarEnd {
    /// The far end that sent this request, or answered with this response to what was sent to `address`.
    pub(crate) fn new(headers: &Headers, address: &str) -> Self {
        let (contact, focus) = contact(headers);
        Self { asserted: asserted(headers), address: user_of(address), contact, focus }
    }

    /// Who it says it is now; its assertion only where it is trusted with one.
    pub(crate) fn identity(&self, headers: &Headers, trusted: bool) -> Identity {
        Identity {
            asserted: self.asserted.clone().filter(|_| trusted),
            from: self.address.clone(),
            trusted,
            privacy: Privacy::of(headers).withholds_sender(),
        }
    }

    /// Takes in a later message of this far end; `from` is its From, if it is a request. Says whether it
    /// shows somebody else: another asserted identity (a first one, unless it is the address known
    /// already), another From or Contact user, Replaces, or a conference's focus.
    pub(crate) fn observe(&mut self, headers: &Headers, from: Option<&str>) -> bool {
        let mut changed = headers.contains(name::REPLACES) || headers.contains(name::REFERRED_BY);
        if let Some(asserted) = asserted(headers) {
            changed |= !is_same(self.asserted.as_ref().unwrap_or(&self.address), &asserted);
            self.asserted = Some(asserted);
        }
        if let Some(user) = from.map(user_of) {
            changed |= !is_same(&user, &self.address);
            self.address = user;
        }
        let (contact, focus) = contact(headers);
        if let Some(user) = contact {
            let known = self.contact.replace(user.clone());
            changed |= !known.is_some_and(|known| is_same(&known, &user)) || (focus && !self.focus);
            self.focus = focus;
        }
        changed
    }
}

/// Whether two users are one: telephones write one number with and without its `+`, and with parameters, of
/// which only another context makes it another number.
fn is_same(user: &str, other: &str) -> bool {
    let plain = |user| before_params(user).strip_prefix('+').unwrap_or(before_params(user));
    let elsewhere =
        context(user).zip(context(other)).is_some_and(|(one, two)| !one.eq_ignore_ascii_case(two));
    plain(user) == plain(other) && !elsewhere
}

/// RFC 3966 §5.1.5.
fn context(user: &str) -> Option<&str> {
    let mut params = user.split(';').skip(1).filter_map(|param| param.split_once('='));
    params.find(|(name, _)| name.eq_ignore_ascii_case("phone-context")).map(|(_, value)| value)
}

/// The user of Contact (empty if it has none) and whether it is a conference's focus.
fn contact(headers: &Headers) -> (Option<String>, bool) {
    let Some(Ok(contact)) = headers.list(name::CONTACT).next().map(NameAddr::parse) else {
        return (None, false);
    };
    let focus = |params: Params<'_>| params.contains("isfocus");
    let in_uri = matches!(contact.parsed_uri(), Ok(Uri::Sip(uri)) if focus(uri.params));
    (Some(contact.user().into_owned()), focus(contact.params) || in_uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.push(name, *value);
        }
        headers
    }

    fn known() -> FarEnd {
        let first = [("Contact", "<sip:line1@10.0.0.1>"), ("P-Asserted-Identity", "<sip:7331@pbx>")];
        FarEnd::new(&headers(&first), "<sip:7331@pbx>;tag=1")
    }

    #[test]
    fn a_refresh_with_the_same_identity_is_nobody_new() {
        let same =
            [("Contact", "<sip:line1@10.0.0.9:5070>"), ("P-Asserted-Identity", "\"Bob\" <sip:7331@x>")];
        assert!(!known().observe(&headers(&same), Some("<sip:7331@pbx>;tag=1")));
        assert!(!known().observe(&headers(&[]), None));
    }

    #[test]
    fn a_first_assertion_of_the_address_known_already_is_nobody_new() {
        let mut silent = FarEnd::new(&headers(&[]), "<sip:7331@pbx>");
        assert!(!silent.observe(&headers(&[("P-Asserted-Identity", "<sip:7331@pbx>")]), None));
        assert!(silent.observe(&headers(&[("P-Asserted-Identity", "<sip:7399@pbx>")]), None));
    }

    #[test]
    fn a_number_without_its_plus_is_nobody_new() {
        let mut far =
            FarEnd::new(&headers(&[("Contact", "<sip:18607427310@pbx>")]), "<sip:+18607427310@pbx>");
        let same = [("Contact", "<sip:+18607427310@pbx>"), ("P-Asserted-Identity", "<sip:18607427310@pbx>")];
        assert!(!far.observe(&headers(&same), Some("<sip:18607427310@pbx>;tag=1")));
        assert!(far.observe(&headers(&[("P-Asserted-Identity", "<tel:+18607427311>")]), None));
    }

    #[test]
    fn a_number_with_parameters_is_nobody_new_unless_its_context_is_another() {
        let mut far = FarEnd::new(&headers(&[("Contact", "<sip:5550123;x=y@pbx>")]), "<sip:5550123@pbx>");
        for user in ["5550123;verstat=No-TN-Validation", "5550123;phone-context=+1860", "5550123;user=phone"]
        {
            let (contact, from) = (format!("<sip:{user}@pbx>"), format!("<sip:{user}@pbx>;tag=1"));
            assert!(!far.observe(&headers(&[("Contact", &contact)]), Some(&from)), "{user}");
            let asserted = format!("<tel:{user}>");
            assert!(!far.observe(&headers(&[("P-Asserted-Identity", &asserted)]), None), "{user}");
        }
        let local = |context: &str| format!("<tel:5550123;phone-context={context}>");
        assert!(!far.observe(&headers(&[("P-Asserted-Identity", &local("+1860"))]), None));
        assert!(far.observe(&headers(&[("P-Asserted-Identity", &local("+1203"))]), None));
    }

    #[test]
    fn another_identity_contact_or_a_focus_is_somebody_new() {
        for fields in [
            [("P-Asserted-Identity", "<tel:+18605550100>")],
            [("Remote-Party-ID", "<sip:7332@pbx>;party=called")],
            [("Contact", "<sip:line2@10.0.0.1>")],
            [("Contact", "<sip:line1@10.0.0.1>;isfocus")],
            [("Replaces", "a;to-tag=b;from-tag=c")],
        ] {
            assert!(known().observe(&headers(&fields), None), "{fields:?}");
        }
        assert!(known().observe(&headers(&[]), Some("<sip:7332@pbx>;tag=1")));
    }

    #[test]
    fn diversions_are_oldest_first() {
        let fields = [
            ("Diversion", "<sip:second@pbx>;reason=no-answer, <sip:first@pbx>"),
            ("History-Info", "<sip:zero@pbx>;index=1"),
        ];
        assert_eq!(diverted_from(&headers(&fields)), ["zero", "first", "second"]);
    }
}
