//! What the alarms of `dashboards/alarms.json` say, and when, in days as they may come: told minute by minute in the
//! metrics that AWS and Kassa publish, and evaluated as `CloudWatch` documents it.

use std::collections::{BTreeMap, VecDeque};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use kassa::monitor::State;
use kassa::monitor::alarms::Alarms;
use kassa::monitor::placeholders::Placeholders;
use kassa::monitor::standing::Standings;
use kassa::monitor::store::MetricStore;
use kassa_bus::metrics::{Kind, Labels, Series, Values};
use kassa_bus::{Dimension, Metric};

const STACK: &str = "kassa-prod";
const API: &str = "a1b2c3";

/// What fails is received again a minute later, so often.
const RECEIVES: u32 = 5;

/// What goes on in a minute.
#[allow(clippy::struct_excessive_bools, reason = "each of them may fail by itself")]
#[derive(Debug, Clone, Copy)]
struct Going {
    /// Sales that each shop has in a minute; none while it is closed.
    sales: [u32; 2],
    /// Whether it is open: whoever is open and has none is overdue.
    open: bool,
    kms: bool,
    tables: bool,
    warehouse: bool,
    /// Whether the function watch is called.
    watch: bool,
    /// Messages that come and can never be dealt with.
    poison: u32,
    /// Sales that come beside the others and are rejected.
    wrong_keys: u32,
    /// Those that were sold next year.
    wrong_clocks: u32,
}

const DAY: Going = Going {
    sales: [20, 20],
    open: true,
    kms: true,
    tables: true,
    warehouse: true,
    watch: true,
    poison: 0,
    wrong_keys: 0,
    wrong_clocks: 0,
};
const NIGHT: Going = Going { sales: [0, 0], open: false, ..DAY };

fn number(of: usize) -> f64 {
    f64::from(u32::try_from(of).unwrap())
}

/// An accepted sale on its way to decrypt.
#[derive(Debug, Clone, Copy)]
struct Message {
    /// Minutes since it was accepted, and since it was put into the queue.
    age: u32,
    queued: u32,
    receives: u32,
    /// Whether it can be dealt with at all.
    possible: bool,
}

/// The shop on AWS, as far as its metrics tell of it, and whoever watches its alarms.
struct Recording {
    now: Timestamp,
    store: MetricStore,
    alarms: Alarms,
    standings: Standings,
    minute: Vec<Series>,
    /// What decrypt has not dealt with.
    undecrypted: VecDeque<Message>,
    /// What it has given up.
    dead_letters: Vec<Message>,
    /// Minutes since each shop's last recorded sale while it was open.
    silent: [u32; 2],
    /// Minutes for which the warehouse has been waiting for its oldest sale.
    undelivered: u32,
    told: Vec<String>,
    went_off: Vec<String>,
}

impl Recording {
    /// From a Monday morning on, with an hour in which all was well.
    fn begins() -> Self {
        let alarms = Alarms::of(&Placeholders::of(STACK, API)).unwrap();
        let mut recording = Self {
            now: "2026-11-23T08:00:00Z".parse().unwrap(),
            store: MetricStore::new(STACK),
            alarms,
            standings: Standings::default(),
            minute: Vec::new(),
            undecrypted: VecDeque::new(),
            dead_letters: Vec::new(),
            silent: [0, 0],
            undelivered: 0,
            told: Vec::new(),
            went_off: Vec::new(),
        };
        recording.goes_on(60, DAY);
        recording.told.clear();
        recording.went_off.clear();
        recording
    }

    /// For so many minutes.
    fn goes_on(&mut self, minutes: u32, going: Going) -> &mut Self {
        for _ in 0..minutes {
            self.tells(going);
            self.store.record(self.now, &std::mem::take(&mut self.minute));
            self.now += SignedDuration::from_mins(1);
            self.looks();
        }
        self
    }

