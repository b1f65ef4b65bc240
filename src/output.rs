//! What is told: on stdout, whose failure ends the command, and on stderr, of whose failure nobody could be told.
//!
//! Nothing else writes to either, which clippy's `print_stdout` and `print_stderr` keep so.

use std::fmt::Display;
use std::future::pending;
use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};
use std::os::fd::AsFd;

use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;

/// What was to be told was not.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Whoever read it has had enough, as `head` has. That is no fault, and nobody is there to hear of it.
    #[error("nobody reads the output any more")]
    Closed,
    #[error("cannot write the output: {0}")]
    Failed(io::Error),
}

impl From<io::Error> for OutputError {
    fn from(why: io::Error) -> Self {
        if why.kind() == ErrorKind::BrokenPipe { Self::Closed } else { Self::Failed(why) }
    }
}

/// What a command ends with whose reader has gone: what a shell says of one that `SIGPIPE` ended.
pub const READER_GONE: u8 = 128 + 13;

/// Writes to stdout, and lets nothing wait there.
///
/// # Errors
/// [`OutputError`].
pub fn print(text: impl Display) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    Ok(write!(out, "{text}").and_then(|()| out.flush())?)
}

/// Tells where something is that others are to use now, whether or not somebody reads on.
///
/// # Errors
/// [`OutputError::Failed`].
pub fn announce(text: impl Display) -> Result<(), OutputError> {
    match print(text) {
        Err(OutputError::Closed) => Ok(()),
        told => told,
    }
}

/// Writes a line to stderr.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Lines on stdout, of which there may be very many.
pub struct Lines {
    out: BufWriter<StdoutLock<'static>>,
    written: io::Result<()>,
}

impl Lines {
    #[must_use]
    pub fn stdout() -> Self {
        Self { out: BufWriter::new(io::stdout().lock()), written: Ok(()) }
    }

    /// Writes one more, and says whether another is wanted.
    pub fn write(&mut self, line: impl Display) -> bool {
        self.written = writeln!(self.out, "{line}");
        self.written.is_ok()
    }

    /// # Errors
    /// [`OutputError`], if any of them was not written.
    pub fn end(mut self) -> Result<(), OutputError> {
        Ok(self.written.and_then(|()| self.out.flush())?)
    }
}

/// Ends when whoever reads stdout has gone, also while there is nothing to write. Of a file, that is never.
pub async fn reader_gone() {
    let opened = io::stdout().as_fd().try_clone_to_owned();
    // Nothing is ever written to it, so it may block and be no pipe.
    let watched = opened.and_then(|stdout| Sender::from_file_unchecked(stdout.into()));
    match watched {
        Ok(stdout) => drop(stdout.ready(Interest::ERROR).await),
        Err(_) => pending().await,
    }
}
