//! What time it is, said by whoever runs the state.

use core::time::Duration;
use std::sync::Arc;

use bield_capsule::{Metadata, WriteError};
use bield_envelope::Time;

use crate::log::append::Author;

/// Two clocks of the machine.
pub trait Clocks: Send + Sync {
    /// The time of day. The host sets it: it orders records and ends certificates and values, and proves
    /// nothing.
    fn now(&self) -> Time;

    /// Time that runs on without being set: holds are counted by it.
    fn running(&self) -> Duration;
}

/// The machine's clocks, with the time of day kept within the writer's certificate, which the key service signed by a
/// clock of its own: a host whose clock is behind would have records signed that nobody accepts (spec/06 §6), and one
/// that sets it to 2099 would have all later clocks go on from there.
pub(crate) struct Present {
    clocks: Arc<dyn Clocks>,
    from: Time,
    until: Option<Time>,
}

impl Present {
    /// Those of a writer; one that the owner admitted itself has no bounds.
    pub(crate) fn of(
        author: &Author,
        metadata: &Metadata,
        clocks: Arc<dyn Clocks>,
    ) -> Result<Self, WriteError> {
        let certificate = author.certificate(metadata)?;
        Ok(Self {
            clocks,
            from: certificate.map_or(Time::from_millis(0), |(from, _)| from),
            until: certificate.map(|(_, until)| until),
        })
    }
}

impl Clocks for Present {
    /// At the certificate's end the log takes no record, so that no clock beyond it is ever signed.
    fn now(&self) -> Time {
        let now = self.clocks.now().max(self.from);
        self.until.map_or(now, |until| now.min(until))
    }

    fn running(&self) -> Duration {
        self.clocks.running()
    }
}
