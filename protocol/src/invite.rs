//! The token of an invite: all that a machine needs to reach a coordinator, to recognise it, and to be let in once to join.
//!
//! Whoever holds the text may use the invite, so `Debug` and every error keep quiet about it. Whether an invite is still open
//! is judged by the coordinator alone; the expiry in the token is for people who look at it.
//!
//! The text is `dri1-` and, in base32 (RFC 4648 section 6, lower case, no padding): the length of the body as two bytes, the
//! body (postcard), and the CRC-32 of both. The checksum finds slips of the keyboard, not forgers: those meet the root's hash.

use crate::identity::{Identity, Role, TrustDomain};
use crate::name::Name;
use serde::{Deserialize, Serialize};
use std::{fmt, net::Ipv6Addr, str::FromStr};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// Version of tokens that this build makes and reads.
pub const INVITE_VERSION: u8 = 1;
/// Most addresses of one invite.
pub const MAX_INVITE_ADDRESSES: usize = 8;
/// Longest address of an invite in bytes: a DNS name of 253 bytes, a colon, and a port.
pub const MAX_INVITE_ADDRESS_BYTES: usize = 253 + 6;
/// Longest text of a token in bytes: more than the longest body that can be built needs.
pub const MAX_INVITE_TEXT_BYTES: usize = 4 << 10;

/// Bytes of the root's hash and of the seed.
const KEY_BYTES: usize = 32;
/// What every token begins with, before its version.
const FAMILY: &str = "dri";
/// Digits of base32, in the order of their values.
const BASE32_DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Bytes of the length in front of the body.
const LENGTH_BYTES: usize = 2;
/// Bytes of the checksum behind it.
const CHECKSUM_BYTES: usize = 4;

/// An Ed25519 seed. Its holder is the holder of the invite; `Debug` does not show it, and each copy is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InviteSeed(pub [u8; KEY_BYTES]);

impl Drop for InviteSeed {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for InviteSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteSeed(..)")
    }
}

/// An invite as it travels from the one who invites to the machine that joins. `Display` gives the secret text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteToken(Body);

/// Version 1 of the body. The order of the fields is the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Body {
    trust_domain: TrustDomain,
    role: Role,
    name: Name,
    addresses: Vec<String>,
    root_hash: [u8; KEY_BYTES],
    seed: InviteSeed,
    expires_unix_ms: u64,
}

impl InviteToken {
    /// An invite for `identity`, whose coordinator answers at one of `addresses` (`HOST:PORT`, IPv6 in brackets, tried in
    /// order) under the root whose DER form has the SHA-256 `root_hash`, until `expires_unix_ms` (since the Unix epoch).
    ///
    /// # Errors
    /// When there are no addresses, more than [`MAX_INVITE_ADDRESSES`], or one is not of that form.
    pub fn new(
        identity: Identity,
        addresses: Vec<String>,
        root_hash: [u8; KEY_BYTES],
        seed: InviteSeed,
        expires_unix_ms: u64,
    ) -> Result<Self, InviteError> {
        let Identity {
            trust_domain,
            role,
            name,
        } = identity;
        Self::checked(Body {
            trust_domain,
            role,
            name,
            addresses,
            root_hash,
            seed,
            expires_unix_ms,
        })
    }

    /// Version of the text form.
    #[must_use]
    pub const fn version(&self) -> u8 {
        INVITE_VERSION
    }

