//! What of one side's message the other may see: identities by the trust in each peer (RFC 3325 §5, RFC 3323
//! §5), and no address of the one on the other.
//!
//! | field | crosses |
//! |---|---|
//! | Identity, Date | byte for byte: they are signed, or signed over (RFC 8224 §4) |
//! | P-Asserted-Identity, P-Preferred-Identity, Remote-Party-ID | from a trusted peer; if withheld (`id`, `user`), only to a trusted one; at our host |
//! | Attestation-Info and its like | from a trusted peer |
//! | Diversion, History-Info, Referred-By, Reply-To, P-Called-Party-ID, P-Associated-URI | at our host; towards a peer that is not trusted, what asks for privacy is anonymous |
//! | Privacy | as [`privacy`](super::privacy) says |
//! | what is about one network only (RFC 7315, RFC 8498) | never |
//! | Warning | its text; in our name where it names an address of the sender's side |
//! | Reason | its protocol and cause; its text unless it names an address of the sender's side |
//! | a field that tells of the user (RFC 5379 §5), where `user` privacy is asked for | to a trusted peer |
//! | Content-Type | as it is, if a body can be read by it: without it the body, which goes on, is not what it was |
//! | everything else | as it is, unless it names an address of the sender's side: then not at all |
//!
//! An address of which no part can cross is left out. In an emergency call everything crosses, in a call-back only
//! from a peer that is trusted with identities. Left out: the bodies of other types than SDP and sipfrag, which pass
//! byte for byte.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use consent::Leg;

use super::Call;
use super::offering::{Place, address_at, escaped, uri_at};
use super::privacy::{Privacy, known_or_hidden, left_over};
use crate::core::{Environment, Path};
use crate::topology::{Hosts, is_nowhere};
use crate::wire::{
    Field, Headers, MediaType, NameAddr, Params, Reason, Uri, name, reason_phrase, split_list,
};
use crate::{LegMedia, PeerId, Transport};

/// RFC 3323 §4.1.1.3.
const ANONYMOUS: &str = "\"Anonymous\" <sip:anonymous@anonymous.invalid>";

/// What crosses as it is.
const SIGNED: [&str; 2] = ["Identity", "Date"];

/// Who somebody is, by the word of the peer.
const ASSERTED: [&str; 3] = [name::P_ASSERTED_IDENTITY, "P-Preferred-Identity", name::REMOTE_PARTY_ID];

/// How far somebody's number has been verified, by the word of the peer.
pub(super) const ATTESTED: [&str; 3] = ["Attestation-Info", "X-Attestation-Info", "P-Attestation-Indicator"];

/// Other fields that consist of addresses.
const ADDRESSES: [&str; 6] = [
    name::DIVERSION,
    name::HISTORY_INFO,
    name::REFERRED_BY,
    "Reply-To",
    "P-Called-Party-ID",
    "P-Associated-URI",
];

/// What one network says to itself.
const OF_ONE_NETWORK: [&str; 10] = [
    "P-Access-Network-Info",
    "P-Charging-Function-Addresses",
    "P-Charging-Vector",
    "P-DCS-Billing-Info",
    "P-DCS-LAES",
    "P-DCS-Trace-Party-ID",
    "P-Profile-Key",
    "P-Served-User",
    "P-User-Database",
    "P-Visited-Network-ID",
];

/// What tells of a user beside the addresses.
const OF_THE_USER: [&str; 8] = [
    "Call-Info",
    "Organization",
    name::REFERRED_BY,
    "Reply-To",
    "Server",
    name::SUBJECT,
    "User-Agent",
    name::WARNING,
];

/// Between who sends a message and who gets it.
#[derive(Clone, Debug)]
pub(crate) struct Border {
    /// Whether everything crosses.
    pub(super) whole: bool,
    /// Whether 100rel and session timers run end to end, and options are between the two ends alone.
    pub(super) options: bool,
    /// Whether the sender's word on identities counts.
    pub(super) believed: bool,
    /// Whether the receiver may know what is withheld.
    pub(super) trusted: bool,
    /// The sender's side.
    pub(super) hosts: Arc<Hosts>,
    /// Our host towards the receiver.
    pub(super) host: String,
    /// Whether it is reached by TLS.
    pub(super) secure: bool,
    /// What the message asks for.
    pub(super) privacy: Privacy,
}

impl Border {
    /// Between us and whoever gets a message of ours.
    pub(super) fn none() -> Self {
        Self {
            whole: false,
            options: false,
            believed: true,
            trusted: true,
            hosts: Arc::default(),
            host: String::new(),
            secure: false,
            privacy: Privacy::default(),
        }
    }

