//! Who is at a leg's far end, as it says itself (RFC 3261 §20.20, RFC 3325, RFC 4916, RFC 4579), and what was
//! verified of it (RFC 8224). Left out: verifying here, which needs certificates from the whole world.

use super::border::ATTESTED;
use super::privacy::Privacy;
use crate::wire::{Headers, NameAddr, Params, Uri, before_params, name, user_params};
use crate::{Attestation, Identity, Validation, Verdict};

/// Values of P-Asserted-Identity that are read: RFC 3325 §9.1 allows two.
const MAX_ASSERTED: usize = 4;

/// Reads a caller's identity: P-Asserted-Identity (or Remote-Party-ID, where that is all there is) and From.
pub(crate) fn identity(headers: &Headers, trusted: bool) -> Identity {
    Identity {
        asserted: if trusted { asserted(headers) } else { Vec::new() },
        from: headers.first(name::FROM).map_or_else(String::new, subscriber_of),
        trusted,
        privacy: Privacy::of(headers).withholds_sender(),
    }
}

/// Users of History-Info, then of Diversion (whose newest comes first, RFC 5806 §5.1): oldest first.
pub(crate) fn diverted_from(headers: &Headers) -> Vec<String> {
    let mut users: Vec<String> = headers.list(name::HISTORY_INFO).map(subscriber_of).collect();
    let diversions: Vec<String> = headers.list(name::DIVERSION).map(subscriber_of).collect();
    users.extend(diversions.into_iter().rev());
    users.retain(|user| !user.is_empty());
    users
}

