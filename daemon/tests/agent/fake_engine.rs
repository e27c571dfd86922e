//! An engine that does what it is told with shell scripts for nodes: the other end of the unix socket, as a process of its own.
//!
//! The process is this very test binary, run with one test alone. A descriptor that says `short` makes nodes that end at once; one that
//! is the JSON of `RunFacts` would start what these say.

use dora_remote_protocol::{
    agent_to_engine::{AgentFrame, AgentHello, ENGINE_VERSIONS, EngineOrder, RunOrder},
    dataflow::{NodeState, NodeStatus},
    engine_to_agent::{EngineEvent, EngineFrame, EngineHello, EngineReply, EngineRun, NodeOutput},
    frame,
    ids::{DataflowId, EngineId},
    limits::MAX_FRAME_BYTES,
    log_line::{LogLevel, LogSource},
    machine::RunPhase,
    refusal::{Refusal, RefusalCode},
    version::Version,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    env, fs,
    io::{Read, Write},
    os::unix::{
        net::{UnixListener, UnixStream},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// Where the engine finds its directory.
pub(crate) const STATE: &str = "FAKE_ENGINE_STATE";
/// The version that the engine speaks, if it is of an older build.
pub(crate) const VERSION: &str = "FAKE_ENGINE_VERSION";
/// A file in the engine's directory; while it is there, the engine speaks no language that an agent knows.
pub(crate) const REFUSE: &str = "refuse";
/// What every node writes when it starts.
pub(crate) const LINES: u32 = 50;

/// Writes a program that starts this binary as an engine.
pub(crate) fn program(dir: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join("engine.sh");
    let this = env::current_exe().expect("our own path");
    let script = format!(
        "#!/bin/sh\nexec env {STATE}=\"$3\" '{}' --exact fake_engine::is_an_engine_when_told_so --nocapture\n",
        this.display()
    );
    fs::write(&path, script).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    path
}

/// Not a test: the body of the engine's process.
#[test]
fn is_an_engine_when_told_so() {
    let Ok(dir) = env::var(STATE) else {
        return;
    };
    let engine = env::var("DORA_REMOTE_ENGINE_ID").expect("set").parse().expect("an id");
    assert_eq!(env::var("DORA_AUTH_TOKEN").expect("set").len(), 64);
    assert!(env::var("CARGO_MANIFEST_DIR").is_err(), "the environment is an allow-list");
    let dir = PathBuf::from(dir);
    let socket = dir.join("engine.sock");
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(socket).expect("bound");
    let state = Arc::new(Mutex::new(State::default()));
    let alive = Arc::clone(&state);
    thread::spawn(move || {
        loop {
            thread::park_timeout(Duration::from_secs(1));
            alive.lock().expect("good").write(&EngineFrame::Alive);
        }
    });
    for stream in listener.incoming() {
        let (stream, state) = (stream.expect("accepted"), Arc::clone(&state));
        let dir = dir.clone();
        thread::spawn(move || serve(stream, Path::new(&dir), engine, &state));
    }
}

#[derive(Default)]
struct State {
    agent: Option<UnixStream>,
    events: Vec<EngineFrame>,
    runs: BTreeMap<DataflowId, Run>,
}

struct Run {
    order: RunOrder,
    phase: RunPhase,
    nodes: Vec<Child>,
}

fn serve(mut stream: UnixStream, dir: &Path, engine: EngineId, state: &Mutex<State>) -> Option<()> {
    let hello: AgentHello = receive(&mut stream)?;
    if dir.join(REFUSE).exists() {
        let refusal = Refusal::new(RefusalCode::VersionMismatch, "no common version");
        return send(&mut stream, &EngineHello::Refusal(refusal));
    }
    let known = hello.resume.filter(|(id, _)| *id == engine).map_or(0, |(_, seq)| seq);
    {
        let mut state = state.lock().expect("good");
        let runs = state.runs.values().map(|run| EngineRun {
            order: run.order.clone(),
            phase: run.phase,
            nodes: run
                .order
                .nodes
                .iter()
                .map(|node| NodeStatus {
                    id: node.id.clone(),
                    machine: node.machine.clone(),
                    state: NodeState::Running,
                    pid: None,
                })
                .collect(),
            outputs: Vec::new(),
        });
        let welcome = EngineHello::Welcome {
            version: env::var(VERSION).map_or(ENGINE_VERSIONS.newest, |version| Version(version.parse().expect("a number"))),
            engine,
            pid: std::process::id(),
            dora_version: "0.0.0-fake".to_owned(),
            runs: runs.collect(),
            last_seq: state.events.len() as u64,
        };
        send(&mut stream, &welcome)?;
        state.agent = Some(stream.try_clone().ok()?);
        let missed: Vec<_> = state.events.iter().skip(usize::try_from(known).ok()?).cloned().collect();
        for event in missed {
            state.write(&event);
        }
    }
    loop {
        if let AgentFrame::Order { id, order } = receive(&mut stream)? {
            let mut state = state.lock().expect("good");
            let ends = matches!(order, EngineOrder::Shutdown { .. });
            let result = state.obey(order);
            state.write(&EngineFrame::Reply { id, result });
            if ends {
                // The harness would wait for the other threads.
                nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).expect("raised");
            }
        }
    }
}

impl State {
    fn obey(&mut self, order: EngineOrder) -> Result<EngineReply, Refusal> {
        match order {
            EngineOrder::Check(order) => {
                if order.descriptor.contains("missing") {
                    return Err(Refusal::new(RefusalCode::NotPrepared, "a file is missing"));
                }
                let outputs = order.nodes.iter().map(|node| NodeOutput {
                    node: node.id.clone(),
                    path: Some(log_path(&order, node.id.as_str()).to_str().expect("text").to_owned()),
                });
                let outputs = outputs.collect();
                let run = Run {
                    order,
                    phase: RunPhase::Prepared,
                    nodes: Vec::new(),
                };
                self.runs.insert(run.order.dataflow, run);
                Ok(EngineReply::Checked { outputs })
            }
            EngineOrder::Spawn { dataflow } => {
                let run = self.runs.get_mut(&dataflow).expect("known");
                run.phase = RunPhase::Running;
                let (order, short) = (run.order.clone(), run.order.descriptor.contains("short"));
                let mut events = vec![EngineEvent::Message {
                    source: LogSource::Machine,
                    level: LogLevel::Info,
                    text: "spawning".to_owned(),
                }];
                for node in &order.nodes {
                    let log = log_path(&order, node.id.as_str());
                    fs::create_dir_all(log.parent().expect("one")).expect("made");
                    let lines = (0..LINES).map(|n| format!("{{\"msg\":\"line {n}\",\"stream\":\"stdout\"}}\n"));
                    fs::write(&log, lines.collect::<String>()).expect("written");
                    let child = Command::new("sh")
                        .args(["-c", "trap '' TERM; while :; do sleep 0.2; done"])
                        .stdin(Stdio::null())
                        .process_group(0)
                        .spawn()
                        .expect("spawned");
                    let (node, pid) = (node.id.clone(), child.id());
                    run.nodes.push(child);
                    events.push(EngineEvent::NodeStarted { node, pid });
                }
                events.into_iter().for_each(|event| self.tell(dataflow, event));
                if short {
                    self.end(dataflow);
                }
                Ok(EngineReply::Done)
            }
            EngineOrder::Release { .. } => Ok(EngineReply::Done),
            EngineOrder::Stop { dataflow, .. } => {
                if !self.runs.contains_key(&dataflow) {
                    return Err(Refusal::new(RefusalCode::NotFound, "no such run"));
                }
                self.end(dataflow);
                Ok(EngineReply::Done)
            }
            EngineOrder::Forget { dataflow } => {
                self.runs.remove(&dataflow);
                Ok(EngineReply::Done)
            }
            EngineOrder::Inspect { dataflow } => {
                let descriptor = &self.runs.get(&dataflow).expect("known").order.descriptor;
                Ok(EngineReply::Facts(serde_json::from_str(descriptor).unwrap_or_default()))
            }
            EngineOrder::Shutdown { .. } => Ok(EngineReply::Done),
        }
    }

    fn end(&mut self, dataflow: DataflowId) {
        let run = self.runs.get_mut(&dataflow).expect("known");
        if std::mem::replace(&mut run.phase, RunPhase::Ended) == RunPhase::Ended {
            return;
        }
        for child in &mut run.nodes {
            child.kill().expect("killed");
            child.wait().expect("gone");
        }
        for node in run.order.nodes.clone() {
            let (node, clean) = (node.id, true);
            self.tell(dataflow, EngineEvent::NodeStopped { node, clean });
        }
        self.tell(dataflow, EngineEvent::Finished { failures: Vec::new() });
    }

    fn tell(&mut self, dataflow: DataflowId, what: EngineEvent) {
        let event = EngineFrame::Event {
            seq: self.events.len() as u64 + 1,
            at_unix_ms: 1_000,
            dataflow: Some(dataflow),
            what,
        };
        self.events.push(event.clone());
        self.write(&event);
    }

    fn write(&mut self, what: &EngineFrame) {
        if let Some(agent) = &mut self.agent {
            let _ = send(agent, what);
        }
    }
}

fn log_path(order: &RunOrder, node: &str) -> PathBuf {
    let out = Path::new(&order.run_dir).join("out").join(order.dataflow.to_string());
    out.join(format!("log_{node}.jsonl"))
}

fn send(stream: &mut UnixStream, what: &impl Serialize) -> Option<()> {
    stream.write_all(&frame::encode(what, MAX_FRAME_BYTES).expect("fits")).ok()
}

fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> Option<T> {
    let mut prefix = [0; frame::PREFIX_BYTES];
    stream.read_exact(&mut prefix).ok()?;
    let mut body = vec![0; frame::body_length(prefix, MAX_FRAME_BYTES).expect("in bounds")];
    stream.read_exact(&mut body).ok()?;
    Some(frame::decode(&body).expect("a frame"))
}
