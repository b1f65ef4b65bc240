use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use kassa_bus::opening_hours::OpeningHours;

/// When a shop sells, and what it sold.
#[derive(Debug, Clone)]
pub struct Selling<'a> {
    pub hours: &'a OpeningHours,
    pub zone: TimeZone,
    /// Sales of the same weekday last week, the whole day.
    pub last_week: f64,
    /// When the last sale of the shop's day was recorded, of this one or of the one before.
    pub last_at: Option<Timestamp>,
}

/// How many sales a shop would have had since its last one: the rate of the same weekday last week (its sales by the
/// time it was open) times the time that it was open since, at most since it opened.
///
/// Sales come by chance. At that rate the chance of none for so long is e to the power of minus this: of 10, one in
/// 22,000. A quiet hour of a busy shop counts as much as a quiet day of a quiet one.
///
/// While the shop is closed nothing is overdue, whatever was sold last week: what was said before closing time is not
/// left standing. While it is open, nothing is known where last week had no sales.
#[must_use]
pub fn overdue(shop: &Selling<'_>, now: Timestamp) -> Option<f64> {
    let Selling { hours, zone, last_week, last_at } = shop;
    let Some(opened) = hours.opened(zone, now) else { return Some(0.0) };
    let day = now.to_zoned(zone.clone()).date().checked_sub(1.week()).ok()?;
    if *last_week <= 0.0 {
        return None;
    }
    let was_open = hours.on(zone, day);
    let silent = hours.between(zone, last_at.map_or(opened, |at| at.max(opened)), now);
    was_open.is_positive().then(|| last_week * silent.as_secs_f64() / was_open.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse::<jiff::civil::DateTime>().unwrap().to_zoned(amsterdam()).unwrap().timestamp()
    }

    fn amsterdam() -> TimeZone {
        TimeZone::get("Europe/Amsterdam").unwrap()
    }

    /// Of a shop that sold 90 last week.
    #[track_caller]
    fn overdue_at(hours: &str, last_at: Option<&str>, now: &str) -> f64 {
        let hours = hours.parse().unwrap();
        let selling = Selling { hours: &hours, zone: amsterdam(), last_week: 90.0, last_at: last_at.map(at) };
        overdue(&selling, at(now)).unwrap()
    }

    #[track_caller]
    fn near(is: f64, should: f64) {
        assert!((is - should).abs() < 1e-9, "{is} is not {should}");
    }

    const NINE_HOURS: &str = "mo-fr 09:00-18:00";

    #[test]
    fn it_is_the_open_time_since_the_last_sale_at_last_weeks_rate() {
        // given ten an hour, then three quarters of an hour after the last
        near(overdue_at(NINE_HOURS, Some("2026-11-23T11:00"), "2026-11-23T11:45"), 7.5);
        // and where there was none today, since it opened
        near(overdue_at(NINE_HOURS, None, "2026-11-23T10:00"), 10.0);
        near(overdue_at(NINE_HOURS, Some("2026-11-20T17:59"), "2026-11-23T10:00"), 10.0);
        // and nothing while it is closed, or by a clock that is ahead
        near(overdue_at(NINE_HOURS, None, "2026-11-23T18:00"), 0.0);
        near(overdue_at(NINE_HOURS, None, "2026-11-22T12:00"), 0.0);
        near(overdue_at(NINE_HOURS, Some("2026-11-23T11:46"), "2026-11-23T11:45"), 0.0);
    }

    #[test]
    fn a_break_and_midnight_are_no_beginning() {
        let noon = "mo 09:00-12:00, mo 13:00-16:00";
        near(overdue_at(noon, Some("2026-11-23T11:50"), "2026-11-23T13:10"), 90.0 / 6.0 / 3.0);
        // Saturday last week was open for two hours after midnight and six before.
        let late = "fr-sa 18:00-02:00";
        near(overdue_at(late, Some("2026-11-20T23:00"), "2026-11-21T01:00"), 90.0 / 8.0 * 2.0);
    }

    #[test]
    fn without_sales_last_week_nothing_is_known() {
        let hours = NINE_HOURS.parse().unwrap();
        let selling = Selling { hours: &hours, zone: amsterdam(), last_week: 0.0, last_at: None };
        assert_eq!(overdue(&selling, at("2026-11-23T10:00")), None);
        // But that nothing is overdue while it is closed.
        assert_eq!(overdue(&selling, at("2026-11-22T10:00")), Some(0.0));
    }

    fn weeks() -> impl Strategy<Value = OpeningHours> {
        prop_oneof![
            Just("mo-su 09:00-18:00"),
            Just("mo-su 09:00-12:00, mo-su 13:00-17:30"),
            Just("mo-su 00:00-24:00")
        ]
        .prop_map(|text| text.parse().unwrap())
    }

    proptest! {
        /// A whole day without a sale comes to last week's, whatever the hours; until then it only grows, and a sale
        /// takes it back to nothing.
        #[test]
        fn a_silent_day_comes_to_what_was_sold_last_week(
            hours in weeks(),
            last_week in 1u32..10_000,
            minutes in prop::collection::vec(0i64..1440, 2..20),
            sold in 0i64..1440,
        ) {
            let midnight = at("2026-11-24T00:00");
            let since = |minutes: i64| midnight + SignedDuration::from_mins(minutes);
            let last_week = f64::from(last_week);
            let silent = Selling { hours: &hours, zone: amsterdam(), last_week, last_at: None };
            let mut minutes = minutes;
            minutes.sort_unstable();
            let mut before = 0.0;
            for minute in minutes {
                let now = overdue(&silent, since(minute)).unwrap();
                if hours.opened(&amsterdam(), since(minute)).is_none() {
                    prop_assert!(now.abs() < 1e-9);
                    continue;
                }
                prop_assert!(now >= before && now <= last_week + 1e-6, "{} after {}", now, before);
                before = now;
            }
            let end = (0..1440).rev().map(since).find(|at| hours.opened(&amsterdam(), *at).is_some()).unwrap();
            let end = end + SignedDuration::from_secs(59);
            let all = overdue(&silent, end).unwrap();
            prop_assert!((last_week - all) / last_week < 0.001, "{} of {}", all, last_week);
            let sold = Selling { last_at: Some(since(sold)), ..silent };
            let just_then = overdue(&sold, sold.last_at.unwrap()).unwrap();
            prop_assert!(just_then.abs() < 1e-9);
        }
    }
}
