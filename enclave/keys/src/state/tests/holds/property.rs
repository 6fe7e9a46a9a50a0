//! Random acts of a few runtimes on one state: whatever they say, it has one holder and no head goes back.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Hold(u8),
    Wait(u64),
    /// By this writer, under its own token or an older one: this far from what is anchored of this writer; covers
    /// that one; and lets go.
    Anchor {
        by: u8,
        older: u64,
        of: u8,
        moves: i8,
        covers: Option<u8>,
        lets_go: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let who = 1..4u8;
    prop_oneof![
        3 => who.clone().prop_map(Step::Hold),
        2 => (0..2 * STATE_HOLD_SECS).prop_map(Step::Wait),
        6 => (
            who.clone(),
            prop_oneof![4 => Just(0), 1 => 1..3u64],
            who.clone(),
            -2..6i8,
            prop::option::weighted(0.2, who),
            prop::bool::weighted(0.1)
        )
            .prop_map(|(by, older, of, moves, covers, lets_go)| Step::Anchor {
                by,
                older,
                of,
                moves,
                covers,
                lets_go
            }),
    ]
}

/// What a person would write down.
#[derive(Default)]
struct Model {
    /// Who holds, or held last, and until when.
    holder: Option<(u8, bield_envelope::Time)>,
    token: u64,
    tokens: BTreeMap<u8, u64>,
    anchored: BTreeMap<u8, u64>,
}

impl Model {
    fn heads(&self) -> Vec<Head> {
        let heads = self.anchored.iter();
        heads.map(|(by, seq)| head(*by, *seq)).collect()
    }

    fn step(&mut self, stage: &mut Stage, step: &Step) {
        let now = stage.scene.now;
        match *step {
            Step::Wait(seconds) => stage.wait(Duration::from_secs(seconds)),
            Step::Hold(by) => {
                let held = stage.hold(by);
                match self.holder {
                    Some((holder, until)) if holder != by && now < until => {
                        assert_eq!(held, Err("state-held".into()));
                        return;
                    }
                    Some((holder, _)) if holder == by => {}
                    _ => self.token += 1,
                }
                self.tokens.insert(by, self.token);
                self.holder = Some((by, now.plus(HOLD)));
                let held = held.unwrap();
                assert_eq!((held.token, held.heads), (self.token, self.heads()));
            }
            Step::Anchor {
                by,
                older,
                of,
                moves,
                covers,
                lets_go,
            } => {
                let token = self.tokens.get(&by).copied().unwrap_or_default();
                let token = token.saturating_sub(older);
                let kept = self.anchored.get(&of).copied();
                let seq = kept.unwrap_or(5).saturating_add_signed(i64::from(moves));
                let covered: Vec<u8> = covers.into_iter().collect();
                let anchors = anchors(token, &[head(of, seq)], &covered);
                let said = stage.act(
                    by,
                    if lets_go {
                        StateAct::Release(anchors)
                    } else {
                        StateAct::Anchor(anchors)
                    },
                );
                let holds = matches!(self.holder, Some((holder, _)) if holder == by);
                let own = of == by || self.anchored.contains_key(&by);
                let refused = if !holds || token != self.token {
                    "state-taken"
                } else if covers == Some(of) {
                    "malformed"
                } else if kept.is_some_and(|kept| seq < kept) {
                    "state-behind"
                } else if covers.is_some_and(|covers| covers == by || !own) {
                    "malformed"
                } else {
                    self.anchored.insert(of, seq);
                    covers.map(|covers| self.anchored.remove(&covers));
                    let until = if lets_go { now } else { now.plus(HOLD) };
                    self.holder = Some((by, until));
                    let held = said.unwrap();
                    assert_eq!((held.until, held.heads), (until, self.heads()));
                    return;
                };
                assert_eq!(said, Err(refused.into()));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The scene replays its log and reads its snapshot when it ends.
    #[test]
    fn whatever_runtimes_say_one_holds_and_no_head_goes_back(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let mut stage = Stage::new();
        let mut model = Model::default();
        for step in &steps {
            model.step(&mut stage, step);
        }
    }
}
