//! What time it is, said by whoever runs the state.

use core::time::Duration;

use bield_envelope::Time;

/// Two clocks of the machine.
pub trait Clocks: Send + Sync {
    /// The time of day. The host sets it: it orders records and ends certificates and values, and proves
    /// nothing.
    fn now(&self) -> Time;

    /// Time that runs on without being set: holds are counted by it.
    fn running(&self) -> Duration;
}
