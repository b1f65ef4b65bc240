use std::fmt;
use std::str::FromStr;

use jiff::civil::Time;
use serde::{Deserialize, Serialize};

/// Hours of the day, as `22:00-07:00`: from the first minute to before the second, over midnight if the
/// second is the earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QuietHours {
    from: Time,
    to: Time,
}

/// Not hours of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("quiet hours are two different times of day, as 22:00-07:00")]
pub struct NotHours;

impl QuietHours {
    /// Whether it is quiet at this time of the shop's day.
    #[must_use]
    pub fn contain(&self, time: Time) -> bool {
        if self.from < self.to {
            self.from <= time && time < self.to
        } else {
            self.from <= time || time < self.to
        }
    }
}

impl FromStr for QuietHours {
    type Err = NotHours;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (from, to) = text.split_once('-').ok_or(NotHours)?;
        let time = |text: &str| Time::strptime("%H:%M", text).map_err(|_| NotHours);
        let (from, to) = (time(from)?, time(to)?);
        if from == to { Err(NotHours) } else { Ok(Self { from, to }) }
    }
}

impl TryFrom<String> for QuietHours {
    type Error = NotHours;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<QuietHours> for String {
    fn from(hours: QuietHours) -> Self {
        hours.to_string()
    }
}

impl fmt::Display for QuietHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from.strftime("%H:%M"), self.to.strftime("%H:%M"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_may_go_over_midnight() {
        let at =
            |hours: &str, time: &str| hours.parse::<QuietHours>().unwrap().contain(time.parse().unwrap());
        assert!(at("22:00-07:00", "23:30:00") && at("22:00-07:00", "06:59:59"));
        assert!(!at("22:00-07:00", "07:00:00") && !at("22:00-07:00", "21:59:00"));
        assert!(at("12:00-13:00", "12:00:00") && !at("12:00-13:00", "13:00:00"));
        for wrong in ["", "22:00", "22:00-22:00", "25:00-07:00", "22:00-07:00-09:00"] {
            assert_eq!(wrong.parse::<QuietHours>(), Err(NotHours), "{wrong}");
        }
        assert_eq!("22:00-07:00".parse::<QuietHours>().unwrap().to_string(), "22:00-07:00");
    }
}
