use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use kassa_bus::SaleId;
use kassa_pipeline::problem_type::ProblemType;
use serde::{Deserialize, Serialize};

use super::Till;
use super::answer::{Away, Heard, plain};

/// What became of sales that the shop took, as far as it was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outcomes {
    /// Of how many it was asked.
    pub asked: u64,
    pub recorded: u64,
    /// Neither recorded nor rejected when it was asked last.
    pub pending: u64,
    /// Of which the shop knows nothing, although they were answered with yes: something else answered in its place.
    pub unknown: u64,
    /// How many were rejected, by why.
    pub rejected: BTreeMap<String, u64>,
    /// One of those: something to ask about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected_sale: Option<SaleId>,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    sale_id: SaleId,
    status: Status,
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    Recorded,
    Rejected,
    Pending,
    #[serde(skip)]
    Unknown,
}

/// Asked at once.
const AT_ONCE: usize = 16;

/// How long the pipeline is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a shop is asked that says nothing of any.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// Between two times that the same is asked.
const AGAIN: Duration = Duration::from_millis(200);

impl Till {
    /// Asks the shop what became of these sales, until all are settled or ten seconds have gone.
    ///
    /// # Errors
    /// [`Away`], if the shop cannot be asked that.
    pub async fn outcomes(&self, sales: &[SaleId]) -> Result<Outcomes, Away> {
        let begun = Instant::now();
        let mut told = Outcomes { asked: sales.len() as u64, ..Outcomes::default() };
        let mut open = sales.to_vec();
        loop {
            let asked: Vec<_> =
                stream::iter(open).map(|sale| self.outcome(sale)).buffered(AT_ONCE).collect().await;
            open = Vec::new();
            let mut later = None;
            for outcome in asked {
                match outcome {
                    Ok(Outcome { status: Status::Recorded, .. }) => told.recorded += 1,
                    Ok(Outcome { status: Status::Rejected, reason, sale_id }) => {
                        let reason = plain(reason.as_deref().unwrap_or("unknown"));
                        *told.rejected.entry(reason).or_default() += 1;
                        told.rejected_sale.get_or_insert(sale_id);
                    }
                    Ok(Outcome { status: Status::Pending, sale_id, .. }) => open.push(sale_id),
                    Ok(Outcome { status: Status::Unknown, .. }) => told.unknown += 1,
                    Err((sale_id, away)) => {
                        open.push(sale_id);
                        later = Some(away);
                    }
                }
            }
            let nothing = told.recorded + told.unknown == 0 && told.rejected.is_empty();
            match later {
                Some(away) if nothing && begun.elapsed() > HEARD_WITHIN => return Err(away),
                _ if open.is_empty() || begun.elapsed() > PATIENCE => {
                    told.pending = open.len() as u64;
                    return Ok(told);
                }
                _ => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn outcome(&self, sale_id: SaleId) -> Result<Outcome, (SaleId, Away)> {
        let get = self.client.get(format!("{}/shop/{}/sales/{sale_id}", self.url, self.shop));
        match self.hear(get).await.and_then(|heard| of_sale(&heard, &sale_id)) {
            Ok(outcome) => Ok(outcome),
            Err(away) => Err((sale_id, away)),
        }
    }
}

/// What an answer tells of this sale, if it is the shop's.
fn of_sale(heard: &Heard, sale_id: &SaleId) -> Result<Outcome, Away> {
    let told = heard.json::<Outcome>().filter(|told| heard.status == 200 && told.sale_id == *sale_id);
    match (told, heard.problem()) {
        (Some(told), _) => Ok(told),
        (None, Some(ProblemType::UnknownSale)) => {
            Ok(Outcome { sale_id: sale_id.clone(), status: Status::Unknown, reason: None })
        }
        (None, _) => Err(heard.refusal().map_or_else(|away| away, |refused| Away::because(refused.detail))),
    }
}
