//! Carries out what the agent orders.
//!
//! The agent asks again after its own restart or a lost connection, so that an order whose effect is already there is fulfilled
//! without doing it twice.

use crate::{check, engine::Engine, processes, runs::Run, spawn};
use dora_message::{coordinator_to_daemon::DaemonCoordinatorEvent, daemon_to_coordinator::DaemonCoordinatorReply};
use dora_remote_protocol::{
    agent_to_engine::{EngineOrder, RunOrder},
    engine_to_agent::EngineReply,
    frame,
    ids::{DataflowId, NodeId},
    limits::{MAX_FRAME_BYTES, MAX_HEADER_BYTES, MAX_LIVE_DATAFLOWS, SPAWN_DEADLINE},
    machine::RunPhase,
    refusal::{Changed, Refusal, RefusalCode},
};
use std::{fmt::Display, path::Path, sync::Arc, time::Duration};
use tokio::time::{timeout, timeout_at};

/// Time for the check of one run: it reads a few files and runs `python --version`, or `uv`, which may be slow the first time.
const CHECK_DEADLINE: Duration = Duration::from_secs(60);
/// Time for killed runs to end when the engine is ordered to end; what is left then is killed without dora.
const END_DEADLINE: Duration = Duration::from_secs(8);
/// Runs in hand, those that ended and were not forgotten included.
const MAX_RUNS: usize = 2 * MAX_LIVE_DATAFLOWS;

/// Carries out one order.
pub(crate) async fn carry_out(engine: &Arc<Engine>, order: EngineOrder) -> Result<EngineReply, Refusal> {
    if engine.state().closing && !matches!(order, EngineOrder::Shutdown { .. }) {
        return Err(Refusal::new(RefusalCode::ShuttingDown, "the engine is ending"));
    }
    let dataflow = match &order {
        EngineOrder::Check(order) => order.dataflow,
        EngineOrder::Spawn { dataflow }
        | EngineOrder::Release { dataflow, .. }
        | EngineOrder::Stop { dataflow, .. }
        | EngineOrder::Forget { dataflow }
        | EngineOrder::Inspect { dataflow } => *dataflow,
        EngineOrder::Shutdown { force } => return shutdown(engine, *force).await,
    };
    let turn = engine.turn(dataflow);
    let held = turn.lock().await;
    let result = match order {
        EngineOrder::Check(order) => check_run(engine, order).await,
        EngineOrder::Spawn { dataflow } => spawn_run(engine, dataflow).await,
        EngineOrder::Release {
            dataflow,
            exited_before_subscribe,
        } => release(engine, dataflow, &exited_before_subscribe).await,
        EngineOrder::Stop {
            dataflow,
            grace_ms,
            force,
        } => stop(engine, dataflow, grace_ms.map(Duration::from_millis), force).await,
        EngineOrder::Forget { dataflow } => forget(engine, dataflow),
        EngineOrder::Inspect { dataflow } => inspect(engine, dataflow),
        EngineOrder::Shutdown { force } => shutdown(engine, force).await,
    };
    drop(held);
    engine.end_turn(dataflow, turn);
    result
}

/// Kills all runs and lets the engine end. Also what SIGTERM means.
pub(crate) async fn shutdown(engine: &Arc<Engine>, force: bool) -> Result<EngineReply, Refusal> {
    let live = {
        let mut state = engine.state();
        let live = state.runs.live();
        if !live.is_empty() && !force {
            let message = format!("{} dataflows have processes", live.len());
            return Err(Refusal::new(RefusalCode::WrongState, message).hint("stop them first, or end the engine with force"));
        }
        state.closing = true;
        live
    };
    let mut news = engine.news();
    let deadline = tokio::time::Instant::now() + END_DEADLINE;
    for dataflow in live {
        // Whatever dora answers, the run must end; the sweep below sees to it.
        if let Err(refusal) = stop(engine, dataflow, None, true).await {
            tracing::warn!(%dataflow, %refusal, "a dataflow could not be stopped in order");
        }
    }
    while !engine.state().runs.live().is_empty() {
        if timeout_at(deadline, news.changed()).await.is_err() {
            tracing::warn!(engine = %engine.id, "dataflows did not end in time; killing their processes");
            break;
        }
    }
    let id = engine.id;
    let _ = tokio::task::spawn_blocking(move || processes::sweep(id)).await;
    Ok(EngineReply::Done)
}