    /// What is watched each minute.
    fn looks(&mut self) {
        let time = self.now.to_zoned(TimeZone::UTC).strftime("%H:%M").to_string();
        let state = |standings: &Standings, name: &str| standings.of(name).map(|standing| standing.state);
        let before = self.standings.clone();
        for told in self.standings.step(&self.alarms, self.now, &self.store) {
            let word = if told.state == State::Alarm { "ALARM" } else { "OK" };
            self.told.push(format!("{time} {word} {}", told.name));
        }
        for alarm in &self.alarms.alarms {
            let (was, is) = (state(&before, &alarm.name), state(&self.standings, &alarm.name));
            if was != is && is == Some(State::Alarm) {
                self.went_off.push(format!("{time} {}", alarm.name));
            }
        }
    }

    fn counts(&mut self, metric: Metric, labels: Labels<'_>, n: u32) {
        assert_eq!(metric.kind(), Kind::Sum, "{metric:?}");
        self.says(metric, labels, Values::Sum(n.into()));
    }

    fn measures(&mut self, metric: Metric, labels: Labels<'_>, values: &[f64]) {
        assert_eq!(metric.kind(), Kind::Value, "{metric:?}");
        self.says(metric, labels, Values::Each(values.to_vec()));
    }

    fn says(&mut self, metric: Metric, labels: Labels<'_>, values: Values) {
        let labels = labels.iter().map(|(of, value)| (*of, (*value).to_owned())).collect();
        self.minute.push(Series { metric, labels, values });
    }

    /// A minute in the metrics.
    fn tells(&mut self, going: Going) {
        let accepted: u32 = going.sales.iter().sum();
        self.tells_of_accept(going, accepted);
        let recorded = if going.tables { self.decrypts(going, accepted) } else { 0 };
        if going.wrong_keys > 0 {
            let labels = [(Dimension::Shop, "AMIS1"), (Dimension::Reason, "wrong-key")];
            self.counts(Metric::Rejected, &labels, going.wrong_keys);
        }
        if going.wrong_clocks > 0 {
            self.counts(Metric::SuspiciousClocks, &[(Dimension::Shop, "AMIS1")], going.wrong_clocks);
        }
        self.tells_of_recording(going, recorded);
        self.tells_of_the_warehouse(going, recorded);
        self.watches(going, recorded);
    }

    fn tells_of_accept(&mut self, going: Going, accepted: u32) {
        let api: Labels<'_> = &[(Dimension::ApiId, API)];
        if accepted == 0 {
            return;
        }
        self.counts(Metric::Requests, api, accepted);
        self.counts(Metric::ServerErrors, api, if going.tables { 0 } else { accepted });
        let waits = if going.tables { 12.0 } else { 4_000.0 };
        self.measures(Metric::AnswerLatency, api, &vec![waits; accepted as usize]);
        self.calls("accept", accepted);
        if !going.tables {
            let table = format!("{STACK}-events");
            self.counts(Metric::WriteThrottles, &[(Dimension::TableName, &table)], 3 * accepted);
            return;
        }
        for (shop, n) in [("AMIS1", going.sales[0]), ("AMIS2", going.sales[1])] {
            if n > 0 {
                self.counts(Metric::Accepted, &[(Dimension::Shop, shop)], n);
            }
        }
    }

    fn calls(&mut self, name: &str, n: u32) {
        let function = format!("{STACK}-{name}");
        let function: Labels<'_> = &[(Dimension::FunctionName, &function)];
        self.counts(Metric::Invocations, function, n);
        self.counts(Metric::Errors, function, 0);
        self.counts(Metric::Throttles, function, 0);
    }

    fn queue(&mut self, name: &str, waiting: usize, oldest: u32) {
        let queue = format!("{STACK}-{name}");
        let queue: Labels<'_> = &[(Dimension::QueueName, &queue)];
        self.measures(Metric::QueueDepth, queue, &[number(waiting)]);
        self.measures(Metric::OldestMessage, queue, &[f64::from(oldest * 60)]);
    }

