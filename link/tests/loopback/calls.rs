//! What is said on a connection that stands: calls, feeds, uploads, orders, deadlines, back-pressure.

use crate::{raw::raw, world::*};
use dora_remote_link::{CallError, DialKind, Dialer, Router, RouterError};
use dora_remote_protocol::{
    frame,
    identity::Role,
    ids::RequestId,
    limits::{CONNECTION_WINDOW_BYTES, MAX_FRAME_BYTES, SEND_WINDOW_BYTES},
    refusal::{Changed, Refusal, RefusalCode},
    request::{Answer, Header, Request, Verb},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{io::AsyncReadExt, sync::Notify};
use uuid::Uuid;

const LONG: Duration = PATIENCE;

#[tokio::test]
async fn a_call_is_answered_and_both_sides_know_each_other() {
    let world = World::new();
    let mut server = world.serve(echo());
    let dialer = world.dialer(Role::Viewer, "ann");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    // Before the welcome was waited for: the command travels along with the hello.
    assert_eq!(peer.call(&Echo("hi".into()), LONG).await.expect("answered"), "hi");
    assert_eq!(peer.identity().to_string(), "spiffe://test.example/coordinator/main");
    let welcome = peer.welcome().await.expect("welcome");
    assert_eq!((welcome.role, welcome.store_epoch), (Role::Viewer, 42));

    let seen = server.arrived().await;
    assert_eq!(seen.identity().to_string(), "spiffe://test.example/viewer/ann");
    assert!(seen.remote_address().is_ipv4(), "a mapped address must not be shown");
    assert_eq!(seen.hello().expect("said").counter, dialer.counter());
    assert!(peer.rtt() > Duration::ZERO && peer.datagram_stats().0 > 0);

    drop(peer);
    assert_eq!(server.left().await.to_string(), "closed by the peer: done");
    server.end().await;
}

#[tokio::test]
async fn many_calls_share_a_connection() {
    let world = World::new();
    let server = world.serve(echo());
    let dialer = world.dialer(Role::Viewer, "ann");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..200 {
        let peer = peer.clone();
        calls.spawn(async move {
            let text = number.to_string();
            assert_eq!(peer.call(&Echo(text.clone()), LONG).await.expect("answered"), text);
        });
    }
    soon(calls.join_all()).await;
    server.end().await;
}

#[tokio::test]
async fn a_refusal_of_a_handler_comes_back_whole() {
    let world = World::new();
    let refusal = Refusal::new(RefusalCode::NotFound, "no such thing")
        .hint("look again")
        .changed(Changed::Partly);
    let said = refusal.clone();
    let server = world.serve(Router::new().call(move |_, Change(_)| {
        let said = said.clone();
        async move { Err(said) }
    }));
    let dialer = world.dialer(Role::Operator, "olga");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    match peer.call(&Change(1), LONG).await {
        Err(CallError::Refused(read)) => assert_eq!(read, refusal),
        other => panic!("{other:?}"),
    }
    server.end().await;
}

#[tokio::test]
async fn a_feed_brings_its_items_in_order_and_ends() {
    let world = World::new();
    let server = world.serve(Router::new().feed(|_, Count(up_to), sink| async move {
        for number in 0..up_to {
            if sink.send(number).await.is_err() {
                return Ok(());
            }
        }
        match up_to {
            13 => Err(Refusal::new(RefusalCode::WrongState, "thirteen")),
            _ => Ok(()),
        }
    }));
    let dialer = world.dialer(Role::Viewer, "ann");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    let mut feed = peer.feed(&Count(1000), None).await.expect("asked");
    for number in 0..1000 {
        assert_eq!(soon(feed.next()).await.expect("an item"), Some(number));
    }
    assert_eq!(soon(feed.next()).await.expect("the end"), None);
    assert_eq!(feed.next().await.expect("still the end"), None);

    let mut feed = peer.feed(&Count(13), Some(LONG)).await.expect("asked");
    for number in 0..13 {
        assert_eq!(
            soon(feed.next()).await.expect("items before the refusal are not lost"),
            Some(number)
        );
    }
    assert!(matches!(soon(feed.next()).await, Err(CallError::Refused(refusal)) if refusal.message == "thirteen"));
    server.end().await;
}

#[tokio::test]
async fn a_quiet_feed_says_that_it_is_alive_and_ends_at_its_deadline() {
    let world = World::new();
    let server = world.serve(Router::new().feed(|_, Quiet(()), sink| async move {
        sink.gone().await;
        Ok(())
    }));
    let dialer = world.dialer(Role::Viewer, "ann");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    let mut feed = peer.feed(&Quiet(()), None).await.expect("asked");
    let (pulse, asked) = (feed.pulse(), feed.last_heard());
    soon(async {
        tokio::select! {
            item = feed.next() => panic!("nothing was to come: {item:?}"),
            () = async { while pulse.last_heard() == asked { tokio::task::yield_now().await } } => {}
        }
    })
    .await;
    assert!(pulse.last_heard() - asked >= Duration::from_millis(1500));
    drop(feed);

    let mut feed = peer.feed(&Quiet(()), Some(Duration::from_millis(200))).await.expect("asked");
    match soon(feed.next()).await {
        Err(CallError::TimedOut { .. }) => {}
        Err(CallError::Refused(refusal)) => assert_eq!(refusal.code, RefusalCode::DeadlineExceeded),
        other => panic!("{other:?}"),
    }
    server.end().await;
}

#[tokio::test]
async fn a_slow_reader_makes_the_sink_wait() {
    const ITEM_BYTES: usize = 64 << 10;
    const ITEMS: u32 = 600;
    let world = World::new();
    let sent = Arc::new(AtomicU32::new(0));
    let blocked = Arc::new(Notify::new());
    let (count, tell) = (Arc::clone(&sent), Arc::clone(&blocked));
    let server = world.serve(Router::new().feed(move |_, Flood(items), sink| {
        let (count, tell) = (Arc::clone(&count), Arc::clone(&tell));
        async move {
            for number in 0..items {
                let mut sending = std::pin::pin!(sink.send(vec![number as u8; ITEM_BYTES]));
                loop {
                    match tokio::time::timeout(Duration::from_millis(500), &mut sending).await {
                        Ok(Ok(())) => break,
                        Ok(Err(_)) => return Ok(()),
                        Err(_) => tell.notify_one(),
                    }
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }
    }));
    let dialer = world.dialer(Role::Viewer, "ann");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    let mut feed = peer.feed(&Flood(ITEMS), None).await.expect("asked");
    soon(blocked.notified()).await;
    let most = (SEND_WINDOW_BYTES + u64::from(CONNECTION_WINDOW_BYTES)) as u32 / ITEM_BYTES as u32 + 16;
    let waiting = sent.load(Ordering::Relaxed);
    assert!(waiting < most && most < ITEMS, "{waiting} items were taken without a reader");
    for number in 0..ITEMS {
        let item = soon(feed.next()).await.expect("an item").expect("not the end");
        assert!(item.len() == ITEM_BYTES && item[0] == number as u8, "item {number}");
    }
    assert!(soon(feed.next()).await.expect("the end").is_none());
    server.end().await;
}

#[tokio::test]
async fn an_upload_arrives_whole_or_is_seen_to_be_torn() {
    let world = World::new();
    let (torn, mut tears) = tokio::sync::mpsc::unbounded_channel();
    let server = world.serve(Router::new().upload(move |_, Put(name), mut body| {
        let torn = torn.clone();
        async move {
            if name == "unwanted" {
                return Err(Refusal::new(RefusalCode::NameTaken, "unwanted"));
            }
            let mut bytes = Vec::new();
            match body.read_to_end(&mut bytes).await {
                Ok(_) => Ok(bytes.iter().map(|byte| u64::from(*byte)).sum()),
                Err(error) => {
                    let _ = torn.send(error.kind());
                    Err(Refusal::new(RefusalCode::BadBundle, error.to_string()))
                }
            }
        }
    }));
    let dialer = world.dialer(Role::Operator, "olga");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    let bytes = vec![3_u8; 5 << 20];
    let sum = peer.upload(&Put("big".into()), &bytes[..], LONG).await.expect("taken");
    assert_eq!(sum, 3 * (5 << 20));
    assert_eq!(peer.upload(&Put("empty".into()), &b""[..], LONG).await.expect("taken"), 0);
    match peer.upload(&Put("unwanted".into()), &bytes[..], LONG).await {
        Err(CallError::Refused(refusal)) => assert_eq!(refusal.code, RefusalCode::NameTaken),
        other => panic!("{other:?}"),
    }

    let broken = (&bytes[..1 << 20]).chain(Broken);
    let outcome = peer.upload(&Put("torn".into()), broken, LONG).await;
    assert!(matches!(outcome, Err(CallError::Source(_))), "{outcome:?}");
    // The handler is either dropped or sees the tear; what it must never see is a whole upload.
    assert_eq!(peer.upload(&Put("after".into()), &b"\x07"[..], LONG).await.expect("taken"), 7);
    assert!(!matches!(tears.try_recv(), Ok(std::io::ErrorKind::UnexpectedEof)));
    server.end().await;
}

/// A source that fails at once.
struct Broken;

impl tokio::io::AsyncRead for Broken {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Err(std::io::Error::other("the disk is gone")))
    }
}

#[tokio::test]
async fn a_call_that_takes_too_long_ends_on_both_sides() {
    let world = World::new();
    let dropped = Arc::new(Notify::new());
    let guard = Arc::clone(&dropped);
    let server = world.serve(Router::new().call(move |_, Hang(())| {
        let guard = NotifyOnDrop(Arc::clone(&guard));
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    }));
    let dialer = world.dialer(Role::Viewer, "ann");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    let began = Instant::now();
    match peer.call(&Hang(()), Duration::from_millis(200)).await {
        Err(CallError::TimedOut { after }) => assert_eq!(after, Duration::from_millis(200)),
        Err(CallError::Refused(refusal)) => assert_eq!(refusal.code, RefusalCode::DeadlineExceeded),
        other => panic!("{other:?}"),
    }
    assert!(began.elapsed() < GRACE);
    soon(dropped.notified()).await;

    // An asker that goes away long before its deadline.
    let call = tokio::time::timeout(Duration::from_millis(200), peer.call(&Hang(()), LONG));
    assert!(call.await.is_err());
    soon(dropped.notified()).await;
    server.end().await;
}

#[tokio::test]
async fn the_answering_side_keeps_the_deadline_by_itself() {
    let world = World::new();
    let server = world.serve(Router::new().call(|_, Hang(())| std::future::pending()));
    let dialer = world.dialer(Role::Viewer, "ann");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    peer.welcome().await.expect("welcome");
    let credentials = world.credentials(Role::Viewer, "raw");
    let (_endpoint, connection) = raw(&credentials, server.socket_address()).await;
    crate::refusals::say_hello(&connection).await;
    let header = Header {
        verb: Hang::VERB,
        deadline_ms: 50,
        request_id: RequestId(Uuid::new_v4()),
    };
    let mut bytes = frame::encode(&header, 256).expect("fits");
    bytes.extend(frame::encode(&Hang(()), 256).expect("fits"));
    let answer = crate::refusals::exchange::<()>(&connection, &bytes).await;
    match answer {
        Answer::Refusal(refusal) => {
            assert_eq!(
                (refusal.code, refusal.changed),
                (RefusalCode::DeadlineExceeded, Changed::Unknown)
            );
        }
        Answer::Reply(()) => panic!("nobody answers that"),
    }
    server.end().await;
}

struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn large_frames_pass_and_oversized_ones_are_refused_on_either_side() {
    let world = World::new();
    let server = world.serve(Router::new().call(|_, Blob(bytes)| async move { Ok(bytes.len()) }));
    let dialer = world.dialer(Role::Viewer, "ann");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    let most = MAX_FRAME_BYTES - 8;
    assert_eq!(peer.call(&Blob(vec![1; most]), LONG).await.expect("answered"), most);
    let outcome = peer.call(&Blob(vec![1; MAX_FRAME_BYTES + 1]), LONG).await;
    assert!(matches!(outcome, Err(CallError::NotSent(_))), "{outcome:?}");

    let credentials = world.credentials(Role::Viewer, "raw");
    let (_endpoint, connection) = raw(&credentials, server.socket_address()).await;
    crate::refusals::say_hello(&connection).await;
    let header = Header {
        verb: Blob::VERB,
        deadline_ms: 10_000,
        request_id: RequestId(Uuid::new_v4()),
    };
    let mut bytes = frame::encode(&header, 256).expect("fits");
    bytes.extend(u32::MAX.to_be_bytes());
    match crate::refusals::exchange::<usize>(&connection, &bytes).await {
        Answer::Refusal(refusal) => assert_eq!(refusal.code, RefusalCode::BadRequest),
        Answer::Reply(read) => panic!("{read}"),
    }
    // A header beyond its own, smaller bound.
    let header = 257_u32.to_be_bytes();
    match crate::refusals::exchange::<usize>(&connection, &header).await {
        Answer::Refusal(refusal) => assert_eq!(refusal.code, RefusalCode::BadRequest),
        Answer::Reply(read) => panic!("{read}"),
    }
    assert_eq!(peer.call(&Blob(vec![1; 3]), LONG).await.expect("all is well"), 3);
    server.end().await;
}

#[tokio::test]
async fn a_coordinator_gives_orders_on_the_connection_that_a_daemon_dialled() {
    let world = World::new();
    let mut server = world.serve(Router::new().call(|_, Report(number)| async move { Ok(number + 1) }));
    let credentials = world.credentials(Role::Daemon, "robot-7");
    let dialer = Dialer::new(&credentials, speaker(), DialKind::Daemon).expect("a dialler");
    let orders = Router::new().call(|_, Order(number)| async move { Ok(number * 2) });
    let up = dialer.dial_with_router(&server.address, orders).await.expect("dialled");
    let down = server.arrived().await;
    assert_eq!(down.call(&Order(21), LONG).await.expect("obeyed"), 42);
    assert_eq!(up.call(&Report(1), LONG).await.expect("answered"), 2);
    // The role of the asker counts in this direction as well.
    match down.call(&Echo("hi".into()), LONG).await {
        Err(CallError::Refused(refusal)) => assert_eq!(refusal.code, RefusalCode::UnknownVerb),
        other => panic!("{other:?}"),
    }
    drop(up);
    assert_eq!(server.left().await.to_string(), "closed by the peer: done");
    dialer.shutdown(GRACE).await;
    server.end().await;
}

#[test]
fn a_router_with_two_handlers_for_a_verb_is_no_router() {
    let twice = echo().call(|_, Echo(text)| async move { Ok(text) });
    assert!(matches!(twice.build(), Err(RouterError::Twice { verb: Verb(60_001), .. })));
    let wrong = Router::new().call(|_, Count(_)| async move { Ok(1) });
    assert!(matches!(
        wrong.build(),
        Err(RouterError::WrongShape { registered: "call", .. })
    ));
}
