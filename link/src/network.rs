//! Tells when this machine has come to another network: an interface, an address or a route that is new or gone.
//!
//! Linux says so on a netlink socket (rtnetlink(7)). What it says is not read: after each message the kernel is asked from which
//! address packets to the peer would leave now, so that other people's interfaces are not taken for ours. Where there is no such socket,
//! nothing is ever told, and silence alone shows that something has changed.

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket},
};
use std::{
    future::pending,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};
use tokio::{
    net::UnixDatagram,
    time::{Instant, sleep_until},
};

/// Watches the network of this machine. Must be made within a tokio runtime.
#[derive(Debug)]
pub struct NetworkWatch {
    /// A netlink socket in the guise of another one that is read datagram by datagram.
    messages: Option<UnixDatagram>,
    way: Way,
    /// Something was said that was not looked at yet; it is at this time.
    due: Option<Instant>,
}

/// What has become of the way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkChange {
    /// Packets leave from another address than before, or leave again: what knew the old address must hear of the new one.
    Moved,
    /// Something has changed, and packets leave as before; they may take another way all the same.
    Other,
}

impl NetworkWatch {
    /// Begins to watch.
    #[must_use]
    pub fn new() -> Self {
        let messages = messages()
            .inspect_err(|error| tracing::debug!(%error, "changes of the network are not told; silence will show them"))
            .ok();
        Self {
            messages,
            way: Way::default(),
            due: None,
        }
    }

    /// Waits for the next change of the way to `peer`; without one, of anything. While there is no way, nothing is told. Several
    /// changes in a row are told as one, those that change nothing for the peer once a second at most. Cancel safe.
    pub async fn changed(&mut self, peer: Option<SocketAddr>) -> NetworkChange {
        self.way.begin(peer, source);
        loop {
            if let Some(due) = self.due {
                sleep_until(due).await;
                self.due = None;
                // What came while it was waited for is part of it.
                self.drain();
                if let Some(change) = self.way.look(peer, source) {
                    tracing::debug!(?change, "the network has changed");
                    return change;
                }
            }
            self.heard().await;
            let now = Instant::now();
            self.due = Some((now + SETTLE).max(self.way.rest.unwrap_or(now)));
        }
    }

    /// Waits for a message.
    async fn heard(&mut self) {
        let Some(messages) = &self.messages else {
            return pending().await;
        };
        let received = messages.recv(&mut [0; MESSAGE_BYTES]).await;
        self.note(received);
    }

    /// Takes all messages that are there.
    fn drain(&mut self) {
        while let Some(messages) = &self.messages {
            match messages.try_recv(&mut [0; MESSAGE_BYTES]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                received => self.note(received),
            }
        }
    }

    /// That some messages were lost (`ENOBUFS`) says as much as they would have; other errors end the watch.
    fn note(&mut self, received: io::Result<usize>) {
        if let Err(error) = received
            && error.raw_os_error() != Some(Errno::ENOBUFS as i32)
        {
            tracing::debug!(%error, "changes of the network are told no more");
            self.messages = None;
        }
    }
}

impl Default for NetworkWatch {
    fn default() -> Self {
        Self::new()
    }
}

/// Over which of its addresses this machine reaches a peer.
#[derive(Debug, Default)]
struct Way {
    peer: Option<SocketAddr>,
    source: Option<IpAddr>,
    /// Until when what changes nothing is not told again.
    rest: Option<Instant>,
}

impl Way {
    /// Remembers how a peer is reached now, unless it is remembered.
    fn begin(&mut self, peer: Option<SocketAddr>, source: impl Fn(SocketAddr) -> Option<IpAddr>) {
        if self.peer != peer {
            self.peer = peer;
            self.source = peer.and_then(source);
        }
    }

    /// Looks again.
    fn look(&mut self, peer: Option<SocketAddr>, source: impl Fn(SocketAddr) -> Option<IpAddr>) -> Option<NetworkChange> {
        self.rest = None;
        let Some(peer) = peer else {
            self.rest = Some(Instant::now() + REST);
            return Some(NetworkChange::Moved);
        };
        let before = std::mem::replace(&mut self.source, source(peer));
        self.source?;
        if before != self.source {
            return Some(NetworkChange::Moved);
        }
        self.rest = Some(Instant::now() + REST);
        Some(NetworkChange::Other)
    }
}

/// From which address packets to a peer would leave. Sends nothing.
fn source(peer: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if peer.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(peer).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn messages() -> io::Result<UnixDatagram> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
    UnixDatagram::from_std(fd.into())
}

/// Links, addresses and routes of IPv4 and IPv6: `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR` and
/// `RTMGRP_IPV6_ROUTE` of `linux/rtnetlink.h`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// Bytes of a message that are taken in; the rest is cut off, and nobody reads it.
const MESSAGE_BYTES: usize = 4096;
/// Time in which one change of the network says all it has to say.
const SETTLE: Duration = Duration::from_millis(100);
/// Shortest time between two changes that change nothing for the peer.
const REST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const WIFI: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 7));
    const LTE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 60, 0, 9));

    fn peer() -> Option<SocketAddr> {
        Some(SocketAddr::from(([198, 51, 100, 1], 6013)))
    }

    #[tokio::test]
    async fn another_source_or_a_way_that_is_back_is_a_move() {
        let mut way = Way::default();
        way.begin(peer(), |_| Some(WIFI));
        assert_eq!(way.look(peer(), |_| Some(WIFI)), Some(NetworkChange::Other));
        assert!(way.rest.is_some(), "what changes nothing is not told all the time");
        assert_eq!(way.look(peer(), |_| Some(LTE)), Some(NetworkChange::Moved));
        assert!(way.rest.is_none());
        assert_eq!(way.look(peer(), |_| None), None, "nothing can be done without a way");
        assert_eq!(way.look(peer(), |_| Some(LTE)), Some(NetworkChange::Moved), "it is back");
        way.begin(peer(), |_| Some(WIFI));
        assert_eq!(
            way.look(peer(), |_| Some(LTE)),
            Some(NetworkChange::Other),
            "a known peer is not begun anew"
        );
        assert_eq!(
            way.look(None, |_| None),
            Some(NetworkChange::Moved),
            "without a peer every change counts"
        );
    }

    #[tokio::test]
    async fn loopback_has_a_source_and_the_watch_can_be_made() {
        assert_eq!(
            source(SocketAddr::from(([127, 0, 0, 1], 9))),
            Some(Ipv4Addr::LOCALHOST.into())
        );
        assert!(NetworkWatch::new().messages.is_some());
    }
}
