//! What passes from one leg to the other, and what is ours.
//!
//! | field | passes |
//! |---|---|
//! | Via, From, To, Call-ID, CSeq, Contact, Route, Record-Route, Max-Forwards, Content-Length | never: each leg has its own |
//! | Supported, Require | the options of [`PASSED_OPTIONS`]; `100rel`, `timer` and `record-aware` are each leg's own |
//! | Allow | the methods that pass through us |
//! | credentials and challenges, Session-Expires, Min-SE, RSeq, RAck, Replaces, Join, Target-Dialog, Path, Service-Route, Security-*, Timestamp, In-Reply-To | never: they bind to one leg |
//! | `X-Earmark-*`, `X-Consent*` | never: nobody else may speak in our name |
//! | everything else | as [`border`](super::border) says; what is not UTF-8 is taken as Latin-1 and goes on as UTF-8 (RFC 3261 §25.1 has no other text), and a control character, which a field can hold only as a quoted pair, becomes a space |
//!
//! In an emergency call everything passes, byte for byte but for control characters, but the first row and credentials
//! and challenges, RAck's CSeq number excepted; with it 100rel and session timers run end to end. In the call-back of a
//! peer that is not trusted with identities they do too ([`OPTIONS`]), and all else passes as in any call. In a call
//! that has become an emergency call by a transfer they stay each leg's own, and what binds to a leg does not pass.
//!
//! A response's 3xx becomes 480, a 401 or 407 becomes 502, and a 422 becomes 500, each with the status in
//! Reason: a redirection would lead the caller past the gateway and show it the other side, credentials are
//! never asked of one side for the other, and how long a session lasts is each leg's own affair.

use super::border::{Border, is_one_of};
use crate::wire::{Field, Headers, Response, name};

/// The methods that we answer or pass on.
pub(crate) const ALLOW: &str =
    "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK, MESSAGE, NOTIFY, REFER";

/// Extensions that need nothing of what is between the two ends but their header fields.
pub(crate) const PASSED_OPTIONS: [&str; 6] =
    ["answermode", "geolocation-http", "geolocation-sip", "histinfo", "resource-priority", "uui"];

/// The options of both, and those that each leg has with us.
pub(crate) fn supported() -> String {
    let own = [super::reliable::OPTION, super::session_timer::OPTION, super::awareness::OPTION];
    format!("{}, {}", PASSED_OPTIONS.join(", "), own.join(", "))
}

/// Methods that end at the gateway, so that neither side is told that the other knows them.
const HELD_BACK: [&str; 5] = ["PRACK", "REFER", "SUBSCRIBE", "REGISTER", "PUBLISH"];

/// Each leg's own.
const OURS: [&str; 10] = [
    name::VIA,
    name::FROM,
    name::TO,
    name::CALL_ID,
    name::CSEQ,
    name::CONTACT,
    name::ROUTE,
    name::RECORD_ROUTE,
    name::MAX_FORWARDS,
    name::CONTENT_LENGTH,
];

/// What one side knows a secret for. It would help the other only to guess it.
const SECRET: [&str; 6] = [
    name::AUTHORIZATION,
    name::PROXY_AUTHORIZATION,
    name::PROXY_AUTHENTICATE,
    name::WWW_AUTHENTICATE,
    "Authentication-Info",
    "Proxy-Authentication-Info",
];

/// What binds to one leg.
const HOP: [&str; 15] = [
    name::PROXY_REQUIRE,
    name::SESSION_EXPIRES,
    name::MIN_SE,
    name::RSEQ,
    name::RACK,
    name::REPLACES,
    "Join",
    "In-Reply-To",
    "Target-Dialog",
    "Path",
    "Service-Route",
    "Security-Client",
    "Security-Server",
    "Security-Verify",
    name::TIMESTAMP,
];

/// What 100rel and session timers run by, and what the two ends can do.
const OPTIONS: [&str; 8] = [
    name::SUPPORTED,
    name::REQUIRE,
    name::PROXY_REQUIRE,
    name::ALLOW,
    name::SESSION_EXPIRES,
    name::MIN_SE,
    name::RSEQ,
    name::RACK,
];

/// Whether an extension that a message requires can work through us.
pub(crate) fn passes_option(option: &str) -> bool {
    PASSED_OPTIONS.iter().any(|passed| option.eq_ignore_ascii_case(passed))
}

/// Copies what passes from one leg's message into the other's.
pub(crate) fn copy_end_to_end(from: &Headers, to: &mut Headers, border: &Border) {
    for field in from.iter() {
        if is_one_of(field.name, &OURS) || is_one_of(field.name, &SECRET) {
            continue;
        }
        copy_field(field, to, border);
    }
}

fn copy_field(field: Field<'_>, to: &mut Headers, border: &Border) {
    let forged = ["X-Earmark-", "X-Consent"]
        .iter()
        .any(|prefix| field.name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)));
    if forged && !border.whole {
        return;
    }
    let of_a_leg = is_one_of(field.name, &HOP);
    if border.options && (is_one_of(field.name, &OPTIONS) || (of_a_leg && border.whole)) {
        return border.cross(field, to);
    }
    if of_a_leg {
        return;
    }
    let keep: fn(&str) -> bool = match field.name {
        name::SUPPORTED | name::REQUIRE => passes_option,
        name::ALLOW => |method| !is_one_of(method, &HELD_BACK),
        _ => return border.cross(field, to),
    };
    let kept: Vec<&str> = field.value.split(',').map(str::trim).filter(|token| keep(token)).collect();
    if !kept.is_empty() {
        to.push(field.name, kept.join(", "));
    }
}

/// Says to a peer whose transfers we carry out that we do (RFC 3515, RFC 3891 §6, RFC 4488): in Allow, where
/// the other side has one, and in Supported.
pub(crate) fn offer_refer(headers: &mut Headers, may_refer: bool) {
    if !may_refer {
        return;
    }
    if let Some(allow) = headers.first(name::ALLOW) {
        let with = format!("{allow}, REFER");
        headers.set(name::ALLOW, with);
    }
    headers.push(name::SUPPORTED, "replaces, norefersub");
}

/// What a final failure of one leg becomes on the other.
pub(crate) fn map_failure(response: &Response) -> Response {
    let status = match response.status {
        300..=399 => 480,
        401 | 407 => 502,
        422 => 500,
        _ => return response.clone(),
    };
    let mut mapped = Response::new(status);
    mapped.headers.push(name::REASON, format!("SIP;cause={}", response.status));
    mapped
}
