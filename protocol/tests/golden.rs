//! Golden bytes: what stands on the wire for one example of each kind of message, field by field.
//!
//! A test here fails when a change would make two builds misunderstand each other. Change the bytes only together with the
//! protocol version.

#![expect(clippy::expect_used, reason = "helpers of tests stand outside of test functions")]

use dora_remote_protocol::{
    cli_to_coordinator::{StartDataflow, StopDataflow},
    daemon_to_coordinator::ShipLogs,
    dataflow::{BundleRef, DataflowEvent, DataflowRef, DataflowSpec, DataflowState, Files, LinkLoss, NameWish, NodeSpec},
    engine_to_agent::{EngineReply, NodeFacts, OperatorFacts, OperatorKind, RunFacts, Starts},
    frame,
    hello::{Hello, HelloAnswer, Welcome},
    identity::Role,
    ids::{BootId, BundleHash, DataflowId, InstanceId, RequestId},
    limits::MAX_FRAME_BYTES,
    log_line::{LogBatch, LogItem, LogLevel, LogLine, LogRecord, LogSource, LogStream},
    packed::Packed,
    refusal::{Changed, Refusal, RefusalCode},
    request::{Answer, FeedFrame, Header, Request},
    version::{Version, VersionRange},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fmt::Debug};
use uuid::Uuid;

/// An id whose bytes can be told apart in a dump.
const ID: Uuid = Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
/// [`ID`] on the wire: its length, then its bytes.
const ID_BYTES: &str = "10 00112233445566778899aabbccddeeff";

#[test]
fn header() {
    golden(
        &Header {
            verb: StopDataflow::VERB,
            deadline_ms: 10_000,
            request_id: RequestId(ID),
        },
        &[("verb 13", "0d"), ("10000 ms", "904e"), ("request id", ID_BYTES)],
    );
}

#[test]
fn hello() {
    golden(
        &Hello {
            versions: VersionRange {
                oldest: Version(1),
                newest: Version(300),
            },
            build: "0.1.0".to_owned(),
            features: vec!["zstd".to_owned()],
            instance: InstanceId(ID),
            boot: BootId(ID),
            counter: 7,
        },
        &[
            ("oldest version 1", "01"),
            ("newest version 300", "ac02"),
            ("build: 5 bytes, 0.1.0", "05 302e312e30"),
            ("one feature: 4 bytes, zstd", "01 04 7a737464"),
            ("instance", ID_BYTES),
            ("boot", ID_BYTES),
            ("counter", "07"),
        ],
    );
}

#[test]
fn hello_answers() {
    golden(
        &HelloAnswer::Welcome(Welcome {
            version: Version(1),
            build: "0.1.0".to_owned(),
            features: vec![],
            role: Role::Viewer,
            time_unix_ms: 1_000,
            store_epoch: 2,
        }),
        &[
            ("welcome", "00"),
            ("version 1", "01"),
            ("build", "05 302e312e30"),
            ("no features", "00"),
            ("viewer", "02"),
            ("1000 ms", "e807"),
            ("store epoch", "02"),
        ],
    );
    golden(
        &HelloAnswer::Refusal(Refusal::new(RefusalCode::VersionMismatch, "no").hint("up")),
        &[
            ("refusal", "01"),
            ("version mismatch", "04"),
            ("message", "02 6e6f"),
            ("hint", "02 7570"),
            ("changed: nothing", "00"),
        ],
    );
}

