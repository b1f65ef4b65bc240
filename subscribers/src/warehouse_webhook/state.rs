use jiff::{SignedDuration, Timestamp};
use kassa_bus::Documents;
use kassa_bus::table::TableError;
use serde::{Deserialize, Serialize};

use super::answer::{Down, LONGEST_WAIT};

/// How it goes with the warehouse: the one document all functions go by, and what `kassa webhook` shows.
///
/// It is written when something changes, and once a minute while all is well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookState {
    /// The circuit is open: one function a minute probes, everybody else waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<Failing>,
    /// The warehouse answered 410: nothing is sent until somebody resumes, or it gets another URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_delivered_at: Option<Timestamp>,
    /// Sales delivered, repeats included. A function that is killed takes its last minute's with it.
    #[serde(default)]
    pub delivered: u64,
    /// What people are to be told, and have not been yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untold: Option<News>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    pub since: Timestamp,
    /// The status or the kind of failure.
    pub why: String,
    pub not_before: Timestamp,
    /// Whether it has failed for so long that people were to be told.
    pub told: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    pub since: Timestamp,
    pub url: String,
}

/// What is worth telling people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "kebab-case")]
pub enum News {
    Silent { since: Timestamp, why: String },
    Back { since: Timestamp, at: Timestamp },
    Gone { at: Timestamp },
}

/// Whether anything may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Open,
    /// One attempt, to see whether it is over.
    Probe,
    Wait {
        until: Option<Timestamp>,
    },
}

/// What came of the deliveries of one batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Sales taken.
    pub delivered: u64,
    /// Whether the warehouse dealt with any delivery, if only to refuse it.
    pub answered: bool,
    pub end: Option<End>,
}

/// Why the rest of a batch was not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Down(Down),
    Gone,
}

/// From probe to probe: 50 seconds where runs come once a minute, as they do so give or take, and each is to find its
/// turn.
pub fn probe_interval(schedule_interval: SignedDuration) -> SignedDuration {
    schedule_interval * 5 / 6
}

/// How long a warehouse may be silent before people are told.
const PATIENCE: SignedDuration = SignedDuration::from_hours(1);

/// How long news of mere deliveries may wait to be written.
const STALE: SignedDuration = SignedDuration::from_mins(1);

impl WebhookState {
    /// Asks to send to this URL. Who is told to probe has the probe to itself: the next one is not before that time.
    pub fn admit(&mut self, url: &str, now: Timestamp, next_probe: Timestamp) -> Admission {
        if self.stopped.as_ref().is_some_and(|stopped| stopped.url == url) {
            return Admission::Wait { until: None };
        }
        self.stopped = None;
        match &mut self.failing {
            None => Admission::Open,
            // Whoever is to wait for longer than anybody waits was told so by a clock that went wrong.
            Some(Failing { not_before, .. }) if now < *not_before && *not_before <= now + LONGEST_WAIT => {
                Admission::Wait { until: Some(*not_before) }
            }
            Some(failing) => {
                failing.not_before = next_probe;
                Admission::Probe
            }
        }
    }

    /// Why nothing is sent, where that is so.
    #[must_use]
    pub fn why(&self) -> String {
        match (&self.stopped, &self.failing) {
            (Some(stopped), _) => {
                format!("the warehouse answered 410 Gone at {}: stopped until resumed", stopped.since)
            }
            (None, Some(failing)) => failing.why.clone(),
            (None, None) => String::new(),
        }
    }

    /// Whether an outcome changes anything that cannot wait.
    #[must_use]
    pub fn is_news(&self, outcome: &Outcome, now: Timestamp) -> bool {
        let stale = || self.last_delivered_at.is_none_or(|at| now.duration_since(at) >= STALE);
        outcome.end.is_some()
            || (outcome.answered && self.failing.is_some())
            || (outcome.delivered > 0 && stale())
    }

    /// Takes in what came of a batch, with `delivered` sales not counted before. If it is the first that fails, it is
    /// followed by a probe, not before that time.
    pub fn note(
        &mut self,
        outcome: &Outcome,
        delivered: u64,
        url: &str,
        next_probe: Timestamp,
        now: Timestamp,
    ) {
        self.delivered += delivered;
        if outcome.delivered > 0 {
            self.last_delivered_at = Some(now);
        }
        if outcome.answered {
            self.back(now);
        }
        match &outcome.end {
            None => {}
            Some(End::Down(down)) => self.down(down, next_probe, now),
            Some(End::Gone) => {
                self.failing = None;
                self.stopped = Some(Stopped { since: now, url: url.to_owned() });
                self.untold = Some(News::Gone { at: now });
            }
        }
    }

