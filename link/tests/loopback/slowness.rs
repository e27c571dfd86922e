//! Peers that take their time on purpose: each wait ends, tells why where somebody can be told, and holds up nobody else.

use crate::{
    raw::{closed_with, raw_over},
    refusals::say_hello,
    world::*,
};
use dora_remote_certs::{SystemClock, client_config};
use dora_remote_link::{CloseCode, DialKind, Dialer, Patience, Router};
use dora_remote_protocol::{
    frame,
    identity::Role,
    ids::RequestId,
    limits::{MAX_FRAME_BYTES, MAX_HEADER_BYTES},
    refusal::{Refusal, RefusalCode},
    request::{Answer, Header, Request},
};
use quinn::VarInt;
use std::{net::UdpSocket, sync::Arc, time::Duration};
use tokio::{io::AsyncReadExt, sync::Notify};
use uuid::Uuid;

/// Short enough for a test, and long enough for a busy machine where somebody must be quicker.
const SHORT: Duration = Duration::from_secs(1);

/// The header of a request and its body.
fn asking<R: Request>(request: &R) -> (Vec<u8>, Vec<u8>) {
    let header = Header {
        verb: R::VERB,
        deadline_ms: 0,
        request_id: RequestId(Uuid::new_v4()),
    };
    let body = frame::encode(request, MAX_FRAME_BYTES).expect("fits");
    (frame::encode(&header, MAX_HEADER_BYTES).expect("fits"), body)
}

fn answer_in(bytes: &[u8]) -> Answer<u64> {
    frame::decode(&bytes[frame::PREFIX_BYTES..]).expect("one frame")
}

/// A connection whose hello was said, with windows of so many bytes for what it is sent.
async fn narrow(world: &World, role: Role, server: &Server, window: u32) -> (quinn::Endpoint, quinn::Connection) {
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(window));
    transport.keep_alive_interval(Some(Duration::from_secs(5)));
    let tls = client_config(&world.credentials(role, "slow"), Arc::new(SystemClock)).expect("a configuration");
    let connected = raw_over(tls, server.socket_address(), transport).await.expect("connected");
    say_hello(&connected.1).await;
    connected
}

struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn a_handshake_that_is_never_finished_gives_its_place_back() {
    let (lines, _guard) = Lines::capture();
    let world = World::new();
    let mut options = world.options();
    // One place for addresses that have proven nothing.
    options.max_handshakes = 2;
    let patience = Patience {
        handshake: SHORT,
        ..Patience::default()
    };
    let server = Server::with_patience(options, echo(), patience);
    // What a dialler says first, caught by a socket that never answers, and sent on by another one.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("bound");
    silent.set_read_timeout(Some(PATIENCE)).expect("set");
    let nowhere = at_port(silent.local_addr().expect("bound").port());
    let dialer = world.dialer(Role::Viewer, "ann");
    let dialling = tokio::spawn(async move { dialer.dial(&nowhere).await });
    let (first, second) = tokio::task::spawn_blocking(move || {
        let datagram = || {
            let mut bytes = vec![0; 2048];
            let (length, _) = silent.recv_from(&mut bytes).expect("an Initial");
            bytes.truncate(length);
            bytes
        };
        (datagram(), datagram())
    })
    .await
    .expect("no panic");
    dialling.abort();
    let half_open = UdpSocket::bind("127.0.0.1:0").expect("bound");
    for datagram in [first, second] {
        half_open.send_to(&datagram, server.socket_address()).expect("sent");
    }
    let line = lines.only_refusal().await;
    assert!(line.contains("the handshake did not end in time"), "{line}");
    let honest = world
        .dialer(Role::Viewer, "ann")
        .dial(&server.address)
        .await
        .expect("dialled");
    assert_eq!(honest.call(&Echo("hi".into()), PATIENCE).await.expect("answered"), "hi");
    server.end().await;
}

#[tokio::test]
async fn a_peer_that_does_not_take_its_welcome_is_let_go() {
    let world = World::new();
    let patience = Patience {
        handshake: SHORT,
        ..Patience::default()
    };
    let server = Server::with_patience(world.options(), echo(), patience);
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(0));
    let tls = client_config(&world.credentials(Role::Viewer, "shut"), Arc::new(SystemClock)).expect("a configuration");
    let (_endpoint, connection) = raw_over(tls, server.socket_address(), transport).await.expect("connected");
    tokio::select! {
        biased;
        code = closed_with(&connection) => assert_eq!(code, CloseCode::Unanswered),
        answer = say_hello(&connection) => panic!("{answer:?}"),
    }
    server.end().await;
}

