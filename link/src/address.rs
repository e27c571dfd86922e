//! Where a peer is reached: a host as people type it, and a UDP port.
//!
//! Nothing is resolved here; `dial.rs` asks the name service anew for each dial.

use dora_remote_protocol::limits::DEFAULT_PORT;
use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};
use thiserror::Error;

/// A DNS name, an IPv4 or an IPv6 address, and a port.
///
/// Text forms: `HOST`, `HOST:PORT`, `192.0.2.7:6013`, `2001:db8::7`, `[2001:db8::7]:6013`, `[fe80::7%eth0]`.
/// The port is [`DEFAULT_PORT`] unless one is named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// DNS name or IP address, without brackets.
    pub host: String,
    /// UDP port, never 0 when it was parsed from a text.
    pub port: u16,
}

impl Address {
    /// Tells whether the host is a name that must be asked for, and no literal IP address.
    #[must_use]
    pub fn is_name(&self) -> bool {
        self.host.parse::<Ipv4Addr>().is_err() && !is_ipv6(&self.host)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = split(text)?;
        let port = match port {
            None => DEFAULT_PORT,
            Some(digits) => parse_port(text, digits)?,
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// Why a text is no [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Nothing was given where the host belongs.
    #[error("the address `{text}` has no host")]
    NoHost {
        /// The text, escaped.
        text: String,
    },
    /// The host is neither a DNS name nor an IP address.
    #[error("`{host}` is neither a host name nor an IP address (expected HOST, HOST:PORT or [IPV6]:PORT)")]
    BadHost {
        /// The host, escaped.
        host: String,
    },
    /// The port is no number from 1 to 65535.
    #[error("the port in `{text}` is not a number from 1 to 65535")]
    BadPort {
        /// The text, escaped.
        text: String,
    },
}

fn split(text: &str) -> Result<(&str, Option<&str>), AddressError> {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((host, port)) = rest.split_once(']').filter(|(host, _)| is_ipv6(host)) else {
            return Err(bad_host(text));
        };
        return match port.strip_prefix(':') {
            Some(digits) => Ok((host, Some(digits))),
            None if port.is_empty() => Ok((host, None)),
            None => Err(bad_host(text)),
        };
    }
    // More than one colon without brackets can only be a bare IPv6 address: its last group is never taken for a port.
    if is_ipv6(text) {
        return Ok((text, None));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    if host.is_empty() {
        return Err(AddressError::NoHost {
            text: text.escape_debug().to_string(),
        });
    }
    if host.parse::<Ipv4Addr>().is_err() && !is_host_name(host) {
        return Err(bad_host(host));
    }
    Ok((host, port))
}

fn parse_port(text: &str, digits: &str) -> Result<u16, AddressError> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    digits
        .parse()
        .ok()
        .filter(|port| plain && *port != 0)
        .ok_or_else(|| AddressError::BadPort {
            text: text.escape_debug().to_string(),
        })
}

fn is_ipv6(host: &str) -> bool {
    match host.split_once('%') {
        Some((address, zone)) => {
            !zone.is_empty()
                && zone
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
                && address.parse::<Ipv6Addr>().is_ok()
        }
        None => host.parse::<Ipv6Addr>().is_ok(),
    }
}

fn is_host_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let good_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A last label of digits alone is a mistyped IPv4 address, never a name (RFC 3696 section 2).
    let last_is_number = name
        .rsplit('.')
        .next()
        .is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= MAX_HOST_BYTES && name.split('.').all(good_label) && !last_is_number
}

fn bad_host(host: &str) -> AddressError {
    AddressError::BadHost {
        host: host.escape_debug().to_string(),
    }
}

/// Longest DNS name in bytes (RFC 1035 section 2.3.4).
const MAX_HOST_BYTES: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_form_is_understood() {
        for (text, host, port) in [
            ("robots.example.com", "robots.example.com", DEFAULT_PORT),
            ("robots.example.com.:7000", "robots.example.com.", 7000),
            ("my_host", "my_host", DEFAULT_PORT),
            ("192.0.2.7", "192.0.2.7", DEFAULT_PORT),
            ("192.0.2.7:1", "192.0.2.7", 1),
            ("::1", "::1", DEFAULT_PORT),
            ("2001:db8::7", "2001:db8::7", DEFAULT_PORT),
            ("[2001:db8::7]", "2001:db8::7", DEFAULT_PORT),
            ("[2001:db8::7]:65535", "2001:db8::7", 65535),
            ("[fe80::7%eth0]:9", "fe80::7%eth0", 9),
        ] {
            let address: Address = text.parse().expect(text);
            assert_eq!((address.host.as_str(), address.port), (host, port), "{text}");
            assert_eq!(address.to_string().parse::<Address>().expect("its own text"), address);
        }
    }

    #[test]
    fn mistyped_addresses_are_refused() {
        for text in [
            "",
            ":6013",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "host:port",
            "10.0.0.300",
            "10.0.0",
            "a b",
            "-a",
            "[::1",
            "[::1]x",
            "[host]:1",
            "::1]:5",
            "https://host",
            "ü.example",
            "a..b",
            "host:1:2",
        ] {
            assert!(text.parse::<Address>().is_err(), "`{text}` must be refused");
        }
    }

    #[test]
    fn names_are_told_from_literal_addresses() {
        let is_name = |text: &str| text.parse::<Address>().expect("good").is_name();
        assert!(is_name("robots") && !is_name("127.0.0.1") && !is_name("::1"));
    }
}
