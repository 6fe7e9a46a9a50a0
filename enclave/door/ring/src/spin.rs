//! How long to spin before sleeping.
//!
//! Spinning for as long as a wake-up costs, then sleeping, is never worse than twice the best choice (ski rental).
//! A wake-up across cores costs 18 to 25 µs in a virtual machine whose idle processor halts, so the window is about
//! 50 µs here; it is measured once in each process, on a thread of its own, and taken to be 50 µs until then.
//!
//! Always true: on one core nobody spins; after a spin in which the thread lost its core, it does not spin for the
//! next [`PAUSES`] waits: the core is wanted by somebody with work to do. That loss is seen on the clock, which jumps
//! in the middle of a spin: it costs no system call, and a virtual machine that lost its core sees it as well.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Looks at the ring between two looks at the clock.
const LOOKS: u32 = 32;
/// A longer gap between two looks at the clock, which are under a microsecond apart, means another thread ran.
const GAP_MAX: Duration = Duration::from_micros(100);
/// Waits without a spin after such a gap.
const PAUSES: u32 = 64;
/// The window while it is not measured.
const WINDOW: Duration = Duration::from_micros(50);
/// The longest window, however slow waking was found to be.
const WINDOW_MAX: Duration = Duration::from_micros(200);
/// Wake-ups measured.
const ROUNDS: usize = 33;

/// When an end of a ring spins.
pub struct Spin {
    window: Window,
    pauses: u32,
}

enum Window {
    Measured,
    Fixed(Duration),
}

/// What [`measure`] found, in nanoseconds.
static MEASURED_NS: AtomicU64 = AtomicU64::new(WINDOW.as_nanos() as u64);

impl Spin {
    /// About two wake-ups of this machine. The first call starts the measurement and does not wait for it.
    #[must_use]
    pub fn measured() -> Spin {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            if cores == 1 {
                MEASURED_NS.store(0, Ordering::Relaxed);
            } else {
                // Without a thread the assumed window stays.
                let _ = thread::Builder::new()
                    .name("spin window".to_owned())
                    .spawn(|| {
                        // Not less than assumed: two threads that met on one core wake each other too cheaply.
                        let window = (measure() * 2).clamp(WINDOW, WINDOW_MAX).as_nanos();
                        let window = u64::try_from(window).unwrap_or(0);
                        MEASURED_NS.store(window, Ordering::Relaxed);
                    });
            }
        });
        Spin {
            window: Window::Measured,
            pauses: 0,
        }
    }

    /// Exactly this long; zero sleeps at once.
    #[must_use]
    pub const fn fixed(window: Duration) -> Spin {
        Spin {
            window: Window::Fixed(window),
            pauses: 0,
        }
    }

    /// Spins until `ready` or the window's end; whether it is ready.
    pub(crate) fn until(&mut self, ready: impl Fn() -> bool) -> bool {
        let window = match self.window {
            Window::Measured => Duration::from_nanos(MEASURED_NS.load(Ordering::Relaxed)),
            Window::Fixed(window) => window,
        };
        if window.is_zero() || self.pauses > 0 {
            self.pauses = self.pauses.saturating_sub(1);
            return ready();
        }
        let mut begin = None;
        let mut last: Option<Instant> = None;
        loop {
            for _ in 0..LOOKS {
                if ready() {
                    return true;
                }
                std::hint::spin_loop();
            }
            let now = Instant::now();
            if last.replace(now).is_some_and(|last| now - last > GAP_MAX) {
                self.pauses = PAUSES;
                return ready();
            }
            if now - *begin.get_or_insert(now) >= window {
                return false;
            }
        }
    }
}

/// The middle cost of waking a thread that sleeps, one way.
fn measure() -> Duration {
    let here = thread::current();
    let other = thread::spawn(move || {
        for _ in 0..ROUNDS {
            thread::park();
            here.unpark();
        }
    });
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            other.thread().unpark();
            thread::park_timeout(WINDOW_MAX * 10);
            begin.elapsed()
        })
        .collect();
    // What a stray wake-up left over must not keep it.
    while !other.is_finished() {
        other.thread().unpark();
        thread::yield_now();
    }
    rounds.sort();
    rounds[ROUNDS / 2] / 2
}
