use std::process::ExitCode;

use kassa_bus::Clock;
use serde_json::json;

use super::Failure;
use crate::args::{KeyCommand, RetireArgs, RotateArgs, ShopArgs};
use crate::output::print;
use crate::questions::render;
use crate::rotation::{Retirement, Rotation};

pub(super) async fn key(command: KeyCommand) -> Result<ExitCode, Failure> {
    let now = Clock::system().now();
    match command {
        KeyCommand::List(ShopArgs { shop, ask }) => {
            let asked = ask.shop.ask().await?;
            let (keys, zones) = (asked.keys(shop, now).await?, asked.zones().await);
            let shown = || render::keys(&keys, &zones, &ask.shop.reach());
            print(&if ask.json { format!("{}\n", json!(keys)) } else { shown() })?;
        }
        KeyCommand::Rotate(RotateArgs { shop: shop_id, overlap, lost, ask }) => {
            let asked = ask.shop.ask().await?;
            let rotated = asked.rotate(&Rotation { shop_id, overlap, lost }, now).await?;
            let zones = asked.zones().await;
            let shown = || {
                if lost {
                    format!("Tills of {} now get the key {}.\n", rotated.shop_id, rotated.to)
                } else {
                    render::rotated(&rotated, &zones, &ask.shop.reach())
                }
            };
            print(&if ask.json { format!("{}\n", json!(rotated)) } else { shown() })?;
        }
        KeyCommand::Retire(RetireArgs { shop: shop_id, kid, now: at_once, ask }) => {
            let retirement = Retirement { shop_id, kid, now: at_once };
            let retired = ask.shop.ask().await?.retire(&retirement, now).await?;
            let text = format!("{} opens nothing any more. It was not deleted.\n", retired.key.kid);
            print(&if ask.json { format!("{}\n", json!(retired)) } else { text })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
