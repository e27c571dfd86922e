//! How connections end, move and come back: shutdown, rebind, a server that was killed, a server that is not there.

use crate::{held_port::HeldPort, world::*};
use dora_remote_link::{
    Acceptor, Address, CallError, CloseCode, CloseReason, DialError, DialKind, Dialer, EndpointSecrets, LinkError, Peer,
    PeerWatcher, Router,
};
use dora_remote_protocol::{identity::Role, limits::IDLE_TIMEOUT};
use std::{
    net::UdpSocket,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn shutting_down_lets_handlers_end_and_their_answers_arrive() {
    let world = World::new();
    let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
    let mut server = world.serve(echo().call(move |context, Change(number)| {
        let _ = started.send(());
        async move {
            context.shutdown.cancelled().await;
            Ok(number)
        }
    }));
    let dialer = world.dialer(Role::Operator, "olga");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    let accepted = server.arrived().await;
    let calling = peer.clone();
    let call = tokio::spawn(async move { calling.call(&Change(7), PATIENCE).await });
    soon(starts.recv()).await.expect("started");
    server.shutdown.cancel();
    server.shutdown.cancel();
    assert_eq!(soon(call).await.expect("no panic").expect("the answer arrives"), 7);
    match soon(peer.closed()).await {
        CloseReason::ByPeer { code, .. } => assert_eq!(code, CloseCode::ShuttingDown),
        other => panic!("{other:?}"),
    }
    let lost = peer.call(&Echo("hi".into()), PATIENCE).await.expect_err("over");
    assert!(lost.is_connection_lost(), "{lost:?}");
    drop(accepted);
    server.end().await;
}

#[tokio::test]
async fn a_dialler_can_be_shut_down_twice_and_dials_no_more() {
    let world = World::new();
    let mut server = world.serve(echo());
    let dialer = world.dialer(Role::Viewer, "ann");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    peer.call(&Echo("hi".into()), PATIENCE).await.expect("answered");
    tokio::join!(dialer.shutdown(GRACE), dialer.shutdown(GRACE));
    dialer.shutdown(GRACE).await;
    assert!(peer.is_closed());
    assert_eq!(server.left().await.code(), Some(CloseCode::Done));
    assert!(matches!(dialer.dial(&server.address).await, Err(DialError::Local(_))));
    server.end().await;
}

#[tokio::test]
async fn a_closing_peer_says_why_before_its_process_is_gone() {
    let world = World::new();
    let mut server = world.serve(echo());
    let dialer = world.dialer(Role::Viewer, "ann");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    peer.welcome().await.expect("welcome");
    peer.close_and_flush(CloseCode::Superseded, "a test").await;
    assert_eq!(peer.close_reason().expect("closed").code(), Some(CloseCode::Superseded));
    match server.left().await {
        CloseReason::ByPeer { code, reason } => assert_eq!((code, &*reason), (CloseCode::Superseded, "a test")),
        other => panic!("{other:?}"),
    }
    server.end().await;
}

#[tokio::test]
async fn a_connection_survives_a_new_socket() {
    let world = World::new();
    let mut server = world.serve(echo());
    let dialer = world.dialer(Role::Viewer, "ann");
    dialer.rebind().expect("nothing to do yet");
    let peer = dialer.dial(&server.address).await.expect("dialled");
    peer.welcome().await.expect("welcome");
    let seen = server.arrived().await;
    let before = seen.remote_address();
    dialer.rebind().expect("a fresh socket");
    assert_eq!(peer.call(&Echo("moved".into()), PATIENCE).await.expect("answered"), "moved");
    soon(async {
        while seen.remote_address() == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!peer.is_closed());
    server.end().await;
}

/// A server on a thread and a runtime of its own, which can be killed without a word.
struct Mortal {
    kill: CancellationToken,
    thread: thread::JoinHandle<()>,
}

impl Mortal {
    fn start(options: dora_remote_link::AcceptOptions) -> Self {
        let kill = CancellationToken::new();
        let killed = kill.clone();
        let (tell, bound) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let acceptor = Acceptor::bind(options).expect("bound");
                tell.send(()).expect("told");
                let running = acceptor.run(echo(), Unwatched, CancellationToken::new(), GRACE);
                tokio::select! {
                    _ = tokio::spawn(running) => panic!("it was to run"),
                    () = killed.cancelled() => {}
                }
            });
            // As after a kill: no task runs again, nothing is sent.
            runtime.shutdown_background();
        });
        bound.recv().expect("bound");
        Self { kill, thread }
    }

    fn kill(self) {
        self.kill.cancel();
        self.thread.join().expect("no panic");
    }
}

struct Unwatched;

impl PeerWatcher for Unwatched {
    fn arrived(&self, _: Peer) {}
    fn left(&self, _: &Peer, _: &CloseReason) {}
}

