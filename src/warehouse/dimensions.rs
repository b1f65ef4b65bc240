use std::collections::{HashMap, HashSet};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use kassa_bus::business_date::business_date;
use kassa_bus::webhook::WarehouseSale;
use kassa_bus::{ItemNo, ShopId};
use tokio_postgres::{Client, Error, Transaction};

use super::dialect;
use crate::shops::Shops;

/// The keys of the rows that facts point to, as far as they are known to be there.
///
/// Only what was committed is in here. Rows are never deleted, so it stays true.
pub(super) struct Dimensions {
    shops: HashMap<ShopId, ShopRow>,
    items: HashMap<ItemNo, i32>,
    dates: HashSet<i32>,
}

#[derive(Clone)]
struct ShopRow {
    key: i32,
    zone: TimeZone,
}

/// What a sale's facts point to.
pub(super) struct SaleKeys {
    pub shop: i32,
    pub date: i32,
}

impl Dimensions {
    pub async fn read(client: &Client) -> Result<Self, Error> {
        let rows = client.query("select shop_key, shop_id, time_zone from dim_shop", &[]).await?;
        let shop = |row: &tokio_postgres::Row| {
            Some((row.get::<_, &str>(1).parse().ok()?, ShopRow { key: row.get(0), zone: zone(row.get(2)) }))
        };
        let shops = rows.iter().filter_map(shop).collect();
        let rows = client.query("select item_key, item_no from dim_item", &[]).await?;
        let item =
            |row: &tokio_postgres::Row| Some((row.get::<_, i64>(1).to_string().parse().ok()?, row.get(0)));
        let items = rows.iter().filter_map(item).collect();
        let dates = client.query("select date_key from dim_date", &[]).await?;
        Ok(Self { shops, items, dates: dates.iter().map(|row| row.get(0)).collect() })
    }

    /// Makes the rows that these sales point to and nobody made yet.
    pub async fn make(&mut self, client: &mut Client, sales: &[&WarehouseSale]) -> Result<(), Error> {
        if sales.iter().all(|sale| self.has_all(sale)) {
            return Ok(());
        }
        let transaction = client.transaction().await?;
        transaction.batch_execute(dialect::LOCK).await?;
        let mut made = Self { shops: HashMap::new(), items: HashMap::new(), dates: HashSet::new() };
        for sale in sales {
            let known = self.shops.get(&sale.shop_id).or_else(|| made.shops.get(&sale.shop_id));
            let shop = match known {
                Some(shop) => shop.clone(),
                None => shop_row(&transaction, &sale.shop_id).await?,
            };
            let date = booked_on(sale, &shop.zone);
            made.shops.insert(sale.shop_id.clone(), shop);
            if !self.dates.contains(&date_key(date)) && made.dates.insert(date_key(date)) {
                date_row(&transaction, date).await?;
            }
        }
        let items = sales.iter().flat_map(|sale| &sale.lines).map(|line| line.item_no);
        let unknown: HashSet<ItemNo> = items.filter(|item| !self.items.contains_key(item)).collect();
        made.items = item_rows(&transaction, unknown).await?;
        transaction.commit().await?;
        self.shops.extend(made.shops);
        self.items.extend(made.items);
        self.dates.extend(made.dates);
        Ok(())
    }

    fn has_all(&self, sale: &WarehouseSale) -> bool {
        self.keys(sale).is_some_and(|keys| self.dates.contains(&keys.date))
            && sale.lines.iter().all(|line| self.items.contains_key(&line.item_no))
    }

    pub fn keys(&self, sale: &WarehouseSale) -> Option<SaleKeys> {
        let shop = self.shops.get(&sale.shop_id)?;
        Some(SaleKeys { shop: shop.key, date: date_key(booked_on(sale, &shop.zone)) })
    }

    pub fn item(&self, item: ItemNo) -> Option<i32> {
        self.items.get(&item).copied()
    }
}

/// As the shop's own books have it.
fn booked_on(sale: &WarehouseSale, zone: &TimeZone) -> Date {
    business_date(sale.sold_at, &sale.sale_id, sale.accepted_at, zone).date
}