#[test]
fn start() {
    golden(
        &StartDataflow {
            start_id: RequestId(ID),
            spec: DataflowSpec {
                name: NameWish::Like("flow".parse().expect("a good name")),
                descriptor: "nodes: []".to_owned(),
                nodes: vec![NodeSpec {
                    id: "cam".parse().expect("a good node id"),
                    machine: Some("bot".parse().expect("a good name")),
                    labels: BTreeMap::from([("gpu".to_owned(), "yes".to_owned())]),
                    dynamic: false,
                }],
                default_machine: None,
                files: Files::Bundle(BundleRef {
                    hash: BundleHash([0xab; 32]),
                    bytes: 128,
                    unpacked_bytes: 1_024,
                    entries: 3,
                }),
                uv: true,
                link_loss: LinkLoss::StopAfter { silence_ms: 30_000 },
            },
        },
        &[
            ("start id", ID_BYTES),
            ("name: like", "01"),
            ("name", "04 666c6f77"),
            ("descriptor", "09 6e6f6465733a205b5d"),
            ("one node", "01"),
            ("its id", "03 63616d"),
            ("some machine", "01 03 626f74"),
            ("one label", "01 03 677075 03 796573"),
            ("not dynamic", "00"),
            ("no default machine", "00"),
            ("files: bundle", "00"),
            (
                "its hash, without a length",
                "abababababababababababababababababababababababababababababababab",
            ),
            ("128 bytes", "8001"),
            ("1024 unpacked", "8008"),
            ("3 entries", "03"),
            ("uv", "01"),
            ("stop after", "01"),
            ("30000 ms", "b0ea01"),
        ],
    );
}

#[test]
fn stop() {
    golden(
        &StopDataflow {
            dataflow: DataflowRef::Id(DataflowId(ID)),
            grace_ms: Some(2_000),
            force: false,
        },
        &[
            ("by id", "00"),
            ("id", ID_BYTES),
            ("some grace, 2000 ms", "01 d00f"),
            ("without force", "00"),
        ],
    );
    golden(
        &StopDataflow {
            dataflow: DataflowRef::Name("flow".to_owned()),
            grace_ms: None,
            force: true,
        },
        &[
            ("by name", "01"),
            ("name", "04 666c6f77"),
            ("no grace", "00"),
            ("by force", "01"),
        ],
    );
}

#[test]
fn answers() {
    golden(&Answer::Reply(true), &[("reply", "00"), ("true", "01")]);
    golden(
        &Answer::<bool>::Refusal(Refusal::new(RefusalCode::Denied, "no").changed(Changed::Unknown)),
        &[
            ("refusal", "01"),
            ("denied", "01"),
            ("message", "02 6e6f"),
            ("no hint", "00"),
            ("changed: unknown", "02"),
        ],
    );
}

#[test]
fn feed_frames() {
    golden(
        &FeedFrame::Item(DataflowEvent::State(DataflowState::Running)),
        &[("item", "00"), ("state", "01"), ("running", "02")],
    );
    golden(&FeedFrame::<DataflowEvent>::Idle, &[("idle", "01")]);
    golden(&FeedFrame::<DataflowEvent>::End, &[("end", "02")]);
    golden(
        &FeedFrame::<DataflowEvent>::Refusal(Refusal::new(RefusalCode::SpawnFailed, "x")),
        &[
            ("refusal", "03"),
            ("spawn failed", "0e"),
            ("message", "01 78"),
            ("no hint", "00"),
            ("changed: nothing", "00"),
        ],
    );
}

#[test]
fn facts() {
    golden(
        &EngineReply::Facts(RunFacts {
            environment: vec!["A".to_owned()],
            uv: true,
            nodes: vec![NodeFacts {
                node: "cam".parse().expect("a good node id"),
                starts: Starts::Program {
                    file: "/b".to_owned(),
                    shell: Some("sh".to_owned()),
                },
                dir: "/d".to_owned(),
                build: true,
                git: false,
                environment: vec![],
            }],
        }),
        &[
            ("facts", "02"),
            ("one variable of the dataflow", "01 01 41"),
            ("uv", "01"),
            ("one node", "01"),
            ("its id", "03 63616d"),
            ("a program", "02"),
            ("its file", "02 2f62"),
            ("counts as a shell, and why", "01 02 7368"),
            ("its directory", "02 2f64"),
            ("has a build command", "01"),
            ("not from git", "00"),
            ("no variable of its own", "00"),
        ],
    );
    golden(
        &Starts::Operators(vec![OperatorFacts {
            kind: OperatorKind::Python,
            file: None,
            conda: true,
        }]),
        &[
            ("operators, one", "05 01"),
            ("python", "01"),
            ("from a URL", "00"),
            ("conda", "01"),
        ],
    );
}

