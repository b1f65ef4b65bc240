use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use kassa_bus::Clock;
use kassa_bus::jws::SigningKey;
use serde_json::json;

use super::{Failure, print, read};
use crate::args::{
    Destination, DrainArgs, EnrollArgs, RevokeArgs, ShopArgs, TillArgs, TillCommand, TillStatusArgs,
};
use crate::cloud::Stage;
use crate::questions::render;
use crate::questions::tills::{Enrolment, Revocation};
use crate::till::drain::Drain;
use crate::till::folder::TillFolder;
use crate::till::journal::{Journal, journals};
use crate::till::sell::progress_bar;
use crate::till::status::{self, JournalStatus};
use crate::till::{Format, Till};

pub(super) async fn till(command: TillCommand) -> Result<ExitCode, Failure> {
    match command {
        TillCommand::Enroll(args) => enroll(args).await,
        TillCommand::Revoke(args) => revoke(args).await,
        TillCommand::Status(args) => status(&args),
        TillCommand::Drain(args) => drain(args).await,
        TillCommand::List(ShopArgs { shop, ask }) => {
            let tills = read(ask.shop.ask().await?.tills(shop).await?);
            print(&if ask.json { format!("{}\n", json!(tills)) } else { render::tills(&tills) });
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn status(args: &TillStatusArgs) -> Result<ExitCode, Failure> {
    let meant = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
    let mut found = Vec::new();
    let unreadable = |why| format!("cannot read {}: {why}", args.folder.display());
    let all = journals(&args.folder).map_err(unreadable)?;
    for ([shop, till, address], path) in all {
        if meant(&args.shop, &shop)
            && meant(&args.till, &till)
            && let Some(state) = Journal::look(&path)?
        {
            found.push(JournalStatus::of([shop, till, address], &state, Clock::system().now()));
        }
    }
    print(&if args.json { format!("{}\n", json!(found)) } else { status::text(&found) });
    Ok(ExitCode::SUCCESS)
}

/// The address that a till posts to.
pub async fn url(to: &Destination) -> Result<String, Failure> {
    Ok(match &to.stage {
        Some(stage) => Stage::find(&to.service.service, stage).await?.url()?.to_owned(),
        None => to.url.clone(),
    })
}

async fn drain(args: DrainArgs) -> Result<ExitCode, Failure> {
    let url = url(&args.to).await?;
    let till = Till::new(&url, args.shop.clone(), &args.till, Format::Sealed, Clock::system())?;
    let (bar, patience) = (progress_bar(&args.till), Duration::from_secs(args.patience));
    let (mut waited, mut wait, mut refused) = (0, 0, 0);
    for path in TillFolder::named(&args.folder, &args.shop, &args.till).journals(&url)? {
        let journal = Journal::open(&path, Clock::system())?;
        let (before, known) = (journal.waiting() as u64, journal.refusals());
        waited += before;
        bar.set_length(waited);
        let draining = Drain { till: &till, journal: &journal, rate: args.rate };
        draining.until_empty(patience, &mut |sent| bar.inc(sent)).await?;
        wait += journal.waiting() as u64;
        refused += (journal.refusals() - known) as u64;
    }
    bar.finish_and_clear();
    let accepted = waited - wait - refused;
    print(&format!("{accepted} accepted, {refused} refused, {wait} still wait\n"));
    Ok(if wait + refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn enroll(args: EnrollArgs) -> Result<ExitCode, Failure> {
    let TillArgs { shop: shop_id, till } = args.till;
    let key = || match &args.key {
        Some(file) => read_key(file),
        None => Ok(TillFolder::new(&args.folder, &shop_id, &till).make_signer()?.key()),
    };
    if args.print {
        print(&format!("{}\n", json!(key()?)));
        return Ok(ExitCode::SUCCESS);
    }
    // No key is made for a shop that cannot be asked.
    let asked = args.ask.shop.ask().await?;
    let key = key()?;
    let enrolled = asked.enrol(&Enrolment { shop_id, till, key }, Clock::system().now()).await?;
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
