//! Sockets that die under a dialler, and sockets from which nobody is reached.

use crate::world::*;
use dora_remote_link::{Address, CloseCode, DialError, Dialer, LinkError, Peer};
use dora_remote_protocol::identity::Role;
use std::{collections::BTreeSet, io, sync::Arc};
use tokio::{net::UdpSocket, sync::oneshot, task::JoinHandle};

/// Dials once on a runtime of its own, which ends when it is told so: the socket dies with it, as nothing reads it any more.
struct OtherRuntime {
    peer: Peer,
    end: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl OtherRuntime {
    async fn dial(dialer: &Arc<Dialer>, address: &Address) -> Self {
        let (dialer, address) = (Arc::clone(dialer), address.clone());
        let (tell, peer) = oneshot::channel();
        let (end, told) = oneshot::channel();
        let ended = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let peer = dialer.dial(&address).await.expect("dialled");
                tell.send(peer).expect("waited for");
                told.await.expect("told");
            });
        });
        let peer = soon(peer).await.expect("dialled");
        Self { peer, end, ended }
    }

    async fn end(self) -> Peer {
        self.end.send(()).expect("it runs");
        soon(self.ended).await.expect("no panic");
        self.peer
    }
}

/// A port of this machine where nobody answers.
async fn silent() -> (UdpSocket, Address) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let address = at_port(socket.local_addr().expect("bound").port());
    (socket, address)
}

/// From which port the next datagram comes.
async fn next_port(socket: &UdpSocket) -> u16 {
    let (_, from) = soon(socket.recv_from(&mut [0; 2048])).await.expect("received");
    from.port()
}

/// Waits for a datagram from another port than `before`; from there, dials that were given up still say goodbye.
async fn another_port(socket: &UdpSocket, before: u16) {
    soon(async { while next_port(socket).await == before {} }).await;
}

/// From which ports those came that have arrived.
fn ports(socket: &UdpSocket) -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    loop {
        match socket.try_recv_from(&mut [0; 2048]) {
            Ok((_, from)) => ports.insert(from.port()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return ports,
            Err(error) => panic!("{error}"),
        };
    }
}

#[tokio::test]
async fn a_dialler_whose_socket_has_died_dials_from_another_one() {
    let world = World::new();
    let server = world.serve(echo());
    let dialer = Arc::new(world.dialer(Role::Viewer, "ann"));
    for _ in 0..2 {
        drop(OtherRuntime::dial(&dialer, &server.address).await.end().await);
    }
    dialer.rebind().expect("nothing that lives");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    assert_eq!(peer.call(&Echo("hi".into()), PATIENCE).await.expect("answered"), "hi");
    dialer.shutdown(GRACE).await;
    let ended = dialer.dial(&server.address).await.expect_err("shut down");
    assert!(
        matches!(&ended, DialError::Local(why) if matches!(**why, LinkError::Ending)),
        "{ended:?}"
    );
    server.end().await;
}

#[tokio::test]
async fn a_dial_whose_socket_dies_goes_on_from_another_one() {
    let world = World::new();
    let server = world.serve(echo());
    let dialer = Arc::new(world.dialer(Role::Viewer, "ann"));
    let other = OtherRuntime::dial(&dialer, &server.address).await;
    let (silent, nobody) = silent().await;
    let dial = tokio::spawn({
        let dialer = Arc::clone(&dialer);
        async move { dialer.dial(&nobody).await }
    });
    let before = next_port(&silent).await;
    drop(other.end().await);
    another_port(&silent, before).await;
    // While it is under way, its dialler ends.
    dialer.shutdown(GRACE).await;
    let ended = soon(dial).await.expect("no panic").expect_err("nobody is there");
    assert!(
        matches!(&ended, DialError::Local(why) if matches!(**why, LinkError::Ending)),
        "{ended:?}"
    );
    server.end().await;
}

#[tokio::test]
async fn after_three_dials_that_reach_nobody_the_next_one_has_another_port_and_connections_keep_theirs() {
    let world = World::new();
    let mut server = world.serve(echo());
    let dialer = world.dialer(Role::Viewer, "ann");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    let seen = server.arrived().await;
    let before = seen.remote_address();
    let (silent, nobody) = silent().await;
    let dials = tokio::join!(dialer.dial(&nobody), dialer.dial(&nobody), dialer.dial(&nobody));
    for dial in [dials.0, dials.1, dials.2] {
        assert!(matches!(dial, Err(DialError::Unreachable { .. })), "{dial:?}");
    }
    assert_eq!(ports(&silent), BTreeSet::from([before.port()]));
    tokio::select! {
        () = another_port(&silent, before.port()) => {}
        dial = dialer.dial(&nobody) => panic!("{dial:?}"),
    }

    assert_eq!(peer.call(&Echo("here".into()), PATIENCE).await.expect("answered"), "here");
    assert_eq!(seen.remote_address(), before, "a connection that stands stays where it is");
    dialer.rebind().expect("fresh sockets");
    assert_eq!(peer.call(&Echo("moved".into()), PATIENCE).await.expect("answered"), "moved");
    soon(async {
        while seen.remote_address() == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    dialer.shutdown(GRACE).await;
    assert_eq!(server.left().await.code(), Some(CloseCode::Done));
    assert!(peer.is_closed());
    server.end().await;
}
