use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The text messages a shop's manager was sent in a month.
///
/// Messages are known by their ids, so that one that is tried again is not counted again, and gets the answer
/// it got before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    granted: BTreeSet<String>,
    first_refused: Option<String>,
    /// The last that was granted, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<(String, Timestamp)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Granted,
    /// Another was sent just now.
    Wait(Timestamp),
    /// The first that is not sent this month, which is to be told.
    UsedUp,
    Refused,
}

impl Budget {
    /// Asks for one of so many a month, which go this far apart.
    pub fn ask(&mut self, message: &str, now: Timestamp, limit: u32, pace: SignedDuration) -> Answer {
        let known = self.granted.contains(message);
        if !known && self.granted.len() >= limit as usize {
            let first = self.first_refused.get_or_insert_with(|| message.to_owned());
            return if first == message { Answer::UsedUp } else { Answer::Refused };
        }
        if let Some((last, at)) = &self.last
            && last != message
            && (*at..*at + pace).contains(&now)
        {
            return Answer::Wait(*at + pace);
        }
        self.granted.insert(message.to_owned());
        self.last = Some((message.to_owned(), now));
        Answer::Granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: SignedDuration = SignedDuration::from_mins(1);

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).unwrap()
    }

    #[test]
    fn it_grants_so_many_a_month_and_tells_once_that_it_is_used_up() {
        let mut budget = Budget::default();
        let mut minute = 0;
        let mut answers = |messages: [&str; 5]| {
            messages.map(|message| {
                minute += 1;
                budget.ask(message, at(minute), 2, PACE)
            })
        };
        let given = [Answer::Granted, Answer::Granted, Answer::UsedUp, Answer::Refused, Answer::Refused];
        assert_eq!(answers(["a", "b", "c", "d", "e"]), given);
        // when each is tried again, in any order
        assert_eq!(answers(["b", "a", "c", "e", "d"]), given);
    }

    #[test]
    fn it_grants_one_a_minute() {
        let mut budget = Budget::default();
        let second = |n| Timestamp::from_second(n).unwrap();
        assert_eq!(budget.ask("a", second(100), 30, PACE), Answer::Granted);
        // The same again is one that was not sent.
        assert_eq!(budget.ask("a", second(101), 30, PACE), Answer::Granted);
        assert_eq!(budget.ask("b", second(160), 30, PACE), Answer::Wait(second(161)));
        assert_eq!(budget.ask("b", second(161), 30, PACE), Answer::Granted);
        // A clock that was ahead keeps nobody waiting.
        assert_eq!(budget.ask("c", second(50), 30, PACE), Answer::Granted);
    }

    #[test]
    fn one_of_before_there_was_a_pace_is_read() {
        let old = r#"{"granted":["wrong-key 2026-11-22T12:00:00Z Opened Manager"],"first_refused":null}"#;
        let mut budget: Budget = serde_json::from_str(old).unwrap();
        assert_eq!(budget.ask("a", at(1), 2, PACE), Answer::Granted);
        assert_eq!(budget.ask("b", at(2), 2, PACE), Answer::UsedUp);
    }
}
