use std::fs::File;
use std::io::Read;
use std::path::Path;

use kassa_bus::amount::{Amount, Total};
use kassa_bus::{Line, ShopId};
use kassa_pipeline::content;
use kassa_pipeline::read_model::DeclaredItem;
use rand::Rng;
use rand::seq::IndexedRandom;

use super::{Basket, Format};

/// What to sell.
pub enum Goods {
    /// This sale, each time.
    Basket(Basket),
    /// Random lines of these items.
    Random(Vec<DeclaredItem>),
}

/// Who sells what is in a file.
pub struct Seller<'a> {
    pub shop: &'a ShopId,
    pub till: &'a str,
    pub format: Format,
}

/// Bytes of a sale's file, at most: what spaces and lines make of the largest.
const LONGEST: u64 = 4 * 1024 * 1024;

/// Reads a sale from a file: the content as formats have it, `{"sales":[…]}`. What it says beside the lines is taken, or refused
/// where somebody else has to say it.
///
/// # Errors
/// What is wrong with the file, in words.
pub fn read_sale(file: &Path, by: &Seller<'_>) -> Result<Basket, String> {
    let name = file.display();
    let mut json = Vec::new();
    let read = File::open(file).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut json));
    read.map_err(|e| format!("cannot read {name}: {e}"))?;
    if json.len() as u64 > LONGEST {
        return Err(format!("{name} has more than {LONGEST} bytes, and no sale has"));
    }
    let content = content::parse(&json).map_err(|e| format!("{name}: {e}"))?;
    if let Some(till) = content.till.as_ref().filter(|till| *till != by.till) {
        return Err(format!(
            "{name}: the sale is of till {till}; sell it with --till {till}, or leave till out"
        ));
    }
    if let Some(shop) = content.shop_id.as_ref().filter(|shop| *shop != by.shop) {
        return Err(format!(
            "{name}: the sale is of shop {shop}; sell it with --shop {shop}, or leave shop_id out"
        ));
    }
    let counted = [("sale_id", content.sale_id.is_some()), ("seq", content.seq.is_some())];
    if let Some((field, _)) = counted.into_iter().find(|(_, there)| *there) {
        return Err(format!("{name}: {field} is the till's to give; leave it out"));
    }
    if by.format == Format::Classic && content.sold_at.is_some() {
        return Err(format!(
            "{name}: a classic sale has no place for sold_at; leave it out, or use --format sealed"
        ));
    }
    Ok(Basket { lines: content.lines, sold_at: content.sold_at })
}

impl Goods {
    /// Most sales are of a few items, one in fifty is a refund. A classic sale has room for one line.
    pub(super) fn basket(&self, format: Format) -> Basket {
        let items = match self {
            Self::Basket(basket) => return basket.clone(),
            Self::Random(items) => items,
        };
        let mut random = rand::rng();
        let lines = if format == Format::Classic { 1 } else { random.random_range(1..=5) };
        let sign = if random.random_ratio(1, 50) { -1 } else { 1 };
        let chosen = items.choose_multiple(&mut random, lines).collect::<Vec<_>>();
        let lines = chosen.into_iter().map(|item| {
            let pieces: i64 = sign * random.random_range(1..=4);
            let price = (0..pieces.abs()).map(|_| item.price).sum::<Total>();
            // Four of what a till may send are far from being more than an amount can be.
            let price = price.amount().unwrap_or(item.price);
            let gross_turnover = if sign < 0 { -price } else { price };
            Line { item_no: item.item_no, gross_number: Amount::from(pieces), gross_turnover }
        });
        lines.collect::<Vec<_>>().into()
    }
}
