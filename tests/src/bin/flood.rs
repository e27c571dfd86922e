//! Floods a coordinator on this machine with handshakes that come to nothing, for `scripts/bench flood`.
//!
//! Usage: `flood ADDR --garbage N --half-open M --hold SECONDS`. Sends N Initials that are garbage (RFC 9000 section 17.2.2), spread
//! over the time and several ports, half of them so well made that they can be decrypted; and keeps M handshakes half open:
//! real first flights, caught from a dialler, each from a port of its own and sent again each second, whose answers nobody
//! reads. Loopback alone; everything is bounded.

use anyhow::{Context, Result, bail, ensure};
use dora_remote_certs::{Authority, default_life};
use dora_remote_link::{Address, DialKind, Dialer, Speaker};
use dora_remote_protocol::{
    identity::{Identity, Role},
    ids::{BootId, InstanceId},
};
use rustls::{Side, crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256, quic};
use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant, SystemTime},
};
use uuid::Uuid;

/// Most of each kind, and the longest time in seconds.
const MOST: usize = 100_000;
const MOST_HALF_OPEN: usize = 900;
const LONGEST: u64 = 120;
/// Ports from which garbage comes.
const GARBAGE_PORTS: usize = 8;
/// Bytes of an Initial of a client: less is dropped unread (RFC 9000 section 14.1).
const INITIAL_BYTES: usize = 1_200;
/// Datagrams of a first flight: a post-quantum key share needs two.
const FLIGHT: usize = 2;
/// Pause between two rounds of packets.
const ROUND: Duration = Duration::from_millis(20);
/// Pause after which the half-open handshakes say the same again.
const AGAIN: Duration = Duration::from_secs(1);

fn main() -> Result<()> {
    let plan = Plan::of(std::env::args().skip(1))?;
    let flights = first_flights(plan.half_open)?;
    eprintln!("caught {} first flights", flights.len());
    let garbage = sockets(GARBAGE_PORTS)?;
    let half_open = sockets(flights.len())?;
    let began = Instant::now();
    let (mut sent, mut rounds) = (0, 0);
    while began.elapsed() < plan.hold {
        if began.elapsed() >= AGAIN * rounds {
            rounds += 1;
            for (socket, flight) in half_open.iter().zip(&flights) {
                for datagram in flight {
                    send(socket, datagram, plan.target);
                }
            }
        }
        let due = plan.garbage as f64 * (began.elapsed().as_secs_f64() / plan.hold.as_secs_f64());
        while (sent as f64) < due && sent < plan.garbage {
            send(&garbage[sent % GARBAGE_PORTS], &initial(sent % 2 == 0)?, plan.target);
            sent += 1;
        }
        thread::sleep(ROUND);
    }
    eprintln!(
        "sent {sent} garbage Initials, and {} half-open handshakes {rounds} times",
        flights.len()
    );
    Ok(())
}

/// What is asked of the program.
struct Plan {
    target: SocketAddr,
    garbage: usize,
    half_open: usize,
    hold: Duration,
}

impl Plan {
    fn of(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let usage = "usage: flood ADDR --garbage N --half-open M --hold SECONDS";
        let mut plan = Self {
            target: words.next().context(usage)?.parse().context(usage)?,
            garbage: 0,
            half_open: 0,
            hold: Duration::from_secs(1),
        };
        ensure!(plan.target.ip().is_loopback(), "{} is not on this machine", plan.target);
        while let Some(word) = words.next() {
            let number: u64 = words.next().context(usage)?.parse().context(usage)?;
            match word.as_str() {
                "--garbage" => plan.garbage = usize::try_from(number)?.min(MOST),
                "--half-open" => plan.half_open = usize::try_from(number)?.min(MOST_HALF_OPEN),
                "--hold" => plan.hold = Duration::from_secs(number.clamp(1, LONGEST)),
                _ => bail!(usage),
            }
        }
        Ok(plan)
    }
}

fn sockets(count: usize) -> Result<Vec<UdpSocket>> {
    let open = |_| UdpSocket::bind("127.0.0.1:0").context("a port of this machine");
    (0..count).map(open).collect()
}

/// A full buffer loses a packet, as a line would.
fn send(socket: &UdpSocket, datagram: &[u8], target: SocketAddr) {
    drop(socket.send_to(datagram, target));
}

