//! What peers see of the accepting side in a handshake, and how its credentials are replaced while it runs.

use crate::{endpoint, error::LinkError, secrets::EndpointSecrets};
use dora_remote_certs::{Admission, Clock, Credentials, server_config};
use quinn::{Endpoint, ServerConfig, crypto::rustls::QuicServerConfig};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Everything in a handshake but the credentials.
#[derive(Clone)]
pub(crate) struct Facade {
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) secrets: EndpointSecrets,
}

impl Facade {
    pub(crate) fn config(&self, credentials: &Credentials) -> Result<ServerConfig, LinkError> {
        let tls = server_config(credentials, Arc::clone(&self.clock), Arc::clone(&self.admission))?;
        let mut config = ServerConfig::new(Arc::new(QuicServerConfig::try_from(tls)?), self.secrets.token_key());
        config.transport_config(endpoint::server_transport());
        config.max_incoming(MAX_INCOMING);
        config.migration(true);
        Ok(config)
    }
}

/// Replaces the credentials of a running acceptor. Does not keep its socket open.
#[derive(Clone)]
pub struct CredentialsReplacer {
    /// None once the acceptor has ended.
    endpoint: Arc<Mutex<Option<Endpoint>>>,
    facade: Facade,
}

impl CredentialsReplacer {
    pub(crate) fn new(endpoint: Endpoint, facade: Facade) -> Self {
        Self {
            endpoint: Arc::new(Mutex::new(Some(endpoint))),
            facade,
        }
    }

    /// Shows `credentials` in all further handshakes; connections that stand are not touched.
    ///
    /// # Errors
    /// [`LinkError`] when they make no TLS configuration, in which case the old ones stay; [`LinkError::Ending`] when the
    /// acceptor has ended.
    pub fn replace(&self, credentials: &Credentials) -> Result<(), LinkError> {
        let config = self.facade.config(credentials)?;
        let endpoint = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoint = endpoint.as_ref().ok_or(LinkError::Ending)?;
        endpoint.set_server_config(Some(config));
        Ok(())
    }

    /// Lets nobody in any more, for good.
    pub(crate) fn end(&self) {
        let endpoint = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(endpoint) = endpoint {
            endpoint.set_server_config(None);
        }
    }
}

impl fmt::Debug for CredentialsReplacer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialsReplacer").finish_non_exhaustive()
    }
}

/// Connection attempts that wait for a permit; further ones are refused at once. A herd of ten thousand robots fits.
const MAX_INCOMING: usize = 16_384;
