//! Scripts of what happens, and the commands that must follow; then random ones, after which every start must have ended.

use super::{Command, Input, Life, Order, OrderKind, Outcome, StopVerdict};
use crate::{
    dataflow::{record::StartOutcome, samples},
    moment::Moment,
};
use dora_remote_protocol::{
    dataflow::{DataflowEvent, DataflowState, FailureCause, NodeFailure, NodeState},
    limits::{BARRIER_DEADLINE, ORDER_DEADLINE, PREPARE_DEADLINE, SPAWN_DEADLINE},
    machine::Lifecycle,
    refusal::{Changed, Refusal, RefusalCode},
};
use proptest::prelude::*;
use std::time::{Duration, Instant};

mod link_loss;

#[test]
fn one_machine_runs_without_a_barrier() {
    let mut flow = Flow::new(&["a"]);
    assert_eq!(flow.begin(), ["a: Prepare"]);
    assert_eq!(flow.answer("a", OrderKind::Prepare, Outcome::Done), ["a: Spawn"]);
    assert_eq!(flow.answer("a", OrderKind::Spawn, Outcome::Done), ["started"]);
    assert_eq!(flow.state(), DataflowState::Running);
    assert_eq!(flow.finish("a", vec![]), ["ended"]);
    assert_eq!(flow.state(), DataflowState::Finished);
    let result = flow.life.record().result.clone().unwrap();
    assert!(result.success && !result.stopped && result.failures.is_empty());
}

#[test]
fn nothing_is_ordered_before_the_record_is_on_disk() {
    let mut flow = Flow::new(&["a"]);
    assert!(flow.step(Input::Tick).is_empty());
    assert_eq!(flow.begin(), ["a: Prepare"]);
}

#[test]
fn several_machines_spawn_together_and_meet_at_the_barrier() {
    let mut flow = Flow::new(&["a", "b"]);
    assert_eq!(flow.begin(), ["a: Prepare", "b: Prepare"]);
    assert!(flow.answer("b", OrderKind::Prepare, Outcome::Done).is_empty());
    assert_eq!(flow.answer("a", OrderKind::Prepare, Outcome::Done), ["a: Spawn", "b: Spawn"]);
    // The barrier may be reached before the spawn is answered.
    assert!(flow.barrier("a", &["n-a"]).is_empty());
    assert!(flow.answer("a", OrderKind::Spawn, Outcome::Done).is_empty());
    assert!(flow.answer("b", OrderKind::Spawn, Outcome::Done).is_empty());
    assert_eq!(flow.barrier("b", &[]), ["started", "a: Release n-a", "b: Release n-a"]);
    assert_eq!(flow.state(), DataflowState::Running);
    flow.answer("a", OrderKind::Release, Outcome::Done);
    flow.answer("b", OrderKind::Release, Outcome::Done);
    assert!(flow.finish("a", vec![]).is_empty(), "a clean end waits for the others");
    assert_eq!(flow.finish("b", vec![]), ["ended"]);
    assert_eq!(flow.state(), DataflowState::Finished);
}

#[test]
fn a_machine_that_cannot_prepare_undoes_the_start_everywhere() {
    let mut flow = Flow::new(&["a", "b"]);
    flow.begin();
    flow.answer("a", OrderKind::Prepare, Outcome::Done);
    let no = Refusal::new(RefusalCode::NotPrepared, "node `n-b`: /srv/x.py does not exist");
    assert_eq!(
        flow.answer("b", OrderKind::Prepare, Outcome::Refused(no)),
        ["a: Kill", "b: Kill"]
    );
    assert_eq!(flow.answer("a", OrderKind::Kill, Outcome::Done), ["a: Forget"]);
    assert_eq!(
        flow.answer("b", OrderKind::Kill, Outcome::Refused(not_found())),
        ["b: Forget"]
    );
    assert!(flow.answer("b", OrderKind::Forget, Outcome::Done).is_empty());
    let shown = flow.answer("a", OrderKind::Forget, Outcome::Done);
    assert_eq!(
        shown,
        [
            "refused NotPrepared Nothing: machine `b`: node `n-b`: /srv/x.py does not exist",
            "ended"
        ]
    );
    assert_eq!(flow.state(), DataflowState::Failed);
    assert!(matches!(flow.life.record().start, StartOutcome::Refused(_)));
}

