//! The health of one peer as checks see it: so many failed checks in a row make it ill, so many passed ones well.
//!
//! ```text
//!              passes          fails
//!   Unchecked --------> Up ----------> Down
//!       |               ^               |
//!       |               +---- passes ---+
//!       +------------- fails ---------->+
//! ```

/// How many checks in a row it takes (`health_check fails= passes=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthLimits {
    /// Failed ones, before it is ill.
    pub fails: u32,
    /// Passed ones, before it is well again.
    pub passes: u32,
}

impl Default for HealthLimits {
    fn default() -> Self {
        HealthLimits { fails: 1, passes: 1 }
    }
}

/// What is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HealthState {
    /// No check came to an end yet.
    #[default]
    Unchecked,
    /// Well.
    Up,
    /// Ill.
    Down,
}

/// The state with the run of equal results that may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Health {
    state: HealthState,
    passed: u32,
    failed: u32,
}

impl Health {
    /// Nothing known yet.
    pub fn new() -> Health {
        Health::default()
    }

    /// What is known.
    pub fn state(self) -> HealthState {
        self.state
    }

    /// Takes note of a check; the new state where that changed it.
    pub fn report(&mut self, passed: bool, limits: HealthLimits) -> Option<HealthState> {
        let next = if passed {
            self.failed = 0;
            self.passed = self.passed.saturating_add(1);
            // The first check of all is enough for a beginning.
            let enough = if self.state == HealthState::Unchecked { 1 } else { limits.passes };
            (self.passed >= enough).then_some(HealthState::Up)
        } else {
            self.passed = 0;
            self.failed = self.failed.saturating_add(1);
            (self.failed >= limits.fails).then_some(HealthState::Down)
        }?;
        let changed = next != self.state;
        self.state = next;
        changed.then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fails: u32, passes: u32, results: &str, expected: &str) {
        let mut health = Health::new();
        let states: String = results
            .chars()
            .map(|result| {
                health.report(result == '+', HealthLimits { fails, passes });
                match health.state() {
                    HealthState::Unchecked => '?',
                    HealthState::Up => 'u',
                    HealthState::Down => 'd',
                }
            })
            .collect();
        assert_eq!(states, expected);
    }

    #[test]
    fn runs_of_checks_change_the_state() {
        check(1, 1, "+-+-", "udud");
        check(3, 2, "+--+---++", "uuuuuuddu");
        check(2, 2, "--+-++", "?ddddu");
        check(2, 2, "-+--", "?uud");
    }

    #[test]
    fn only_a_change_is_told() {
        let mut health = Health::new();
        let limits = HealthLimits::default();
        assert_eq!(health.report(true, limits), Some(HealthState::Up));
        assert_eq!(health.report(true, limits), None);
        assert_eq!(health.report(false, limits), Some(HealthState::Down));
        assert_eq!(health.report(false, limits), None);
    }
}
