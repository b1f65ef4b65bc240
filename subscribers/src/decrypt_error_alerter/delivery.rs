use kassa_bus::message::Reason;
use kassa_bus::notify::{Alert, Notice, Sms};
use kassa_bus::registry::Shop;
use kassa_bus::{Dimension, Metric, Retry, ShopId};

use super::budget::{Answer, Budget};
use super::incident::{Addressee, Incident, Outgoing};
use super::{Alerter, INCIDENTS, ict, manager, name};

/// The group of documents `<shop>#<yyyy-mm>`, the month being the shop's.
const BUDGETS: &str = "budgets";

impl Alerter {
    /// Sends what was claimed, and takes it off the incident's list.
    pub(super) async fn send(
        &self,
        shop_id: &ShopId,
        reason: Reason,
        shop: Option<&Shop>,
        outgoing: &Outgoing,
    ) -> Result<(), Retry> {
        match (outgoing.to, shop) {
            (Addressee::Ict, _) => {
                let alert = ict::alert(shop_id, reason, shop, outgoing, self.stage.as_deref());
                self.alert(alert).await?;
            }
            (Addressee::Manager, Some(shop)) => self.text(shop, reason, outgoing).await?,
            (Addressee::Manager, None) => {}
        }
        let (name, now) = (name(shop_id, reason), self.clock.now());
        let sent = self.documents.update(INCIDENTS, &name, |incident: Option<Incident>| {
            let sent = incident.map(|mut incident| {
                incident.sent(outgoing, now);
                incident
            });
            (sent, ())
        });
        Ok(sent.await?)
    }

    async fn text(&self, shop: &Shop, reason: Reason, outgoing: &Outgoing) -> Result<(), Retry> {
        let Some(phone) = &shop.manager_phone else { return Ok(()) };
        let day = outgoing.at.to_zoned(shop.zone()).date();
        let month = format!("{}#{}", shop.shop_id, day.strftime("%Y-%m"));
        let message = format!("{reason} {}", outgoing.id());
        let asked = self.documents.update(BUDGETS, &month, |budget: Option<Budget>| {
            let mut budget = budget.unwrap_or_default();
            let answer = budget.ask(&message, shop.sms_budget);
            (Some(budget), answer)
        });
        let answer = asked.await?;
        if answer == Answer::Granted {
            let text = manager::sms(shop, reason, outgoing).into();
            let sms = Sms { to: phone.clone(), text, shop_id: shop.shop_id.clone() };
            self.notifier.send(&Notice::Sms(sms)).await?;
            self.metrics.count_of(Metric::SmsSent, &[(Dimension::Shop, shop.shop_id.as_str())], 1);
            return Ok(());
        }
        if answer == Answer::UsedUp {
            self.alert(ict::budget_used_up(shop, day)).await?;
        }
        self.metrics.count_of(Metric::SmsOverBudget, &[(Dimension::Shop, shop.shop_id.as_str())], 1);
        Ok(())
    }

    async fn alert(&self, alert: Alert) -> Result<(), Retry> {
        self.notifier.send(&Notice::Alert(alert)).await?;
        self.metrics.count(Metric::AlertsSent, 1);
        Ok(())
    }
}
