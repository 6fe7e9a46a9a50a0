//! Whom this process serves: everybody, or one user to the end.
//!
//! ```text
//! open ── first dedicated request ──▶ claimed by its user ── idle for a while ──▶ over: the program ends
//!   everybody                            that user only                             nobody
//! ```
//!
//! Always true: from a claim on, no request of another user runs here, and the claimant's runs when those that were
//! inside have left, and with them what is done for no request (`work`), of which nothing begins any more; a claim is never
//! given back, since a process that served one user alone is not clean for the next; it ends when its user has paused, also
//! when that work goes on; once over, nobody is let in. Not here: starting a clean process (the launcher does when this one ends).

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bield_envelope::Principal;
use bield_platform::memory::Wiping;
use bield_protocol::refusal::{Refusal, Retry};

use crate::flights::lock;

/// When to come back to a process that serves another user alone.
const RETRY_MS: u64 = 1000;

/// Whom this process serves.
#[derive(Default)]
pub(crate) struct Tenancy {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Requests of everybody.
    inside: usize,
    /// What is done for none.
    works: usize,
    claim: Option<Claim>,
    over: bool,
}

struct Claim {
    user: Principal,
    /// Requests of this user since the claim.
    own: usize,
    idle_since: Instant,
    /// Whatever is freed in this process is wiped from now on.
    _wiping: Wiping,
}

impl Tenancy {
    /// Whether a request of `user` would be served at all.
    pub(crate) fn serves(&self, user: Principal) -> bool {
        lock(&self.state).serves(user)
    }

    /// Whether this process serves one user alone.
    pub(crate) fn is_claimed(&self) -> bool {
        lock(&self.state).claim.is_some()
    }

    /// Lets a request in; a `dedicated` one claims the process, and waits at most `wait` for others to leave.
    ///
    /// # Errors
    /// [`taken`], or `instance-in-use` when others do not leave in time.
    pub(crate) fn enter(
        &self,
        user: Principal,
        dedicated: bool,
        wait: Duration,
    ) -> Result<Tenant<'_>, Refusal> {
        let mut state = lock(&self.state);
        if !state.serves(user) {
            return Err(taken());
        }
        if dedicated {
            state.claim.get_or_insert_with(|| Claim {
                user,
                own: 0,
                idle_since: Instant::now(),
                _wiping: Wiping::begin(),
            });
        }
        state.inside += 1;
        let alone = state.claim.as_mut().map(|claim| claim.own += 1).is_some();
        // From here on, leaving is counted whatever happens.
        let tenant = Tenant {
            tenancy: self,
            alone,
        };
        if alone {
            let waited = self
                .changed
                .wait_timeout_while(state, wait, |state| state.others() > 0);
            let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            let in_use = state.others() > 0;
            drop(state);
            if in_use {
                return Err(in_use_by_others());
            }
        }
        Ok(tenant)
    }

    /// Lets in what is done for no request of this moment; `None` once the process serves one user alone.
    pub(crate) fn work(&self) -> Option<Work<'_>> {
        let mut state = lock(&self.state);
        if state.claim.is_some() || state.over {
            return None;
        }
        state.works += 1;
        Some(Work(self))
    }

    /// Waits until a claim has been idle for `idle`; nobody is let in afterwards.
    pub(crate) fn wait_over(&self, idle: Duration) {
        let mut state = lock(&self.state);
        while !state.over {
            state = match state.idle_for() {
                Some(so_far) if so_far >= idle => {
                    state.over = true;
                    state
                }
                Some(so_far) => {
                    let woken = self.changed.wait_timeout(state, idle - so_far);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let woken = self.changed.wait(state);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

impl State {
    fn serves(&self, user: Principal) -> bool {
        !self.over && self.claim.as_ref().is_none_or(|claim| claim.user == user)
    }

    /// All that is not the claimant's since its claim.
    fn others(&self) -> usize {
        self.works + self.inside - self.claim.as_ref().map_or(0, |claim| claim.own)
    }

    /// How long a claim has been idle; `None` without a claim or with any request inside. The end of the process is that of
    /// work, too, which may never end by itself.
    fn idle_for(&self) -> Option<Duration> {
        let claim = self.claim.as_ref().filter(|_| self.inside == 0)?;
        Some(claim.idle_since.elapsed())
    }
}

/// A request that is let in, until dropped.
pub(crate) struct Tenant<'a> {
    tenancy: &'a Tenancy,
    alone: bool,
}

impl Tenant<'_> {
    /// Whether the process serves this request's user alone, so that nothing may be kept of or for it.
    pub(crate) const fn is_alone(&self) -> bool {
        self.alone
    }
}

impl Drop for Tenant<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.tenancy.state);
        state.inside -= 1;
        if self.alone
            && let Some(claim) = &mut state.claim
        {
            claim.own -= 1;
            claim.idle_since = Instant::now();
        }
        drop(state);
        self.tenancy.changed.notify_all();
    }
}

