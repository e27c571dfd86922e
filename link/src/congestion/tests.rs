//! The controller on a simulated bottleneck: one queue, one sender with endless data, time in steps of one packet.

use super::*;

/// One bottleneck link and what happens on it.
struct Link {
    now: Instant,
    packet_seconds: f64,
    one_way: f64,
    queue_packets: usize,
    /// Packets of another flow that always stand in the queue.
    foreign: usize,
    /// Every n-th packet is lost for no reason.
    loses_every: Option<u64>,
}

#[derive(Default)]
struct Outcome {
    sent: u64,
    delivered: u64,
    worst_delay: f64,
}

impl Link {
    fn new(megabits: f64, one_way: f64, queue_packets: usize) -> Self {
        Self {
            now: Instant::now(),
            packet_seconds: MTU * 8.0 / (megabits * 1e6),
            one_way,
            queue_packets,
            foreign: 0,
            loses_every: None,
        }
    }

    /// Runs for `seconds` and reports the delays of the second half.
    fn run(&mut self, controller: &mut DelayController, seconds: f64) -> Outcome {
        let mut outcome = Outcome::default();
        let mut flight = std::collections::VecDeque::new();
        let mut free_at = 0.0_f64;
        let (mut time, mut in_flight) = (0.0_f64, 0.0_f64);
        let start = self.now;
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        while time < seconds {
            // The pacer: no more than two packets in each packet's time.
            for _ in 0..2 {
                if in_flight + MTU > controller.window {
                    break;
                }
                in_flight += MTU;
                outcome.sent += 1;
                let foreign = self.foreign as f64 * self.packet_seconds;
                let waits = (free_at - time).max(0.0) + foreign;
                let full = waits / self.packet_seconds > self.queue_packets as f64;
                let unlucky = self.loses_every.is_some_and(|every| outcome.sent.is_multiple_of(every));
                if !full {
                    free_at = free_at.max(time) + self.packet_seconds;
                }
                let back = time + waits + self.packet_seconds + 2.0 * self.one_way;
                flight.push_back((back, time, full || unlucky));
            }
            while let Some(&(back, sent, lost)) = flight.front() {
                if back > time {
                    break;
                }
                flight.pop_front();
                in_flight -= MTU;
                if lost {
                    controller.congested(at(back), at(sent), false, MTU);
                    continue;
                }
                outcome.delivered += 1;
                if time > seconds / 2.0 {
                    outcome.worst_delay = outcome.worst_delay.max(back - sent);
                }
                controller.acked(at(back), at(sent), MTU, false);
            }
            time += self.packet_seconds;
        }
        self.now = at(seconds);
        outcome
    }
}

const MTU: f64 = 1200.0;

fn rate(outcome: &Outcome, link: &Link, seconds: f64) -> f64 {
    outcome.delivered as f64 * link.packet_seconds / seconds
}

#[test]
fn the_queue_stays_short_and_the_link_full() {
    for (megabits, one_way) in [(2.0, 0.05), (10.0, 0.05), (100.0, 0.01)] {
        let mut link = Link::new(megabits, one_way, 10_000);
        let mut controller = DelayController::new(link.now, MTU);
        let outcome = link.run(&mut controller, 30.0);
        let used = rate(&outcome, &link, 30.0);
        let bound = 2.0 * one_way * 1.25 + 6.0 * link.packet_seconds + 0.003;
        assert!(used > 0.9, "{megabits} Mbit/s: {used:.2} of the link is used");
        assert!(
            outcome.worst_delay < bound,
            "{megabits} Mbit/s: {:.3} s, bound {bound:.3}",
            outcome.worst_delay
        );
    }
}

#[test]
fn a_few_lost_packets_do_not_slow_it_down() {
    let mut link = Link::new(10.0, 0.05, 10_000);
    link.loses_every = Some(50);
    let mut controller = DelayController::new(link.now, MTU);
    let outcome = link.run(&mut controller, 30.0);
    let used = rate(&outcome, &link, 30.0);
    assert!(used > 0.8, "{used:.2} of the link is used with 2 % loss");
}

#[test]
fn heavy_loss_is_believed() {
    let mut link = Link::new(10.0, 0.05, 10_000);
    link.loses_every = Some(4);
    let mut controller = DelayController::new(link.now, MTU);
    link.run(&mut controller, 10.0);
    assert!(controller.window < 20.0 * MTU, "{}", controller.window);
}

#[test]
fn beside_a_flow_that_fills_the_queue_it_competes_and_stops_when_that_ends() {
    let mut link = Link::new(10.0, 0.02, 400);
    let mut controller = DelayController::new(link.now, MTU);
    link.run(&mut controller, 5.0);
    link.foreign = 200;
    link.run(&mut controller, 15.0);
    let competing = matches!(controller.mode, Mode::Compete | Mode::Drain { competing: true, .. });
    assert!(competing, "{:?}", controller.mode);
    link.foreign = 0;
    link.run(&mut controller, 60.0);
    let back = matches!(controller.mode, Mode::Delay | Mode::Drain { competing: false, .. });
    assert!(back, "{:?}", controller.mode);
}

#[test]
fn odd_times_and_sizes_do_not_panic() {
    let now = Instant::now();
    let mut controller = DelayController::new(now, 0.0);
    controller.acked(now, now + Duration::from_secs(9), f64::from(u32::MAX), true);
    controller.acked(now + Duration::from_secs(1 << 30), now, 0.0, false);
    controller.congested(now, now, true, 0.0);
    controller.acked(now + Duration::from_secs(1 << 31), now, 1.0, false);
    assert!(controller.window.is_finite());
}
