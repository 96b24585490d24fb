//! Whom a Refer-To or a redirecting Contact names (RFC 3515 §2.1, RFC 3261 §20.10).

use consent::Side;

use super::super::offering::request_subscriber;
use super::Replaces;
use crate::core::Environment;
use crate::wire::{NameAddr, Uri, decoded};
use crate::{PeerId, Target as Told};

/// Somebody to be called instead of, or after, somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its URI, without embedded header fields and method.
    pub(crate) uri: String,
    /// The dialog that it is to replace.
    pub(crate) replaces: Option<Replaces>,
    /// The peer that its host names.
    pub(crate) peer: Option<PeerId>,
    /// Whether it is an emergency form.
    pub(crate) emergency: bool,
}

impl Target {
    /// Reads an address.
    ///
    /// # Errors
    /// The status that refuses it: 400 for what cannot be read, 416 for another scheme, 501 for another
    /// method than INVITE.
    pub(crate) fn parse(env: &Environment, address: &str) -> Result<Self, u16> {
        let address = NameAddr::parse(address).map_err(|_| 400_u16)?;
        let uri = match address.parsed_uri().map_err(|_| 400_u16)? {
            Uri::Sip(uri) => uri,
            Uri::Other { .. } if !env.is_emergency(address.uri) => return Err(416),
            Uri::Tel(_) | Uri::Other { .. } => {
                let (uri, emergency) = (address.uri.to_owned(), env.is_emergency(address.uri));
                return Ok(Self { uri, replaces: None, peer: None, emergency });
            }
        };
        if uri.params.get("method").is_some_and(|method| method != "INVITE") {
            return Err(501);
        }
        let replaces = uri.headers.and_then(|headers| {
            headers.split('&').filter_map(|field| field.split_once('=')).find_map(|(field, value)| {
                field.eq_ignore_ascii_case("Replaces").then(|| Replaces::parse(&decoded(value)))
            })
        });
        let replaces = match replaces {
            None => None,
            Some(Some(replaces)) => Some(replaces),
            Some(None) => return Err(400),
        };
        let peer = env.peer_at(uri.host, uri.port);
        let bare = address.uri.split('?').next().unwrap_or_default();
        let kept = bare.split(';').filter(|param| !is_method(param));
        let uri = kept.collect::<Vec<_>>().join(";");
        let emergency = env.is_emergency(&uri);
        Ok(Self { uri, replaces, peer, emergency })
    }

    /// As the hub needs it.
    pub(crate) fn told(&self, env: &Environment, from: Side) -> Told {
        let named = self.peer.and_then(|peer| env.config.peers.get(peer.0));
        Told {
            user: request_subscriber(&self.uri),
            side: named.map(|peer| peer.side),
            from,
            emergency: self.emergency,
        }
    }
}

fn is_method(param: &str) -> bool {
    param.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("method="))
}