/// User part of an address with its parameters, percent-decoded.
pub(crate) fn subscriber_of(address: &str) -> String {
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
    let value = match address.parsed_uri().ok()? {
        Uri::Sip(uri) => uri.user.and_then(|user| user_param(user, "verstat")).or(uri.params.get("verstat")),
        Uri::Tel(uri) => uri.params.get("verstat"),
        Uri::Other { .. } => None,
    };
    value.map(|value| value.trim_matches('"').to_owned())
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

fn asserted(headers: &Headers) -> Vec<String> {
    let mut addresses: Vec<&str> = headers.list(name::P_ASSERTED_IDENTITY).take(MAX_ASSERTED).collect();
    if addresses.is_empty() {
        addresses.extend(headers.list(name::REMOTE_PARTY_ID).next());
    }
    addresses.into_iter().map(subscriber_of).filter(|user| !user.is_empty()).collect()
}

/// What is known of a far end; tells whether a later message is from somebody else.
#[derive(Clone, Debug, Default)]
pub(crate) struct FarEnd {
    asserted: Vec<String>,
    /// The user of From, or of the To that it answered.
    address: String,
    /// Whether `address` says nothing of who is here: it is that To, which the caller's telephone wrote, or another
    /// telephone has come since.
    stale: bool,
    /// Whom we dialled to reach it; nobody, if it called, or has shown since that somebody else may be here.
    called: Option<String>,
    contact: Option<String>,
    focus: bool,
}

impl FarEnd {
    /// The far end that sent this request from `address`.
    pub(crate) fn calling(headers: &Headers, address: &str) -> Self {
        let (contact, focus) = contact(headers);
        let (asserted, address) = (asserted(headers), subscriber_of(address));
        Self { asserted, address, stale: false, called: None, contact, focus }
    }

    /// The far end that answered with this response to what we sent, as the one `called`, to `address`.
    pub(crate) fn called(headers: &Headers, address: &str, called: String) -> Self {
        Self { stale: true, called: Some(called), ..Self::calling(headers, address) }
    }

    /// Whom we dialled to reach it, if that may still be there.
    pub(crate) fn dialled(&self) -> Option<&str> {
        self.called.as_deref()
    }

    /// Who it says it is now; its assertion only where it is trusted with one.
    pub(crate) fn identity(&self, headers: &Headers, trusted: bool) -> Identity {
        Identity {
            asserted: if trusted { self.asserted.clone() } else { Vec::new() },
            from: self.name().to_owned(),
            trusted,
            privacy: Privacy::of(headers).withholds_sender(),
        }
    }

    /// By which it is known without an assertion; empty if it is not.
    fn name(&self) -> &str {
        match &self.called {
            Some(called) => called,
            None if self.stale => "",
            None => &self.address,
        }
    }

    /// Takes in a later message of this far end; `from` is its From, if it is a request. Says whether it
    /// shows somebody else: other asserted identities (first ones, unless the name known already is among
    /// them), another From or Contact user, Replaces, or a conference's focus.
    pub(crate) fn observe(&mut self, headers: &Headers, from: Option<&str>) -> bool {
        let mut moved = headers.contains(name::REPLACES) || headers.contains(name::REFERRED_BY);
        let shown = asserted(headers);
        let silent = shown.is_empty();
        let mut renamed = self.assert(shown);
        if let Some(user) = from.map(subscriber_of)
            && !is_same(&self.address, &user)
        {
            renamed = true;
            (self.address, self.stale) = (user, false);
        }
        let (contact, focus) = contact(headers);
        let (mut elsewhere, mut focused) = (false, false);
        if let Some(user) = contact {
            let known = self.contact.replace(user.clone());
            elsewhere = !known.is_some_and(|known| is_same(&known, &user));
            focused = focus && !self.focus;
            self.focus = focus;
            // Of a number or extension it is another telephone's; `asterisk` or a token is anybody's.
            moved |= elsewhere && is_number(&user) && !is_extension_of(&user, self.name());
        }
        if renamed || moved {
            self.called = None;
        }
        if moved && silent {
            // What was said of whoever was there before.
            self.asserted.clear();
            self.stale |= !renamed;
        }
        renamed || moved || elsewhere || focused
    }

    /// Takes in asserted identities; whether they are somebody else's. Of the two that RFC 3325 §9.1 allows, one
    /// may be a main number that many share: nobody is new only where no more is said than before, or, at first, than
    /// the name known already.
    fn assert(&mut self, shown: Vec<String>) -> bool {
        if shown.is_empty() {
            return false;
        }
        let name = [self.name().to_owned()];
        let known = if self.asserted.is_empty() { &name[..] } else { &self.asserted };
        let says_no_more = |one: &[String], than: &[String]| {
            one.iter().all(|user| than.iter().any(|other| is_same(user, other)))
        };
        if says_no_more(&shown, known) {
            if self.asserted.is_empty() {
                self.asserted = shown;
            }
            return false;
        }
        let first = self.asserted.is_empty() && says_no_more(known, &shown);
        self.asserted = shown;
        !first
    }
}

/// Whether a user is this number, or what its PBX dials for it.
fn is_extension_of(user: &str, number: &str) -> bool {
    let extension = before_params(user);
    is_same(number, user) || (extension.len() >= 3 && before_params(number).ends_with(extension))
}

/// Whether a user is a telephone's number or extension.
fn is_number(user: &str) -> bool {
    let plain = before_params(user);
    let digits = plain.strip_prefix('+').unwrap_or(plain);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'))
}

/// Whether two users are one: telephones write one number with and without its `+`, and with parameters, of
/// which another extension, subaddress or context makes it somebody else's (RFC 3966 §5.1.5, §5.3, §5.4). A
/// number's context that only one of them has is the same if the other is the whole number.
fn is_same(user: &str, other: &str) -> bool {
    let differ = |name| match (user_param(user, name), user_param(other, name)) {
        (Some(one), Some(two)) => !one.eq_ignore_ascii_case(two),
        (one, two) => one.is_some() != two.is_some(),
    };
    if differ("ext") || differ("isub") {
        return false;
    }
    let plain = |user| before_params(user).strip_prefix('+').unwrap_or(before_params(user));
    let is_whole = |context: &str, local, whole| match context.strip_prefix('+') {
        Some(context) => {
            plain(whole).strip_suffix(plain(local)).is_some_and(|start| start.ends_with(context))
        }
        None => plain(whole) == plain(local),
    };
    match (user_param(user, "phone-context"), user_param(other, "phone-context")) {
        (None, None) => plain(user) == plain(other),
        (Some(one), Some(two)) => plain(user) == plain(other) && one.eq_ignore_ascii_case(two),
        (Some(context), None) => is_whole(context, user, other),
        (None, Some(context)) => is_whole(context, other, user),
    }
}

fn user_param<'a>(user: &'a str, wanted: &str) -> Option<&'a str> {
    user_params(user)
        .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
        .map(|(_, value)| value.unwrap_or(""))
}

