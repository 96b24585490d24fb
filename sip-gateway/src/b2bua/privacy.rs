//! What an end asks to be withheld (RFC 3323, RFC 3325 §9.3, RFC 7044 §10.1), and what is done for it.
//!
//! | priv-value | towards a peer that is not trusted with identities | towards one that is |
//! |---|---|---|
//! | `header`, `session` | nothing beyond what is done for every call: each leg has its own Via, Contact, Record-Route, Call-ID and media addresses | the same |
//! | `user` | From becomes anonymous, as do asserted identities; what else tells of the user is left out | as received |
//! | `id` | asserted identities are left out | as received |
//! | `history`, `header` | History-Info becomes anonymous | as received |
//! | `none` | nothing, whatever else is asked | as received |
//! | any other | goes on for whoever knows it, unless it names an address of the sender's side; with `critical` the request gets 500 | the same |
//!
//! What is done is struck from Privacy (RFC 3323 §5), but for `id`, by which later elements and telephones
//! know that the number is withheld. In an emergency call nothing is withheld and nothing refused.

use crate::wire::{Headers, Response, name};

/// The values of RFC 3323 §4.2, RFC 3325 §9.3 and RFC 7044.
const KNOWN: [&str; 7] = ["header", "session", "user", "id", "history", "none", "critical"];

/// Those that are done with when a request has passed.
const DONE: [&str; 4] = ["header", "session", "user", "history"];

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Privacy {
    pub(super) id: bool,
    pub(super) user: bool,
    pub(super) history: bool,
}

impl Privacy {
    /// What a message asks for.
    pub(super) fn of(headers: &Headers) -> Self {
        let asks = |value| headers.has_token(name::PRIVACY, value);
        if !headers.contains(name::PRIVACY) || asks("none") {
            return Self::default();
        }
        Self { id: asks("id"), user: asks("user"), history: asks("history") || asks("header") }
    }

    /// Whether who sends the message is not to be named.
    pub(super) const fn withholds_sender(self) -> bool {
        self.id || self.user
    }
}

/// A Privacy without what has been done; `None` if that was all.
pub(super) fn left_over(value: &str) -> Option<String> {
    let values: Vec<&str> = values(value).collect();
    let is = |value: &str, known: &[&str]| known.iter().any(|known| value.eq_ignore_ascii_case(known));
    if values.iter().any(|value| is(value, &["none"])) {
        return Some(value.to_owned());
    }
    let left: Vec<&str> = values.into_iter().filter(|value| !is(value, &DONE)).collect();
    let only_critical = left.iter().all(|value| is(value, &["critical"]));
    (!only_critical).then(|| left.join(";"))
}

/// A Privacy without the unknown values that show what is not to be shown. The known ones stay whatever they look
/// like: without them whoever comes next would show more.
pub(super) fn known_or_hidden(value: &str, shows: impl Fn(&str) -> bool) -> String {
    let is_known = |value: &str| KNOWN.iter().any(|known| value.eq_ignore_ascii_case(known));
    let kept: Vec<&str> = values(value).filter(|value| is_known(value) || !shows(value)).collect();
    kept.join(";")
}

/// The 500 of RFC 3323 §5 to a request that insists on what nobody here knows.
pub(crate) fn refusal(headers: &Headers) -> Option<Response> {
    let known = |value: &str| KNOWN.iter().any(|known| value.eq_ignore_ascii_case(known));
    let critical = headers.has_token(name::PRIVACY, "critical") && !headers.has_token(name::PRIVACY, "none");
    if !critical || headers.all(name::PRIVACY).flat_map(values).all(known) {
        return None;
    }
    let mut response = Response::new(500);
    response.headers.push(name::WARNING, "399 earmark \"this privacy cannot be given\"");
    Some(response)
}

fn values(text: &str) -> impl Iterator<Item = &str> {
    text.split([';', ',']).map(str::trim).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> Headers {
        let mut headers = Headers::new();
        headers.push(name::PRIVACY, value);
        headers
    }

    #[test]
    fn each_value_asks_for_its_own() {
        let (id, user, history) = (true, true, true);
        let none = Privacy::default();
        for (value, asked) in [
            ("id", Privacy { id, ..none }),
            ("user; critical", Privacy { user, ..none }),
            ("ID;user;header;session", Privacy { id, user, history }),
            ("history", Privacy { history, ..none }),
            ("session", none),
            ("none", none),
            ("id;none", none),
        ] {
            assert_eq!(Privacy::of(&headers(value)), asked, "{value}");
        }
    }

    #[test]
    fn what_is_done_is_struck_out() {
        for (value, left) in [
            ("id", Some("id")),
            ("user;id;critical", Some("id;critical")),
            ("header;session;user;critical", None),
            ("history", None),
            ("none", Some("none")),
            ("user;x-other", Some("x-other")),
        ] {
            assert_eq!(left_over(value).as_deref(), left, "{value}");
        }
    }

    #[test]
    fn only_what_is_unknown_and_critical_is_refused() {
        for (value, refused) in [
            ("x-other;critical", true),
            ("x-other", false),
            ("id;user;header;session;history;critical", false),
            ("none;x-other;critical", false),
        ] {
            assert_eq!(refusal(&headers(value)).is_some(), refused, "{value}");
        }
    }
}
