//! Dialling with an invite: the way in for a machine that has no certificate yet.
//!
//! The coordinator is known by the hash of its root, which it presents; what the joiner shows of itself is a self-made
//! certificate with the key of the invite, and it shows it only after the coordinator was verified.

use crate::{
    address::Address,
    dial::{Dialer, Shown},
    endpoint::DialKind,
    error::{DialError, LinkError},
    hello::Speaker,
    peer::Peer,
};
use dora_remote_certs::{Clock, JoinCredentials, JoinTarget};
use rustls::pki_types::CertificateDer;
use std::{sync::Arc, time::Duration};

/// Dials coordinators with the key of an invite. The connections may ask `join` and nothing else, and end by themselves.
#[derive(Debug)]
pub struct JoinDialer(Dialer);

impl JoinDialer {
    /// A dialler that knows the coordinator by `target` and judges its certificate by `clock`. Opens nothing yet.
    ///
    /// # Errors
    /// [`LinkError::Credentials`] when the key makes no TLS configuration.
    pub fn new(
        credentials: JoinCredentials,
        target: JoinTarget,
        speaker: Speaker,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LinkError> {
        let shown = Shown::Invite(credentials, target);
        Ok(Self(Dialer::showing(shown, speaker, DialKind::Command, clock)?))
    }

    /// Connects to the coordinator, and gives the root that it was recognised by, for saving. As [`Dialer::dial`] otherwise:
    /// that the invite was refused is learnt from [`Peer::welcome`] or the first call.
    ///
    /// # Errors
    /// See [`DialError`]; a server under a root of another hash is [`DialError::ServerNotTrusted`], and has learnt nothing.
    pub async fn dial(&self, address: &Address) -> Result<(Peer, CertificateDer<'static>), DialError> {
        let dialled = self.0.connect(address).await?;
        let root = dialled.report.take_root().ok_or_else(|| DialError::ServerRefused {
            address: dialled.peer.remote_address(),
            detail: "it has shown no root".to_owned(),
        })?;
        Ok((dialled.peer, root))
    }

    /// Ends everything, as [`Dialer::shutdown`].
    pub async fn shutdown(&self, grace: Duration) {
        self.0.shutdown(grace).await;
    }
}
