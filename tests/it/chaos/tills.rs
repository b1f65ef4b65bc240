//! The tills that keep journals: `kassa sell`, on a machine of their own and over a line of their own.

use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::Instant;

use kassa::till::journal::{Journal, journals};

use super::books::PATIENCE;
use super::machine::Machine;
use crate::common::process::{command, kassa};

pub struct Tills {
    folder: PathBuf,
    /// Where they post: the shop, over their line.
    pub url: String,
    pub machine: Machine,
    /// What each sells.
    sales: u32,
    /// By the till's place.
    selling: Vec<(usize, Child)>,
    /// What they wrote.
    pub said: Vec<u8>,
}

/// The shop in which nobody else sells.
pub const SHOP: &str = "AMIS1";

/// The first signs.
const TILLS: [(&str, &str, &str); 2] = [(SHOP, "till-1", "sealed"), (SHOP, "till-2", "classic")];

/// A command that enrols the first: where the shop is has to be added.
pub fn enrol(folder: &Path) -> [&str; 8] {
    let (shop, till, _) = TILLS[0];
    ["till", "enroll", "--shop", shop, "--till", till, "--folder", folder.to_str().unwrap()]
}

impl Tills {
    /// In a folder where they may have sold before.
    pub fn new(folder: PathBuf, url: &str, machine: Machine) -> Self {
        Self { folder, url: url.to_owned(), machine, sales: 0, selling: Vec::new(), said: Vec::new() }
    }

    pub fn how_many() -> usize {
        TILLS.len()
    }

    pub fn sell(&mut self, sales: u32) {
        self.sales = sales;
        (0..TILLS.len()).for_each(|place| self.sells(place));
    }

    fn sells(&mut self, place: usize) {
        let (shop, till, format) = TILLS[place];
        let count = self.sales.to_string();
        let how = ["--count", &count, "--rate", "40", "--concurrency", "4", "--patience", "1", "--json"];
        let who = ["--url", &self.url, "--shop", shop, "--till", till, "--format", format];
        let mut command =
            command(&[&["sell", "--folder", self.folder.to_str().unwrap()], &who[..], &how].concat());
        self.machine.runs(&mut command);
        self.selling.push((place, command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()));
    }

    /// `kill -9`, and started again.
    pub fn kill(&mut self, place: usize) {
        for (_, till) in self.selling.iter_mut().filter(|(other, _)| *other == place) {
            let _ = till.kill();
            let _ = till.wait();
        }
        self.sells(place);
    }

    /// Waits until all have sold what they had to.
    pub async fn ended(&mut self) {
        for (_, child) in std::mem::take(&mut self.selling) {
            self.said.extend(ended(child).await);
        }
    }

    /// Sends what waits in their journals, which must succeed.
    pub fn drain(&mut self) -> Result<(), Output> {
        for (shop, till, _) in TILLS {
            let who = ["--shop", shop, "--till", till, "--folder", self.folder.to_str().unwrap()];
            let drained =
                kassa(&[&["till", "drain", "--url", &self.url, "--patience", "30"], &who[..]].concat());
            if !drained.status.success() {
                return Err(drained);
            }
            self.said.extend([drained.stdout, drained.stderr].concat());
        }
        Ok(())
    }

    /// How many sales they rang up, ever, and what was refused.
    pub fn journalled(&self) -> (u64, Vec<String>) {
        let (mut rung_up, mut refused) = (0, Vec::new());
        for (_, folder) in journals(&self.folder).unwrap() {
            let state = Journal::look(&folder).unwrap().unwrap_or_default();
            rung_up += state.journalled;
            refused.extend(state.refused.iter().map(|refused| format!("{refused:?}")));
        }
        (rung_up, refused)
    }
}

impl Drop for Tills {
    fn drop(&mut self) {
        for (_, till) in &mut self.selling {
            let _ = till.kill();
            let _ = till.wait();
        }
    }
}

/// What a command wrote, once it has ended.
pub async fn ended(mut child: Child) -> Vec<u8> {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE, "a command does not end");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let output = tokio::task::block_in_place(|| child.wait_with_output().unwrap());
    [output.stdout, output.stderr].concat()
}