    /// Takes what is due, and says how many sales went on.
    fn decrypts(&mut self, going: Going, accepted: u32) -> u32 {
        let new = |possible| Message { age: 0, queued: 0, receives: 0, possible };
        self.undecrypted.extend(std::iter::repeat_n(new(true), accepted as usize));
        self.undecrypted.extend(std::iter::repeat_n(new(false), going.poison as usize));
        let (mut done, mut failed) = (0, 0);
        for mut message in std::mem::take(&mut self.undecrypted) {
            message.receives += 1;
            if message.possible && going.kms {
                done += 1;
                continue;
            }
            failed += 1;
            if message.receives == RECEIVES {
                self.dead_letters.push(message);
            } else {
                self.undecrypted.push_back(message);
            }
        }
        let oldest = self.undecrypted.iter().map(|message| message.queued).max();
        self.queue("decrypt", self.undecrypted.len(), oldest.unwrap_or_default());
        let function: Labels<'_> = &[(Dimension::Function, "decrypt")];
        if failed > 0 {
            self.counts(Metric::Failed, function, failed);
        }
        if done > 0 {
            self.measures(Metric::HopLatency, function, &vec![30.0; done as usize]);
        }
        self.calls("decrypt", done + failed);
        done
    }

    fn tells_of_recording(&mut self, going: Going, recorded: u32) {
        let all: u32 = going.sales.iter().sum::<u32>().max(1);
        for (shop, n) in [("AMIS1", going.sales[0]), ("AMIS2", going.sales[1])] {
            if recorded * n / all > 0 {
                self.counts(Metric::Recorded, &[(Dimension::Shop, shop)], recorded * n / all);
            }
        }
        if recorded > 0 {
            let process: Labels<'_> = &[(Dimension::Function, "process")];
            self.measures(Metric::HopLatency, process, &vec![20.0; recorded as usize]);
            let project = format!("{STACK}-project");
            self.measures(Metric::IteratorAge, &[(Dimension::FunctionName, &project)], &[300.0]);
        }
        self.queue("process", 0, 0);
        let letters = [("decrypt", self.dead_letters.len()), ("process", 0), ("bad-key-auditor", 0)];
        for (of, n) in letters {
            self.queue(&format!("{of}-dead-letters"), n, 0);
        }
        for name in ["process", "project", "bad-key-auditor", "decrypt-error-alerter"] {
            self.calls(name, 1);
        }
    }

    fn tells_of_the_warehouse(&mut self, going: Going, recorded: u32) {
        let waits = self.undelivered > 0 || recorded > 0;
        self.undelivered = if going.warehouse || !waits { 0 } else { self.undelivered + 1 };
        self.queue("warehouse-webhook", self.undelivered as usize, self.undelivered);
        self.calls("warehouse-webhook", 1);
        if waits {
            self.measures(Metric::WebhookAge, &[], &[f64::from(self.undelivered * 60)]);
            self.counts(Metric::WebhookFailed, &[], u32::from(!going.warehouse));
            self.counts(Metric::WebhookDelivered, &[], if going.warehouse { recorded } else { 0 });
        }
    }

    /// What the function watch says each minute, day and night.
    fn watches(&mut self, going: Going, recorded: u32) {
        if !going.watch {
            return;
        }
        self.calls("watch", 1);
        self.calls("reconcile", 1);
        self.measures(Metric::GivenUp, &[], &[0.0]);
        let pending = self.undecrypted.iter_mut().chain(&mut self.dead_letters);
        let ages: Vec<u32> = pending
            .map(|message| {
                (message.age, message.queued) = (message.age + 1, message.queued + 1);
                message.age
            })
            .collect();
        self.measures(Metric::Pending, &[], &[number(ages.len())]);
        self.measures(Metric::PendingAge, &[], &[f64::from(ages.into_iter().max().unwrap_or_default() * 60)]);
        for (at, shop) in ["AMIS1", "AMIS2"].into_iter().enumerate() {
            let sells = recorded > 0 && going.sales[at] > 0;
            self.silent[at] = if sells || !going.open { 0 } else { self.silent[at] + 1 };
            // At a sale every two minutes last week.
            let overdue = f64::from(self.silent[at]) / 2.0;
            self.measures(Metric::OverdueSales, &[(Dimension::Shop, shop)], &[overdue]);
        }
    }

    /// Somebody sends the dead letters on their way again.
    fn redrives(&mut self) -> &mut Self {
        let again = |letter: Message| Message { queued: 0, receives: 0, ..letter };
        self.undecrypted.extend(std::mem::take(&mut self.dead_letters).into_iter().map(again));
        self
    }

