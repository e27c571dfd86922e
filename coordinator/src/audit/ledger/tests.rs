use super::*;
use dora_remote_protocol::audit::verify::Verdict;
use redb::ReadableTable as _;
use std::path::PathBuf;
use tempfile::TempDir;

fn entry(target: &str, at_unix_ms: u64) -> AuditEntry {
    AuditEntry {
        seq: 0,
        at_unix_ms,
        who: "spiffe://lab/operator/Ann".to_owned(),
        serial: String::new(),
        from: String::new(),
        verb: "start".to_owned(),
        target: target.to_owned(),
        result: "ok".to_owned(),
        detail: String::new(),
        request_id: String::new(),
        hash: [0; 32],
    }
}

struct Place {
    _dir: TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.redb");
    Place { _dir: dir, path }
}

fn fill(file: &mut AuditFile, chain: &mut Chain, count: u64) {
    let entries: Vec<_> = (0..count)
        .map(|at| chain.append(entry(&format!("flow-{at}"), at)).unwrap())
        .collect();
    file.append(&entries).unwrap();
}

fn all(file: &AuditFile) -> (Anchor, Vec<AuditEntry>) {
    let mut entries = Vec::new();
    let mut after = 0;
    loop {
        let page = file.read(after, &Filter::default()).unwrap();
        after = page.next_after;
        entries.extend(page.entries);
        if page.at_end {
            return (page.anchor, entries);
        }
    }
}

fn judge(file: &AuditFile) -> Verdict {
    let (anchor, entries) = all(file);
    verify(anchor, &entries, [], None)
}

/// Does what somebody with the disk in hand could do.
fn tamper(path: &Path, change: impl FnOnce(&mut redb::Table<'_, u64, &'static [u8]>)) {
    let db = Database::create(path).unwrap();
    let transaction = db.begin_write().unwrap();
    change(&mut transaction.open_table(ENTRIES).unwrap());
    transaction.commit().unwrap();
}

#[test]
fn the_chain_goes_on_after_a_restart() {
    let place = place();
    let (mut file, opened) = AuditFile::open(&place.path, 100).unwrap();
    let mut chain = opened.chain;
    assert_eq!((chain, opened.fault), (Chain::default(), None));
    fill(&mut file, &mut chain, 7);
    file.settle(3).unwrap();
    drop(file);
    let (mut file, opened) = AuditFile::open(&place.path, 100).unwrap();
    assert_eq!((opened.chain, opened.fault), (chain, None));
    assert_eq!(file.settled_unix_ms().unwrap(), 3);
    fill(&mut file, &mut chain, 3);
    let verdict = judge(&file);
    assert!(verdict.is_intact() && verdict.entries == 10, "{verdict:?}");
    assert_eq!(file.entry(10).unwrap().map(|entry| entry.hash), Some(chain.hash()));
}

#[test]
fn the_oldest_go_and_the_anchor_says_so() {
    let place = place();
    let (mut file, opened) = AuditFile::open(&place.path, 10).unwrap();
    let mut chain = opened.chain;
    for _ in 0..7 {
        fill(&mut file, &mut chain, 5);
    }
    let (anchor, entries) = all(&file);
    assert_eq!((anchor.first_seq, entries.len()), (26, 10));
    let verdict = judge(&file);
    assert!(verdict.is_intact() && verdict.last_seq == 35, "{verdict:?}");
    drop(file);
    assert_eq!(AuditFile::open(&place.path, 10).unwrap().1.fault, None);
}

#[test]
fn filters_choose_by_time_asker_and_verb() {
    let place = place();
    let (mut file, opened) = AuditFile::open(&place.path, 100).unwrap();
    let mut chain = opened.chain;
    fill(&mut file, &mut chain, 7);
    let count = |filter: Filter| file.read(0, &filter).unwrap().entries.len();
    let since = |since| Filter {
        since_unix_ms: Some(since),
        ..Filter::default()
    };
    assert_eq!((count(since(0)), count(since(5)), count(since(7))), (7, 2, 0));
    let who = |who: &str| Filter {
        who: Some(who.to_owned()),
        ..Filter::default()
    };
    assert_eq!((count(who("/ann")), count(who("bob"))), (7, 0));
    let verb = |verb: &str| Filter {
        verb: Some(verb.to_owned()),
        ..Filter::default()
    };
    assert_eq!((count(verb("start")), count(verb("stop"))), (7, 0));
}

#[test]
fn what_was_done_to_the_newest_entries_is_found_when_the_file_is_opened() {
    type Change = fn(&mut redb::Table<'_, u64, &'static [u8]>);
    let changes: [(Change, &str); 4] = [
        (
            |rows| {
                let mut entry = decode(5, rows.get(5).unwrap().unwrap().value());
                entry.target = "another".to_owned();
                rows.insert(5, postcard::to_stdvec(&entry).unwrap().as_slice()).unwrap();
            },
            "entry 5 was altered",
        ),
        (|rows| drop(rows.remove(5).unwrap()), "entry 5 is missing"),
        (
            |rows| drop(rows.insert(5, [0xff; 40].as_slice()).unwrap()),
            "entry 5 was altered",
        ),
        (
            |rows| rows.retain(|seq, _| seq <= 10).unwrap(),
            "the last entry is 10, and entry 20 was the last",
        ),
    ];
    for (change, told) in changes {
        let place = place();
        let (mut file, opened) = AuditFile::open(&place.path, 100).unwrap();
        let mut chain = opened.chain;
        fill(&mut file, &mut chain, 20);
        drop(file);
        tamper(&place.path, change);
        let (file, opened) = AuditFile::open(&place.path, 100).unwrap();
        let fault = opened.fault.unwrap();
        assert!(fault.contains(told), "{fault}");
        assert_eq!(opened.chain, chain, "numbers are not used twice");
        if !told.contains("last") {
            assert!(!judge(&file).is_intact());
        }
    }
}

#[test]
fn a_long_audit_is_checked_at_its_end_when_it_is_opened() {
    let place = place();
    let (mut file, opened) = AuditFile::open(&place.path, 10_000).unwrap();
    let mut chain = opened.chain;
    fill(&mut file, &mut chain, 1_500);
    drop(file);
    let (file, opened) = AuditFile::open(&place.path, 10_000).unwrap();
    assert_eq!((opened.fault, opened.chain), (None, chain));
    assert_eq!(all(&file).1.len(), 1_500, "page after page");
    drop(file);
    tamper(&place.path, |rows| drop(rows.remove(501).unwrap()));
    let (_, opened) = AuditFile::open(&place.path, 10_000).unwrap();
    assert!(opened.fault.is_some());
}
