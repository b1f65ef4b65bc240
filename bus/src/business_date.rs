//! The day a sale is booked on: the same in the shop's own books and in the warehouse.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

use crate::ids::SaleId;

/// How far ahead of its acceptance a sale may be dated.
const AHEAD: SignedDuration = SignedDuration::from_hours(48);

/// The first day that is believed: before it, a program has written the time it has when nobody set one.
const FIRST: Date = jiff::civil::date(1970, 1, 1);

/// The day a sale is booked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusinessDate {
    pub date: Date,
    /// The day that the sale itself says, where that is not believed: it is booked on the day it was accepted then.
    pub dated: Option<Date>,
}

/// The last day that a sale accepted on this one can be booked on: 48 hours end three days on where a clock was put
/// forward in between.
#[must_use]
pub fn last_bookable(today: Date) -> Date {
    today.saturating_add(3.days())
}

/// The sale's own day in the shop's time zone, by its time or else by its id, so that a late one is booked on its own day.
///
/// A day before 1970 is none, whether of its time or of its id. One that is more than 48 hours ahead of the sale's
/// acceptance is not its day either: it is booked on the day it was accepted.
#[must_use]
pub fn business_date(
    sold_at: Option<Timestamp>,
    sale_id: &SaleId,
    accepted_at: Timestamp,
    zone: &TimeZone,
) -> BusinessDate {
    let day = |at: Timestamp| at.to_zoned(zone.clone()).date();
    let sold = sold_at.map(|at| (day(at), Some(at)));
    let made = (sale_id.date_in(zone), sale_id.instant());
    let (date, at) = sold.filter(|(date, _)| *date >= FIRST).unwrap_or(made);
    let limit = accepted_at.saturating_add(AHEAD).unwrap_or(Timestamp::MAX);
    // A classic id says a day, which begins at its first moment.
    let ahead = at.map_or_else(|| date > day(limit), |at| at > limit);
    if date < FIRST || ahead {
        BusinessDate { date: day(accepted_at), dated: Some(date) }
    } else {
        BusinessDate { date, dated: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPTED: &str = "2026-11-25T08:00:00Z";
    // 2024-12-05T03:41Z
    const UUID: &str = "019394e8-6c00-7000-8000-000000000001";

    #[track_caller]
    fn is_booked_on(sold_at: Option<&str>, id: &str, zone: &str, on: &str) {
        let sold_at = sold_at.map(|at| at.parse().unwrap());
        let zone = TimeZone::get(zone).unwrap();
        let booked = business_date(sold_at, &id.parse().unwrap(), ACCEPTED.parse().unwrap(), &zone);
        assert_eq!(booked.date.to_string(), on, "{sold_at:?} {id}");
    }

    #[test]
    fn a_late_sale_is_booked_on_the_day_it_was_sold_in_the_shops_time_zone() {
        // 23:30 UTC is half an hour into the next day in Amsterdam
        let late = Some("2026-11-22T23:30:00Z");
        is_booked_on(late, "7-20261101", "Europe/Amsterdam", "2026-11-23");
        is_booked_on(late, "7-20261101", "UTC", "2026-11-22");
    }

    #[test]
    fn a_sale_without_a_time_is_booked_on_its_ids_day() {
        is_booked_on(None, "7-20261101", "Europe/Amsterdam", "2026-11-01");
        is_booked_on(None, UUID, "America/New_York", "2024-12-04");
    }

    #[test]
    fn a_time_before_1970_is_none_and_an_id_before_1970_neither() {
        for never in ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "1969-12-31T23:59:59Z"] {
            is_booked_on(Some(never), UUID, "UTC", "2024-12-05");
            is_booked_on(Some(never), "7-00000101", "UTC", "2026-11-25");
        }
        is_booked_on(Some("-009999-01-02T01:59:59Z"), UUID, "UTC", "2024-12-05");
        is_booked_on(Some("1970-01-01T00:00:00Z"), UUID, "UTC", "1970-01-01");
        is_booked_on(None, "7-19691231", "UTC", "2026-11-25");
        is_booked_on(None, "7-19700101", "UTC", "1970-01-01");
    }

    #[test]
    fn a_time_more_than_48_hours_ahead_is_booked_on_the_day_of_its_acceptance() {
        is_booked_on(Some("2026-11-27T08:00:00Z"), UUID, "UTC", "2026-11-27");
        is_booked_on(Some("2026-11-27T08:00:01Z"), UUID, "UTC", "2026-11-25");
        is_booked_on(Some("9999-12-30T22:00:00Z"), UUID, "UTC", "2026-11-25");
        is_booked_on(None, "7-20261127", "UTC", "2026-11-27");
        is_booked_on(None, "7-20261128", "UTC", "2026-11-25");
        is_booked_on(None, "7-99991231", "UTC", "2026-11-25");
    }

    #[test]
    fn the_day_that_is_not_believed_is_kept_beside_the_one_it_is_booked_on() {
        let accepted: Timestamp = ACCEPTED.parse().unwrap();
        let dated = |at: Option<&str>, id: &str| {
            let sold_at = at.map(|at| at.parse().unwrap());
            business_date(sold_at, &id.parse().unwrap(), accepted, &TimeZone::UTC).dated
        };
        assert_eq!(dated(Some("2026-11-27T08:00:00Z"), UUID), None);
        assert_eq!(dated(Some("2026-11-27T08:00:01Z"), UUID), Some(jiff::civil::date(2026, 11, 27)));
        assert_eq!(dated(None, "7-99991231"), Some(jiff::civil::date(9999, 12, 31)));
        // No time is no wrong one.
        assert_eq!(dated(Some("0001-01-01T00:00:00Z"), UUID), None);
    }

    #[test]
    fn no_sale_is_booked_later_than_the_last_day_it_can_be() {
        // Amsterdam's clocks were put forward in the night of 29 March 2026.
        let zone = TimeZone::get("Europe/Amsterdam").unwrap();
        let accepted: Timestamp = "2026-03-27T22:30:00Z".parse().unwrap();
        let sold = accepted + AHEAD;
        let today = accepted.to_zoned(zone.clone()).date();
        let booked = business_date(Some(sold), &UUID.parse().unwrap(), accepted, &zone);
        assert_eq!(booked, BusinessDate { date: last_bookable(today), dated: None });
    }
}