#[test]
fn a_failed_spawn_waits_for_the_last_process_before_it_forgets() {
    let mut flow = Flow::new(&["a", "b"]);
    flow.begin();
    flow.answer("a", OrderKind::Prepare, Outcome::Done);
    flow.answer("b", OrderKind::Prepare, Outcome::Done);
    flow.answer("a", OrderKind::Spawn, Outcome::Done);
    flow.finish("b", vec![failure("b")]);
    let no = Refusal::new(RefusalCode::SpawnFailed, "node `n-b`: no such file");
    assert_eq!(
        flow.answer("b", OrderKind::Spawn, Outcome::Refused(no)),
        ["a: Kill", "b: Kill"]
    );
    flow.answer("b", OrderKind::Kill, Outcome::Done);
    flow.answer("b", OrderKind::Forget, Outcome::Done);
    assert_eq!(flow.answer("a", OrderKind::Kill, Outcome::Done), ["a: Forget"]);
    let lives = Refusal::new(RefusalCode::WrongState, "a node lives");
    assert!(flow.answer("a", OrderKind::Forget, Outcome::Refused(lives)).is_empty());
    assert_eq!(flow.finish("a", vec![]), ["a: Forget"]);
    let shown = flow.answer("a", OrderKind::Forget, Outcome::Done);
    assert!(shown[0].starts_with("refused SpawnFailed Nothing: machine `b`"), "{shown:?}");
    let result = flow.life.record().result.clone().unwrap();
    assert_eq!(result.failures.len(), 1);
}

#[test]
fn nodes_that_end_before_the_barrier_fail_the_start() {
    let mut flow = Flow::new(&["a", "b"]);
    flow.run_to_spawned();
    let shown = flow.finish("a", vec![failure("a")]);
    assert_eq!(shown, ["a: Kill", "b: Kill"]);
}

#[test]
fn every_wait_of_a_start_has_its_deadline() {
    let mut flow = Flow::new(&["a", "b"]);
    flow.begin();
    flow.answer("a", OrderKind::Prepare, Outcome::Done);
    flow.pass(PREPARE_DEADLINE);
    flow.pass(ORDER_DEADLINE);
    assert!(
        flow.refusal().message.contains("did not get ready in time: `b`"),
        "{:?}",
        flow.refusal()
    );

    let mut flow = Flow::new(&["a", "b"]);
    flow.begin();
    flow.answer("a", OrderKind::Prepare, Outcome::Done);
    flow.answer("b", OrderKind::Prepare, Outcome::Done);
    flow.answer("b", OrderKind::Spawn, Outcome::Done);
    flow.pass(SPAWN_DEADLINE);
    flow.pass(ORDER_DEADLINE);
    assert!(
        flow.refusal().message.contains("spawn their nodes in time: `a`"),
        "{:?}",
        flow.refusal()
    );

    let mut flow = Flow::new(&["a", "b"]);
    flow.run_to_spawned();
    flow.barrier("a", &[]);
    flow.pass(BARRIER_DEADLINE);
    flow.pass(ORDER_DEADLINE);
    let refusal = flow.refusal();
    assert!(refusal.message.contains("reach the barrier in time: `b`"), "{refusal:?}");
    assert_eq!(refusal.changed, Changed::Partly, "nobody has answered the undoing");
}

