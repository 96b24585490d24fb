//! Whom the peers that place a call may not have called (`Allowance::refused`).
//!
//! | who is called | by whom |
//! |---|---|
//! | whom the caller dials | the caller's peer |
//! | whom a followed 3xx names | the same, and each peer that has redirected the call |
//! | whom a REFER names | the peer that sent it, and each that has redirected the new INVITE |
//!
//! Judged is what is sent there: the user part with its parameters, once by itself, and once with those of the URI,
//! where some write the number's.
//!
//! Only on the public side; never where an emergency service was or is called, nor in a dispatch call. An answering
//! point's call-back is no exception: anybody's INVITE may have its mark.

use consent::Side;

use super::Call;
use crate::core::{Environment, Refusal};
use crate::transaction::Class;
use crate::wire::{Response, Uri, name};
use crate::{PeerId, Route};

impl Call {
    /// The refusal of this destination, if one of those who place the call may not call it.
    pub(super) fn refused_destination(
        &self,
        env: &mut Environment,
        route: &Route,
        uri: &str,
    ) -> Option<Response> {
        let excepted = self.calls_for_help || self.class == Class::Dispatch || env.is_emergency(uri);
        if excepted || route.side != Side::Public {
            return None;
        }
        let user = route.user.clone().unwrap_or_else(|| self.subscriber_called(env, uri));
        let whole = format!("{user}{}", uri_params(uri));
        let placing = self.transfer.as_ref().map_or(self.peer, |transfer| self.leavers_peer(transfer));
        let refuses = |peer: &PeerId| {
            let peer = env.config.peers.get(peer.0);
            let refused = peer.and_then(|peer| peer.allowance.refused.as_ref());
            refused.is_some_and(|refused| refused.refuse(&user) || refused.refuse(&whole))
        };
        let peer = std::iter::once(placing).chain(self.redirected_by()).find(refuses)?;
        env.admission.refused(peer, Refusal::Destination);
        tracing::info!(call = %self.id, peer = peer.0, "destination refused");
        let mut refusal = Response::new(403);
        refusal.headers.push(name::WARNING, "399 earmark \"Calls to this destination are not allowed\"");
        Some(refusal)
    }
}

/// The parameters of a `sip:`, each with its `;`.
fn uri_params(uri: &str) -> &str {
    match Uri::parse(uri) {
        Ok(Uri::Sip(uri)) => uri.params.as_str(),
        Ok(_) | Err(_) => "",
    }
}
