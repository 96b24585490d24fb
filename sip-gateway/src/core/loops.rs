//! Calls that come back (RFC 3261 §16.3 item 4, §16.6 item 8).
//!
//! Our branch of a call's INVITE ends in marks, one for each time that the call has passed through us: a keyed
//! hash of the side it came from and of whom it called. A far proxy that sends the INVITE on keeps our Via; if it
//! comes back, and its own mark is among those, it would go the same way again: 482. With other marks it spirals,
//! as a forwarded call does, and goes on.
//!
//! Left out: what a back-to-back user agent takes our Via from. Max-Forwards bounds that, and where it is set
//! anew, the number of calls alike ([`super::admission`]).

use crate::Listener;
use crate::wire::{Request, Via, before_params, name, user_params};

/// What stands before a mark: no letter of ours.
const MARK: char = '.';

/// Marks that a branch carries; of more, the newest.
const MAX_MARKS: usize = 8;

/// Parameters that make a number another's (RFC 3966 §5.3, §5.4, §5.1.5). The others hide no loop.
const TELLING: [&str; 3] = ["ext", "isub", "phone-context"];

/// The call has passed through us before, just so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the call has come back")]
pub(crate) struct Looped;

/// Whom a user part calls: itself, and what of its parameters tells it from others.
pub(super) fn whom(user: &str) -> impl Iterator<Item = &str> {
    let telling = |name: &str| TELLING.iter().any(|own| name.eq_ignore_ascii_case(own));
    let params = user_params(user).filter(move |(name, _)| telling(name));
    std::iter::once(before_params(user)).chain(params.filter_map(|(_, value)| value))
}

/// A branch's marks, each with what stands before it.
pub(super) fn marks(branch: &str) -> Option<&str> {
    branch.get(branch.find(MARK)?..)
}

/// The marks of an INVITE that comes in, and this one.
///
/// # Errors
/// [`Looped`] if this one is among them.
pub(super) fn passes(listeners: &[Listener], mark: &str, invite: &Request) -> Result<String, Looped> {
    let vias: Vec<Via<'_>> = invite.headers.list(name::VIA).filter_map(|via| Via::parse(via).ok()).collect();
    let ours = vias.iter().filter(|via| is_ours(listeners, via));
    let mut before: Vec<&str> = ours
        .filter_map(|via| marks(via.branch()?))
        // Of any other length it is none of ours, and would let a Via of somebody's swell our own.
        .flat_map(|marks| marks.split(MARK).filter(|before| before.len() == mark.len()))
        .collect();
    if before.contains(&mark) {
        return Err(Looped);
    }
    before.truncate(MAX_MARKS - 1);
    Ok(std::iter::once(mark).chain(before).map(|mark| format!("{MARK}{mark}")).collect())
}

fn is_ours(listeners: &[Listener], via: &Via<'_>) -> bool {
    let Ok(ip) = via.host.trim_matches(['[', ']']).parse() else { return false };
    let sent_by = std::net::SocketAddr::new(ip, via.port.unwrap_or(5060));
    listeners.iter().any(|listener| listener.address == sent_by)
}