    /// Who joins.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            trust_domain: self.0.trust_domain.clone(),
            role: self.0.role,
            name: self.0.name.clone(),
        }
    }

    /// The trust domain that is joined.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    /// What the joiner becomes.
    #[must_use]
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// What the joiner is called from then on.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.0.name
    }

    /// Where the coordinator answers: 1 to [`MAX_INVITE_ADDRESSES`] of the form `HOST:PORT`, in the order of trying.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.0.addresses
    }

    /// SHA-256 of the root certificate's DER form, by which the coordinator is recognised.
    #[must_use]
    pub const fn root_hash(&self) -> &[u8; KEY_BYTES] {
        &self.0.root_hash
    }

    /// The seed of the key that is let in to join.
    #[must_use]
    pub const fn seed(&self) -> &InviteSeed {
        &self.0.seed
    }

    /// Milliseconds since the Unix epoch after which the coordinator refuses it.
    #[must_use]
    pub const fn expires_unix_ms(&self) -> u64 {
        self.0.expires_unix_ms
    }

    fn checked(body: Body) -> Result<Self, InviteError> {
        if body.addresses.is_empty() || body.addresses.len() > MAX_INVITE_ADDRESSES {
            return Err(InviteError::AddressCount {
                count: body.addresses.len(),
            });
        }
        if let Some(bad) = body.addresses.iter().find(|address| !is_address(address)) {
            return Err(InviteError::BadAddress {
                address: bad.escape_debug().to_string(),
            });
        }
        Ok(Self(body))
    }
}

impl fmt::Display for InviteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What lies between the seed and the text is wiped; the text is the caller's.
        let body =
            Zeroizing::new(postcard::to_extend(&self.0, Vec::with_capacity(MAX_INVITE_TEXT_BYTES)).map_err(|_| fmt::Error)?);
        let length = u16::try_from(body.len()).map_err(|_| fmt::Error)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH_BYTES + body.len() + CHECKSUM_BYTES));
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&body);
        let checksum = crc32(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        let encoded = Zeroizing::new(base32(&bytes));
        write!(f, "{FAMILY}{INVITE_VERSION}-{}", encoded.as_str())
    }
}

impl FromStr for InviteToken {
    type Err = InviteError;

    /// Reads a token. White space around it is passed over, because tokens come from files and terminals.
    fn from_str(text: &str) -> Result<Self, InviteError> {
        let text = text.trim_ascii();
        if text.is_empty() {
            return Err(InviteError::Empty);
        }
        if text.len() > MAX_INVITE_TEXT_BYTES {
            return Err(InviteError::TooLong { length: text.len() });
        }
        let encoded = after_prefix(text)?;
        // Upper case is refused instead of folded, so that every token has one text alone.
        if let Some(at) = encoded.bytes().position(|b| !matches!(b, b'a'..=b'z' | b'2'..=b'7')) {
            return Err(InviteError::BadCharacter {
                position: text.len() - encoded.len() + at + 1,
            });
        }
        Self::checked(open(encoded.as_bytes())?)
    }
}

/// What stands behind `dri1-`.
fn after_prefix(text: &str) -> Result<&str, InviteError> {
    let (version, encoded) = text
        .strip_prefix(FAMILY)
        .and_then(|rest| rest.split_once('-'))
        .filter(|(version, _)| (1..=3).contains(&version.len()) && version.bytes().all(|b| b.is_ascii_digit()))
        .ok_or(InviteError::Foreign)?;
    // A leading zero would give one token two texts.
    if version.parse() != Ok(INVITE_VERSION) || version.starts_with('0') {
        return Err(InviteError::OtherVersion {
            version: version.to_owned(),
        });
    }
    Ok(encoded)
}

