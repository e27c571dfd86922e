//! What was remembered against what is found: after a restart of the coordinator, and whenever a machine joins. Pure.

use crate::dataflow::{
    machine::Life,
    record::{Part, Record, StartOutcome},
    table::Table,
};
use dora_remote_protocol::{
    dataflow::{DataflowState, NodeStatus, PlacedNode},
    ids::DataflowId,
    machine::{RunPhase, RunReport},
    name::{DataflowName, MachineName},
    refusal::{Changed, Refusal, RefusalCode},
};
use std::collections::BTreeMap;

/// What to do about a machine that has joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct JoinPlan {
    /// Runs that the machine is to end and forget.
    pub(crate) unwanted: Vec<DataflowId>,
    /// Runs that nobody here remembers, to be listed from now on.
    pub(crate) adopt: Vec<RunReport>,
    /// Runs that are known to both, and how their nodes are.
    pub(crate) known: Vec<(DataflowId, Vec<NodeStatus>)>,
    /// Runs that the machine should have in hand and has not, and what is to be said of it.
    pub(crate) gone: Vec<(DataflowId, &'static str)>,
}

/// Compares what a machine reports with what is remembered of it.
pub(crate) fn on_join(table: &Table, machine: &MachineName, runs: &[RunReport]) -> JoinPlan {
    let mut plan = JoinPlan::default();
    for run in runs {
        let life = table.get(run.dataflow);
        let part = life.and_then(|life| life.record().parts.get(machine));
        match (life, part, run.phase) {
            // It was spawned, and the machine was put back to a time before that.
            (Some(life), Some(part), RunPhase::Prepared) if part.spawned && !part.ended && !life.record().state.has_ended() => {
                plan.unwanted.push(run.dataflow);
            }
            // Its logs are still on their way, and its files may be wanted.
            (Some(_), Some(_), RunPhase::Ended) => plan.known.push((run.dataflow, run.nodes.clone())),
            (Some(life), Some(part), _) if !life.record().state.has_ended() && !part.ended => {
                plan.known.push((run.dataflow, run.nodes.clone()));
            }
            (Some(life), None, RunPhase::Running | RunPhase::Stopping)
                if life.record().start_id.is_none() && !life.record().state.has_ended() =>
            {
                plan.adopt.push(run.clone());
            }
            (None, _, RunPhase::Running | RunPhase::Stopping) => plan.adopt.push(run.clone()),
            (Some(_) | None, _, _) => plan.unwanted.push(run.dataflow),
        }
    }
    for life in table.live() {
        let record = life.record();
        let Some(part) = record.parts.get(machine).filter(|part| part.prepared && !part.ended) else {
            continue;
        };
        let reported = runs.iter().find(|run| run.dataflow == record.id);
        match reported.map(|run| run.phase) {
            None => plan.gone.push((record.id, RESTARTED)),
            Some(RunPhase::Prepared) if part.spawned => plan.gone.push((record.id, PUT_BACK)),
            Some(RunPhase::Ended) if part.spawned => plan.gone.push((record.id, ENDED_UNHEARD)),
            Some(_) => {}
        }
    }
    plan
}

/// Closes the record of a start that was under way when the coordinator went down: what was ordered and what came of it is not
/// known, so it is failed here, and not wanted on the machines. True when something was changed.
pub(crate) fn after_restart(record: &mut Record, now_unix_ms: u64) -> bool {
    if record.state.has_ended() || record.start != StartOutcome::Pending {
        return false;
    }
    let text = "the coordinator restarted during the start";
    record.start = StartOutcome::Refused(
        Refusal::new(RefusalCode::Internal, text)
            .hint("start it again; machines drop what they had of it when they are back")
            .changed(Changed::Partly),
    );
    record.broken = true;
    record.notes.push(text.to_owned());
    for part in record.parts.values_mut() {
        part.ended = true;
        part.logs_shipped = true;
    }
    record.conclude(now_unix_ms);
    true
}

/// Makes a record of a run that was found on a machine and that nobody here remembers.
pub(crate) fn adopted(run: &RunReport, machine: &MachineName, name: DataflowName, now_unix_ms: u64) -> Life {
    Life::restored(Record {
        id: run.dataflow,
        name,
        state: DataflowState::Running,
        created_unix_ms: now_unix_ms,
        running_since_unix_ms: Some(now_unix_ms),
        ended_unix_ms: None,
        ended_as: None,
        started_by: "unknown (found on a machine)".to_owned(),
        start_id: None,
        start: StartOutcome::Started,
        bundle: None,
        placed: run
            .nodes
            .iter()
            .map(|node| PlacedNode {
                id: node.id.clone(),
                machine: machine.clone(),
                dynamic: false,
            })
            .collect(),
        nodes: run.nodes.clone(),
        parts: BTreeMap::from([(machine.clone(), adopted_part())]),
        stop: None,
        failures: Vec::new(),
        notes: vec!["the coordinator had no record of it and found it on a machine".to_owned()],
        broken: false,
        result: None,
        link_loss: run.link_loss,
    })
}

