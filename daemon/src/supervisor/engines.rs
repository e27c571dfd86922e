//! The lines to all engines of this machine, and which one is meant.

use crate::{
    engine_client::{EngineHandle, Switchboard},
    seat::{SEATS, Seat},
};

/// The lines to the engines. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Engines {
    lines: [EngineHandle; SEATS],
    present: Seat,
}

impl Engines {
    /// Lines to the engines of these switchboards; the one in `present` takes new runs.
    pub(crate) fn new(switchboards: &[Switchboard; SEATS], present: Seat) -> Self {
        Self {
            lines: switchboards.each_ref().map(Switchboard::handle),
            present,
        }
    }

    /// The place of the engine that takes new runs.
    pub(crate) fn present(&self) -> Seat {
        self.present
    }

    /// The line to the engine in a place.
    pub(crate) fn line(&self, seat: Seat) -> &EngineHandle {
        &self.lines[seat.index()]
    }
}
