//! Requests through a real unix socket, answered by a thread that reads and writes frames.

use super::*;
use dora_remote_protocol::{
    access::{InviteSummary, ListInvites},
    audit::{AuditItem, ReadAudit},
    refusal::{Refusal, RefusalCode},
};
use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
    thread::JoinHandle,
};

const DEADLINE: Duration = Duration::from_secs(20);

/// Takes one connection, reads one request and writes `answer` in pieces of three bytes.
fn answering(path: &Path, answer: Vec<u8>) -> JoinHandle<Header> {
    let listener = UnixListener::bind(path).expect("bound");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody asks");
        let mut next = |max| {
            let mut prefix = [0; PREFIX_BYTES];
            stream.read_exact(&mut prefix).expect("a prefix");
            let mut body = vec![0; frame::body_length(prefix, max).expect("in bounds")];
            stream.read_exact(&mut body).expect("a body");
            body
        };
        let header: Header = frame::decode(&next(MAX_HEADER_BYTES)).expect("a header");
        next(MAX_FRAME_BYTES);
        for piece in answer.chunks(3) {
            stream.write_all(piece).expect("written");
        }
        header
    })
}

fn frame_of<T: Serialize>(value: &T) -> Vec<u8> {
    frame::encode(value, MAX_FRAME_BYTES).expect("fits")
}

fn within<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

fn audit() -> ReadAudit {
    ReadAudit {
        after: 0,
        since_unix_ms: None,
        who: None,
        verb: None,
        follow: false,
    }
}

#[test]
fn a_call_gets_its_reply_or_the_words_of_the_refusal() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a");
    let server = answering(&path, frame_of(&Answer::<Vec<InviteSummary>>::Reply(Vec::new())));
    let reply = within(AdminSocket::at(path).call("list", &ListInvites {}, DEADLINE));
    assert_eq!(reply, Ok(Vec::new()));
    assert_eq!(server.join().expect("no panic").verb, ListInvites::VERB);

    let path = dir.path().join("b");
    let refusal = Refusal::new(RefusalCode::NotFound, "no such invite");
    let server = answering(&path, frame_of(&Answer::<()>::Refusal(refusal)));
    let failure = within(AdminSocket::at(path).call("list", &ListInvites {}, DEADLINE)).expect_err("refused");
    assert_eq!((failure.exit, failure.message.as_str()), (Exit::NotFound, "no such invite"));
    drop(server.join());
}

#[test]
fn a_feed_ends_whole_or_says_that_it_broke_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let item = AuditItem::Anchor {
        first_seq: 1,
        before: [0; 32],
    };
    let first = [
        frame_of(&FeedFrame::Item(item.clone())),
        frame_of(&FeedFrame::<AuditItem>::Idle),
    ]
    .concat();
    for (name, rest, is_whole) in [("a", frame_of(&FeedFrame::<AuditItem>::End), true), ("b", vec![0, 0], false)] {
        let path = dir.path().join(name);
        let server = answering(&path, [first.clone(), rest].concat());
        within(async {
            let mut feed = AdminSocket::at(path).feed("read", &audit()).await.expect("asked");
            assert_eq!(feed.next().await, Ok(Some(item.clone())));
            match feed.next().await {
                Ok(None) => assert!(is_whole),
                Ok(Some(item)) => panic!("{item:?} was never sent"),
                Err(failure) => assert!(!is_whole && failure.exit == Exit::Unreachable, "{failure:?}"),
            }
            assert_eq!(feed.next().await, Ok(None), "ever after");
        });
        drop(server.join());
    }
}

#[test]
fn whoever_is_turned_away_at_the_door_of_a_feed_hears_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a");
    let refusal = Refusal::new(RefusalCode::Denied, "for root alone");
    let server = answering(&path, frame_of(&Answer::<()>::Refusal(refusal)));
    let failure = within(async {
        let mut feed = AdminSocket::at(path).feed("read", &audit()).await.expect("asked");
        feed.next().await.expect_err("turned away")
    });
    assert_eq!((failure.exit, failure.message.as_str()), (Exit::Denied, "for root alone"));
    drop(server.join());
}

#[test]
fn a_socket_that_is_not_there_is_an_unreachable_coordinator() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = AdminSocket::at(dir.path().join("admin.sock"));
    assert!(!within(socket.may_be_used()));
    let failure = within(socket.call("list the invites", &ListInvites {}, DEADLINE)).expect_err("nobody is there");
    assert_eq!(failure.exit, Exit::Unreachable);
    assert_eq!(failure.message, "cannot list the invites");
    assert_eq!(failure.changed, Some(Changed::Nothing));
}
