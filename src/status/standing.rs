use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use kassa_bus::amount::Amount;
use kassa_bus::registry::Shop;
use kassa_pipeline::last_at::believed;
use kassa_pipeline::row::DayRow;

use super::{Day, Standing};

/// Days that tell a month, and on its first the day a week ago.
pub(super) const DAYS: i32 = 38;

/// How a shop sells, from its last days.
pub(super) fn standing(shop: &Shop, days: &[DayRow], now: Timestamp) -> Standing {
    let today = now.to_zoned(shop.zone()).date();
    let mut standing = Standing {
        shop_id: shop.shop_id.clone(),
        name: shop.name.clone(),
        time_zone: shop.time_zone.clone(),
        last_sale: days.iter().filter_map(|day| believed(day.last_at, now)).max(),
        today: Day::default(),
        last_week: None,
        sales_this_month: 0,
    };
    for row in days {
        let Some(date) = date(row) else { continue };
        let day = Day { sales: whole(row.sales), turnover: row.turnover };
        if date == today {
            standing.today = day;
        }
        if date == today.saturating_sub(7.days()) {
            standing.last_week = Some(day);
        }
        if (date.year(), date.month()) == (today.year(), today.month()) {
            standing.sales_this_month = standing.sales_this_month.saturating_add(day.sales);
        }
    }
    standing
}

fn date(row: &DayRow) -> Option<Date> {
    row.record_type.strip_prefix("d-")?.parse().ok()
}

/// A number of sales, which has no decimals.
fn whole(amount: Amount) -> u64 {
    amount.to_string().parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use kassa_bus::text::Language;
    use kassa_bus::tills::Unsigned;

    use super::*;

    fn shop() -> Shop {
        Shop {
            opening_hours: None,
            shop_id: "AMIS1".parse().unwrap(),
            name: "Amsterdam".into(),
            time_zone: "Europe/Amsterdam".into(),
            language: Language::Dutch,
            manager_phone: None,
            manager_email: None,
            quiet_hours: None,
            sms_budget: 30,
            unsigned: Unsigned::Accept,
            keys: Vec::new(),
        }
    }

    fn row(date: &str, sales: i64, last_at: Option<&str>) -> DayRow {
        DayRow {
            shop_id: "AMIS1".parse().unwrap(),
            record_type: format!("d-{date}"),
            sales: Amount::from(sales),
            turnover: Amount::from(sales * 10),
            last_at: last_at.map(|at| at.parse().unwrap()),
        }
    }

    #[test]
    fn the_day_is_the_shops_own_and_the_month_as_well() {
        let days = [
            row("2026-12-01", 7, Some("2026-11-30T23:20:00Z")),
            row("2026-11-30", 50, Some("2026-11-30T22:59:00Z")),
            row("2026-11-24", 900, None),
        ];
        // Half past eleven in UTC is half past midnight there.
        let standing = standing(&shop(), &days, "2026-11-30T23:30:00Z".parse().unwrap());
        assert_eq!(standing.today, Day { sales: 7, turnover: Amount::from(70) });
        assert_eq!(standing.last_week, Some(Day { sales: 900, turnover: Amount::from(9_000) }));
        assert_eq!(standing.sales_this_month, 7);
        assert_eq!(standing.last_sale, Some("2026-11-30T23:20:00Z".parse().unwrap()));
    }

    #[test]
    fn a_till_whose_clock_is_ahead_makes_no_today() {
        let days = [row("2026-12-24", 1, Some("2026-11-22T09:00:00Z"))];
        let standing = standing(&shop(), &days, "2026-11-22T12:00:00Z".parse().unwrap());
        assert_eq!((standing.today, standing.sales_this_month), (Day::default(), 0));
        assert_eq!(standing.last_sale, Some("2026-11-22T09:00:00Z".parse().unwrap()));
    }
}
