//! The controller on simulated paths, alone and beside others. The figures stand in `docs/adr/0010`.

use super::*;
use crate::congestion::{
    DelayTarget,
    simulation::{Figures, Path, Random, Simulation},
};
use quinn_proto::congestion::ControllerFactory;
use std::{any::Any, fmt::Arguments, io::Write};

const SECOND: Duration = Duration::from_secs(1);

fn ours() -> Arc<DelayTarget> {
    Arc::new(DelayTarget)
}

fn cubic() -> Arc<CubicConfig> {
    Arc::new(CubicConfig::default())
}

/// Says a figure, for the table in the ADR.
fn note(figure: Arguments<'_>) {
    writeln!(std::io::stderr(), "{figure}").expect("said");
}

/// What one of our senders gets and does to the queue, once it has found its pace.
fn settled(path: &Path, seed: u64) -> Figures {
    let mut world = Simulation::new(path.clone(), seed);
    world.add(ours());
    world.run(10 * SECOND);
    world.run(50 * SECOND)
}

/// The queue that we aim at, in seconds.
fn target(path: &Path) -> f64 {
    let round_trip = path.delay.as_secs_f64() * 2.0;
    let three_packets = 3.0 * 1480.0 * 8.0 / path.rate;
    TARGET_FLOOR.max(TARGET_SHARE * round_trip).max(three_packets)
}

#[test]
fn the_queue_stays_short_and_the_link_full_whatever_the_buffer() {
    for (megabits, round_trip, queue) in [
        (2.0, 100, 500),
        (10.0, 100, 25),
        (10.0, 100, 100),
        (10.0, 100, 500),
        (10.0, 100, 2000),
        (100.0, 20, 100),
        (50.0, 5, 50),
        (1.0, 600, 1000),
    ] {
        let path = Path::new(megabits, round_trip, queue);
        let figures = settled(&path, 1);
        let name = format!("{megabits} Mbit/s, {round_trip} ms, queue of {queue} ms");
        note(format_args!("{name}: {figures}"));
        assert!(figures.shares[0] > 0.85, "{name}: {figures}");
        let [half, most] = [50, 99].map(|percent| figures.wait(percent).as_secs_f64() / target(&path));
        assert!(half < 1.6 && most < 6.0, "{name}: {figures}");
    }
}

#[test]
fn nothing_urgent_is_held_up_by_a_look_at_the_empty_path() {
    for (megabits, round_trip, queue) in [(10.0, 100, 500), (2.0, 60, 500), (50.0, 40, 200)] {
        for start in [0, 20] {
            let path = Path::new(megabits, round_trip, queue);
            let mut world = Simulation::new(path.clone(), 1);
            // The route is longer right after the handshake, of which a few short samples remain.
            world.path.delay = Duration::from_millis(1);
            let one = world.add(ours());
            world.set_busy(one, false);
            world.run(SECOND / 10);
            world.path.delay = path.delay;
            world.set_busy(one, true);
            world.run(start * SECOND + SECOND);
            let figures = world.run_with_urgent(30 * SECOND, Duration::from_millis(23));
            note(format_args!(
                "{megabits} Mbit/s, {round_trip} ms, from {start} s on: {figures}"
            ));
            let added = figures.urgent(100).saturating_sub(path.delay).as_secs_f64();
            assert!(added < 8.0 * target(&path), "{figures}");
        }
    }
}

#[test]
fn random_loss_of_a_radio_is_no_congestion() {
    for lost in [10, 20, 30, 50] {
        for seed in [1, 2] {
            let mut path = Path::new(10.0, 100, 500);
            path.lost = lost;
            let figures = settled(&path, seed);
            note(format_args!("{lost} of a thousand lost, seed {seed}: {figures}"));
            assert!(
                figures.shares[0] > 0.75 && figures.wait(99) < SECOND / 50,
                "{lost}: {figures}"
            );
        }
    }
}

#[test]
fn heavy_loss_is_believed() {
    let mut path = Path::new(10.0, 100, 500);
    path.lost = 250;
    let figures = settled(&path, 1);
    note(format_args!("a quarter lost: {figures}"));
    assert!(figures.shares[0] < 0.2, "{figures}");
}

