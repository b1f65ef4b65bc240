//! Days in a shop, played in milliseconds.

use jiff::ToSpan;
use jiff::civil::Time;
use proptest::prelude::*;

use super::*;

const POLICY: Policy = Policy {
    group_wait: SignedDuration::from_secs(30),
    repeat_interval: SignedDuration::from_hours(4),
    resolve_after: SignedDuration::from_mins(10),
    pace: SignedDuration::from_mins(1),
};

/// A shop in UTC that is quiet from 22:00 to 07:00, its incident, and what its manager read.
struct Day {
    now: Timestamp,
    /// On the list of what needs attention.
    left: u64,
    /// When the first of these was rejected.
    since: Timestamp,
    incident: Option<Incident>,
    turns: Vec<Turn>,
    read: Vec<(News, Timestamp, u64)>,
    woken: Vec<Timestamp>,
}

impl Day {
    fn at(time: &str) -> Self {
        let now = format!("2026-11-22T{time}Z").parse().unwrap();
        let (turns, read, woken) = (Vec::new(), Vec::new(), Vec::new());
        Self { now, left: 0, since: now, incident: None, turns, read, woken }
    }

    /// So many sales are rejected, and are on the list.
    fn fails(&mut self, count: u64) -> &mut Self {
        if self.left == 0 {
            self.since = self.now;
        }
        self.left += count;
        self.is_told(Reason::WrongKey, count)
    }

    fn is_told(&mut self, reason: Reason, count: u64) -> &mut Self {
        let (now, source, tills) = (self.now, "192.0.2.7".into(), Tills::default());
        let heard = Heard { failures: Failures { count, first: now, last: now, source, tills }, at: now };
        match &mut self.incident {
            Some(incident) => incident.hear(heard),
            None => self.incident = Some(Incident::new("AMIS1".parse().unwrap(), reason, heard)),
        }
        self.asks_to_be_woken();
        self
    }

    /// All that is on the list is booked, or given up.
    fn mended(&mut self) -> &mut Self {
        self.left = 0;
        self
    }

    fn asks_to_be_woken(&mut self) {
        if let Some(after) = self.incident.as_mut().and_then(|incident| incident.wake(self.now, &POLICY)) {
            self.woken.push(self.now + after);
        }
    }

    fn seen(&self) -> Seen {
        let left = Left { count: self.left, since: self.since, tills: Tills::default() };
        let quiet = !(7..22).contains(&self.now.to_zoned(jiff::tz::TimeZone::UTC).hour());
        let left = (self.left > 0).then_some(left);
        Seen { left, asked: self.now, quiet, early: SignedDuration::ZERO }
    }

    /// A function's look: it may die after it has claimed what to send, before or after sending it.
    fn tick(&mut self, sends: bool, marks: bool) {
        let seen = self.seen();
        let Some(incident) = &mut self.incident else { return };
        self.turns.extend(incident.tick(self.now, &seen, &POLICY));
        for claimed in incident.claim(self.now) {
            if sends && claimed.to == Addressee::Manager {
                self.read.push((claimed.news, self.now, claimed.failures.count));
            }
            if sends && marks {
                incident.sent(&claimed, self.now);
            }
        }
        self.asks_to_be_woken();
    }

    /// Time passes: whoever asked to be woken is, and there is a tick each minute.
    fn pass(&mut self, minutes: u32) -> &mut Self {
        for _ in 0..minutes {
            let minute = self.now + 1.minute();
            while let Some(at) = self.woken.iter().position(|woken| *woken <= minute) {
                self.now = self.woken.remove(at).max(self.now);
                self.tick(true, true);
            }
            self.now = minute;
            self.tick(true, true);
        }
        self
    }

