//! What second tiers may hold: no memory and no keys before their turn, no more memory than is counted, no turn for ever.

use super::*;
use crate::models::Loaded;
use crate::testing::package;

impl Play {
    /// Loads an idle model of so many bytes.
    fn fill(&self, name: u8, bytes: u64) {
        let models = &self.runtime.models;
        let loaded = || {
            let model = Rten::new(1).load(bield_fixtures::tiny_model(), ModelFormat::Onnx);
            Ok(Loaded {
                model: Opened::new(model.unwrap(), 0),
                bytes,
                space: models.reserve(bytes, bytes, Duration::ZERO)?,
                took: Duration::ZERO,
            })
        };
        drop(models.get(package(name), Duration::ZERO, loaded).unwrap());
    }

    fn holds(&self, name: u8) -> bool {
        self.runtime.models.resident(package(name)).is_some()
    }
}

#[test]
fn a_second_tier_that_waits_holds_neither_memory_nor_keys() {
    let by_hand = ByHand::new(64 * MIB);
    let play = &by_hand.play;
    assert_eq!(play.call(), FIRST);
    assert_eq!(play.used(), MIB);
    let keys = play.runtime.leases.cached(play.stage.package).unwrap();
    assert_eq!(Arc::strong_count(&keys), 2, "the cache's and this one");
    // Whoever lets the models go has all of the memory at once.
    play.runtime.models.forget_all();
    assert_eq!(play.used(), 0);
    assert!(by_hand.open());
    assert_eq!(play.counted(), (0, 0));
    assert_eq!(play.second.now().loads, 0);
}

#[test]
fn a_second_tier_without_room_is_opened_at_a_later_use() {
    let by_hand = ByHand::new(8 * MIB);
    let play = &by_hand.play;
    assert_eq!(play.call(), FIRST);
    let taken = play.runtime.models.reserve_free(4 * MIB).unwrap();
    assert!(by_hand.open());
    assert_eq!((play.counted(), play.used()), ((0, 0), 5 * MIB));
    assert!(!by_hand.open(), "it does not wait for room");
    assert_eq!(play.call(), FIRST);
    drop(taken);
    assert!(by_hand.open());
    assert_eq!((play.counted(), play.used()), ((1, 0), 4 * MIB));
    assert_eq!(play.call(), SECOND);
    assert!(!by_hand.open(), "nothing better is to come");
}

#[test]
fn room_for_a_second_tier_is_made_by_idle_models_but_never_by_its_own_first() {
    let by_hand = ByHand::new(8 * MIB);
    let play = &by_hand.play;
    assert_eq!(play.call(), FIRST);
    play.fill(9, 3 * MIB);
    assert!(by_hand.open());
    assert!(!play.holds(9));
    assert_eq!((play.call().as_str(), play.used()), (SECOND, 4 * MIB));

    // Without its first, there would be room.
    let by_hand = ByHand::new(6 * MIB);
    let play = &by_hand.play;
    assert_eq!(play.call(), FIRST);
    let taken = play.runtime.models.reserve_free(MIB).unwrap();
    assert!(by_hand.open());
    assert!(play.runtime.models.resident(play.stage.package).is_some());
    drop(taken);
    assert_eq!((play.call().as_str(), play.used()), (FIRST, MIB));
    assert_eq!(play.first.now().loads, 1);
}

#[test]
fn a_second_tier_that_finds_the_queue_full_waits_at_a_later_use() {
    let mut by_hand = ByHand::new(64 * MIB);
    let roomy = by_hand.play.runtime.tiers.take();
    // Holds nothing.
    let (due, _full) = sync_channel(0);
    let models = Arc::clone(&by_hand.opener.models);
    by_hand.play.runtime.tiers = Some(Tiers { due, models });
    assert_eq!(by_hand.play.call(), FIRST);
    by_hand.play.runtime.tiers = roomy;
    assert!(!by_hand.open());
    assert_eq!(by_hand.play.call(), FIRST);
    assert!(by_hand.open());
    assert_eq!(by_hand.play.call(), SECOND);
}

#[test]
fn a_second_tier_whose_keys_were_renewed_is_opened_with_the_newer_at_a_later_use() {
    let by_hand = ByHand::new(64 * MIB);
    let play = &by_hand.play;
    assert_eq!(play.call(), FIRST);
    play.runtime.leases.fetch_anew(play.stage.package).unwrap();
    assert!(by_hand.open());
    assert_eq!(play.call(), FIRST);
    assert!(by_hand.open());
    assert_eq!((play.call().as_str(), play.counted()), (SECOND, (1, 0)));
}

#[test]
fn a_second_tier_that_takes_too_long_is_given_up_and_the_first_goes_on() {
    let mut by_hand = ByHand::new(64 * MIB);
    by_hand.opener.patience = Patience {
        wait: Duration::ZERO,
        bytes_per_second: u64::MAX,
    };
    let play = &by_hand.play;
    assert_eq!(play.call(), FIRST);
    assert!(by_hand.open());
    assert_eq!((play.counted(), play.used()), ((0, 1), MIB));
    assert_eq!(play.call(), FIRST);
    assert!(!by_hand.open(), "not at each use");
}

#[test]
fn a_second_tier_is_counted_with_what_was_computed_while_it_was_loaded() {
    let by_hand = ByHand::new(12 * MIB);
    let play = &by_hand.play;
    play.second.change(|acts| acts.resident = 11 * MIB);
    assert_eq!(play.call(), FIRST);
    assert!(by_hand.open());
    assert_eq!(play.call(), SECOND);
    assert_eq!(play.used(), 11 * MIB);

    let by_hand = ByHand::new(12 * MIB);
    let play = &by_hand.play;
    play.second.change(|acts| acts.resident = 12 * MIB);
    assert_eq!(play.call(), FIRST);
    assert!(by_hand.open());
    assert_eq!((play.counted(), play.used()), ((0, 1), MIB));
    assert_eq!(play.second.now().copies(), (1, 0));
    assert_eq!(play.call(), FIRST);
}

#[test]
fn a_first_tier_that_takes_too_much_gives_way_to_the_better_engine() {
    let play = Play::new(12 * MIB);
    play.first.change(|acts| acts.resident = 12 * MIB);
    assert_eq!(play.call(), SECOND);
    assert_eq!(play.used(), 4 * MIB);
    assert_eq!(play.first.now().copies(), (1, 0));
}

#[test]
fn a_first_engine_that_failed_is_not_tried_at_the_next_load() {
    for failure in [Failure::Load, Failure::Answers] {
        let play = Play::new(64 * MIB);
        play.first.change(|acts| acts.fails = Some(failure));
        assert_eq!(play.call(), SECOND);
        play.runtime.models.forget_all();
        assert_eq!(play.call(), SECOND);
        assert_eq!(play.first.now().copies(), (1, 0));
        assert_eq!(play.second.now().loads, 2);
    }
}
