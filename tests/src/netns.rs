//! A small world of network namespaces: a cloud, a laptop, a home router that masquerades, a robot behind it, and a mobile network to
//! which the robot can go.
//!
//! ```text
//! cloud 198.51.100.1 --+              +-- 192.0.2.1 router 192.168.50.1 --- 192.168.50.2 robot
//! laptop 203.0.113.1 --+-- internet --+
//!                                     +-- 192.0.3.1 tower  10.60.0.1 ------ 10.60.0.9    robot, later
//! ```
//! The internet knows no way to 192.168.50.0/24 and 10.60.0.0/24, so nobody can dial the robot. No interface is made outside of the namespaces, names
//! carry this process's id, and all of it is gone with the [`World`].

use std::{
    path::Path,
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

/// Address of the cloud.
pub const CLOUD: &str = "198.51.100.1";
/// Its address after [`World::move_cloud`].
pub const CLOUD_LATER: &str = "198.51.100.9";
/// Address of the robot, behind the router.
pub const ROBOT: &str = "192.168.50.2";
/// Address of the router on the internet.
pub const ROUTER: &str = "192.0.2.1";
/// Its address after [`World::rebind_address`].
pub const ROUTER_LATER: &str = "192.0.2.77";

/// Address of the mobile network on the internet, with which the robot is seen after [`World::robot_to_mobile`].
pub const TOWER: &str = "192.0.3.1";

/// Where the router finds the internet.
const INTERNET: &str = "192.0.2.254";

const PLACES: [&str; 6] = ["internet", "cloud", "laptop", "router", "tower", "robot"];

/// The namespaces of one test.
#[derive(Debug)]
pub struct World {
    number: String,
}

impl World {
    /// Makes the world. None, said loudly, where that is not possible.
    ///
    /// # Panics
    /// When it is not possible and `DORA_REMOTE_REQUIRE_NETNS` is 1, or when it fails half-way.
    #[must_use]
    #[expect(clippy::print_stderr, reason = "a skipped test must be heard of")]
    pub fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if let Some(lack) = lack() {
            let required = std::env::var_os("DORA_REMOTE_REQUIRE_NETNS").is_some_and(|value| value == "1");
            assert!(!required, "DORA_REMOTE_REQUIRE_NETNS=1, and {lack}");
            eprintln!("SKIPPED: network namespaces: {lack}");
            return None;
        }
        let number = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let world = Self { number };
        world.build();
        world.prove();
        Some(world)
    }

    /// Words that run a command in a place.
    #[must_use]
    pub fn prefix(&self, place: &str) -> Vec<String> {
        ["ip", "netns", "exec", &self.name(place)].map(str::to_owned).to_vec()
    }

    /// The same with a file in the place of `/etc/hosts`, for that command alone. It may be written anew while the command runs.
    ///
    /// # Panics
    /// When the path is no text.
    #[must_use]
    pub fn prefix_with_hosts(&self, place: &str, hosts: &Path) -> Vec<String> {
        let mut words = self.prefix(place);
        let bind = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        words.extend(
            [
                "unshare",
                "--mount",
                "sh",
                "-c",
                bind,
                hosts.to_str().expect("a path of text"),
            ]
            .map(str::to_owned),
        );
        words
    }

    /// Cuts the robot's link: the router drops everything between the robot and the internet, silently.
    pub fn cut(&self) {
        self.nft("add table inet cut");
        self.nft("add chain inet cut forward { type filter hook forward priority -10; policy drop; }");
    }

    /// Heals the cut.
    pub fn heal(&self) {
        self.nft("delete table inet cut");
    }

    /// The router forgets all that it has translated, and gives other ports from now on.
    pub fn rebind_ports(&self) {
        self.nft("flush chain ip nat out");
        self.nft("add rule ip nat out oifname up0 meta l4proto udp masquerade to :20000-20999");
        // Its table goes with its link.
        self.router(&["link", "set", "up0", "down"]);
        self.router(&["link", "set", "up0", "up"]);
        self.router(&["route", "add", "default", "via", INTERNET]);
    }

    /// The router gets another address on the internet, [`ROUTER_LATER`]; what it has translated to the old one is forgotten.
    pub fn rebind_address(&self) {
        self.router(&["addr", "del", &format!("{ROUTER}/24"), "dev", "up0"]);
        self.router(&["addr", "add", &format!("{ROUTER_LATER}/24"), "dev", "up0"]);
        self.router(&["route", "replace", "default", "via", INTERNET]);
    }

    /// The robot loses its network, interface and address included.
    pub fn robot_leaves(&self) {
        self.must("robot", &["ip", "link", "del", "up0"]);
    }

    /// The robot, which has left, comes to the mobile network.
    pub fn robot_to_mobile(&self) {
        self.connect("robot", "10.60.0.9/24", "tower", "cell0", "10.60.0.1/24");
        self.must("robot", &["ip", "route", "add", "default", "via", "10.60.0.1"]);
    }

    /// The cloud gets another address, [`CLOUD_LATER`]; nobody is at the old one.
    pub fn move_cloud(&self) {
        self.must("cloud", &["ip", "addr", "del", &format!("{CLOUD}/24"), "dev", "up0"]);
        self.must("cloud", &["ip", "addr", "add", &format!("{CLOUD_LATER}/24"), "dev", "up0"]);
        self.must("cloud", &["ip", "route", "add", "default", "via", "198.51.100.254"]);
    }

    /// The laptop gets another address.
    pub fn move_laptop(&self) {
        self.must("laptop", &["ip", "addr", "del", "203.0.113.1/24", "dev", "up0"]);
        self.must("laptop", &["ip", "addr", "add", "203.0.113.9/24", "dev", "up0"]);
        self.must("laptop", &["ip", "route", "add", "default", "via", "203.0.113.254"]);
    }

    /// Whether a packet from one place reaches an address and an answer comes back: a closed TCP port that says so.
    #[must_use]
    pub fn reaches(&self, place: &str, address: &str) -> bool {
        let dial = format!("LC_ALL=C timeout 1 bash -c '</dev/tcp/{address}/9' 2>&1");
        let output = self.at(place, &["sh", "-c", &dial]);
        String::from_utf8_lossy(&output.stdout).contains("Connection refused")
    }

    fn name(&self, place: &str) -> String {
        format!("drt{}-{place}", self.number)
    }

    fn build(&self) {
        for place in PLACES {
            ip(&["netns", "add", &self.name(place)]);
            self.must(place, &["ip", "link", "set", "lo", "up"]);
        }
        self.connect("cloud", "198.51.100.1/24", "internet", "cloud0", "198.51.100.254/24");
        self.connect("laptop", "203.0.113.1/24", "internet", "laptop0", "203.0.113.254/24");
        self.connect("router", "192.0.2.1/24", "internet", "router0", "192.0.2.254/24");
        self.connect("tower", "192.0.3.1/24", "internet", "tower0", "192.0.3.254/24");
        self.connect("robot", "192.168.50.2/24", "router", "home0", "192.168.50.1/24");
        for (place, gateway) in [
            ("cloud", "198.51.100.254"),
            ("laptop", "203.0.113.254"),
            ("router", INTERNET),
            ("tower", "192.0.3.254"),
            ("robot", "192.168.50.1"),
        ] {
            self.must(place, &["ip", "route", "add", "default", "via", gateway]);
        }
        for place in ["internet", "router", "tower"] {
            self.must(place, &["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
        }
        for place in ["router", "tower"] {
            for rule in [
                "add table ip nat",
                "add chain ip nat out { type nat hook postrouting priority 100; }",
                "add rule ip nat out oifname up0 masquerade",
                "add table inet door",
                "add chain inet door forward { type filter hook forward priority 0; }",
                "add rule inet door forward iifname up0 ct state new drop",
            ] {
                self.must(place, &["nft", rule]);
            }
        }
    }

    /// Proves that the world is what the tests take it for.
    fn prove(&self) {
        assert!(self.reaches("robot", CLOUD), "the robot cannot reach the cloud");
        assert!(self.reaches("laptop", CLOUD), "the laptop cannot reach the cloud");
        for place in ["cloud", "laptop", "internet"] {
            assert!(!self.reaches(place, ROBOT), "{place} can dial the robot");
        }
    }

    /// A cable from `place` (interface `up0`) to `other`.
    fn connect(&self, place: &str, address: &str, other: &str, interface: &str, other_address: &str) {
        let (here, there) = (self.name(place), self.name(other));
        ip(&[
            "link", "add", "up0", "netns", &here, "type", "veth", "peer", "name", interface, "netns", &there,
        ]);
        for (place, interface, address) in [(place, "up0", address), (other, interface, other_address)] {
            self.must(place, &["ip", "addr", "add", address, "dev", interface]);
            self.must(place, &["ip", "link", "set", interface, "up"]);
        }
    }

    fn router(&self, words: &[&str]) {
        self.must("router", &[&["ip"], words].concat());
    }

    fn nft(&self, rule: &str) {
        self.must("router", &["nft", rule]);
    }

    fn must(&self, place: &str, words: &[&str]) {
        let output = self.at(place, words);
        assert!(
            output.status.success(),
            "{words:?} in {place}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn at(&self, place: &str, words: &[&str]) -> Output {
        let prefix = self.prefix(place);
        let output = Command::new(&prefix[0]).args(&prefix[1..]).args(words).output();
        output.unwrap_or_else(|error| panic!("{words:?} in {place}: {error}"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for place in PLACES {
            drop(Command::new("ip").args(["netns", "delete", &self.name(place)]).output());
        }
    }
}

/// What this machine lacks for namespaces.
fn lack() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("they need root".to_owned());
    }
    for tool in ["ip", "nft", "bash", "sysctl", "unshare", "mount"] {
        let there = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
        if !there.is_ok_and(|output| output.status.success()) {
            return Some(format!("`{tool}` is missing"));
        }
    }
    None
}

fn ip(words: &[&str]) {
    let output = Command::new("ip").args(words).output().expect("ip was found before");
    assert!(
        output.status.success(),
        "ip {words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
