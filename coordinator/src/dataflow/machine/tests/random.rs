//! Random scripts, after which every start must have ended.

use super::flow::{Flow, failure};
use crate::dataflow::{
    machine::{Input, Outcome},
    record::StartOutcome,
    samples,
};
use dora_remote_protocol::{
    limits::{BARRIER_DEADLINE, ORDER_DEADLINE, PREPARE_DEADLINE, SPAWN_DEADLINE},
    refusal::{Refusal, RefusalCode},
};
use proptest::prelude::*;
use std::time::Duration;

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
