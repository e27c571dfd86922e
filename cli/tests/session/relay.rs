//! A line to the coordinator that can fall silent.

use crate::coordinator::Coordinator;
use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Carries datagrams between clients and a coordinator, and can stop to do so for those clients that it knows. Its threads end
/// with the process.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    muted: Arc<Mutex<Vec<Arc<AtomicBool>>>>,
}

impl Relay {
    /// One in front of that coordinator.
    pub(crate) fn before(coordinator: &Coordinator) -> Self {
        let to = coordinator.address;
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").expect("bound"));
        let relay = Self {
            address: front.local_addr().expect("bound"),
            muted: Arc::default(),
        };
        let muted = Arc::clone(&relay.muted);
        thread::spawn(move || {
            let mut backs: BTreeMap<SocketAddr, (Arc<UdpSocket>, Arc<AtomicBool>)> = BTreeMap::new();
            let mut buffer = [0; 2048];
            while let Ok((length, client)) = front.recv_from(&mut buffer) {
                let (back, mute) = backs.entry(client).or_insert_with(|| {
                    let back = Arc::new(UdpSocket::bind("127.0.0.1:0").expect("bound"));
                    back.connect(to).expect("connected");
                    let mute = Arc::new(AtomicBool::new(false));
                    muted.lock().expect("no panic").push(Arc::clone(&mute));
                    let (front, inner, mute_inner) = (Arc::clone(&front), Arc::clone(&back), Arc::clone(&mute));
                    thread::spawn(move || {
                        let mut buffer = [0; 2048];
                        while let Ok(length) = inner.recv(&mut buffer) {
                            if !mute_inner.load(Ordering::Relaxed) {
                                let _ = front.send_to(&buffer[..length], client);
                            }
                        }
                    });
                    (back, mute)
                });
                if !mute.load(Ordering::Relaxed) {
                    let _ = back.send(&buffer[..length]);
                }
            }
        });
        relay
    }

    /// Says nothing more to those who have talked so far, nor passes on what they say.
    pub(crate) fn mute(&self) {
        for client in self.muted.lock().expect("no panic").iter() {
            client.store(true, Ordering::Relaxed);
        }
    }
}
