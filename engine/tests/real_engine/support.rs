//! A real engine as a child process, and an agent that talks to it.

use dora_remote_engine::{ENGINE_ID_ENV, EngineConfig, TOKEN_ENV};
use dora_remote_protocol::{
    agent_to_engine::{AgentFrame, AgentHello, ENGINE_VERSIONS, EngineOrder, RunOrder},
    dataflow::PlacedNode,
    engine_to_agent::{EngineEvent, EngineFrame, EngineHello, EngineReply, NodeOutput},
    frame,
    ids::{DataflowId, EngineId, NodeId},
    limits::MAX_FRAME_BYTES,
    refusal::Refusal,
    version::VersionRange,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use uuid::Uuid;

/// One generous deadline for everything: a busy machine is no failure.
const DEADLINE: Duration = Duration::from_secs(90);
const STATE: &str = "ENGINE_CHILD_STATE";
const PYTHON: &str = "DORA_REMOTE_TEST_PYTHON";
/// The secret of the test engines, which no node may see.
pub(crate) const TOKEN: &str = "5ec2e7";

/// Acts as the engine when this process was started as one.
pub(crate) fn act_as_engine() {
    let Some(state_dir) = env::var_os(STATE) else {
        return;
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter("info,zenoh=warn")
        .init();
    let config = EngineConfig {
        node_log_bytes: 1 << 30,
        state_dir: state_dir.into(),
        machine: "here".parse().expect("a name"),
        labels: [("kind".to_owned(), "test".to_owned())].into(),
        engine: dora_remote_engine::engine_id().expect("set by the test"),
    };
    dora_remote_engine::run(config).expect("an ordered end");
}

/// The directory with the `python` that has dora-rs, or nothing when this machine has none.
pub(crate) fn python_dir() -> Option<PathBuf> {
    let python = env::var_os(PYTHON).map(PathBuf::from);
    if python.is_none() {
        // Not by `eprintln!`, which the test harness swallows in tests that pass: a skipped test must be seen.
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let told = format!("SKIPPED {test}: {PYTHON} does not name a `python` with dora-rs 1.1, numpy and pyarrow\n");
        std::io::stderr().write_all(told.as_bytes()).expect("stderr");
    }
    python?.parent().map(Path::to_owned)
}

/// One engine process with a directory for its state and one for runs.
pub(crate) struct Engine {
    pub(crate) id: EngineId,
    pub(crate) dir: TempDir,
    child: Child,
}

impl Engine {
    /// Starts one and waits until it answers. Nothing when there is no Python with dora-rs.
    pub(crate) fn start() -> Option<Self> {
        let python = python_dir()?;
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("state");
        fs::create_dir(&state).expect("a directory");
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).expect("ours");
        let run = dir.path().join("run");
        fs::create_dir(&run).expect("a directory");
        let nodes = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_engine/nodes");
        for node in fs::read_dir(nodes).expect("nodes").map(|node| node.expect("a node").path()) {
            fs::copy(&node, run.join(node.file_name().expect("a name"))).expect("copies");
        }
        let mut path = OsString::from(python);
        path.push(":/usr/local/bin:/usr/bin:/bin");
        let log = File::create(state.join("engine.log")).expect("a file");
        let id = EngineId(Uuid::new_v4());
        let child = Command::new(env::current_exe().expect("this file"))
            .args(["engine_child", "--exact", "--nocapture", "--test-threads=1"])
            .env_clear()
            .env("PATH", path)
            .env("HOME", dir.path())
            .env(STATE, &state)
            .env(ENGINE_ID_ENV, id.to_string())
            .env(TOKEN_ENV, TOKEN)
            // As the daemon sets it.
            .env("DORA_QUIET", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("starts");
        let engine = Self { id, dir, child };
        eventually("the engine is up", || state.join("engine.json").exists());
        Some(engine)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An order to run these nodes, `(id, dynamic)`, all of them here.
    pub(crate) fn order(&self, yaml: &str, nodes: &[&str]) -> RunOrder {
        let nodes = nodes.iter().map(|id| PlacedNode {
            id: id.parse().expect("an id"),
            machine: "here".parse().expect("a name"),
            dynamic: false,
        });
        RunOrder {
            dataflow: DataflowId(Uuid::now_v7()),
            name: "flow".parse().expect("a name"),
            descriptor: yaml.to_owned(),
            nodes: nodes.collect(),
            machine: "here".parse().expect("a name"),
            run_dir: self.dir.path().join("run").to_str().expect("UTF-8").to_owned(),
            uv: false,
        }
    }

    pub(crate) fn agent(&self) -> Agent {
        self.agent_that_knows(None)
    }

    pub(crate) fn agent_that_knows(&self, resume: Option<(EngineId, u64)>) -> Agent {
        Agent::connect(&self.socket(), ENGINE_VERSIONS, resume)
    }

    pub(crate) fn agent_that_speaks(&self, versions: VersionRange) -> Agent {
        Agent::connect(&self.socket(), versions, None)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("state/engine.sock")
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the engine ends", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("it ended")
    }

    /// Processes that carry the mark of this engine, itself excluded.
    pub(crate) fn marked(&self) -> Vec<u32> {
        let mark = format!("{ENGINE_ID_ENV}={}", self.id);
        let pids = fs::read_dir("/proc").expect("Linux");
        pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != self.pid())
            .filter(|pid| {
                fs::read(format!("/proc/{pid}/environ"))
                    .is_ok_and(|bytes| bytes.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()))
            })
            .collect()
    }
}

impl Drop for Engine {
    #[expect(clippy::print_stderr, reason = "the log of the engine explains a failed test")]
    fn drop(&mut self) {
        for pid in self.marked() {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("state/engine.log")).unwrap_or_default();
            eprintln!("--- log of the engine ---\n{log}---");
        }
    }
}

