//! A shop on this machine that has a fourth subscriber: sells, and compares its points with the turnover.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use kassa::embedded::{OpenShop, Sync, Up};
use kassa::questions::Questions;
use kassa::shops::Shops;
use kassa::till::goods::Goods;
use kassa::till::sell::{Pace, sell};
use kassa::till::{Format, Till};
use kassa_bus::amount::{Amount, Total};
use kassa_bus::{Clock, Settings};
use kassa_pipeline::row::ReadRow;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let up = Up {
        listen: "127.0.0.1:0".parse()?,
        data: folder.path().to_owned(),
        shops: Shops::read(None)?,
        sync: Sync::Normal,
        clock: Clock::system(),
        settings: Settings::none(),
            tls: None,
    };
    let shop = OpenShop::open(up).await?;
    let till = Till::new(&shop.occupant.url, "AMIS1".parse()?, "till-1", Format::Sealed, Clock::system())?;
    let goods = Arc::new(Goods::Random(Shops::read(None)?.items));
    let pace = Pace { count: 50, rate: None, concurrency: 8 };
    let sold = sell(Arc::new(till), goods, pace, ProgressBar::hidden()).await?;
    assert_eq!((sold.accepted, sold.failed), (50, 0));

    let questions = Questions::new(shop.store.books());
    let documents = shop.store.documents("loyalty-points", Clock::system());
    for _ in 0..300 {
        let rows = questions.stock(Some("AMIS1")).await?.rows;
        let days = rows.iter().filter_map(|row| if let ReadRow::Day(day) = row { Some(day) } else { None });
        let (sales, turnover): (Vec<Amount>, Vec<Amount>) = days.map(|day| (day.sales, day.turnover)).unzip();
        let points: Option<Amount> = documents.get("points", "AMIS1").await?;
        let [sales, turnover] = [sales, turnover].map(|of| of.into_iter().sum::<Total>().amount());
        if sales == Some(Amount::from(50)) && points.is_some() && points == turnover {
            assert_eq!(shop.close().await, 0);
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("in half a minute the points did not come to what the turnover is".into())
}
