use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

/// When a shop is open in a week, as `mo-sa 09:00-18:00, su 12:00-17:00`, in the shop's time.
///
/// A day may be named more than once (`mo 09:00-12:00, mo 13:00-18:00`), hours may go over midnight
/// (`fr-sa 18:00-02:00`), and `24:00` is the day's end. None of them overlap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OpeningHours(Vec<Hours>);

/// The same hours on some days in a row. Times are in minutes since the day's beginning; a `to` that is no later than
/// `from` is the next day's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hours {
    first: Weekday,
    last: Weekday,
    from: i16,
    to: i16,
}

/// From one instant to before another.
type Span = (Timestamp, Timestamp);

const DAY: i16 = 24 * 60;
const WEEK: i16 = 7 * DAY;

/// Not opening hours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("opening hours are as mo-sa 09:00-18:00, su 12:00-17:00; {part:?} {what}")]
pub struct NotOpeningHours {
    part: String,
    what: &'static str,
}

impl OpeningHours {
    /// How long it is open between two instants.
    #[must_use]
    pub fn between(&self, zone: &TimeZone, from: Timestamp, to: Timestamp) -> SignedDuration {
        let mut spans: Vec<Span> = Vec::new();
        let last = to.to_zoned(zone.clone()).date();
        // What began on the day before may go over midnight.
        let mut date = from.to_zoned(zone.clone()).date().yesterday().ok();
        while let Some(day) = date.filter(|day| *day <= last) {
            spans.extend(self.beginning_on(day, zone));
            date = day.tomorrow().ok();
        }
        spans.sort_unstable();
        let (mut open, mut reached) = (SignedDuration::ZERO, from);
        // Where a clock is put back or forward, spans may come to overlap: no time counts twice.
        for (begins, ends) in spans {
            let (begins, ends) = (begins.max(reached), ends.min(to));
            if begins < ends {
                open += ends.duration_since(begins);
                reached = ends;
            }
        }
        open
    }

    /// How long it is open on a day of the shop's.
    #[must_use]
    pub fn on(&self, zone: &TimeZone, date: Date) -> SignedDuration {
        let midnight = |date: Date| instant(zone, date, 0);
        match (midnight(date), date.tomorrow().ok().and_then(midnight)) {
            (Some(from), Some(to)) => self.between(zone, from, to),
            _ => SignedDuration::ZERO,
        }
    }

    /// If it is open, since when: the beginning of the first hours of the day on which these began, so that a break
    /// at noon is no beginning.
    #[must_use]
    pub fn opened(&self, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
        let today = now.to_zoned(zone.clone()).date();
        [today.yesterday().ok(), Some(today)].into_iter().flatten().find_map(|date| {
            let spans: Vec<Span> = self.beginning_on(date, zone).collect();
            let open = spans.iter().any(|(from, to)| *from <= now && now < *to);
            open.then(|| spans.iter().map(|(from, _)| *from).min()).flatten()
        })
    }

    fn beginning_on(&self, date: Date, zone: &TimeZone) -> impl Iterator<Item = Span> {
        let hours = self.0.iter().filter(move |hours| hours.days().any(|day| day == date.weekday()));
        hours.filter_map(move |hours| {
            let to = if hours.to <= hours.from { hours.to + DAY } else { hours.to };
            Some((instant(zone, date, hours.from)?, instant(zone, date, to)?))
        })
    }
}

/// The instant of a time of day. One that the clock leaves out is as much later, one that it has twice is the first.
fn instant(zone: &TimeZone, date: Date, minutes: i16) -> Option<Timestamp> {
    let time = date.to_datetime(jiff::civil::Time::midnight()).checked_add(i32::from(minutes).minutes());
    zone.to_ambiguous_timestamp(time.ok()?).compatible().ok()
}

impl Hours {
    fn days(self) -> impl Iterator<Item = Weekday> {
        self.first.cycle_forward().take(1 + usize::from(self.last.since(self.first).unsigned_abs()))
    }

