use super::*;
use crate::store::StoreError;
use dora_remote_protocol::audit::verify::{Anchor, verify};
use std::sync::Mutex;

const PATIENCE: Duration = Duration::from_secs(30);

/// A disk that fails while it is told to, and waits while it is locked.
#[derive(Clone, Default)]
struct Disk {
    written: Arc<Mutex<Vec<AuditEntry>>>,
    is_broken: Arc<AtomicBool>,
}

impl Ledger for Disk {
    fn append(&mut self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(StoreError::Record {
                what: "test".to_owned(),
                source: postcard::Error::WontImplement,
            });
        }
        self.written.lock().unwrap().extend_from_slice(entries);
        Ok(())
    }
}

impl Disk {
    fn start(&self) -> Writer {
        Writer::start(self.clone(), Chain::default(), Duration::from_millis(1)).unwrap()
    }

    fn entries(&self) -> Vec<AuditEntry> {
        let entries = self.written.lock().unwrap().clone();
        let anchor = Anchor {
            first_seq: 1,
            before: [0; 32],
        };
        assert!(verify(anchor, &entries, [], None).is_intact());
        entries
    }
}

fn done(target: &str) -> Draft {
    Draft::by_coordinator("start", target)
}

fn refused(target: &str) -> Draft {
    let refused: Result<(), _> = Err(Refusal::new(RefusalCode::Denied, "no"));
    Draft::by_coordinator("start", target).result(&refused)
}

#[tokio::test]
async fn what_was_recorded_is_on_the_disk() {
    let disk = Disk::default();
    let writer = disk.start();
    for number in 0..5 {
        writer.record(done(&number.to_string())).await;
        assert_eq!(disk.entries().len(), number + 1);
    }
    assert_eq!(writer.end().borrow().last_seq(), 5);
}

#[tokio::test]
async fn while_the_disk_fails_changes_are_refused_and_nothing_is_lost() {
    let disk = Disk::default();
    disk.is_broken.store(true, Ordering::Relaxed);
    let writer = disk.start();
    assert!(writer.check().is_ok());
    writer.refused(refused("first"));
    let is_refused = async {
        while writer.check().is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, is_refused).await.unwrap();
    assert_eq!(writer.check().unwrap_err().code, RefusalCode::Internal);
    // What is done all the same, such as a stop, does not wait for the disk.
    writer.record(done("second")).await;
    let mut end = writer.end();
    disk.is_broken.store(false, Ordering::Relaxed);
    let written = end.wait_for(|end| end.last_seq() == 2);
    timeout(PATIENCE, written).await.unwrap().unwrap();
    assert!(writer.check().is_ok());
    let targets: Vec<_> = disk.entries().into_iter().map(|entry| entry.target).collect();
    assert_eq!(targets, ["first", "second"]);
}

#[tokio::test]
async fn a_flood_of_refusals_neither_waits_nor_takes_the_place_of_what_was_done() {
    let disk = Disk::default();
    disk.is_broken.store(true, Ordering::Relaxed);
    let writer = disk.start();
    for number in 0..5_000 {
        let mut draft = refused("x");
        draft.who = format!("mallory-{}", number % 100);
        writer.refused(draft);
    }
    disk.is_broken.store(false, Ordering::Relaxed);
    let works = async {
        while writer.check().is_err() {
            tokio::task::yield_now().await;
        }
        writer.record(done("kept")).await;
    };
    timeout(PATIENCE, works).await.unwrap();
    drop(writer);
    let entries = disk.entries();
    assert!(entries.iter().any(|entry| entry.target == "kept"));
    let told = entries.iter().filter(|entry| entry.target == "x").count();
    let count = |entry: &AuditEntry| entry.detail.split(' ').next().and_then(|count| count.parse::<usize>().ok());
    let counted: usize = entries
        .iter()
        .filter(|entry| entry.verb == "refusals")
        .filter_map(count)
        .sum();
    assert_eq!(told + counted, 5_000, "told one by one or counted");
    assert!(counted > 3_000, "{counted}");
}

#[tokio::test]
async fn one_asker_who_is_refused_again_and_again_is_counted() {
    let disk = Disk::default();
    let writer = disk.start();
    for _ in 0..500 {
        writer.record(refused("x")).await;
    }
    writer.record(done("y")).await;
    drop(writer);
    let entries = disk.entries();
    let told = entries.iter().filter(|entry| entry.target == "x").count();
    assert_eq!(told, super::super::throttle::PER_MINUTE as usize);
    let last = entries.last().unwrap();
    assert_eq!(
        (last.verb.as_str(), last.detail.starts_with("380 more")),
        ("refusals", true),
        "{last:?}"
    );
}