    fn back(&mut self, now: Timestamp) {
        let Some(Failing { since, told: true, .. }) = self.failing.take() else { return };
        // Who was not told that it was away need not hear that it is back.
        let unheard = matches!(self.untold, Some(News::Silent { .. }));
        self.untold = (!unheard).then_some(News::Back { since, at: now });
    }

    fn down(&mut self, down: &Down, next_probe: Timestamp, now: Timestamp) {
        let failing = self.failing.get_or_insert_with(|| Failing {
            since: now,
            why: String::new(),
            not_before: next_probe,
            told: false,
        });
        failing.since = failing.since.min(now);
        failing.why.clone_from(&down.why);
        failing.not_before = down.until.unwrap_or(failing.not_before);
        if !failing.told && now.duration_since(failing.since) >= PATIENCE {
            failing.told = true;
            self.untold = Some(News::Silent { since: failing.since, why: failing.why.clone() });
        }
    }

    fn resume(&mut self) {
        self.stopped = None;
        if let Some(failing) = &mut self.failing {
            failing.not_before = Timestamp::UNIX_EPOCH;
        }
    }
}

/// How it goes.
///
/// # Errors
/// [`TableError`].
pub async fn status(documents: &Documents) -> Result<WebhookState, TableError> {
    Ok(documents.get(GROUP, NAME).await?.unwrap_or_default())
}

/// Has the next run try the warehouse, whatever it answered last.
///
/// # Errors
/// [`TableError`].
pub async fn resume(documents: &Documents) -> Result<WebhookState, TableError> {
    Ok(change(documents, WebhookState::resume).await?.1)
}

const GROUP: &str = "webhook";
const NAME: &str = "state";

