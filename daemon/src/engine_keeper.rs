//! Keeps one engine alive: adopts the one that a former daemon left, spawns another when it dies, and cleans up after it.
//!
//! An engine that lives is never killed because it does not answer, as its nodes may be moving something; only one that never
//! came up is.

use crate::{
    engine_child::ChildConfig,
    engine_client::{Connection, EngineError, Switchboard},
    processes,
    records::{EngineRecord, ProcessRecord},
    store::StoreError,
    store_thread::StoreHandle,
    supervisor::{Input, SupervisorHandle},
};
use dora_remote_link::{Backoff, retry};
use dora_remote_protocol::{
    ids::{BootId, EngineId},
    machine::EngineStatus,
};
use std::{path::PathBuf, time::Duration};
use tokio::{
    sync::{oneshot, watch},
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
/// Time for a process to be gone once its socket is.
const GONE: Duration = Duration::from_secs(2);
/// Life time below which an engine counts as one that does not last.
const LASTING: Duration = Duration::from_secs(30);
/// Pauses before another engine after one that did not last.
const RESPAWN: Backoff = Backoff {
    first: Duration::from_millis(500),
    cap: Duration::from_secs(30),
};

/// Looks after the engine.
pub(crate) struct Keeper {
    /// How engines are started.
    pub(crate) child: ChildConfig,
    /// Where the engine is remembered.
    pub(crate) store: StoreHandle,
    /// Who hears what happens.
    pub(crate) supervisor: SupervisorHandle,
    /// Where orders come from.
    pub(crate) switchboard: Switchboard,
    /// What others see of the engine.
    pub(crate) status: watch::Sender<EngineStatus>,
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
    /// Keeps an engine alive until [`Keeper::last`] is cancelled and it has ended. Dropping the future leaves the engine alone.
    ///
    /// # Errors
    /// [`StoreError`] when the engine cannot be remembered.
    pub(crate) async fn run(self) -> Result<(), StoreError> {
        let mut short_lives = 0;
        let mut living = self.adopt().await?;
        loop {
            let mut present = match living.take() {
                Some(present) => present,
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
            let orderly = self.last.is_cancelled();
            if orderly {
                info!(engine = %present.engine, "the engine has ended");
            } else {
                error!(engine = %present.engine, message, "the engine is gone");
            }
            self.down(message.clone());
            self.bury(present.engine, message).await;
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
        let Some(record) = self.store.run(crate::store::Store::engine).await? else {
            return Ok(None);
        };
        let process = record
            .process
            .filter(|process| record.boot == self.boot && processes::lives(*process));
        if let Some(process) = process {
            info!(engine = %record.engine, pid = process.pid, "the engine that is still running is adopted");
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
        self.status.send_replace(EngineStatus::Starting);
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
            engine,
            process,
            boot: self.boot,
        };
        self.store.run(move |store| store.set_engine(&record)).await
    }

    /// Talks with a living engine until it is dead; says how it ended.
    async fn tend(&self, living: &mut Living) -> String {
        let socket: PathBuf = self.child.dir.join("engine.sock");
        let mut complained = false;
        loop {
            if let Some(how) = living.dead(Duration::ZERO).await {
                return how;
            }
            let resume = self.supervisor.ask(Input::EngineCursor).await.flatten();
            match Connection::open(&socket, resume).await {
                Ok((connection, welcome)) if welcome.engine == living.engine => {
                    let up = EngineStatus::Up {
                        engine: welcome.engine,
                        pid: welcome.pid,
                        dora_version: welcome.dora_version.clone(),
                    };
                    (living.answered, complained) = (true, false);
                    info!(engine = %welcome.engine, pid = welcome.pid, runs = welcome.runs.len(), "the engine is up");
                    let welcome = Box::new(welcome);
                    self.supervisor.ask(|done| Input::EngineUp { welcome, done }).await;
                    self.status.send_replace(up);
                    let (events, acked) = (self.supervisor.events(), self.supervisor.acked());
                    let error = connection.run(living.engine, &self.switchboard, events, acked).await;
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
        self.supervisor.ask(|done| Input::EngineLost { message, done }).await;
    }

    fn down(&self, reason: String) {
        self.status.send_replace(EngineStatus::Down { reason });
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
