use tracing_subscriber::Registry;
use tracing_subscriber::filter::{FilterExt, LevelFilter, ParseError, Targets, filter_fn};
use tracing_subscriber::layer::Filter;

/// Crates that carry sales for us. At their finer levels they log requests whole.
const CARRIERS: [&str; 9] =
    ["aws_config", "aws_sdk_", "aws_smithy_", "h2", "hyper", "lambda_runtime", "reqwest", "rustls", "tower"];

/// Which log lines are written: what `directives` ask for (as in `RUST_LOG`), but of crates that carry
/// sales nothing below a warning, whatever was asked for.
///
/// # Errors
/// [`ParseError`] if the directives are not ones.
pub fn filter(directives: &str) -> Result<impl Filter<Registry> + Send + Sync + 'static, ParseError> {
    let ours = filter_fn(|about| {
        *about.level() <= LevelFilter::WARN
            || !CARRIERS.iter().any(|carrier| about.target().starts_with(carrier))
    });
    Ok(directives.parse::<Targets>()?.and(ours))
}
