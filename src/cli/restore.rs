use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::json;

use super::{Failure, backup, events_bar, print};
use crate::args::{After, RestoreArgs, SERVICE, Service};
use crate::cloud::restore::{BesideStage, PutBack, Restore, Restored, Step, Then};
use crate::cloud::{Stage, StageName};
use crate::questions::render;

pub(super) async fn restore(args: RestoreArgs) -> Result<ExitCode, Failure> {
    match (&args.stage, args.from) {
        (Some(name), _) => {
            let stage = Stage::find(&args.service.service, name).await?;
            rehearse(stage, &reach(name, &args.service), args.at, args.after, args.json).await
        }
        (None, Some(from)) => backup::restore(&from, &args.data, args.json).await,
        (None, None) => Err("say which backup, or which --stage".into()),
    }
}

async fn rehearse(
    stage: Stage,
    reach: &str,
    at: Option<Timestamp>,
    after: After,
    json: bool,
) -> Result<ExitCode, Failure> {
    let bar = Bar::new();
    if after.discard {
        let removed = stage.discard_copies(&|step| bar.shows(step)).await?;
        bar.finish();
        print(&if json {
            format!("{}\n", json!({"removed": removed}))
        } else if removed.is_empty() {
            format!("{} has no copies.\n", stage.stack())
        } else {
            format!("Removed: {}\n", removed.join(", "))
        });
        return Ok(ExitCode::SUCCESS);
    }
    let then = match after {
        After { put_back: true, .. } => Then::PutBack,
        After { keep: true, .. } => Then::Keep,
        After { .. } => Then::Remove,
    };
    let restored = stage.restore(Restore { at, then }, &|step| bar.shows(step)).await;
    bar.finish();
    let restored = restored.inspect_err(|_| {
        eprintln!(
            "What was restored so far stays: the same command goes on with it, kassa restore{reach} --discard removes it."
        );
    })?;
    print(&if json { format!("{}\n", json!(restored)) } else { text(&restored, stage.stack(), reach) });
    Ok(if restored.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) fn reach(stage: &StageName, service: &Service) -> String {
    match service.service.as_str() {
        SERVICE => format!(" --stage {stage}"),
        service => format!(" --stage {stage} --service {service}"),
    }
}

/// Draws nothing where stderr is no terminal.
struct Bar {
    waits: ProgressBar,
    events: ProgressBar,
}

impl Bar {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg}, {elapsed}");
        let waits =
            ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self { waits, events: events_bar("") }
    }

    fn shows(&self, step: Step) {
        let (doing, read) = match step {
            Step::Restoring => ("restoring (AWS does not say how far it is)", None),
            Step::Waiting => ("waiting for the stream", None),
            Step::Removing => ("removing the copies", None),
            Step::Rebuilding(read, of) => ("rebuilding", Some((read, of))),
            Step::Checking(read, of) => ("checking", Some((read, of))),
            Step::Comparing(read, of) => ("comparing", Some((read, of))),
            Step::PuttingBack(read, of) => ("putting back", Some((read, of))),
        };
        match read {
            None => {
                self.waits.set_message(doing);
                self.waits.enable_steady_tick(Duration::from_millis(200));
            }
            Some((read, of)) => {
                self.waits.disable_steady_tick();
                self.events.set_prefix(doing);
                super::advance(&self.events, read, of);
            }
        }
    }

    fn finish(&self) {
        self.waits.finish_and_clear();
        self.events.finish_and_clear();
    }
}

fn text(restored: &Restored, stack: &str, reach: &str) -> String {
    let Restored { at, tables, restored_in, shards, positions, rebuilt, check, compared, put_back, kept } =
        restored;
    let mut text = format!("{stack} as it was at {at}\n");
    text.push_str(&format!("  {} in {restored_in:#}\n", tables.join(", ")));
    text.push_str(&format!("  a stream of their own with {shards} shards; {positions} positions cleared\n"));
    text.push_str(&render::rebuilt(rebuilt));
    text.push_str(&render::check(check));
    text.push_str(&beside(compared));
    if let Some(PutBack { events, shop_rows, rebuilt, check }) = put_back {
        text.push_str(&format!("Put back into {stack}: {events} events, {shop_rows} rows of shops\n"));
        text.push_str(&render::rebuilt(rebuilt));
        text.push_str(&render::check(check));
        text.push_str(&format!(
            "Next: kassa reconcile{reach} sends accepted sales that are pending on their way again\n"
        ));
    } else if compared.lost_events + compared.lost_shop_rows > 0 {
        text.push_str(&format!("Next: kassa restore{reach} --at {at} --put-back puts them back\n"));
    }
    text.push_str(&if *kept {
        format!("The copies are there yet; kassa restore{reach} --discard removes them\n")
    } else {
        "The copies were removed.\n".to_owned()
    });
    text
}

fn beside(compared: &BesideStage) -> String {
    let BesideStage {
        until,
        stage_events,
        copy_events,
        missed_by_copy,
        lost_events,
        lost_shop_rows,
        lost,
        changed,
        changed_events,
    } = compared;
    let mut text = format!("Up to {until} the stage has {stage_events} events, the copy {copy_events}.\n");
    if compared.agree() {
        text.push_str("The stage lacks nothing of the copy, and no event is another.\n");
    }
    if *missed_by_copy > 0 {
        text.push_str(&format!("The copy lacks {missed_by_copy} events that the stage had then.\n"));
    }
    let mut list = |what: String, keys: &[String]| {
        text.push_str(&format!("{what}:\n"));
        for key in keys {
            text.push_str(&format!("  {key}\n"));
        }
    };
    if lost_events + lost_shop_rows > 0 {
        list(format!("The stage lacked {lost_events} events and {lost_shop_rows} rows of shops"), lost);
    }
    if *changed_events > 0 {
        list(
            format!("{changed_events} events are others in the stage, though none is ever changed"),
            changed,
        );
    }
    text
}