/// The body of an encoded token that is whole.
fn open(encoded: &[u8]) -> Result<Body, InviteError> {
    // The first block of eight characters is five bytes, and the first two of them tell how many characters there must be.
    let (block, _) = encoded.split_first_chunk::<8>().ok_or(InviteError::Cut)?;
    let first = from_base32(block).ok_or(InviteError::Mistyped)?;
    let (length, _) = first.split_first_chunk::<LENGTH_BYTES>().ok_or(InviteError::Mistyped)?;
    let stated = LENGTH_BYTES + usize::from(u16::from_be_bytes(*length)) + CHECKSUM_BYTES;
    let characters = (stated * 8).div_ceil(5);
    // A length beyond the bound is a slip in the first characters, and then nothing is known to be missing.
    if encoded.len() < characters && characters <= MAX_INVITE_TEXT_BYTES {
        return Err(InviteError::Cut);
    }
    let bytes = Zeroizing::new(from_base32(encoded).ok_or(InviteError::Mistyped)?);
    let (sealed, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(InviteError::Cut)?;
    if bytes.len() != stated || crc32(sealed) != u32::from_be_bytes(*checksum) {
        return Err(InviteError::Mistyped);
    }
    let body = sealed.get(LENGTH_BYTES..).ok_or(InviteError::Mistyped)?;
    match postcard::take_from_bytes(body) {
        Ok((body, [])) => Ok(body),
        Ok(_) | Err(_) => Err(InviteError::BadBody),
    }
}

/// Base32 in lower case without padding.
fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity((bytes.len() * 8).div_ceil(5));
    let digit = |bits: u16| char::from(BASE32_DIGITS[usize::from(bits & 31)]);
    let (mut held, mut bits) = (0_u16, 0);
    for byte in bytes {
        // At most four bits wait for the next byte, so nothing that counts is shifted out.
        held = (held << 8) | u16::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(digit(held >> bits));
        }
    }
    if bits > 0 {
        text.push(digit(held << (5 - bits)));
    }
    text
}

/// Reads what [`base32`] writes, and nothing else: bits that are left over must be fewer than a digit's, and zero.
fn from_base32(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut held, mut bits) = (0_u16, 0);
    for digit in text {
        let value = match digit {
            b'a'..=b'z' => digit - b'a',
            b'2'..=b'7' => digit - b'2' + 26,
            _ => return None,
        };
        // Only the bits that still wait are kept, at most seven, so there is room for five more.
        held = (held << 5) | u16::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
        held &= (1 << bits) - 1;
    }
    (bits < 5 && held == 0).then_some(bytes)
}

/// CRC-32 (ISO 3309, as in zip). Finds every slip within 32 bits in a row, so every wrong character and every two swapped
/// neighbours, for certain.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc: u32, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 }
        })
    })
}

/// Tells whether a text is `HOST:PORT` with a host name, an IPv4 address, or an IPv6 address in brackets. Coarse: the host is
/// judged in full where it is dialled.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let good_port = !port.starts_with('0') && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let good_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => {
            host.starts_with(|c: char| c.is_ascii_alphanumeric())
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        }
    };
    text.len() <= MAX_INVITE_ADDRESS_BYTES && good_port && good_host
}

/// Why a text is no invite token. Says nothing of what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InviteError {
    /// Nothing was given.
    #[error("the invite token is empty")]
    Empty,
    /// More than [`MAX_INVITE_TEXT_BYTES`] bytes.
    #[error("the invite token has {length} bytes, and at most {MAX_INVITE_TEXT_BYTES} are allowed")]
    TooLong {
        /// Bytes that were given.
        length: usize,
    },
    /// It does not begin as a token does.
    #[error("this is not an invite token: one begins with `{FAMILY}{INVITE_VERSION}-`")]
    Foreign,
    /// It is of a version that this build cannot read.
    #[error("the invite token is of version {version}, and this build reads version {INVITE_VERSION}")]
    OtherVersion {
        /// Its version, digits alone.
        version: String,
    },
    /// A character that no token has.
    #[error("the invite token has a character at position {position} that is neither a to z nor 2 to 7")]
    BadCharacter {
        /// Where, counted in bytes from 1.
        position: usize,
    },
    /// Its end is missing.
    #[error("the invite token is cut off; copy all of it")]
    Cut,
    /// Its checksum or its length is wrong.
    #[error("the invite token is mistyped or damaged; copy it again")]
    Mistyped,
    /// It is whole, and what is in it breaks a rule.
    #[error("the invite token is whole but holds what no invite holds")]
    BadBody,
    /// No address, or too many.
    #[error("an invite has 1 to {MAX_INVITE_ADDRESSES} addresses, not {count}")]
    AddressCount {
        /// Addresses that were given.
        count: usize,
    },
    /// An address is not `HOST:PORT`.
    #[error("`{address}` is not an address of the form HOST:PORT or [IPV6]:PORT")]
    BadAddress {
        /// The text, escaped.
        address: String,
    },
}

#[cfg(test)]
mod tests;
