//! The authority of one test, whom its coordinator lets in, and clocks that can be set.

use dora_remote_certs::{Admission, AdmissionSnapshot, Authority, Clock, Credentials, default_life};
use dora_remote_link::Peer;
use dora_remote_protocol::{
    access::{CertificateIssued, Revocation, RevokeTarget},
    audit::{AuditHead, HEAD_CONTEXT, REVOCATIONS_CONTEXT, SignedHead, SignedRevocations},
    identity::{Identity, Role},
};
use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// The authority of one test.
pub(crate) struct Trust {
    authority: Authority,
    /// The coordinator's credentials.
    pub(crate) coordinator: Credentials,
    /// The first ones of the machine.
    pub(crate) machine: Credentials,
    /// Whom the coordinator lets in.
    pub(crate) gate: Arc<Gate>,
    /// What renewals are good for.
    renewed_life: Mutex<Duration>,
    store_epoch: AtomicU64,
}

impl Trust {
    /// One that gives everybody the usual life, from now on.
    pub(crate) fn new(dir: &Path) -> Self {
        Self::with(dir, SystemTime::now(), default_life(Role::Daemon))
    }

    /// One that gives the machine such a life, its first certificate at `issued` and the next ones at their time.
    pub(crate) fn with(dir: &Path, issued: SystemTime, life: Duration) -> Self {
        let domain = "test.example".parse().expect("good");
        let authority = Authority::init(dir, &domain, issued).expect("made");
        let issue = |role, name: &str, life, at| {
            let identity = Identity {
                trust_domain: domain.clone(),
                role,
                name: name.parse().expect("good"),
            };
            authority.issue(&identity, life, at).expect("issued")
        };
        let machine = issue(Role::Daemon, "m", life, issued);
        let coordinator = issue(Role::Coordinator, "main", default_life(Role::Coordinator), SystemTime::now());
        let snapshot = AdmissionSnapshot::of(&coordinator).expect("a snapshot");
        Self {
            authority,
            coordinator,
            machine,
            gate: Arc::new(Gate {
                now: Mutex::new(Arc::new(snapshot)),
                spoil: Mutex::new(false),
            }),
            renewed_life: Mutex::new(life),
            store_epoch: AtomicU64::new(1),
        }
    }

    /// Other credentials of the machine, for a week.
    pub(crate) fn issue_again(&self) -> Credentials {
        let identity = self.machine.identity();
        self.authority.issue(identity, DAY * 7, SystemTime::now()).expect("issued")
    }

    /// What a coordinator answers a renewal with, and the serial.
    pub(crate) fn renew(&self, peer: &Peer, request: &[u8]) -> (CertificateIssued, String) {
        let life = *self.renewed_life.lock().expect("good");
        let issued = self
            .authority
            .issue_for_request(request, peer.identity(), life, SystemTime::now());
        let issued = issued.expect("issued");
        let not_after = issued.certificate.not_after;
        self.gate.change(|snapshot| {
            if std::mem::take(&mut *self.gate.spoil.lock().expect("good")) {
                snapshot.revoke_serial(&issued.certificate.serial);
            }
        });
        peer.extend_certificate(not_after);
        let answer = CertificateIssued {
            chain: issued.chain.iter().map(|der| der.to_vec()).collect(),
            not_after_unix_ms: unix_ms(not_after),
        };
        (answer, issued.certificate.serial)
    }

    /// How long certificates live that are renewed from now on.
    pub(crate) fn set_renewed_life(&self, life: Duration) {
        *self.renewed_life.lock().expect("good") = life;
    }

    pub(crate) fn store_epoch(&self) -> u64 {
        self.store_epoch.load(Ordering::Relaxed)
    }

    /// As after a restore; counts from the next start of the coordinator on.
    pub(crate) fn next_epoch(&self) {
        self.store_epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// An end of the audit's chain.
    pub(crate) fn head(&self, count: u64) -> SignedHead {
        let head = AuditHead {
            store_epoch: self.store_epoch(),
            count,
            hash: [u8::try_from(count).expect("small"); 32],
            at_unix_ms: unix_ms(SystemTime::now()),
        };
        let message = postcard::to_stdvec(&head).expect("encoded");
        SignedHead {
            signature: self.coordinator.sign(HEAD_CONTEXT, &message).expect("signed"),
            chain: self.coordinator.chain_der(),
            head,
        }
    }

    /// Revocations of the holders of these names.
    pub(crate) fn revocations(&self, names: &[&str]) -> SignedRevocations {
        let revocation = |name: &&str| Revocation {
            target: RevokeTarget::Holder {
                role: Some(Role::Daemon),
                name: name.parse().expect("good"),
            },
            at_unix_ms: 1,
            by: "spiffe://test.example/admin/ada".to_owned(),
            reason: "lost".to_owned(),
        };
        let revocations: Vec<_> = names.iter().map(revocation).collect();
        let message = postcard::to_stdvec(&revocations).expect("encoded");
        SignedRevocations {
            signature: self.coordinator.sign(REVOCATIONS_CONTEXT, &message).expect("signed"),
            chain: self.coordinator.chain_der(),
            revocations,
        }
    }
}

/// Whom a coordinator lets in.
#[derive(Debug)]
pub(crate) struct Gate {
    now: Mutex<Arc<AdmissionSnapshot>>,
    /// Whether the next certificate that is issued is revoked at once.
    spoil: Mutex<bool>,
}

impl Gate {
    pub(crate) fn change(&self, change: impl FnOnce(&mut AdmissionSnapshot)) {
        let mut now = self.now.lock().expect("good");
        let mut snapshot = (**now).clone();
        change(&mut snapshot);
        *now = Arc::new(snapshot);
    }

    pub(crate) fn spoil_next(&self) {
        *self.spoil.lock().expect("good") = true;
    }
}

impl Admission for Gate {
    fn snapshot(&self) -> Arc<AdmissionSnapshot> {
        Arc::clone(&self.now.lock().expect("good"))
    }
}

/// A clock that can be set, and goes on from there.
#[derive(Debug)]
pub(crate) struct SetClock(Mutex<(SystemTime, SystemTime)>);

impl SetClock {
    pub(crate) fn at(shown: SystemTime) -> Arc<Self> {
        Arc::new(Self(Mutex::new((shown, SystemTime::now()))))
    }

    pub(crate) fn set(&self, shown: SystemTime) {
        *self.0.lock().expect("good") = (shown, SystemTime::now());
    }
}

impl Clock for SetClock {
    fn now(&self) -> SystemTime {
        let (shown, since) = *self.0.lock().expect("good");
        shown + since.elapsed().unwrap_or_default()
    }
}

fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).expect("after 1970");
    since.as_millis().try_into().expect("fits")
}