#[test]
fn jitter_is_no_queue() {
    for (in_order, lost) in [(true, 0), (true, 10), (true, 20), (false, 0), (false, 10)] {
        let mut path = Path::new(10.0, 60, 500);
        (path.jitter, path.in_order, path.lost) = (Duration::from_millis(30), in_order, lost);
        let figures = settled(&path, 5);
        let mut beside = Simulation::new(path, 5);
        beside.add(cubic());
        let theirs = beside.run(60 * SECOND);
        note(format_args!(
            "jitter of 30 ms, in order: {in_order}, {lost} of a thousand lost: {figures}; Cubic: {theirs}"
        ));
        // What is overtaken counts as lost to QUIC: more than what its own loss recovery gets through is not to be had.
        let least = if in_order { 0.3 } else { theirs.shares[0] };
        assert!(figures.shares[0] > least && figures.wait(99) < SECOND / 25, "{figures}");
    }
}

#[test]
fn a_narrow_way_back_is_not_taken_for_a_queue() {
    // At ten megabits, acknowledgements take about a quarter of one.
    for (back, least) in [(0.5, 0.9), (0.3, 0.9), (0.15, 0.5), (0.08, 0.25)] {
        let mut path = Path::new(10.0, 100, 500);
        path.back_rate = back * 1e6;
        let figures = settled(&path, 1);
        note(format_args!("way back of {back} Mbit/s: {figures}"));
        assert!(
            figures.shares[0] > least && figures.wait(99) < SECOND / 50,
            "{back}: {figures}"
        );
    }
}

#[test]
fn a_longer_route_is_found_out() {
    let mut world = Simulation::new(Path::new(10.0, 80, 500), 1);
    world.add(ours());
    world.run(30 * SECOND);
    for (delay, within) in [(60, 10), (20, 20)] {
        world.path.delay = Duration::from_millis(delay);
        let finding = world.run(within * SECOND);
        let after = world.run(20 * SECOND);
        note(format_args!(
            "a route of {delay} ms each way: at first {finding}, then {after}"
        ));
        assert!(after.shares[0] > 0.85 && after.wait(99) < SECOND / 25, "{after}");
    }
}

#[test]
fn a_link_that_gets_slower_and_faster_is_followed() {
    let mut world = Simulation::new(Path::new(10.0, 60, 1000), 1);
    world.add(ours());
    world.run(20 * SECOND);
    for (megabits, least) in [(2.5, 0.8), (10.0, 0.6), (1.0, 0.8)] {
        world.path.rate = megabits * 1e6;
        let finding = world.run(10 * SECOND);
        let after = world.run(10 * SECOND);
        note(format_args!(
            "{megabits} Mbit/s from now on: at first {finding}, then {after}"
        ));
        assert!(after.shares[0] > least, "{after}");
        assert!(after.wait(50).as_secs_f64() < 2.0 * target(&world.path), "{after}");
    }
}

#[test]
fn after_a_cut_it_is_soon_as_fast_as_before() {
    let mut world = Simulation::new(Path::new(10.0, 100, 500), 1);
    world.add(ours());
    world.run(20 * SECOND);
    world.path.lost = 1000;
    world.run(5 * SECOND);
    world.path.lost = 0;
    // The next try of a sender that hears nothing comes only after a while.
    world.run(8 * SECOND);
    let after = world.run(10 * SECOND);
    note(format_args!("after a cut: {after}"));
    assert!(after.shares[0] > 0.85 && after.wait(99) < SECOND / 20, "{after}");
}

#[test]
fn a_flow_that_rested_or_said_little_is_as_fast_as_before() {
    for words in [false, true] {
        let mut world = Simulation::new(Path::new(10.0, 100, 500), 1);
        let one = world.add(ours());
        world.run(20 * SECOND);
        world.set_busy(one, false);
        world.run(5 * SECOND);
        for _ in 0..600 {
            if words {
                world.say(one);
            }
            world.run(SECOND / 5);
        }
        world.set_busy(one, true);
        let after = world.run(5 * SECOND);
        note(format_args!(
            "after two minutes of rest, with words now and then: {words}: {after}"
        ));
        assert!(after.shares[0] > 0.7 && after.wait(99) < SECOND / 10, "{after}");
    }
}

