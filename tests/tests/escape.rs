//! A bundle made by hand that tries to leave its directory: the machine unpacks nothing, and says why.

use dora_remote_certs::Credentials;
use dora_remote_link::{CallError, DialKind, Dialer, Peer, Speaker};
use dora_remote_protocol::{
    cli_to_coordinator::{PutBundle, StartDataflow},
    dataflow::{BundleRef, DataflowSpec, Files, LinkLoss, NameWish, NodeSpec},
    ids::{BootId, BundleHash, InstanceId, RequestId},
    refusal::{Refusal, RefusalCode},
};
use dora_remote_tests::{
    cluster::Cluster,
    flows::{TICKER, TICKER_FLOW},
    patience::DEADLINE,
    raw_peer::runtime,
};
use std::{collections::BTreeMap, io::Cursor, path::Path};
use tar::{Builder, EntryType, Header};
use uuid::Uuid;

#[test]
fn parent_directories() {
    attempt("a path with ..", |tar, goal| {
        let path = format!("../../../../../../../..{}", goal.display());
        raw_file(tar, &path, b"escaped");
    });
}

#[test]
fn absolute_path() {
    attempt("an absolute path", |tar, goal| {
        raw_file(tar, goal.to_str().expect("a plain path"), b"escaped")
    });
}

#[test]
fn writing_through_a_link() {
    attempt("a link and a file behind it", |tar, goal| {
        let mut link = Header::new_gnu();
        link.set_entry_type(EntryType::Symlink);
        link.set_size(0);
        link.set_mode(0o777);
        let folder = goal.parent().expect("a folder");
        tar.append_link(&mut link, "door", folder).expect("memory");
        raw_file(
            tar,
            &format!("door/{}", goal.file_name().and_then(|name| name.to_str()).expect("a name")),
            b"escaped",
        );
    });
}

#[test]
fn hard_link() {
    attempt("a hard link to a foreign file", |tar, _| {
        let mut link = Header::new_gnu();
        link.set_entry_type(EntryType::Link);
        link.set_size(0);
        link.set_mode(0o644);
        tar.append_link(&mut link, "passwd", "/etc/passwd").expect("memory");
    });
}

#[test]
fn device() {
    attempt("a device", |tar, _| {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Char);
        header.set_path("null").expect("a short path");
        header.set_device_major(1).expect("a GNU header");
        header.set_device_minor(3).expect("a GNU header");
        header.set_size(0);
        header.set_mode(0o666);
        header.set_cksum();
        tar.append(&header, std::io::empty()).expect("memory");
    });
}

/// Sends a good dataflow with one bad entry, and expects a refusal that leaves nothing behind.
fn attempt(what: &str, add: impl Fn(&mut Builder<Vec<u8>>, &Path)) {
    let cluster = Cluster::start(&["A"]);
    let goal = cluster.path("goal");
    let mut tar = Builder::new(vec![]);
    raw_file(&mut tar, "dataflow.yml", TICKER_FLOW.as_bytes());
    raw_file(&mut tar, "ticker.py", TICKER.as_bytes());
    add(&mut tar, &goal);
    let unpacked = tar.into_inner().expect("memory");
    let archive = zstd::encode_all(Cursor::new(&unpacked), 3).expect("memory");

    let refusal = runtime().block_on(start(&cluster, &archive, unpacked.len()));
    assert_eq!(refusal.code, RefusalCode::BadBundle, "{what}: {refusal:?}");
    assert!(!refusal.message.is_empty(), "{what}");
    assert!(!goal.exists(), "{what}: it escaped");
    assert!(cluster.nodes().is_empty(), "{what}");
    let left = std::fs::read_dir(cluster.path("A/runs")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "{what}: the run directory is gone");
    for flow in cluster.cli().json(&["list"])["dataflows"].as_array().expect("dataflows") {
        assert_eq!(flow["state"], "Failed", "{what}: {flow}");
    }
}

async fn start(cluster: &Cluster, archive: &[u8], unpacked: usize) -> Refusal {
    let bundle = BundleRef {
        hash: BundleHash(*blake3::hash(archive).as_bytes()),
        bytes: archive.len() as u64,
        unpacked_bytes: unpacked as u64,
        entries: 3,
    };
    let (_dialer, peer) = admin(cluster).await;
    let put = PutBundle { bundle };
    if let Err(error) = peer.upload(&put, Cursor::new(archive.to_vec()), DEADLINE).await {
        return refusal(error);
    }
    let start = StartDataflow {
        start_id: RequestId(Uuid::new_v4()),
        spec: DataflowSpec {
            name: NameWish::Exactly("escape".parse().expect("a good name")),
            descriptor: TICKER_FLOW.to_owned(),
            nodes: vec![NodeSpec {
                id: "ticker".parse().expect("a good id"),
                machine: None,
                labels: BTreeMap::new(),
                dynamic: false,
            }],
            default_machine: None,
            files: Files::Bundle(bundle),
            uv: false,
            link_loss: LinkLoss::Keep,
        },
    };
    let mut feed = match peer.feed(&start, Some(DEADLINE)).await {
        Ok(feed) => feed,
        Err(error) => return refusal(error),
    };
    loop {
        match feed.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it was started"),
            Err(error) => return refusal(error),
        }
    }
}

async fn admin(cluster: &Cluster) -> (Dialer, Peer) {
    let credentials = Credentials::load(&cluster.path("authority/admin")).expect("the first admin");
    let speaker = Speaker {
        build: "0.1.0".to_owned(),
        features: vec![],
        instance: InstanceId(Uuid::new_v4()),
        boot: BootId(Uuid::new_v4()),
    };
    let dialer = Dialer::new(&credentials, speaker, DialKind::Command).expect("good credentials");
    let peer = dialer
        .dial(&cluster.address().parse().expect("an address"))
        .await
        .expect("a connection");
    (dialer, peer)
}

#[track_caller]
fn refusal(error: CallError) -> Refusal {
    match error {
        CallError::Refused(refusal) => refusal,
        other => panic!("no refusal: {other:?}"),
    }
}

/// Appends a file under a name as it stands: `tar` itself would refuse `..` and `/`.
fn raw_file(tar: &mut Builder<Vec<u8>>, name: &str, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.as_gnu_mut().expect("a GNU header").name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append(&header, content).expect("memory");
}
