use proptest::prelude::*;

use super::*;

const SHOP: &str = "mo-sa 09:00-18:00, su 12:00-17:00";

fn of(text: &str) -> OpeningHours {
    text.parse().unwrap()
}

fn amsterdam() -> TimeZone {
    TimeZone::get("Europe/Amsterdam").unwrap()
}

/// An instant by Amsterdam's clock.
fn at(text: &str) -> Timestamp {
    text.parse::<jiff::civil::DateTime>().unwrap().to_zoned(amsterdam()).unwrap().timestamp()
}

fn hours_on(text: &str, date: &str) -> i64 {
    of(text).on(&amsterdam(), date.parse().unwrap()).as_hours()
}

#[test]
fn what_is_written_is_read_and_shown_in_one_way() {
    for text in [SHOP, "mo 09:00-12:00, mo 13:00-18:00", "fr-mo 18:00-02:00", "mo-su 00:00-24:00"] {
        assert_eq!(of(text).to_string(), text);
    }
    assert_eq!(of("Mo-Sa  09:00-18:00 ,su 12:00-17:00").to_string(), SHOP);
}

#[test]
fn what_is_wrong_is_told_with_what_it_is() {
    for (text, says) in [
        ("", "is not days"),
        ("mo", "is not days"),
        ("mo 09:00", "no times"),
        ("xx 09:00-10:00", "\"xx 09:00-10:00\" has a day"),
        ("mo-sa 09:00-18:00, su 9:00-17:00", "\"su 9:00-17:00\" has a time"),
        ("mo 09:00-24:01", "has a time"),
        ("mo +9:00-18:00", "has a time"),
        ("mo 09:00-09:00", "all day is 00:00-24:00"),
        ("mo 24:00-02:00", "the next day's"),
        ("mo-sa 09:00-18:00, we 17:00-20:00", "overlaps"),
        // Sunday's go over into Monday's.
        ("mo 01:00-03:00, su 20:00-02:00", "overlaps"),
        ("mo-su 18:00-18:30, fr 18:29-02:00", "overlaps"),
    ] {
        let told = text.parse::<OpeningHours>().unwrap_err().to_string();
        assert!(told.contains(says), "{told}");
    }
}

#[test]
fn a_day_has_its_own_hours() {
    let days = ["2026-11-21", "2026-11-22"].map(|day| hours_on(SHOP, day));
    assert_eq!(days, [9, 5]);
    assert_eq!(hours_on("mo 09:00-12:00, mo 13:00-18:00", "2026-11-23"), 8);
    assert_eq!(hours_on("mo 09:00-18:00", "2026-11-22"), 0);
    // Friday's until two are Saturday's two hours, and Saturday has its own evening.
    let days = ["2026-11-20", "2026-11-21", "2026-11-22"].map(|day| hours_on("fr-sa 18:00-02:00", day));
    assert_eq!(days, [6, 8, 2]);
}

#[test]
fn a_day_on_which_the_clock_is_changed_has_the_hours_it_has() {
    let all = "mo-su 00:00-24:00";
    assert_eq!(["2026-03-29", "2026-10-25", "2026-10-26"].map(|day| hours_on(all, day)), [23, 25, 24]);
    // Three in the morning is an hour earlier than it would have been.
    assert_eq!(hours_on("sa 22:00-06:00", "2026-03-29"), 5);
    assert_eq!(hours_on("sa 22:00-06:00", "2026-10-25"), 7);
    // Half past two is left out, and comes an hour later.
    let night = of("su 02:15-02:45");
    assert_eq!(night.opened(&amsterdam(), at("2026-03-29T03:20")), Some(at("2026-03-29T03:15")));
    assert_eq!(night.on(&amsterdam(), "2026-03-29".parse().unwrap()), SignedDuration::from_mins(30));
    // It comes at the same time as three o'clock's then, which is counted once.
    let both = of("su 02:00-02:30, su 03:00-03:30");
    assert_eq!(both.on(&amsterdam(), "2026-03-29".parse().unwrap()), SignedDuration::from_mins(30));
}

#[test]
fn a_shop_is_open_since_its_days_first_hours_began() {
    let opened = |hours: &str, now: &str| of(hours).opened(&amsterdam(), at(now));
    assert_eq!(opened(SHOP, "2026-11-22T11:59:59"), None);
    assert_eq!(opened(SHOP, "2026-11-22T12:00"), Some(at("2026-11-22T12:00")));
    assert_eq!(opened(SHOP, "2026-11-22T17:00"), None);
    let noon = "mo 09:00-12:00, mo 13:00-18:00";
    assert_eq!(opened(noon, "2026-11-23T12:30"), None);
    assert_eq!(opened(noon, "2026-11-23T13:30"), Some(at("2026-11-23T09:00")));
    assert_eq!(opened("fr 18:00-02:00", "2026-11-21T01:59"), Some(at("2026-11-20T18:00")));
}

fn weeks() -> impl Strategy<Value = OpeningHours> {
    prop_oneof![
        Just(SHOP),
        Just("mo-su 00:00-24:00"),
        Just("fr-su 18:00-03:00"),
        Just("mo-fr 08:30-12:00, mo-fr 13:00-17:30, su 02:00-02:30, su 03:00-03:30"),
    ]
    .prop_map(of)
}

/// Instants around both changes of the clock in 2026, and some days between.
fn instants() -> impl Strategy<Value = Timestamp> {
    (
        prop_oneof![Just("2026-03-28T00:00"), Just("2026-10-24T00:00"), Just("2026-11-20T00:00")],
        0i64..4 * 1440,
    )
        .prop_map(|(day, minutes)| at(day) + SignedDuration::from_mins(minutes))
}

proptest! {
    /// Open time is part of the time, adds up, and is there just when the shop is open.
    #[test]
    fn open_time_adds_up_and_is_had_just_when_the_shop_is_open(
        week in weeks(),
        from in instants(),
        first in 0i64..3000,
        then in 0i64..3000,
    ) {
        let zone = amsterdam();
        let middle = from + SignedDuration::from_mins(first);
        let to = middle + SignedDuration::from_mins(then);
        let open = week.between(&zone, from, to);
        prop_assert_eq!(open, week.between(&zone, from, middle) + week.between(&zone, middle, to));
        prop_assert!(!open.is_negative() && open <= to.duration_since(from));
        let next = week.between(&zone, from, from + SignedDuration::from_secs(1));
        prop_assert_eq!(week.opened(&zone, from).is_some(), next == SignedDuration::from_secs(1));
    }

    #[test]
    fn any_text_is_hours_that_are_shown_as_they_are_read_or_refused(text in "((mo|tu|su)(-(we|sa))? [0-2][0-9]:[0-5]0-[0-2][0-9]:00(, )?){1,3}") {
        if let Ok(hours) = text.parse::<OpeningHours>() {
            prop_assert_eq!(hours.to_string().parse::<OpeningHours>(), Ok(hours));
        }
    }
}
