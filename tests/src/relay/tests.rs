//! The relay against an echo on loopback.

use super::*;
use crate::patience;

/// A socket that sends everything back and remembers who sent it.
struct Echo {
    address: String,
    seen: Arc<Mutex<Vec<SocketAddr>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.set_read_timeout(Some(GLANCE)).expect("a time above zero");
        let address = socket.local_addr().expect("a bound socket").to_string();
        let (seen, over) = (Arc::new(Mutex::new(vec![])), Arc::new(AtomicBool::new(false)));
        let (note, end) = (Arc::clone(&seen), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !end.load(Ordering::Relaxed) {
                if let Ok((bytes, from)) = socket.recv_from(&mut buffer) {
                    note.lock().expect("no panic").push(from);
                    socket.send_to(&buffer[..bytes], from).expect("loopback");
                }
            }
        });
        Self {
            address,
            seen,
            over,
            thread: Some(thread),
        }
    }

    fn senders(&self) -> Vec<SocketAddr> {
        let mut seen = self.seen.lock().expect("no panic").clone();
        seen.dedup();
        seen
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn peer(relay: &Relay) -> UdpSocket {
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    peer.connect(relay.address()).expect("loopback");
    peer.set_read_timeout(Some(GLANCE)).expect("a time above zero");
    peer
}

/// Sends until an answer comes.
fn asked(peer: &UdpSocket) {
    patience::until_true("an answer through the relay", || {
        peer.send(b"hello").expect("loopback");
        peer.recv(&mut [0; 16]).is_ok()
    });
}

#[test]
fn moves_a_peer_to_another_port_and_to_another_address() {
    let echo = Echo::start();
    let relay = Relay::start(&echo.address, 1);
    let peer = peer(&relay);
    asked(&peer);
    relay.rebind_ports();
    asked(&peer);
    relay.move_to_another_address();
    asked(&peer);
    let senders = echo.senders();
    let [first, second, third] = senders[..] else {
        panic!("{senders:?}")
    };
    assert_eq!(first.ip(), second.ip());
    assert_ne!(first.port(), second.port());
    assert_eq!(third.ip().to_string(), "127.0.0.2");
}

#[test]
fn a_cut_drops_everything_silently_and_a_heal_ends_it() {
    let echo = Echo::start();
    let relay = Relay::start(&echo.address, 2);
    let peer = peer(&relay);
    asked(&peer);
    let before = relay.counts()[0];
    relay.cut();
    for _ in 0..5 {
        peer.send(b"hello").expect("loopback");
    }
    patience::until_true("the packets at the relay", || relay.counts()[0].packets == before.packets + 5);
    assert_eq!(relay.counts()[0].dropped, before.dropped + 5);
    assert_eq!(echo.senders().len(), 1);
    let _ = relay.heal();
    asked(&peer);
}