/// Changes the document, and writes it only if that changed it.
///
/// # Errors
/// [`TableError`].
pub async fn change<R>(
    documents: &Documents,
    mut change: impl FnMut(&mut WebhookState) -> R,
) -> Result<(R, WebhookState), TableError> {
    let change = |before: Option<WebhookState>| {
        let before = before.unwrap_or_default();
        let mut after = before.clone();
        let answer = change(&mut after);
        ((after != before).then(|| after.clone()), (answer, after))
    };
    documents.update(GROUP, NAME, change).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const URL: &str = "https://warehouse.example/sales";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + seconds).unwrap()
    }

    fn next_probe(second: i64) -> Timestamp {
        at(second) + probe_interval(SignedDuration::from_mins(1))
    }

    fn delivered() -> Outcome {
        Outcome { delivered: 3, answered: true, end: None }
    }

    fn down(until: Option<Timestamp>) -> Outcome {
        let down = Down { why: "status 503".into(), until, blip: true };
        Outcome { end: Some(End::Down(down)), ..Outcome::default() }
    }

    impl WebhookState {
        /// Somebody asks at that second, where runs come once a minute.
        fn asked(&mut self, second: i64) -> Admission {
            self.admit(URL, at(second), next_probe(second))
        }

        /// A batch at that second that ended so, if it was let in.
        fn batch(&mut self, second: i64, outcome: &Outcome) -> Admission {
            let admission = self.asked(second);
            if !matches!(admission, Admission::Wait { .. }) {
                self.note(outcome, outcome.delivered, URL, next_probe(second), at(second));
            }
            admission
        }
    }

    #[test]
    fn while_all_is_well_everybody_sends_and_little_is_written() {
        let mut state = WebhookState::default();
        assert!(state.is_news(&delivered(), at(0)));
        state.batch(0, &delivered());
        assert_eq!((state.delivered, state.last_delivered_at), (3, Some(at(0))));
        assert!(!state.is_news(&delivered(), at(59)));
        assert!(state.is_news(&delivered(), at(60)));
        let before = state.clone();
        assert_eq!(state.asked(59), Admission::Open);
        assert_eq!(state, before, "nothing to write");
    }

    #[test]
    fn a_failure_opens_the_circuit_and_one_of_many_probes_each_minute() {
        let mut state = WebhookState::default();
        state.batch(0, &down(None));
        assert_eq!(state.asked(1), Admission::Wait { until: Some(at(50)) });
        for minute in 1..=5 {
            let asked: Vec<_> = (0..4).map(|_| state.asked(minute * 60)).collect();
            assert_eq!(asked[0], Admission::Probe);
            assert!(asked[1..].iter().all(|a| matches!(a, Admission::Wait { .. })), "minute {minute}");
            // It is known only ten seconds later that it failed.
            state.note(&down(None), 0, URL, next_probe(minute * 60), at(minute * 60 + 10));
        }
        assert_eq!(state.batch(360, &delivered()), Admission::Probe);
        assert_eq!(state.batch(361, &delivered()), Admission::Open);
        assert_eq!((state.failing, state.untold), (None, None));
    }

    #[test]
    fn what_the_warehouse_asks_for_is_waited_for() {
        let mut state = WebhookState::default();
        state.batch(0, &down(Some(at(600))));
        assert_eq!(state.asked(599), Admission::Wait { until: Some(at(600)) });
        assert_eq!(state.asked(600), Admission::Probe);
    }

    #[test]
    fn after_an_hour_people_are_told_once_and_once_when_it_is_back() {
        let mut state = WebhookState::default();
        let mut told = Vec::new();
        for minute in 0..72 * 60 {
            state.batch(minute * 60, &down(None));
            told.extend(state.untold.take());
        }
        assert_eq!(told, [News::Silent { since: at(0), why: "status 503".into() }]);
        state.batch(72 * 3600, &delivered());
        assert_eq!(state.untold.take(), Some(News::Back { since: at(0), at: at(72 * 3600) }));
        state.batch(72 * 3600 + 1, &delivered());
        assert_eq!(state.untold, None);
    }

    #[test]
    fn who_never_heard_that_it_was_away_does_not_hear_that_it_is_back() {
        let mut state = WebhookState::default();
        state.batch(0, &down(None));
        state.batch(3600, &down(None));
        assert!(matches!(state.untold, Some(News::Silent { .. })));
        state.batch(3660, &delivered());
        assert_eq!(state.untold, None);
    }

    #[test]
    fn a_refusal_shows_that_the_warehouse_is_there() {
        let mut state = WebhookState::default();
        state.batch(0, &down(None));
        state.batch(60, &Outcome { answered: true, ..Outcome::default() });
        assert_eq!((state.failing, state.last_delivered_at), (None, None));
    }

    #[test]
    fn gone_stops_until_somebody_resumes_or_the_url_changes() {
        let gone = || {
            let mut state = WebhookState::default();
            state.batch(0, &Outcome { end: Some(End::Gone), ..Outcome::default() });
            assert_eq!(state.untold, Some(News::Gone { at: at(0) }));
            assert_eq!(state.asked(30 * 86_400), Admission::Wait { until: None });
            state
        };
        let mut resumed = gone();
        resumed.resume();
        assert_eq!(resumed.asked(1), Admission::Open);
        let mut moved = gone();
        assert_eq!(moved.admit("https://elsewhere.example/", at(1), next_probe(1)), Admission::Open);
        assert_eq!(moved.stopped, None);
    }

    #[test]
    fn resuming_probes_at_once() {
        let mut state = WebhookState::default();
        state.batch(0, &down(Some(at(3600))));
        state.resume();
        assert_eq!(state.asked(1), Admission::Probe);
    }

    #[test]
    fn a_clock_that_was_days_ahead_and_is_set_right_keeps_nobody_waiting_for_days() {
        let mut state = WebhookState::default();
        state.batch(3 * 86_400, &down(Some(at(3 * 86_400 + 3600))));
        assert_eq!(state.batch(0, &down(None)), Admission::Probe);
        // and people are told when it has been an hour
        state.batch(3600, &down(None));
        assert_eq!(state.untold, Some(News::Silent { since: at(0), why: "status 503".into() }));
    }

    #[test]
    fn the_document_reads_as_it_was_written() {
        let mut state = WebhookState::default();
        state.batch(0, &down(None));
        state.batch(3600, &down(None));
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<WebhookState>(&json).unwrap(), state);
        assert_eq!(serde_json::from_str::<WebhookState>("{}").unwrap(), WebhookState::default());
    }

    proptest! {
        /// Any number of functions, at any time, with any luck.
        #[test]
        fn a_dead_warehouse_is_probed_at_most_once_in_fifty_seconds(
            asked in proptest::collection::vec(0..86_400i64, 1..500),
        ) {
            let mut asked = asked;
            asked.sort_unstable();
            let mut state = WebhookState::default();
            let mut sent: Vec<i64> = Vec::new();
            for second in asked {
                if !matches!(state.batch(second, &down(None)), Admission::Wait { .. }) {
                    sent.push(second);
                }
            }
            prop_assert!(sent.windows(2).all(|pair| pair[1] - pair[0] >= 50), "{sent:?}");
        }
    }
}
