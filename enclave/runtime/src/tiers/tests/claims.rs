//! Second tiers in a process that one user claims.

use super::*;

#[test]
fn no_second_tier_is_opened_in_a_process_that_serves_one_user_alone() {
    let by_hand = ByHand::new(64 * MIB);
    let play = &by_hand.play;
    assert_eq!(play.call(), FIRST);
    let user = play.stage.cast.user.principal();
    let claimed = play.runtime.tenancy.enter(user, true, Duration::ZERO);
    assert!(by_hand.open());
    drop(claimed.unwrap());
    assert_eq!((play.counted(), play.used()), ((0, 0), MIB));
    assert_eq!(play.second.now().loads, 0);
}

#[test]
fn a_claim_waits_for_the_second_tier_that_is_being_opened_and_finds_nothing_of_it() {
    let play = Play::new(64 * MIB);
    play.second.change(|acts| acts.held = true);
    assert_eq!(play.call(), FIRST);
    play.second.wait(|acts| acts.loads == 1);
    let (tenancy, user) = (&play.runtime.tenancy, play.stage.cast.user.principal());
    let early = tenancy.enter(user, true, Duration::ZERO).err().unwrap();
    assert_eq!(early.code, "instance-in-use");
    let found = thread::scope(|scope| {
        let claims = scope.spawn(|| {
            let alone = tenancy.enter(user, true, Duration::MAX);
            (play.second.now(), play.used(), alone.is_ok())
        });
        play.second.change(|acts| acts.held = false);
        claims.join().unwrap()
    });
    let (acts, used, alone) = found;
    // Its golden pairs did not run either.
    assert_eq!((acts.alive, acts.runs), (0, 0));
    assert_eq!((used, alone), (MIB, true));
    assert_eq!(play.counted(), (0, 0));
}
