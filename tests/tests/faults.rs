//! Faults while a node prints a hundred lines a second: nothing is lost, nothing comes twice, order is kept, and lines come again.
//!
//! Each case is a fault and a heal phase that must converge. `DORA_REMOTE_LONG=1` adds the long cuts and the faults during a flood.
//! How soon lines came is printed as a row of the table in docs/reliability.md, and asserted only with `DORA_REMOTE_STRICT=1`:
//! machines that run tests are slow.

use dora_remote_tests::{
    faults::{Load, Row, Stand},
    relay::Weather,
};
use std::time::Duration;

/// Lines of a flood.
const FLOOD: u64 = 200_000;
/// Lines of a flood that the follower has seen when the fault comes.
const INTO_THE_FLOOD: u64 = 20_000;
/// A pause of the node's own printing beyond which something holds it up, on however busy a machine. The promise is half a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How soon lines must come again: after cuts up to two minutes, after a longer one, after a rebind.
const SOON: Duration = Duration::from_secs(2);
const WITHIN_A_DIAL: Duration = Duration::from_secs(15);
const AT_ONCE: Duration = Duration::from_secs(1);

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

/// One case at a hundred lines a second.
fn case(fault: &str, within: Duration, happen: impl FnOnce(&mut Stand)) {
    if let Some(stand) = Stand::start(0, 100) {
        run(stand, fault, Load::Steady, within, happen);
    }
}

/// One long case.
fn long_case(fault: &str, within: Duration, happen: impl FnOnce(&mut Stand)) {
    if is_long() {
        case(fault, within, happen);
    }
}

/// One case in the middle of a flood.
fn flood_case(fault: &str, within: Duration, happen: impl FnOnce(&mut Stand)) {
    if !is_long() {
        return;
    }
    if let Some(stand) = Stand::start(FLOOD, INTO_THE_FLOOD) {
        run(stand, fault, Load::Flood, within, happen);
    }
}

fn run(mut stand: Stand, fault: &str, load: Load, within: Duration, happen: impl FnOnce(&mut Stand)) {
    happen(&mut stand);
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

fn cut_follower(time: Duration) -> impl FnOnce(&mut Stand) {
    move |stand| {
        stand.laptop.cut();
        stand.wait(time);
        let _ = stand.laptop.heal();
        stand.healed();
    }
}

fn cut_robot(time: Duration) -> impl FnOnce(&mut Stand) {
    move |stand| {
        stand.robot.cut();
        stand.wait(time);
        let _ = stand.robot.heal();
        stand.healed();
    }
}

fn rebind_ports(stand: &mut Stand) {
    stand.robot.rebind_ports();
    stand.healed();
}

fn rebind_address(stand: &mut Stand) {
    stand.robot.move_to_another_address();
    stand.healed();
}

fn wifi_to_lte(stand: &mut Stand) {
    stand.robot.cut();
    stand.wait(seconds(2));
    stand.robot.move_to_another_address();
    let _ = stand.robot.heal();
    stand.healed();
}

fn kill_coordinator(time: Duration) -> impl FnOnce(&mut Stand) {
    move |stand| {
        stand.cluster.kill_coordinator();
        stand.wait(time);
        stand.cluster.spawn_coordinator();
        stand.healed();
    }
}

fn kill_agent(stand: &mut Stand) {
    stand.cluster.kill_daemon("robot");
    stand.wait(seconds(1));
    stand.cluster.start_daemon("robot");
    stand.healed();
}

#[test]
fn follower_cut_5_s() {
    case("follower's link cut 5 s", SOON, cut_follower(seconds(5)));
}

#[test]
fn robot_cut_5_s() {
    case("robot's link cut 5 s", SOON, cut_robot(seconds(5)));
}

#[test]
fn nat_port_rebind() {
    case("NAT port rebind of the robot", AT_ONCE, rebind_ports);
}

#[test]
fn nat_address_rebind() {
    case("NAT address rebind of the robot", AT_ONCE, rebind_address);
}

#[test]
fn nat_port_rebind_of_the_follower() {
    case("NAT port rebind of the follower", AT_ONCE, |stand| {
        stand.laptop.rebind_ports();
        stand.healed();
    });
}

#[test]
fn wifi_to_lte_of_the_robot() {
    case("robot from Wi-Fi to LTE, 2 s without either", SOON, wifi_to_lte);
}

#[test]
fn lossy_link() {
    case("robot's link: 100 ms, 5 % lost, reordered, 10 s", AT_ONCE, |stand| {
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
        stand.healed();
    });
}

#[test]
fn coordinator_killed_back_after_3_s() {
    case("coordinator killed, back after 3 s", SOON, kill_coordinator(seconds(3)));
}

#[test]
fn agent_killed() {
    case("agent killed, back after 1 s", SOON, kill_agent);
}

#[test]
fn follower_cut_60_s() {
    long_case("follower's link cut 60 s", SOON, cut_follower(seconds(60)));
}

#[test]
fn follower_cut_10_min() {
    long_case("follower's link cut 10 min", WITHIN_A_DIAL, cut_follower(seconds(600)));
}

#[test]
fn robot_cut_60_s() {
    long_case("robot's link cut 60 s", SOON, cut_robot(seconds(60)));
}

#[test]
fn robot_cut_150_s() {
    long_case("robot's link cut 150 s", WITHIN_A_DIAL, cut_robot(seconds(150)));
}

#[test]
fn robot_cut_10_min() {
    long_case("robot's link cut 10 min", WITHIN_A_DIAL, cut_robot(seconds(600)));
}

#[test]
fn coordinator_killed_back_after_45_s() {
    long_case("coordinator killed, back after 45 s", SOON, kill_coordinator(seconds(45)));
}

#[test]
fn flood_follower_cut_5_s() {
    flood_case("follower's link cut 5 s", SOON, cut_follower(seconds(5)));
}

#[test]
fn flood_robot_cut_5_s() {
    flood_case("robot's link cut 5 s", SOON, cut_robot(seconds(5)));
}

#[test]
fn flood_robot_cut_60_s() {
    flood_case("robot's link cut 60 s", SOON, cut_robot(seconds(60)));
}

#[test]
fn flood_nat_port_rebind() {
    flood_case("NAT port rebind of the robot", AT_ONCE, rebind_ports);
}

#[test]
fn flood_nat_address_rebind() {
    flood_case("NAT address rebind of the robot", AT_ONCE, rebind_address);
}

#[test]
fn flood_coordinator_killed_back_after_3_s() {
    flood_case("coordinator killed, back after 3 s", SOON, kill_coordinator(seconds(3)));
}

#[test]
fn flood_agent_killed() {
    flood_case("agent killed, back after 1 s", SOON, kill_agent);
}

#[test]
#[expect(clippy::print_stderr, reason = "the result of a measurement")]
fn flood_without_fault_on_the_wire() {
    let Some(mut stand) = Stand::start(FLOOD, 1) else { return };
    stand.until_line(FLOOD);
    let counts = stand.robot.counts();
    let report = stand.finish();
    let lines = report.first().done.unwrap_or_default();
    let [up, down] = counts.map(|lane| lane.bytes);
    let per_line = |bytes: u64| {
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        let ratio = bytes as f64 / FLOOD as f64;
        ratio
    };
    eprintln!(
        "wire: {FLOOD} lines of 25 bytes, {lines} in all: {up} bytes to the coordinator and {down} from it, headers and the start of \
         the flow included: {:.2} bytes a line",
        per_line(up + down)
    );
    report.assert_whole();
    assert!(
        !is_strict() || per_line(up + down) <= 12.0,
        "at most 12 bytes a line were promised"
    );
}
