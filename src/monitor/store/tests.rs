#![allow(clippy::float_cmp, reason = "sums of whole numbers are exact")]

use jiff::SignedDuration;
use kassa_bus::{Dimension, Metric, Metrics};

use super::*;

fn at(time: &str) -> Timestamp {
    format!("2026-11-23T{time}Z").parse().unwrap()
}

fn id(name: &str, dimensions: &[(&str, &str)]) -> MetricId {
    let dimensions = dimensions.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    MetricId { namespace: "kassa-local".into(), name: name.into(), dimensions }
}

/// A metric's values from one time to another.
fn points(store: &MetricStore, id: &MetricId, stat: Stat, from: &str, to: &str, period: u32) -> Vec<f64> {
    let range = Range { from: at(from).as_second(), to: at(to).as_second(), period };
    store.points(id, stat, range).into_values().collect()
}

#[test]
fn what_is_recorded_is_there_under_each_set_of_dimensions_by_the_minute() {
    let metrics = Metrics::default();
    let store = MetricStore::new("kassa-local");
    for (time, shop, n) in [("10:00:10", "AMIS1", 3), ("10:00:50", "AMIS2", 4), ("10:01:00", "AMIS1", 5)] {
        metrics.count_of(Metric::Recorded, &[(Dimension::Shop, shop)], n);
        store.record(at(time), &metrics.take());
    }
    let minutes = |id| points(&store, &id, Stat::Sum, "10:00:00", "10:05:00", 60);
    assert_eq!(minutes(id("recorded", &[])), [7.0, 5.0]);
    assert_eq!(minutes(id("recorded", &[("shop_id", "AMIS1")])), [3.0, 5.0]);
    assert_eq!(minutes(id("recorded", &[("shop_id", "AMIS3")])), [] as [f64; 0]);
    assert_eq!(points(&store, &id("recorded", &[]), Stat::Sum, "10:00:00", "10:05:00", 300), [12.0]);
    // Alarms' periods begin with any minute.
    assert_eq!(points(&store, &id("recorded", &[]), Stat::Sum, "09:57:00", "10:07:00", 300), [12.0]);
    assert_eq!(points(&store, &id("recorded", &[]), Stat::Sum, "09:56:00", "10:06:00", 300), [7.0, 5.0]);
}

#[test]
fn what_is_measured_has_every_statistic_however_many_parts_it_came_in() {
    let metrics = Metrics::default();
    let store = MetricStore::new("kassa-local");
    for part in 0..10 {
        for value in 1..=100 {
            metrics.observe(Metric::Latency, &[], f64::from(part * 100 + value));
        }
        store.record(at("10:00:10"), &metrics.take());
    }
    let stat = |stat| points(&store, &id("latency", &[]), stat, "10:00:00", "10:01:00", 60)[0];
    assert_eq!((stat(Stat::Minimum), stat(Stat::Maximum), stat(Stat::SampleCount)), (1.0, 1000.0, 1000.0));
    assert_eq!((stat(Stat::Average), stat(Stat::Sum)), (500.5, 500_500.0));
    for percent in [10.0, 50.0, 99.0] {
        let told = stat(Stat::Percentile(percent));
        assert!((told - percent * 10.0).abs() <= percent * 10.0 * 0.03, "p{percent} is {told}");
    }
    assert_eq!(stat(Stat::Percentile(100.0)), 1000.0);
}

#[test]
fn minutes_are_kept_for_three_hours_and_fives_for_fifteen_days() {
    let store = MetricStore::new("kassa-local");
    let begin = at("00:00:00");
    let minute = SignedDuration::from_mins(1);
    for n in 0..16 * 24 * 60 {
        store.put(begin + minute * n, id("a", &[]), &Bucket::counted(1.0));
    }
    let now = begin + minute * (16 * 24 * 60);
    store.prune(now);
    let range = |hours: i64, period| Range {
        from: (now - SignedDuration::from_hours(hours)).as_second(),
        to: now.as_second(),
        period,
    };
    let sum = |range| store.points(&id("a", &[]), Stat::Sum, range).values().sum::<f64>();
    assert_eq!(sum(range(2, 60)), 120.0);
    // By the minute, only three hours are known; by five minutes, all is.
    assert!((178.0..=180.0).contains(&sum(range(24, 60))));
    assert_eq!(sum(range(24, 300)), 24.0 * 60.0);
    assert_eq!(sum(range(24 * 20, 3_600)), 15.0 * 24.0 * 60.0);
}

#[test]
fn more_than_there_is_room_for_goes_the_oldest_first() {
    let store = MetricStore::new("kassa-local");
    // Much differs, so that percentiles take room.
    let values: Vec<f64> = (0..100).map(|n| 1.1f64.powi(n)).collect();
    let bucket = Bucket::measured(&values).unwrap();
    let begin = at("00:00:00");
    let five = SignedDuration::from_mins(5);
    let fives = 14 * 24 * 12;
    for n in 0..fives {
        for shop in 0..10 {
            store.put(begin + five * n, id("a", &[("shop_id", &shop.to_string())]), &bucket);
        }
    }
    let now = begin + five * fives;
    store.prune(now);
    assert!(store.kept().room() <= ROOM, "{}", store.kept().room());
    let known = |hours: i64| {
        let from = (now - SignedDuration::from_hours(hours)).as_second();
        let range = Range { from, to: now.as_second(), period: 300 };
        store.points(&id("a", &[("shop_id", "7")]), Stat::SampleCount, range).len()
    };
    assert_eq!(known(24), 24 * 12);
    assert!(known(14 * 24) < 14 * 24 * 12);
}

#[test]
fn too_many_metrics_are_not_kept() {
    let store = MetricStore::new("kassa-local");
    for n in 0..MOST + 10 {
        store.put(at("10:00:00"), id("a", &[("n", &n.to_string())]), &Bucket::counted(1.0));
    }
    assert_eq!(store.kept().series.len(), MOST);
}

#[test]
fn what_an_earlier_process_kept_is_there_by_fives_only() {
    let (earlier, later) = (MetricStore::new("kassa-local"), MetricStore::new("kassa-local"));
    for time in ["10:01:00", "10:03:00", "10:05:00"] {
        earlier.put(at(time), id("a", &[]), &Bucket::measured(&[2.0, 8.0]).unwrap());
    }
    later.begins(at("10:06:10"));
    for begin in earlier.changed() {
        later.restore(begin, earlier.five(begin));
    }
    assert_eq!(earlier.changed(), [] as [i64; 0]);
    later.put(at("10:07:00"), id("a", &[]), &Bucket::counted(1.0));
    let of = |period| points(&later, &id("a", &[]), Stat::Sum, "10:00:00", "10:10:00", period);
    assert_eq!(of(300), [20.0, 11.0]);
    assert_eq!(of(60), [1.0]);
    assert!(points(&later, &id("a", &[]), Stat::Percentile(90.0), "10:00:00", "10:05:00", 300)[0] > 7.0);
}
