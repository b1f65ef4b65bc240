//! What is done for a shop when something of it is due.

use jiff::SignedDuration;
use kassa_bus::attention::NeedsAttention;
use kassa_bus::{Retry, ShopId};

use super::delivery::Claimed;
use super::incident::{Incident, Left, Phase, Seen};
use super::{Alerter, INCIDENTS, is_quiet, name};

/// What is due so soon after something else of its shop is told along with it.
const TOGETHER: SignedDuration = SignedDuration::from_secs(5);

impl Alerter {
    /// Does what is due in a shop's incidents, and sends what is to be sent.
    pub(super) async fn attend(&self, shop_id: &ShopId, incidents: &[Incident]) -> Result<(), Retry> {
        let shop = self.registry.shop(shop_id).await?;
        let asked = self.clock.now();
        let needs = self.attention.of_shop(shop_id).await?;
        let now = self.clock.now();
        let quiet = shop.as_ref().is_some_and(|shop| is_quiet(shop, now));
        let any_due = incidents.iter().any(|incident| incident.is_due(now, &self.policy));
        let early = if any_due { TOGETHER } else { SignedDuration::ZERO };
        let (mut claimed, mut open, mut outcome) = (Claimed::new(), false, Ok(()));
        for &Incident { reason, .. } in incidents {
            let name = name(shop_id, reason);
            let due = self.documents.update(INCIDENTS, &name, |before: Option<Incident>| {
                let Some(before) = before else { return (None, None) };
                let mut incident = before.clone();
                let seen = Seen { left: left(&before, &needs, incidents), asked, quiet, early };
                let turn = incident.tick(now, &seen, &self.policy);
                let (claimed, wake) = (incident.claim(now), incident.wake(now, &self.policy));
                let is_open = incident.is_open() && reason.needs_attention();
                ((incident != before).then_some(incident), Some((turn, claimed, wake, is_open)))
            });
            match due.await {
                Ok(None) => {}
                Ok(Some((turn, outgoing, wake, is_open))) => {
                    self.count(turn);
                    open |= is_open;
                    claimed.extend(outgoing.into_iter().map(|outgoing| (reason, outgoing)));
                    if let Some(after) = wake {
                        self.wake(shop_id, after).await;
                    }
                }
                // What others have for their people does not wait for it.
                Err(why) => outcome = Err(why.into()),
            }
        }
        outcome.and(self.deliver(&needs, shop.as_deref(), claimed, open).await)
    }
}

/// What needs attention of an incident's sales. A retry may have moved some to another reason, where nobody is told of them:
/// they are still this incident's.
fn left(of: &Incident, needs: &NeedsAttention, all: &[Incident]) -> Option<Left> {
    let told_of = |reason| {
        let lives = |phase| matches!(phase, Phase::Pending { .. } | Phase::Open { .. });
        all.iter().any(|incident| incident.reason == reason && lives(incident.phase))
    };
    let mut left: Option<Left> = None;
    for sales in &needs.sales {
        let moved = of.is_open() && sales.since >= of.failures.first && !told_of(sales.reason);
        if sales.reason == of.reason || moved {
            let left = left.get_or_insert_with(|| Left { count: 0, since: sales.since, ..Left::default() });
            left.count += sales.count;
            left.since = left.since.min(sales.since);
            left.tills.add(sales.till.clone().into_iter().collect());
        }
    }
    if !needs.more {
        return left;
    }
    // There are more than have a place, so all that was heard of may be left.
    let mut heard = of.all();
    if let Some(left) = left {
        heard.count = heard.count.max(left.count);
        heard.since = heard.since.min(left.since);
        heard.tills.add(left.tills);
    }
    Some(heard)
}
