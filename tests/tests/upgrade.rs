//! The agent is stopped, killed and replaced by another program while dataflows run: engine and nodes go on, no line is lost, new
//! dataflows get an engine of the new program, and the older engine ends with its last one.

use dora_remote_tests::{
    cluster::Cluster,
    flows::{TICKER, TICKER_FLOW},
    lines::{assert_whole, numbers},
    patience, processes, python,
    run_cli::{Cli, Running},
};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;

/// A machine whose agent runs from an installed program.
struct Machine {
    cluster: Cluster,
    cli: Cli,
    flow: String,
}

impl Machine {
    fn new() -> Option<Self> {
        python::interpreter()?;
        let mut cluster = Cluster::start(&[]);
        cluster.install();
        cluster.add_machine("A", "");
        cluster.until_connected(&["A"]);
        let flow = cluster.flow("tick", &[("dataflow.yml", TICKER_FLOW), ("ticker.py", TICKER)]);
        let cli = cluster.cli();
        Some(Self { cluster, cli, flow })
    }

    fn attach(&self, name: &str) -> Running {
        let mut attached = self
            .cli
            .spawn(&["start", &self.flow, "--attach", "--name", name, "--format", "json"]);
        attached.until_line("tick 5 ");
        attached
    }

    fn nodes(&self) -> BTreeSet<u32> {
        self.cluster.nodes().iter().map(|process| process.pid).collect()
    }

    fn older(&self) -> usize {
        let machine = self.cli.until_machine("A", true);
        machine["engines_older"].as_array().expect("a list").len()
    }

    /// Waits for more ticks than so far.
    fn goes_on(attached: &Running) {
        let ticks = attached.output_of("ticker").len();
        patience::until_true("more ticks", || attached.output_of("ticker").len() > ticks + 10);
    }

    /// Stops a dataflow, and asserts that every tick of it has come.
    fn stop(&self, name: &str, attached: Running) {
        self.cli.run(&["stop", name]).exits_with(0);
        let ticks = numbers(&attached.wait().exits_with(0).output_of("ticker"), "tick");
        assert_whole(&format!("ticks of `{name}`"), &ticks, 1);
        let stored = self.cli.run(&["logs", name, "--format", "json"]);
        assert_eq!(numbers(&stored.exits_with(0).output_of("ticker"), "tick"), ticks);
    }
}

#[test]
fn a_stopped_agent_leaves_engine_and_nodes_and_the_next_one_adopts_them() {
    let Some(mut machine) = Machine::new() else { return };
    let attached = machine.attach("tick");
    let (engine, nodes) = (machine.cluster.engine_pid("A"), machine.nodes());
    machine.cluster.stop_daemon("A");
    assert!(processes::lives(engine) && machine.nodes() == nodes);
    machine.cluster.start_daemon("A");
    machine.cluster.until_connected(&["A"]);
    Machine::goes_on(&attached);
    assert_eq!((machine.cluster.engine_pid("A"), machine.nodes()), (engine, nodes));
    assert_eq!(machine.older(), 0, "it is the same program");
    machine.stop("tick", attached);
    machine.cluster.no_node_is_left();
}

#[test]
fn an_agent_of_a_new_program_lets_the_older_engine_drain() {
    let Some(mut machine) = Machine::new() else { return };
    let first = machine.attach("first");
    let (engine, nodes) = (machine.cluster.engine_pid("A"), machine.nodes());

    // The package is replaced under the agent, which goes on; then the agent is.
    machine.cluster.install();
    Machine::goes_on(&first);
    machine.cluster.kill_daemon("A");
    machine.cluster.start_daemon("A");
    machine.cluster.until_connected(&["A"]);
    Machine::goes_on(&first);
    assert_eq!(machine.nodes(), nodes, "the nodes are the same processes");
    assert!(processes::lives(engine), "the older engine goes on");
    let newer = machine.cluster.engine_pid("A");
    assert_ne!(newer, engine, "new dataflows get another engine");
    assert_eq!(machine.older(), 1);

    let second = machine.attach("second");
    let of_second: Vec<u32> = machine.nodes().difference(&nodes).copied().collect();
    let parent_mark = |pid| {
        let all = processes::all();
        let process = all.iter().find(|process| process.pid == pid).expect("it lives");
        process.variable(processes::ENGINE_MARKER).expect("a node").to_owned()
    };
    assert_eq!(of_second.len(), 1);
    assert_ne!(parent_mark(of_second[0]), parent_mark(*nodes.first().expect("one")));

    // The agent dies in the middle of it.
    machine.cluster.kill_daemon("A");
    machine.cluster.start_daemon("A");
    machine.cluster.until_connected(&["A"]);
    Machine::goes_on(&first);
    Machine::goes_on(&second);
    assert_eq!((machine.cluster.engine_pid("A"), machine.older()), (newer, 1));
    patience::until_true("a good picture of the older engine", || {
        let older = &machine.cli.until_machine("A", true)["engines_older"][0];
        older["pid"] == u64::from(engine)
            && older["dataflows"] == 1
            && older["dora_version"].is_string()
            && older["problem"].is_null()
    });

    machine.stop("first", first);
    patience::until_true("the end of the older engine", || !processes::lives(engine));
    patience::until_true("one engine", || machine.older() == 0);
    Machine::goes_on(&second);
    machine.stop("second", second);
    machine.cluster.no_node_is_left();
}

#[test]
fn the_death_of_an_older_engine_fails_its_dataflows_alone() {
    let Some(mut machine) = Machine::new() else { return };
    let first = machine.attach("first");
    let engine = machine.cluster.engine_pid("A");
    machine.cluster.install();
    machine.cluster.stop_daemon("A");
    machine.cluster.start_daemon("A");
    machine.cluster.until_connected(&["A"]);
    let second = machine.attach("second");
    processes::signal(engine, Signal::SIGKILL);
    first.wait().exits_with(9).says(&["engine"]);
    machine.cli.until_state("first", "Failed");
    Machine::goes_on(&second);
    machine.stop("second", second);
    machine.cluster.no_node_is_left();
}