#[test]
fn a_cut_is_no_loss_and_what_was_asked_is_asked_again() {
    let mut flow = Flow::new(&["a"]);
    flow.begin();
    assert!(flow.answer("a", OrderKind::Prepare, Outcome::Lost).is_empty());
    assert!(flow.step(Input::Tick).is_empty(), "nothing is sent while the machine is away");
    assert_eq!(flow.back("a"), ["a: Prepare"]);
    flow.answer("a", OrderKind::Prepare, Outcome::Done);
    // The machine comes back before the loss of the order was noticed.
    assert_eq!(flow.back("a"), ["a: Spawn"]);
    assert_eq!(flow.answer("a", OrderKind::Spawn, Outcome::Done), ["started"]);
}

#[test]
fn a_machine_that_is_lost_during_the_start_fails_it_and_is_left_behind() {
    let mut flow = Flow::new(&["a", "b"]);
    flow.begin();
    assert_eq!(flow.lost("b"), ["a: Kill"]);
    flow.answer("a", OrderKind::Kill, Outcome::Done);
    flow.answer("a", OrderKind::Forget, Outcome::Done);
    let refusal = flow.refusal();
    assert_eq!(
        (refusal.code, refusal.changed),
        (RefusalCode::MachineUnreachable, Changed::Partly)
    );
    assert!(refusal.message.contains("could not be undone on `b`"), "{refusal:?}");
}

#[test]
fn a_running_dataflow_outlives_the_loss_of_a_machine_and_a_stop_is_kept_for_it() {
    let mut flow = Flow::new(&["a", "b"]);
    flow.run();
    assert!(flow.lost("b").is_empty());
    assert_eq!(flow.state(), DataflowState::Running);
    assert_eq!(flow.life.record().summary().unreachable.len(), 1);
    assert_eq!(flow.stop(false), ["a: Stop"]);
    assert_eq!(flow.life.stop_verdict(), StopVerdict::UnderWay);
    flow.answer("a", OrderKind::Stop, Outcome::Done);
    flow.finish("a", vec![]);
    assert!(matches!(flow.life.stop_verdict(), StopVerdict::OnlyUnreachable(missing) if missing.len() == 1));
    assert_eq!(flow.back("b"), ["b: Stop"]);
    flow.answer("b", OrderKind::Stop, Outcome::Done);
    assert_eq!(flow.finish("b", vec![]), ["ended"]);
    let result = flow.life.record().result.clone().unwrap();
    assert!(result.success && result.stopped);
}

#[test]
fn a_forced_stop_overtakes_a_graceful_one() {
    let mut flow = Flow::new(&["a"]);
    flow.run();
    assert_eq!(flow.stop(false), ["a: Stop"]);
    assert!(flow.stop(false).is_empty(), "the same wish is not ordered twice");
    assert_eq!(flow.stop(true), ["a: Kill"]);
    flow.answer("a", OrderKind::Stop, Outcome::Done);
    assert!(flow.answer("a", OrderKind::Kill, Outcome::Done).is_empty());
    assert_eq!(flow.finish("a", vec![failure("a")]), ["ended"]);
    assert_eq!(flow.state(), DataflowState::Failed);
}

#[test]
fn what_a_machine_forbids_reaches_the_starter_as_such() {
    let mut flow = Flow::new(&["a"]);
    flow.begin();
    let no = Refusal::new(
        RefusalCode::ForbiddenByMachine,
        "`/usr/bin/bash` is a shell, which may not run here",
    )
    .hint("ask its owner");
    flow.answer("a", OrderKind::Prepare, Outcome::Refused(no));
    flow.answer("a", OrderKind::Kill, Outcome::Refused(not_found()));
    flow.answer("a", OrderKind::Forget, Outcome::Done);
    let told = flow.refusal();
    assert_eq!((told.code, told.changed), (RefusalCode::ForbiddenByMachine, Changed::Nothing));
    assert_eq!(
        told.message,
        "machine `a`: `/usr/bin/bash` is a shell, which may not run here"
    );
    assert_eq!(told.hint, "ask its owner");
}

