//! The certificates in force, and their exchange at SIGHUP.

use std::error::Error;
use std::sync::Arc;

use sip_gateway::shell::tls::TlsInForce;

use super::ops::Ops;
use crate::config::{Config, TlsRead};

/// Puts certificates in force for new handshakes; streams that stand are not touched.
#[derive(Clone)]
pub(super) struct Certificates {
    config: Arc<Config>,
    in_force: TlsInForce,
    ops: Arc<Ops>,
}

impl Certificates {
    pub(super) fn new(config: &Config, in_force: TlsInForce, ops: Arc<Ops>) -> Self {
        Self { config: Arc::new(config.clone()), in_force, ops }
    }

    /// From now on these, if TLS is spoken at all.
    pub(super) fn put(&self, read: Option<TlsRead>) {
        if let Some(TlsRead { tls, expires_s }) = read {
            self.ops.certificate_expires(expires_s);
            self.in_force.replace(tls);
        }
    }

    /// At SIGHUP. Everything is read and checked before anything is changed. Waits for the disk, so it
    /// belongs in a thread of its own.
    pub(super) fn reload(&self) {
        match self.config.read_tls() {
            Ok(read) => self.put(read),
            Err(error) => {
                tracing::error!(error = &error as &dyn Error, "SIGHUP: the certificates in force stay");
            }
        }
    }
}
