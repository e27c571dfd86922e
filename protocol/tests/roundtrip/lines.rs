//! Any log lines, on their way up and on their way down.

use crate::{
    dataflows::dataflow_ref,
    grammar::{name, node, run},
};
use dora_remote_protocol::{
    cli_to_coordinator::ReadLogs,
    log_line::{LogBatch, LogItem, LogLevel, LogLine, LogRecord, LogSource, LogStream},
    packed::Packed,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

pub(crate) fn read_logs() -> impl Strategy<Value = ReadLogs> {
    let limits = (option::of(level()), option::of(level()), option::of(".{0,40}"));
    let numbers = any::<([Option<u64>; 4], bool)>();
    (dataflow_ref(), vec(node(), 0..4), numbers, limits).prop_map(
        |(dataflow, nodes, ([tail, after, since_unix_ms, until_unix_ms], follow), (level, machine_level, grep))| ReadLogs {
            dataflow,
            nodes,
            tail,
            after,
            follow,
            since_unix_ms,
            until_unix_ms,
            level,
            machine_level,
            grep,
        },
    )
}

pub(crate) fn batch() -> impl Strategy<Value = LogBatch> {
    let record = (any::<(u64, u64)>(), stream(), option::of(level()), ".{0,120}").prop_map(
        |((offset, at_unix_ms), stream, level, text)| LogRecord {
            offset,
            at_unix_ms,
            stream,
            level,
            text,
        },
    );
    (run(), source(), any::<(u64, u64)>(), vec(record, 0..8)).prop_map(|(dataflow, source, (epoch, lost_before), records)| {
        LogBatch {
            dataflow,
            source,
            epoch,
            lost_before,
            records,
        }
    })
}

pub(crate) fn log_item() -> impl Strategy<Value = LogItem> {
    let line = (
        any::<(u64, u64)>(),
        name(),
        source(),
        stream(),
        option::of(level()),
        ".{0,120}",
    )
        .prop_map(|((seq, at_unix_ms), machine, source, stream, level, text)| LogLine {
            seq,
            machine,
            source,
            stream,
            level,
            at_unix_ms,
            text,
        });
    prop_oneof![
        vec(line, 0..8).prop_map(|lines| LogItem::Lines(Packed::of_lines(&lines))),
        any::<(u64, u64)>().prop_map(|(lines, next_after)| LogItem::Gap { lines, next_after }),
        Just(LogItem::CaughtUp),
        any::<(u64, u64)>().prop_map(|(lines, milliseconds)| LogItem::Lag { lines, milliseconds }),
        any::<u64>().prop_map(|next_after| LogItem::Passed { next_after }),
        vec(name(), 0..3).prop_map(|machines| LogItem::Fetching { machines }),
        (name(), any::<(Option<u64>, Option<u64>)>()).prop_map(|(machine, (unreachable_since_unix_ms, newest_unix_ms))| {
            LogItem::Unfetched {
                machine,
                unreachable_since_unix_ms,
                newest_unix_ms,
            }
        }),
    ]
}

pub(crate) fn source() -> impl Strategy<Value = LogSource> {
    prop_oneof![
        node().prop_map(LogSource::Node),
        Just(LogSource::Machine),
        Just(LogSource::Build)
    ]
}

pub(crate) fn level() -> impl Strategy<Value = LogLevel> {
    select(vec![
        LogLevel::Error,
        LogLevel::Warn,
        LogLevel::Info,
        LogLevel::Debug,
        LogLevel::Trace,
    ])
}

fn stream() -> impl Strategy<Value = LogStream> {
    select(vec![LogStream::Stdout, LogStream::Stderr, LogStream::Message])
}
