//! `kassa stock`: rows as they are read, page by page, so that it takes no more memory than the rows of one shop.

use std::process::ExitCode;

use kassa_pipeline::row::ReadRow;
use serde_json::json;

use super::{Failure, print, say_skipped};
use crate::args::ShopArgs;
use crate::questions::render;
use crate::questions::stock::StockFilter;

pub(super) async fn stock(ShopArgs { shop, ask }: ShopArgs) -> Result<ExitCode, Failure> {
    let asked = ask.shop.ask().await?;
    let (mut page, mut first) = (Some(String::new()), true);
    let mut rows: Vec<ReadRow> = Vec::new();
    while page.is_some() {
        let more = asked.stock(&StockFilter { shop: shop.clone(), page }).await?;
        say_skipped(&more.rows.unreadable);
        page = more.next;
        if ask.json {
            for row in more.rows.rows {
                print(format!("{}{}", if first { "[" } else { "," }, json!(row)))?;
                first = false;
            }
            continue;
        }
        for row in more.rows.rows {
            if rows.last().is_some_and(|last| last.shop_id() != row.shop_id()) {
                print(render::stock(&std::mem::take(&mut rows)))?;
            }
            rows.push(row);
        }
    }
    print(&match (ask.json, first) {
        (true, true) => "[]\n".to_owned(),
        (true, false) => "]\n".to_owned(),
        (false, _) => render::stock(&rows),
    })?;
    Ok(ExitCode::SUCCESS)
}
