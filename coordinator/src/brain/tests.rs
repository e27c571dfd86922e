//! A brain with what a former life has left, asked by people with and without a limit.

use super::*;
use crate::{dataflow::samples, machines::MachineRecord, store::redb::RedbStore, view::View};
use dora_remote_logstore::{Caps, LogStore};
use dora_remote_protocol::{
    cli_to_coordinator::StartDataflow,
    dataflow::{DataflowRef, DataflowSpec, DataflowState, Labels},
    identity::{Identity, Role},
    ids::{BootId, InstanceId, RequestId},
    machine::{EngineStatus, LogShipping, MachineFacts},
    refusal::{Refusal, RefusalCode},
};
use tempfile::TempDir;
use uuid::Uuid;

#[tokio::test]
async fn one_who_is_limited_finds_only_what_is_wholly_within() {
    let room = Room::new();
    let ann = room.limited("team", "arm");
    let seen: Vec<_> = room.list(&ann).await;
    assert_eq!(seen, ["arms", "old"]);
    assert_eq!(room.list(&admin()).await, ["arms", "both", "legs", "old"]);

    for named in ["both", "legs", &samples::id(2).to_string()] {
        let refusal = room.find(&ann, named).await.unwrap_err();
        assert_eq!(refusal.code, RefusalCode::Denied, "{named}");
        assert!(
            refusal.message.contains("machine `leg`") && refusal.message.contains("team=arm"),
            "{refusal:?}"
        );
        let watched = room.brain.ask(|reply| Event::Watch {
            asker: ann.clone(),
            dataflow: named.parse().unwrap(),
            reply,
        });
        assert_eq!(watched.await.unwrap_err().code, RefusalCode::Denied, "{named}");
        let stopped = room.brain.ask(|reply| Event::Stop {
            asker: ann.clone(),
            dataflow: named.parse().unwrap(),
            grace_ms: None,
            force: true,
            reply,
        });
        assert_eq!(stopped.await.unwrap_err().code, RefusalCode::Denied, "{named}");
    }
    assert_eq!(room.find(&ann, "arms").await, Ok(samples::id(1)));
    let unknown = room.find(&ann, "nothing").await.unwrap_err();
    assert_eq!(unknown.code, RefusalCode::NotFound);
    assert_eq!(unknown.hint, "running: arms", "the names of others are not told");
    assert_eq!(
        room.find(&admin(), "nothing").await.unwrap_err().hint,
        "running: arms, both, legs"
    );
}

#[tokio::test]
async fn one_who_is_limited_sees_and_uses_only_machines_within() {
    let room = Room::new();
    let ann = room.limited("team", "arm");
    let seen = room.machines(&ann).await;
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].name.as_str(), &seen[0].dataflows[..]),
        ("arm", &[samples::id(1)][..])
    );
    assert_eq!(
        seen[0].facts.labels,
        Labels::from([("gpu".to_owned(), "1".to_owned()), ("team".to_owned(), "arm".to_owned())]),
        "the record goes over what the machine says"
    );
    assert_eq!(room.machines(&admin()).await.len(), 3);

    for beyond in ["leg", "new", "nobody"] {
        let refusal = room.start(&ann, samples::spec(&[beyond])).await.unwrap_err();
        assert_eq!(refusal.code, RefusalCode::Denied, "{beyond}");
        assert!(
            refusal.message.contains(&format!("`{beyond}`")) && refusal.message.contains("machines with team=arm"),
            "{refusal:?}"
        );
    }
    let within = room.start(&ann, samples::spec(&["arm"])).await.unwrap_err();
    assert_eq!(within.code, RefusalCode::MachineUnreachable, "allowed, and not here");
    assert_eq!(
        within.hint,
        "known machines: arm (unreachable) (you are limited to machines with team=arm)"
    );
}

#[tokio::test]
async fn a_limit_counts_from_the_next_command_on() {
    let room = Room::new();
    let ann = room.limited("team", "arm");
    assert!(room.find(&ann, "arms").await.is_ok());
    room.limited("team", "leg");
    assert_eq!(room.find(&ann, "arms").await.unwrap_err().code, RefusalCode::Denied);
    assert_eq!(room.list(&ann).await, ["legs"]);
    room.view.set(View::default());
    assert_eq!(room.list(&ann).await.len(), 4);
}

