//! Letters on their way: lost, late, out of order, twice, or cut off by a partition.

use bield_group::{MemberId, Slot};

use crate::random::Random;

pub(crate) struct Letter {
    pub(crate) from: MemberId,
    pub(crate) to: MemberId,
    pub(crate) bytes: Vec<u8>,
    due: u64,
}

pub(crate) struct Network {
    letters: Vec<Letter>,
    /// The side each place is on; places on different sides do not hear each other.
    sides: Vec<u8>,
    lose_once_in: usize,
    twice_once_in: usize,
    late_max: usize,
}

impl Network {
    pub(crate) fn new(places: usize, random: &mut Random) -> Self {
        Self {
            letters: Vec::new(),
            sides: vec![0; places],
            lose_once_in: [0, 50, 20, 8][random.below(4)],
            twice_once_in: [0, 30, 10][random.below(3)],
            late_max: [1, 4, 12][random.below(3)],
        }
    }

    pub(crate) fn send(
        &mut self,
        letter: (MemberId, MemberId, Vec<u8>),
        now: u64,
        random: &mut Random,
    ) {
        let (from, to, bytes) = letter;
        if random.once_in(self.lose_once_in) {
            return;
        }
        let copies = 1 + usize::from(random.once_in(self.twice_once_in));
        for _ in 0..copies {
            let late = 1 + random.below(self.late_max) as u64;
            let bytes = bytes.clone();
            let due = now + late;
            self.letters.push(Letter {
                from,
                to,
                bytes,
                due,
            });
        }
    }

    /// A letter that arrives now, any of those that do.
    pub(crate) fn arrive(&mut self, now: u64, random: &mut Random) -> Option<Letter> {
        let due: Vec<usize> = (0..self.letters.len())
            .filter(|i| self.letters[*i].due <= now)
            .collect();
        if due.is_empty() {
            return None;
        }
        Some(self.letters.swap_remove(due[random.below(due.len())]))
    }

    pub(crate) fn connects(&self, one: Slot, other: Slot) -> bool {
        self.sides[usize::from(one)] == self.sides[usize::from(other)]
    }

    /// Cuts the places into two sides.
    pub(crate) fn cut(&mut self, random: &mut Random) {
        for side in &mut self.sides {
            *side = random.below(2) as u8;
        }
    }

    pub(crate) fn heal(&mut self) {
        self.sides.fill(0);
    }

    pub(crate) const fn be_kind(&mut self) {
        self.lose_once_in = 0;
        self.late_max = 1;
    }
}
