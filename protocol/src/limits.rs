//! Every bound of the wire and of the waits on a peer, each with its unit and its reason.

use std::time::Duration;

/// UDP port of the coordinator unless another one is named.
pub const DEFAULT_PORT: u16 = 6013;

/// Largest frame in bytes, length prefix excluded. Holds a descriptor of [`MAX_DESCRIPTOR_BYTES`] with its placement list.
pub const MAX_FRAME_BYTES: usize = 4 << 20;
/// Largest header frame in bytes: verb, deadline and request id, read before anything is known of the asker's wish.
pub const MAX_HEADER_BYTES: usize = 256;
/// Largest hello or welcome in bytes.
pub const MAX_HELLO_BYTES: usize = 4 << 10;
/// Largest expanded descriptor in bytes.
pub const MAX_DESCRIPTOR_BYTES: usize = 2 << 20;
/// Most nodes of one dataflow.
pub const MAX_NODES: usize = 1024;
/// Most labels of a machine or a node, and longest key or value in bytes.
pub const MAX_LABELS: usize = 64;
/// Longest label key or value in bytes.
pub const MAX_LABEL_BYTES: usize = 255;
/// Longest free text in a refusal, a cause or an event, in bytes; longer text is cut.
pub const MAX_TEXT_BYTES: usize = 16 << 10;

/// Largest compressed bundle in bytes.
pub const MAX_BUNDLE_BYTES: u64 = 64 << 20;
/// Largest unpacked bundle in bytes: a small archive must not fill a robot's disk.
pub const MAX_UNPACKED_BYTES: u64 = 512 << 20;
/// Most entries of one bundle.
pub const MAX_BUNDLE_ENTRIES: u64 = 50_000;
/// Bytes of one chunk of a bundle.
pub const BUNDLE_CHUNK_BYTES: usize = 64 << 10;

/// Longest log line in bytes. The engine cuts at 1 MiB and adds a mark.
pub const MAX_LOG_LINE_BYTES: usize = (1 << 20) + 64;
/// Bytes of text after which a batch of log lines is full; a longer line is the last one of its batch. A full batch per round trip
/// of 200 ms still carries 40,000 short lines a second.
pub const LOG_BATCH_BYTES: usize = 256 << 10;
/// Longest text that lines are searched for, in bytes.
pub const MAX_GREP_BYTES: usize = 1024;
/// Most lines of one batch, and most that are unpacked at once.
pub const LOG_BATCH_LINES: usize = 8_192;
/// Most bytes of packed lines before compression: a full batch with its longest last line, and its other columns.
pub const MAX_PACKED_BYTES: usize = 3 << 20;

/// How long a machine that ships log lines on demand goes on after it was last told that somebody reads them.
pub const LOGS_LEASE: Duration = Duration::from_secs(30);

/// Bidirectional streams a peer may hold open at once. Each costs memory when the connection is accepted.
pub const MAX_BIDI_STREAMS: u32 = 64;
/// Bytes of unread data that one stream may hold at the receiver.
pub const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// Bytes of unread data that one connection may hold at the receiver; above streams that are really in use together.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes that one connection may hold unacknowledged at the sender.
pub const SEND_WINDOW_BYTES: u64 = 8 << 20;

/// Handshakes in progress at once; further ones wait as cheap `Incoming`s.
pub const MAX_HANDSHAKES: usize = 64;
/// Time for one TLS handshake to finish, and again for the hello to arrive.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(3);
/// Time for one attempt to reach a peer, name resolution included.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(5);
/// Time for the header of a stream to arrive once the stream is open.
pub const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// Head start of IPv6 addresses over IPv4 ones (RFC 8305 section 5).
pub const RACE_STEP: Duration = Duration::from_millis(250);
/// Silence after which a connection is given up (QUIC idle timeout, RFC 9000 section 10.1).
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval of QUIC keep-alives from daemons and from followers (keeps NAT bindings open).
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Time for a command that only reads the coordinator's mind.
pub const QUERY_DEADLINE: Duration = Duration::from_secs(10);
/// Longest deadline that an asker may set for one command; feeds without an end are exempt.
pub const MAX_DEADLINE: Duration = Duration::from_secs(3600);
/// Time for a machine to fetch, unpack and check what a dataflow needs.
pub const PREPARE_DEADLINE: Duration = Duration::from_secs(600);
/// Time for a machine to spawn all its nodes (the stock coordinator's value).
pub const SPAWN_DEADLINE: Duration = Duration::from_secs(60);
/// Time for all nodes to reach the barrier after they were spawned.
pub const BARRIER_DEADLINE: Duration = Duration::from_secs(120);
/// Time for a machine to answer any other order (the stock coordinator's value).
pub const ORDER_DEADLINE: Duration = Duration::from_secs(30);
/// Grace between the stop event and SIGTERM when nobody says otherwise (dora's default).
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// Time beyond twice the grace after which a stop counts as failed.
pub const STOP_MARGIN: Duration = Duration::from_secs(20);

/// Interval of a daemon's heartbeats while it runs dataflows: bounds how long a returned coordinator waits for it.
pub const HEARTBEAT_ACTIVE: Duration = Duration::from_millis(1500);
/// Interval of a daemon's heartbeats while it is idle.
pub const HEARTBEAT_IDLE: Duration = Duration::from_secs(5);
/// Silence after which the dialling side starts to race a second connection.
pub const SILENCE: Duration = Duration::from_secs(4);
/// Quiet after which a side that waits for something makes a packet leave, and the pause between further ones: bounds how long a
/// rebound NAT or a coordinator that has come back goes unnoticed.
pub const NUDGE: Duration = Duration::from_millis(500);
/// Silence after which the coordinator calls a machine unreachable, though its connection still stands.
pub const UNREACHABLE_AFTER: Duration = Duration::from_secs(12);
/// Interval between dials in the first [`REDIAL_FAST_FOR`] of an outage.
pub const REDIAL_FAST: Duration = Duration::from_secs(1);
/// How long dials stay fast.
pub const REDIAL_FAST_FOR: Duration = Duration::from_secs(120);
/// Upper bound of the full-jitter wait between dials after that.
pub const REDIAL_CAP: Duration = Duration::from_secs(15);
/// Shortest silence after which a machine may be told to stop a dataflow by itself: three heartbeats, so that one lost packet ends nothing.
pub const MIN_LINK_SILENCE: Duration = Duration::from_secs(5);
/// Longest such silence.
pub const MAX_LINK_SILENCE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Dataflows that have ended and are still listed; the oldest are forgotten first.
pub const MAX_ENDED_DATAFLOWS: usize = 200;
/// Dataflows that have not ended, at once.
pub const MAX_LIVE_DATAFLOWS: usize = 500;
/// Machines that the coordinator remembers.
pub const MAX_MACHINES: usize = 20_000;
/// Lifecycle events in one report of a daemon.
pub const MAX_EVENTS_PER_REPORT: usize = 256;
