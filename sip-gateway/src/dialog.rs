//! Dialogs (RFC 3261 §12): what both ends remember of each other, on one leg.
//!
//! | event | §  | change |
//! |---|---|---|
//! | request with Contact makes it (UAS) | 12.1.1 | route set = Record-Route in order, target = Contact |
//! | response with To tag makes it (UAC) | 12.1.2 | route set = Record-Route reversed, target = Contact |
//! | 2xx confirms an early one | 13.2.2.4 | route set and target anew |
//! | request inside | 12.2.2 | CSeq lower than the last: refused; target refresh: target = Contact |
//! | 2xx to our target refresh | 12.2.1.2 | target = Contact |
//!
//! Left out: the strict routers' rewriting on the receiving side (§16.4), which needs a Request-URI that
//! is ours; and comparison of sequence numbers for ACK and CANCEL, which have their own rules.

use crate::core::{Environment, Path};
use crate::wire::{Headers, Method, NameAddr, Request, Uri, name};

/// What names a dialog on our side (RFC 3261 §12).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DialogId {
    pub(crate) call_id: String,
    pub(crate) local_tag: String,
    pub(crate) remote_tag: String,
}

impl DialogId {
    /// The dialog that a request is sent within: its To tag is ours.
    pub(crate) fn of_request(headers: &Headers) -> Option<Self> {
        Some(Self {
            call_id: headers.first(name::CALL_ID)?.to_owned(),
            local_tag: tag_of(headers, name::TO)?,
            remote_tag: tag_of(headers, name::FROM).unwrap_or_default(),
        })
    }

    /// The dialog that a request of ours was sent within.
    pub(crate) fn of_sent(headers: &Headers) -> Option<Self> {
        Some(Self {
            call_id: headers.first(name::CALL_ID)?.to_owned(),
            local_tag: tag_of(headers, name::FROM)?,
            remote_tag: tag_of(headers, name::TO)?,
        })
    }
}

/// The tag of a From or To.
pub(crate) fn tag_of(headers: &Headers, field: &str) -> Option<String> {
    NameAddr::parse(headers.first(field)?).ok()?.tag().map(str::to_owned)
}

/// Gives the To of a response this tag, if it has none (§8.2.6.2).
pub(crate) fn add_tag(headers: &mut Headers, tag: &str) {
    let tagged = match headers.first(name::TO).map(NameAddr::parse) {
        Some(Ok(to)) if to.tag().is_none() => to.with_tag(Some(tag)),
        _ => return,
    };
    headers.set(name::TO, tagged);
}

/// One leg's dialog.
#[derive(Clone, Debug)]
pub(crate) struct Dialog {
    pub(crate) id: DialogId,
    /// Our address with our tag: From of what we send.
    pub(crate) local: String,
    /// Their address with their tag: To of what we send.
    pub(crate) remote: String,
    pub(crate) local_seq: u32,
    /// Whether we began it, and so made its Call-ID.
    pub(crate) owns_call_id: bool,
    pub(crate) remote_seq: Option<u32>,
    route_set: Vec<String>,
    remote_target: String,
    pub(crate) path: Path,
}

impl Dialog {
    /// The dialog that an INVITE of theirs makes, with this tag of ours (§12.1.1).
    pub(crate) fn of_uas(env: &Environment, invite: &Request, local_tag: &str, path: Path) -> Self {
        let to = invite.headers.first(name::TO).unwrap_or_default();
        let from = invite.headers.first(name::FROM).unwrap_or_default();
        let local = NameAddr::parse(to).map_or_else(|_| to.to_owned(), |to| to.with_tag(Some(local_tag)));
        let mut dialog = Self {
            id: DialogId {
                call_id: invite.headers.first(name::CALL_ID).unwrap_or_default().to_owned(),
                local_tag: local_tag.to_owned(),
                remote_tag: tag_of(&invite.headers, name::FROM).unwrap_or_default(),
            },
            local,
            remote: from.to_owned(),
            local_seq: 0,
            owns_call_id: false,
            remote_seq: sequence_of(&invite.headers),
            route_set: routes(&invite.headers).collect(),
            remote_target: contact_uri(&invite.headers).unwrap_or_else(|| invite.uri.clone()),
            path,
        };
        dialog.aim(env);
        dialog
    }