async fn check_run(engine: &Arc<Engine>, order: RunOrder) -> Result<EngineReply, Refusal> {
    if !order.machine.same_as(&engine.machine) {
        let message = format!(
            "the order is for machine `{}`, and this is `{}`",
            order.machine, engine.machine
        );
        return Err(Refusal::new(RefusalCode::BadRequest, message));
    }
    {
        let state = engine.state();
        if let Some(run) = state.runs.get(order.dataflow) {
            if run.phase != RunPhase::Prepared {
                return Err(wrong_state(run, "checked"));
            }
        } else if state.runs.len() >= MAX_RUNS {
            return Err(Refusal::new(
                RefusalCode::Busy,
                format!("the engine has {MAX_RUNS} dataflows in hand"),
            ));
        }
    }
    let task = tokio::task::spawn_blocking(move || check::check(&order).map(|checked| (order, checked)));
    let (order, checked) = match timeout(CHECK_DEADLINE, task).await {
        Ok(Ok(checked)) => checked?,
        Ok(Err(error)) => return Err(internal("the check of the dataflow broke off", &error)),
        Err(_) => {
            let message = format!("the check of the dataflow took longer than {} s", CHECK_DEADLINE.as_secs());
            return Err(Refusal::new(RefusalCode::DeadlineExceeded, message));
        }
    };
    let run = Run::new(order, Arc::new(checked));
    let outputs = run.outputs().to_vec();
    engine.state().runs.insert(run);
    Ok(EngineReply::Checked { outputs })
}

/// Tells what a checked run would start.
fn inspect(engine: &Engine, dataflow: DataflowId) -> Result<EngineReply, Refusal> {
    let state = engine.state();
    let run = state.runs.get(dataflow).ok_or_else(|| not_found(dataflow))?;
    let facts = match (run.phase, &run.checked) {
        (RunPhase::Prepared, Some(checked)) => checked.facts.clone(),
        _ => return Err(wrong_state(run, "inspected")),
    };
    let reply = EngineReply::Facts(facts);
    // Room for what stands around it.
    if frame::encode(&reply, MAX_FRAME_BYTES - MAX_HEADER_BYTES).is_err() {
        let message = format!("the paths of dataflow `{}` are too long to be told", run.order.name);
        return Err(Refusal::new(RefusalCode::BadDescriptor, message));
    }
    Ok(reply)
}

async fn spawn_run(engine: &Arc<Engine>, dataflow: DataflowId) -> Result<EngineReply, Refusal> {
    let (order, checked) = {
        let mut state = engine.state();
        // Looked at again under the lock: an end that was ordered by now has counted the processes already.
        if state.closing {
            return Err(Refusal::new(RefusalCode::ShuttingDown, "the engine is ending"));
        }
        let run = state.runs.get_mut(dataflow).ok_or_else(|| not_found(dataflow))?;
        match (run.phase, &run.spawn_failed, &run.checked) {
            (_, Some(why), _) => return Err(spawn_failed(why)),
            (RunPhase::AtBarrier | RunPhase::Running, None, _) => return Ok(EngineReply::Done),
            (RunPhase::Prepared, None, Some(checked)) => {
                let checked = Arc::clone(checked);
                run.phase = RunPhase::Spawning;
                (run.order.clone(), checked)
            }
            _ => return Err(wrong_state(run, "spawned")),
        }
    };
    // Dora's daemon drops its connection when this directory is gone, and all dataflows with it.
    if !Path::new(&order.run_dir).is_dir() {
        let why = format!("machine `{}`: directory {} does not exist", order.machine, order.run_dir);
        end_without_dora(engine, dataflow, Some(&why));
        return Err(Refusal::new(RefusalCode::NotPrepared, why));
    }
    let settled = engine.await_spawn(dataflow);
    let answer = engine
        .ask(DaemonCoordinatorEvent::Spawn(spawn::command(
            &order,
            &checked,
            engine.node_log_bytes,
        )))
        .await;
    match answer {
        Ok(DaemonCoordinatorReply::TriggerSpawnResult(Ok(()))) => {}
        Ok(DaemonCoordinatorReply::TriggerSpawnResult(Err(why))) => {
            let why = crate::translate::tidy(&why);
            end_without_dora(engine, dataflow, Some(&why));
            return Err(spawn_failed(&why));
        }
        Ok(other) => return Err(internal("dora's daemon answered another question", &format!("{other:?}"))),
        Err(error) => return Err(internal("the dataflow could not be spawned", &error).changed(Changed::Unknown)),
    }
    match timeout(SPAWN_DEADLINE, settled).await {
        Ok(Ok(Ok(()))) => Ok(EngineReply::Done),
        Ok(Ok(Err(why))) => {
            // Dora leaves the nodes that it could make; they would wait for ever for the one that it could not.
            let live = engine.state().runs.get(dataflow).is_some_and(Run::is_live);
            if live {
                let _ = stop(engine, dataflow, None, true).await;
            }
            Err(spawn_failed(&why))
        }
        Ok(Err(_)) => Err(internal("dora's daemon is gone", &"its connection closed").changed(Changed::Unknown)),
        Err(_) => {
            let message = format!("not all processes existed after {} s", SPAWN_DEADLINE.as_secs());
            Err(Refusal::new(RefusalCode::DeadlineExceeded, message).changed(Changed::Partly))
        }
    }
}

