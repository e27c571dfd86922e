//! A port to listen on that stays ours while nobody listens there. Included by path from the tests of other crates, too.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

/// Where listeners are. Nobody else binds anything there.
const OURS: Ipv4Addr = Ipv4Addr::new(127, 86, 0, 1);
/// Another address of loopback.
const BESIDE: Ipv4Addr = Ipv4Addr::new(127, 86, 0, 2);

/// Keeps a UDP port of loopback for a server that comes, goes and comes back.
///
/// A server that is gone frees its port, and the kernel gives it to whichever socket next asks for any. So the port is held at
/// another address: sockets of all addresses get other ports then, and so do other tests that hold one. Sockets of single
/// addresses are not in the way, as they have others.
#[derive(Debug)]
pub(crate) struct HeldPort(UdpSocket);

impl HeldPort {
    /// Holds any free port.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn new() -> Self {
        Self(UdpSocket::bind((BESIDE, 0)).expect("a free port"))
    }

    /// Where to listen.
    ///
    /// # Panics
    /// When the system does not tell the port.
    pub(crate) fn address(&self) -> SocketAddr {
        (OURS, self.0.local_addr().expect("bound").port()).into()
    }
}