/// Lets a dialler dial a socket that never answers, and keeps what each dial says first.
fn first_flights(count: usize) -> Result<Vec<Vec<Vec<u8>>>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let caught = runtime.block_on(async {
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
        let address = Address {
            host: "127.0.0.1".to_owned(),
            port: silent.local_addr()?.port(),
        };
        let dialer = stranger()?;
        let mut caught: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        // One after the other, so that the buffer of the socket holds them.
        for number in 1..=count {
            let catching = async {
                while caught.len() < number || caught.values().any(|flight| flight.len() < FLIGHT) {
                    let mut datagram = vec![0; 2_048];
                    let (length, _) = silent.recv_from(&mut datagram).await?;
                    datagram.truncate(length);
                    let flight = caught.entry(destination(&datagram)?.to_vec()).or_default();
                    if flight.len() < FLIGHT {
                        flight.push(datagram);
                    }
                }
                anyhow::Ok(())
            };
            tokio::select! {
                caught = catching => caught?,
                dialled = dialer.dial(&address) => bail!("a socket that never answers was dialled: {dialled:?}"),
            }
        }
        anyhow::Ok(caught)
    })?;
    Ok(caught.into_values().collect())
}

/// The destination connection id of a packet with a long header.
fn destination(datagram: &[u8]) -> Result<&[u8]> {
    let length = usize::from(*datagram.get(5).context("a long header")?);
    datagram.get(6..6 + length).context("a connection id")
}

/// A dialler of an authority that nobody knows; it never comes so far as to show its certificate.
fn stranger() -> Result<Dialer> {
    let folder = tempfile::tempdir()?;
    let trust_domain: dora_remote_protocol::identity::TrustDomain = "flood.test".parse()?;
    let authority = Authority::init(&folder.path().join("authority"), &trust_domain, SystemTime::now())?;
    let identity = Identity {
        trust_domain,
        role: Role::Viewer,
        name: "nobody".parse()?,
    };
    let credentials = authority.issue(&identity, default_life(Role::Viewer), SystemTime::now())?;
    let speaker = Speaker {
        build: "flood".to_owned(),
        features: Vec::new(),
        instance: InstanceId(Uuid::new_v4()),
        boot: BootId(Uuid::new_v4()),
    };
    Ok(Dialer::new(&credentials, speaker, DialKind::Command)?)
}

/// An Initial with random ids and a random payload; `sealed` ones are encrypted as their id demands.
fn initial(sealed: bool) -> Result<Vec<u8>> {
    const PACKET_NUMBER_BYTES: usize = 4;
    const TAG_BYTES: usize = 16;
    const SAMPLE_BYTES: usize = 16;
    let (theirs, ours) = (Uuid::new_v4(), Uuid::new_v4());
    let mut packet = vec![0xc3, 0, 0, 0, 1];
    for id in [theirs.as_bytes(), ours.as_bytes()] {
        packet.push(u8::try_from(id.len())?);
        packet.extend_from_slice(id);
    }
    packet.push(0);
    let length = INITIAL_BYTES - packet.len() - 2;
    packet.extend_from_slice(&(0x4000 | u16::try_from(length)?).to_be_bytes());
    let number_at = packet.len();
    packet.extend_from_slice(&[0; PACKET_NUMBER_BYTES]);
    let payload_at = packet.len();
    while packet.len() < INITIAL_BYTES - TAG_BYTES {
        packet.extend_from_slice(Uuid::new_v4().as_bytes());
    }
    packet.truncate(INITIAL_BYTES - TAG_BYTES);
    if !sealed {
        packet.resize(INITIAL_BYTES, 0x5a);
        return Ok(packet);
    }
    // A frame that carries a handshake at offset 0, in which there is nothing but noise (RFC 9000 section 19.6).
    packet[payload_at..payload_at + 4].copy_from_slice(&[0x06, 0x00, 0x44, 0x00]);
    packet[payload_at + 4 + 0x400..].fill(0);
    let suite = TLS13_AES_128_GCM_SHA256.tls13().and_then(|suite| suite.quic_suite());
    let keys = suite
        .context("a suite for QUIC")?
        .keys(theirs.as_bytes(), Side::Client, quic::Version::V1);
    let (header, payload) = packet.split_at_mut(payload_at);
    let tag = keys.local.packet.encrypt_in_place(0, header, payload)?;
    packet.extend_from_slice(tag.as_ref());
    let (head, sample) = packet.split_at_mut(payload_at);
    let (first, number) = head.split_at_mut(number_at);
    keys.local
        .header
        .encrypt_in_place(&sample[..SAMPLE_BYTES], &mut first[0], number)?;
    Ok(packet)
}
