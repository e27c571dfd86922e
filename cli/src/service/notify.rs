//! What a server tells the service manager that started it: that it is up, how it stands, that its loop still turns, and that
//! it ends. Protocol: `sd_notify(3)`. Without a service manager nothing is told to anybody.

use dora_remote_daemon::Standing;
use sd_notify::NotifyState;
use std::{convert::Infallible, future::pending, time::Duration};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

/// Says that the server is up, and how it stands.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says how the server stands.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// Says that the server is about to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("ending")]);
}

/// Says twice in each interval of the watchdog that the runtime which polls this still turns. Never ends. Cancel safe.
///
/// It must be polled by the loop that does the work: a loop that hangs is then found out, and the service is started again.
pub async fn alive() -> Infallible {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return pending().await;
    };
    let mut ticks = interval((limit / 2).max(SHORTEST));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

/// Tells how a daemon stands, from its first word on, until it is gone. Ends only then. Cancel safe.
pub async fn follow(mut standing: watch::Receiver<Standing>, coordinator: &str) {
    let mut is_up = false;
    while standing.changed().await.is_ok() {
        let now = *standing.borrow_and_update();
        let text = match now {
            Standing::Starting => "starting".to_owned(),
            Standing::Seeking => format!("on the way to {coordinator}"),
            Standing::Joined => format!("joined {coordinator}"),
            Standing::Ending => {
                stopping();
                continue;
            }
        };
        // It is up once it can work; whether the coordinator can be reached is another matter.
        if is_up || now == Standing::Starting {
            status(&text);
        } else {
            is_up = true;
            ready(&text);
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // A service manager that cannot be told finds out by itself; the work goes on.
    let _ = sd_notify::notify(states);
}

/// Shortest time between two signs of life.
const SHORTEST: Duration = Duration::from_millis(10);
