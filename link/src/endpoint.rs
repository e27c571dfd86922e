//! Sockets and QUIC settings, in one place for both sides. Which of them matter, and by how much, was measured.
//!
//! Congestion control lives in `congestion.rs`, the secrets of an endpoint in `secrets.rs`.

use crate::{congestion::DelayTarget, error::LinkError};
use dora_remote_protocol::limits;
use quinn::{IdleTimeout, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    ops::RangeInclusive,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// What a connection is dialled for, and with it what it may cost while it is quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialKind {
    /// One short command: no keep-alive, no MTU discovery (its probes cost more than they bring).
    Command,
    /// A person or a CI job that follows something: keep-alive.
    Follow,
    /// The agent of a machine: keep-alive, lives for months.
    Daemon,
}

/// Opens a UDP socket for a server. `[::]` takes IPv4 as well; where IPv6 is off, `[::]` becomes `0.0.0.0`.
pub(crate) fn server_socket(address: SocketAddr) -> Result<UdpSocket, LinkError> {
    let (socket, address) = bind_with_fallback(address).map_err(|source| LinkError::Bind { address, source })?;
    widen_buffers(&socket, SERVER_BUFFER_BYTES, true);
    tracing::debug!(%address, "bound a UDP socket");
    Ok(socket.into())
}

/// Opens a UDP socket for dialling, on any free port.
pub(crate) fn dialling_socket(kind: DialKind) -> Result<UdpSocket, LinkError> {
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
    let (socket, _) = bind_with_fallback(any).map_err(|source| LinkError::Bind { address: any, source })?;
    widen_buffers(&socket, DIALLER_BUFFER_BYTES, kind == DialKind::Daemon);
    Ok(socket.into())
}

/// QUIC settings of the accepting side.
pub(crate) fn server_transport() -> Arc<TransportConfig> {
    Arc::new(transport())
}

/// QUIC settings of the dialling side.
pub(crate) fn dialling_transport(kind: DialKind) -> Arc<TransportConfig> {
    let mut config = transport();
    match kind {
        DialKind::Command => {
            config.mtu_discovery_config(None);
        }
        // Only the side behind the NAT keeps the binding open; from both sides it would cost twice.
        DialKind::Follow | DialKind::Daemon => {
            config.keep_alive_interval(Some(limits::KEEP_ALIVE));
        }
    }
    Arc::new(config)
}

/// The address as people know it: an IPv4 address that came in through an IPv6 socket is shown as IPv4.
pub(crate) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What this process does otherwise than usual, because the path to its peers is a difficult one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathOptions {
    /// Bytes of the largest datagrams, from [`MTU_RANGE`]; larger ones are not looked for. Usually that begins with 1,200 and is found out.
    pub mtu: Option<u16>,
    /// Whether the kernel is handed each datagram by itself: some drivers and virtual machines fail at cutting up larger pieces.
    pub single_datagrams: bool,
}

/// What [`PathOptions::mtu`] may be: QUIC needs 1,200 (RFC 9000 section 14), and our peers take no more than 1,472.
pub const MTU_RANGE: RangeInclusive<u16> = 1_200..=1_472;

/// Sets the options of this process, before its first connection. Later calls change nothing.
pub fn set_path_options(options: PathOptions) {
    let _ = PATH_OPTIONS.set(options);
}

static PATH_OPTIONS: OnceLock<PathOptions> = OnceLock::new();

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    let options = PATH_OPTIONS.get().copied().unwrap_or_default();
    if let Some(mtu) = options.mtu {
        // What turns out to be too much still shrinks to what QUIC needs.
        config.initial_mtu(mtu).mtu_discovery_config(None);
    }
    config.enable_segmentation_offload(!options.single_datagrams);
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(limits::MAX_BIDI_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(limits::STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(limits::CONNECTION_WINDOW_BYTES))
        .send_window(limits::SEND_WINDOW_BYTES)
        .max_idle_timeout(Some(idle_timeout()))
        .congestion_controller_factory(Arc::new(DelayTarget))
        // quinn sends datagrams before any stream, so that they would starve commands.
        .datagram_receive_buffer_size(None);
    config
}

fn idle_timeout() -> IdleTimeout {
    const MILLISECONDS: u32 = limits::IDLE_TIMEOUT.as_millis() as u32;
    const { assert!(MILLISECONDS as u128 == limits::IDLE_TIMEOUT.as_millis()) };
    IdleTimeout::from(VarInt::from_u32(MILLISECONDS))
}

fn bind_with_fallback(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    match bind(address) {
        Ok(socket) => Ok((socket, address)),
        Err(error) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && error.kind() != io::ErrorKind::AddrInUse => {
            tracing::debug!(%error, "no IPv6 here; using IPv4 alone");
            let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            Ok((bind(address)?, address))
        }
        Err(error) => Err(error),
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Asks for large socket buffers and reads back what the system gave: small ones lose a herd's first packets.
fn widen_buffers(socket: &Socket, wanted: usize, warn: bool) {
    let asked = socket
        .set_recv_buffer_size(wanted)
        .and_then(|()| socket.set_send_buffer_size(wanted));
    let given = socket
        .recv_buffer_size()
        .and_then(|receive| Ok(receive.min(socket.send_buffer_size()?)));
    match (asked, given) {
        (Ok(()), Ok(given)) if given >= wanted => {}
        (asked, given) => {
            let error = asked.err().map(|error| error.to_string()).unwrap_or_default();
            let given = given.unwrap_or_default();
            let advice = "set the sysctls net.core.rmem_max and net.core.wmem_max to at least the wanted size";
            if warn {
                tracing::warn!(wanted, given, error, advice, "the UDP socket buffers are small");
            } else {
                tracing::debug!(wanted, given, error, advice, "the UDP socket buffers are small");
            }
        }
    }
}

/// Socket buffers of a coordinator in bytes: five thousand peers that connect at once fit.
const SERVER_BUFFER_BYTES: usize = 4 << 20;
/// Socket buffers of a dialling side in bytes.
const DIALLER_BUFFER_BYTES: usize = 1 << 20;
/// How long an endpoint waits, after it closed its connections, for their last packets to be sent.
pub(crate) const LAST_PACKETS: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dual_stack_socket_takes_both_families() {
        let socket = server_socket("[::]:0".parse().expect("good")).expect("bound");
        let port = socket.local_addr().expect("bound").port();
        let sender = UdpSocket::bind("127.0.0.1:0").expect("bound");
        sender.send_to(b"x", ("127.0.0.1", port)).expect("sent");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        let (_, from) = socket.recv_from(&mut [0; 8]).expect("received");
        assert_eq!(plain(from), sender.local_addr().expect("bound"));
    }

    #[test]
    fn a_port_in_use_is_an_error_and_no_reason_to_fall_back() {
        let first = server_socket("[::]:0".parse().expect("good")).expect("bound");
        let taken = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), first.local_addr().expect("bound").port());
        assert!(matches!(server_socket(taken), Err(LinkError::Bind { .. })));
    }

    #[test]
    fn mapped_addresses_are_shown_as_ipv4() {
        let mapped = "[::ffff:192.0.2.7]:9".parse().expect("good");
        assert_eq!(plain(mapped).to_string(), "192.0.2.7:9");
    }
}