    /// Whoever looked at the messages that cannot be dealt with took them out.
    fn discards(&mut self) -> &mut Self {
        self.dead_letters.clear();
        self
    }

    /// What people were told, in order.
    #[track_caller]
    fn tells_people(&self, expected: &[&str]) {
        assert_eq!(self.told, expected, "{:#?}", self.went_off);
    }

    /// Which single alarms went off, in order.
    #[track_caller]
    fn goes_off(&self, expected: &[&str]) {
        assert_eq!(self.went_off, expected);
    }

    /// Which alarms are not as they should be in the end.
    fn not_ok(&self) -> BTreeMap<String, State> {
        let status = self.standings.status(&self.alarms, self.now);
        status.into_iter().filter(|alarm| alarm.state != State::Ok).map(|a| (a.name, a.state)).collect()
    }
}

fn unknown() -> BTreeMap<String, State> {
    BTreeMap::from([("sms-spent".to_owned(), State::InsufficientData)])
}

#[test]
fn on_a_healthy_day_and_in_the_night_nobody_is_told_anything() {
    let mut shop = Recording::begins();
    let slow = Going { sales: [1, 1], ..DAY };
    shop.goes_on(9 * 60, DAY).goes_on(14 * 60, NIGHT).goes_on(60, slow).goes_on(30, DAY);
    shop.goes_off(&[]);
    shop.tells_people(&[]);
    // SNS has said nothing of what was spent on text messages: there were none.
    assert_eq!(shop.not_ok(), unknown());
}

#[test]
fn of_one_shop_that_is_dead_people_are_told_once_and_when_it_sells_again() {
    let mut shop = Recording::begins();
    shop.goes_on(120, Going { sales: [20, 0], ..DAY }).goes_on(30, DAY);
    shop.goes_off(&["09:21 sales-overdue"]);
    shop.tells_people(&["09:26 ALARM shop-is-silent", "11:06 OK shop-is-silent"]);
}

#[test]
fn an_outage_of_kms_is_one_message_until_it_is_over_and_then_what_it_left_behind() {
    let mut shop = Recording::begins();
    shop.goes_on(40, Going { kms: false, ..DAY }).goes_on(30, DAY);
    shop.goes_off(&[
        "09:02 decrypt-fails",
        "09:05 nothing-settles",
        "09:05 dead-letters",
        "09:06 sales-stuck",
        "09:21 sales-overdue",
    ]);
    shop.tells_people(&[
        "09:02 ALARM shop-is-down",
        "09:42 OK shop-is-down",
        "09:52 OK shop-is-silent",
        "09:52 ALARM sales-left-behind",
    ]);
    shop.redrives().goes_on(30, DAY);
}

#[test]
fn in_the_night_an_outage_of_kms_concerns_nobody() {
    let mut shop = Recording::begins();
    shop.goes_on(60, NIGHT).goes_on(120, Going { kms: false, ..NIGHT }).goes_on(60, NIGHT);
    shop.goes_off(&[]);
    shop.tells_people(&[]);
}

#[test]
fn poison_is_told_as_what_was_left_behind_and_keeps_nobody_from_selling() {
    let mut shop = Recording::begins();
    shop.goes_on(1, Going { poison: 3, ..DAY }).goes_on(90, DAY).discards().goes_on(30, DAY);
    shop.goes_off(&["09:05 dead-letters", "09:06 sales-stuck"]);
    shop.tells_people(&["09:10 ALARM sales-left-behind", "10:37 OK sales-left-behind"]);
}

#[test]
fn a_warehouse_that_is_down_for_a_weekend_is_one_message_and_one_when_it_is_back() {
    let mut shop = Recording::begins();
    let down = |going| Going { warehouse: false, ..going };
    shop.goes_on(9 * 60, down(DAY)).goes_on(15 * 60, down(NIGHT)).goes_on(9 * 60, down(DAY));
    shop.goes_on(15 * 60, down(NIGHT)).goes_on(60, DAY);
    shop.goes_off(&["09:20 warehouse-waits"]);
    shop.tells_people(&["09:20 ALARM warehouse-waits", "09:05 OK warehouse-waits"]);
}

