//! Operators who are limited to some machines: what they may use, see and stop, by the records alone.

use crate::{
    joining::{member, system, wish, with},
    support::{Daemon, Memory, Ordered, Person, Running, World, next, soon, spec, until},
};
use dora_remote_certs::Credentials;
use dora_remote_link::Feed;
use dora_remote_protocol::{
    access::CreateInvite,
    cli_to_coordinator::{ListDataflows, ListMachines, StartDataflow, StopDataflow, WatchDataflow},
    dataflow::{DataflowEvent, DataflowRef, DataflowSpec, DataflowState, Labels},
    identity::Role,
    ids::{DataflowId, RequestId},
    log_line::LogItem,
    refusal::{Refusal, RefusalCode},
};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;
use uuid::Uuid;

#[tokio::test]
async fn a_limited_operator_uses_sees_and_stops_only_what_is_within() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let Lab { machines, olga, ann } = Lab::new(&world, &running).await;
    let [mut a, mut b, _claims] = machines;

    let seen = olga.ask(ListMachines {}).await.unwrap();
    let seen: Vec<_> = seen
        .iter()
        .map(|machine| (machine.name.as_str(), &machine.facts.labels))
        .collect();
    assert_eq!(seen, [("a", &team("arm"))]);
    assert_eq!(ann.ask(ListMachines {}).await.unwrap().len(), 3);

    for beyond in ["b", "claims", "nobody"] {
        let refusal = refused(&mut olga.start(1, &[beyond]).await).await;
        assert_eq!(refusal.code, RefusalCode::Denied);
        assert!(
            refusal.message.contains(&format!("machine `{beyond}`")) && refusal.message.contains("machines with team=arm"),
            "{refusal:?}"
        );
    }
    let mut unnamed = spec(&["a"]);
    unnamed.nodes[0].machine = None;
    let mut by_label = unnamed.clone();
    by_label.nodes[0].labels = team("leg");
    let refusal = refused(&mut start(&olga, by_label).await).await;
    assert_eq!(refusal.code, RefusalCode::NoMachineWithLabels, "{refusal:?}");
    let refusal = refused(&mut start(&ann, unnamed.clone()).await).await;
    assert_eq!(refusal.code, RefusalCode::PlacementAmbiguous);
    let mut own = start(&olga, unnamed).await;
    let id = started(&mut own, &mut a).await;
    assert_eq!(a.starter(), "spiffe://lab/operator/olga", "the machine's policy looks at it");

    let mut crossing = ann.start(7, &["a", "b"]).await;
    let Some(DataflowEvent::Placed { id: both, name, .. }) = next(&mut crossing).await.unwrap() else {
        panic!("the first event says what was placed");
    };
    assert_eq!(
        (a.order().await, b.order().await),
        (Ordered::Prepare(both), Ordered::Prepare(both))
    );
    let listed = olga.ask(ListDataflows {}).await.unwrap();
    assert_eq!(listed.iter().map(|it| it.id).collect::<Vec<_>>(), [id]);
    assert_eq!(ann.ask(ListDataflows {}).await.unwrap().len(), 2);
    for dataflow in [DataflowRef::Id(both), DataflowRef::Name(name.to_string())] {
        let stop = StopDataflow {
            dataflow: dataflow.clone(),
            grace_ms: None,
            force: true,
        };
        let stopped = olga.ask(stop).await.map(|_| ()).unwrap_err();
        let mut watch = olga.peer.feed(&WatchDataflow { dataflow }, None).await.unwrap();
        let mut logs = olga.logs(both, None, false).await;
        for refusal in [stopped, refused(&mut watch).await, refused(&mut logs).await] {
            assert_eq!(refusal.code, RefusalCode::Denied);
            assert!(refusal.message.contains("machine `b`"), "{refusal:?}");
        }
    }
    let stop = olga.ask(StopDataflow {
        dataflow: DataflowRef::Id(id),
        grace_ms: None,
        force: false,
    });
    let machine_side = async {
        while a.order().await != (Ordered::Stop { force: false }) {}
        a.finished(id).await;
    };
    let (stopped, ()) = soon("the stop", async { tokio::join!(stop, machine_side) }).await;
    assert!(stopped.unwrap().result.success);
    running.end().await;
}

