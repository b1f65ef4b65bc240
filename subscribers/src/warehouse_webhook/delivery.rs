use std::collections::VecDeque;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use kassa_bus::limits::json_bytes;
use kassa_bus::message::DecryptedSale;
use kassa_bus::webhook::{SalesDelivery, WarehouseSale};
use zeroize::Zeroizing;

/// Sales in one delivery, at most.
const MOST_SALES: usize = 100;

/// Bytes of a delivery's JSON, at most. A sale that is larger by itself goes alone.
const MOST_BYTES: usize = 256 * 1024;

/// What a delivery's JSON has around its sales, generously.
const FRAME: usize = 128;

/// A sale on its way. Cannot be printed: it is plaintext.
#[derive(Clone)]
pub struct Parcel {
    /// Which message of the batch it came in.
    pub place: usize,
    /// What tells this very sale from all others.
    mark: String,
    sale: WarehouseSale,
    size: usize,
}

impl Parcel {
    #[must_use]
    pub fn of(place: usize, sale: DecryptedSale) -> Self {
        let mark = format!("{} {} {}\n", sale.shop_id, sale.sale_id, sale.envelope);
        let sale = WarehouseSale::from(sale);
        // With the comma after it.
        let size = json_bytes(&sale) + 1;
        Self { place, mark, sale, size }
    }
}

/// Sales that go in one request: at least one.
#[derive(Clone)]
pub struct Delivery(Vec<Parcel>);

/// Packs sales into as few deliveries as keep their order.
#[must_use]
pub fn pack(parcels: Vec<Parcel>) -> VecDeque<Delivery> {
    let mut deliveries: VecDeque<Delivery> = VecDeque::new();
    let mut size = 0;
    for parcel in parcels {
        match deliveries.back_mut() {
            Some(Delivery(packed)) if packed.len() < MOST_SALES && size + parcel.size <= MOST_BYTES => {
                size += parcel.size;
                packed.push(parcel);
            }
            _ => {
                size = FRAME + parcel.size;
                deliveries.push_back(Delivery(vec![parcel]));
            }
        }
    }
    deliveries
}

impl Delivery {
    pub fn places(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|parcel| parcel.place)
    }

    #[must_use]
    pub fn sales(&self) -> u64 {
        self.0.len() as u64
    }

    /// The same for the same sales, whatever their order and however often they are sent.
    #[must_use]
    pub fn id(&self) -> String {
        let mut marks: Vec<&str> = self.0.iter().map(|parcel| parcel.mark.as_str()).collect();
        marks.sort_unstable();
        let mut hash = Context::new(&SHA256);
        for mark in marks {
            hash.update(mark.as_bytes());
        }
        format!("sales_{}", BASE64_URL_SAFE_NO_PAD.encode(hash.finish()))
    }

    /// The JSON. Its time is when the last of its sales was accepted, so that what is sent again is the
    /// same to the byte.
    #[must_use]
    pub fn body(&self) -> Zeroizing<Vec<u8>> {
        let sales: Vec<WarehouseSale> = self.0.iter().map(|parcel| parcel.sale.clone()).collect();
        let last = sales.iter().map(|sale| sale.accepted_at).max().unwrap_or(Timestamp::UNIX_EPOCH);
        SalesDelivery::of(sales, last).to_json()
    }

    /// Two deliveries instead of one that has several sales.
    #[must_use]
    pub fn halves(&self) -> Option<[Self; 2]> {
        let (first, second) = self.0.split_at(self.0.len() / 2);
        (!first.is_empty()).then(|| [Self(first.to_vec()), Self(second.to_vec())])
    }
}

#[cfg(test)]
mod tests {
    use kassa_bus::Line;
    use kassa_bus::message::Origin;
    use proptest::prelude::*;

    use super::*;

