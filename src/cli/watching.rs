use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use kassa_bus::Clock;
use serde_json::json;
use tokio::net::TcpListener;

use super::restore::reach;
use super::{Failure, asked_to_stop};
use crate::args::{ConsoleArgs, StatusArgs};
use crate::cloud::{Stage, StageConsole};
use crate::output::{OutputError, announce, print, reader_gone};
use crate::status::{self, Paper, Screen, Status};

pub(super) async fn status(StatusArgs { watch, ask }: StatusArgs) -> Result<ExitCode, Failure> {
    // A stage stays where it is. A shop of this machine opens and closes, and while it is closed and we ask, nobody
    // else can open it.
    let deployed = if ask.shop.stage.is_some() { Some(ask.shop.ask().await?) } else { None };
    let look = async || -> Result<Status, Failure> {
        let now = Clock::system().now();
        let status = match &deployed {
            Some(asked) => asked.status(now).await?,
            None => ask.shop.ask().await?.status(now).await?,
        };
        Ok(status.reached_by(&ask.shop.reach()))
    };
    let last = if watch {
        let every = if deployed.is_some() { STAGE_LOOK } else { STATUS_LOOK };
        let enough = async {
            tokio::select! {
                _ = asked_to_stop() => Ok(()),
                () = reader_gone() => Err(OutputError::Closed),
            }
        };
        Box::pin(status::watch(&Screen::stdout(ask.json), every, look, enough)).await?
    } else {
        look().await?
    };
    // What was watched on a screen of its own is left behind as well; what was told line by line was told.
    if !watch || (std::io::stdout().is_terminal() && !ask.json) {
        print(&if ask.json { format!("{}\n", json!(last)) } else { status::render(&last, Paper::stdout()) })?;
    }
    Ok(if last.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How often a watched shop of this machine is looked at.
const STATUS_LOOK: Duration = Duration::from_secs(2);

/// How often a watched stage is: `CloudWatch` has nothing new sooner, and each look costs money.
const STAGE_LOOK: Duration = Duration::from_mins(1);

pub(super) async fn console(
    ConsoleArgs { stage, service, listen }: ConsoleArgs,
) -> Result<ExitCode, Failure> {
    let reach = reach(&stage, &service);
    let stage = Stage::find(&service.service, &stage).await?;
    let why = |why| format!("cannot listen on {listen}: {why}; choose another with --listen");
    let listener = TcpListener::bind(listen).await.map_err(why)?;
    let console = StageConsole::new(&stage, listener.local_addr()?, Clock::system(), reach).await?;
    announce(format_args!(
        "The console of {} is at {}\nCtrl-C closes it.\n",
        stage.place(),
        console.address
    ))?;
    console.serve(listener, async { drop(asked_to_stop().await) }).await?;
    Ok(ExitCode::SUCCESS)
}
