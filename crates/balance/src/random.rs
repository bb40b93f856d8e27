//! The methods that leave it to chance: `random`, and `random two`, which takes the less busy of two.

use crate::attempt::Attempt;
use crate::hash::{Found, by_weight};

impl Attempt {
    fn draw(&self, random: &mut dyn FnMut() -> u32) -> usize {
        by_weight(self.group().peers(), u64::from(random()) % self.group().total_weight)
    }

    /// `random`: by weight.
    pub(crate) fn by_chance(&mut self, now_ms: u64, random: &mut dyn FnMut() -> u32) -> Found {
        if self.group().primary_count() < 2 {
            return Found::NotAsked;
        }
        loop {
            let index = self.draw(random);
            if self.is_candidate(index, now_ms) {
                return Found::Peer(index);
            }
            if !self.missed() {
                return Found::NotAsked;
            }
        }
    }

    /// `random two least_conn`: of two different ones by weight, the one with less active requests for its weight.
    pub(crate) fn by_two_chances(&mut self, now_ms: u64, random: &mut dyn FnMut() -> u32) -> Found {
        if self.group().primary_count() < 2 {
            return Found::NotAsked;
        }
        let mut first: Option<usize> = None;
        loop {
            let index = self.draw(random);
            if first != Some(index) && self.is_candidate(index, now_ms) {
                let Some(first) = first.replace(index) else { continue };
                return Found::Peer(if self.busier(index, first) { first } else { index });
            }
            if !self.missed() {
                return Found::NotAsked;
            }
        }
    }

    fn busier(&self, left: usize, right: usize) -> bool {
        let group = self.group();
        let load = |index: usize| u64::from(group.states()[index].active());
        let weight = |index: usize| u64::from(group.peers()[index].weight);
        load(left) * weight(right) > load(right) * weight(left)
    }
}
