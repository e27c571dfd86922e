//! Who this coordinator is: its certificate at the start, and a new one long before that ends; and the authority behind it.

use crate::{
    CoordinatorError,
    config::{IdentitySource, Lives},
    handlers::About,
    moment::unix_ms,
    registry::RegistryHandle,
};
use dora_remote_certs::{
    Authority, BACKDATE, CertError, CertificateFacts, Clock, Credentials, LifeLeft, Utc,
    facts::{fingerprint, info_of},
};
use dora_remote_link::CredentialsReplacer;
use dora_remote_protocol::identity::{Identity, Role};
use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};
use tokio::{sync::watch, task, time::sleep};
use tokio_util::sync::CancellationToken;

/// What a coordinator proves itself with, and what it issues with.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) credentials: Credentials,
    /// None when the certificate was issued elsewhere.
    pub(crate) authority: Option<Arc<Authority>>,
}

/// Gets them at the start; makes an authority where one is wanted and none is. Touches files.
pub(crate) fn open(source: &IdentitySource, lives: Lives, now: SystemTime) -> Result<Own, CoordinatorError> {
    if let IdentitySource::Authority {
        dir,
        trust_domain: Some(wanted),
        ..
    } = source
    {
        if is_absent(dir) {
            let authority = Authority::init(dir, wanted, now).map_err(CoordinatorError::Identity)?;
            tracing::info!(
                trust_domain = %wanted,
                root = fingerprint(authority.root()),
                dir = %dir.display(),
                "made a new authority; keep a copy of its root.key offline"
            );
        }
        let has = Authority::load(dir)
            .map_err(CoordinatorError::Identity)?
            .trust_domain()
            .clone();
        if has != *wanted {
            return Err(CoordinatorError::OtherTrustDomain {
                dir: dir.clone(),
                has,
                wanted: wanted.clone(),
            });
        }
    }
    get(source, lives, now).map_err(CoordinatorError::Identity)
}

fn is_absent(dir: &Path) -> bool {
    ["root.key", "root.crt", "issuing.key", "issuing.crt"]
        .iter()
        .all(|name| !dir.join(name).exists())
}

/// Gets them anew. Reads files.
fn get(source: &IdentitySource, lives: Lives, now: SystemTime) -> Result<Own, CertError> {
    match source {
        IdentitySource::Credentials(dir) => Ok(Own {
            credentials: Credentials::load(dir)?,
            authority: None,
        }),
        IdentitySource::Authority { dir, name, .. } => {
            let authority = Authority::load(dir)?;
            let identity = Identity {
                trust_domain: authority.trust_domain().clone(),
                role: Role::Coordinator,
                name: name.clone(),
            };
            Ok(Own {
                credentials: authority.issue(&identity, lives.of(Role::Coordinator), now)?,
                authority: Some(Arc::new(authority)),
            })
        }
    }
}

/// What keeps the certificate fresh.
pub(crate) struct Freshness {
    pub(crate) source: IdentitySource,
    pub(crate) lives: Lives,
    pub(crate) clock: Arc<dyn Clock>,
    /// The present certificate, for whoever signs with it.
    pub(crate) present: watch::Sender<Credentials>,
    pub(crate) replacer: CredentialsReplacer,
    pub(crate) about: Arc<About>,
    pub(crate) registry: RegistryHandle,
}

impl Freshness {
    /// Replaces the certificate whenever a third of its life is left, until `shutdown`. Connections that stand are not touched.
    pub(crate) async fn keep(self, shutdown: CancellationToken) {
        let mut warned = None;
        loop {
            let present = self.present.borrow().clone();
            self.look_at_issuer(&present, &mut warned);
            let facts = present.certificate();
            let wait = until_last_third(facts, self.clock.now());
            let look_again = look_again(facts);
            let is_due = wait <= look_again;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                // The wall clock may jump, so it is looked at again and again.
                () = sleep(wait.min(look_again)) => {}
            }
            // The wait may have been long enough, or the clock may have been set.
            if !is_due && !until_last_third(facts, self.clock.now()).is_zero() {
                continue;
            }
            let Err(fault) = self.renew(&present).await else {
                continue;
            };
            tracing::warn!(
                ends_unix_ms = unix_ms(facts.not_after),
                fault,
                "cannot renew the coordinator's certificate; trying again"
            );
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = sleep(look_again) => {}
            }
        }
    }

    async fn renew(&self, present: &Credentials) -> Result<(), String> {
        let (source, lives, now) = (self.source.clone(), self.lives, self.clock.now());
        let fresh = task::spawn_blocking(move || get(&source, lives, now))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        if fresh.credentials.certificate().serial == present.certificate().serial {
            return Err("the file holds the same certificate still".to_owned());
        }
        self.replacer.replace(&fresh.credentials).map_err(|error| error.to_string())?;
        let facts = fresh.credentials.certificate();
        let ends = unix_ms(facts.not_after);
        self.about.certificate_ends_unix_ms.store(ends, Ordering::Relaxed);
        tracing::info!(serial = facts.serial, ends_unix_ms = ends, "has a new certificate");
        if let Some(authority) = fresh.authority {
            self.registry.use_authority(authority);
        }
        self.present.send_replace(fresh.credentials);
        Ok(())
    }

    /// Warns, once a day, when the certificate that signs all others is in the last third of its life.
    fn look_at_issuer(&self, present: &Credentials, warned: &mut Option<Instant>) {
        let Some(Ok(issuer)) = present.chain().get(1).map(info_of) else {
            return;
        };
        let left = LifeLeft::of(issuer.not_before, issuer.not_after, self.clock.now());
        if left.is_worrying() && warned.is_none_or(|at| at.elapsed() >= WARN_AGAIN) {
            *warned = Some(Instant::now());
            tracing::warn!(
                serial = issuer.serial,
                ends = %Utc(issuer.not_after),
                "the issuing certificate is in the last third of its life, and nothing that it has signed outlives it: renew the authority"
            );
        }
    }
}

/// Time until only a third of a certificate's life is left.
fn until_last_third(facts: &CertificateFacts, now: SystemTime) -> Duration {
    (facts.not_after - life(facts) / 3).duration_since(now).unwrap_or_default()
}

/// Longest sleep between two looks at the clock, and wait after a failure.
fn look_again(facts: &CertificateFacts) -> Duration {
    (life(facts) / 12).clamp(SHORTEST_LOOK, LONGEST_LOOK)
}

/// Life of a certificate from its making, which its begin lies before.
fn life(facts: &CertificateFacts) -> Duration {
    facts
        .not_after
        .duration_since(facts.not_before + BACKDATE)
        .unwrap_or_default()
}

const SHORTEST_LOOK: Duration = Duration::from_millis(250);
const LONGEST_LOOK: Duration = Duration::from_secs(600);
/// Time between two warnings about the same thing.
const WARN_AGAIN: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_when_a_third_is_left() {
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |seconds| made + Duration::from_secs(seconds);
        let facts = CertificateFacts {
            identity: "spiffe://lab/coordinator/c".parse().unwrap(),
            serial: String::new(),
            not_before: made - BACKDATE,
            not_after: at(90),
            fingerprint: String::new(),
        };
        assert_eq!(until_last_third(&facts, at(0)), Duration::from_secs(60));
        assert_eq!(until_last_third(&facts, at(59)), Duration::from_secs(1));
        assert_eq!(until_last_third(&facts, at(61)), Duration::ZERO);
        assert_eq!(until_last_third(&facts, at(100)), Duration::ZERO);
        assert_eq!(look_again(&facts), Duration::from_millis(7_500));
    }
}
