//! The first exchange on a connection. Nothing else that the dialling side sends is looked at before its hello is accepted.
//!
//! The dialling side does not wait for the answer before it opens further streams: hello and first command share a flight.

use crate::{
    error::CallError,
    stream::{FrameReader, Outgoing, StreamError},
};
use dora_remote_protocol::{
    hello::{Hello, HelloAnswer, Welcome},
    ids::{BootId, InstanceId},
    limits::MAX_HELLO_BYTES,
    refusal::{Refusal, RefusalCode},
    request::Priority,
    version::{Version, VersionMismatch, VersionRange},
};
use quinn::Connection;
use std::time::Duration;
use tokio::time::timeout;

/// What this side says of itself in its hello or its welcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// Build of the program, for people: `0.1.0`.
    pub build: String,
    /// Names of optional abilities.
    pub features: Vec<String>,
    /// State directory (daemon, coordinator) or process (CLI) that speaks.
    pub instance: InstanceId,
    /// Boot of the machine that speaks.
    pub boot: BootId,
}

impl Speaker {
    pub(crate) fn hello(&self, counter: u64) -> Hello {
        Hello {
            versions: VersionRange::OURS,
            build: self.build.clone(),
            features: self.features.clone(),
            instance: self.instance,
            boot: self.boot,
            counter,
        }
    }
}

/// Opens the first stream and writes the hello; returns the half on which the answer comes.
pub(crate) async fn say(connection: &Connection, hello: &Hello) -> Result<FrameReader, StreamError> {
    let (send, recv) = connection.open_bi().await.map_err(StreamError::Lost)?;
    let mut outgoing = Outgoing::new(send, Priority::Safety);
    outgoing.write(hello, MAX_HELLO_BYTES).await?;
    outgoing.finish();
    Ok(FrameReader::new(recv))
}

/// Reads the answer to our hello.
pub(crate) async fn read_answer(mut answer: FrameReader) -> Result<HelloAnswer, StreamError> {
    let read = answer.read(MAX_ANSWER_BYTES).await?.ok_or(StreamError::Torn)?;
    answer.expect_end().await?;
    Ok(read)
}

/// Waits for the first stream and reads the hello from it, all within `patience`.
pub(crate) async fn receive(connection: &Connection, patience: Duration) -> Result<(Hello, Outgoing), HelloFault> {
    let reading = async {
        let (send, recv) = connection.accept_bi().await.map_err(StreamError::Lost)?;
        let outgoing = Outgoing::new(send, Priority::Safety);
        let mut incoming = FrameReader::new(recv);
        let hello = incoming.read(MAX_HELLO_BYTES).await?.ok_or(StreamError::Torn)?;
        incoming.expect_end().await?;
        Ok((hello, outgoing))
    };
    match timeout(patience, reading).await {
        Ok(result) => result.map_err(HelloFault::Broken),
        Err(_) => Err(HelloFault::Late),
    }
}

/// Writes the answer to a hello, within `patience`.
pub(crate) async fn answer(outgoing: &mut Outgoing, answer: &HelloAnswer, patience: Duration) -> Result<(), StreamError> {
    match timeout(patience, outgoing.write(answer, MAX_ANSWER_BYTES)).await {
        Ok(written) => written?,
        Err(_) => return Err(StreamError::Abandoned),
    }
    outgoing.finish();
    Ok(())
}

/// Picks the version, or says no in words that fit the asking side.
pub(crate) fn agree(theirs: VersionRange) -> Result<Version, Refusal> {
    VersionRange::OURS.agree(theirs).map_err(|VersionMismatch { ours, theirs }| {
        let behind = if theirs.newest > ours.newest {
            "the coordinator"
        } else {
            "this side"
        };
        Refusal::new(
            RefusalCode::VersionMismatch,
            format!("the coordinator speaks protocol {ours}, and this side {theirs}"),
        )
        .hint(format!("upgrade {behind}"))
    })
}

/// How the dialling side's own hello fared, as its callers see it.
pub(crate) type Greeting = Option<Result<Welcome, CallError>>;

/// Why no hello was received.
#[derive(Debug)]
pub(crate) enum HelloFault {
    Late,
    Broken(StreamError),
}

/// Largest answer in bytes: a refusal may carry more text than a hello.
const MAX_ANSWER_BYTES: usize = 2 * dora_remote_protocol::limits::MAX_TEXT_BYTES + MAX_HELLO_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_version_names_both_and_who_must_move() {
        let range = |oldest, newest| VersionRange {
            oldest: Version(oldest),
            newest: Version(newest),
        };
        let refusal = agree(range(900, 901)).expect_err("the future");
        assert_eq!(refusal.code, RefusalCode::VersionMismatch);
        assert!(refusal.message.contains("1.900 to 1.901"), "{refusal}");
        assert!(refusal.message.contains(&VersionRange::OURS.to_string()), "{refusal}");
        assert_eq!(refusal.hint, "upgrade the coordinator");
        assert_eq!(agree(range(0, 0)).expect_err("the past").hint, "upgrade this side");
        assert_eq!(agree(VersionRange::OURS), Ok(VersionRange::OURS.newest));
    }
}