    /// Sale `n` of a till whose name makes it so large.
    fn parcel(n: usize, till: usize) -> Parcel {
        let line = Line {
            item_no: "98".parse().unwrap(),
            gross_number: "1".parse().unwrap(),
            gross_turnover: "18.95".parse().unwrap(),
        };
        let sale = DecryptedSale {
            shop_id: "AMIS1".parse().unwrap(),
            sale_id: format!("{n}-20261122").parse().unwrap(),
            lines: vec![line],
            till: Some("t".repeat(till)),
            seq: None,
            sold_at: None,
            key: None,
            signed_by: None,
            envelope: format!("hash{n}"),
            origin: Origin {
                source: "192.0.2.1".into(),
                accepted_at: Timestamp::from_second(1_795_000_000 + i64::try_from(n).unwrap()).unwrap(),
                attempt: 1,
                opened_with: None,
                trace: None,
            },
        };
        Parcel::of(n, sale)
    }

    fn places(deliveries: &VecDeque<Delivery>) -> Vec<Vec<usize>> {
        deliveries.iter().map(|delivery| delivery.places().collect()).collect()
    }

    #[test]
    fn no_sales_are_no_delivery() {
        assert!(pack(Vec::new()).is_empty());
    }

    #[test]
    fn a_sale_that_is_too_large_goes_alone() {
        let deliveries = pack(vec![parcel(0, 1), parcel(1, MOST_BYTES), parcel(2, 1), parcel(3, 1)]);
        assert_eq!(places(&deliveries), [vec![0], vec![1], vec![2, 3]]);
    }

    #[test]
    fn the_same_sales_have_the_same_id_and_body_and_others_have_others() {
        let id = |sales: &[usize]| Delivery(sales.iter().map(|&n| parcel(n, 1)).collect()).id();
        assert_eq!(id(&[1, 2, 3]), id(&[3, 1, 2]));
        for other in [&[1, 2][..], &[1, 2, 3, 4], &[1, 2, 4], &[12, 3], &[1, 2, 3, 3]] {
            assert_ne!(id(&[1, 2, 3]), id(other), "{other:?}");
        }
        let mut resealed = parcel(1, 1);
        resealed.mark = resealed.mark.replace("hash", "other");
        assert_ne!(Delivery(vec![resealed]).id(), id(&[1]));
        let body = || Delivery(vec![parcel(2, 1), parcel(1, 1)]).body();
        assert!(body() == body());
        let read = SalesDelivery::read(&body()).ok().unwrap();
        assert_eq!(read.timestamp.as_second(), 1_795_000_002);
    }

    #[test]
    fn one_sale_cannot_be_halved() {
        let three = Delivery(vec![parcel(0, 1), parcel(1, 1), parcel(2, 1)]);
        let [first, second] = three.halves().unwrap();
        assert_eq!(places(&[first.clone(), second].into()), [vec![0], vec![1, 2]]);
        assert!(first.halves().is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn every_sale_is_packed_once_in_order_and_within_the_limits(
            tills in proptest::collection::vec(prop_oneof![9 => 0..6_000usize, 1 => 0..300_000usize], 0..150),
        ) {
            let sales = tills.len();
            let deliveries = pack(tills.into_iter().enumerate().map(|(n, till)| parcel(n, till)).collect());
            prop_assert_eq!(places(&deliveries).concat(), (0..sales).collect::<Vec<_>>());
            let size = |delivery: &Delivery| delivery.body().len();
            for delivery in &deliveries {
                prop_assert!(delivery.0.len() <= MOST_SALES);
                prop_assert!(size(delivery) <= MOST_BYTES || delivery.sales() == 1);
                let read = SalesDelivery::read(&delivery.body()).ok().unwrap();
                prop_assert!(read.data.sales == delivery.0.iter().map(|p| p.sale.clone()).collect::<Vec<_>>());
            }
            // None could have gone with the one before it.
            for (before, after) in deliveries.iter().zip(deliveries.iter().skip(1)) {
                let fuller = size(before) + after.0[0].size + FRAME > MOST_BYTES;
                prop_assert!(before.0.len() == MOST_SALES || fuller);
            }
        }
    }
}
