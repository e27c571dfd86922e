//! A peer that asks any verb at all, by its number and with any body: to see who is let through, and who is not.

use crate::{patience, raw_peer};
use dora_remote_certs::{Credentials, JoinCredentials, JoinTarget, VerifyReport, client_config, client_config_for_join};
use dora_remote_protocol::{
    frame,
    hello::{Hello, HelloAnswer},
    ids::{BootId, InstanceId, RequestId},
    invite::InviteToken,
    limits::{MAX_FRAME_BYTES, MAX_HEADER_BYTES, MAX_HELLO_BYTES},
    refusal::{Refusal, RefusalCode},
    request::{Answer, FeedFrame, Header, Shape, VerbRow},
    version::VersionRange,
};
use quinn::{Connection, Endpoint, RecvStream};
use std::sync::Arc;
use tokio::{runtime::Runtime, time::timeout};
use uuid::Uuid;

/// A connection on which the hello was answered.
#[derive(Debug)]
pub struct Asker {
    runtime: Runtime,
    connection: Connection,
    _endpoint: Endpoint,
}

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A handler has seen the request: it answered, or said no to what is in the body.
    LetThrough,
    /// It was refused before its body was looked at.
    Refused(RefusalCode, String),
    /// The connection ended instead.
    Ended(String),
}

impl Asker {
    /// Connects with a certificate.
    ///
    /// # Panics
    /// When it is not let in.
    #[must_use]
    pub fn with(address: &str, credentials: &Credentials) -> Self {
        let clock = Arc::new(raw_peer::StoppedClock::now());
        Self::connect(address, client_config(credentials, clock).expect("good credentials"))
    }

    /// Connects as the holder of an invite.
    ///
    /// # Panics
    /// When it is not let in.
    #[must_use]
    pub fn invited(address: &str, token: &InviteToken) -> Self {
        let credentials = JoinCredentials::of(token.seed()).expect("a seed");
        let (clock, report) = (Arc::new(raw_peer::StoppedClock::now()), Arc::new(VerifyReport::default()));
        let config = client_config_for_join(&credentials, &JoinTarget::from(token), clock, report);
        Self::connect(address, config.expect("good credentials"))
    }

    fn connect(address: &str, tls: rustls::ClientConfig) -> Self {
        let runtime = raw_peer::runtime();
        let (endpoint, connection) = runtime.block_on(async {
            let (endpoint, connection) = raw_peer::connect_with(address, tls).await.expect("a connection");
            say_hello(&connection).await;
            (endpoint, connection)
        });
        Self {
            runtime,
            connection,
            _endpoint: endpoint,
        }
    }

    /// Asks a verb with this body, and tells what came of it.
    ///
    /// # Panics
    /// When nothing comes of it in time.
    #[must_use]
    pub fn ask(&self, row: &VerbRow, body: &[u8]) -> Told {
        let asking = async {
            let (mut send, mut receive) = self.connection.open_bi().await.map_err(|error| error.to_string())?;
            let header = Header {
                verb: row.verb,
                deadline_ms: 10_000,
                request_id: RequestId(Uuid::new_v4()),
            };
            let mut bytes = frame::encode(&header, MAX_HEADER_BYTES).expect("a short header");
            bytes.extend(u32::try_from(body.len()).expect("a short body").to_be_bytes());
            bytes.extend(body);
            // Whoever is refused early may find that nobody reads on.
            drop(send.write_all(&bytes).await);
            drop(send.finish());
            read_frame(&mut receive).await
        };
        let answer = self
            .runtime
            .block_on(async { timeout(patience::DEADLINE, asking).await })
            .unwrap_or_else(|_| panic!("no answer to {}", row.name));
        match answer {
            Ok(frame) => told(row, &frame),
            Err(ended) => Told::Ended(ended),
        }
    }
}

async fn say_hello(connection: &Connection) {
    let (mut send, mut receive) = connection.open_bi().await.expect("a stream");
    let hello = Hello {
        versions: VersionRange::OURS,
        build: "0.0.0".to_owned(),
        features: vec![],
        instance: InstanceId(Uuid::new_v4()),
        boot: BootId(Uuid::new_v4()),
        counter: 1,
    };
    let bytes = frame::encode(&hello, MAX_HELLO_BYTES).expect("a short hello");
    send.write_all(&bytes).await.expect("a stream");
    send.finish().expect("a stream");
    let answer = read_frame(&mut receive).await.expect("an answer");
    let answer: HelloAnswer = frame::decode(&answer).expect("an answer");
    assert!(matches!(answer, HelloAnswer::Welcome(_)), "{answer:?}");
}

async fn read_frame(receive: &mut RecvStream) -> Result<Vec<u8>, String> {
    let mut prefix = [0; frame::PREFIX_BYTES];
    receive.read_exact(&mut prefix).await.map_err(|error| error.to_string())?;
    let length = frame::body_length(prefix, MAX_FRAME_BYTES).expect("a length in bounds");
    let mut body = vec![0; length];
    receive.read_exact(&mut body).await.map_err(|error| error.to_string())?;
    Ok(body)
}

/// A refusal before the handler has the form of an answer, for feeds as well; one of a feed's handler has that of a frame.
fn told(row: &VerbRow, body: &[u8]) -> Told {
    let early = frame::encode(&Answer::<()>::Refusal(no()), MAX_FRAME_BYTES).expect("a short frame");
    let late = frame::encode(&FeedFrame::<()>::Refusal(no()), MAX_FRAME_BYTES).expect("a short frame");
    let Some((first, rest)) = body.split_first() else {
        panic!("an empty frame answers {}", row.name);
    };
    let is_refusal = match row.shape {
        Shape::Call | Shape::Upload => *first == early[frame::PREFIX_BYTES],
        // The same index without anything behind it says that a feed is idle.
        Shape::Feed => *first == late[frame::PREFIX_BYTES] || (*first == early[frame::PREFIX_BYTES] && !rest.is_empty()),
    };
    if !is_refusal {
        return Told::LetThrough;
    }
    let refusal: Refusal = frame::decode(rest).expect("a refusal");
    match refusal.code {
        RefusalCode::Denied | RefusalCode::UnknownVerb => Told::Refused(refusal.code, refusal.message),
        _ => Told::LetThrough,
    }
}

fn no() -> Refusal {
    Refusal::new(RefusalCode::Denied, "no")
}
