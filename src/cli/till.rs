use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use kassa_bus::jws::SigningKey;
use kassa_bus::{Clock, SaleId};
use serde_json::json;

use super::sell::{telling, told_of};
use super::{Failure, read};
use crate::args::{
    Destination, DrainArgs, DropRefusedArgs, EnrollArgs, JournalArgs, RetryRefusedArgs, RevokeArgs,
    SendingArgs, ShopArgs, TillArgs, TillCommand, TillStatusArgs,
};
use crate::cloud::Stage;
use crate::output::{print, say};
use crate::questions::render;
use crate::questions::tills::{Enrolment, Revocation};
use crate::till::drain::{Drain, Sent};
use crate::till::folder::TillFolder;
use crate::till::journal::{Journal, journals};
use crate::till::sell::progress_bar;
use crate::till::status::{self, JournalStatus};
use crate::till::url::ShopUrl;
use crate::till::{Format, Till};

pub(super) async fn till(command: TillCommand) -> Result<ExitCode, Failure> {
    match command {
        TillCommand::Enroll(args) => enroll(args).await,
        TillCommand::Revoke(args) => revoke(args).await,
        TillCommand::Status(args) => status(&args),
        TillCommand::Drain(DrainArgs { journal: whose, sending }) => match open(&whose).await? {
            Some((journal, url)) => send(&journal, &url, &whose, &sending).await,
            None if is_there(&whose)? => nothing_sent(&whose).await,
            None => Err(no_journal(&whose)),
        },
        TillCommand::Retry(args) => retry(args).await,
        TillCommand::Drop(args) => drop_refused(args).await,
        TillCommand::List(ShopArgs { shop, ask }) => {
            let asked = ask.shop.ask().await?;
            let tills = read(asked.tills(shop).await?);
            print(&if ask.json {
                format!("{}\n", json!(tills))
            } else {
                render::tills(&tills, &asked.zones().await)
            })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn status(args: &TillStatusArgs) -> Result<ExitCode, Failure> {
    let meant = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
    let (mut found, mut asked_for) = (Vec::new(), args.shop.is_none() && args.till.is_none());
    let all = journals(&args.folder).map_err(|why| unreadable(&args.folder, &why))?;
    let mut code = ExitCode::SUCCESS;
    for ([shop, till, address], path) in all {
        if !meant(&args.shop, &shop) || !meant(&args.till, &till) {
            continue;
        }
        asked_for = true;
        match Journal::look(&path) {
            Ok(Some(state)) => {
                found.push(JournalStatus::of([shop, till, address], &state, Clock::system().now()));
            }
            Ok(None) => {}
            // One that cannot be read hides no other.
            Err(why) => {
                say(format_args!("{till} of {shop}: {why}"));
                code = ExitCode::FAILURE;
            }
        }
    }
    if !asked_for {
        return Err(format!("no such till has a journal here; {}", tills_there(&args.folder)).into());
    }
    print(&if args.json { format!("{}\n", json!(found)) } else { status::text(&found) })?;
    Ok(code)
}

/// The address that a till posts to.
pub async fn url(to: &Destination) -> Result<ShopUrl, Failure> {
    Ok(match &to.stage {
        Some(stage) => Stage::find(&to.service.service, stage).await?.url()?.parse()?,
        None => to.url.clone(),
    })
}

/// The till's journal of sales to this address, if it has one.
async fn open(whose: &JournalArgs) -> Result<Option<(Journal, ShopUrl)>, Failure> {
    let url = url(&whose.to).await?;
    let folder = TillFolder::named(&whose.folder, &whose.shop, &whose.till).journal(&url);
    if !folder.try_exists().map_err(|why| unreadable(&folder, &why))? {
        return Ok(None);
    }
    let journal = Journal::open(&folder, Clock::system())?;
    told_of(&journal.found, &whose.till);
    Ok(Some((journal, url)))
}

/// Sends what waits.
async fn send(
    journal: &Journal,
    url: &ShopUrl,
    whose: &JournalArgs,
    how: &SendingArgs,
) -> Result<ExitCode, Failure> {
    let mut till =
        Till::new(&url.to_string(), whose.shop.clone(), &whose.till, Format::Sealed, Clock::system())?;
    till.patience = Duration::from_secs(how.patience);
    let bar = progress_bar(&whose.till);
    let say = telling(&whose.till, &till, &bar);
    bar.set_length(journal.waiting());
    let (mut accepted, mut refused) = (0, 0);
    let draining = Drain { till: &till, journal, rate: how.rate };
    let mut sent = |sent: Sent| {
        bar.inc(sent.count() as u64);
        accepted += sent.accepted.len();
        refused += sent.refused.len();
    };
    draining.until_empty(&mut sent, &mut |away| say(away)).await?;
    bar.finish_and_clear();
    sent_text(accepted, refused, journal.waiting())
}

/// A till that has sold nothing at this address has nothing to send there; what waits for others is named.
async fn nothing_sent(whose: &JournalArgs) -> Result<ExitCode, Failure> {
    let all = journals(&whose.folder).map_err(|why| unreadable(&whose.folder, &why))?;
    let of = |shop: &str, till: &str| shop == whose.shop.as_str() && till == whose.till;
    let mut elsewhere = 0;
    for ([_, _, address], path) in all.into_iter().filter(|([shop, till, _], _)| of(shop, till)) {
        let waiting = Journal::look(&path)?.map_or(0, |state| state.waiting);
        if waiting > 0 {
            say(format_args!("{}: {waiting} sales wait for {address}; say so with --url", whose.till));
            elsewhere += waiting;
        }
    }
    let url = url(&whose.to).await?;
    print(format_args!("0 accepted, 0 refused, 0 still wait for {url}\n"))?;
    Ok(if elsewhere == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn sent_text(accepted: usize, refused: usize, wait: u64) -> Result<ExitCode, Failure> {
    print(format_args!("{accepted} accepted, {refused} refused, {wait} still wait\n"))?;
    Ok(if refused == 0 && wait == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Refused sales of a journal: those that are named, or all.
fn refused(journal: &Journal, named: Vec<SaleId>) -> Result<Vec<SaleId>, Failure> {
    let all: Vec<SaleId> = journal.all_refused()?.into_iter().map(|refused| refused.sale_id).collect();
    if let Some(other) = named.iter().find(|sale| !all.contains(sale)) {
        return Err(format!(
            "sale {other} is not among the {} refused ones; kassa till status shows them",
            all.len()
        )
        .into());
    }
    Ok(if named.is_empty() { all } else { named })
}

async fn retry(
    RetryRefusedArgs { journal: whose, sending, sales }: RetryRefusedArgs,
) -> Result<ExitCode, Failure> {
    let Some((journal, url)) = open(&whose).await? else { return Err(no_journal(&whose)) };
    let sales = refused(&journal, sales)?;
    let all = sales.len();
    let again = journal.retry(sales).await?;
    if again < all {
        say(format_args!("{}: of {} sales the body is gone, which cannot be sent", whose.till, all - again));
    }
    send(&journal, &url, &whose, &sending).await
}

async fn drop_refused(
    DropRefusedArgs { journal: whose, why, sales, all: _ }: DropRefusedArgs,
) -> Result<ExitCode, Failure> {
    let Some((journal, _)) = open(&whose).await? else { return Err(no_journal(&whose)) };
    let dropped = journal.drop_refused(refused(&journal, sales)?, why.into()).await?;
    print(format_args!("{dropped} refused sales are given up\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether this machine has a till of this name.
fn is_there(whose: &JournalArgs) -> Result<bool, Failure> {
    let folder = TillFolder::named(&whose.folder, &whose.shop, &whose.till);
    folder.path().try_exists().map_err(|why| unreadable(folder.path(), &why))
}

fn unreadable(folder: &Path, why: &std::io::Error) -> Failure {
    format!("cannot read {}: {why}", folder.display()).into()
}

fn no_journal(whose: &JournalArgs) -> Failure {
    format!("{} of {} has no journal here; {}", whose.till, whose.shop, tills_there(&whose.folder)).into()
}

/// Which tills have a journal here.
fn tills_there(folder: &Path) -> String {
    let found = journals(folder).unwrap_or_default().into_iter();
    let mut names: Vec<String> = found.map(|([shop, till, _], _)| format!("{till} of {shop}")).collect();
    names.dedup();
    if names.is_empty() { "no till has".to_owned() } else { format!("there are: {}", names.join(", ")) }
}

async fn enroll(args: EnrollArgs) -> Result<ExitCode, Failure> {
    let TillArgs { shop: shop_id, till } = args.till;
    let folder = TillFolder::new(&args.folder, &shop_id, &till);
    let key = || match &args.key {
        Some(file) => read_key(file),
        None => Ok(folder.make_signer()?.key()),
    };
    if args.print {
        print(format_args!("{}\n", json!(key()?)))?;
        return Ok(ExitCode::SUCCESS);
    }
    // No key is made for a shop that cannot be asked.
    let asked = args.ask.shop.ask().await?;
    let key = key()?;
    let enrolled = asked.enrol(&Enrolment { shop_id, till, key }, Clock::system().now()).await?;
    let mut text =
        format!("Till {} of {} is enrolled: what it signs counts.\n", enrolled.till, enrolled.shop_id);
    if args.jwk {
        let jwk = folder.make_jwk()?;
        text.push_str(&format!(
            "Its private key is also in {}, for tills in other languages.\n",
            jwk.display()
        ));
    }
    print(&if args.ask.json { format!("{}\n", json!(enrolled)) } else { text })?;
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
    print(&if args.ask.json { format!("{}\n", json!(revoked)) } else { text })?;
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
