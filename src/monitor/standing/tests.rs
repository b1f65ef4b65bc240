use std::collections::BTreeMap;

use super::super::alarms::{Comparison, Missing, Watch};
use super::super::math::search::Search;
use super::super::math::{Points, Range};
use super::super::{MetricId, Stat};
use super::*;

/// Metrics that are 1 in these minutes, and 0 in all others.
#[derive(Default)]
struct On(BTreeMap<&'static str, Vec<std::ops::Range<i64>>>);

impl Data for On {
    fn points(&self, metric: &MetricId, _: Stat, range: Range) -> Points {
        let on = |minute: i64| {
            self.0.get(metric.name.as_str()).is_some_and(|spans| spans.iter().any(|s| s.contains(&minute)))
        };
        range.times().map(|time| (time, f64::from(u8::from(on(time / 60))))).collect()
    }

    fn search(&self, _: &Search) -> Vec<MetricId> {
        Vec::new()
    }
}

/// An alarm on the metric of its name, of one minute out of one.
fn alarm(name: &str, actions: bool) -> Alarm {
    let metric = MetricId { namespace: "n".into(), name: name.into(), dimensions: BTreeMap::new() };
    Alarm {
        name: name.into(),
        severity: Severity::Warning,
        title: name.into(),
        meaning: String::new(),
        run: String::new(),
        what: Watch::Metric(metric, Stat::Sum),
        comparison: Comparison::AtLeast,
        threshold: 1.0,
        period: 60,
        evaluation_periods: 1,
        datapoints_to_alarm: 1,
        missing: Missing::NotBreaching,
        why_missing: String::new(),
        actions,
    }
}

/// A composite of the member, which waits for the suppressor to come on, and after it is off, three minutes each.
fn suppressed(name: &str, member: &str, suppressor: &str) -> Composite {
    Composite {
        name: name.into(),
        severity: Severity::Critical,
        title: name.into(),
        meaning: String::new(),
        run: String::new(),
        any: vec![member.into()],
        suppressed_by: Some(suppressor.into()),
        wait: 180,
        extension: 180,
    }
}

/// What people are told over an hour, by the minute, once all was well.
fn told(alarms: &Alarms, on: &[(&'static str, std::ops::Range<i64>)]) -> Vec<String> {
    let mut data = On::default();
    for (name, span) in on {
        data.0.entry(name).or_default().push(span.clone());
    }
    let mut standings = Standings::default();
    let mut told = Vec::new();
    for minute in 0..60 {
        let now = Timestamp::from_second(minute * 60).unwrap();
        for said in standings.step(alarms, now, &data) {
            told.push(format!("{minute} {:?} {}", said.state, said.name));
        }
    }
    // In the first minute alarms and composites that are new say that they are OK, the latter after their wait.
    told.retain(|told| told.split(' ').next().unwrap().parse::<i64>().unwrap() > 5);
    told
}

fn member_and_suppressor() -> Alarms {
    Alarms {
        alarms: vec![alarm("member", false), alarm("suppressor", false)],
        composites: vec![suppressed("composite", "member", "suppressor")],
    }
}

#[test]
fn an_alarm_tells_its_changes_once_and_one_without_actions_tells_none() {
    let alarms = Alarms { alarms: vec![alarm("loud", true), alarm("silent", false)], composites: Vec::new() };
    let told = told(&alarms, &[("loud", 10..20), ("silent", 10..20), ("loud", 30..31)]);
    // A minute counts when it is over.
    assert_eq!(told, ["11 Alarm loud", "21 Ok loud", "31 Alarm loud", "32 Ok loud"]);
}

// The examples of the documentation on suppressing composite alarms, in its order.

#[test]
fn after_the_wait_actions_are_run_if_the_suppressor_did_not_come_on() {
    let told = told(&member_and_suppressor(), &[("member", 10..40)]);
    assert_eq!(told, ["14 Alarm composite", "44 Ok composite"]);
}

#[test]
fn a_suppressor_that_comes_on_within_the_wait_holds_the_actions() {
    let told = told(&member_and_suppressor(), &[("member", 10..60), ("suppressor", 12..60)]);
    assert_eq!(told, [] as [&str; 0]);
}

#[test]
fn a_change_within_the_wait_begins_it_anew() {
    let told = told(&member_and_suppressor(), &[("member", 10..12)]);
    // It went on at 11 and off at 13, and 13 and three are 16.
    assert_eq!(told, ["16 Ok composite"]);
}

#[test]
fn while_the_suppressor_is_on_there_are_no_actions() {
    let told = told(&member_and_suppressor(), &[("suppressor", 5..60), ("member", 10..20)]);
    assert_eq!(told, [] as [&str; 0]);
}

#[test]
fn after_the_extension_actions_are_run_for_the_state_as_it_is_then() {
    let still_on = told(&member_and_suppressor(), &[("suppressor", 5..20), ("member", 10..40)]);
    assert_eq!(still_on, ["24 Alarm composite", "44 Ok composite"]);
    let off_within = told(&member_and_suppressor(), &[("suppressor", 5..20), ("member", 10..22)]);
    assert_eq!(off_within, ["26 Ok composite"]);
}

#[test]
fn a_composite_may_watch_and_wait_for_composites_that_come_later_in_the_file() {
    let down = Composite { suppressed_by: None, any: vec!["core".into()], ..suppressed("down", "", "") };
    let ails = Composite { any: vec!["detail".into()], ..suppressed("ails", "", "down") };
    let alarms =
        Alarms { alarms: vec![alarm("core", false), alarm("detail", false)], composites: vec![ails, down] };
    let told = told(&alarms, &[("core", 10..30), ("detail", 10..50)]);
    assert_eq!(told, ["11 Alarm down", "31 Ok down", "34 Alarm ails", "54 Ok ails"]);
}

#[test]
fn that_it_is_over_is_news_only_of_what_was_told() {
    let alarms = Alarms { alarms: vec![alarm("loud", true)], composites: Vec::new() };
    let mut standings = Standings::default();
    let data = On(BTreeMap::from([("loud", std::iter::once(10..20).collect())]));
    let told: Vec<Told> = (0..30)
        .flat_map(|minute| standings.step(&alarms, Timestamp::from_second(minute * 60).unwrap(), &data))
        .collect();
    let said: Vec<_> = told.iter().map(|told| (told.state, told.over)).collect();
    assert_eq!(said, [(State::Ok, false), (State::Alarm, false), (State::Ok, true)]);
}