    /// Between two ends that trust each other in nothing, of which the sender is at these hosts.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of_strangers(headers: &Headers, hosts: Hosts, host: &str) -> Self {
        Self {
            believed: false,
            trusted: false,
            hosts: Arc::new(hosts),
            host: host.to_owned(),
            privacy: Privacy::of(headers),
            ..Self::none()
        }
    }

    /// The same in an emergency call.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of_emergency() -> Self {
        Self { whole: true, options: true, ..Self::none() }
    }

    /// Lets a field of the message cross into another.
    pub(super) fn cross(&self, field: Field<'_>, to: &mut Headers) {
        if self.whole {
            return to.push_field(field);
        }
        if is_one_of(field.name, &SIGNED) {
            return to.push(field.name, field.value);
        }
        if is_one_of(field.name, &ASSERTED) {
            let withheld = self.privacy.withholds_sender() && !self.trusted;
            if self.believed && !withheld {
                self.cross_addresses(field, to);
            }
            return;
        }
        let barred = is_one_of(field.name, &OF_ONE_NETWORK)
            || (!self.believed && is_one_of(field.name, &ATTESTED))
            || (self.hides_user() && is_one_of(field.name, &OF_THE_USER));
        if barred {
            return;
        }
        if is_one_of(field.name, &ADDRESSES) {
            return self.cross_addresses(field, to);
        }
        // Not its octets: the far end's parser may refuse a call for one that is not UTF-8.
        if let Some(value) = self.crossed(field.name, field.value) {
            to.push(field.name, value);
        }
    }

    fn crossed<'a>(&self, name: &str, value: &'a str) -> Option<Cow<'a, str>> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        // A boundary may be made of a host's name, and without it the body cannot be read.
        if is(name::CONTENT_TYPE) && MediaType::leading(value).is_some() {
            return Some(Cow::Borrowed(value));
        }
        if is(name::PRIVACY) {
            let value = if self.shows(value) {
                Cow::Owned(known_or_hidden(value, |value| self.shows(value)))
            } else {
                Cow::Borrowed(value)
            };
            let left = if self.trusted { Some(value) } else { left_over(&value).map(Cow::Owned) };
            return left.filter(|left| !left.is_empty());
        }
        if is(name::WARNING) {
            return joined(split_list(value).filter_map(|warning| self.warning(warning))).map(Cow::Owned);
        }
        if is(name::REASON) {
            return self.reason(value);
        }
        (!self.shows(value)).then_some(Cow::Borrowed(value))
    }

    /// Lets all fields of a name cross.
    pub(super) fn cross_all(&self, from: &Headers, name: &str, to: &mut Headers) {
        for field in from.iter().filter(|field| field.name.eq_ignore_ascii_case(name)) {
            self.cross(field, to);
        }
    }

    /// The From of the sender as the receiver gets it.
    pub(crate) fn from(&self, from: &str, tag: &str) -> String {
        if self.hides_user() {
            return format!("{ANONYMOUS};tag={tag}");
        }
        let said = if self.believed || self.whole { Cow::Borrowed(from) } else { without_verstat(from) };
        let moved = address_at(&said, self.place(), None, Some(tag));
        if self.shows(&moved) { self.bare(&moved).unwrap_or(format!("{ANONYMOUS};tag={tag}")) } else { moved }
    }

    /// An address at any host, without what names the sender's side.
    pub(super) fn cleared(&self, address: String) -> String {
        if self.shows(&address) { self.bare(&address).unwrap_or(address) } else { address }
    }

    /// A Request-URI, without what names the sender's side.
    pub(super) fn cleared_uri(&self, uri: String) -> String {
        if self.shows(&uri) { bare_uri(&uri).unwrap_or(uri) } else { uri }
    }

    /// The reason phrase of a response: the usual one instead of one that names the sender's side.
    pub(super) fn phrase(&self, status: u16, phrase: &str) -> String {
        if self.shows(phrase) { reason_phrase(status).to_owned() } else { phrase.to_owned() }
    }

    /// A Reason, without its text where that names the sender's side.
    pub(super) fn reason<'a>(&self, value: &'a str) -> Option<Cow<'a, str>> {
        if !self.shows(value) {
            return Some(Cow::Borrowed(value));
        }
        let causes = Reason::list(value).filter_map(|reason| {
            let bare = format!("{};cause={}", reason.protocol, reason.cause?);
            (!self.shows(&bare)).then_some(bare)
        });
        joined(causes).map(Cow::Owned)
    }

    /// A body: of a `message/sipfrag` (RFC 3420) no more than its status line.
    pub(super) fn body(&self, headers: &Headers, body: &Bytes) -> Bytes {
        let kind = headers.first(name::CONTENT_TYPE).and_then(MediaType::leading);
        let is_fragment = kind.is_some_and(|(kind, subtype)| {
            kind.eq_ignore_ascii_case("message") && subtype.eq_ignore_ascii_case("sipfrag")
        });
        if self.whole || body.is_empty() || !is_fragment {
            return body.clone();
        }
        let line = body.split(|octet| matches!(octet, b'\r' | b'\n')).next().unwrap_or_default();
        let status = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix("SIP/2.0 "));
        match status.and_then(|rest| rest.get(..3)?.parse::<u16>().ok()) {
            Some(status) => format!("SIP/2.0 {status} {}\r\n", reason_phrase(status)).into(),
            None => Bytes::new(),
        }
    }

    pub(super) const fn hides_user(&self) -> bool {
        self.privacy.user && !self.trusted && !self.whole
    }

    fn shows(&self, text: &str) -> bool {
        !self.whole && self.hosts.appear_in(text)
    }

    fn place(&self) -> Place<'_> {
        Place { host: &self.host, secure: self.secure }
    }

    fn cross_addresses(&self, field: Field<'_>, to: &mut Headers) {
        let history = field.name.eq_ignore_ascii_case(name::HISTORY_INFO);
        let moved = split_list(field.value).filter_map(|address| self.address(address, history));
        if let Some(value) = joined(moved) {
            to.push(field.name, value);
        }
    }

    /// An address at our host; `None` if nothing of it can cross.
    fn address(&self, text: &str, history: bool) -> Option<String> {
        let address = NameAddr::parse(text).ok()?;
        if !self.trusted && ((history && self.privacy.history) || is_private(&address)) {
            return NameAddr::parse(ANONYMOUS).ok().map(|nobody| with_params(&nobody, address.params));
        }
        let uri = match address.parsed_uri().ok()? {
            Uri::Sip(uri) if is_nowhere(uri.host) => address.uri.to_owned(),
            Uri::Sip(uri) => {
                let moved = uri_at(address.uri, self.place(), None);
                // RFC 7044 §5: Reason and Privacy of an entry stand there.
                match uri.headers.filter(|_| history) {
                    Some(headers) => format!("{moved}?{headers}"),
                    None => moved,
                }
            }
            Uri::Tel(_) | Uri::Other { .. } => address.uri.to_owned(),
        };
        let moved = address.rebuilt(&uri, None);
        if self.shows(&moved) { self.bare(&moved) } else { Some(moved) }
    }

    /// No more of an address than its user, its host and those of its parameters that show nothing; `None` if
    /// the user does.
    fn bare(&self, address: &str) -> Option<String> {
        let parsed = NameAddr::parse(address).ok()?;
        let mut bare = format!("<{}>", bare_uri(parsed.uri)?);
        for param in parsed.params.iter() {
            let text = param.value.map_or_else(String::new, |value| format!("={value}"));
            if !self.shows(&text) && !self.shows(param.name) {
                bare.push_str(&format!(";{}{text}", param.name));
            }
        }
        (!self.shows(&bare)).then_some(bare)
    }

    /// A Warning in our name, if it is in that of a host of theirs (RFC 3261 §20.43 has pseudonyms for it).
    fn warning(&self, value: &str) -> Option<String> {
        let mut words = value.trim().splitn(3, ' ');
        let (code, agent, text) = (words.next()?, words.next()?, words.next()?);
        let known = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
        let agent = if self.shows(agent) { "earmark" } else { agent };
        (known && !self.shows(text)).then(|| format!("{code} {agent} {text}"))
    }
}