async fn release(engine: &Arc<Engine>, dataflow: DataflowId, exited: &[NodeId]) -> Result<EngineReply, Refusal> {
    {
        let mut state = engine.state();
        let run = state.runs.get_mut(dataflow).ok_or_else(|| not_found(dataflow))?;
        match run.phase {
            RunPhase::AtBarrier => run.phase = RunPhase::Running,
            RunPhase::Running => return Ok(EngineReply::Done),
            RunPhase::Prepared | RunPhase::Spawning | RunPhase::Stopping | RunPhase::Ended => {
                return Err(wrong_state(run, "released"));
            }
        }
    }
    let exited_before_subscribe = exited.iter().filter_map(|node| node.as_str().parse().ok()).collect();
    let event = DaemonCoordinatorEvent::AllNodesReady {
        dataflow_id: dataflow.0,
        exited_before_subscribe,
    };
    engine
        .command(event)
        .await
        .map_err(|error| internal("the nodes could not be let go", &error).changed(Changed::Unknown))?;
    Ok(EngineReply::Done)
}

async fn stop(
    engine: &Arc<Engine>,
    dataflow: DataflowId,
    grace_duration: Option<Duration>,
    force: bool,
) -> Result<EngineReply, Refusal> {
    let again = {
        let mut state = engine.state();
        let run = state.runs.get_mut(dataflow).ok_or_else(|| not_found(dataflow))?;
        let again = run.phase == RunPhase::Stopping;
        match run.phase {
            RunPhase::Ended => return Ok(EngineReply::Done),
            RunPhase::Prepared => {
                let events = run.end_without_dora(None);
                engine.tell(&mut state, Some(dataflow), events);
                return Ok(EngineReply::Done);
            }
            RunPhase::Spawning | RunPhase::AtBarrier | RunPhase::Running | RunPhase::Stopping => run.phase = RunPhase::Stopping,
        }
        if again && force {
            // The first stop took the handles of the processes away from dora, so that a second one cannot hurry it.
            for (node, pid) in run.processes() {
                if processes::kill_own_group(pid) {
                    run.was_killed(node);
                }
            }
        }
        again
    };
    let event = DaemonCoordinatorEvent::StopDataflow {
        dataflow_id: dataflow.0,
        grace_duration,
        force,
    };
    match engine.ask(event).await {
        Ok(DaemonCoordinatorReply::StopResult(Ok(()))) => Ok(EngineReply::Done),
        // Dora knows no such dataflow: it has ended, and the word of it is on its way.
        Ok(DaemonCoordinatorReply::StopResult(Err(why))) => {
            tracing::debug!(%dataflow, why, again, "stopped a dataflow that dora has no more");
            Ok(EngineReply::Done)
        }
        Ok(other) => Err(internal("dora's daemon answered another question", &format!("{other:?}"))),
        Err(error) => Err(internal("the dataflow could not be stopped", &error).changed(Changed::Unknown)),
    }
}

fn forget(engine: &Arc<Engine>, dataflow: DataflowId) -> Result<EngineReply, Refusal> {
    let mut state = engine.state();
    if let Some(run) = state.runs.get(dataflow).filter(|run| run.is_live()) {
        return Err(wrong_state(run, "forgotten").hint("stop it first"));
    }
    state.runs.remove(dataflow);
    state.spawns.remove(&dataflow);
    Ok(EngineReply::Done)
}

fn end_without_dora(engine: &Engine, dataflow: DataflowId, why: Option<&str>) {
    let mut state = engine.state();
    let events = state
        .runs
        .get_mut(dataflow)
        .map_or_else(Vec::new, |run| run.end_without_dora(why));
    engine.tell(&mut state, Some(dataflow), events);
}

fn not_found(dataflow: DataflowId) -> Refusal {
    Refusal::new(
        RefusalCode::NotFound,
        format!("the engine has no dataflow {dataflow} in hand"),
    )
}

fn wrong_state(run: &Run, what: &str) -> Refusal {
    let message = format!("dataflow `{}` cannot be {what}: it is {:?}", run.order.name, run.phase);
    Refusal::new(RefusalCode::WrongState, message)
}

fn spawn_failed(why: &str) -> Refusal {
    Refusal::new(RefusalCode::SpawnFailed, why)
}

fn internal(what: &str, why: &dyn Display) -> Refusal {
    tracing::error!(%why, "{what}");
    Refusal::new(RefusalCode::Internal, format!("{what}: {why}"))
}
