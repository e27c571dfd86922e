//! The whole tail: files and messages in, batches out, restarts in between.

use super::*;
use crate::{book::Book, disk::DiskCaps, records::Changes, seat::Seat, store::Store};
use dora_remote_protocol::{
    agent_to_engine::RunOrder,
    dataflow::{Files, LinkLoss},
    engine_to_agent::{EngineEvent, NodeOutput},
    ids::EngineId,
    log_line::{LogBatch, LogLevel},
    machine::LogShipping,
};
use std::{collections::BTreeMap, fs, io::Write, path::Path};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);

fn plan(dataflow: DataflowId, dir: &Path) -> RunPlan {
    let output = |node: &str| NodeOutput {
        node: node.parse().unwrap(),
        path: Some(dir.join(format!("log_{node}.jsonl")).to_str().unwrap().to_owned()),
    };
    let silent = NodeOutput {
        node: "dynamic".parse().unwrap(),
        path: None,
    };
    RunPlan {
        order: RunOrder {
            dataflow,
            name: "flow".parse().unwrap(),
            descriptor: String::new(),
            nodes: Vec::new(),
            machine: "m".parse().unwrap(),
            run_dir: String::new(),
            uv: false,
        },
        files: Files::OnMachine(String::new()),
        outputs: vec![output("a"), output("b"), silent],
        owns_dir: false,
        seat: Seat::default(),
        link_loss: LinkLoss::Keep,
    }
}

fn write(dir: &Path, node: &str, range: std::ops::Range<u32>) {
    let path = dir.join(format!("log_{node}.jsonl"));
    let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
    for n in range {
        writeln!(file, "{{\"msg\":\"{node}{n}\"}}").unwrap();
    }
}

async fn next(batches: &mut mpsc::Receiver<ShipLogs>) -> LogBatch {
    timeout(PATIENCE, batches.recv()).await.unwrap().unwrap().unpack().unwrap()
}

/// A disk with room for so many bytes of log files, and none that is kept free.
fn disk(dir: &Path, log_bytes: u64) -> Arc<Disk> {
    let caps = DiskCaps {
        log_bytes,
        free_bytes: Some(0),
        ..DiskCaps::default()
    };
    Arc::new(Disk::new(dir, caps))
}

fn start(dir: &Path) -> (TailHandle, TailOutputs, StoreHandle, oneshot::Receiver<()>) {
    start_with(dir, Demand::new(LogShipping::Always))
}

fn start_with(dir: &Path, demand: Demand) -> (TailHandle, TailOutputs, StoreHandle, oneshot::Receiver<()>) {
    let (store, closed) = StoreHandle::start(Store::open(&dir.join("d.redb")).unwrap()).unwrap();
    let (tail, outputs) = TailHandle::start(store.clone(), demand, disk(dir, u64::MAX)).unwrap();
    (tail, outputs, store, closed)
}

async fn follow(tail: &TailHandle, plan: &RunPlan, ended: bool) {
    let plan = Box::new(plan.clone());
    tail.tell(TailCommand::Follow { plan, ended }).await;
}

async fn ack(tail: &TailHandle, batch: &LogBatch) {
    let (dataflow, source) = (batch.dataflow, batch.source.clone());
    tail.tell(TailCommand::Acked { dataflow, source }).await;
}

#[tokio::test]
async fn every_line_comes_once_over_a_restart_and_then_the_run_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(DataflowId(Uuid::now_v7()), dir.path());
    let mut seen: BTreeMap<LogSource, Vec<(u64, u64, String)>> = BTreeMap::new();
    let mut keep = |batch: &LogBatch| {
        assert_eq!(batch.lost_before, 0);
        for record in &batch.records {
            seen.entry(batch.source.clone())
                .or_default()
                .push((batch.epoch, record.offset, record.text.clone()));
        }
    };
    write(dir.path(), "a", 0..20_000);
    write(dir.path(), "b", 0..10);
    {
        let (tail, mut outputs, store, closed) = start(dir.path());
        follow(&tail, &plan, false).await;
        // One batch of each node is stored; another one is under way when the daemon ends.
        let (first, second) = (next(&mut outputs.batches).await, next(&mut outputs.batches).await);
        assert_ne!(first.source, second.source, "one source has one batch under way");
        for batch in [&first, &second] {
            keep(batch);
            ack(&tail, batch).await;
        }
        let lost = next(&mut outputs.batches).await;
        assert_eq!(lost.source, LogSource::Node("a".parse().unwrap()));
        tail.stop().await;
        assert!(outputs.ended.await.unwrap().is_ok());
        drop(store);
        closed.await.unwrap();
    }
    let (tail, mut outputs, _store, _closed) = start(dir.path());
    write(dir.path(), "b", 10..20);
    follow(&tail, &plan, true).await;
    let id = loop {
        tokio::select! {
            batch = next(&mut outputs.batches) => {
                keep(&batch);
                ack(&tail, &batch).await;
            }
            id = outputs.shipped.recv() => break id.unwrap(),
        }
    };
    assert_eq!(id, plan.order.dataflow);
    for (node, count) in [("a", 20_000), ("b", 20)] {
        let lines = &seen[&LogSource::Node(node.parse().unwrap())];
        let texts: Vec<_> = lines.iter().map(|(_, _, text)| text.clone()).collect();
        assert_eq!(texts, (0..count).map(|n| format!("{node}{n}")).collect::<Vec<_>>());
        assert!(lines.windows(2).all(|pair| pair[0].0 == pair[1].0 && pair[0].1 < pair[1].1));
    }
}

