//! Members in one process: real sessions with software evidence over socket pairs, real threads, disks
//! that outlive the members on them.

mod cast;
mod disk;

use std::sync::atomic::Ordering;

use cast::{Cast, OTHER_CODE, refused};

use super::message::{Answer, Message};
use super::{Agreement, NotCommitted, Role, Stopped, Unconfirmed};

#[test]
fn members_agree_and_only_the_leader_takes_records() {
    let cast = Cast::new();
    cast.start_all();
    for _ in 0..20 {
        cast.commit_one();
    }
    let leader = cast.leader();
    for slot in (0..3).filter(|slot| *slot != leader.slot) {
        let follower = cast.node(slot);
        let record = cast.records.next();
        let outcome = follower.cluster().commit(&record);
        assert_eq!(outcome, Err(NotCommitted::NotLeader));
        let role = follower.cluster().role();
        let leader = Some(leader.slot);
        assert!(
            role == Role::Follower { leader } || role == Role::Follower { leader: None },
            "{role:?}"
        );
    }
    cast.all_have_everything();
}

#[test]
fn a_record_counts_once_however_often_it_is_committed() {
    let cast = Cast::new();
    cast.start_all();
    let record = cast.commit_one();
    assert_eq!(cast.leader().cluster().commit(&record), Ok(()));
    cast.commit_one();
    cast.all_have_everything();
}

#[test]
fn the_leader_dies_under_load_and_nothing_acknowledged_is_lost() {
    let cast = Cast::new();
    cast.start_all();
    cast.commit_one();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                cast.commit_one();
            }
        });
        for _ in 0..2 {
            let before = cast.acknowledged();
            cast.wait("records", || cast.acknowledged() > before + 20);
            let leader = cast.leader();
            leader.kill();
            // The two others go on without it.
            let before = cast.acknowledged();
            cast.wait("records of the next leader", || {
                cast.acknowledged() > before + 20
            });
            cast.start(leader.slot);
            cast.wait("the restarted member to have a vote", || cast.all_follow());
        }
        done.store(true, Ordering::SeqCst);
    });
    cast.all_have_everything();
}

#[test]
fn all_die_and_form_a_group_from_the_greatest_of_their_disks() {
    let cast = Cast::new();
    cast.start_all();
    for _ in 0..10 {
        cast.commit_one();
    }
    let old = cast.disks[0].snapshot();
    for _ in 0..10 {
        cast.commit_one();
    }
    for round in 0..2 {
        for slot in 0..3 {
            cast.node(slot).kill();
        }
        if round == 1 {
            // One host sets its disk back; the others have everything.
            cast.disks[0].restore(old.clone());
        }
        cast.start_all();
        cast.commit_one();
    }
    cast.all_have_everything();
}

#[test]
fn an_empty_disk_takes_part_again_in_a_live_group() {
    let cast = Cast::new();
    cast.start_all();
    for _ in 0..5 {
        cast.commit_one();
    }
    let leader = cast.leader();
    let slot = (leader.slot + 1) % 3;
    cast.node(slot).kill();
    cast.disks[usize::from(slot)].wipe();
    cast.start(slot);
    cast.commit_one();
    cast.wait("the emptied member", || cast.all_follow());
    cast.all_have_everything();
}

#[test]
fn two_of_three_form_no_group_by_themselves() {
    let cast = Cast::new();
    cast.start(0);
    cast.start(1);
    cast.wait("the two to reach each other", || {
        cast.node(0).attended() > 0 && cast.node(1).attended() > 0
    });
    // A dozen looks: three can form a group within two.
    let later = std::time::Instant::now() + cast::LOOK * 12;
    cast.wait("them to look", || std::time::Instant::now() > later);
    assert_eq!(cast.node(0).cluster().role(), Role::Forming);
    assert_eq!(cast.node(1).cluster().role(), Role::Forming);
    cast.start(2);
    cast.commit_one();
    cast.all_have_everything();
}

#[test]
fn storage_that_fails_for_a_while_delays_and_loses_nothing() {
    let cast = Cast::new();
    cast.start_all();
    cast.commit_one();
    for disk in &cast.disks {
        disk.fail_next(3);
    }
    cast.commit_one();
    cast.commit_one();
    cast.all_have_everything();
}