/// The user of Contact, with its parameters (empty if it has none) and whether it is a conference's focus.
fn contact(headers: &Headers) -> (Option<String>, bool) {
    let Some(Ok(contact)) = headers.list(name::CONTACT).next().map(NameAddr::parse) else {
        return (None, false);
    };
    let focus = |params: Params<'_>| params.contains("isfocus");
    let in_uri = matches!(contact.parsed_uri(), Ok(Uri::Sip(uri)) if focus(uri.params));
    (Some(contact.subscriber().into_owned()), focus(contact.params) || in_uri)
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
        FarEnd::calling(&headers(&first), "<sip:7331@pbx>;tag=1")
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
        let mut silent = FarEnd::calling(&headers(&[]), "<sip:7331@pbx>");
        assert!(!silent.observe(&headers(&[("P-Asserted-Identity", "<sip:7331@pbx>")]), None));
        assert!(silent.observe(&headers(&[("P-Asserted-Identity", "<sip:7399@pbx>")]), None));
    }

    #[test]
    fn a_number_without_its_plus_is_nobody_new() {
        let mut far =
            FarEnd::calling(&headers(&[("Contact", "<sip:18607427310@pbx>")]), "<sip:+18607427310@pbx>");
        let same = [("Contact", "<sip:+18607427310@pbx>"), ("P-Asserted-Identity", "<sip:18607427310@pbx>")];
        assert!(!far.observe(&headers(&same), Some("<sip:18607427310@pbx>;tag=1")));
        assert!(far.observe(&headers(&[("P-Asserted-Identity", "<tel:+18607427311>")]), None));
    }

    #[test]
    fn a_number_with_parameters_is_nobody_new_unless_they_make_it_somebody_elses() {
        for (known, shown, somebody_new) in [
            ("5550123", "5550123;verstat=No-TN-Validation", false),
            ("5550123;x=y", "5550123;user=phone", false),
            ("5550123", "5550123;phone-context=pbx.example", false),
            ("5550123;phone-context=+1860", "+5550123;Phone-Context=+1860", false),
            ("5550123;phone-context=+1860", "5550123;phone-context=+1203", true),
            ("5550123;phone-context=+1860", "5550123;phone-context=pbx.example", true),
            // A context is the same number's only if that was known whole.
            ("+18605550123", "5550123;phone-context=+1860", false),
            ("918605550123", "5550123;phone-context=+1860", false),
            ("5550123;phone-context=+1860", "18605550123", false),
            ("5550123", "5550123;phone-context=+1203", true),
            ("5550123;phone-context=+1203", "5550123", true),
            ("+12035550123", "5550123;phone-context=+1860", true),
            ("+18607427300;ext=310", "18607427300;EXT=310;isub=7", true),
            ("+18607427300;ext=310;isub=7", "18607427300;isub=7;EXT=310", false),
            ("+18607427300;ext=310", "+18607427300;ext=399", true),
            ("+18607427300", "+18607427300;ext=399", true),
            ("+18607427300;ext=310", "+18607427300", true),
        ] {
            let case = format!("{known} {shown}");
            let at = |user: &str| format!("<sip:{user}@pbx>");
            let field = |name: &'static str, user: &str| headers(&[(name, at(user).as_str())]);
            let known_by = |name| FarEnd::calling(&field(name, known), &at(known));
            let mut far = known_by("Contact");
            assert_eq!(far.observe(&field("Contact", shown), None), somebody_new, "{case}");
            assert_eq!(known_by("Contact").observe(&headers(&[]), Some(&at(shown))), somebody_new, "{case}");
            for name in ["Contact", "P-Asserted-Identity"] {
                let shown = field("P-Asserted-Identity", shown);
                assert_eq!(known_by(name).observe(&shown, None), somebody_new, "{case}");
            }
        }
    }

    /// RFC 3325 §9.1.
    #[test]
    fn of_several_identities_all_of_one_message_are_known_or_somebody_is_new() {
        let asserted = |value: &str| headers(&[("P-Asserted-Identity", value)]);
        let known = || FarEnd::calling(&asserted("<sip:desk1@pbx>, <tel:+18607427331>"), "<sip:desk1@pbx>");
        for (shown, somebody_new) in [
            ("<tel:+18607427331>", false),
            ("<sip:desk1@pbx>, <tel:+18607427331>, <sip:desk2@pbx>", true),
            // A main number is everybody's.
            ("<sip:desk2@pbx>, <tel:+18607427331>", true),
            ("<sip:desk2@pbx>, <tel:+18607427332>", true),
        ] {
            assert_eq!(known().observe(&asserted(shown), None), somebody_new, "{shown}");
        }
        let mut drifting = known();
        assert!(!drifting.observe(&asserted("<tel:+18607427331>"), None));
        assert!(drifting.observe(&asserted("<sip:desk2@pbx>, <tel:+18607427331>"), None), "step by step");
        let many = (0..9).map(|number| format!("<sip:desk{number}@pbx>")).collect::<Vec<_>>().join(",");
        assert_eq!(known().identity(&headers(&[]), true).asserted, ["desk1", "+18607427331"]);
        assert_eq!(identity(&asserted(&many), true).asserted.len(), MAX_ASSERTED);
        assert_eq!(identity(&asserted(&many), false).asserted, [""; 0]);
    }

    /// To is what the caller's telephone wrote.
    #[test]
    fn whom_we_dialled_is_who_answers_until_it_says_otherwise() {
        let to = "<sip:7332@pbx>;tag=1";
        let first = || FarEnd::called(&headers(&[("Contact", "<sip:line1@pbx>")]), to, "7310".to_owned());
        let from = |far: &FarEnd| (far.dialled().map(str::to_owned), far.identity(&headers(&[]), true).from);
        for (fields, sender, somebody_new, shown) in [
            ([("Contact", "<sip:line2@pbx>")], to, true, "7310"),
            ([("Contact", "<sip:line1@pbx>;isfocus")], to, true, "7310"),
            ([("Contact", "<sip:7310@pbx>")], to, true, "7310"),
            ([("Contact", "<sip:310@pbx>")], to, true, "7310"),
            ([("Contact", "<sip:7355@pbx>")], to, true, ""),
            ([("Referred-By", "<sip:7310@pbx>")], to, true, ""),
            ([("P-Asserted-Identity", "<sip:7310@pbx>")], to, false, "7310"),
            ([("P-Asserted-Identity", "<sip:7332@pbx>")], to, true, ""),
            ([("P-Asserted-Identity", "<sip:7399@pbx>")], to, true, ""),
            ([("Contact", "<sip:line1@pbx>")], "<sip:7399@pbx>", true, "7399"),
        ] {
            let mut far = first();
            assert_eq!(far.observe(&headers(&fields), Some(sender)), somebody_new, "{fields:?}");
            let dialled = (shown == "7310").then(|| shown.to_owned());
            assert_eq!(from(&far), (dialled, shown.to_owned()), "{fields:?}");
        }
    }

    /// An identity that is not said again is not that of the telephone that has come.
    #[test]
    fn another_telephone_leaves_nothing_of_whom_was_there() {
        let asserted = [("P-Asserted-Identity", "<sip:7310@pbx>"), ("Contact", "<sip:7310@pbx>")];
        let from = "<sip:7310@pbx>;tag=1";
        let calling = || FarEnd::calling(&headers(&asserted), from);
        let called = || FarEnd::called(&headers(&asserted), from, "7310".to_owned());
        for mut far in [calling(), called(), FarEnd::calling(&headers(&asserted[1..]), from)] {
            assert!(far.observe(&headers(&[("Contact", "<sip:7355@pbx>")]), Some(from)));
            let shown = far.identity(&headers(&[]), true);
            assert_eq!((shown.asserted, shown.from.as_str(), far.dialled()), (vec![], "", None));
            assert!(!far.observe(&headers(&[("Contact", "<sip:7355@pbx>")]), Some(from)), "a refresh");
        }
        let again = [("P-Asserted-Identity", "<sip:7310@pbx>"), ("Contact", "<sip:7355@pbx>")];
        for mut far in [calling(), called()] {
            assert!(far.observe(&headers(&again), Some(from)));
            assert_eq!(far.identity(&headers(&[]), true).asserted, ["7310"]);
        }
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
