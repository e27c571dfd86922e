//! Identity and trust: the authority, certificates and their files, and the TLS configurations made of them.
//!
//! The only crate that names rcgen and the X.509 parsers. It opens no socket and reads no clock of its own: time is an
//! argument ([`Clock`] where a TLS stack asks for it later), and who is admitted is decided by one pure function, [`admit()`].

pub mod admit;
pub mod authority;
pub mod clock;
pub mod credentials;
pub mod error;
pub mod facts;
mod files;
pub mod floor;
pub mod join;
mod leaf;
mod path;
pub mod pending;
mod pinned;
mod profile;
pub mod request;
pub mod signature;
pub mod tls;
pub mod verify;

pub use admit::{Admission, AdmissionSnapshot, Admit, JoinKey, Rejection, admit};
pub use authority::{Authority, default_life};
pub use clock::{Clock, SystemClock, Utc};
pub use credentials::Credentials;
pub use error::CertError;
pub use facts::{
    CertificateFacts, CertificateInfo, CertificateKind, LifeLeft, facts_of, fingerprint, lives_left, read_facts, sha256,
};
pub use floor::FloorClock;
pub use join::{JoinCredentials, JoinTarget, client_config_for_join, new_seed};
pub use pending::{forget_pending, pending_request};
pub use pinned::PinnedRoot;
pub use profile::{BACKDATE, ISSUING_LIFE, ROOT_LIFE};
pub use request::{Issued, MAX_REQUEST_BYTES, Request, RequestError, RequestedKey, new_key_and_request};
pub use tls::{client_config, client_config_with_report, server_config};
pub use verify::{VerifyError, VerifyReport, verify_error_of};
