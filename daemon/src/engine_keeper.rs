//! Keeps the engine of one place: adopts the one that a former daemon left, spawns another when it dies, and cleans up after it. An
//! older one that drains is not replaced, and ends once it has no run left.
//!
//! An engine that lives is never killed because it does not answer, as its nodes may be moving something; only one that never
//! came up is.

use crate::{
    engine_child::ChildConfig,
    engine_client::{Connection, EngineError, EngineHandle, Switchboard},
    engine_standing::Standing,
    processes,
    records::{EngineRecord, ProcessRecord},
    seat::Seat,
    store::StoreError,
    store_thread::StoreHandle,
    supervisor::{Input, SupervisorHandle},
};
use dora_remote_link::{Backoff, retry};
use dora_remote_protocol::{
    agent_to_engine::EngineOrder,
    ids::{BootId, EngineId},
    machine::EngineStatus,
};
use std::{convert::Infallible, future::pending, path::PathBuf, time::Duration};
use tokio::{
    sync::oneshot,
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

/// Time for a spawned engine to answer for the first time; one that does not is killed.
const START_DEADLINE: Duration = Duration::from_secs(90);
/// Pause between two tries to connect.
const KNOCK: Duration = Duration::from_millis(50);
/// Pause between two tries to connect to an engine that refuses us.
const KNOCK_REFUSED: Duration = Duration::from_secs(5);
/// Time for an older engine to answer the order to end.
const END_DEADLINE: Duration = Duration::from_secs(10);
/// Time for a process to be gone once its socket is.
const GONE: Duration = Duration::from_secs(2);
/// Life time below which an engine counts as one that does not last.
const LASTING: Duration = Duration::from_secs(30);
/// Pauses before another engine after one that did not last.
const RESPAWN: Backoff = Backoff {
    first: Duration::from_millis(500),
    cap: Duration::from_secs(30),
};

/// Looks after the engine of one place.
pub(crate) struct Keeper {
    /// Which.
    pub(crate) seat: Seat,
    /// Whether it is an older one, which ends with its last run.
    pub(crate) drains: bool,
    /// How engines are started.
    pub(crate) child: ChildConfig,
    /// Where the engine is remembered.
    pub(crate) store: StoreHandle,
    /// Who hears what happens.
    pub(crate) supervisor: SupervisorHandle,
    /// Where orders come from.
    pub(crate) switchboard: Switchboard,
    /// What others see of the engines.
    pub(crate) standing: Standing,
    /// This boot of the machine.
    pub(crate) boot: BootId,
    /// Once cancelled, an engine that ends is not replaced.
    pub(crate) last: CancellationToken,
}

/// An engine that lived when it was last looked at.
struct Living {
    engine: EngineId,
    process: Option<ProcessRecord>,
    /// Fires with how it ended, if it is our own child.
    ended: Option<oneshot::Receiver<String>>,
    since: Instant,
    /// Whether it has ever answered.
    answered: bool,
}

impl Keeper {
    /// Keeps an engine alive until [`Keeper::last`] is cancelled and it has ended; one that drains, until it has ended. Dropping the
    /// future leaves the engine alone.
    ///
    /// # Errors
    /// [`StoreError`] when the engine cannot be remembered.
    pub(crate) async fn run(self) -> Result<(), StoreError> {
        let mut short_lives = 0;
        let mut living = self.adopt().await?;
        loop {
            let mut present = match living.take() {
                Some(present) => present,
                None if self.drains => return self.leave().await,
                None => match self.spawn().await? {
                    Ok(present) => present,
                    Err(reason) => {
                        error!(reason, "no engine can be started");
                        self.down(reason);
                        if self.pause(&mut short_lives).await {
                            return Ok(());
                        }
                        continue;
                    }
                },
            };
            let how = self.tend(&mut present).await;
            let message = format!("the engine of machine `{}` {how}", self.child.machine);
            let orderly = self.last.is_cancelled() || (self.drains && !self.is_busy());
            if orderly {
                info!(engine = %present.engine, "the engine has ended");
            } else {
                error!(engine = %present.engine, message, "the engine is gone");
            }
            self.down(message.clone());
            self.bury(present.engine, message).await;
            if self.drains {
                return self.leave().await;
            }
            if orderly {
                return Ok(());
            }
            if present.answered && present.since.elapsed() >= LASTING {
                short_lives = 0;
            } else if self.pause(&mut short_lives).await {
                return Ok(());
            }
        }
    }

    /// Takes over the engine of a former daemon, or cleans up after it.
    async fn adopt(&self) -> Result<Option<Living>, StoreError> {
        let engines = self.store.run(crate::store::Store::engines).await?;
        let Some(record) = engines.into_iter().find(|record| record.seat == self.seat) else {
            return Ok(None);
        };
        if let Some(process) = record.living(self.boot) {
            let drains = self.drains;
            info!(engine = %record.engine, pid = process.pid, drains, "the engine that is still running is adopted");
            return Ok(Some(Living {
                engine: record.engine,
                process: Some(process),
                ended: None,
                since: Instant::now(),
                answered: true,
            }));
        }
        let message = format!(
            "the engine of machine `{}` died while its daemon was away",
            self.child.machine
        );
        self.bury(record.engine, message).await;
        Ok(None)
    }

    /// Starts an engine; the inner error says in words why there is none.
    async fn spawn(&self) -> Result<Result<Living, String>, StoreError> {
        let engine = EngineId(Uuid::new_v4());
        self.standing.present(EngineStatus::Starting);
        // Remembered before it exists: whatever it makes can then be found by its id.
        self.remember(engine, None).await?;
        let child = self.child.clone();
        let spawned = match spawn_blocking(move || child.spawn(engine)).await {
            Ok(Ok(child)) => child,
            Ok(Err(error)) => {
                let exe = self.child.exe.display();
                return Ok(Err(format!("{exe} cannot be started as the engine: {error}")));
            }
            Err(error) => return Ok(Err(format!("the engine cannot be started: {error}"))),
        };
        self.remember(engine, spawned.process).await?;
        debug!(%engine, process = ?spawned.process, "an engine is spawned");
        Ok(Ok(Living {
            engine,
            process: spawned.process,
            ended: Some(spawned.ended),
            since: Instant::now(),
            answered: false,
        }))
    }

    async fn remember(&self, engine: EngineId, process: Option<ProcessRecord>) -> Result<(), StoreError> {
        let record = EngineRecord {
            seat: self.seat,
            engine,
            process,
            boot: self.boot,
            program: processes::program(&self.child.exe),
        };
        self.store.run(move |store| store.set_engine(record)).await
    }

    /// The place of an older engine is free.
    async fn leave(&self) -> Result<(), StoreError> {
        let seat = self.seat;
        self.store.run(move |store| store.remove_engine(seat)).await?;
        self.standing.older_has_ended(seat);
        Ok(())
    }

    /// Whether a run of this engine has not ended.
    fn is_busy(&self) -> bool {
        self.supervisor.view().borrow().runs[self.seat.index()] > 0
    }

    /// Orders an engine that drains to end once it has no run left; waits for ever otherwise. `engine` leads to it.
    async fn drain(&self, engine: &EngineHandle) -> Infallible {
        let mut view = self.supervisor.view();
        loop {
            let idle = view.wait_for(|view| view.runs[self.seat.index()] == 0).await.is_ok();
            if !self.drains || !idle {
                return pending().await;
            }
            match engine.order(EngineOrder::Shutdown { force: false }, END_DEADLINE).await {
                Ok(_) => return pending().await,
                Err(refusal) => debug!(%refusal, "the older engine does not end yet"),
            }
            sleep(KNOCK_REFUSED).await;
        }
    }

    /// Talks with a living engine until it is dead; says how it ended.
    async fn tend(&self, living: &mut Living) -> String {
        let socket: PathBuf = self.child.dir.join("engine.sock");
        let mut complained = false;
        loop {
            if let Some(how) = living.dead(Duration::ZERO).await {
                return how;
            }
            let seat = self.seat;
            let resume = self
                .supervisor
                .ask(|reply| Input::EngineCursor { seat, reply })
                .await
                .flatten();
            match Connection::open(&socket, resume).await {
                Ok((connection, welcome)) if welcome.engine == living.engine => {
                    let up = EngineStatus::Up {
                        engine: welcome.engine,
                        pid: welcome.pid,
                        dora_version: welcome.dora_version.clone(),
                        older: Vec::new(),
                    };
                    (living.answered, complained) = (true, false);
                    info!(engine = %welcome.engine, pid = welcome.pid, runs = welcome.runs.len(), "the engine is up");
                    let welcome = Box::new(welcome);
                    self.supervisor.ask(|done| Input::EngineUp { seat, welcome, done }).await;
                    self.present(up);
                    let (events, acked, handle) = (
                        self.supervisor.events(),
                        self.supervisor.acked(seat),
                        self.switchboard.handle(),
                    );
                    let error = tokio::select! {
                        error = connection.run(living.engine, &self.switchboard, events, acked) => error,
                        never = self.drain(&handle) => match never {},
                    };
                    if let Some(how) = living.dead(GONE).await {
                        return how;
                    }
                    warn!(%error, "the connection to the engine is lost");
                    self.down(error.to_string());
                }
                Ok((_, welcome)) => {
                    debug!(found = %welcome.engine, expected = %living.engine, "another engine answers");
                }
                Err(EngineError::Refused(refusal)) => {
                    if !std::mem::replace(&mut complained, true) {
                        error!(%refusal, "the engine that is running refuses this daemon");
                    }
                    self.down(format!("the engine that is running refuses this daemon: {refusal}"));
                    sleep(KNOCK_REFUSED).await;
                }
                Err(error) => {
                    debug!(%error, "the engine does not answer yet");
                    if living.answered && !std::mem::replace(&mut complained, true) {
                        warn!(%error, "the engine does not answer");
                        self.down(format!("the engine does not answer: {error}"));
                    }
                }
            }
            if !living.answered && living.since.elapsed() >= START_DEADLINE {
                warn!(engine = %living.engine, "the engine did not come up and is killed");
                if let Some(process) = living.process {
                    processes::kill_hard(process);
                }
                return living
                    .dead(GONE)
                    .await
                    .unwrap_or_else(|| format!("did not come up within {} s", START_DEADLINE.as_secs()));
            }
            sleep(KNOCK).await;
        }
    }

    /// Ends what a dead engine left behind, then its runs.
    async fn bury(&self, engine: EngineId, message: String) {
        match spawn_blocking(move || processes::end_marked(engine)).await {
            Ok(0) => {}
            Ok(count) => warn!(%engine, processes = count, "processes of the dead engine were ended"),
            Err(error) => error!(%error, "cleaning up after the engine broke off"),
        }
        let seat = self.seat;
        self.supervisor.ask(|done| Input::EngineLost { seat, message, done }).await;
    }

    fn down(&self, reason: String) {
        self.present(EngineStatus::Down { reason });
    }

    /// Tells others of the engine.
    fn present(&self, status: EngineStatus) {
        if self.drains {
            self.standing.older(self.seat, status);
        } else {
            self.standing.present(status);
        }
    }

    /// Waits before the next engine; true when there is to be none.
    async fn pause(&self, short_lives: &mut u32) -> bool {
        // The first that did not last is replaced at once.
        let wait = match *short_lives {
            0 => Duration::ZERO,
            tries => RESPAWN.wait(tries, retry::draw()).max(RESPAWN.first),
        };
        *short_lives += 1;
        tokio::select! {
            biased;
            () = self.last.cancelled() => true,
            () = sleep(wait) => false,
        }
    }
}

impl Living {
    /// How it ended, if it is dead within `patience`.
    async fn dead(&mut self, patience: Duration) -> Option<String> {
        if let Some(ended) = &mut self.ended {
            let how = match timeout(patience, ended).await {
                Ok(Ok(how)) => how,
                Ok(Err(_)) => "ended".to_owned(),
                Err(_) => return None,
            };
            self.ended = None;
            self.process = None;
            return Some(how);
        }
        // Not our child: nobody tells us how it ends, only that it did.
        let deadline = Instant::now() + patience;
        while self.process.is_some_and(processes::lives) {
            if Instant::now() >= deadline {
                return None;
            }
            sleep(KNOCK).await;
        }
        Some("died".to_owned())
    }
}
