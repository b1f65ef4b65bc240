use std::collections::BTreeMap;

use jiff::Timestamp;
use kassa::monitor::evaluate::{judge, watched};
use kassa::monitor::math::search::Search;
use kassa::monitor::math::{Ask, Data, Points, Range, answer};
use kassa::monitor::placeholders::Placeholders;
use kassa::monitor::{MetricId, Query, Stat, State};

use super::{alarms, dashboards, widgets};

/// Metrics by their names, each with one value in all periods, whatever they are told apart by.
struct Known<'a>(&'a [(&'a str, f64)]);

impl Data for Known<'_> {
    fn points(&self, metric: &MetricId, _: Stat, range: Range) -> Points {
        let value = self.0.iter().find(|(name, _)| *name == metric.name);
        value.map(|(_, value)| range.times().map(|time| (time, *value)).collect()).unwrap_or_default()
    }

    fn search(&self, _: &Search) -> Vec<MetricId> {
        let dimensions = BTreeMap::from([("shop_id".to_owned(), "AMIS1".to_owned())]);
        self.0
            .iter()
            .map(|(name, _)| MetricId {
                namespace: "kassa-dev".into(),
                name: (*name).into(),
                dimensions: dimensions.clone(),
            })
            .collect()
    }
}

/// Everything there is, each 6.
struct Everything;

impl Data for Everything {
    fn points(&self, _: &MetricId, _: Stat, range: Range) -> Points {
        range.times().map(|time| (time, 6.0)).collect()
    }

    fn search(&self, search: &Search) -> Vec<MetricId> {
        Known(&[("recorded", 6.0)]).search(search)
    }
}

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

#[test]
fn every_widget_can_be_drawn_here_with_all_the_data_there_is_and_with_none() {
    for (name, widget) in widgets() {
        let queries: Vec<Query> = widget.rows.iter().map(|row| row.query.clone()).collect();
        let from = Timestamp::from_second(now().as_second() - 86_400).unwrap();
        let ask = Ask { queries: &queries, from, to: now(), rounded: true };
        answer(ask, &Known(&[])).unwrap_or_else(|why| panic!("{name}: {}: {why}", widget.title));
        let lines = answer(ask, &Everything).unwrap_or_else(|why| panic!("{name}: {}: {why}", widget.title));
        // Nobody here has a quota.
        let drawn = !lines.is_empty() && lines.iter().all(|line| !line.points.is_empty());
        assert!(drawn || widget.title.contains("quota"), "{name}: {}: {lines:?}", widget.title);
    }
}

#[test]
fn dashboards_and_alarms_are_read_where_there_is_neither_region_nor_account() {
    let here = Placeholders::of("kassa-local", "kassa-local");
    for (name, dashboard) in dashboards() {
        let read = kassa::monitor::dashboard::Dashboard::named(name, &here).unwrap().unwrap();
        assert_eq!(read.widgets.len(), dashboard.widgets.len());
    }
    kassa::monitor::alarms::Alarms::of(&here).unwrap();
}

/// What an alarm makes of these metrics in its last period.
#[track_caller]
fn comes_to(alarm: &str, metrics: &[(&str, f64)], expected: Option<f64>) {
    let all = alarms().alarms;
    let alarm = all.iter().find(|a| a.name == alarm).unwrap_or_else(|| panic!("no {alarm}"));
    let values = watched(alarm, now(), &Known(metrics)).unwrap();
    assert_eq!(values.last().copied().flatten(), expected, "{} of {metrics:?}", alarm.name);
}

#[test]
fn a_share_is_looked_at_only_where_there_is_enough_of_it() {
    comes_to("tills-get-errors", &[("5xx", 5.0), ("Count", 50.0)], Some(10.0));
    comes_to("tills-get-errors", &[("5xx", 4.0), ("Count", 4.0)], Some(0.0));
    comes_to("rejected-share", &[("rejected", 5.0), ("recorded", 45.0)], Some(10.0));
    comes_to("rejected-share", &[("rejected", 5.0)], Some(100.0));
    comes_to("rejected-share", &[("rejected", 4.0)], Some(0.0));
    comes_to("rejected-share", &[("recorded", 45.0)], Some(0.0));
}

#[test]
fn a_stage_fails_when_half_of_what_it_takes_does_and_one_poison_message_is_not_half() {
    for alarm in ["decrypt-fails", "process-fails"] {
        comes_to(alarm, &[("failed", 3.0)], Some(100.0));
        comes_to(alarm, &[("Errors", 3.0), ("hop_latency", 3.0)], Some(50.0));
        comes_to(alarm, &[("failed", 2.0), ("Errors", 1.0), ("hop_latency", 27.0)], Some(10.0));
        comes_to(alarm, &[("failed", 1.0)], Some(0.0));
        comes_to(alarm, &[("hop_latency", 100.0)], None);
    }
}

#[test]
fn nothing_settles_when_many_are_accepted_and_next_to_none_come_to_anything() {
    comes_to("nothing-settles", &[("accepted", 20.0)], Some(0.0));
    comes_to("nothing-settles", &[("accepted", 20.0), ("recorded", 1.0), ("rejected", 1.0)], Some(10.0));
    comes_to("nothing-settles", &[("accepted", 19.0)], Some(100.0));
    comes_to("nothing-settles", &[("recorded", 50.0)], Some(100.0));
}

#[test]
fn what_is_missing_is_no_alarm_and_does_not_hide_what_is_there() {
    // Six queues, nine functions.
    comes_to("dead-letters", &[("ApproximateNumberOfMessagesVisible", 1.0)], Some(6.0));
    comes_to("functions-fail", &[("Errors", 1.0)], Some(9.0));
    comes_to("functions-fail", &[], None);
    comes_to("tables-throttled", &[], Some(0.0));
    comes_to("tables-throttled", &[("WriteThrottleEvents", 1.0)], Some(5.0));
    comes_to("warehouse-waits", &[("webhook_age", 900.0)], Some(900.0));
    comes_to(
        "warehouse-waits",
        &[("webhook_age", 1.0), ("ApproximateAgeOfOldestMessage", 901.0)],
        Some(901.0),
    );
    comes_to("subscribers-wait", &[("ApproximateAgeOfOldestMessage", 901.0)], Some(901.0));
    comes_to("watch-is-silent", &[], None);
}

/// The state of an alarm that was all right, after a while of these metrics.
#[track_caller]
fn stands(alarm: &str, metrics: &[(&str, f64)], expected: State) {
    let all = alarms().alarms;
    let alarm = all.iter().find(|a| a.name == alarm).unwrap_or_else(|| panic!("no {alarm}"));
    let values = watched(alarm, now(), &Known(metrics)).unwrap();
    assert_eq!(judge(alarm, &values, State::Ok), expected, "{} with {metrics:?}", alarm.name);
}

#[test]
fn an_alarm_goes_off_at_its_threshold_and_not_below() {
    let age = "ApproximateAgeOfOldestMessage";
    for (alarm, metric, fine, wrong) in [
        ("process-fails", "failed", 2.0, 3.0),
        ("decrypt-waits", age, 599.0, 600.0),
        ("process-waits", age, 599.0, 600.0),
        ("sales-overdue", "overdue_sales", 9.9, 10.0),
        ("sales-stuck", "pending_age", 299.0, 300.0),
        ("sales-given-up", "given_up", 0.0, 1.0),
        ("dead-letters", "ApproximateNumberOfMessagesVisible", 0.0, 1.0),
        // Of nine functions, three subscribers and five tables, each has so many.
        ("functions-fail", "Errors", 0.0, 1.0),
        ("messages-fail", "failed", 1.0, 2.0),
        ("functions-throttled", "Throttles", 0.5, 1.0),
        ("tables-throttled", "WriteThrottleEvents", 0.9, 1.0),
        ("answers-slow", "Latency", 2_999.0, 3_000.0),
        ("stock-behind", "IteratorAge", 299_999.0, 300_000.0),
        ("subscribers-wait", age, 899.0, 900.0),
        ("unreadable-events", "unreadable_events", 0.0, 1.0),
        ("unreadable-events", "skipped_postings", 0.0, 1.0),
        ("unreadable-events", "unreadable_rows", 0.0, 1.0),
        ("suspicious-clocks", "suspicious_clocks", 2.0, 3.0),
        ("sms-over-budget", "sms_over_budget", 0.0, 1.0),
        ("sms-spent", "SMSMonthToDateSpentUSD", 0.79, 0.8),
        ("warehouse-waits", "webhook_age", 899.0, 900.0),
    ] {
        stands(alarm, &[(metric, fine)], State::Ok);
        stands(alarm, &[(metric, wrong)], State::Alarm);
    }
}

#[test]
fn where_nothing_is_said_at_all_only_the_watch_is_missed() {
    for alarm in alarms().alarms {
        let missed = alarm.name == "watch-is-silent";
        stands(&alarm.name, &[], if missed { State::Alarm } else { State::Ok });
    }
}
