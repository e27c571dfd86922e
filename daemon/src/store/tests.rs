//! What survives a reopening.

use super::*;
use crate::{
    book::Book,
    records::{LogCursor, RunPlan},
};
use dora_remote_protocol::{
    agent_to_engine::RunOrder,
    dataflow::{Files, LinkLoss, PlacedNode},
    engine_to_agent::EngineEvent,
    ids::EngineId,
    log_line::LogLevel,
    machine::Lifecycle,
};

fn plan(id: DataflowId) -> RunPlan {
    RunPlan {
        order: RunOrder {
            dataflow: id,
            name: "flow".parse().unwrap(),
            descriptor: "nodes: []".to_owned(),
            nodes: vec![PlacedNode {
                id: "n".parse().unwrap(),
                machine: "m".parse().unwrap(),
                dynamic: false,
            }],
            machine: "m".parse().unwrap(),
            run_dir: "/x".to_owned(),
            uv: false,
        },
        files: Files::OnMachine("/x".to_owned()),
        outputs: Vec::new(),
        owns_dir: false,
        seat: Seat::default(),
        link_loss: LinkLoss::Keep,
    }
}

fn book(store: &Store) -> Book {
    let loaded = store.load().unwrap();
    Book::new("m".parse().unwrap(), loaded.runs, loaded.last_seq, loaded.engine_cursors)
}

#[test]
fn the_instance_stays_and_the_counter_only_moves_forward() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.redb");
    let store = Store::open(&path).unwrap();
    let instance = store.instance().unwrap();
    assert_eq!((store.take_counters(10).unwrap(), store.take_counters(10).unwrap()), (1, 11));
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.instance().unwrap(), instance);
    assert_eq!(store.take_counters(1).unwrap(), 21);
}

#[test]
fn an_engine_event_takes_effect_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.redb");
    let (id, engine) = (DataflowId(Uuid::now_v7()), EngineId(Uuid::new_v4()));
    let started = || EngineEvent::NodeStarted {
        node: "n".parse().unwrap(),
        pid: 7,
    };
    {
        let store = Store::open(&path).unwrap();
        let (mut book, mut changes) = (book(&store), Changes::default());
        book.add(plan(id), &mut changes);
        book.follow_engine(Seat::default(), engine, &mut changes);
        book.apply(engine, 1, 5, Some(id), started(), &mut changes);
        store.commit(&changes).unwrap();
        // A crash before the commit: the engine sends event 2 again.
        book.apply(
            engine,
            2,
            6,
            Some(id),
            EngineEvent::Finished { failures: vec![] },
            &mut Changes::default(),
        );
    }
    let store = Store::open(&path).unwrap();
    let mut book = book(&store);
    assert_eq!(book.engine_cursor(Seat::default()), Some((engine, 1)));
    let mut changes = Changes::default();
    book.follow_engine(Seat::default(), engine, &mut changes);
    book.apply(engine, 1, 5, Some(id), started(), &mut changes);
    assert!(changes.is_empty(), "an event that was applied before");
    book.apply(
        engine,
        2,
        6,
        Some(id),
        EngineEvent::Finished { failures: vec![] },
        &mut changes,
    );
    store.commit(&changes).unwrap();
    let events = store.outbox(0, 10, usize::MAX).unwrap();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2]);
    assert!(matches!(events[1].what, Lifecycle::Finished { .. }));
    assert_eq!(store.runs_in_outbox().unwrap(), [id].into());
    store.ack_events(1).unwrap();
    assert_eq!(store.outbox(0, 10, usize::MAX).unwrap()[0].seq, 2);
    assert_eq!(store.load().unwrap().last_seq, 2, "numbers are never given twice");
}

#[test]
fn messages_go_when_they_are_acknowledged_and_runs_go_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("d.redb")).unwrap();
    let (id, other, engine) = (
        DataflowId(Uuid::now_v7()),
        DataflowId(Uuid::now_v7()),
        EngineId(Uuid::new_v4()),
    );
    let (mut book, mut changes) = (book(&store), Changes::default());
    for run in [id, other] {
        book.add(plan(run), &mut changes);
    }
    book.follow_engine(Seat::default(), engine, &mut changes);
    for seq in 1..=10 {
        let what = EngineEvent::Message {
            source: if seq % 2 == 0 { LogSource::Build } else { LogSource::Machine },
            level: LogLevel::Info,
            text: format!("line {seq}"),
        };
        book.apply(engine, seq, seq, Some(if seq <= 8 { id } else { other }), what, &mut changes);
    }
    store.commit(&changes).unwrap();
    let read = |dataflow, source: LogSource| store.messages(dataflow, &source, 0, 100, usize::MAX).unwrap();
    let texts = |records: Vec<LogRecord>| records.into_iter().map(|r| (r.offset, r.text)).collect::<Vec<_>>();
    let all = texts(read(id, LogSource::Build));
    assert_eq!(all.first(), Some(&(1, "line 2".to_owned())));
    assert_eq!(all.len(), 4);
    let cursor = LogCursor {
        epoch: 3,
        offset: 3,
        ..LogCursor::default()
    };
    store.save_cursors(&[(id, LogSource::Build, cursor.clone())]).unwrap();
    assert_eq!(texts(read(id, LogSource::Build)), [(4, "line 8".to_owned())]);
    assert_eq!(read(id, LogSource::Machine).len(), 4);
    assert_eq!(store.cursors(id).unwrap(), [(LogSource::Build, cursor)]);
    let mut changes = Changes::default();
    book.remove(id, &mut changes);
    store.commit(&changes).unwrap();
    assert!(store.cursors(id).unwrap().is_empty() && read(id, LogSource::Machine).is_empty());
    assert_eq!(read(other, LogSource::Machine).len(), 1);
    assert_eq!(store.load().unwrap().runs.keys().copied().collect::<Vec<_>>(), [other]);
}

#[test]
fn a_database_of_another_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.redb");
    let store = Store::open(&path).unwrap();
    store.write(|tx| put(&mut tx.open_table(META)?, KEY_FORMAT, &77_u32)).unwrap();
    drop(store);
    assert!(matches!(Store::open(&path), Err(StoreError::Format { found: 77, .. })));
}
