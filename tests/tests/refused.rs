//! Who is not let in: each has its own words and exit code on the client, and one line in the coordinator's log.

use dora_remote_certs::Credentials;
use dora_remote_protocol::{
    hello::HelloAnswer,
    refusal::{Refusal, RefusalCode},
};
use dora_remote_tests::{
    cluster::{Cluster, TRUST_DOMAIN, text},
    patience,
    raw_peer::{Ended, Impostor, Stranger, babble, hello, knock},
};
use std::{fs, net::UdpSocket, path::Path, time::SystemTime};

/// Exit codes as `dora-remote --help` lists them.
const FAILED: i32 = 1;
const DENIED: i32 = 4;
const CERTIFICATE: i32 = 6;

/// TLS alerts (RFC 8446 section 6.2).
const CERTIFICATE_EXPIRED: u64 = 45;
const UNKNOWN_CA: u64 = 48;
const CERTIFICATE_REQUIRED: u64 = 116;
const NO_APPLICATION_PROTOCOL: u64 = 120;

#[test]
fn no_identity_files() {
    let cluster = Cluster::start(&[]);
    let cli = cluster.cli().with_identity(&cluster.path("nothing-here"));
    cli.run(&["list"]).exits_with(CERTIFICATE).says(&["nothing-here"]);
}

#[test]
fn no_certificate() {
    let cluster = Cluster::start(&[]);
    let before = warnings(&cluster).len();
    let ended = knock(cluster.address(), &Stranger::WithoutCertificate);
    assert_eq!(ended, Ended::Alert(CERTIFICATE_REQUIRED));
    one_new_warning(&cluster, before, &[]);
    still_works(&cluster);
}

#[test]
fn other_authority() {
    let cluster = Cluster::start(&[]);
    let foreign = cluster.path("foreign");
    cluster
        .offline(&["certs", "init", "--trust-domain", TRUST_DOMAIN, "--out", text(&foreign)])
        .exits_with(0);

    // Their admin does not trust our coordinator.
    let before = warnings(&cluster).len();
    let cli = cluster.cli().with_identity(&foreign.join("admin"));
    cli.run(&["list"]).exits_with(CERTIFICATE).says(&["authority"]);
    one_new_warning(&cluster, before, &[]);

    // One that pins our root, to come further, is refused by the coordinator.
    let before = warnings(&cluster).len();
    let mixed = cluster.path("mixed");
    copy_private(&foreign.join("admin"), &mixed);
    fs::copy(cluster.path("authority/admin/root.crt"), mixed.join("root.crt")).expect("our own folder");
    let outcome = cluster.cli().with_identity(&mixed).run(&["list"]);
    outcome.exits_with(CERTIFICATE);
    if let Ok(credentials) = Credentials::load(&mixed) {
        assert_eq!(
            knock(cluster.address(), &Stranger::With(credentials)),
            Ended::Alert(UNKNOWN_CA)
        );
        patience::until_true("a warning", || warnings(&cluster).len() > before);
    }
    still_works(&cluster);
}

#[test]
fn expired() {
    let cluster = Cluster::start(&[]);
    let short = cluster.issue("operator", "mayfly", &["--life", "2s"]);
    let cli = cluster.cli().with_identity(&short);
    let credentials = Credentials::load(&short).expect("good for a moment");
    // Nobody uses it until it has ended, as whoever does renews it in passing.
    let end = credentials.certificate().not_after;
    patience::until_true("the certificate to end", || SystemTime::now() > end);
    cli.run(&["list"]).exits_with(CERTIFICATE).says(&["our certificate ended at"]);

    // A client that does not look at its own certificate learns it from the coordinator, whose clock counts whole seconds.
    let stranger = Stranger::With(credentials);
    let before = patience::until("an alert", || {
        let before = warnings(&cluster).len();
        (knock(cluster.address(), &stranger) == Ended::Alert(CERTIFICATE_EXPIRED)).then_some(before)
    });
    one_new_warning(&cluster, before, &["expired"]);
}

#[test]
fn viewer_may_look_and_may_not_stop() {
    let cluster = Cluster::start(&["A"]);
    let cli = cluster.cli().with_identity(&cluster.issue("viewer", "eve", &[]));
    cli.run(&["list"]).exits_with(0);
    cli.run(&["machines"]).exits_with(0);
    let before = warnings(&cluster).len();
    cli.run(&["stop", "anything"])
        .exits_with(DENIED)
        .says(&["viewer", "operator"]);
    one_new_warning(&cluster, before, &[&format!("spiffe://{TRUST_DOMAIN}/viewer/eve"), "stop"]);
}

#[test]
fn daemon_certificate_may_call_no_command() {
    let cluster = Cluster::start(&["A"]);
    let before = warnings(&cluster).len();
    let cli = cluster.cli().with_identity(&cluster.path("daemon-A"));
    cli.run(&["list"]).exits_with(DENIED).says(&["daemon"]);
    one_new_warning(&cluster, before, &[&format!("spiffe://{TRUST_DOMAIN}/daemon/A"), "list"]);
    cluster.until_connected(&["A"]);
}

#[test]
fn person_may_not_pose_as_machine() {
    let mut cluster = Cluster::start(&[]);
    let folder = cluster.issue("operator", "mallory", &[]);
    fs::rename(folder, cluster.path("daemon-mallory")).expect("our own folder");
    cluster.start_daemon("mallory");
    patience::until("the daemon to learn that it is no daemon, or to say so itself", || {
        let log = cluster.daemon_log("mallory").to_lowercase();
        (log.contains("operator") || log.contains("denied") || log.contains("not a daemon")).then_some(())
    });
    let machines = cluster.cli().json(&["machines"]);
    assert!(machines["machines"].as_array().expect("machines").is_empty(), "{machines}");
}

