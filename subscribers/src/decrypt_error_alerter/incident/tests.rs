//! Days in a shop, played in milliseconds.

use jiff::ToSpan;
use jiff::civil::Time;
use proptest::prelude::*;

use super::*;

const POLICY: Policy = Policy {
    group_wait: SignedDuration::from_secs(30),
    repeat_interval: SignedDuration::from_hours(4),
    resolve_after: SignedDuration::from_mins(10),
};

/// A shop in UTC that is quiet from 22:00 to 07:00, its incident, and what its manager read.
struct Day {
    now: Timestamp,
    recorded: u64,
    registered: bool,
    incident: Option<Incident>,
    turns: Vec<Turn>,
    read: Vec<(News, Timestamp, u64)>,
}

impl Day {
    fn at(time: &str) -> Self {
        let now = format!("2026-11-22T{time}Z").parse().unwrap();
        let (turns, read) = (Vec::new(), Vec::new());
        Self { now, recorded: 500, registered: true, incident: None, turns, read }
    }

    fn fails(&mut self, count: u64) -> &mut Self {
        let failures = Failures { count, first: self.now, last: self.now, source: "192.0.2.7".into() };
        let heard = Heard { failures, at: self.now, recorded: self.recorded };
        match &mut self.incident {
            Some(incident) => self.turns.extend(incident.hear(heard)),
            None => self.incident = Some(Incident::new("AMIS1".parse().unwrap(), Reason::WrongKey, heard)),
        }
        self
    }

    fn sells(&mut self) -> &mut Self {
        self.recorded += 1;
        self
    }

    fn quiet(&self) -> bool {
        !(7..22).contains(&self.now.to_zoned(jiff::tz::TimeZone::UTC).hour())
    }

    /// A function's tick: it may die after it has claimed what to send, before or after sending it.
    fn tick(&mut self, sends: bool, marks: bool) {
        let seen = Seen { recorded: self.recorded, registered: self.registered, quiet: self.quiet() };
        let Some(incident) = &mut self.incident else { return };
        self.turns.extend(incident.tick(self.now, seen, &POLICY));
        for claimed in incident.claim(self.now) {
            if sends && claimed.to == Addressee::Manager {
                self.read.push((claimed.news, self.now, claimed.failures.count));
            }
            if sends && marks {
                incident.sent(&claimed, self.now);
            }
        }
    }

    /// Time passes, with a tick each minute.
    fn pass(&mut self, minutes: u32) -> &mut Self {
        for _ in 0..minutes {
            self.now += 1.minute();
            self.tick(true, true);
        }
        self
    }

