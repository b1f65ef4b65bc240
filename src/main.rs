use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    kassa::cli::run(kassa::cli::Cli::parse())
}
