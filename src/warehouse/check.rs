use jiff::Timestamp;
use kassa_bus::amount::Amount;
use kassa_bus::limits::MAX_TILL;
use kassa_bus::webhook::WarehouseSale;

/// A sale that has no place in the warehouse. Tells the place, never the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place} {why}")]
pub(super) struct InvalidSale {
    place: String,
    why: &'static str,
}

/// Checks what the types do not: that the database can hold each value. What is loaded together must not
/// fail together.
pub(super) fn check(sales: &[WarehouseSale]) -> Result<(), InvalidSale> {
    for (n, sale) in sales.iter().enumerate() {
        let invalid = |field: &str, why| InvalidSale { place: format!("data.sales[{n}].{field}"), why };
        if sale.lines.is_empty() {
            return Err(invalid("lines", "is empty"));
        }
        // Postgres's text has no NUL.
        if sale.till.as_ref().is_some_and(|till| till.len() > MAX_TILL || till.contains('\0')) {
            return Err(invalid("till", "must be at most 100 bytes, none of them NUL"));
        }
        // The shop's own clock; a till's may say what it likes.
        if !in_our_era(sale.accepted_at) {
            return Err(invalid("accepted_at", "must be in the years 1 to 9999"));
        }
        for (l, line) in sale.lines.iter().enumerate() {
            for (field, amount) in
                [("gross_number", line.gross_number), ("gross_turnover", line.gross_turnover)]
            {
                if !may_be_sent(amount) {
                    return Err(invalid(
                        &format!("lines[{l}].{field}"),
                        "must be below 10^12, with at most 18 digits",
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Dates have a day's room on either side, for whatever time zone.
fn in_our_era(at: Timestamp) -> bool {
    const FIRST: Timestamp = Timestamp::constant(-62_135_510_400, 0); // 0001-01-02T00:00:00Z
    at >= FIRST
}

/// What a till may send, so that sums stay exact in any database.
fn may_be_sent(amount: Amount) -> bool {
    amount.to_string().parse::<Amount>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kassa_bus::Line;

    fn sale() -> WarehouseSale {
        let line = |number: &str| Line {
            item_no: "98".parse().unwrap(),
            gross_number: Amount::from_stored(number).unwrap(),
            gross_turnover: Amount::from(19),
        };
        WarehouseSale {
            shop_id: "AMIS1".parse().unwrap(),
            sale_id: "7-20261122".parse().unwrap(),
            till: Some("till-1".into()),
            seq: Some(u64::MAX),
            sold_at: Some("2026-11-22T12:00:00Z".parse().unwrap()),
            accepted_at: "2026-11-22T12:00:01Z".parse().unwrap(),
            lines: vec![line("1"), line("-0.30000000000000004")],
        }
    }

    #[track_caller]
    fn is_refused(change: impl Fn(&mut WarehouseSale), at: &str) {
        let mut sales = [sale(), sale()];
        change(&mut sales[1]);
        let why = check(&sales).unwrap_err();
        assert_eq!(why.place, format!("data.sales[1].{at}"));
    }

    #[test]
    fn what_a_till_may_send_is_taken() {
        let old = WarehouseSale {
            sold_at: Some(Timestamp::MIN),
            sale_id: "7-00000101".parse().unwrap(),
            till: None,
            seq: None,
            ..sale()
        };
        assert_eq!(check(&[sale(), old]), Ok(()));
        assert_eq!(check(&[]), Ok(()));
    }

    #[test]
    fn what_the_database_cannot_hold_is_refused_at_its_place() {
        is_refused(|sale| sale.lines.clear(), "lines");
        is_refused(|sale| sale.till = Some("till\0".into()), "till");
        is_refused(|sale| sale.till = Some("é".repeat(51)), "till");
        is_refused(|sale| sale.accepted_at = Timestamp::MIN, "accepted_at");
        let huge = Amount::from_stored("1000000000000").unwrap();
        is_refused(|sale| sale.lines[1].gross_number = huge, "lines[1].gross_number");
        is_refused(|sale| sale.lines[0].gross_turnover = huge, "lines[0].gross_turnover");
    }
}
