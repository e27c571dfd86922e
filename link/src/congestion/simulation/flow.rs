//! One connection of a simulation: both of its ends are quinn's own protocol machines, with TLS, pacing and loss recovery, and
//! only time and network are not real. The dialling end sends as much as it may, the accepting end reads.

use bytes::BytesMut;
use dora_remote_certs::{
    Admission, AdmissionSnapshot, Authority, Credentials, SystemClock, client_config, default_life, server_config,
};
use dora_remote_protocol::identity::{Identity, Role};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event, ServerConfig, StreamId,
    TransportConfig, VarInt, congestion::ControllerFactory,
};
use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::{Instant, SystemTime},
};

/// One end of a connection.
pub(super) struct End {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    /// Where the other end is.
    remote: SocketAddr,
    stream: Option<StreamId>,
    /// Whether it has something to send.
    pub(super) busy: bool,
    /// A few words to say, whether busy or not.
    pub(super) words: Option<&'static [u8]>,
    /// Short messages that go before everything else, each on a stream of its own: to be sent, or arrived since last asked.
    pub(super) urgent: u32,
    /// Bytes that were read.
    pub(super) received: u64,
}

/// Both ends: the one that sends, and the one that receives.
pub(super) fn connect(factory: Arc<dyn ControllerFactory + Send + Sync>, window_bytes: u32, seed: u8, now: Instant) -> [End; 2] {
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(window_bytes))
        // Room beside the stream that is always full.
        .receive_window(VarInt::from_u32(2 * window_bytes))
        .send_window(2 * u64::from(window_bytes))
        .max_idle_timeout(None)
        .congestion_controller_factory(factory);
    let transport = Arc::new(transport);
    let tls = client_config(&CREDENTIALS.dialler, Arc::new(SystemClock)).expect("good credentials");
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("good suites")));
    client.transport_config(Arc::clone(&transport));
    let (clock, admission) = (Arc::new(SystemClock), Arc::new(Records(Arc::clone(&CREDENTIALS.records))));
    let tls = server_config(&CREDENTIALS.server, clock, admission).expect("good credentials");
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).expect("good suites")));
    server.transport_config(transport);

    let mut config = EndpointConfig::default();
    config.rng_seed(Some([seed; 32]));
    let config = Arc::new(config);
    let [ours, theirs] = [1, 2].map(|last| SocketAddr::from(([192, 0, 2, last], 9)));
    let mut endpoint = Endpoint::new(Arc::clone(&config), None, true, None);
    let dialled = endpoint.connect(now, client, theirs, "coordinator").expect("dialled");
    let sender = End::new(endpoint, Some(dialled), theirs);
    let receiver = End::new(Endpoint::new(config, Some(Arc::new(server)), true, None), None, ours);
    [sender, receiver]
}

impl End {
    fn new(endpoint: Endpoint, connection: Option<(ConnectionHandle, Connection)>, remote: SocketAddr) -> Self {
        Self {
            endpoint,
            connection,
            remote,
            stream: None,
            busy: true,
            words: None,
            urgent: 0,
            received: 0,
        }
    }

    /// When it wants to be woken.
    pub(super) fn wakes_at(&mut self) -> Option<Instant> {
        self.connection.as_mut()?.1.poll_timeout()
    }

    /// Tells that the moment has come for which it wanted to be woken.
    pub(super) fn wake(&mut self, now: Instant) {
        if let Some((_, connection)) = &mut self.connection {
            connection.handle_timeout(now);
        }
    }

    /// A datagram has arrived.
    pub(super) fn take(&mut self, datagram: &[u8], now: Instant) {
        let mut answer = Vec::new();
        match self
            .endpoint
            .handle(now, self.remote, None, None, BytesMut::from(datagram), &mut answer)
        {
            Some(DatagramEvent::NewConnection(incoming)) => {
                let accepted = self.endpoint.accept(incoming, now, &mut answer, None);
                self.connection = Some(accepted.map_err(|error| error.cause).expect("accepted"));
            }
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut self.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    /// Reads and writes what there is, and gives the datagrams to send.
    pub(super) fn drive(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let Some((handle, connection)) = &mut self.connection else {
            return Vec::new();
        };
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll() {
            match event {
                Event::Connected if connection.side().is_client() => self.stream = connection.streams().open(Dir::Uni),
                Event::ConnectionLost { reason } => panic!("a simulated connection is lost: {reason}"),
                _ => {}
            }
        }
        if connection.side().is_server() {
            while let Some(stream) = connection.streams().accept(Dir::Uni) {
                if self.stream.is_none() {
                    self.stream = Some(stream);
                } else {
                    // It is so short that it comes in one datagram, as a whole.
                    self.urgent += u32::from(read(connection, stream) > 0);
                }
            }
            self.received += self.stream.map_or(0, |stream| read(connection, stream));
        } else if let Some(stream) = self.stream.filter(|_| self.busy) {
            while connection.send_stream(stream).write(&[0; 16_384]).is_ok() {}
        }
        if let Some((stream, words)) = self.stream.zip(self.words.take()) {
            let _ = connection.send_stream(stream).write(words);
        }
        for _ in 0..if connection.side().is_client() {
            std::mem::take(&mut self.urgent)
        } else {
            0
        } {
            let stream = connection.streams().open(Dir::Uni).expect("few at a time");
            let mut stream = connection.send_stream(stream);
            stream.set_priority(1).expect("fresh");
            stream.write(&[0; 300]).expect("room");
            stream.finish().expect("fresh");
        }
        let mut sent = Vec::new();
        let mut buffer = Vec::new();
        while let Some(transmit) = connection.poll_transmit(now, GSO_DATAGRAMS, &mut buffer) {
            let one = transmit.segment_size.unwrap_or(transmit.size);
            sent.extend(buffer[..transmit.size].chunks(one).map(<[u8]>::to_vec));
            buffer.clear();
        }
        sent
    }
}

/// Reads all that has arrived.
fn read(connection: &mut Connection, stream: StreamId) -> u64 {
    let mut bytes = 0;
    let mut stream = connection.recv_stream(stream);
    let mut chunks = stream.read(true).expect("readable");
    while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
        bytes += chunk.bytes.len() as u64;
    }
    let _ = chunks.finalize();
    bytes
}

/// Who talks in a simulation.
struct Parties {
    dialler: Credentials,
    server: Credentials,
    records: Arc<AdmissionSnapshot>,
}

static CREDENTIALS: LazyLock<Parties> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    let trust_domain: dora_remote_protocol::identity::TrustDomain = "simulation.test".parse().expect("good");
    let authority = Authority::init(&dir.path().join("authority"), &trust_domain, SystemTime::now()).expect("made");
    let issue = |role: Role, name: &str| {
        let (trust_domain, name) = (trust_domain.clone(), name.parse().expect("good"));
        let identity = Identity {
            trust_domain,
            role,
            name,
        };
        authority
            .issue(&identity, default_life(role), SystemTime::now())
            .expect("issued")
    };
    let server = issue(Role::Coordinator, "main");
    Parties {
        dialler: issue(Role::Daemon, "robot"),
        records: Arc::new(AdmissionSnapshot::new(trust_domain.clone(), &[server.root().clone()]).expect("a root")),
        server,
    }
});

#[derive(Debug)]
struct Records(Arc<AdmissionSnapshot>);

impl Admission for Records {
    fn snapshot(&self) -> Arc<AdmissionSnapshot> {
        Arc::clone(&self.0)
    }
}

/// Datagrams that quinn hands to the system at once.
const GSO_DATAGRAMS: usize = 10;
