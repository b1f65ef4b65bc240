use std::path::PathBuf;

use clap::Args;

use super::DATA;

#[derive(Debug, Args)]
#[command(
    after_help = "All that was accepted before it began is in it, with the shops' keys: keep it where nobody else can read. \
It is checked as a shop that is to be opened, and has its name only once it is whole. A copy of the folder by other means is no backup: \
while the shop writes, it is of several moments at once, and may not open. What is called FOLDER.unfinished-… is left of one that was \
killed, and can be deleted. Tills keep what they have sold and not sent themselves.

Examples:
  kassa backup /mnt/backup/2026-11-22
  kassa backup /mnt/backup/2026-11-22 --data /srv/shop --json"
)]
pub struct BackupArgs {
    /// The folder to make, which is not there yet
    #[arg(value_name = "FOLDER")]
    pub to: PathBuf,
    /// The shop's folder
    #[arg(long, default_value = DATA, value_name = "FOLDER")]
    pub data: PathBuf,
    /// Print what is in it as JSON
    #[arg(long)]
    pub json: bool,
}