fn joined(values: impl Iterator<Item = String>) -> Option<String> {
    let values: Vec<String> = values.collect();
    (!values.is_empty()).then(|| values.join(", "))
}

impl Call {
    /// What lies between whoever sent a message with these headers on a leg and whoever this path leads to.
    pub(super) fn border(
        &self,
        env: &Environment,
        by: (Leg, PeerId),
        headers: &Headers,
        to: &Path,
    ) -> Border {
        let (leg, sender) = by;
        Border {
            whole: self.crosses_whole(env),
            options: self.is_emergency(),
            believed: env.trusts_identity(sender),
            trusted: env.trusts_identity(to.peer),
            hosts: self.hidden_from(env, leg, to),
            host: env.host(to.listener),
            secure: to.transport == Transport::Tls,
            privacy: Privacy::of(headers),
        }
    }

    /// Whether everything crosses: where an emergency service was called, and in the call-back of a peer that is
    /// believed to say who calls. The mark of any other proves nothing, nor does that peer's for whoever takes its
    /// place.
    pub(super) fn crosses_whole(&self, env: &Environment) -> bool {
        self.calls_for_help || (self.mark_believed && env.trusts_identity(self.peer))
    }

    /// Where a leg's side is, but for the place to which this path leads: whoever is there knows it. It is on both
    /// sides where a call goes back to the peer from which it came.
    fn hidden_from(&self, env: &Environment, leg: Leg, to: &Path) -> Arc<Hosts> {
        let hosts = &self.hosts[leg.index()];
        let known = [Some(to.to.ip().to_canonical().to_string()), env.name_of(to.peer).map(str::to_owned)];
        match hosts.without(known.iter().flatten()) {
            Some(fewer) => Arc::new(fewer),
            None => Arc::clone(hosts),
        }
    }

