//! The subscribers' Lambda bootstrap: the one that the handler names, with what it asks for only.

use std::process::ExitCode;

use kassa_bus::lambda::{self, Error, Function, LambdaHost};
use kassa_bus::{Intake, SettingError};

// One thread: Lambda gives a function this small a fraction of a core.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    lambda::exit(run().await)
}

async fn run() -> Result<(), Error> {
    let host = LambdaHost(Function::start()?);
    let handler = host.0.handler()?;
    let wrong = SettingError::Wrong { name: "_HANDLER", what: "a subscriber's name" };
    let entry = kassa_subscribers::all().into_iter().find(|entry| entry.name == handler).ok_or(wrong)?;
    match (entry.make)(&host)? {
        Some(subscription) => match subscription.intake {
            Intake::Pushed => lambda::drive(&host.0, subscription, None).await,
            Intake::Drained => lambda::drain(&host.0, subscription).await,
        },
        None => Err(format!("{} is switched off by its settings, and is deployed", entry.name).into()),
    }
}