    /// The dialog that a response to an INVITE of ours makes (§12.1.2).
    pub(crate) fn of_uac(env: &Environment, invite: &Request, response: &Headers, path: Path) -> Self {
        let local = invite.headers.first(name::FROM).unwrap_or_default();
        let remote = response.first(name::TO).unwrap_or_default();
        let mut dialog = Self {
            id: DialogId {
                call_id: invite.headers.first(name::CALL_ID).unwrap_or_default().to_owned(),
                local_tag: tag_of(&invite.headers, name::FROM).unwrap_or_default(),
                remote_tag: tag_of(response, name::TO).unwrap_or_default(),
            },
            local: local.to_owned(),
            remote: remote.to_owned(),
            local_seq: sequence_of(&invite.headers).unwrap_or(1),
            owns_call_id: true,
            remote_seq: None,
            route_set: Vec::new(),
            remote_target: invite.uri.clone(),
            path,
        };
        dialog.confirm(env, response);
        dialog
    }

    /// Takes the route set and target of a response that makes or confirms it (§13.2.2.4).
    pub(crate) fn confirm(&mut self, env: &Environment, response: &Headers) {
        self.route_set = routes(response).collect();
        self.route_set.reverse();
        self.refresh_target(env, response);
    }

    /// Takes a new remote target from a Contact (§12.2.1.2, §12.2.2).
    pub(crate) fn refresh_target(&mut self, env: &Environment, headers: &Headers) {
        if let Some(target) = contact_uri(headers) {
            self.remote_target = target;
        }
        self.aim(env);
    }

    /// Whether a request's sequence number is in order; if so, it is the last one now (§12.2.2).
    pub(crate) fn accepts_sequence(&mut self, headers: &Headers) -> bool {
        let Some(number) = sequence_of(headers) else { return false };
        if self.remote_seq.is_some_and(|last| number < last) {
            return false;
        }
        self.remote_seq = Some(number);
        true
    }

    /// A request within the dialog with the next sequence number (§12.2.1.1), without Via, Max-Forwards,
    /// Contact and body.
    pub(crate) fn request(&mut self, method: Method) -> Request {
        let sequence = self.next_sequence();
        self.request_numbered(method, sequence)
    }

    /// The next sequence number of ours.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.local_seq = self.local_seq.saturating_add(1);
        self.local_seq
    }

    /// The ACK of a 2xx to the INVITE of this sequence number (§13.2.2.4).
    pub(crate) fn ack(&self, sequence: u32) -> Request {
        self.request_numbered(Method::ACK, sequence)
    }

    fn request_numbered(&self, method: Method, sequence: u32) -> Request {
        let (uri, routes) = self.routing();
        let cseq = format!("{sequence} {}", method.as_str());
        let mut request = Request::new(method, uri);
        for route in routes {
            request.headers.push(name::ROUTE, route);
        }
        request.headers.push(name::FROM, self.local.clone());
        request.headers.push(name::TO, self.remote.clone());
        request.headers.push(name::CALL_ID, self.id.call_id.clone());
        request.headers.push(name::CSEQ, cseq);
        request
    }

    /// Request-URI and Route: the target and the set, or the strict router's exchange of places.
    fn routing(&self) -> (String, Vec<String>) {
        let Some((first, rest)) = self.route_set.split_first() else {
            return (self.remote_target.clone(), Vec::new());
        };
        match uri_of(first) {
            Some(uri) if !is_loose(&uri) => {
                let mut routes = rest.to_vec();
                routes.push(format!("<{}>", self.remote_target));
                (uri, routes)
            }
            _ => (self.remote_target.clone(), self.route_set.clone()),
        }
    }

    fn aim(&mut self, env: &Environment) {
        let first = self.route_set.first().and_then(|route| uri_of(route));
        let next_hop = first.unwrap_or_else(|| self.remote_target.clone());
        env.aim(&mut self.path, &next_hop);
    }
}

/// The number of a CSeq.
pub(crate) fn sequence_of(headers: &Headers) -> Option<u32> {
    headers.first(name::CSEQ)?.split([' ', '\t']).next()?.parse().ok()
}

fn routes(headers: &Headers) -> impl Iterator<Item = String> {
    headers.list(name::RECORD_ROUTE).map(str::to_owned)
}

fn contact_uri(headers: &Headers) -> Option<String> {
    headers.list(name::CONTACT).next().and_then(uri_of)
}

fn uri_of(address: &str) -> Option<String> {
    NameAddr::parse(address).ok().map(|address| address.uri.to_owned())
}

fn is_loose(uri: &str) -> bool {
    matches!(Uri::parse(uri), Ok(Uri::Sip(uri)) if uri.params.contains("lr"))
}
