//! What can go wrong with certificates and their files, each with the path and the next step.
//!
//! Errors of a handshake are not here: see [`crate::VerifyError`] (we refuse a server) and [`crate::Rejection`] (we
//! refuse a client).

use crate::clock::Utc;
use dora_remote_protocol::identity::{Identity, TrustDomain};
use std::{io, path::PathBuf, time::SystemTime};
use thiserror::Error;

/// Why certificates could not be made, read, written or used.
#[derive(Debug, Error)]
pub enum CertError {
    /// A file or directory does not exist.
    #[error("cannot find {}; {next}", path.display())]
    Absent {
        /// What was looked for.
        path: PathBuf,
        /// What to do next.
        next: &'static str,
    },
    /// A file exists and could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or directory could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than the owner may use a private key or the directory that holds it.
    #[error("{} has mode {mode:04o}, so others may reach the private key; run `chmod {wanted:o} {}`", path.display(), path.display())]
    TooOpen {
        /// The key or the directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The bits that it should have.
        wanted: u32,
    },
    /// A file holds something other than what belongs there, or only a part of it.
    #[error("{} is damaged or not what belongs there: {reason}; {next}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What to do next.
        next: &'static str,
    },
    /// Something is there already and is not overwritten.
    #[error("{} exists already and was not changed; choose another directory or move it away", path.display())]
    Exists {
        /// What is there.
        path: PathBuf,
    },
    /// A certificate breaks the encoding or the profile.
    #[error("the certificate is not usable: {reason}")]
    BadCertificate {
        /// Which rule.
        reason: String,
    },
    /// A message was not signed by the holder of the certificate that came with it.
    #[error("the signature is not that of {signer}")]
    BadSignature {
        /// Who was to have signed.
        signer: Identity,
    },
    /// The issuing certificate has ended.
    #[error("the issuing certificate ended at {}, and it is {} now; a new authority is needed", Utc(*not_after), Utc(*now))]
    IssuingEnded {
        /// Its last second.
        not_after: SystemTime,
        /// The time by which it was judged.
        now: SystemTime,
    },
    /// The clock is before the begin of the issuing certificate.
    #[error("the issuing certificate begins at {}, and it is {} now; set the clock", Utc(*not_before), Utc(*now))]
    IssuingNotBegun {
        /// Its first second.
        not_before: SystemTime,
        /// The time by which it was judged.
        now: SystemTime,
    },
    /// The identity belongs to another trust domain than the authority.
    #[error("{identity} is outside the trust domain {trust_domain} of this authority")]
    ForeignIdentity {
        /// Who was to get a certificate.
        identity: Identity,
        /// What the authority vouches for.
        trust_domain: TrustDomain,
    },
    /// A life below one second.
    #[error("a certificate must live for at least one second")]
    NoLife,
    /// A time that a certificate cannot state.
    #[error("{} cannot be written into a certificate; set the clock", Utc(*at))]
    BadTime {
        /// The time.
        at: SystemTime,
    },
    /// The generator of the system gave no random bytes.
    #[error("the system gave no random bytes")]
    NoRandom,
    /// A key or certificate could not be made.
    #[error("cannot make a certificate")]
    Generate(#[from] rcgen::Error),
    /// The TLS stack refuses the credentials.
    #[error("the TLS stack refuses these credentials")]
    Tls(#[from] rustls::Error),
}

impl CertError {
    pub(crate) fn bad_certificate(reason: impl Into<String>) -> Self {
        Self::BadCertificate { reason: reason.into() }
    }
}
