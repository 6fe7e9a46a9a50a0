//! The host's clock.

use std::time::{SystemTime, UNIX_EPOCH};

use bield_envelope::Time;

/// Reads the clock. A clock before 1970 reads as 1970, when nothing is valid yet.
pub fn now() -> Time {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Time::from_millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_clock_shows_a_time_after_this_was_written() {
        assert!(super::now().as_secs() > 1_700_000_000);
    }
}