#[test]
fn a_disk_of_another_service_stops_the_group_and_is_left_as_it_is() {
    let cast = Cast::new();
    cast.start_all();
    cast.commit_one();
    cast.all_have_everything();
    let foreign = Cast::new();
    foreign.start_all();
    foreign.commit_one();
    foreign.all_have_everything();
    for slot in 0..3 {
        foreign.node(slot).kill();
    }
    cast.node(2).kill();
    let other = foreign.disks[2].snapshot();
    cast.disks[2].restore(other.clone());
    cast.start_once(2);
    cast.wait("the member with the foreign disk to stop", || {
        matches!(cast.node(2).cluster().stopped(), Some(Stopped::Refused(_)))
    });
    assert!(
        cast.disks[2].snapshot() == other,
        "the foreign disk is untouched"
    );
    cast.commit_one();
}

#[test]
fn a_log_of_other_code_gives_way_to_a_group_and_never_to_a_new_service() {
    let cast = Cast::new();
    cast.start_all();
    cast.commit_one();
    cast.node(2).kill();
    cast.disks[2].seal();
    cast.start(2);
    cast.wait("the member over the old log", || cast.all_follow());
    cast.all_have_everything();

    // All were stopped and other code starts everywhere, on one new disk.
    (0..3).for_each(|slot| cast.node(slot).kill());
    cast.disks[0].wipe();
    cast.disks[1].seal();
    cast.disks[2].seal();
    let old = [1, 2].map(|slot: usize| cast.disks[slot].snapshot());
    (0..3).for_each(|slot| cast.start_unsupervised(slot));
    cast.wait("the first to give up", || {
        matches!(
            cast.node(0).cluster().stopped(),
            Some(Stopped::NotFormed(_))
        )
    });
    // On three such disks it is said what is the matter.
    (0..3).for_each(|slot| cast.node(slot).kill());
    cast.disks[0].seal();
    (0..3).for_each(|slot| cast.start_unsupervised(slot));
    cast.wait("the first to say why", || {
        matches!(cast.node(0).cluster().stopped(), Some(Stopped::Refused(why)) if why.contains("cannot open"))
    });
    assert!(old == [1, 2].map(|slot: usize| cast.disks[slot].snapshot()));
}

#[test]
fn foreign_code_is_left_before_it_is_told_anything() {
    let cast = Cast::new();
    cast.start_all();
    cast.commit_one();
    // It dials a member: its evidence is genuine, its code is another.
    let mut session = cast.dial_as(OTHER_CODE, 0).unwrap();
    let hello = Message::Hello(cast.node(1).hello());
    let told = session
        .send(&hello.encode())
        .and_then(|()| session.receive().map(drop));
    assert!(told.is_err(), "a foreign dialler was answered");
    // A member dials it, in the place of the third.
    cast.node(2).kill();
    let heard = cast.impersonate(2, OTHER_CODE);
    assert_eq!(heard, None, "a member spoke to foreign code");
    cast.wait("its operator to be told", || {
        let apart = cast.world.apart.lock().unwrap();
        apart
            .iter()
            .any(|((_, of), why)| *of == 2 && why.contains("nor admitted"))
    });
    // The same code in the same place is spoken to: the test can tell.
    let heard = cast.impersonate(2, cast::CODE);
    assert!(heard.is_some(), "a member said nothing to one of its own");
}

#[test]
fn the_same_code_on_another_machine_takes_no_slot() {
    let cast = Cast::new();
    let [own, other] = cast::machines();
    *cast.world.named.lock().unwrap() = Some(own.id());
    cast.start_all();
    cast.commit_one();
    // Anybody with an accepted TEE can run this code as `--member 1`.
    let mut session = cast.dial_from(other, cast::CODE, 0).unwrap();
    let hello = Message::Hello(cast.hello_of(1));
    let told = session
        .send(&hello.encode())
        .and_then(|()| session.receive().map(drop));
    assert!(told.is_err(), "a process on another machine was answered");
    cast.node(2).kill();
    let heard = cast.impersonate_on(other, 2, cast::CODE);
    assert_eq!(heard, None, "a member spoke to another machine");
    // The test can tell: on its machine it is spoken to, both ways.
    assert!(cast.impersonate(2, cast::CODE).is_some());
    let mut session = cast.dial_as(cast::CODE, 0).unwrap();
    session.send(&hello.encode()).unwrap();
    assert!(session.receive().is_ok());
}