    #[track_caller]
    fn was_told(&self, expected: &[(News, &str, u64)]) {
        let told = self.read.iter().map(|(news, at, count)| {
            let time: Time = at.to_zoned(jiff::tz::TimeZone::UTC).time();
            (*news, time.strftime("%H:%M").to_string(), *count)
        });
        let expected = expected.iter().map(|(news, at, count)| (*news, (*at).to_owned(), *count));
        assert_eq!(told.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }
}

#[test]
fn a_shop_with_a_wrong_key_tells_once_reminds_and_tells_when_it_is_over() {
    let mut day = Day::at("09:00:00");
    day.fails(1).pass(60).fails(9_999).pass(400).sells().pass(600);
    day.was_told(&[
        (News::Opened, "09:01", 1),
        (News::StillOpen, "13:01", 10_000),
        (News::Over, "16:41", 10_000),
    ]);
    assert!(day.incident.unwrap().is_settled());
}

#[test]
fn the_group_wait_is_waited_for() {
    let mut day = Day::at("09:00:31");
    day.fails(1);
    day.now += 29.seconds();
    day.tick(true, true);
    day.was_told(&[]);
    day.now += 1.second();
    day.tick(true, true);
    day.was_told(&[(News::Opened, "09:01", 1)]);
}

#[test]
fn a_hiccup_that_recovers_tells_nobody() {
    let mut day = Day::at("09:00:00");
    day.fails(3).sells().pass(600).was_told(&[]);
    assert!(day.incident.unwrap().is_settled());
}

#[test]
fn a_second_failure_soon_after_a_hiccup_tells_at_once() {
    let mut day = Day::at("09:00:00");
    day.fails(1).sells().pass(8).fails(1);
    assert_eq!(day.turns, [Turn::Opened]);
    day.pass(1).was_told(&[(News::Opened, "09:09", 2)]);
}

#[test]
fn a_failure_long_after_a_hiccup_is_another_matter() {
    let mut day = Day::at("09:00:00");
    day.fails(1).sells().pass(15).fails(1).sells().pass(15).was_told(&[]);
}

#[test]
fn it_is_not_over_before_ten_minutes_of_silence() {
    let mut day = Day::at("09:00:00");
    day.fails(1).pass(1).sells();
    for _ in 0..6 {
        day.pass(8).fails(1).sells();
    }
    day.was_told(&[(News::Opened, "09:01", 1)]);
    day.pass(10).was_told(&[(News::Opened, "09:01", 1), (News::Over, "09:59", 7)]);
}

#[test]
fn it_is_not_over_without_a_sale() {
    let mut day = Day::at("09:00:00");
    day.sells().fails(1).pass(3 * 24 * 60);
    assert!(matches!(day.incident.as_ref().unwrap().phase, Phase::Open { .. }));
    day.sells().pass(1);
    assert_eq!(day.read.last().unwrap().0, News::Over);
}

#[test]
fn a_sale_before_the_last_failure_proves_nothing() {
    let mut day = Day::at("09:00:00");
    day.fails(1).sells().fails(1).pass(1).sells().fails(1).pass(60);
    day.was_told(&[(News::Opened, "09:01", 2)]);
    day.sells().pass(1).was_told(&[(News::Opened, "09:01", 2), (News::Over, "10:02", 3)]);
}

#[test]
fn a_shop_that_was_closed_down_is_done_once_it_is_silent() {
    let mut day = Day::at("09:00:00");
    day.registered = false;
    day.fails(1).pass(60).was_told(&[(News::Opened, "09:01", 1), (News::Over, "09:10", 1)]);
}

#[test]
fn quiet_hours_hold_reminders_back_but_neither_the_first_nor_the_last_word() {
    let mut day = Day::at("23:00:00");
    day.fails(1).pass(12 * 60);
    day.was_told(&[(News::Opened, "23:01", 1), (News::StillOpen, "07:00", 1), (News::StillOpen, "11:00", 1)]);
    let mut day = Day::at("23:00:00");
    day.fails(1).pass(1).sells().pass(60);
    day.was_told(&[(News::Opened, "23:01", 1), (News::Over, "23:10", 1)]);
}

#[test]
fn a_new_incident_counts_from_one_and_keeps_what_is_still_to_be_sent() {
    let mut day = Day::at("09:00:00");
    day.fails(5).pass(1).sells();
    day.now += 10.minutes();
    day.tick(false, false);
    day.fails(1).pass(3);
    day.was_told(&[(News::Opened, "09:01", 5), (News::Over, "09:13", 5), (News::Opened, "09:14", 1)]);
}

#[test]
fn what_a_function_died_over_is_sent_when_its_lease_is_over() {
    let mut day = Day::at("09:00:00");
    day.fails(1);
    day.now += 1.minute();
    day.tick(false, false);
    day.pass(1).was_told(&[]);
    day.pass(1).was_told(&[(News::Opened, "09:03", 1)]);
}

#[test]
fn two_at_once_claim_nothing_twice() {
    let mut day = Day::at("09:00:00");
    day.fails(1).now += 1.minute();
    day.tick(true, false);
    day.tick(true, true);
    day.was_told(&[(News::Opened, "09:01", 1)]);
}

#[test]
fn what_could_not_be_sent_for_a_day_is_dropped() {
    let mut day = Day::at("09:00:00");
    day.fails(1);
    for _ in 0..24 * 60 {
        day.now += 1.minute();
        day.tick(false, false);
    }
    assert_eq!(day.incident.as_ref().unwrap().outgoing.len(), 2);
    day.now += 1.minute();
    day.tick(false, false);
    assert!(day.read.is_empty());
    // and reminders begin
    assert_eq!(day.incident.unwrap().outgoing[0].news, News::StillOpen);
}

#[derive(Debug, Clone)]
enum Step {
    Fail(u64),
    Sell,
    Pass {
        seconds: i64,
    },
    /// As many functions at once, of whom some die.
    Tick {
        functions: usize,
        sends: bool,
        marks: bool,
    },
}

fn steps(deaths: bool) -> impl Strategy<Value = Vec<Step>> {
    let sure = !deaths;
    let step = prop_oneof![
        2 => (1u64..50).prop_map(Step::Fail),
        1 => Just(Step::Sell),
        3 => (1i64..1200).prop_map(|seconds| Step::Pass { seconds }),
        1 => (3600i64..40_000).prop_map(|seconds| Step::Pass { seconds }),
        5 => (1usize..4, any::<bool>(), any::<bool>())
            .prop_map(move |(functions, sends, marks)| Step::Tick { functions, sends: sends || sure, marks: marks || sure }),
    ];
    prop::collection::vec(step, 1..120)
}

fn play(steps: Vec<Step>) -> Day {
    let mut day = Day::at("06:00:00");
    for step in steps {
        match step {
            Step::Fail(count) => drop(day.fails(count)),
            Step::Sell => drop(day.sells()),
            Step::Pass { seconds } => day.now += seconds.seconds(),
            Step::Tick { functions, sends, marks } => (0..functions).for_each(|_| day.tick(sends, marks)),
        }
    }
    day
}

proptest! {
    #[test]
    fn the_manager_hears_of_each_incident_once_and_of_its_end_once(steps in steps(false)) {
        let mut day = play(steps);
        day.sells().pass(60);
        let turns: Vec<News> = day.turns.iter().map(|turn| match turn {
            Turn::Opened => News::Opened,
            Turn::Closed => News::Over,
        }).collect();
        let told: Vec<News> = day.read.iter().map(|(news, ..)| *news).filter(|n| *n != News::StillOpen).collect();
        prop_assert_eq!(&told, &turns);
        // Opened and over take turns, and the last word is that it is over.
        for (n, news) in told.iter().enumerate() {
            prop_assert_eq!(*news, if n % 2 == 0 { News::Opened } else { News::Over });
        }
        prop_assert_eq!(told.len() % 2, 0);
    }

    #[test]
    fn reminders_keep_their_distance_and_are_never_of_the_night(steps in steps(false)) {
        let day = play(steps);
        for (before, (news, at, _)) in day.read.iter().zip(day.read.iter().skip(1)) {
            if *news == News::StillOpen {
                prop_assert!(at.duration_since(before.1) >= POLICY.repeat_interval);
                let hour = at.to_zoned(jiff::tz::TimeZone::UTC).hour();
                prop_assert!((7..22).contains(&hour), "{}", at);
            }
        }
    }

    /// Whatever dies, everything that is news is read at last, in order, unless it is a day old.
    #[test]
    fn deaths_lose_nothing(steps in steps(true)) {
        let mut day = play(steps);
        let waiting = day.incident.as_ref().map_or(0, |incident| {
            incident.outgoing.iter().filter(|o| o.to == Addressee::Manager).count()
        });
        let before = day.read.len();
        let young = day.incident.as_ref().is_none_or(|incident| {
            incident.outgoing.iter().all(|o| day.now.duration_since(o.at) < SignedDuration::from_hours(20))
        });
        prop_assume!(young);
        day.pass(100);
        prop_assert!(day.read.len() >= before + waiting);
        prop_assert!(day.incident.is_none_or(|incident| incident.outgoing.is_empty()));
    }

    #[test]
    fn failures_add_up_to_the_same_in_any_order(
        seconds in prop::collection::vec((0i64..100, 0u8..3), 1..20).prop_shuffle()
    ) {
        let one = |(at, source): &(i64, u8)| {
            let at = Timestamp::from_second(*at).unwrap();
            Failures { count: 1, first: at, last: at, source: source.to_string() }
        };
        let sum = |failures: &[(i64, u8)]| failures.iter().map(one).reduce(|mut sum, more| {
            sum.add(more);
            sum
        });
        let mut sorted = seconds.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sum(&seconds), sum(&sorted));
    }
}
