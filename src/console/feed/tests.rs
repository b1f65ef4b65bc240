use jiff::SignedDuration;
use kassa_pipeline::event::EventKey;

use super::*;

fn recorded(shop: &str, n: i64) -> StoredEvent {
    let at = Timestamp::from_second(1_800_000_000 + n).unwrap();
    let (shop_id, sale_id): (ShopId, SaleId) =
        (shop.parse().unwrap(), format!("{n}-20270115").parse().unwrap());
    StoredEvent {
        key: EventKey { stream: format!("{shop}#2027-01-15"), event: format!("{sale_id}#recorded") },
        kind: RECORDED.into(),
        version: 2,
        at,
        sale_id,
        shop_id,
        trace: None,
        reason: None,
        body: r#"{"lines":[{},{}],"totals":{"gross_number":"2","gross_turnover":"4.5"},"till":"t"}"#.into(),
    }
}

fn ids(feed: &Feed, limit: usize) -> Vec<String> {
    feed.sold(limit).iter().map(|sale| sale.sale_id.to_string()).collect()
}

#[test]
fn the_last_come_first_and_each_once_however_they_arrive() {
    let feed = Feed::default();
    feed.recorded([recorded("A", 1), recorded("A", 3)].iter());
    feed.recorded([recorded("A", 3), recorded("A", 2)].iter());
    assert_eq!(ids(&feed, 9), ["3-20270115", "2-20270115", "1-20270115"]);
    assert_eq!(ids(&feed, 1), ["3-20270115"]);
    let sale = feed.sold(1).remove(0);
    assert_eq!(
        (sale.lines, sale.till.as_deref(), sale.totals.gross_turnover.to_string()),
        (2, Some("t"), "4.5".into())
    );
}

#[test]
fn however_many_are_sold_a_bounded_number_is_kept_and_every_shops_last_is_known() {
    let feed = Feed::default();
    for batch in 0..200 {
        let mut events: Vec<StoredEvent> = (0..100).map(|n| recorded("A", batch * 100 + n)).collect();
        events.insert(0, recorded("B", batch * 100));
        feed.recorded(events.iter());
    }
    assert_eq!(ids(&feed, usize::MAX).len(), KEPT);
    assert_eq!(ids(&feed, 1), ["19999-20270115"]);
    let last = |shop: &str| feed.last(&shop.parse().unwrap()).map(|at| at.as_second() - 1_800_000_000);
    assert_eq!([last("A"), last("B"), last("C")], [Some(19_999), Some(19_900), None]);
}

#[test]
fn whoever_looks_hears_of_a_change_and_of_the_end() {
    let feed = Feed::default();
    let mut changes = feed.changes();
    assert!(!changes.has_changed().unwrap());
    feed.recorded([recorded("A", 1)].iter());
    assert!(changes.has_changed().unwrap() && !changes.borrow_and_update().closed);
    feed.close();
    assert!(changes.borrow_and_update().closed);
}

#[test]
fn what_is_older_than_all_that_is_kept_changes_nothing() {
    let mut kept: VecDeque<Timestamp> = VecDeque::new();
    let noon = Timestamp::from_second(1_800_000_000).unwrap();
    for n in 0..KEPT {
        assert!(insert(&mut kept, noon + SignedDuration::from_secs(i64::try_from(n).unwrap()), |at| *at));
    }
    assert!(!insert(&mut kept, noon - SignedDuration::from_secs(1), |at| *at));
    assert_eq!((kept.len(), kept.back()), (KEPT, Some(&noon)));
}
