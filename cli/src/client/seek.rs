//! Finds the way back to the coordinator: dials again and again, several at once, until a hello is answered.
//!
//! Each try is a connection of its own: after a long cut one connection alone notices only late that the link is back, because
//! QUIC doubles the pause between its probes.

use crate::failure::Failure;
use dora_remote_link::retry;
use dora_remote_protocol::limits::{REDIAL_CAP, REDIAL_FAST, REDIAL_FAST_FOR};
use std::{future::Future, time::Duration};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

/// Dials under way at once.
const MAX_DIALS: usize = 4;
/// How often those who wait are told so.
const GLANCE: Duration = Duration::from_secs(1);

/// A dial that failed.
pub(super) struct Tried {
    /// How.
    pub(super) failure: Failure,
    /// Whether it may pass by itself.
    pub(super) passes: bool,
}

/// Dials until a dial succeeds or fails for good; with `give_up`, for that long at most. The first dial leaves at `begin`.
///
/// A change of `hurry` lets a dial leave at once. `cures` is asked when a dial fails for good, and says whether it has found a cure. `glance` is called each second.
pub(super) async fn seek<P, D, C, H>(
    mut dial: impl FnMut() -> D,
    cures: impl Fn(Failure) -> C,
    glance: impl Fn(),
    begin: Instant,
    give_up: Option<Duration>,
    hurry: &mut watch::Receiver<H>,
) -> Result<P, Failure>
where
    P: Send + 'static,
    D: Future<Output = Result<P, Tried>> + Send + 'static,
    C: Future<Output = Result<(), Failure>>,
{
    let began = Instant::now();
    let mut dials = JoinSet::new();
    let mut next = begin;
    loop {
        tokio::select! {
            biased;
            Some(tried) = dials.join_next() => match tried {
                Ok(Ok(peer)) => return Ok(peer),
                Ok(Err(Tried { failure, passes: false })) => {
                    cures(failure).await?;
                    next = Instant::now();
                }
                Ok(Err(Tried { failure, .. })) => {
                    if give_up.is_some_and(|span| began.elapsed() >= span) {
                        return Err(failure);
                    }
                }
                // A dial that broke off is as good as one that failed.
                Err(_) => {}
            },
            () = sleep_until(next), if dials.len() < MAX_DIALS => {
                dials.spawn(dial());
                next = Instant::now() + pause(began.elapsed(), retry::draw());
            }
            Ok(()) = hurry.changed() => next = Instant::now(),
            () = sleep(GLANCE) => glance(),
        }
    }
}

/// The pause before the next dial of a search that has lasted so long.
pub(super) fn pause(elapsed: Duration, draw: u64) -> Duration {
    if elapsed < REDIAL_FAST_FOR {
        // A little apart, so that all who follow one coordinator do not dial in step.
        REDIAL_FAST + retry::full_jitter(REDIAL_FAST / 2, draw)
    } else {
        // Never quite nothing: a herd must not be a storm.
        retry::full_jitter(REDIAL_CAP, draw).max(REDIAL_FAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    fn unreachable() -> Tried {
        Tried {
            failure: Failure::new(Exit::Unreachable, "nobody answers"),
            passes: true,
        }
    }

    /// Dials that take five seconds and fail, until the coordinator is back.
    async fn search(back_after: Duration, give_up: Option<Duration>) -> (Result<u32, Failure>, Duration, u32) {
        let began = Instant::now();
        let dials = Arc::new(AtomicU32::new(0));
        let dial = || {
            let number = dials.fetch_add(1, Ordering::Relaxed) + 1;
            async move {
                // A dial sends again and again while it lasts.
                for _ in 0..5 {
                    if began.elapsed() >= back_after {
                        return Ok(number);
                    }
                    sleep(Duration::from_secs(1)).await;
                }
                Err(unreachable())
            }
        };
        let found = seek(
            dial,
            |failure| async { Err(failure) },
            || {},
            began,
            give_up,
            &mut watch::channel(()).1,
        )
        .await;
        (found, began.elapsed(), dials.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_goes_on_trying_far_beyond_a_minute() {
        for (away, late) in [(5, 2), (60, 2), (110, 2), (600, 15), (36_000, 15)] {
            let (found, took, dials) = search(Duration::from_secs(away), None).await;
            assert!(found.is_ok(), "{found:?}");
            assert!(
                took <= Duration::from_secs(away + late),
                "back after {away} s, found after {took:?}"
            );
            assert!(u64::from(dials) <= away + 2, "{dials} dials in {away} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn other_commands_give_up() {
        let (found, took, _) = search(Duration::from_secs(600), Some(Duration::from_secs(60))).await;
        assert_eq!(found.map_err(|failure| failure.exit), Err(Exit::Unreachable));
        assert!(took >= Duration::from_secs(60) && took < Duration::from_secs(70), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_lasts_ends_the_search_unless_there_is_a_cure() {
        let lasting = || async {
            Err::<(), _>(Tried {
                failure: Failure::new(Exit::Certificate, "it has ended"),
                passes: false,
            })
        };
        let ended = seek(
            lasting,
            |failure| async { Err(failure) },
            || {},
            Instant::now(),
            None,
            &mut watch::channel(()).1,
        )
        .await;
        assert_eq!(ended.map_err(|failure| failure.exit), Err(Exit::Certificate));

        let tries = AtomicU32::new(0);
        let cured = || {
            let first = tries.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if first {
                    Err(Tried {
                        failure: Failure::new(Exit::Certificate, "it has ended"),
                        passes: false,
                    })
                } else {
                    Ok(())
                }
            }
        };
        let began = Instant::now();
        assert!(
            seek(cured, |_| async { Ok(()) }, || {}, began, None, &mut watch::channel(()).1)
                .await
                .is_ok()
        );
        assert!(began.elapsed() < GLANCE, "a cure is tried at once");
    }

    #[test]
    fn pauses_grow_to_their_cap_and_are_never_nothing() {
        for draw in [0, u64::MAX / 2, u64::MAX] {
            let early = pause(Duration::ZERO, draw);
            assert!(early >= REDIAL_FAST && early < REDIAL_FAST * 2, "{early:?}");
            let late = pause(REDIAL_FAST_FOR, draw);
            assert!(late >= REDIAL_FAST && late <= REDIAL_CAP, "{late:?}");
        }
    }
}
