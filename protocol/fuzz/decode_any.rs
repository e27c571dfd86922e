// Included by path from the fuzz target and from the test that replays its corpus: everything that can arrive from a peer.

use dora_remote_protocol::{
    access,
    agent_to_engine::{AgentFrame, AgentHello},
    audit, backup, cli_to_coordinator as cli, coordinator_to_daemon as order, daemon_to_coordinator as report,
    engine_to_agent::{EngineFrame, EngineHello},
    frame,
    hello::{Hello, HelloAnswer},
    limits::{LOG_BATCH_LINES, MAX_FRAME_BYTES},
    log_line::LogItem,
    request::{Answer, FeedFrame, Header, Request},
};
use serde::{Serialize, de::DeserializeOwned};

/// Takes the first byte as the kind of message and decodes the rest as its body; what decodes must survive encoding again.
pub(crate) fn decode_any(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    if let Some(prefix) = body.first_chunk::<{ frame::PREFIX_BYTES }>() {
        let length = frame::body_length(*prefix, MAX_FRAME_BYTES);
        assert!(length.is_err() || length.is_ok_and(|length| length <= MAX_FRAME_BYTES));
    }
    let messages: &[fn(&[u8])] = &[
        check::<Header>,
        check::<Hello>,
        check::<HelloAnswer>,
        check::<AgentHello>,
        check::<AgentFrame>,
        check::<EngineHello>,
        check::<EngineFrame>,
        exchange::<cli::HasBundle>,
        exchange::<cli::PutBundle>,
        exchange::<cli::StartDataflow>,
        exchange::<cli::StopDataflow>,
        exchange::<cli::ListDataflows>,
        exchange::<cli::WatchDataflow>,
        exchange::<cli::ReadLogs>,
        exchange::<cli::ListMachines>,
        exchange::<cli::GetStatus>,
        exchange::<order::PrepareRun>,
        exchange::<order::SpawnRun>,
        exchange::<order::ReleaseBarrier>,
        exchange::<order::StopRun>,
        exchange::<order::ForgetRun>,
        exchange::<report::JoinMachine>,
        exchange::<report::Heartbeat>,
        exchange::<report::ReportEvents>,
        exchange::<report::ShipLogs>,
        exchange::<report::FetchBundle>,
        exchange::<access::CreateInvite>,
        exchange::<access::ListInvites>,
        exchange::<access::RevokeInvite>,
        exchange::<access::Revoke>,
        exchange::<access::ListIdentities>,
        exchange::<access::Renew>,
        exchange::<access::Join>,
        exchange::<access::AcceptRestore>,
        exchange::<audit::ReadAudit>,
        exchange::<audit::ListWitnesses>,
        exchange::<backup::ReadBackup>,
        exchange::<order::KeepHead>,
        exchange::<order::KeepRevocations>,
        exchange::<order::ShowHeads>,
        exchange::<order::Ping>,
        unpack,
    ];
    messages[usize::from(*kind) % messages.len()](body);
}

/// The body of a request, its answer and its feed frame.
fn exchange<R: Request>(body: &[u8]) {
    check::<R>(body);
    check::<Answer<R::Reply>>(body);
    check::<FeedFrame<R::Reply>>(body);
}

/// What is packed within is unpacked, or refused: never more lines than may be.
fn unpack(body: &[u8]) {
    let lines = match frame::decode::<LogItem>(body) {
        Ok(LogItem::Lines(packed)) => packed.lines().map_or(0, |lines| lines.len()),
        _ => 0,
    };
    let records =
        frame::decode::<report::ShipLogs>(body).map_or(0, |shipped| shipped.unpack().map_or(0, |batch| batch.records.len()));
    assert!(lines.max(records) <= LOG_BATCH_LINES);
}

fn check<T: Serialize + DeserializeOwned>(body: &[u8]) {
    let Ok(value) = frame::decode::<T>(body) else { return };
    let again = frame::encode(&value, usize::MAX).expect("what was decoded can be encoded");
    let back: T = frame::decode(&again[frame::PREFIX_BYTES..]).expect("what was encoded can be decoded");
    let twice = frame::encode(&back, usize::MAX).expect("what was decoded can be encoded");
    assert_eq!(again, twice, "one value has one encoding");
}
