use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The text messages a shop's manager was sent in a month.
///
/// Messages are known by their ids, so that one that is tried again is not counted again, and gets the answer
/// it got before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    granted: BTreeSet<String>,
    first_refused: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Granted,
    /// The first that is not sent this month, which is to be told.
    UsedUp,
    Refused,
}

impl Budget {
    pub fn ask(&mut self, message: &str, limit: u32) -> Answer {
        if self.granted.contains(message) {
            return Answer::Granted;
        }
        if self.granted.len() < limit as usize {
            self.granted.insert(message.to_owned());
            return Answer::Granted;
        }
        let first = self.first_refused.get_or_insert_with(|| message.to_owned());
        if first == message { Answer::UsedUp } else { Answer::Refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grants_so_many_a_month_and_tells_once_that_it_is_used_up() {
        let mut budget = Budget::default();
        let mut answers = |messages: [&str; 5]| messages.map(|message| budget.ask(message, 2));
        let given = [Answer::Granted, Answer::Granted, Answer::UsedUp, Answer::Refused, Answer::Refused];
        assert_eq!(answers(["a", "b", "c", "d", "e"]), given);
        // when each is tried again, in any order
        assert_eq!(answers(["b", "a", "c", "e", "d"]), given);
    }
}
