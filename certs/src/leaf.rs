//! The profile of a holder's certificate, checked on the certificate alone: one SPIFFE URI, no authority, one purpose.
//!
//! X509-SVID sections 2 to 5 and RFC 5280 section 4.2.1. Who signed it, and whether it is still valid, is not judged here.

use crate::facts::{CertificateFacts, fingerprint, serial, validity};
use dora_remote_protocol::identity::{Identity, Role, TrustDomain};
use rustls::pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{ExtendedKeyUsage, GeneralName},
    prelude::FromDer,
    x509::X509Version,
};

/// The rule that a certificate breaks, as a fragment for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) String);

impl Broken {
    pub(crate) fn new(rule: impl Into<String>) -> Self {
        Self(rule.into())
    }
}

/// A certificate that is whole: version 3, nothing behind its end.
pub(crate) struct Parsed<'a> {
    pub(crate) x509: X509Certificate<'a>,
}

impl<'a> Parsed<'a> {
    pub(crate) fn of(der: &'a CertificateDer<'_>) -> Result<Self, Broken> {
        let (rest, x509) = X509Certificate::from_der(der).map_err(|_| Broken::new("it is not an X.509 certificate"))?;
        if !rest.is_empty() {
            return Err(Broken::new("bytes follow its end"));
        }
        if x509.version() != X509Version::V3 {
            return Err(Broken::new("it is not of version 3"));
        }
        Ok(Self { x509 })
    }

    /// The only URI among the alternative names of the subject.
    fn uri(&self) -> Result<&str, Broken> {
        let names = self
            .x509
            .subject_alternative_name()
            .map_err(|_| Broken::new("its alternative names cannot be read"))?
            .ok_or_else(|| Broken::new("it has no URI that says whose it is"))?;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        match (uris.next(), uris.next()) {
            (Some(uri), None) => Ok(uri),
            (None, _) => Err(Broken::new("it has no URI that says whose it is")),
            (Some(_), Some(_)) => Err(Broken::new("it has more than one URI")),
        }
    }

    /// The trust domain that an authority vouches for: its only URI is `spiffe://<trust-domain>` (X509-SVID section 2).
    pub(crate) fn trust_domain(&self) -> Option<TrustDomain> {
        self.uri().ok()?.strip_prefix("spiffe://")?.parse().ok()
    }
}

/// Reads the certificate of a holder and checks its profile.
pub(crate) fn read(der: &CertificateDer<'_>) -> Result<CertificateFacts, Broken> {
    let parsed = Parsed::of(der)?;
    let identity: Identity = parsed.uri()?.parse().map_err(|error| Broken(format!("{error}")))?;
    let x509 = &parsed.x509;
    check_not_an_authority(x509)?;
    check_purpose(x509, identity.role)?;
    let (not_before, not_after) = validity(x509)?;
    Ok(CertificateFacts {
        identity,
        serial: serial(x509.raw_serial()),
        not_before,
        not_after,
        fingerprint: fingerprint(der),
    })
}

/// X509-SVID sections 4.1 and 4.3: no CA flag, a critical key usage that signs handshakes and never certificates.
fn check_not_an_authority(x509: &X509Certificate<'_>) -> Result<(), Broken> {
    let constraints = x509
        .basic_constraints()
        .map_err(|_| Broken::new("its basic constraints cannot be read"))?;
    if constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(Broken::new("it is that of an authority"));
    }
    let usage = x509
        .key_usage()
        .map_err(|_| Broken::new("its key usage cannot be read"))?
        .ok_or_else(|| Broken::new("it states no key usage"))?;
    if !usage.critical {
        return Err(Broken::new("its key usage is not critical"));
    }
    if !usage.value.digital_signature() || usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err(Broken::new("its key usage is not that of a holder"));
    }
    Ok(())
}

/// A coordinator serves and all others ask; the purpose must say exactly that, so that no certificate works both ways.
fn check_purpose(x509: &X509Certificate<'_>, role: Role) -> Result<(), Broken> {
    let purpose = x509
        .extended_key_usage()
        .map_err(|_| Broken::new("its extended key usage cannot be read"))?
        .ok_or_else(|| Broken::new("it states no extended key usage"))?
        .value;
    let ExtendedKeyUsage {
        any,
        server_auth,
        client_auth,
        code_signing,
        email_protection,
        time_stamping,
        ocsp_signing,
        other,
    } = purpose;
    let strange = *any || *code_signing || *email_protection || *time_stamping || *ocsp_signing || !other.is_empty();
    let serves = role == Role::Coordinator;
    if strange || *server_auth != serves || *client_auth == serves {
        return Err(Broken(format!("its extended key usage is not that of the role {role}")));
    }
    Ok(())
}