#[tokio::test]
async fn a_stream_without_its_header_or_its_body_is_given_up() {
    let world = World::new();
    let patience = Patience {
        header: SHORT,
        body: SHORT,
        ..Patience::default()
    };
    let server = Server::with_patience(world.options(), echo(), patience);
    let (_endpoint, connection) = narrow(&world, Role::Viewer, &server, 1 << 16).await;
    let (header, body) = asking(&Echo("hi".into()));

    // A header of which a byte is missing.
    let (mut send, mut recv) = connection.open_bi().await.expect("opened");
    send.write_all(&header[..header.len() - 1]).await.expect("written");
    assert!(soon(recv.read_to_end(1024)).await.is_err(), "no answer to nobody knows what");

    // A body that comes a byte at a time, and never whole; and one that never ends.
    for sent in [&body[..body.len() - 1], &body[..]] {
        let (mut send, mut recv) = connection.open_bi().await.expect("opened");
        send.write_all(&header).await.expect("written");
        for byte in sent {
            send.write_all(std::slice::from_ref(byte)).await.expect("written");
        }
        match answer_in(&soon(recv.read_to_end(1024)).await.expect("an answer")) {
            Answer::Refusal(refusal) => {
                assert_eq!(refusal.code, RefusalCode::BadRequest);
                assert!(refusal.message.contains("did not arrive in time"), "{refusal}");
            }
            Answer::Reply(read) => panic!("{read}"),
        }
    }
    // The connection itself is as good as before.
    let again = crate::refusals::exchange::<String>(&connection, &[header, body].concat()).await;
    assert_eq!(again, Answer::Reply("hi".to_owned()));
    server.end().await;
}

#[tokio::test]
async fn a_member_that_promises_many_large_bodies_waits_for_itself_alone() {
    let world = World::new();
    let patience = Patience {
        body: SHORT,
        ..Patience::default()
    };
    let server = Server::with_patience(world.options(), echo(), patience);
    let (_endpoint, greedy) = narrow(&world, Role::Viewer, &server, 1 << 16).await;
    let (header, _) = asking(&Echo(String::new()));
    let promise = u32::try_from(MAX_FRAME_BYTES).expect("fits").to_be_bytes();
    let mut promised = Vec::new();
    for _ in 0..60 {
        let (mut send, recv) = greedy.open_bi().await.expect("opened");
        send.write_all(&[&header[..], &promise].concat()).await.expect("written");
        promised.push((send, recv));
    }
    let other = world
        .dialer(Role::Viewer, "ann")
        .dial(&server.address)
        .await
        .expect("dialled");
    assert_eq!(other.call(&Echo("hi".into()), PATIENCE).await.expect("answered"), "hi");
    for (_send, mut recv) in promised {
        let read = soon(recv.read_to_end(1024)).await.expect("an answer");
        assert!(matches!(answer_in(&read), Answer::Refusal(refusal) if refusal.code == RefusalCode::BadRequest));
    }
    let (header, body) = asking(&Echo("hi".into()));
    let again = crate::refusals::exchange::<String>(&greedy, &[header, body].concat()).await;
    assert_eq!(again, Answer::Reply("hi".to_owned()));
    server.end().await;
}