fn date_key(date: Date) -> i32 {
    i32::from(date.year()) * 10_000 + i32::from(date.month()) * 100 + i32::from(date.day())
}

fn zone(name: Option<&str>) -> TimeZone {
    name.and_then(|name| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC)
}

async fn shop_row(transaction: &Transaction<'_>, shop: &ShopId) -> Result<ShopRow, Error> {
    let there = "select shop_key, time_zone from dim_shop where shop_id = $1";
    if transaction.query_opt(there, &[&shop.as_str()]).await?.is_none() {
        let insert = "insert into dim_shop (shop_key, shop_id)
            select coalesce(max(shop_key), 0) + 1, $1::varchar from dim_shop";
        transaction.execute(insert, &[&shop.as_str()]).await?;
    }
    let row = transaction.query_one(there, &[&shop.as_str()]).await?;
    Ok(ShopRow { key: row.get(0), zone: zone(row.get(1)) })
}

/// The rows of these items, all at once: a sale has up to 2,000, and whoever delivers it waits.
async fn item_rows(
    transaction: &Transaction<'_>,
    items: impl IntoIterator<Item = ItemNo>,
) -> Result<HashMap<ItemNo, i32>, Error> {
    let by_number: HashMap<i64, ItemNo> = items.into_iter().map(|item| (number(item), item)).collect();
    let numbers: Vec<i64> = by_number.keys().copied().collect();
    let insert = "insert into dim_item (item_key, item_no)
        select (select coalesce(max(item_key), 0) from dim_item) + row_number() over (), came.item_no
        from unnest($1::bigint[]) as came (item_no)
        where not exists (select 1 from dim_item there where there.item_no = came.item_no)";
    transaction.execute(insert, &[&numbers]).await?;
    let there = "select item_no, item_key from dim_item where item_no = any($1::bigint[])";
    let rows = transaction.query(there, &[&numbers]).await?;
    Ok(rows.iter().filter_map(|row| Some((*by_number.get(&row.get(0))?, row.get(1)))).collect())
}

fn number(item: ItemNo) -> i64 {
    // At most 18 digits.
    item.to_string().parse().unwrap_or(i64::MAX)
}

async fn date_row(transaction: &Transaction<'_>, date: Date) -> Result<(), Error> {
    let week = date.iso_week_date();
    let text = date.to_string();
    let insert =
        "insert into dim_date (date_key, date, year, quarter, month, day, weekday, iso_year, iso_week)
        select $1::integer, cast($2::varchar as date), $3::smallint, $4::smallint, $5::smallint, $6::smallint,
               $7::smallint, $8::smallint, $9::smallint
        where not exists (select 1 from dim_date where date_key = $1::integer)";
    let quarter = (i16::from(date.month()) + 2) / 3;
    transaction
        .execute(
            insert,
            &[
                &date_key(date),
                &text,
                &date.year(),
                &quarter,
                &i16::from(date.month()),
                &i16::from(date.day()),
                &i16::from(date.weekday().to_monday_one_offset()),
                &week.year(),
                &i16::from(week.week()),
            ],
        )
        .await?;
    Ok(())
}

/// Fills in what is declared of shops and items.
pub(super) async fn declare(client: &mut Client, shops: &Shops) -> Result<(), Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(dialect::LOCK).await?;
    for shop in &shops.shops {
        let key = shop_row(&transaction, &shop.id).await?.key;
        let update = "update dim_shop set name = $2, time_zone = $3 where shop_key = $1";
        transaction.execute(update, &[&key, &&*shop.name, &shop.time_zone]).await?;
    }
    let keys = item_rows(&transaction, shops.items.iter().map(|item| item.item_no)).await?;
    for item in &shops.items {
        let key = keys.get(&item.item_no);
        let update = "update dim_item set description = $2 where item_key = $1";
        transaction.execute(update, &[&key, &item.description]).await?;
    }
    transaction.commit().await
}