#[test]
fn withdrawn_code_is_left_in_the_middle_of_its_session() {
    let cast = Cast::new();
    cast.world.admits_other.store(true, Ordering::SeqCst);
    cast.start_all();
    cast.commit_one();
    let mut session = cast.dial_as(OTHER_CODE, 0).unwrap();
    let mut ask = |message: Message| {
        session.send(&message.encode())?;
        session
            .receive()
            .map(|bytes| Answer::decode(&bytes).unwrap())
    };
    let hello = ask(Message::Hello(cast.hello_of(1)));
    assert!(matches!(hello, Ok(Answer::Hello(_))), "{hello:?}");
    assert_eq!(ask(Message::Knock([9; 16])).unwrap(), Answer::No);
    cast.world.admits_other.store(false, Ordering::SeqCst);
    assert!(ask(Message::Knock([9; 16])).is_err(), "it is still served");
}

#[test]
fn with_witnesses_no_group_begins_from_a_head_that_they_do_not_confirm() {
    let cast = Cast::new();
    cast.start_all();
    cast.commit_one();
    cast.all_have_everything();
    (0..3).for_each(|slot| cast.node(slot).kill());
    let say = |said| *cast.world.witnesses.lock().unwrap() = Some(said);
    say(Err(Unconfirmed::Unknown("they are away".into())));
    cast.start_all();
    let later = std::time::Instant::now() + cast::LOOK * 12;
    cast.wait("them to look", || std::time::Instant::now() > later);
    for slot in 0..3 {
        assert_eq!(cast.node(slot).cluster().role(), Role::Forming);
    }
    say(Ok(()));
    cast.commit_one();
    cast.all_have_everything();
    // All are there, and witnesses saw more than the best of them has.
    (0..3).for_each(|slot| cast.node(slot).kill());
    say(Err(Unconfirmed::SetBack("rolled back".into())));
    (0..3).for_each(|slot| cast.start_unsupervised(slot));
    let refused = |slot| match cast.node(slot).cluster().stopped() {
        Some(Stopped::Refused(why)) => why == "rolled back",
        _ => false,
    };
    cast.wait("one to say so", || (0..3).any(refused));
}

#[test]
fn a_leader_whose_clock_is_far_ahead_ends_and_its_record_counts_nowhere() {
    let cast = Cast::new();
    cast.start_all();
    cast.commit_one();
    let late = cast::Records::new().next_at(cast::LATER);
    // Whoever leads may change before it is asked.
    let refused = loop {
        match cast.leader().cluster().commit(&late) {
            Err(NotCommitted::Stopped(Stopped::Refused(why))) => break why,
            outcome => assert_ne!(outcome, Ok(()), "it counts"),
        }
    };
    assert!(refused.contains("clock"), "{refused}");
    // The others go on with the time that they have.
    cast.commit_one();
    cast.all_have_everything();
    assert!(!cast.sequence().contains(&late.hash()));
}

#[test]
fn who_says_it_is_another_member_is_left() {
    let cast = Cast::new();
    cast.start(0);
    let own_slot = cast.node(0).hello();
    let mut session = cast.dial_as(cast::CODE, 0).unwrap();
    session.send(&Message::Hello(own_slot).encode()).unwrap();
    let answer = session.receive();
    assert!(
        answer.is_err(),
        "a second process of one's own slot was answered"
    );
}

#[test]
fn questions_that_do_not_fit_are_answered_no() {
    let cast = Cast::new();
    cast.start_all();
    cast.commit_one();
    let leader = cast.leader();
    let stranger = (leader.slot + 1) % 3;
    let mut session = cast.dial_as(cast::CODE, leader.slot).unwrap();
    let mut ask = |message: Message| {
        session.send(&message.encode()).unwrap();
        Answer::decode(&session.receive().unwrap()).unwrap()
    };
    let hello = ask(Message::Hello(cast.hello_of(stranger)));
    assert!(matches!(hello, Answer::Hello(_)));
    // The place is held by a live process: nobody else is given the state.
    assert_eq!(ask(Message::Join(None)), Answer::No);
    assert_eq!(ask(Message::Knock([9; 16])), Answer::No);
    assert_eq!(ask(Message::Start([9; 16])), Answer::No);
}

#[test]
fn slots_beyond_the_group_are_refused_at_the_start() {
    assert!(refused(3, 3));
    assert!(refused(0, 2));
    assert!(refused(0, 4));
    assert!(!refused(4, 5));
}
