//! How a daemon stands, for whoever has started it, such as a service manager. Nothing within the daemon depends on it.

use dora_remote_link::Peer;
use tokio::sync::watch;

/// How far a daemon has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It opens its files.
    #[default]
    Starting,
    /// It works, and is on its way to the coordinator.
    Seeking,
    /// It works, and the coordinator knows it.
    Joined,
    /// It is about to end.
    Ending,
}

/// Tells of every change of the connection, until nobody can change it any more.
pub(crate) async fn follow(mut joined: watch::Receiver<Option<Peer>>, standing: watch::Sender<Standing>) {
    loop {
        let now = if joined.borrow_and_update().is_some() {
            Standing::Joined
        } else {
            Standing::Seeking
        };
        standing.send_if_modified(|known| {
            let differs = *known != now && *known != Standing::Ending;
            if differs {
                *known = now;
            }
            differs
        });
        if joined.changed().await.is_err() {
            return;
        }
    }
}
