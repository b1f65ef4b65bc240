//! What was injected how often, and what came of it.

use std::collections::BTreeMap;
use std::fmt;

use super::books::Ends;

#[derive(Default)]
pub struct Tally(BTreeMap<String, u64>);

impl Tally {
    pub fn count(&mut self, what: &str, times: u64) {
        *self.0.entry(what.to_owned()).or_default() += times;
    }

    /// How many sales there were, of tills and of strangers, and what became of them.
    pub fn came_of(&mut self, rung_up: u64, answered: usize, ends: Ends) {
        self.count("sales rung up by tills", rung_up);
        self.count("strangers' sales answered yes", answered as u64);
        self.count("sales recorded", ends.recorded);
        self.count("sales rejected", ends.rejected);
    }

    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, times)| writeln!(f, "{times:>9}  {what}"))
    }
}