    #[track_caller]
    fn was_told(&self, expected: &[(News, &str, u64)]) {
        let told = self.read.iter().map(|(news, at, count)| {
            let time: Time = at.to_zoned(jiff::tz::TimeZone::UTC).time();
            (*news, time.strftime("%H:%M:%S").to_string(), *count)
        });
        let expected = expected.iter().map(|(news, at, count)| (*news, (*at).to_owned(), *count));
        assert_eq!(told.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }
}

#[test]
fn a_shop_with_a_wrong_key_tells_once_reminds_and_tells_when_it_is_over() {
    let mut day = Day::at("09:00:00");
    day.fails(1).pass(60).fails(9_999).pass(400).mended().pass(600);
    day.was_told(&[
        (News::Opened, "09:00:30", 1),
        (News::StillOpen, "13:01:00", 10_000),
        (News::Over, "16:41:00", 10_000),
    ]);
    assert!(day.incident.unwrap().is_settled());
}

#[test]
fn the_group_wait_is_waited_for_and_no_longer_whenever_the_minute_comes() {
    for second in ["00", "07", "29", "31", "59"] {
        let mut day = Day::at(&format!("09:00:{second}"));
        let begun = day.now;
        day.fails(1);
        day.now += 29.seconds();
        day.tick(true, true);
        day.was_told(&[]);
        day.pass(1);
        assert_eq!(day.read[0].1, begun + 30.seconds());
    }
}

#[test]
fn one_wake_up_is_asked_for_however_many_fail() {
    let mut day = Day::at("09:00:00");
    for _ in 0..29 {
        day.fails(40);
        day.now += 1.second();
    }
    assert_eq!(day.woken.len(), 1);
    day.pass(2).was_told(&[(News::Opened, "09:00:30", 1160)]);
    assert_eq!(day.woken.len(), 0);
}

#[test]
fn a_group_wait_of_more_than_a_minute_ends_to_the_second_as_well() {
    let policy = Policy { group_wait: SignedDuration::from_secs(150), ..POLICY };
    let mut day = Day::at("09:00:10");
    day.left = 1;
    let failures =
        Failures { count: 1, first: day.now, last: day.now, source: String::new(), tills: Tills::default() };
    let heard = Heard { failures, at: day.now };
    let mut incident = Incident::new("AMIS1".parse().unwrap(), Reason::WrongKey, heard);
    assert_eq!(incident.wake(day.now, &policy), None);
    assert_eq!(incident.wake(day.now + 50.seconds(), &policy), None);
    assert_eq!(incident.wake(day.now + 110.seconds(), &policy), Some(SignedDuration::from_secs(40)));
    assert_eq!(incident.wake(day.now + 111.seconds(), &policy), None);
}

#[test]
fn what_is_booked_within_the_group_wait_tells_nobody() {
    let mut day = Day::at("09:00:00");
    day.fails(3).mended().pass(600).was_told(&[]);
    assert!(day.incident.unwrap().is_settled());
}

#[test]
fn what_is_heard_of_while_the_list_is_read_is_not_taken_for_booked() {
    let mut day = Day::at("09:00:00");
    day.fails(1).mended().now += 31.seconds();
    let seen = day.seen();
    day.fails(1);
    let (now, incident) = (day.now, day.incident.as_mut().unwrap());
    incident.tick(now, &seen, &POLICY);
    day.pass(1).was_told(&[(News::Opened, "09:00:31", 1)]);
}

#[test]
fn each_failure_has_its_group_wait_also_soon_after_a_hiccup() {
    let mut day = Day::at("09:00:00");
    day.fails(1).mended().pass(8).fails(1).pass(1).was_told(&[(News::Opened, "09:08:30", 1)]);
}

#[test]
fn it_is_not_over_before_ten_minutes_of_silence() {
    let mut day = Day::at("09:00:00");
    day.fails(1).pass(1).mended();
    for _ in 0..6 {
        day.pass(8).fails(1).mended();
    }
    day.was_told(&[(News::Opened, "09:00:30", 1)]);
    day.pass(10).was_told(&[(News::Opened, "09:00:30", 1), (News::Over, "09:59:00", 7)]);
}

#[test]
fn it_is_not_over_before_the_last_sale_is_booked() {
    let mut day = Day::at("09:00:00");
    day.fails(50).pass(60);
    day.left = 1;
    day.pass(3 * 24 * 60);
    assert!(day.incident.as_ref().unwrap().is_open());
    assert!(!day.read.iter().any(|(news, ..)| *news == News::Over));
    day.mended().pass(1);
    assert_eq!(day.read.last().unwrap().0, News::Over);
}

#[test]
fn what_is_told_is_what_is_left() {
    let mut day = Day::at("09:00:00");
    day.fails(50).left = 30;
    day.pass(60).left = 7;
    day.pass(4 * 60).was_told(&[(News::Opened, "09:00:30", 30), (News::StillOpen, "13:01:00", 7)]);
}

#[test]
fn a_conflict_is_told_ict_alone_and_is_over_when_no_more_come() {
    let mut day = Day::at("09:00:00");
    day.is_told(Reason::Conflict, 2).now += 30.seconds();
    day.tick(false, false);
    let to_ict = [(News::Opened, Addressee::Ict, 2)];
    let outgoing = &day.incident.as_ref().unwrap().outgoing;
    assert_eq!(outgoing.iter().map(|o| (o.news, o.to, o.failures.count)).collect::<Vec<_>>(), to_ict);
    day.pass(60).was_told(&[]);
    assert_eq!(day.turns, [Turn::Opened, Turn::Closed]);
}

#[test]
fn what_is_left_is_told_anew_where_none_of_it_was_told() {
    let mut day = Day::at("09:00:00");
    day.fails(5).pass(10).fails(2).pass(10).mended();
    day.now += 3.seconds();
    day.fails(7).pass(60);
    day.was_told(&[(News::Opened, "09:00:30", 5), (News::Opened, "09:20:33", 7)]);
    assert_eq!(day.turns, [Turn::Opened]);
    day.mended().pass(20);
    assert_eq!(day.read.last().unwrap().0, News::Over);
}

#[test]
fn quiet_hours_hold_reminders_back_but_neither_the_first_nor_the_last_word() {
    let mut day = Day::at("23:00:00");
    day.fails(1).pass(12 * 60);
    day.was_told(&[
        (News::Opened, "23:00:30", 1),
        (News::StillOpen, "07:00:00", 1),
        (News::StillOpen, "11:00:00", 1),
    ]);
    let mut day = Day::at("23:00:00");
    day.fails(1).pass(1).mended().pass(60);
    day.was_told(&[(News::Opened, "23:00:30", 1), (News::Over, "23:10:00", 1)]);
}

#[test]
fn a_new_incident_counts_from_one_and_keeps_what_is_still_to_be_sent() {
    let mut day = Day::at("09:00:00");
    day.fails(5).pass(1).mended();
    day.now += 10.minutes();
    day.tick(false, false);
    day.fails(1).pass(3);
    day.was_told(&[
        (News::Opened, "09:00:30", 5),
        (News::Over, "09:13:00", 5),
        (News::Opened, "09:14:00", 1),
    ]);
}

#[test]
fn what_a_function_died_over_is_sent_when_its_lease_is_over() {
    let mut day = Day::at("09:00:00");
    day.fails(1);
    day.now += 1.minute();
    day.tick(false, false);
    day.pass(1).was_told(&[]);
    day.pass(1).was_told(&[(News::Opened, "09:03:00", 1)]);
}

#[test]
fn two_at_once_claim_nothing_twice() {
    let mut day = Day::at("09:00:00");
    day.fails(1).now += 1.minute();
    day.tick(true, false);
    day.tick(true, true);
    day.was_told(&[(News::Opened, "09:01:00", 1)]);
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

#[test]
fn ict_is_told_what_became_of_the_managers_text() {
    let mut day = Day::at("09:00:00");
    day.fails(1).now += 1.minute();
    let seen = day.seen();
    let (now, incident) = (day.now, day.incident.as_mut().unwrap());
    incident.tick(now, &seen, &POLICY);
    let claimed = incident.claim(now);
    assert_eq!(
        claimed.iter().map(|o| (o.to, o.texted)).collect::<Vec<_>>(),
        [(Addressee::Manager, Some(Texted::NotYet)), (Addressee::Ict, Some(Texted::NotYet)),]
    );
    // when it was sent, and then whoever was to tell ICT died
    incident.texted(&claimed[0], Texted::Sent { at: now }, now);
    let again = incident.claim(now + 3.minutes());
    assert_eq!(
        again.iter().map(|o| (o.to, o.texted)).collect::<Vec<_>>(),
        [(Addressee::Ict, Some(Texted::Sent { at: now }))]
    );
    // A text that waits is nobody's until then.
    let (later, until) = (now + 5.hours(), now + 5.hours() + 1.minute());
    incident.outgoing.clear();
    incident.tick(later, &seen, &POLICY);
    let claimed = incident.claim(later);
    incident.texted(&claimed[0], Texted::Waits { until }, later);
    assert!(incident.claim(until - 1.second()).is_empty());
    assert_eq!(incident.claim(until)[0].to, Addressee::Manager);
}

#[test]
fn a_document_of_before_there_was_a_list_is_read() {
    let old = r#"{"shop_id":"AMIS1","reason":"wrong-key","phase":{"open":{"told_at":"2026-11-22T12:01:00Z"}},
        "failures":{"count":7,"first":"2026-11-22T12:00:00Z","last":"2026-11-22T12:00:05Z","source":"192.0.2.7"},
        "heard_at":"2026-11-22T12:00:05Z","recorded":500,"outgoing":[{"news":"opened","to":"ict",
        "at":"2026-11-22T12:01:00Z","failures":{"count":7,"first":"2026-11-22T12:00:00Z",
        "last":"2026-11-22T12:00:05Z","source":"192.0.2.7"},"claimed_until":"2026-11-22T12:03:00Z"}]}"#;
    let mut incident: Incident = serde_json::from_str(old).unwrap();
    // Nothing is known of the text message, so nothing is said of it.
    assert_eq!(incident.claim("2026-11-22T12:04:00Z".parse().unwrap())[0].texted, None);
    assert_eq!(serde_json::from_str::<Phase>(r#""hiccup""#).unwrap(), Phase::Over);
    for phase in [r#""over""#, r#"{"pending":{"since":"2026-11-22T12:01:00Z"}}"#] {
        serde_json::from_str::<Phase>(phase).unwrap();
    }
}

#[derive(Debug, Clone)]
enum Step {
    Fail(u64),
    Mend,
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
        1 => Just(Step::Mend),
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
            Step::Mend => drop(day.mended()),
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
        day.mended().pass(60);
        let turns: Vec<News> = day.turns.iter().map(|turn| match turn {
            Turn::Opened => News::Opened,
            Turn::Closed => News::Over,
        }).collect();
        let told: Vec<News> = day.read.iter().map(|(news, ..)| *news).filter(|n| *n != News::StillOpen).collect();
        // What begins anew while it is open is told as what begins.
        let mut told = told;
        told.dedup();
        prop_assert_eq!(&told, &turns);
        // Opened and over take turns, and the last word is that it is over.
        for (n, news) in told.iter().enumerate() {
            prop_assert_eq!(*news, if n % 2 == 0 { News::Opened } else { News::Over });
        }
        prop_assert_eq!(told.len() % 2, 0);
    }

    /// What is not booked is told within the group wait and is not over, whatever else the shop sells.
    #[test]
    fn what_is_left_is_told_and_not_over(steps in steps(false), count in 1u64..50) {
        let mut day = play(steps);
        day.fails(count).pass(1);
        prop_assert!(day.incident.as_ref().unwrap().is_open());
        let last = day.read.iter().rfind(|(news, ..)| *news != News::StillOpen).unwrap().0;
        prop_assert_eq!(last, News::Opened);
        day.pass(30);
        prop_assert!(day.incident.unwrap().is_open());
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
            let tills = [format!("kassa-{source}").parse().unwrap()].into_iter().collect();
            Failures { count: 1, first: at, last: at, source: source.to_string(), tills }
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
