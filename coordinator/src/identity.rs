//! Who this coordinator is: its certificate at the start, and a new one long before that ends.

use crate::{config::IdentitySource, handlers::About, moment::unix_ms};
use dora_remote_certs::{Admission, AdmissionSnapshot, Authority, CertError, Credentials, default_life};
use dora_remote_link::CredentialsReplacer;
use dora_remote_protocol::identity::{Identity, Role};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};
use tokio::{task, time::sleep};
use tokio_util::sync::CancellationToken;

/// Gets the credentials. Reads files.
pub(crate) fn credentials(source: &IdentitySource, now: SystemTime) -> Result<Credentials, CertError> {
    match source {
        IdentitySource::Credentials(dir) => Credentials::load(dir),
        IdentitySource::Authority { dir, name } => {
            let authority = Authority::load(dir)?;
            let identity = Identity {
                trust_domain: authority.trust_domain().clone(),
                role: Role::Coordinator,
                name: name.clone(),
            };
            authority.issue(&identity, default_life(Role::Coordinator), now)
        }
    }
}

/// Lets in whoever the authority vouches for.
#[derive(Debug)]
pub(crate) struct FixedAdmission(pub(crate) Arc<AdmissionSnapshot>);

impl Admission for FixedAdmission {
    fn snapshot(&self) -> Arc<AdmissionSnapshot> {
        Arc::clone(&self.0)
    }
}

/// Replaces the certificate whenever a third of its life is left, until `shutdown`.
pub(crate) async fn keep_fresh(
    source: IdentitySource,
    mut present: Credentials,
    replacer: CredentialsReplacer,
    about: Arc<About>,
    shutdown: CancellationToken,
) {
    loop {
        let facts = present.certificate();
        let wait = until_last_third(facts.not_before, facts.not_after, SystemTime::now());
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            // The wall clock may jump, so it is looked at again and again.
            () = sleep(wait.min(LOOK_AGAIN)) => {}
        }
        if wait > LOOK_AGAIN {
            continue;
        }
        let getting = {
            let source = source.clone();
            task::spawn_blocking(move || credentials(&source, SystemTime::now())).await
        };
        let fault: String = match getting {
            Ok(Ok(fresh)) if fresh.certificate().serial == present.certificate().serial => {
                "the file holds the same certificate still".to_owned()
            }
            Ok(Ok(fresh)) => match replacer.replace(&fresh) {
                Ok(()) => {
                    let ends = unix_ms(fresh.certificate().not_after);
                    about.certificate_ends_unix_ms.store(ends, Ordering::Relaxed);
                    tracing::info!(
                        serial = fresh.certificate().serial,
                        ends_unix_ms = ends,
                        "has a new certificate"
                    );
                    present = fresh;
                    continue;
                }
                Err(error) => error.to_string(),
            },
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(
            ends_unix_ms = unix_ms(present.certificate().not_after),
            fault,
            "cannot renew the coordinator's certificate; trying again"
        );
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = sleep(LOOK_AGAIN) => {}
        }
    }
}

/// Time until only a third of a life is left.
fn until_last_third(from: SystemTime, to: SystemTime, now: SystemTime) -> Duration {
    let life = to.duration_since(from).unwrap_or_default();
    (to - life / 3).duration_since(now).unwrap_or_default()
}

/// Longest sleep between two looks at the clock, and wait after a failure.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_when_a_third_is_left() {
        let from = SystemTime::UNIX_EPOCH;
        let at = |seconds| from + Duration::from_secs(seconds);
        assert_eq!(until_last_third(from, at(90), at(0)), Duration::from_secs(60));
        assert_eq!(until_last_third(from, at(90), at(59)), Duration::from_secs(1));
        assert_eq!(until_last_third(from, at(90), at(61)), Duration::ZERO);
        assert_eq!(until_last_third(from, at(90), at(100)), Duration::ZERO);
    }
}
