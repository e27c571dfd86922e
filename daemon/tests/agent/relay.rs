//! A UDP relay between a machine and its coordinator that can swallow everything for a while.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{net::UdpSocket, sync::watch, task::JoinSet};

/// First bits of a QUIC packet with a long header of the type Initial (RFC 9000 section 17.2.2).
const INITIAL: (u8, u8) = (0xf0, 0xc0);

/// A running relay; ends when it is dropped.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    cut: Arc<AtomicBool>,
    initials: watch::Receiver<u32>,
    _tasks: JoinSet<()>,
}

impl Relay {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("bound"));
        let address = front.local_addr().expect("bound");
        let cut = Arc::new(AtomicBool::new(false));
        let (count, initials) = watch::channel(0);
        let mut tasks = JoinSet::new();
        let is_cut = Arc::clone(&cut);
        tasks.spawn(async move {
            let mut ways: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
            let mut back = JoinSet::new();
            let mut buffer = vec![0; 65_536];
            loop {
                let (bytes, from) = front.recv_from(&mut buffer).await.expect("received");
                if is_cut.load(Ordering::Relaxed) {
                    if buffer[0] & INITIAL.0 == INITIAL.1 {
                        count.send_modify(|count| *count += 1);
                    }
                    continue;
                }
                let way = match ways.get(&from) {
                    Some(way) => Arc::clone(way),
                    None => {
                        let way = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("bound"));
                        way.connect(server).await.expect("connected");
                        ways.insert(from, Arc::clone(&way));
                        back.spawn(bring_back(Arc::clone(&way), Arc::clone(&front), from, Arc::clone(&is_cut)));
                        way
                    }
                };
                let _ = way.send(&buffer[..bytes]).await;
            }
        });
        Self {
            address,
            cut,
            initials,
            _tasks: tasks,
        }
    }

    pub(crate) fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    /// Waits until so many first packets of new connections were swallowed.
    pub(crate) async fn swallowed(&mut self, count: u32) {
        let waiting = self.initials.wait_for(|initials| *initials >= count);
        let waiting = tokio::time::timeout(std::time::Duration::from_secs(60), waiting);
        waiting.await.expect("new connections are tried").expect("the relay runs");
    }
}

async fn bring_back(way: Arc<UdpSocket>, front: Arc<UdpSocket>, to: SocketAddr, is_cut: Arc<AtomicBool>) {
    let mut buffer = vec![0; 65_536];
    loop {
        // A server that is gone shows as an error here, and may come back.
        let Ok(bytes) = way.recv(&mut buffer).await else {
            continue;
        };
        if !is_cut.load(Ordering::Relaxed) {
            front.send_to(&buffer[..bytes], to).await.expect("sent");
        }
    }
}