#[test]
fn ship_logs() {
    golden(
        &ShipLogs::pack(LogBatch {
            dataflow: DataflowId(ID),
            source: LogSource::Node("cam".parse().expect("a good node id")),
            epoch: 1,
            lost_before: 0,
            records: vec![record(130, 1_000, "hi"), record(150, 999, "you")],
        }),
        &[
            ("dataflow", ID_BYTES),
            ("source: node", "00 03 63616d"),
            ("epoch", "01"),
            ("nothing lost", "00"),
            ("last offset: 150", "9601"),
            ("not compressed", "00"),
            ("16 bytes of two lines", "10 02"),
            ("offsets: 130, 20 more", "8201 14"),
            ("times: 1000 ms, 1 less, sign in the last bit", "d00f 01"),
            ("two of a kind: warn on stderr", "02 07"),
            ("lengths of texts", "02 03"),
            ("texts", "6869 796f75"),
        ],
    );
}

#[test]
fn lines_of_a_feed() {
    let line = |seq, source, text: &str| LogLine {
        seq,
        machine: "arm".parse().expect("a good name"),
        source,
        stream: LogStream::Stdout,
        level: None,
        at_unix_ms: 5,
        text: text.to_owned(),
    };
    let cam = LogSource::Node("cam".parse().expect("a good node id"));
    golden(
        &LogItem::Lines(Packed::of_lines(&[
            line(7, cam.clone(), "a"),
            line(8, cam, "b"),
            line(9, LogSource::Machine, "c"),
        ])),
        &[
            ("lines", "00"),
            ("last number", "09"),
            ("not compressed", "00"),
            ("31 bytes of three lines", "1f 03"),
            ("numbers", "07 01 01"),
            ("times", "0a 00 00"),
            ("two of machine arm", "02 03 61726d"),
            ("from node cam", "00 03 63616d"),
            ("one of machine arm", "01 03 61726d"),
            ("from the machine", "01"),
            ("three on stdout", "03 00"),
            ("lengths of texts", "01 01 01"),
            ("texts", "616263"),
        ],
    );
}

fn record(offset: u64, at_unix_ms: u64, text: &str) -> LogRecord {
    LogRecord {
        offset,
        at_unix_ms,
        stream: LogStream::Stderr,
        level: Some(LogLevel::Warn),
        text: text.to_owned(),
    }
}

/// Compares the frame of `value` with its fields in hexadecimal, and reads it back.
#[track_caller]
fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, fields: &[(&str, &str)]) {
    let frame = frame::encode(value, MAX_FRAME_BYTES).expect("it fits into a frame");
    let (prefix, body) = frame.split_at(frame::PREFIX_BYTES);
    let mut at = 0;
    for (field, hex) in fields {
        let wanted = bytes(hex);
        let found = body.get(at..at + wanted.len()).unwrap_or_else(|| &body[at.min(body.len())..]);
        assert_eq!(
            found, wanted,
            "field `{field}` at byte {at} of {value:?}; whole body {body:02x?}"
        );
        at += wanted.len();
    }
    assert_eq!(
        at,
        body.len(),
        "bytes behind the last field of {value:?}: {:02x?}",
        &body[at..]
    );
    assert_eq!(
        prefix,
        u32::try_from(at).expect("short").to_be_bytes(),
        "length prefix, big endian"
    );
    assert_eq!(&frame::decode::<T>(body).expect("our own bytes"), value);
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("two hexadecimal digits"))
        .collect()
}
