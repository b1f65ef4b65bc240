use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use kassa_bus::Clock;
use kassa_bus::jws::SigningKey;
use serde_json::json;

use super::{Failure, print};
use crate::args::{EnrollArgs, RevokeArgs, ShopArgs, TillArgs, TillCommand};
use crate::questions::render;
use crate::questions::tills::{Enrolment, Revocation};
use crate::till::folder::TillFolder;

pub(super) async fn till(command: TillCommand) -> Result<ExitCode, Failure> {
    match command {
        TillCommand::Enroll(args) => enroll(args).await,
        TillCommand::Revoke(args) => revoke(args).await,
        TillCommand::List(ShopArgs { shop, ask }) => {
            let tills = ask.shop.ask().await?.tills(shop).await?;
            print(&if ask.json { format!("{}\n", json!(tills)) } else { render::tills(&tills) });
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn enroll(args: EnrollArgs) -> Result<ExitCode, Failure> {
    let TillArgs { shop: shop_id, till } = args.till;
    let key = match &args.key {
        Some(file) => read_key(file)?,
        None => TillFolder::new(&args.folder, &shop_id, &till).make_signer()?.key(),
    };
    if args.print {
        print(&format!("{}\n", json!(key)));
        return Ok(ExitCode::SUCCESS);
    }
    let enrolment = Enrolment { shop_id, till, key };
    let enrolled = args.ask.shop.ask().await?.enrol(&enrolment, Clock::system().now()).await?;
    let text = format!("Till {} of {} is enrolled: what it signs counts.\n", enrolled.till, enrolled.shop_id);
    print(&if args.ask.json { format!("{}\n", json!(enrolled)) } else { text });
    Ok(ExitCode::SUCCESS)
}

async fn revoke(args: RevokeArgs) -> Result<ExitCode, Failure> {
    let TillArgs { shop: shop_id, till } = args.till;
    let revocation = Revocation { shop_id, till };
    let revoked = args.ask.shop.ask().await?.revoke(&revocation, Clock::system().now()).await?;
    let text = format!(
        "Till {} of {} may sign no more, which is known everywhere within a minute. Its earlier sales stay.\n",
        revoked.till, revoked.shop_id
    );
    print(&if args.ask.json { format!("{}\n", json!(revoked)) } else { text });
    Ok(ExitCode::SUCCESS)
}

fn read_key(file: &Path) -> Result<SigningKey, Failure> {
    let name = file.display();
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().take(64 * 1024).read_to_string(&mut text)?;
        text
    } else {
        std::fs::read_to_string(file).map_err(|why| format!("cannot read {name}: {why}"))?
    };
    Ok(serde_json::from_str(&text).map_err(|why| format!("{name}: {why}"))?)
}