    /// Each as minutes of the week; those that go over its end begin anew below zero.
    fn in_a_week(self) -> impl Iterator<Item = (i16, i16)> {
        let length = if self.to <= self.from { self.to + DAY - self.from } else { self.to - self.from };
        self.days().flat_map(move |day| {
            let from = i16::from(day.to_monday_zero_offset()) * DAY + self.from;
            let wrapped = (from + length > WEEK).then_some((from - WEEK, from - WEEK + length));
            [Some((from, from + length)), wrapped].into_iter().flatten()
        })
    }
}

impl FromStr for OpeningHours {
    type Err = NotOpeningHours;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all: Vec<Hours> = Vec::new();
        let mut taken: Vec<(i16, i16)> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let wrong = |what| NotOpeningHours { part: part.to_owned(), what };
            let hours = hours(part).map_err(wrong)?;
            for (from, to) in hours.in_a_week() {
                if taken.iter().any(|(begins, ends)| from < *ends && *begins < to) {
                    return Err(wrong("overlaps what comes before it"));
                }
                taken.push((from, to));
            }
            all.push(hours);
        }
        Ok(Self(all))
    }
}

fn hours(part: &str) -> Result<Hours, &'static str> {
    let (days, times) = part.split_once(' ').ok_or("is not days, a blank and times")?;
    let (first, last) = days.split_once('-').unwrap_or((days, days));
    let (from, to) = times.trim().split_once('-').ok_or("has no times as 09:00-18:00")?;
    let hours = Hours { first: weekday(first)?, last: weekday(last)?, from: time(from)?, to: time(to)? };
    match (hours.from, hours.to) {
        (DAY, _) => Err("opens at 24:00, which is the next day's 00:00"),
        (from, to) if from == to => Err("opens when it closes; all day is 00:00-24:00"),
        _ => Ok(hours),
    }
}

const DAYS: [(&str, Weekday); 7] = [
    ("mo", Weekday::Monday),
    ("tu", Weekday::Tuesday),
    ("we", Weekday::Wednesday),
    ("th", Weekday::Thursday),
    ("fr", Weekday::Friday),
    ("sa", Weekday::Saturday),
    ("su", Weekday::Sunday),
];

fn weekday(text: &str) -> Result<Weekday, &'static str> {
    let named = DAYS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    named.map(|(_, day)| *day).ok_or("has a day that is none of mo, tu, we, th, fr, sa, su")
}

fn name(day: Weekday) -> &'static str {
    DAYS[usize::from(day.to_monday_zero_offset().unsigned_abs())].0
}

fn time(text: &str) -> Result<i16, &'static str> {
    const WRONG: &str = "has a time that is not from 00:00 to 24:00";
    let (hour, minute) = text.split_once(':').ok_or(WRONG)?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    let number = |text: &str| text.parse::<i16>().ok().filter(|_| digits(text)).ok_or(WRONG);
    match (number(hour)?, number(minute)?) {
        (24, 0) => Ok(DAY),
        (hour @ 0..24, minute @ 0..60) => Ok(hour * 60 + minute),
        _ => Err(WRONG),
    }
}

impl TryFrom<String> for OpeningHours {
    type Error = NotOpeningHours;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<OpeningHours> for String {
    fn from(hours: OpeningHours) -> Self {
        hours.to_string()
    }
}

impl fmt::Display for OpeningHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, Hours { first, last, from, to }) in self.0.iter().enumerate() {
            f.write_str(if n == 0 { "" } else { ", " })?;
            f.write_str(name(*first))?;
            if first != last {
                write!(f, "-{}", name(*last))?;
            }
            let [from, to] = [from, to].map(|time| (time / 60, time % 60));
            write!(f, " {:02}:{:02}-{:02}:{:02}", from.0, from.1, to.0, to.1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
