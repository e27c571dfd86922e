//! Faults while a node prints a hundred lines a second, and while it prints as fast as it can: nothing is lost, nothing comes twice,
//! order is kept, and lines come again.
//!
//! Each case is a fault and a heal phase that must converge. `DORA_REMOTE_LONG=1` adds the long cuts and most of the floods, which
//! are larger then. How soon lines came is printed as a row of the table in docs/reliability.md, and asserted only with
//! `DORA_REMOTE_STRICT=1`: machines that run tests are slow.

use dora_remote_tests::{
    faults::{Link, Load, Row, Stand},
    relay::Weather,
};
use std::time::Duration;

/// Lines of a flood whose cost on the wire is measured.
const FLOOD: u64 = 200_000;
/// Lines of a flood in which a fault happens, with and without `DORA_REMOTE_LONG=1`.
const FLOODS: [u64; 2] = [200_000, 40_000];
/// A pause of the node's own printing beyond which something holds it up, on however busy a machine. The promise is half a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How soon lines must come again: after cuts up to two minutes, after a longer one, after a rebind.
const SOON: Duration = seconds(2);
const WITHIN_A_DIAL: Duration = seconds(15);
const AT_ONCE: Duration = seconds(1);

/// When a case runs.
#[derive(Clone, Copy, PartialEq)]
enum When {
    /// Always.
    Always,
    /// With `DORA_REMOTE_LONG=1`.
    Long,
}
use When::{Always, Long};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn is_long() -> bool {
    is_set("DORA_REMOTE_LONG")
}

fn is_strict() -> bool {
    is_set("DORA_REMOTE_STRICT")
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "1")
}

fn case(fault: &str, load: Load, when: When, within: Duration, happen: impl FnOnce(&mut Stand)) {
    if when == Long && !is_long() {
        return;
    }
    let (flood, head) = match load {
        Load::Steady => (0, 100),
        // Some of the flood has come, and most has not.
        Load::Flood(lines) => (lines, lines / 10),
    };
    let Some(mut stand) = Stand::start(flood, head) else { return };
    happen(&mut stand);
    stand.healed();
    let returned = stand.until_live();
    // While everything still runs, so that the logs are shown.
    let is_soon = load.soon(returned).is_some_and(|soon| soon <= within);
    assert!(is_soon || !is_strict(), "{fault}: {returned:?}");
    let report = stand.finish();
    Row {
        fault,
        load,
        returned,
        within,
        report: &report,
    }
    .show();
    report.assert_whole();
    let pause = report.first().pause;
    assert!(
        pause < LONGEST_PAUSE,
        "the node stood still for {pause:?} after line {}",
        report.first().pause_after
    );
}

/// Each fault under both loads: when it runs with steady lines, when in a flood, how soon lines must come again.
macro_rules! cases {
    ($($name:ident: $fault:literal, $steady:expr, $flood:expr, $within:expr, $happen:expr;)*) => {
        mod steady {
            use super::*;
            $(#[test]
            fn $name() {
                case($fault, Load::Steady, $steady, $within, $happen);
            })*
        }
        mod flood {
            use super::*;
            $(#[test]
            fn $name() {
                case($fault, Load::Flood(FLOODS[usize::from(!is_long())]), $flood, $within, $happen);
            })*
        }
    };
}

cases! {
    follower_cut_5_s: "follower's link cut 5 s", Always, Always, SOON, |stand| stand.cut_for(Link::Laptop, seconds(5));
    follower_cut_60_s: "follower's link cut 60 s", Long, Long, SOON, |stand| stand.cut_for(Link::Laptop, seconds(60));
    follower_cut_10_min: "follower's link cut 10 min", Long, Long, WITHIN_A_DIAL, |stand| stand.cut_for(Link::Laptop, seconds(600));
    follower_asleep_5_s: "follower stopped 5 s", Always, Long, SOON, |stand| stand.stop_followers(seconds(5));
    follower_asleep_70_s: "follower stopped 70 s", Long, Long, SOON, |stand| stand.stop_followers(seconds(70));
    robot_cut_5_s: "robot's link cut 5 s", Always, Always, SOON, |stand| stand.cut_for(Link::Robot, seconds(5));
    robot_cut_60_s: "robot's link cut 60 s", Long, Long, SOON, |stand| stand.cut_for(Link::Robot, seconds(60));
    robot_cut_150_s: "robot's link cut 150 s", Long, Long, WITHIN_A_DIAL, |stand| stand.cut_for(Link::Robot, seconds(150));
    robot_cut_10_min: "robot's link cut 10 min", Long, Long, WITHIN_A_DIAL, |stand| stand.cut_for(Link::Robot, seconds(600));
    robot_port_rebind: "NAT port rebind of the robot", Always, Long, AT_ONCE, |stand| stand.rebind_ports(Link::Robot);
    robot_address_rebind: "NAT address rebind of the robot", Always, Long, AT_ONCE, |stand| stand.rebind_address(Link::Robot);
    follower_port_rebind: "NAT port rebind of the follower", Always, Long, AT_ONCE, |stand| stand.rebind_ports(Link::Laptop);
    follower_address_rebind: "NAT address rebind of the follower", Long, Long, AT_ONCE, |stand| stand.rebind_address(Link::Laptop);
    wifi_to_lte: "robot from Wi-Fi to LTE, 2 s without either", Always, Long, SOON, |stand| stand.move_robot(seconds(2));
    bad_weather: "robot's link: 100 ms, 5 % lost, reordered, 10 s", Always, Long, AT_ONCE, storm;
    narrow_paths: "both paths take 1,250 bytes at most from now on", Always, Always, SOON, narrow;
    coordinator_killed_3_s: "coordinator killed, back after 3 s", Always, Always, SOON, |stand| stand.kill_coordinator(seconds(3));
    coordinator_killed_45_s: "coordinator killed, back after 45 s", Long, Long, SOON, |stand| stand.kill_coordinator(seconds(45));
    agent_killed: "agent killed, back after 1 s", Always, Always, SOON, |stand| stand.kill_agent(seconds(1));
}

/// Larger packets vanish, as behind a tunnel that nobody tells of, and do so until the end.
fn narrow(stand: &mut Stand) {
    let narrow = Weather {
        largest: Some(1_250),
        ..Weather::default()
    };
    stand.robot.set_weather(narrow);
    stand.laptop.set_weather(narrow);
}

fn storm(stand: &mut Stand) {
    stand.robot.set_weather(Weather {
        delay: Duration::from_millis(50),
        jitter: Duration::from_millis(20),
        lost: 50,
        doubled: 10,
        overtaken: 50,
        ..Weather::default()
    });
    stand.wait(seconds(10));
    stand.robot.set_weather(Weather::default());
}

#[test]
#[expect(clippy::print_stderr, reason = "the result of a measurement")]
fn flood_without_fault_on_the_wire() {
    let Some(mut stand) = Stand::start(FLOOD, 1) else { return };
    stand.until_line(FLOOD);
    let links = [("robot", stand.robot.counts()), ("follower", stand.laptop.counts())];
    stand.finish().assert_whole();
    for (link, counts) in links {
        let [up, down] = counts.map(|lane| lane.bytes);
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        let per_line = (up + down) as f64 / FLOOD as f64;
        eprintln!(
            "wire: {FLOOD} lines of 25 bytes on the {link}'s link: {up} bytes to the coordinator and {down} from it, headers and the \
             start of the flow included: {per_line:.2} bytes a line"
        );
        // A machine that is slower still sends smaller batches.
        let most = if is_strict() { 12.0 } else { 20.0 };
        assert!(per_line <= most, "at most 12 bytes a line were promised");
    }
}