#[test]
fn a_watch_that_is_not_called_is_told_and_what_it_last_said_stands() {
    let mut shop = Recording::begins();
    shop.goes_on(30, Going { sales: [20, 0], ..DAY });
    shop.goes_on(30, Going { sales: [20, 0], watch: false, ..DAY });
    shop.goes_off(&["09:21 sales-overdue", "09:37 watch-is-silent"]);
    shop.tells_people(&["09:26 ALARM shop-is-silent", "09:42 ALARM shop-ails"]);
    // By night, too.
    shop.goes_on(30, DAY).goes_on(60, NIGHT).goes_on(30, Going { watch: false, ..NIGHT });
    assert!(shop.told.iter().any(|told| told == "11:42 ALARM shop-ails"), "{:#?}", shop.told);
}

#[test]
fn a_till_with_the_wrong_key_is_told_when_it_is_a_tenth_of_the_sales_and_at_no_quieter_hour() {
    let mut shop = Recording::begins();
    // given one in forty-one, and then one in nine
    shop.goes_on(60, Going { wrong_keys: 1, ..DAY });
    shop.goes_off(&[]);
    shop.goes_on(30, Going { wrong_keys: 5, ..DAY }).goes_on(30, DAY);
    shop.goes_off(&["10:05 rejected-share"]);
    shop.tells_people(&["10:05 ALARM rejected-share", "10:31 OK rejected-share"]);
}

#[test]
fn what_is_seldom_counted_is_told_once_though_its_periods_are_long() {
    // given three sales with a wrong clock, ten minutes apart, and no other for hours
    let mut shop = Recording::begins();
    let wrong = Going { wrong_clocks: 1, ..DAY };
    shop.goes_on(1, wrong).goes_on(9, DAY).goes_on(1, wrong).goes_on(9, DAY).goes_on(1, wrong);
    shop.goes_on(300, DAY);
    shop.goes_off(&["09:21 suspicious-clocks"]);
    shop.tells_people(&["09:21 ALARM suspicious-clocks", "10:01 OK suspicious-clocks"]);
}

#[test]
fn when_sales_end_while_nothing_settles_it_is_over_once() {
    let mut shop = Recording::begins();
    shop.goes_on(30, Going { kms: false, ..DAY }).goes_on(1, Going { sales: [10, 0], kms: false, ..DAY });
    shop.goes_on(120, NIGHT);
    let down = shop.told.iter().filter(|told| told.ends_with("shop-is-down"));
    assert_eq!(down.collect::<Vec<_>>(), ["09:02 ALARM shop-is-down", "09:35 OK shop-is-down"]);
}

#[test]
fn tables_that_let_nothing_in_are_the_shop_being_down() {
    let mut shop = Recording::begins();
    shop.goes_on(20, Going { tables: false, ..DAY }).goes_on(60, DAY);
    shop.goes_off(&["09:02 tills-get-errors", "09:02 tables-throttled", "09:03 answers-slow"]);
    shop.tells_people(&["09:02 ALARM shop-is-down", "09:22 OK shop-is-down", "09:32 OK shop-ails"]);
    assert_eq!(shop.not_ok(), unknown());
}

#[test]
fn everything_at_once_is_one_message_while_it_lasts() {
    let mut shop = Recording::begins();
    let storm = Going { kms: false, warehouse: false, poison: 5, ..DAY };
    shop.goes_on(10, Going { sales: [20, 0], ..storm }).goes_on(30, Going { tables: false, ..storm });
    shop.goes_on(20, storm);
    shop.goes_off(&[
        "09:02 decrypt-fails",
        "09:05 nothing-settles",
        "09:05 dead-letters",
        "09:06 sales-stuck",
        "09:12 tills-get-errors",
        "09:12 tables-throttled",
        "09:13 answers-slow",
        "09:21 sales-overdue",
        "09:41 nothing-settles",
        "09:42 decrypt-fails",
        "09:43 decrypt-waits",
    ]);
    shop.tells_people(&["09:02 ALARM shop-is-down"]);
    shop.goes_on(60, DAY);
}