/// Work that is let in, until dropped.
pub(crate) struct Work<'a>(&'a Tenancy);

impl Drop for Work<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).works -= 1;
        self.0.changed.notify_all();
    }
}

/// The refusal for everybody but the claimant.
pub(crate) fn taken() -> Refusal {
    Refusal::new(
        "instance-taken",
        "this runtime serves another user alone, as that user's grant asks, and ends afterwards; \
         try again in a second, another one may serve you",
        Retry::After(RETRY_MS),
    )
}

fn in_use_by_others() -> Refusal {
    Refusal::new(
        "instance-in-use",
        "the grant asks for an instance of one's own, and other requests did not leave this one in time; \
         seal the request anew",
        Retry::Anew,
    )
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::MAX;
    const NOW: Duration = Duration::ZERO;

    fn user(number: u8) -> Principal {
        Principal::from_bytes([number; 32])
    }

    fn enter(tenancy: &Tenancy, name: u8, dedicated: bool) -> Result<Tenant<'_>, String> {
        tenancy
            .enter(user(name), dedicated, NOW)
            .map_err(|refusal| refusal.code)
    }

    #[test]
    fn without_a_claim_everybody_is_served_and_nobody_alone() {
        let tenancy = Tenancy::default();
        let (a, b) = (enter(&tenancy, 1, false), enter(&tenancy, 2, false));
        assert!(!a.unwrap().is_alone() && !b.unwrap().is_alone());
        assert!(!tenancy.is_claimed());
    }

    #[test]
    fn a_claim_keeps_all_others_out_for_good() {
        let tenancy = Tenancy::default();
        assert!(enter(&tenancy, 1, true).unwrap().is_alone());
        for dedicated in [false, true] {
            let refused = enter(&tenancy, 2, dedicated).err();
            assert_eq!(refused.as_deref(), Some("instance-taken"));
            assert!(enter(&tenancy, 1, dedicated).unwrap().is_alone());
        }
        assert!(tenancy.serves(user(1)) && !tenancy.serves(user(2)));
    }

    #[test]
    fn the_claimant_runs_when_those_inside_have_left() {
        let tenancy = Tenancy::default();
        let other = enter(&tenancy, 2, false).unwrap();
        let refused = enter(&tenancy, 1, true).err();
        assert_eq!(refused.as_deref(), Some("instance-in-use"));
        assert!(!tenancy.serves(user(2)), "nobody else comes in meanwhile");
        thread::scope(|scope| {
            let waits = scope.spawn(|| tenancy.enter(user(1), true, LONG).is_ok());
            drop(other);
            assert!(waits.join().unwrap());
        });
    }

    #[test]
    fn a_claim_waits_for_work_that_is_for_no_request_and_none_begins_after_it() {
        let tenancy = Tenancy::default();
        let work = tenancy.work().unwrap();
        assert!(enter(&tenancy, 2, false).is_ok(), "it is in nobody's way");
        let refused = enter(&tenancy, 1, true).err();
        assert_eq!(refused.as_deref(), Some("instance-in-use"));
        drop(work);
        assert!(tenancy.work().is_none());
        assert!(enter(&tenancy, 1, true).is_ok());
    }

    #[test]
    fn a_claim_ends_when_its_user_has_paused_though_work_goes_on() {
        let tenancy = Tenancy::default();
        let _work = tenancy.work().unwrap();
        let inside = enter(&tenancy, 2, false).unwrap();
        assert!(enter(&tenancy, 1, true).is_err());
        let is_idle = || lock(&tenancy.state).idle_for().is_some();
        assert!(!is_idle(), "another's request is inside");
        drop(inside);
        assert!(is_idle());
        tenancy.wait_over(NOW);
        assert!(!tenancy.serves(user(1)));
    }

    #[test]
    fn an_idle_claim_ends_and_an_open_process_or_a_busy_claim_does_not() {
        let tenancy = Tenancy::default();
        thread::scope(|scope| {
            let ended = scope.spawn(|| tenancy.wait_over(Duration::from_millis(5)));
            drop(enter(&tenancy, 2, false));
            thread::sleep(Duration::from_millis(20));
            assert!(!ended.is_finished());
            let inside = enter(&tenancy, 1, true).unwrap();
            thread::sleep(Duration::from_millis(20));
            assert!(!ended.is_finished());
            drop(inside);
            ended.join().unwrap();
        });
        assert_eq!(
            enter(&tenancy, 1, true).err().as_deref(),
            Some("instance-taken")
        );
    }
}
