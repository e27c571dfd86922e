//! Properties of the wire: every message survives its frame, and no bytes, however broken, make a decoder panic.

#![expect(clippy::expect_used, reason = "helpers of tests stand outside of test functions")]

mod dataflows;
#[path = "../../fuzz/decode_any.rs"]
mod decode_any;
mod grammar;
mod lines;
mod machines;

use crate::{
    dataflows::{prepare, start, stop, summary},
    grammar::{header, hello, refusal, run},
    lines::{batch, log_item, read_logs},
    machines::{engine_event, join, lifecycle_event, run_order},
};
use dora_remote_protocol::{
    agent_to_engine::{AgentFrame, EngineOrder},
    cli_to_coordinator::StartDataflow,
    daemon_to_coordinator::{ReportEvents, ShipLogs},
    engine_to_agent::EngineFrame,
    frame,
    limits::MAX_FRAME_BYTES,
    log_line::LogItem,
    name::Name,
    request::{Answer, FeedFrame},
};
use proptest::{collection::vec, option, prelude::*};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

proptest! {
    #[test]
    fn headers_and_hellos(header in header(), hello in hello()) {
        survives(&header)?;
        survives(&hello)?;
    }

    #[test]
    fn requests_of_people(start in start(), stop in stop(), logs in read_logs()) {
        survives(&start)?;
        survives(&stop)?;
        survives(&logs)?;
    }

    #[test]
    fn orders_and_reports(prepare in prepare(), join in join(), events in vec(lifecycle_event(), 0..8), batch in batch()) {
        survives(&prepare)?;
        survives(&join)?;
        survives(&ReportEvents { events })?;
        prop_assert_eq!(&ShipLogs::pack(batch.clone()).unpack().expect("packed lines"), &batch);
        survives(&ShipLogs::pack(batch))?;
    }

    #[test]
    fn answers_and_feeds(summary in summary(), item in log_item(), refusal in refusal()) {
        survives(&Answer::Reply(vec![summary]))?;
        survives(&Answer::<()>::Refusal(refusal.clone()))?;
        survives(&FeedFrame::Item(item))?;
        survives(&FeedFrame::<LogItem>::Refusal(refusal))?;
    }

    #[test]
    fn the_engine_socket(order in run_order(), event in engine_event(), id in any::<u64>(), dataflow in option::of(run())) {
        survives(&AgentFrame::Order { id, order: EngineOrder::Check(order) })?;
        survives(&EngineFrame::Event { seq: id, at_unix_ms: id, dataflow, what: event })?;
    }

    #[test]
    fn a_cut_frame_is_refused(start in start(), cut in any::<prop::sample::Index>()) {
        let frame = frame::encode(&start, MAX_FRAME_BYTES).expect("it fits");
        let body = &frame[frame::PREFIX_BYTES..];
        prop_assert!(frame::decode::<StartDataflow>(&body[..cut.index(body.len())]).is_err());
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in vec(any::<u8>(), 0..512)) {
        decode_any::decode_any(&bytes);
    }

    #[test]
    fn a_flipped_bit_decodes_or_is_refused(batch in batch(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut frame = frame::encode(&ShipLogs::pack(batch), MAX_FRAME_BYTES).expect("it fits");
        let body = &mut frame[frame::PREFIX_BYTES..];
        let at = at.index(body.len());
        body[at] ^= 1 << bit;
        for kind in 0..=30 {
            let mut bytes = vec![kind];
            bytes.extend_from_slice(body);
            decode_any::decode_any(&bytes);
        }
    }

    #[test]
    fn names_of_any_text_hold_their_grammar(text in any::<String>()) {
        if let Ok(name) = text.parse::<Name>() {
            prop_assert!(!text.contains(|c: char| c == '/' || c == '\\' || c.is_whitespace() || c.is_control()));
            prop_assert!(!text.starts_with('.') && text.len() <= 63);
            prop_assert_eq!(name.as_str(), text);
        }
    }
}

fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> Result<(), TestCaseError> {
    let frame = frame::encode(value, MAX_FRAME_BYTES).expect("it fits");
    let (prefix, body) = frame.split_at(frame::PREFIX_BYTES);
    let prefix = prefix.try_into().expect("a whole prefix");
    prop_assert_eq!(frame::body_length(prefix, MAX_FRAME_BYTES).expect("in bounds"), body.len());
    prop_assert_eq!(&frame::decode::<T>(body).expect("our own bytes"), value);
    Ok(())
}
