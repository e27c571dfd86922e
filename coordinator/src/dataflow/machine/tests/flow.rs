//! A dataflow to play with: a life with a clock, to which scripts tell what happens.

use crate::{
    dataflow::{
        machine::{Command, Input, Life, Order, OrderKind, Outcome},
        samples,
    },
    moment::Moment,
};
use dora_remote_protocol::{
    dataflow::{DataflowEvent, DataflowState, FailureCause, NodeFailure},
    machine::Lifecycle,
    refusal::{Refusal, RefusalCode},
};
use std::time::{Duration, Instant};

/// A life with a clock, whose commands are shown as lines.
pub(super) struct Flow {
    pub(super) life: Life,
    now: Moment,
    pub(super) asked: Vec<(String, OrderKind)>,
    refused: Option<Refusal>,
}

impl Flow {
    pub(super) fn new(machines: &[&str]) -> Self {
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

    pub(super) fn state(&self) -> DataflowState {
        self.life.record().state
    }

    pub(super) fn refusal(&self) -> Refusal {
        self.refused.clone().expect("the start was refused")
    }

    pub(super) fn begin(&mut self) -> Vec<String> {
        self.step(Input::Begin)
    }

    pub(super) fn run_to_spawned(&mut self) {
        self.begin();
        let machines: Vec<_> = self.life.record().parts.keys().map(ToString::to_string).collect();
        for order in [OrderKind::Prepare, OrderKind::Spawn] {
            for machine in &machines {
                self.answer(machine, order, Outcome::Done);
            }
        }
    }

    pub(super) fn run(&mut self) {
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

    pub(super) fn answer(&mut self, machine: &str, order: OrderKind, outcome: Outcome) -> Vec<String> {
        let machine = samples::machine(machine);
        self.step(Input::Answered { machine, order, outcome })
    }

    pub(super) fn barrier(&mut self, machine: &str, exited: &[&str]) -> Vec<String> {
        self.step(Input::Happened {
            machine: samples::machine(machine),
            at_unix_ms: 900,
            what: Lifecycle::BarrierReached {
                exited_before_subscribe: exited.iter().map(|node| node.parse().unwrap()).collect(),
            },
        })
    }

    pub(super) fn finish(&mut self, machine: &str, failures: Vec<NodeFailure>) -> Vec<String> {
        self.step(Input::Happened {
            machine: samples::machine(machine),
            at_unix_ms: 900,
            what: Lifecycle::Finished {
                failures,
                note: String::new(),
            },
        })
    }

    pub(super) fn link_lost(&mut self, machine: &str) -> Vec<String> {
        self.step(Input::Happened {
            machine: samples::machine(machine),
            at_unix_ms: 850,
            what: Lifecycle::LinkLost { silent_ms: 30_400 },
        })
    }

    pub(super) fn lost(&mut self, machine: &str) -> Vec<String> {
        self.step(Input::MachineLost {
            machine: samples::machine(machine),
            since_unix_ms: 500,
        })
    }

    pub(super) fn back(&mut self, machine: &str) -> Vec<String> {
        self.step(Input::MachineBack {
            machine: samples::machine(machine),
            fresh: true,
        })
    }

    pub(super) fn stop(&mut self, force: bool) -> Vec<String> {
        self.step(Input::Stop {
            by: "ann".to_owned(),
            grace_ms: None,
            force,
        })
    }

    pub(super) fn pass(&mut self, time: Duration) -> Vec<String> {
        self.now.steady += time;
        self.step(Input::Tick)
    }

    pub(super) fn step(&mut self, input: Input) -> Vec<String> {
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

pub(super) fn failure(machine: &str) -> NodeFailure {
    NodeFailure {
        node: format!("n-{machine}").parse().unwrap(),
        machine: samples::machine(machine),
        cause: FailureCause::Own {
            stderr: "boom".to_owned(),
        },
        exit: "exit code 1".to_owned(),
    }
}

pub(super) fn not_found() -> Refusal {
    Refusal::new(RefusalCode::NotFound, "no such run")
}