#[test]
fn certificate_of_a_machine_does_not_make_a_coordinator() {
    let cluster = Cluster::start(&["A"]);
    let stolen = Credentials::load(&cluster.path("daemon-A")).expect("a daemon's credentials");
    let answer = HelloAnswer::Refusal(Refusal::new(RefusalCode::Internal, "an impostor"));
    let impostor = Impostor::listen(&stolen, answer);
    let cli = cluster.cli().with_address(&impostor.address());
    let outcome = cli.run(&["list"]);
    outcome
        .exits_with(CERTIFICATE)
        .says(&["coordinator", &format!("spiffe://{TRUST_DOMAIN}/daemon/A")]);

    // The program itself does not even listen with such a certificate.
    let (state, identity) = (cluster.path("impostor"), cluster.path("daemon-A"));
    let words = [
        "coordinator",
        "--listen",
        "127.0.0.1:0",
        "--state",
        text(&state),
        "--identity",
        text(&identity),
    ];
    cluster.offline(&words).exits_with(CERTIFICATE).says(&["coordinator"]);
}

#[test]
fn garbage_on_the_port() {
    let cluster = Cluster::start(&["A"]);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(cluster.address()).expect("an address");
    for length in [0, 1, 20, 100, 1200, 1400] {
        for first in [0x00_u8, 0x40, 0xc0, 0xff] {
            let mut packet = vec![0xa5_u8; length];
            if let Some(byte) = packet.first_mut() {
                *byte = first;
            }
            let _ = socket.send(&packet);
        }
    }
    still_works(&cluster);

    let before = warnings(&cluster).len();
    assert_eq!(
        knock(cluster.address(), &Stranger::OtherProtocol),
        Ended::Alert(NO_APPLICATION_PROTOCOL)
    );
    one_new_warning(&cluster, before, &[]);
    still_works(&cluster);
}

#[test]
fn babble_after_a_good_handshake() {
    let cluster = Cluster::start(&[]);
    let admin = Credentials::load(&cluster.path("authority/admin")).expect("the first admin");
    for bytes in [&[0xff_u8; 64][..], &[0, 0, 0, 3, 1, 2, 3], b"GET / HTTP/1.1\r\n\r\n"] {
        let before = warnings(&cluster).len();
        let ended = babble(cluster.address(), &admin, bytes);
        assert!(matches!(ended, Ended::Otherwise(_)), "not a TLS matter: {ended:?}");
        one_new_warning(&cluster, before, &[]);
    }
    still_works(&cluster);
}

#[test]
fn hello_of_a_future_version() {
    let cluster = Cluster::start(&[]);
    let admin = Credentials::load(&cluster.path("authority/admin")).expect("the first admin");
    let before = warnings(&cluster).len();
    let HelloAnswer::Refusal(refusal) = hello(cluster.address(), &admin, 900, 901) else {
        panic!("a future version was welcomed");
    };
    assert_eq!(refusal.code, RefusalCode::VersionMismatch);
    let text = format!("{} {}", refusal.message, refusal.hint);
    assert!(
        text.contains("1.900") && text.contains("upgrade the coordinator"),
        "{refusal:?}"
    );
    one_new_warning(&cluster, before, &["1.900"]);

    // One that speaks our version too is welcome, whatever else it speaks.
    assert!(matches!(hello(cluster.address(), &admin, 1, 901), HelloAnswer::Welcome(_)));

    // And the other way round: a coordinator of the future turns us away.
    let future = Credentials::load(&cluster.issue("coordinator", "future", &[])).expect("a coordinator's credentials");
    let text = "this side speaks protocol 1.900, the peer 1.1; upgrade the peer";
    let refusal = Refusal::new(RefusalCode::VersionMismatch, text).hint("upgrade dora-remote");
    let impostor = Impostor::listen(&future, HelloAnswer::Refusal(refusal));
    let cli = cluster.cli().with_address(&impostor.address());
    cli.run(&["list"]).exits_with(FAILED).says(&["1.900", "upgrade"]);
}

#[track_caller]
fn still_works(cluster: &Cluster) {
    cluster.cli().run(&["list"]).exits_with(0);
}

/// Lines of the coordinator's log that warn or worse.
fn warnings(cluster: &Cluster) -> Vec<String> {
    let log = cluster.coordinator_log();
    let warns = |line: &&str| line.contains("WARN") || line.contains("ERROR");
    log.lines().filter(warns).map(str::to_owned).collect()
}

/// Waits for a new warning that has these texts and where it came from, and asserts that it is the only one.
#[track_caller]
fn one_new_warning(cluster: &Cluster, before: usize, texts: &[&str]) {
    patience::until_true("a warning in the coordinator's log", || warnings(cluster).len() > before);
    still_works(cluster);
    let new = warnings(cluster).split_off(before);
    assert_eq!(new.len(), 1, "{new:#?}");
    for text in texts.iter().chain(&["127.0.0.1"]) {
        assert!(new[0].contains(text), "`{text}` is not in: {}", new[0]);
    }
}

fn copy_private(from: &Path, to: &Path) {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(to).expect("a fresh folder");
    for entry in fs::read_dir(from).expect("an identity") {
        let path = entry.expect("a directory entry").path();
        // The mode is copied too.
        fs::copy(&path, to.join(path.file_name().expect("a file"))).expect("our own folder");
    }
}
