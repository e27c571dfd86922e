//! What a connection costs where the network is slow, and what a herd of them costs: through a relay that delays, and at once.

use crate::{raw::raw, world::*};
use dora_remote_link::{Address, DialKind, Dialer};
use dora_remote_protocol::{identity::Role, limits::HANDSHAKE_DEADLINE};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{net::UdpSocket, task::JoinSet, time::sleep_until};
use tokio_util::task::AbortOnDropHandle;

/// Hands datagrams on between one dialler and a server, each one `delay` later.
async fn relay(server: SocketAddr, delay: Duration) -> (Address, JoinSet<()>) {
    let outside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("bound"));
    let inside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("bound"));
    inside.connect(server).await.expect("connected");
    let port = outside.local_addr().expect("bound").port();
    let (learn, client) = tokio::sync::watch::channel(None);
    let mut tasks = JoinSet::new();
    let (from, to) = (Arc::clone(&outside), Arc::clone(&inside));
    tasks.spawn(async move {
        let mut late = JoinSet::new();
        let mut buffer = [0; 2048];
        while let Ok((length, sender)) = from.recv_from(&mut buffer).await {
            learn.send_replace(Some(sender));
            let (to, datagram, due) = (Arc::clone(&to), buffer[..length].to_vec(), Instant::now() + delay);
            late.spawn(async move {
                sleep_until(due.into()).await;
                let _ = to.send(&datagram).await;
            });
        }
    });
    tasks.spawn(async move {
        let mut late = JoinSet::new();
        let mut buffer = [0; 2048];
        while let Ok(length) = inside.recv(&mut buffer).await {
            let Some(client) = *client.borrow() else { continue };
            let (to, datagram, due) = (Arc::clone(&outside), buffer[..length].to_vec(), Instant::now() + delay);
            late.spawn(async move {
                sleep_until(due.into()).await;
                let _ = to.send_to(&datagram, client).await;
            });
        }
    });
    let address = Address {
        host: "127.0.0.1".to_owned(),
        port,
    };
    (address, tasks)
}

#[tokio::test]
async fn a_cold_command_costs_two_round_trips_in_all() {
    const ONE_WAY: Duration = Duration::from_millis(150);
    let world = World::new();
    let server = world.serve(echo());
    let (address, _relay) = relay(server.socket_address(), ONE_WAY).await;
    let dialer = world.dialer(Role::Viewer, "ann");
    let began = Instant::now();
    let peer = dialer.dial(&address).await.expect("dialled");
    assert_eq!(peer.call(&Echo("hi".into()), PATIENCE).await.expect("answered"), "hi");
    let took = began.elapsed();
    assert!(took >= 4 * ONE_WAY, "faster than the relay: {took:?}");
    // Half a round trip is left for the computing; a third round trip would be seen.
    assert!(took < 5 * ONE_WAY, "more than two round trips: {took:?}");
    server.end().await;
}

#[tokio::test]
async fn a_herd_gets_in_through_a_small_gate() {
    const HERD: usize = 100;
    let world = World::new();
    let mut options = world.options();
    options.max_handshakes = 4;
    let server = Server::start(options, echo());
    let credentials = world.credentials(Role::Operator, "olga");
    let dialer = Arc::new(Dialer::new(&credentials, speaker(), DialKind::Command).expect("a dialler"));
    let mut herd = JoinSet::new();
    for number in 0..HERD {
        let (dialer, address) = (Arc::clone(&dialer), server.address.clone());
        herd.spawn(async move {
            let peer = dialer.dial(&address).await.expect("dialled");
            let text = number.to_string();
            assert_eq!(peer.call(&Echo(text.clone()), PATIENCE).await.expect("answered"), text);
        });
    }
    assert_eq!(soon(herd.join_all()).await.len(), HERD);
    server.end().await;
}

#[tokio::test]
async fn an_operator_gets_in_while_spoofed_addresses_flood_the_gate() {
    const FLOOD: usize = 200;
    let (lines, _guard) = Lines::capture();
    let world = World::new();
    let mut options = world.options();
    options.max_handshakes = 16;
    let server = Server::start(options, echo());
    // What is sent from spoofed addresses: first packets that are real, again and again, and no answer to what comes back.
    let deaf = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let (sink, to) = (deaf.local_addr().expect("bound"), server.socket_address());
    let mut dialling = JoinSet::new();
    for _ in 0..FLOOD {
        let credentials = world.credentials(Role::Viewer, "nobody");
        dialling.spawn(async move { raw(&credentials, sink).await });
    }
    let mut packets = Vec::new();
    while packets.len() < 2 * FLOOD {
        let mut packet = [0; 2048];
        let (length, _) = soon(deaf.recv_from(&mut packet)).await.expect("received");
        packets.push(packet[..length].to_vec());
    }
    dialling.abort_all();
    let _flood = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(2));
        for packet in packets.iter().cycle() {
            pace.tick().await;
            let _ = deaf.send_to(packet, to).await;
        }
    }));
    // The first handshakes must run out of time before the flood is known for what it is.
    soon(async {
        while lines.about_refusals().len() < 10 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let dialer = world.dialer(Role::Operator, "olga");
    let began = Instant::now();
    for _ in 0..3 {
        let peer = dialer.dial(&server.address).await.expect("dialled at the first try");
        assert_eq!(peer.call(&Echo("stop".into()), PATIENCE).await.expect("answered"), "stop");
    }
    // In the queue of the flood each of them would wait for about a handshake's deadline.
    assert!(began.elapsed() < HANDSHAKE_DEADLINE, "{:?}", began.elapsed());
    server.end().await;
}
