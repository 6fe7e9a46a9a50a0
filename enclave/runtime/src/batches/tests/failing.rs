//! Joint runs that fail: whom that holds up, and what is remembered of whom.

use std::sync::mpsc::channel;

use super::*;

#[test]
fn whose_request_failed_alone_runs_with_no_other_user_any_more() {
    let play = Play::proven(Does::Refuses);
    let answers = play.all(&[(1, &[1.0]), (2, &[POISON])]);
    assert!(answers[0].is_ok() && answers[1].is_err());
    assert_eq!(play.model.rows(), [2, 1, 1]);
    for _ in 0..2 {
        play.all(&[(1, &[1.0]), (2, &[2.0]), (3, &[3.0]), (2, &[4.0])]);
        let mut runs = play.model.runs();
        play.model.rows();
        runs.sort_by(|one, other| one[0].total_cmp(&other[0]));
        assert_eq!(runs, [[1.0, 3.0], [2.0, 4.0]]);
    }
}

#[test]
fn a_rider_is_answered_before_the_single_runs_behind_its_own() {
    let play = Play::proven(Does::Waits);
    let (tell, word) = channel();
    *lock(&play.model.word) = Some(word);
    let held = play.turns.take(user(99), LONG).unwrap();
    thread::scope(|scope| {
        let play = &play;
        let mut runs = Vec::new();
        for (at, row) in [[1.0], [2.0], [HELD]].into_iter().enumerate() {
            runs.push(scope.spawn(move || play.run(at as u8, &row, LONG, &|| false)));
            play.until_waiting(at + 1);
        }
        drop(held);
        let mut runs = runs.into_iter();
        let (leads, rides, behind) = (runs.next(), runs.next(), runs.next());
        assert_eq!(rides.unwrap().join().unwrap(), Ok(twice(&[2.0])));
        tell.send(()).unwrap();
        assert_eq!(behind.unwrap().join().unwrap(), Ok(twice(&[HELD])));
        assert_eq!(leads.unwrap().join().unwrap(), Ok(twice(&[1.0])));
    });
    assert_eq!(play.model.rows(), [3, 1, 1, 1]);
    assert!(play.is_left_clean());
}
