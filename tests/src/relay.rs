//! A network between a peer and the coordinator, in user space: it delays, drops, reorders, doubles, throttles, cuts, and moves peers
//! to another port or address, as Wi-Fi, mobile networks and NAT do.
//!
//! Peers dial [`Relay::address`]; for each of them the relay speaks to the coordinator from a socket of its own, as a NAT does. What
//! happens to a packet is decided by a generator whose seed whoever starts a relay prints, and takes from `DORA_REMOTE_RELAY_SEED` when
//! that is set.

mod line;
mod random;

pub use line::{Counts, Weather};
pub use random::{Random, seed};

use line::{Line, Parcel};
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Peers that the relay remembers at once. Full: the one that was silent longest is forgotten.
const MAX_PEERS: usize = 64;
/// Longest wait of a thread before it looks whether the relay has ended.
const GLANCE: Duration = Duration::from_millis(50);
/// Longest datagram.
const MAX_DATAGRAM: usize = 65_536;

/// A relay in front of one coordinator. Ends, with its threads, when it is dropped.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    address: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Where peers dial.
    front: UdpSocket,
    /// Where the coordinator listens.
    target: SocketAddr,
    line: Line,
    peers: Mutex<Peers>,
    over: AtomicBool,
}

/// Which peer the relay speaks for from which socket.
#[derive(Debug)]
struct Peers {
    known: BTreeMap<SocketAddr, Known>,
    /// Address from which the relay speaks to the coordinator.
    from: Ipv4Addr,
}

#[derive(Debug)]
struct Known {
    back: Arc<Back>,
    heard: Instant,
}

/// A socket towards the coordinator. Its reader ends when nobody else holds it.
#[derive(Debug)]
struct Back {
    socket: UdpSocket,
    over: AtomicBool,
}

impl Relay {
    /// Starts a relay on loopback in front of `target`, `IP:PORT` on loopback, with fair weather. See [`seed`] for a fresh seed.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn start(target: &str, seed: u64) -> Self {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        front.set_read_timeout(Some(GLANCE)).expect("a time above zero");
        let address = front.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            front,
            target: target.parse().expect("an address of loopback"),
            line: Line::new(seed),
            peers: Mutex::new(Peers {
                known: BTreeMap::new(),
                from: Ipv4Addr::LOCALHOST,
            }),
            over: AtomicBool::new(false),
        });
        let (reading, sending) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            std::thread::spawn(move || reading.read_front()),
            std::thread::spawn(move || sending.line.deliver(&sending.front, &sending.over)),
        ];
        Self {
            shared,
            address,
            threads,
        }
    }

    /// Where peers dial: `IP:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Drops everything from now on, silently, also what is under way.
    pub fn cut(&self) {
        self.shared.line.set_cut(true);
    }

    /// Ends a cut, and says when.
    #[must_use = "the moment is what the return is measured from"]
    pub fn heal(&self) -> Instant {
        self.shared.line.set_cut(false);
        Instant::now()
    }

    /// Sets the weather of both directions.
    pub fn set_weather(&self, weather: Weather) {
        self.shared.line.set_weather(weather);
    }

    /// Speaks from other ports from now on, as a NAT that has forgotten its table. What comes to the old ones is lost.
    pub fn rebind_ports(&self) {
        let mut peers = self.shared.peers();
        for known in peers.known.values() {
            known.back.over.store(true, Ordering::Relaxed);
        }
        let (from, readers) = (peers.from, Arc::clone(&self.shared));
        for (peer, known) in &mut peers.known {
            known.back = readers.back(*peer, from).expect("a free port");
        }
    }

    /// Speaks from another address of loopback from now on, as a peer that comes from another network.
    pub fn move_to_another_address(&self) {
        {
            let mut peers = self.shared.peers();
            let [.., last] = peers.from.octets();
            peers.from = Ipv4Addr::new(127, 0, 0, if last >= 200 { 2 } else { last + 1 });
        }
        self.rebind_ports();
    }

    /// What went through since the start: to the coordinator, and from it.
    #[must_use]
    pub fn counts(&self) -> [Counts; 2] {
        self.shared.line.counts()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for known in self.shared.peers().known.values() {
            known.back.over.store(true, Ordering::Relaxed);
        }
        self.shared.line.wake();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what peers send until the relay ends.
    fn read_front(self: &Arc<Self>) {
        let mut buffer = vec![0; MAX_DATAGRAM];
        while !self.over.load(Ordering::Relaxed) {
            let Some((bytes, peer)) = received(self.front.recv_from(&mut buffer)) else {
                continue;
            };
            if let Ok(back) = self.back_of(peer) {
                self.line.take(Parcel::up(buffer[..bytes].to_vec(), back));
            }
        }
    }

    /// The socket that speaks for a peer.
    fn back_of(self: &Arc<Self>, peer: SocketAddr) -> io::Result<Arc<Back>> {
        let mut peers = self.peers();
        if let Some(known) = peers.known.get_mut(&peer) {
            known.heard = Instant::now();
            return Ok(Arc::clone(&known.back));
        }
        if peers.known.len() >= MAX_PEERS {
            let longest = peers.known.iter().min_by_key(|(_, known)| known.heard).map(|(peer, _)| *peer);
            if let Some(forgotten) = longest.and_then(|peer| peers.known.remove(&peer)) {
                forgotten.back.over.store(true, Ordering::Relaxed);
            }
        }
        let back = self.back(peer, peers.from)?;
        let known = Known {
            back: Arc::clone(&back),
            heard: Instant::now(),
        };
        peers.known.insert(peer, known);
        Ok(back)
    }

    /// A new socket that speaks for a peer, and the thread that reads the answers.
    fn back(self: &Arc<Self>, peer: SocketAddr, from: Ipv4Addr) -> io::Result<Arc<Back>> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect(self.target)?;
        socket.set_read_timeout(Some(GLANCE))?;
        let back = Arc::new(Back {
            socket,
            over: AtomicBool::new(false),
        });
        let (shared, reading) = (Arc::clone(self), Arc::clone(&back));
        std::thread::spawn(move || {
            let mut buffer = vec![0; MAX_DATAGRAM];
            while !reading.over.load(Ordering::Relaxed) && !shared.over.load(Ordering::Relaxed) {
                if let Some(bytes) = received(reading.socket.recv(&mut buffer)) {
                    // What came while the port was given up is lost with it.
                    if !reading.over.load(Ordering::Relaxed) {
                        shared.line.take(Parcel::down(buffer[..bytes].to_vec(), peer));
                    }
                }
            }
        });
        Ok(back)
    }
}

/// What was received. Nothing when the time was over, or when the other side is away: a coordinator that is dead answers with ICMP.
fn received<T>(result: io::Result<T>) -> Option<T> {
    result.ok()
}

#[cfg(test)]
mod tests;
