//! The admin socket: administration on the coordinator's host without a certificate.

use crate::support::{Running, World, soon};
use dora_remote_protocol::{
    access::{CreateInvite, ListInvites},
    audit::{AuditItem, ReadAudit},
    backup::ReadBackup,
    cli_to_coordinator::{GetStatus, ListMachines, StopDataflow},
    dataflow::DataflowRef,
    frame::{PREFIX_BYTES, body_length, decode, encode},
    identity::Role,
    ids::RequestId,
    limits::{MAX_FRAME_BYTES, MAX_HEADER_BYTES},
    refusal::{Refusal, RefusalCode},
    request::{Answer, FeedFrame, Header, Request, Verb},
};
use serde::de::DeserializeOwned;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use uuid::Uuid;

#[tokio::test]
async fn the_user_of_the_coordinator_administers_it_on_its_host() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let socket = world.path("state").join("admin.sock");
    let metadata = fs::metadata(&socket).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let who = format!("local uid {}", metadata.uid());

    let status = call(&world, GetStatus {}).await.unwrap();
    assert_eq!(status.asker, who);
    assert!(call(&world, ListMachines {}).await.unwrap().is_empty());
    let created = call(
        &world,
        CreateInvite {
            join_key: [3; 32],
            ..crate::joining::wish(Role::Daemon, "robot")
        },
    )
    .await
    .unwrap();
    assert_eq!(created.identity.role, Role::Daemon);
    let invites = call(&world, ListInvites {}).await.unwrap();
    assert_eq!((invites.len(), invites[0].by.as_str()), (1, who.as_str()));

    let mut follow = ask(
        &world,
        &ReadAudit {
            follow: true,
            ..crate::witness::everything()
        },
    )
    .await;
    assert!(matches!(item(&mut follow).await, AuditItem::Anchor { first_seq: 1, .. }));
    let AuditItem::Entry(first) = item(&mut follow).await else {
        panic!("an entry")
    };
    assert_eq!(
        (first.verb.as_str(), first.who.as_str(), first.target.as_str()),
        ("invite", who.as_str(), "daemon/robot")
    );
    let mut backup = ask(&world, &ReadBackup {}).await;
    let mut bytes = 0;
    loop {
        match frame::<FeedFrame<dora_remote_protocol::chunk::Chunk>>(&mut backup).await {
            FeedFrame::Item(chunk) => bytes += chunk.0.len(),
            FeedFrame::Idle => {}
            FeedFrame::End => break,
            FeedFrame::Refusal(refusal) => panic!("{refusal}"),
        }
    }
    assert!(bytes > 0);
    let AuditItem::Entry(second) = item(&mut follow).await else {
        panic!("an entry")
    };
    assert_eq!((second.verb.as_str(), second.result.as_str()), ("backup", "ok"));
    running.end().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn what_does_not_belong_there_is_refused() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let stop = StopDataflow {
        dataflow: DataflowRef::Name("flow".to_owned()),
        grace_ms: None,
        force: false,
    };
    assert_eq!(call(&world, stop).await.unwrap_err().code, RefusalCode::UnknownVerb);

    // A body that is none, and a header that is none.
    let mut stream = connect(&world).await;
    stream.write_all(&header(CreateInvite::VERB)).await.unwrap();
    stream.write_all(&encode(&7_u8, 8).unwrap()).await.unwrap();
    match frame::<Answer<()>>(&mut stream).await {
        Answer::Refusal(refusal) => assert_eq!(refusal.code, RefusalCode::BadRequest),
        Answer::Reply(()) => panic!("a reply to nonsense"),
    }
    let mut stream = connect(&world).await;
    stream.write_all(&[0xff; 64]).await.unwrap();
    let mut rest = Vec::new();
    // The end of the connection, in whatever form the kernel tells it.
    drop(soon("the end of the connection", stream.read_to_end(&mut rest)).await);
    assert!(rest.is_empty());
    running.end().await;
}

#[tokio::test]
async fn seventeen_are_too_many_and_places_come_back() {
    let world = World::new();
    let running = Running::start(world.config("state")).await;
    let follow = ReadAudit {
        follow: true,
        ..crate::witness::everything()
    };
    let mut open = Vec::new();
    for _ in 0..16 {
        let mut stream = ask(&world, &follow).await;
        item(&mut stream).await;
        open.push(stream);
    }
    assert_eq!(call(&world, GetStatus {}).await.unwrap_err().code, RefusalCode::Busy);
    drop(open);
    soon("a place", async {
        while call(&world, GetStatus {}).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    running.end().await;
}

async fn connect(world: &World) -> UnixStream {
    let path = world.path("state").join("admin.sock");
    soon("a connection", UnixStream::connect(path)).await.unwrap()
}

fn header(verb: Verb) -> Vec<u8> {
    let header = Header {
        verb,
        deadline_ms: 0,
        request_id: RequestId(Uuid::new_v4()),
    };
    encode(&header, MAX_HEADER_BYTES).unwrap()
}

async fn ask<R: Request>(world: &World, request: &R) -> UnixStream {
    let mut stream = connect(world).await;
    let mut bytes = header(R::VERB);
    bytes.extend(encode(request, MAX_FRAME_BYTES).unwrap());
    // Who is turned away may be told before it has asked.
    drop(stream.write_all(&bytes).await);
    stream
}

async fn call<R: Request>(world: &World, request: R) -> Result<R::Reply, Refusal> {
    let mut stream = ask(world, &request).await;
    match frame::<Answer<R::Reply>>(&mut stream).await {
        Answer::Reply(reply) => Ok(reply),
        Answer::Refusal(refusal) => Err(refusal),
    }
}

async fn item(stream: &mut UnixStream) -> AuditItem {
    loop {
        match frame::<FeedFrame<AuditItem>>(stream).await {
            FeedFrame::Item(item) => return item,
            FeedFrame::Idle => {}
            FeedFrame::End => panic!("the feed ended"),
            FeedFrame::Refusal(refusal) => panic!("{refusal}"),
        }
    }
}

async fn frame<T: DeserializeOwned>(stream: &mut UnixStream) -> T {
    let reading = async {
        let mut prefix = [0; PREFIX_BYTES];
        stream.read_exact(&mut prefix).await.unwrap();
        let mut body = vec![0; body_length(prefix, MAX_FRAME_BYTES).unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        decode(&body).unwrap()
    };
    soon("a frame", reading).await
}