#[test]
fn a_stop_during_the_start_undoes_it_and_is_no_failure() {
    let mut flow = Flow::new(&["a"]);
    flow.begin();
    assert_eq!(flow.stop(false), ["a: Kill"]);
    flow.answer("a", OrderKind::Kill, Outcome::Done);
    flow.answer("a", OrderKind::Forget, Outcome::Done);
    let result = flow.life.record().result.clone().unwrap();
    assert!(result.success && result.stopped, "{result:?}");
    assert_eq!(flow.refusal().code, RefusalCode::WrongState);
}

#[test]
fn a_part_that_fails_stops_the_others_and_says_so() {
    let mut flow = Flow::new(&["a", "b"]);
    flow.run();
    assert_eq!(flow.finish("a", vec![failure("a")]), ["b: Stop"]);
    flow.answer("b", OrderKind::Stop, Outcome::Done);
    assert_eq!(flow.finish("b", vec![]), ["ended"]);
    let result = flow.life.record().result.clone().unwrap();
    assert!(
        !result.success && !result.stopped && result.note.contains("`a` failed"),
        "{result:?}"
    );
}

#[test]
fn a_machine_that_restarted_without_its_part_fails_it() {
    let mut flow = Flow::new(&["a"]);
    flow.run();
    let gone = Input::PartGone {
        machine: samples::machine("a"),
        reason: "the machine restarted without it".to_owned(),
    };
    assert_eq!(flow.step(gone), ["ended"]);
    let result = flow.life.record().result.clone().unwrap();
    assert!(matches!(result.failures[0].cause, FailureCause::EngineLost { .. }));
    assert_eq!(flow.life.record().nodes[0].state, NodeState::Failed);
}

#[test]
fn a_stop_that_the_machine_does_not_take_is_tried_again() {
    let mut flow = Flow::new(&["a"]);
    flow.run();
    flow.stop(false);
    assert!(flow.answer("a", OrderKind::Stop, Outcome::TimedOut).is_empty());
    assert_eq!(flow.pass(Duration::from_secs(5)), ["a: Stop"]);
}

#[test]
fn causes_stand_before_their_consequences() {
    let mut flow = Flow::new(&["a"]);
    flow.run();
    let mut consequence = failure("a");
    consequence.node = "other".parse().unwrap();
    consequence.cause = FailureCause::Cascading {
        caused_by: "n-a".parse().unwrap(),
    };
    flow.finish("a", vec![consequence, failure("a")]);
    let failures = flow.life.record().result.clone().unwrap().failures;
    assert_eq!(failures[0].node.as_str(), "n-a");
}

#[test]
fn a_late_answer_to_a_start_that_was_undone_is_cleaned_up() {
    let mut flow = Flow::new(&["a"]);
    flow.begin();
    flow.pass(PREPARE_DEADLINE);
    flow.pass(ORDER_DEADLINE);
    assert!(flow.state().has_ended());
    assert_eq!(flow.answer("a", OrderKind::Prepare, Outcome::Done), ["a: Forget"]);
    assert_eq!(flow.answer("a", OrderKind::Spawn, Outcome::Done), ["a: Kill"]);
}

/// One thing that may happen in a random script.
#[derive(Clone, Debug)]
enum Act {
    Answer(bool, Outcome),
    Barrier(bool),
    Finish(bool, bool),
    Lost(bool),
    Back(bool),
    LinkLost(bool),
    Gone(bool),
    Stop(bool),
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let outcome = prop_oneof![
        6 => Just(Outcome::Done),
        1 => Just(Outcome::Lost),
        1 => Just(Outcome::TimedOut),
        1 => Just(Outcome::Full),
        1 => Just(Outcome::Refused(Refusal::new(RefusalCode::Internal, "no"))),
    ];
    prop_oneof![
        8 => (any::<bool>(), outcome).prop_map(|(which, outcome)| Act::Answer(which, outcome)),
        2 => any::<bool>().prop_map(Act::Barrier),
        1 => any::<(bool, bool)>().prop_map(|(which, clean)| Act::Finish(which, clean)),
        1 => any::<bool>().prop_map(Act::Lost),
        2 => any::<bool>().prop_map(Act::Back),
        1 => any::<bool>().prop_map(Act::Gone),
        1 => any::<bool>().prop_map(Act::LinkLost),
        1 => any::<bool>().prop_map(Act::Stop),
        1 => (0_u64..40).prop_map(Act::Pass),
    ]
}

