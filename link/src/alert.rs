//! TLS alerts as QUIC carries them: the one word that a peer says to somebody whom it does not believe.

use quinn::TransportErrorCode;
use std::fmt;

/// A TLS alert (RFC 8446 section 6): all that a peer tells one that it does not believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TlsAlert(pub u8);

impl TlsAlert {
    /// The peer knows nothing of the authority that vouches for us.
    pub const UNKNOWN_CA: Self = Self(48);
    /// Our certificate has ended or not begun, by the peer's clock.
    pub const CERTIFICATE_EXPIRED: Self = Self(45);
    /// Our certificate was revoked.
    pub const CERTIFICATE_REVOKED: Self = Self(44);
    /// We showed no certificate.
    pub const CERTIFICATE_REQUIRED: Self = Self(116);
    /// No protocol in common: the major versions differ.
    pub const NO_APPLICATION_PROTOCOL: Self = Self(120);

    /// Reads the alert from a QUIC error code (RFC 9001 section 4.8).
    pub(crate) fn of_quic(code: TransportErrorCode) -> Option<Self> {
        let number = u64::from(code);
        u8::try_from(number.wrapping_sub(0x100)).ok().map(Self)
    }
}

impl fmt::Display for TlsAlert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            40 => "no way of speaking TLS in common",
            42 => "the certificate is not good",
            43 => "the certificate is of the wrong kind",
            44 => "the certificate was revoked",
            45 => "the certificate has expired or is not valid yet",
            46 => "the certificate is not acceptable",
            48 => "the certificate comes from an unknown authority",
            49 => "access is denied",
            51 => "a signature does not verify",
            116 => "a certificate is required",
            120 => "no protocol version in common",
            other => return write!(f, "TLS alert {other}"),
        })
    }
}