    /// Takes in the addresses of a leg's session description.
    pub(super) fn learn_media(&mut self, env: &Environment, leg: Leg, media: &LegMedia) {
        if !self.crosses_whole(env) {
            let hosts = Arc::make_mut(&mut self.hosts[leg.index()]);
            hosts.learn_media(media, |host| env.is_own(host));
        }
    }

    /// Takes in the peer whom a leg leads to.
    pub(super) fn learn_peer(&mut self, env: &Environment, leg: Leg, path: &Path) {
        if self.crosses_whole(env) {
            return;
        }
        let hosts = Arc::make_mut(&mut self.hosts[leg.index()]);
        if let Some(name) = env.name_of(path.peer) {
            hosts.learn(name);
        }
        hosts.learn_source(path.to.ip(), |host| env.is_own(host));
    }

    /// Takes in where a leg's side is, as a message of it shows.
    pub(super) fn learn(&mut self, env: &Environment, leg: Leg, headers: &Headers, source: IpAddr) {
        if self.crosses_whole(env) {
            return;
        }
        let own = |host: &str| env.is_own(host);
        let hosts = Arc::make_mut(&mut self.hosts[leg.index()]);
        hosts.learn_from(headers, own);
        hosts.learn_source(source, own);
    }
}

/// Whether an entry asks for privacy itself: `privacy=` of Diversion (RFC 5806 §4) and Remote-Party-ID, the
/// Privacy of History-Info (RFC 7044 §10.1.2).
fn is_private(address: &NameAddr<'_>) -> bool {
    let param = address.params.get("privacy").is_some_and(|value| {
        !["off", "no", "none"].iter().any(|none| value.trim_matches('"').eq_ignore_ascii_case(none))
    });
    let entry = match address.parsed_uri() {
        Ok(Uri::Sip(uri)) => uri.headers.is_some_and(|headers| {
            headers.split('&').any(|header| {
                let (name, value) = header.split_once('=').unwrap_or((header, ""));
                name.eq_ignore_ascii_case(name::PRIVACY) && !value.eq_ignore_ascii_case("none")
            })
        }),
        _ => false,
    };
    param || entry
}

fn with_params(address: &NameAddr<'_>, params: Params<'_>) -> String {
    format!("{} <{}>{}", address.display, address.uri, params.as_str())
}

/// A URI with nothing but user, host and port.
fn bare_uri(uri: &str) -> Option<String> {
    match Uri::parse(uri).ok()? {
        Uri::Sip(sip) => {
            let scheme = if sip.secure { "sips" } else { "sip" };
            let user = Uri::Sip(sip).user().map_or_else(String::new, |user| format!("{}@", escaped(&user)));
            let port = sip.port.map_or_else(String::new, |port| format!(":{port}"));
            Some(format!("{scheme}:{user}{}{port}", sip.host))
        }
        Uri::Tel(tel) => Some(format!("tel:{}", tel.number)),
        Uri::Other { .. } => None,
    }
}

/// An address without `verstat` (3GPP TS 24.229 §7.2A.20), a parameter of the number or of the URI: only
/// whoever is believed says what was verified.
fn without_verstat(address: &str) -> Cow<'_, str> {
    let Ok(parsed) = NameAddr::parse(address) else { return Cow::Borrowed(address) };
    match strip_verstat(parsed.uri) {
        Cow::Borrowed(_) => Cow::Borrowed(address),
        Cow::Owned(uri) => Cow::Owned(parsed.rebuilt(&uri, parsed.tag())),
    }
}

fn strip_verstat(uri: &str) -> Cow<'_, str> {
    const PARAM: &str = ";verstat";
    let lower = uri.to_ascii_lowercase();
    let ends =
        |after: usize| matches!(uri.as_bytes().get(after), None | Some(b'=' | b';' | b'@' | b'?' | b'>'));
    let (mut kept, mut from) = (String::new(), 0);
    for (start, _) in lower.match_indices(PARAM).filter(|(at, _)| ends(at + PARAM.len())) {
        kept.push_str(uri.get(from..start).unwrap_or_default());
        let rest = uri.get(start + 1..).unwrap_or_default();
        from = rest.find([';', '@', '?']).map_or(uri.len(), |end| start + 1 + end);
    }
    if from == 0 {
        return Cow::Borrowed(uri);
    }
    kept.push_str(uri.get(from..).unwrap_or_default());
    Cow::Owned(kept)
}

/// Whether a field's name is among these, in any case.
pub(super) fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|other| name.eq_ignore_ascii_case(other))
}

#[cfg(test)]
mod tests;