#[tokio::test]
async fn an_upload_that_dribbles_is_given_up_and_a_slow_one_is_not() {
    let world = World::new();
    let router = Router::new().upload(|_, Put(_), mut body| async move {
        let mut bytes = Vec::new();
        match body.read_to_end(&mut bytes).await {
            Ok(read) => Ok(read as u64),
            Err(error) => Err(Refusal::new(RefusalCode::BadBundle, error.to_string())),
        }
    });
    let patience = Patience {
        upload: SHORT,
        ..Patience::default()
    };
    let server = Server::with_patience(world.options(), router, patience);
    let (_endpoint, connection) = narrow(&world, Role::Operator, &server, 1 << 16).await;
    let (header, body) = asking(&Put("dribble".into()));
    let (mut send, mut recv) = connection.open_bi().await.expect("opened");
    send.write_all(&[header, body].concat()).await.expect("written");
    // Bytes keep coming, and never enough of them.
    let dribbling = async {
        let mut ticks = tokio::time::interval(SHORT / 5);
        loop {
            ticks.tick().await;
            if send.write_all(b"x").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = dribbling => {}
        read = soon(recv.read_to_end(1024)) => match answer_in(&read.expect("an answer")) {
            Answer::Refusal(refusal) => assert!(refusal.message.contains("stalled"), "{refusal}"),
            Answer::Reply(read) => panic!("{read}"),
        },
    }

    let (header, body) = asking(&Put("slow".into()));
    let (mut send, mut recv) = connection.open_bi().await.expect("opened");
    send.write_all(&[header, body].concat()).await.expect("written");
    let mut ticks = tokio::time::interval(SHORT / 5);
    let chunk = vec![7; Patience::UPLOAD_BYTES as usize];
    for _ in 0..15 {
        ticks.tick().await;
        send.write_all(&chunk).await.expect("written");
    }
    send.finish().expect("open");
    let read = soon(recv.read_to_end(1024)).await.expect("an answer");
    assert_eq!(answer_in(&read), Answer::Reply(15 * Patience::UPLOAD_BYTES));
    server.end().await;
}

#[tokio::test]
async fn a_reply_that_is_never_read_ends_the_connection_of_a_person() {
    let world = World::new();
    let router = Router::new().call(|_, Big(bytes)| async move { Ok(vec![1; bytes]) });
    let patience = Patience {
        answer: SHORT,
        ..Patience::default()
    };
    let mut server = Server::with_patience(world.options(), router, patience);
    let (_endpoint, connection) = narrow(&world, Role::Viewer, &server, 4096).await;
    let (header, body) = asking(&Big(1 << 20));
    let (mut send, _unread) = connection.open_bi().await.expect("opened");
    send.write_all(&[header, body].concat()).await.expect("written");
    send.finish().expect("open");
    assert_eq!(server.left().await.code(), Some(CloseCode::TimeOver));
    server.end().await;
}

#[tokio::test]
async fn a_feed_that_is_never_read_ends_and_spares_the_connection_of_a_daemon() {
    let world = World::new();
    let dropped = Arc::new(Notify::new());
    let (people, daemons) = (Arc::clone(&dropped), Arc::clone(&dropped));
    let router = Router::new()
        .feed(move |_, Flood(items), sink| {
            let guard = NotifyOnDrop(Arc::clone(&people));
            async move {
                let _guard = guard;
                while sink.send(vec![0; items as usize]).await.is_ok() {}
                Ok(())
            }
        })
        .feed(move |_, Fetch(items), sink| {
            let guard = NotifyOnDrop(Arc::clone(&daemons));
            async move {
                let _guard = guard;
                while sink.send(vec![0; items as usize]).await.is_ok() {}
                Ok(())
            }
        })
        .call(|_, Report(number)| async move { Ok(number) });
    let patience = Patience {
        feed: SHORT,
        ..Patience::default()
    };
    let mut server = Server::with_patience(world.options(), router, patience);
    let ask = |(header, body): (Vec<u8>, Vec<u8>)| [header, body].concat();

    let (_endpoint, person) = narrow(&world, Role::Viewer, &server, 4096).await;
    let (mut send, _unread) = person.open_bi().await.expect("opened");
    send.write_all(&ask(asking(&Flood(1 << 20)))).await.expect("written");
    send.finish().expect("open");
    soon(dropped.notified()).await;
    assert_eq!(server.left().await.code(), Some(CloseCode::TimeOver));

    let (_endpoint, daemon) = narrow(&world, Role::Daemon, &server, 4096).await;
    let (mut send, mut unread) = daemon.open_bi().await.expect("opened");
    send.write_all(&ask(asking(&Fetch(1 << 20)))).await.expect("written");
    send.finish().expect("open");
    soon(dropped.notified()).await;
    let answer = crate::refusals::exchange::<u32>(&daemon, &ask(asking(&Report(5)))).await;
    assert_eq!(answer, Answer::Reply(5), "its other streams go on");
    assert!(
        soon(unread.read_to_end(1 << 20)).await.is_err(),
        "a torn feed does not look whole"
    );
    server.end().await;
}

#[tokio::test]
async fn a_person_that_asks_nothing_is_let_go_and_a_daemon_or_a_follower_is_not() {
    let world = World::new();
    let router = echo()
        .call(|_, Report(number)| async move { Ok(number) })
        .feed(|_, Quiet(()), sink| async move {
            sink.gone().await;
            Ok(())
        });
    let patience = Patience {
        idle: SHORT,
        ..Patience::default()
    };
    let server = Server::with_patience(world.options(), router, patience);
    let dialer = |role, name, kind| Dialer::new(&world.credentials(role, name), speaker(), kind).expect("a dialler");
    let (daemon, follower, idler) = (
        dialer(Role::Daemon, "robot-7", DialKind::Daemon),
        dialer(Role::Viewer, "vera", DialKind::Follow),
        dialer(Role::Viewer, "ida", DialKind::Follow),
    );
    let daemon = daemon.dial(&server.address).await.expect("dialled");
    let follower = follower.dial(&server.address).await.expect("dialled");
    let feed = follower.feed(&Quiet(()), None).await.expect("asked");
    // Two idle times one after the other, so that the others have been quiet for longer than one.
    for _ in 0..2 {
        let idle = idler.dial(&server.address).await.expect("dialled");
        idle.call(&Echo("hi".into()), PATIENCE).await.expect("answered");
        assert_eq!(soon(idle.closed()).await.code(), Some(CloseCode::TimeOver));
    }
    assert_eq!(daemon.call(&Report(1), PATIENCE).await.expect("answered"), 1);
    assert_eq!(follower.call(&Echo("hi".into()), PATIENCE).await.expect("answered"), "hi");
    drop(feed);
    assert_eq!(soon(follower.closed()).await.code(), Some(CloseCode::TimeOver));
    server.end().await;
}
