//! What is around a shop, wherever it runs: tills that keep journals, the line to them, and commands that were asked.

use std::process::{Child, Command, Stdio};

use jiff::SignedDuration;
use rand::Rng;
use rand::rngs::StdRng;

use super::depot::Depot;
use super::line::{Is, Line};
use super::plan::Around;
use super::tally::Tally;
use super::tills::{Tills, ended};

pub struct Surroundings {
    pub tills: Tills,
    pub line: Line,
    /// Commands that were not waited for.
    asking: Vec<Child>,
    /// What was written.
    pub said: Vec<u8>,
}

impl Surroundings {
    pub fn new(tills: Tills, line: Line) -> Self {
        Self { tills, line, asking: Vec::new(), said: Vec::new() }
    }

    pub fn begins(&mut self, fault: Around, depot: &mut Depot, chance: &mut StdRng) {
        match fault {
            Around::KillTill => self.tills.kill(chance.random_range(0..Tills::how_many())),
            Around::FullTill => self.tills.machine.full(true),
            Around::CutLine => self.line.becomes(Is::Cut),
            Around::LoseAnswers => self.line.becomes(Is::Deaf),
            Around::Impostor(which) => self.line.becomes(Is::Impostor(which)),
            Around::TillClocks(by) => self.tills.machine.clock(by),
            Around::Warehouse(fault, times) => depot.road.will_be(std::iter::repeat_n(fault, times)),
            Around::KillWarehouse => depot.is_killed(),
        }
    }

    pub fn ends(&self, fault: Around) {
        match fault {
            Around::FullTill => self.tills.machine.full(false),
            Around::CutLine | Around::LoseAnswers | Around::Impostor(_) => self.line.becomes(Is::Open),
            Around::TillClocks(_) => self.tills.machine.clock(SignedDuration::ZERO),
            Around::KillTill | Around::Warehouse(..) | Around::KillWarehouse => {}
        }
    }

    /// Has a command run that is not waited for: who is asked may answer nobody just now.
    pub fn asks(&mut self, mut command: Command) {
        self.asking.push(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    }

    /// Waits until all who sell and ask have come to their end.
    pub async fn ended(&mut self) {
        self.tills.ended().await;
        for child in std::mem::take(&mut self.asking) {
            self.said.extend(ended(child).await);
        }
    }

    /// What waits in the tills' journals is sent, and nothing was refused.
    pub fn drain(&mut self) {
        let drained = tokio::task::block_in_place(|| self.tills.drain());
        drained.unwrap_or_else(|output| panic!("{output:?}"));
        self.said.append(&mut self.tills.said);
    }

    /// How many sales tills rang up, ever.
    pub fn rung_up(&self) -> u64 {
        let (rung_up, refused) = self.tills.journalled();
        assert!(refused.is_empty(), "{refused:?}");
        rung_up
    }

    pub fn is_told_of(&self, tally: &mut Tally) {
        let [connections, answers, forged] = self.line.lost();
        tally.count("= tills' writes that found no room", self.tills.machine.done().writes);
        tally.count("= connections that broke", connections);
        tally.count("= answers that were lost", answers);
        tally.count("= answers that were not the shop's", forged);
    }
}