#[tokio::test]
async fn messages_come_in_order_and_dropped_ones_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(DataflowId(Uuid::now_v7()), dir.path());
    let (tail, mut outputs, store, _closed) = start(dir.path());
    let (engine, id) = (EngineId(Uuid::new_v4()), plan.order.dataflow);
    let (mut book, mut changes) = (
        Book::new("m".parse().unwrap(), BTreeMap::new(), 0, BTreeMap::new()),
        Changes::default(),
    );
    book.add(plan.clone(), &mut changes);
    book.follow_engine(Seat::default(), engine, &mut changes);
    let message = |seq: u64| EngineEvent::Message {
        source: LogSource::Machine,
        level: LogLevel::Info,
        text: format!("message {seq}"),
    };
    let beyond = crate::store::MAX_MESSAGES + 5;
    for seq in 1..=beyond {
        book.apply(engine, seq, seq, Some(id), message(seq), &mut changes);
    }
    store.run(move |store| store.commit(&changes)).await.unwrap();
    follow(&tail, &plan, false).await;
    let (mut seen, mut lost) = (0, 0);
    while seen + lost < beyond {
        let batch = next(&mut outputs.batches).await;
        assert_eq!(batch.source, LogSource::Machine);
        lost += batch.lost_before;
        for record in &batch.records {
            seen += 1;
            assert_eq!(record.offset, seen + lost);
        }
        ack(&tail, &batch).await;
    }
    assert_eq!(lost, 5);
}

#[tokio::test]
async fn lines_wait_for_somebody_who_wants_them_and_then_none_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(DataflowId(Uuid::now_v7()), dir.path());
    let id = plan.order.dataflow;
    write(dir.path(), "a", 0..3_000);
    let demand = Demand::new(LogShipping::OnDemand);
    let (tail, mut outputs, _store, _closed) = start_with(dir.path(), demand.clone());
    follow(&tail, &plan, true).await;
    tail.drained(DataflowId(Uuid::now_v7())).await;
    let waiting = tokio::spawn({
        let tail = tail.clone();
        async move { tail.drained(id).await }
    });
    // Longer than the pause before an ended run counts as complete, and than many looks at the files.
    assert!(timeout(SETTLE * 2, outputs.batches.recv()).await.is_err(), "nobody wants any");
    assert!(outputs.shipped.try_recv().is_err() && !waiting.is_finished());
    demand.lease(id, Duration::from_secs(30), std::time::Instant::now());
    let mut texts = Vec::new();
    while texts.len() < 3_000 {
        let batch = next(&mut outputs.batches).await;
        assert_eq!(batch.lost_before, 0);
        texts.extend(batch.records.iter().map(|record| record.text.clone()));
        ack(&tail, &batch).await;
    }
    assert_eq!(texts, (0..3_000).map(|n| format!("a{n}")).collect::<Vec<_>>());
    timeout(PATIENCE, waiting).await.unwrap().unwrap();
    timeout(PATIENCE, tail.drained(id)).await.unwrap();
    assert_eq!(timeout(PATIENCE, outputs.shipped.recv()).await.unwrap(), Some(id));
}

#[tokio::test]
async fn who_waits_for_lines_behind_a_gap_is_told_once_these_lines_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(DataflowId(Uuid::now_v7()), dir.path());
    let id = plan.order.dataflow;
    let demand = Demand::new(LogShipping::OnDemand);
    let (tail, mut outputs, store, _closed) = start_with(dir.path(), demand.clone());
    // Whoever waits for an unknown run is answered in its turn: what was told before is done then.
    let told = || tail.drained(DataflowId(Uuid::nil()));
    write(dir.path(), "a", 0..5);
    follow(&tail, &plan, false).await;
    let (done, _) = oneshot::channel();
    let look = TailCommand::Drain { dataflow: id, done };
    tail.tell(look).await;
    let mut changes = Changes::default();
    changes.lost.push((id, "a".parse().unwrap(), 7));
    store.run(move |store| store.commit(&changes)).await.unwrap();
    tail.tell(TailCommand::Lost(id)).await;
    told().await;
    write(dir.path(), "a", 5..10);
    let waiting = tokio::spawn({
        let tail = tail.clone();
        async move { tail.drained(id).await }
    });
    told().await;
    demand.lease(id, Duration::from_secs(30), std::time::Instant::now());

    let texts = |batch: &LogBatch| batch.records.iter().map(|record| record.text.clone()).collect::<Vec<_>>();
    let before = next(&mut outputs.batches).await;
    assert_eq!(texts(&before), ["a0", "a1", "a2", "a3", "a4"]);
    ack(&tail, &before).await;
    // The gap may grow for a while; then it begins another epoch.
    let gap = next(&mut outputs.batches).await;
    assert_eq!((gap.lost_before, gap.records.len(), gap.epoch > before.epoch), (7, 0, true));
    assert!(!waiting.is_finished(), "while a gap may grow, what is behind it waits");
    ack(&tail, &gap).await;
    let behind = next(&mut outputs.batches).await;
    assert_eq!(texts(&behind), ["a5", "a6", "a7", "a8", "a9"]);
    assert!(!waiting.is_finished(), "the lines behind the gap are not there yet");
    ack(&tail, &behind).await;
    timeout(PATIENCE, waiting).await.unwrap().unwrap();
}