/// The part of a machine in a run that was found on it.
pub(crate) fn adopted_part() -> Part {
    Part {
        prepared: true,
        spawned: true,
        barrier: Some(Vec::new()),
        released: true,
        ..Part::default()
    }
}

const RESTARTED: &str = "the machine restarted without it";
const PUT_BACK: &str = "the machine knows it from before its nodes were started: its state directory was put back";
const ENDED_UNHEARD: &str = "it had ended, and how was not reported";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataflow::samples::{self, id};
    use dora_remote_protocol::dataflow::LinkLoss;

    #[test]
    fn each_report_meets_what_is_remembered() {
        let mut table = Table::default();
        for (number, state) in [
            (1, DataflowState::Running),
            (2, DataflowState::Failed),
            (3, DataflowState::Running),
            (4, DataflowState::Preparing),
            (5, DataflowState::Starting),
        ] {
            table.insert(Life::restored(samples::record_in(number, "flow", state)));
        }
        let runs = [
            report(1, RunPhase::Running),
            report(2, RunPhase::Running),
            report(8, RunPhase::Running),
            report(9, RunPhase::Prepared),
            report(10, RunPhase::Ended),
        ];
        let plan = on_join(&table, &samples::machine("a"), &runs);
        assert_eq!(plan.known.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [id(1)]);
        assert_eq!(plan.unwanted, [id(2), id(9), id(10)], "ended here, or of no use any more");
        assert_eq!(plan.adopt.iter().map(|run| run.dataflow).collect::<Vec<_>>(), [id(8)]);
        let gone: Vec<_> = plan.gone.iter().map(|(id, _)| *id).collect();
        assert_eq!(gone, [id(3), id(5)], "what is still to be prepared is not gone");
    }

    #[test]
    fn what_has_ended_is_left_alone_until_its_logs_are_here() {
        let mut table = Table::default();
        table.insert(Life::restored(samples::record_in(1, "flow", DataflowState::Finished)));
        let plan = on_join(&table, &samples::machine("a"), &[report(1, RunPhase::Ended)]);
        assert!(plan.unwanted.is_empty());
    }

    #[test]
    fn an_end_that_was_never_reported_is_found() {
        let mut table = Table::default();
        table.insert(Life::restored(samples::record_in(1, "flow", DataflowState::Running)));
        let plan = on_join(&table, &samples::machine("a"), &[report(1, RunPhase::Ended)]);
        assert_eq!(plan.gone, [(id(1), ENDED_UNHEARD)]);
    }

    #[test]
    fn a_machine_that_was_put_back_to_before_the_spawn_has_lost_its_part() {
        let mut table = Table::default();
        for (number, state) in [(1, DataflowState::Running), (2, DataflowState::Starting)] {
            table.insert(Life::restored(samples::record_in(number, "flow", state)));
        }
        let runs = [report(1, RunPhase::Prepared), report(2, RunPhase::Prepared)];
        let plan = on_join(&table, &samples::machine("a"), &runs);
        assert_eq!(plan.gone, [(id(1), PUT_BACK)]);
        assert_eq!(plan.unwanted, [id(1)], "its files are of no use any more");
        assert_eq!(
            plan.known.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
            [id(2)],
            "it waits for its spawn"
        );
    }

    #[test]
    fn another_machine_of_an_adopted_run_is_adopted_too() {
        let mut table = Table::default();
        let name = "found".parse().unwrap();
        table.insert(adopted(&report(1, RunPhase::Running), &samples::machine("b"), name, 5));
        let plan = on_join(&table, &samples::machine("a"), &[report(1, RunPhase::Running)]);
        assert_eq!(plan.adopt.len(), 1);
    }

    #[test]
    fn a_start_that_was_under_way_is_failed() {
        for (state, is_failed) in [
            (DataflowState::Preparing, true),
            (DataflowState::Starting, true),
            (DataflowState::Running, false),
            (DataflowState::Finished, false),
        ] {
            let mut record = samples::record_in(1, "flow", state);
            assert_eq!(after_restart(&mut record, 9), is_failed, "{state:?}");
            assert_eq!(record.state == DataflowState::Failed, is_failed, "{state:?}");
        }
    }

    fn report(number: u128, phase: RunPhase) -> RunReport {
        RunReport {
            dataflow: id(number),
            name: "flow".parse().unwrap(),
            phase,
            nodes: Vec::new(),
            link_loss: LinkLoss::StopAfter { silence_ms: 30_000 },
        }
    }
}
