//! `sips:` asks for TLS on every hop (RFC 3261 §26.2.2, RFC 5630).
//!
//! | message | Contact is `sips:` |
//! |---|---|
//! | request of ours | if its Request-URI or first Route is (RFC 3261 §8.1.1.8) |
//! | answer of ours | if the Request-URI is, or the first Record-Route, or without one the Contact (§12.1.1) |
//!
//! A call to a `sips:` goes on as one, and only to peers by TLS; where there is none it gets 480 with Warning
//! 380 (RFC 5630 §5.3, §6.3). An emergency call goes on whichever way there is.

use crate::wire::{NameAddr, Request, Response, Uri, name};

/// Whether a request of ours is sent to a `sips:`.
pub(super) fn is_sent_to(request: &Request) -> bool {
    is_sips(&request.uri) || first(request, name::ROUTE).unwrap_or(false)
}

/// Whether the answer to a request belongs to a `sips:` dialog.
pub(super) fn is_asked_by(request: &Request) -> bool {
    let contact = || first(request, name::CONTACT).unwrap_or(false);
    is_sips(&request.uri) || first(request, name::RECORD_ROUTE).unwrap_or_else(contact)
}

/// No peer by TLS.
pub(super) fn refusal() -> Response {
    let mut response = Response::new(480);
    response.headers.push(name::WARNING, "380 earmark \"SIPS Not Allowed\"");
    response
}

pub(super) fn is_sips(uri: &str) -> bool {
    matches!(Uri::parse(uri), Ok(Uri::Sip(uri)) if uri.secure)
}

/// Whether the first value of a field is a `sips:`, if there is one.
fn first(request: &Request, field: &str) -> Option<bool> {
    let address = request.headers.list(field).next()?;
    Some(NameAddr::parse(address).is_ok_and(|address| is_sips(address.uri)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Method;

    fn request(uri: &str, fields: &[(&str, &str)]) -> Request {
        let mut request = Request::new(Method::INVITE, uri.to_owned());
        for (field, value) in fields {
            request.headers.push(field, *value);
        }
        request
    }

    #[test]
    fn the_rows_of_the_table() {
        let (sip, sips) = ("sip:a@h", "sips:a@h");
        let cases = [
            (sip, &[][..], false, false),
            (sips, &[], true, true),
            (sip, &[("Route", "<sips:p;lr>, <sip:q;lr>")], true, false),
            (sip, &[("Route", "<sip:p;lr>, <sips:q;lr>")], false, false),
            (sip, &[("Record-Route", "<sips:p;lr>"), ("Contact", "<sip:a@h>")], false, true),
            (sip, &[("Record-Route", "<sip:p;lr>"), ("Contact", "<sips:a@h>")], false, false),
            (sip, &[("Contact", "\"A\" <SIPS:a@h>;x=y")], false, true),
            ("tel:+1", &[("Contact", "*")], false, false),
        ];
        for (uri, fields, sent, asked) in cases {
            let request = request(uri, fields);
            assert_eq!((is_sent_to(&request), is_asked_by(&request)), (sent, asked), "{uri} {fields:?}");
        }
    }
}