proptest! {
    #[test]
    fn every_start_ends_and_nothing_runs_after_the_end(acts in prop::collection::vec(act(), 0..60), both in any::<bool>()) {
        let machines: &[&str] = if both { &["a", "b"] } else { &["a"] };
        let mut flow = Flow::new(machines);
        let mut shown = flow.begin();
        let mut state = flow.state();
        for act in acts {
            let name = |which: bool| if which && both { "b" } else { "a" };
            let had_ended = flow.state().has_ended();
            let now = match act {
                Act::Answer(which, outcome) => match flow.asked.iter().position(|(machine, _)| machine == name(which)) {
                    Some(at) => {
                        let (machine, order) = flow.asked.remove(at);
                        flow.answer(&machine, order, outcome)
                    }
                    None => continue,
                },
                Act::Barrier(which) => flow.barrier(name(which), &[]),
                Act::Finish(which, clean) => {
                    let failures = if clean { vec![] } else { vec![failure(name(which))] };
                    flow.finish(name(which), failures)
                }
                Act::Lost(which) => flow.lost(name(which)),
                Act::Back(which) => flow.back(name(which)),
                Act::Gone(which) => flow.step(Input::PartGone { machine: samples::machine(name(which)), reason: "gone".to_owned() }),
                Act::LinkLost(which) => flow.link_lost(name(which)),
                Act::Stop(force) => flow.stop(force),
                Act::Pass(secs) => flow.pass(Duration::from_secs(secs)),
            };
            if had_ended {
                prop_assert!(now.iter().all(|line| line.ends_with("Forget") || line.ends_with("Kill")), "after the end: {now:?}");
            }
            prop_assert!(flow.state() >= state, "{state:?} became {:?}", flow.state());
            state = flow.state();
            shown.extend(now);
        }
        for wait in [PREPARE_DEADLINE, ORDER_DEADLINE, SPAWN_DEADLINE, BARRIER_DEADLINE, ORDER_DEADLINE] {
            shown.extend(flow.pass(wait));
        }
        let outcomes = shown.iter().filter(|line| *line == "started" || line.starts_with("refused")).count();
        prop_assert_eq!(outcomes, 1, "{:?}", shown);
        prop_assert!(flow.life.record().start != StartOutcome::Pending);
        prop_assert!(shown.iter().filter(|line| *line == "ended").count() <= 1);
        prop_assert_eq!(flow.state().has_ended(), flow.life.record().result.is_some());
    }
}

/// A life with a clock, whose commands are shown as lines.
struct Flow {
    life: Life,
    now: Moment,
    asked: Vec<(String, OrderKind)>,
    refused: Option<Refusal>,
}

impl Flow {
    fn new(machines: &[&str]) -> Self {
        let now = Moment {
            steady: Instant::now(),
            unix_ms: 1_000,
        };
        let record = samples::record_on(1, "flow", DataflowState::Preparing, machines);
        Self {
            life: Life::new(record, samples::spec(machines), now),
            now,
            asked: Vec::new(),
            refused: None,
        }
    }

    fn state(&self) -> DataflowState {
        self.life.record().state
    }

    fn refusal(&self) -> Refusal {
        self.refused.clone().expect("the start was refused")
    }

    fn begin(&mut self) -> Vec<String> {
        self.step(Input::Begin)
    }

    fn run_to_spawned(&mut self) {
        self.begin();
        let machines: Vec<_> = self.life.record().parts.keys().map(ToString::to_string).collect();
        for order in [OrderKind::Prepare, OrderKind::Spawn] {
            for machine in &machines {
                self.answer(machine, order, Outcome::Done);
            }
        }
    }

