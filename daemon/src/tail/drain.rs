//! Those who wait until all lines that existed when they asked have reached the coordinator. Pure, but for the bell at the end.

use super::series::Place;
use dora_remote_protocol::log_line::LogSource;
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// Who waits for one run.
#[derive(Debug, Default)]
pub(super) struct Drains {
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// Sources that still have lines of then: the place behind the last one, where it is known.
    left: BTreeMap<LogSource, Option<Place>>,
    done: oneshot::Sender<()>,
}

impl Drains {
    /// Adds somebody who waits for what these sources have now, up to a place, or all of it where that is not known.
    pub(super) fn add(&mut self, left: BTreeMap<LogSource, Option<Place>>, done: oneshot::Sender<()>) {
        self.waiting.push(Waiting { left, done });
        self.ring();
    }

    /// A source has nothing to ship at the moment.
    pub(super) fn is_empty_now(&mut self, source: &LogSource) {
        for waiting in &mut self.waiting {
            waiting.left.remove(source);
        }
        self.ring();
    }

    /// Lines of a source up to a place are acknowledged.
    pub(super) fn reached(&mut self, source: &LogSource, place: Place) {
        for waiting in &mut self.waiting {
            let is_there = |end: &Option<Place>| end.is_some_and(|end| place >= end);
            if waiting.left.get(source).is_some_and(is_there) {
                waiting.left.remove(source);
            }
        }
        self.ring();
    }

    /// Tells those for whom nothing is left, and forgets those who have gone.
    fn ring(&mut self) {
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.left.is_empty() {
                // Who has gone needs to hear nothing.
                let _ = waiting.done.send(());
            } else if !waiting.done.is_closed() {
                self.waiting.push(waiting);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(file: u64, position: u64) -> Place {
        Place { file, position }
    }

    #[test]
    fn each_waits_for_what_existed_when_it_asked_and_for_nothing_more() {
        let (busy, messages) = (LogSource::Node("a".parse().unwrap()), LogSource::Machine);
        let mut drains = Drains::default();
        let ask = |drains: &mut Drains, offset| {
            let (done, bell) = oneshot::channel();
            let left = [(busy.clone(), Some(at(7, offset))), (messages.clone(), None)];
            drains.add(left.into(), done);
            bell
        };
        let (mut early, mut late) = (ask(&mut drains, 100), ask(&mut drains, 300));
        drains.reached(&messages, at(9, 999));
        drains.reached(&busy, at(7, 99));
        assert!(early.try_recv().is_err(), "one line is missing");
        drains.reached(&busy, at(7, 200));
        assert!(early.try_recv().is_err(), "messages may be missing");
        drains.is_empty_now(&messages);
        assert!(early.try_recv().is_ok() && late.try_recv().is_err());
        drains.reached(&busy, at(8, 0));
        assert!(late.try_recv().is_ok(), "a later file lies behind all lines of a former one");
        let gone = ask(&mut drains, 1);
        drop(gone);
        drains.is_empty_now(&messages);
        assert!(drains.waiting.is_empty());
    }

    #[test]
    fn nothing_to_wait_for_is_told_at_once() {
        let (done, mut bell) = oneshot::channel();
        Drains::default().add(BTreeMap::new(), done);
        assert!(bell.try_recv().is_ok());
    }
}
