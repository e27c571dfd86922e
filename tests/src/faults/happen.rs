//! What can happen to a [`Stand`]: each fault lasts for a while and ends. [`Stand::healed`] is left to whoever lets it happen.

use super::{Stand, stand::ROBOT};
use crate::processes;
use nix::sys::signal::Signal;
use std::time::Duration;

/// Whose link is meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Link {
    /// That of the robot.
    Robot,
    /// That of the laptop, where the followers are.
    Laptop,
    /// Both.
    Both,
}

impl Link {
    const fn has_robot(self) -> bool {
        matches!(self, Self::Robot | Self::Both)
    }

    const fn has_laptop(self) -> bool {
        matches!(self, Self::Laptop | Self::Both)
    }
}

impl Stand {
    /// Cuts a link while something else happens.
    pub fn cut(&mut self, link: Link, meanwhile: impl FnOnce(&mut Self)) {
        if link.has_robot() {
            self.robot.cut();
        }
        if link.has_laptop() {
            self.laptop.cut();
        }
        meanwhile(self);
        let _ = self.robot.heal();
        let _ = self.laptop.heal();
    }

    /// Cuts a link for so long.
    pub fn cut_for(&mut self, link: Link, time: Duration) {
        self.cut(link, |stand| stand.wait(time));
    }

    /// The NAT in front of a link gives its connections other ports.
    pub fn rebind_ports(&self, link: Link) {
        if link.has_robot() {
            self.robot.rebind_ports();
        }
        if link.has_laptop() {
            self.laptop.rebind_ports();
        }
    }

    /// The NAT in front of a link has another public address.
    pub fn rebind_address(&self, link: Link) {
        if link.has_robot() {
            self.robot.move_to_another_address();
        }
        if link.has_laptop() {
            self.laptop.move_to_another_address();
        }
    }

    /// The robot goes from one network to another, and has neither for so long.
    pub fn move_robot(&mut self, time: Duration) {
        self.cut(Link::Robot, |stand| {
            stand.wait(time);
            stand.robot.move_to_another_address();
        });
    }

    /// Kills the robot's agent; it is started again after so long.
    pub fn kill_agent(&mut self, time: Duration) {
        self.cluster.kill_daemon(ROBOT);
        self.wait(time);
        self.cluster.start_daemon(ROBOT);
    }

    /// Kills the coordinator; it is started again after so long.
    pub fn kill_coordinator(&mut self, time: Duration) {
        self.cluster.kill_coordinator();
        self.wait(time);
        self.cluster.spawn_coordinator();
    }

    /// Stops the followers for so long, as the lid of a laptop does.
    pub fn stop_followers(&self, time: Duration) {
        let signal = |signal| {
            self.followers
                .iter()
                .for_each(|follower| processes::signal(follower.pid(), signal))
        };
        signal(Signal::SIGSTOP);
        self.wait(time);
        signal(Signal::SIGCONT);
    }
}