/// An agent, as the daemon is one.
pub(crate) struct Agent {
    stream: UnixStream,
    pub(crate) welcome: EngineHello,
    /// All events so far.
    pub(crate) events: Vec<(u64, Option<DataflowId>, EngineEvent)>,
    orders: u64,
}

impl Agent {
    fn connect(path: &Path, versions: VersionRange, resume: Option<(EngineId, u64)>) -> Self {
        let mut stream = UnixStream::connect(path).expect("the engine listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        let hello = AgentHello { versions, resume };
        write(&mut stream, &hello);
        let welcome = read(&mut stream).expect("a welcome");
        Self {
            stream,
            welcome,
            events: Vec::new(),
            orders: 0,
        }
    }

    /// Gives an order and waits for its answer; events that come before it are kept.
    pub(crate) fn order(&mut self, order: EngineOrder) -> Result<EngineReply, Refusal> {
        self.orders += 1;
        let id = self.orders;
        write(&mut self.stream, &AgentFrame::Order { id, order });
        loop {
            match read(&mut self.stream).expect("the engine answers") {
                EngineFrame::Reply { id: answered, result } => {
                    assert_eq!(answered, id);
                    return result;
                }
                other => self.keep(other),
            }
        }
    }

    /// Checks and spawns; returns where the output is.
    pub(crate) fn start(&mut self, order: RunOrder) -> Vec<NodeOutput> {
        let dataflow = order.dataflow;
        let Ok(EngineReply::Checked { outputs }) = self.order(EngineOrder::Check(order)) else {
            panic!("the check failed");
        };
        assert_eq!(self.order(EngineOrder::Spawn { dataflow }), Ok(EngineReply::Done));
        outputs
    }

    pub(crate) fn stop(&mut self, dataflow: DataflowId, grace_ms: u64, force: bool) {
        let order = EngineOrder::Stop {
            dataflow,
            grace_ms: Some(grace_ms),
            force,
        };
        assert_eq!(self.order(order), Ok(EngineReply::Done));
    }

    pub(crate) fn acknowledge(&mut self, seq: u64) {
        write(&mut self.stream, &AgentFrame::Acked { seq });
    }

    /// Waits for an event for which `wanted` has an answer, among those that came and those to come.
    pub(crate) fn wait_for<T>(&mut self, wanted: impl Fn(&EngineEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = self.events.iter().find_map(|(_, _, event)| wanted(event)) {
                return found;
            }
            assert!(Instant::now() < deadline, "it never came; there were {:#?}", self.events);
            let frame = read(&mut self.stream).expect("the engine talks on");
            self.keep(frame);
        }
    }

    /// Waits for the end of the connection.
    pub(crate) fn wait_for_end(&mut self) {
        while let Some(frame) = read(&mut self.stream) {
            self.keep(frame);
        }
    }

    fn keep(&mut self, frame: EngineFrame) {
        match frame {
            EngineFrame::Event { seq, dataflow, what, .. } => self.events.push((seq, dataflow, what)),
            EngineFrame::Alive => {}
            EngineFrame::Reply { .. } => panic!("an answer to nothing"),
        }
    }
}

/// For [`Agent::wait_for`]: the process of a node.
pub(crate) fn started(wanted: &str) -> impl Fn(&EngineEvent) -> Option<u32> {
    let wanted: NodeId = wanted.parse().expect("an id");
    move |event| match event {
        EngineEvent::NodeStarted { node, pid } if *node == wanted => Some(*pid),
        _ => None,
    }
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        // Nothing announces what is waited for here: a file, the end of a process.
        sleep(Duration::from_millis(10));
    }
}

fn write(stream: &mut UnixStream, what: &impl Serialize) {
    let bytes = frame::encode(what, MAX_FRAME_BYTES).expect("fits");
    stream.write_all(&bytes).expect("the engine reads");
}

fn read<T: DeserializeOwned>(stream: &mut UnixStream) -> Option<T> {
    let mut prefix = [0; frame::PREFIX_BYTES];
    match stream.read_exact(&mut prefix) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the engine is silent"),
        Err(_) => return None,
    }
    let mut body = vec![0; frame::body_length(prefix, MAX_FRAME_BYTES).expect("in bounds")];
    stream.read_exact(&mut body).ok()?;
    Some(frame::decode(&body).expect("a frame"))
}