    fn run(&mut self) {
        self.run_to_spawned();
        let machines: Vec<_> = self.life.record().parts.keys().map(ToString::to_string).collect();
        if machines.len() > 1 {
            for machine in &machines {
                self.barrier(machine, &[]);
            }
            for machine in &machines {
                self.answer(machine, OrderKind::Release, Outcome::Done);
            }
        }
        assert_eq!(self.state(), DataflowState::Running);
    }

    fn answer(&mut self, machine: &str, order: OrderKind, outcome: Outcome) -> Vec<String> {
        let machine = samples::machine(machine);
        self.step(Input::Answered { machine, order, outcome })
    }

    fn barrier(&mut self, machine: &str, exited: &[&str]) -> Vec<String> {
        self.step(Input::Happened {
            machine: samples::machine(machine),
            at_unix_ms: 900,
            what: Lifecycle::BarrierReached {
                exited_before_subscribe: exited.iter().map(|node| node.parse().unwrap()).collect(),
            },
        })
    }

    fn finish(&mut self, machine: &str, failures: Vec<NodeFailure>) -> Vec<String> {
        self.step(Input::Happened {
            machine: samples::machine(machine),
            at_unix_ms: 900,
            what: Lifecycle::Finished {
                failures,
                note: String::new(),
            },
        })
    }

    fn link_lost(&mut self, machine: &str) -> Vec<String> {
        self.step(Input::Happened {
            machine: samples::machine(machine),
            at_unix_ms: 850,
            what: Lifecycle::LinkLost { silent_ms: 30_400 },
        })
    }

    fn lost(&mut self, machine: &str) -> Vec<String> {
        self.step(Input::MachineLost {
            machine: samples::machine(machine),
            since_unix_ms: 500,
        })
    }

    fn back(&mut self, machine: &str) -> Vec<String> {
        self.step(Input::MachineBack {
            machine: samples::machine(machine),
            fresh: true,
        })
    }

    fn stop(&mut self, force: bool) -> Vec<String> {
        self.step(Input::Stop {
            by: "ann".to_owned(),
            grace_ms: None,
            force,
        })
    }

    fn pass(&mut self, time: Duration) -> Vec<String> {
        self.now.steady += time;
        self.step(Input::Tick)
    }

    fn step(&mut self, input: Input) -> Vec<String> {
        let mut shown = Vec::new();
        let mut told_end = false;
        for command in self.life.step(input, self.now) {
            match command {
                Command::Order { machine, order } => {
                    self.asked.push((machine.to_string(), order.kind()));
                    let detail = match order {
                        Order::Release { exited_before_subscribe } => {
                            exited_before_subscribe.iter().map(|node| format!(" {node}")).collect()
                        }
                        _ => String::new(),
                    };
                    shown.push(format!("{machine}: {:?}{detail}", self.asked.last().unwrap().1));
                }
                Command::Tell(DataflowEvent::Ended(_)) => told_end = true,
                Command::Tell(_) | Command::Save => {}
                Command::Started => shown.push("started".to_owned()),
                Command::StartRefused(refusal) => {
                    shown.push(format!(
                        "refused {:?} {:?}: {}",
                        refusal.code, refusal.changed, refusal.message
                    ));
                    self.refused = Some(refusal);
                }
                Command::Ended => {
                    assert!(told_end, "the end is told before it is over");
                    shown.push("ended".to_owned());
                }
            }
        }
        shown
    }
}

fn failure(machine: &str) -> NodeFailure {
    NodeFailure {
        node: format!("n-{machine}").parse().unwrap(),
        machine: samples::machine(machine),
        cause: FailureCause::Own {
            stderr: "boom".to_owned(),
        },
        exit: "exit code 1".to_owned(),
    }
}

fn not_found() -> Refusal {
    Refusal::new(RefusalCode::NotFound, "no such run")
}