#[tokio::test]
async fn who_follows_is_ended_when_the_limit_no_longer_holds_it() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let Lab { machines, olga, ann } = Lab::new(&world, &running).await;
    let [mut a, _b, _claims] = machines;
    let mut start = olga.start(1, &["a"]).await;
    let id = started(&mut start, &mut a).await;
    let watch = WatchDataflow {
        dataflow: DataflowRef::Id(id),
    };
    let mut watched = olga.peer.feed(&watch, None).await.unwrap();
    let mut watched_by_ann = ann.peer.feed(&watch, None).await.unwrap();
    until(&mut watched, DataflowState::Running).await;
    until(&mut watched_by_ann, DataflowState::Running).await;
    let mut logs = olga.logs(id, None, true).await;
    assert_eq!(next(&mut logs).await.unwrap(), Some(LogItem::CaughtUp));

    limited(&world, &running, "leg", true).await;
    for refusal in [refused(&mut watched).await, refused(&mut logs).await] {
        assert_eq!(refusal.code, RefusalCode::Denied);
        assert!(
            refusal.message.contains("machine `a`") && refusal.message.contains("machines with team=leg"),
            "{refusal:?}"
        );
    }
    let seen = olga.ask(ListMachines {}).await.unwrap();
    assert_eq!(seen.iter().map(|machine| machine.name.as_str()).collect::<Vec<_>>(), ["b"]);
    assert!(olga.ask(ListDataflows {}).await.unwrap().is_empty());
    let refusal = refused(&mut olga.start(1, &["a"]).await).await;
    assert_eq!(refusal.code, RefusalCode::Denied, "the same asking again is judged again");

    a.finished(id).await;
    until(&mut watched_by_ann, DataflowState::Finished).await;
    running.end().await;
}

/// Machines `a` (team arm), `b` (team leg) and `claims` (not on record, says of itself that it is of both), an operator olga who is
/// limited to the team arm, and ann who is not limited.
struct Lab {
    machines: [Daemon; 3],
    olga: Person,
    ann: Person,
}

impl Lab {
    async fn new(world: &World, running: &Running) -> Self {
        for (name, of) in [("a", "arm"), ("b", "leg")] {
            let labels = team(of);
            member(
                world,
                running,
                system(),
                CreateInvite {
                    labels,
                    ..wish(Role::Daemon, name)
                },
            )
            .await;
        }
        let olga = limited(world, running, "arm", false).await;
        let claims = Memory {
            labels: team("arm"),
            ..Memory::new()
        };
        let at = running.address;
        Self {
            machines: [
                Daemon::join(
                    world,
                    at,
                    "a",
                    &Memory {
                        labels: team("claimed"),
                        ..Memory::new()
                    },
                )
                .await,
                Daemon::join(world, at, "b", &claims).await,
                Daemon::join(world, at, "claims", &claims).await,
            ],
            olga: with(&olga, at, system()).await.unwrap(),
            ann: world.person(at).await,
        }
    }
}

/// What olga has to show, who is limited to the machines of one team.
async fn limited(world: &World, running: &Running, of: &str, replace: bool) -> Credentials {
    let wish = CreateInvite {
        machines: team(of),
        replace,
        ..wish(Role::Operator, "olga")
    };
    member(world, running, system(), wish).await
}

async fn start(person: &Person, spec: DataflowSpec) -> Feed<DataflowEvent> {
    let start_id = RequestId(Uuid::new_v4());
    person.peer.feed(&StartDataflow { start_id, spec }, None).await.unwrap()
}

/// Waits until a dataflow on one machine runs.
async fn started(start: &mut Feed<DataflowEvent>, machine: &mut Daemon) -> DataflowId {
    let Ordered::Prepare(id) = machine.order().await else {
        panic!("prepare comes first")
    };
    assert_eq!(machine.order().await, Ordered::Spawn);
    until(start, DataflowState::Running).await;
    id
}

/// The refusal with which a feed ends.
async fn refused<I: Serialize + DeserializeOwned + Debug>(feed: &mut Feed<I>) -> Refusal {
    loop {
        match next(feed).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the feed ended well"),
            Err(refusal) => return refusal,
        }
    }
}

fn team(of: &str) -> Labels {
    Labels::from([("team".to_owned(), of.to_owned())])
}
