use std::process::ExitCode;

use kassa_bus::Clock;
use serde_json::json;

use super::{Failure, advance, events_bar};
use crate::args::{AskArgs, DeadLettersArgs, DeadLettersCommand, DropArgs, ListArgs, RedriveArgs, ShowArgs};
use crate::output::print;
use crate::questions::dead_letters::LetterFilter;
use crate::questions::render_again as render;

pub(super) async fn dead_letters(args: DeadLettersArgs) -> Result<ExitCode, Failure> {
    match args.command.unwrap_or(DeadLettersCommand::List(ListArgs { ask: args.ask })) {
        DeadLettersCommand::List(ListArgs { ask }) => list(ask).await?,
        DeadLettersCommand::Show(ShowArgs { queue, ask }) => {
            let letters = ask.shop.ask().await?.letters(&queue).await?;
            print(&if ask.json {
                format!("{}\n", json!(letters))
            } else {
                render::letters(&queue, &letters)
            })?;
        }
        DeadLettersCommand::Redrive(RedriveArgs { queue, ask }) => {
            let (filter, bar) = (LetterFilter { queue, id: None, why: None }, events_bar("sending back"));
            let asked = ask.shop.ask().await?;
            let sent = asked.redrive(&filter, &|sent, of| advance(&bar, sent, of)).await?;
            bar.finish_and_clear();
            let text = match sent {
                0 => "There are no dead letters to send back.\n".to_owned(),
                sent => format!(
                    "{sent} sent back; kassa dead-letters{} tells which failed again\n",
                    ask.shop.reach()
                ),
            };
            print(&if ask.json { format!("{}\n", json!({"sent": sent})) } else { text })?;
        }
        DeadLettersCommand::Drop(DropArgs { queue, id, why, ask }) => {
            let filter = LetterFilter { queue: Some(queue), id, why: Some(why) };
            let (asked, bar) = (ask.shop.ask().await?, events_bar("dropping"));
            let progress = |dropped, of| advance(&bar, dropped, of);
            let dropped = asked.drop_letters(&filter, Clock::system().now(), &progress).await?;
            bar.finish_and_clear();
            let text = match dropped {
                0 => "There are no dead letters to drop.\n".to_owned(),
                dropped => format!("{dropped} dropped, each with an event that says why\n"),
            };
            print(&if ask.json { format!("{}\n", json!({"dropped": dropped})) } else { text })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(ask: AskArgs) -> Result<(), Failure> {
    let queues = ask.shop.ask().await?.dead_letters().await?;
    let shown = || render::dead_letters(&queues, &ask.shop.reach());
    print(&if ask.json { format!("{}\n", json!(queues)) } else { shown() })?;
    Ok(())
}
