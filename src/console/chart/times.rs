use std::ops::Range;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// An axis of time, in seconds since 1970, UTC.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub from: i64,
    pub to: i64,
}

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Steps between labels that people count in.
const STEPS: [i64; 14] = [
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    7 * DAY,
];

impl ValueFormatter<i64> for Times {
    /// The time of day, or the date where a day begins.
    fn format(second: &i64) -> String {
        let Ok(at) = Timestamp::from_second(*second) else { return String::new() };
        let form = if second.rem_euclid(DAY) == 0 { "%-d %b" } else { "%H:%M" };
        at.to_zoned(TimeZone::UTC).strftime(form).to_string()
    }
}

impl Ranged for Times {
    type FormatOption = NoDefaultFormatting;
    type ValueType = i64;

    fn map(&self, value: &i64, limit: (i32, i32)) -> i32 {
        let length = (self.to - self.from).max(1);
        let pixels = i64::from(limit.1) - i64::from(limit.0);
        let place = i64::from(limit.0) + (value - self.from) * pixels / length;
        i32::try_from(place).unwrap_or(limit.0)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<i64> {
        let most = i64::try_from(hint.max_num_points()).unwrap_or(1).max(1);
        let fits = |step: &&i64| (self.to - self.from) / **step <= most;
        let step = *STEPS.iter().find(fits).unwrap_or(&(28 * DAY));
        let first = self.from.div_euclid(step) * step;
        (0..)
            .map(|n| first + n * step)
            .skip_while(|at| *at < self.from)
            .take_while(|at| *at <= self.to)
            .collect()
    }

    fn range(&self) -> Range<i64> {
        self.from..self.to
    }
}

#[cfg(test)]
mod tests {
    use plotters::coord::ranged1d::BoldPoints;

    use super::*;

    #[test]
    fn labels_stand_at_times_that_people_count_in() {
        let noon = 1_799_928_000 - 1_799_928_000 % DAY + 12 * HOUR + 7;
        let points = |span, most| Times { from: noon - span, to: noon }.key_points(BoldPoints(most));
        for (span, most, step) in [
            (HOUR, 6, 10 * MINUTE),
            (3 * HOUR, 6, 30 * MINUTE),
            (DAY, 4, 6 * HOUR),
            (7 * DAY, 7, DAY),
            (7 * DAY, 3, 2 * DAY),
        ] {
            let points = points(span, most);
            assert!(!points.is_empty() && points.len() <= most + 1, "{points:?}");
            assert!(points.iter().all(|at| at % step == 0), "{span} {points:?}");
        }
        assert_eq!([Times::format(&0), Times::format(&(6 * HOUR + 60))], ["1 Jan", "06:01"]);
    }
}
