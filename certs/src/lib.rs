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
mod leaf;
mod path;
mod profile;
pub mod tls;
pub mod verify;

pub use admit::{Admission, AdmissionSnapshot, Admit, JoinKey, Rejection, admit};
pub use authority::{Authority, default_life};
pub use clock::{Clock, SystemClock, Utc};
pub use credentials::Credentials;
pub use error::CertError;
pub use facts::{CertificateFacts, CertificateInfo, CertificateKind, LifeLeft, facts_of, lives_left, read_facts};
pub use profile::{BACKDATE, ISSUING_LIFE, ROOT_LIFE};
pub use tls::{client_config, client_config_with_report, server_config};
pub use verify::{VerifyError, VerifyReport, verify_error_of};