/// A brain in a task, with dataflows on the machines `arm`, `leg` and `new`; the last one has no record.
struct Room {
    brain: BrainHandle,
    view: ViewHandle,
    _dir: TempDir,
}

impl Room {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = RedbStore::open(&dir.path().join("store.redb")).unwrap();
        let caps = Caps {
            total_bytes: 1 << 20,
            per_dataflow_bytes: 1 << 20,
        };
        let logs = LogStore::open(&dir.path().join("logs.redb"), caps).unwrap();
        let (handle, events) = BrainHandle::new();
        let (view, tasks, now) = (ViewHandle::default(), Tasks::new(), Moment::now());
        let running = |number, name, machines: &[&str]| samples::record_on(number, name, DataflowState::Running, machines);
        let stored = Stored {
            dataflows: vec![
                running(1, "arms", &["arm"]),
                running(2, "both", &["arm", "leg"]),
                running(3, "legs", &["leg"]),
                samples::record_on(4, "old", DataflowState::Finished, &["arm"]),
            ],
            machines: ["arm", "leg", "new"].map(machine).into(),
        };
        let parts = Parts {
            stored,
            keeper: Keeper::start(store).unwrap(),
            hub: Hub::start(logs, crate::logs::room::Room::new(dir.path().to_owned(), Some(0))).unwrap(),
            bundles: Bundles::open(&dir.path().join("bundles"), 1 << 20).unwrap(),
            view: view.clone(),
            tasks: tasks.clone(),
            handle: handle.clone(),
        };
        tasks.spawn("brain", Brain::new(parts, now).run(events, tasks.token().clone()));
        Self {
            brain: handle,
            view,
            _dir: dir,
        }
    }

    /// Limits ann, and gives the machines that have a record their labels.
    fn limited(&self, key: &str, value: &str) -> Asker {
        let label = |value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
        let ann = Identity {
            trust_domain: "lab".parse().unwrap(),
            role: Role::Operator,
            name: "ann".parse().unwrap(),
        };
        let mut view = View::default();
        for machine in ["arm", "leg"] {
            view.label(&samples::machine(machine), label(machine));
        }
        view.limit(&ann, label(value));
        self.view.set(view);
        Asker {
            who: ann.to_string(),
            identity: Some(ann),
            ..admin()
        }
    }

    async fn list(&self, asker: &Asker) -> Vec<String> {
        let asker = asker.clone();
        let list = self.brain.ask(|reply| Event::List { asker, reply }).await.unwrap();
        list.into_iter().map(|summary| summary.name.to_string()).collect()
    }

    async fn machines(&self, asker: &Asker) -> Vec<dora_remote_protocol::machine::MachineSummary> {
        let asker = asker.clone();
        self.brain.ask(|reply| Event::Machines { asker, reply }).await.unwrap()
    }

    async fn find(&self, asker: &Asker, named: &str) -> Result<DataflowId, Refusal> {
        let (asker, dataflow): (_, DataflowRef) = (asker.clone(), named.parse().unwrap());
        self.brain.ask(|reply| Event::Find { asker, dataflow, reply }).await
    }

    async fn start(&self, asker: &Asker, spec: Arc<DataflowSpec>) -> Result<(), Refusal> {
        let request = Box::new(StartDataflow {
            start_id: RequestId(Uuid::new_v4()),
            spec: (*spec).clone(),
        });
        let asker = asker.clone();
        let started = self.brain.ask(|reply| Event::Start { asker, request, reply }).await;
        started.map(|_| ())
    }
}

fn admin() -> Asker {
    Asker {
        who: "local uid 0".to_owned(),
        identity: None,
        serial: String::new(),
        from: String::new(),
        request_id: RequestId(Uuid::nil()),
    }
}

/// A machine that claims labels which would open every door.
fn machine(name: &str) -> MachineRecord {
    let said = [("team", "claimed"), ("gpu", "1")];
    MachineRecord {
        name: samples::machine(name),
        facts: MachineFacts {
            labels: said.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            build: "test".to_owned(),
            platform: "linux x86_64".to_owned(),
            engine: EngineStatus::Starting,
            logs: LogShipping::Always,
        },
        last_heard_unix_ms: 1,
        address: "192.0.2.1:1".to_owned(),
        instance: InstanceId(Uuid::nil()),
        boot: BootId(Uuid::nil()),
        acked_seq: 0,
        former: Vec::new(),
        restored: None,
    }
}