#[tokio::test]
async fn a_server_that_was_killed_tells_its_peers_to_redial_as_soon_as_it_is_back() {
    let world = World::new();
    let secrets = world.path().join("secrets");
    let port = HeldPort::new();
    let options = || {
        let mut options = world.options();
        options.secrets = EndpointSecrets::load_or_create(&secrets).expect("secrets");
        options.address = port.address();
        options
    };
    let server = Mortal::start(options());
    let address = Address {
        host: port.address().ip().to_string(),
        port: port.address().port(),
    };
    let person = world.credentials(Role::Operator, "olga");
    let dialer = Dialer::new(&person, speaker(), DialKind::Follow).expect("a dialler");
    let peer = dialer.dial(&address).await.expect("dialled");
    peer.call(&Echo("hi".into()), PATIENCE).await.expect("answered");
    server.kill();
    // The port is free only when the last of the killed runtime is gone.
    let server = soon(async {
        loop {
            if UdpSocket::bind(port.address()).is_ok() {
                return Mortal::start(options());
            }
            tokio::task::yield_now().await;
        }
    })
    .await;

    let began = Instant::now();
    match peer.call(&Echo("hi".into()), PATIENCE).await {
        Err(CallError::Lost(CloseReason::PeerRestarted)) => {}
        other => panic!("{other:?}"),
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5) && took < IDLE_TIMEOUT / 10, "{took:?}");
    let peer = dialer.dial(&address).await.expect("dialled again");
    assert_eq!(peer.call(&Echo("back".into()), PATIENCE).await.expect("answered"), "back");
    drop(peer);
    server.kill();
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_unreachable_within_seconds() {
    let world = World::new();
    let silent = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let address = Address {
        host: "127.0.0.1".to_owned(),
        port: silent.local_addr().expect("bound").port(),
    };
    let began = Instant::now();
    let error = world
        .dialer(Role::Viewer, "ann")
        .dial(&address)
        .await
        .expect_err("nobody is there");
    assert!(
        matches!(&error, DialError::Unreachable { tried, .. } if tried.len() == 1),
        "{error:?}"
    );
    assert!(error.to_string().contains("UDP"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn a_name_is_tried_at_each_of_its_addresses() {
    let world = World::new();
    // Listens on IPv4 alone, while `localhost` usually means `::1` as well.
    let mut options = world.options();
    options.address = "127.0.0.1:0".parse().expect("good");
    let server = Server::start(options, echo());
    let address = Address {
        host: "localhost".to_owned(),
        port: server.address.port,
    };
    let dialer = world.dialer(Role::Viewer, "ann");
    let peer = dialer.dial(&address).await.expect("dialled");
    assert_eq!(peer.call(&Echo("hi".into()), PATIENCE).await.expect("answered"), "hi");
    let nowhere = Address {
        host: "no-such-host.invalid".to_owned(),
        port: 1,
    };
    let error = dialer.dial(&nowhere).await.expect_err("no such name");
    assert!(matches!(error, DialError::Resolve { .. }), "{error:?}");
    server.end().await;
}

#[tokio::test]
async fn a_panic_in_a_handler_ends_the_server_with_an_error() {
    let world = World::new();
    let acceptor = Acceptor::bind(world.options()).expect("bound");
    let address = Address {
        host: "127.0.0.1".to_owned(),
        port: acceptor.local_address().port(),
    };
    let router = Router::new().call(|_, Change(number)| async move {
        assert!(number > 9, "on purpose");
        Ok(number)
    });
    let running = tokio::spawn(acceptor.run(router, Unwatched, CancellationToken::new(), GRACE));
    let peer = world.dialer(Role::Operator, "olga").dial(&address).await.expect("dialled");
    let error = peer.call(&Change(1), PATIENCE).await.expect_err("a panic");
    assert!(matches!(error, CallError::Protocol(_) | CallError::Lost(_)), "{error:?}");
    let ended = soon(running).await.expect("no panic outside of the handler");
    assert!(matches!(ended, Err(LinkError::TaskPanicked { task: "stream" })), "{ended:?}");
}

#[tokio::test]
async fn credentials_are_replaced_without_touching_connections_that_stand() {
    let world = World::new();
    let acceptor = Acceptor::bind(world.options()).expect("bound");
    let address = Address {
        host: "127.0.0.1".to_owned(),
        port: acceptor.local_address().port(),
    };
    let (replacer, shutdown) = (acceptor.replacer(), CancellationToken::new());
    let running = tokio::spawn(acceptor.run(echo(), Unwatched, shutdown.clone(), GRACE));
    let dialer = world.dialer(Role::Operator, "olga");
    let before = dialer.dial(&address).await.expect("dialled");
    replacer
        .replace(&world.credentials(Role::Coordinator, "main"))
        .expect("replaced");
    let after = dialer.dial(&address).await.expect("dialled");
    assert_ne!(before.certificate().serial, after.certificate().serial);
    for peer in [before, after] {
        assert_eq!(peer.call(&Echo("hi".into()), PATIENCE).await.expect("answered"), "hi");
    }
    shutdown.cancel();
    soon(running).await.expect("no panic").expect("a clean end");
    let late = replacer.replace(&world.credentials(Role::Coordinator, "main"));
    assert!(matches!(late, Err(LinkError::Ending)));
}