#[test]
fn beside_cubic_it_gets_a_quarter_and_gives_the_queue_up_when_that_ends() {
    let mut all = Vec::new();
    for (megabits, round_trip, queue) in [
        (10.0, 100, 50),
        (10.0, 100, 100),
        (10.0, 100, 500),
        (10.0, 20, 100),
        (10.0, 20, 500),
        (50.0, 40, 200),
        (2.0, 60, 500),
        (10.0, 100, 2000),
    ] {
        let name = format!("{megabits} Mbit/s, {round_trip} ms, queue of {queue} ms");
        let path = Path::new(megabits, round_trip, queue);
        let mut world = Simulation::new(path.clone(), 1);
        world.add(ours());
        world.run(10 * SECOND);
        let rival = world.add(cubic());
        let beside = world.run(120 * SECOND);
        world.set_busy(rival, false);
        // A few looks, each after ten times the longest delay; mostly one is enough.
        let leaving = world.run((45 * SECOND).max(15 * path.queue));
        let after = world.run(20 * SECOND);
        note(format_args!(
            "{name}: beside Cubic {beside}; when that ends {leaving}; then {after}"
        ));
        assert!(beside.shares[0] > 0.1, "{name}: {beside}");
        assert!(after.shares[0] > 0.85, "{name}: {after}");
        assert!(after.wait(50).as_secs_f64() < 2.0 * target(&path), "{name}: {after}");
        all.push(beside.shares[0]);
    }
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    note(format_args!("share beside Cubic in all: {mean:.2}"));
    assert!(mean > 0.25, "{all:?}");
}

#[test]
fn two_of_a_kind_share_fairly_and_keep_the_queue_short() {
    for (megabits, round_trip, queue) in [(10.0, 100, 500), (10.0, 20, 100), (2.0, 60, 500)] {
        for head_start in [15, 22] {
            let path = Path::new(megabits, round_trip, queue);
            let mut world = Simulation::new(path.clone(), head_start);
            world.add(ours());
            world.run(u32::try_from(head_start).expect("small") * SECOND);
            world.add(ours());
            world.run(20 * SECOND);
            let both = world.run(60 * SECOND);
            note(format_args!(
                "{megabits} Mbit/s, {round_trip} ms, queue of {queue} ms, two after {head_start} s: {both}"
            ));
            let [one, other] = [both.shares[0], both.shares[1]];
            assert!(one.min(other) > 0.25 && one + other > 0.85, "{both}");
            assert!(both.wait(50).as_secs_f64() < 4.0 * target(&path), "{both}");
        }
    }
}

/// Calls a controller of ours with nonsense, with the estimate of a real connection at hand.
#[derive(Clone, Debug)]
struct Nonsense {
    inner: Pace,
    random: Random,
}

struct NonsenseFactory;

impl ControllerFactory for NonsenseFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let (inner, random) = (Pace::new(now, f64::from(current_mtu)), Random(7));
        Box::new(Nonsense { inner, random })
    }
}

impl Controller for Nonsense {
    fn on_ack(&mut self, now: Instant, _: Instant, _: u64, _: bool, rtt: &RttEstimator) {
        for _ in 0..1000 {
            let mut moment = || now + Duration::from_nanos(self.random.number() >> (self.random.number() % 64));
            let (now, sent) = (moment(), moment());
            let bytes = self.random.number() >> self.random.below(64).max(20);
            let inner = &mut self.inner;
            match self.random.below(8) {
                0 => inner.lost(now, sent, self.random.below(4) == 0, bytes),
                1 => inner.set_mtu(1200 + self.random.below(9000) as u16),
                2 => {
                    let rival = Cubic::new(Arc::default(), now, 1200);
                    inner.drain(now, 0.0, (bytes.is_multiple_of(2)).then_some(rival));
                }
                3 => inner.compete(now, f64::MAX),
                _ => inner.acknowledged(now, sent, bytes, bytes.is_multiple_of(3), rtt),
            }
            assert!(
                inner.window.is_finite() && inner.bytes() > 2 * 1200 && inner.bytes() < 1 << 50,
                "{inner:?}"
            );
        }
    }

    fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, _: u64) {}

    fn on_mtu_update(&mut self, _: u16) {}

    fn window(&self) -> u64 {
        Pace::INITIAL_BYTES
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        Pace::INITIAL_BYTES
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[test]
fn odd_times_and_sizes_do_not_panic() {
    let mut world = Simulation::new(Path::new(2.0, 20, 100), 1);
    world.add(Arc::new(NonsenseFactory));
    assert!(world.run(2 * SECOND).shares[0] > 0.1);
}
