//! Sends what is to be sent: to a shop's manager one text of all that is news, then to ICT an alert of each, which says what
//! became of the text.

use jiff::Timestamp;
use kassa_bus::attention::NeedsAttention;
use kassa_bus::message::Reason;
use kassa_bus::notify::{Alert, Notice, Sms};
use kassa_bus::registry::Shop;
use kassa_bus::text::Phone;
use kassa_bus::{Dimension, Metric, Retry, ShopId};

use super::budget::{Answer, Budget};
use super::incident::Incident;
use super::outgoing::{Addressee, News, Outgoing, Texted};
use super::{Alerter, INCIDENTS, ict, manager, name};

/// The group of documents `<shop>#<yyyy-mm>`, the month being the shop's.
const BUDGETS: &str = "budgets";

/// What was claimed of a shop's incidents, each with its incident's reason.
pub(super) type Claimed = Vec<(Reason, Outgoing)>;

impl Alerter {
    /// Sends what was claimed of a shop, and takes it off the incidents' lists. `needs` is what needs attention of
    /// it now; `open` says whether any of them is open of which something may.
    pub(super) async fn deliver(
        &self,
        needs: &NeedsAttention,
        shop: Option<&Shop>,
        claimed: Claimed,
        open: bool,
    ) -> Result<(), Retry> {
        let shop_id = &needs.shop_id;
        let (texts, alerts): (Claimed, Claimed) =
            claimed.into_iter().partition(|(_, outgoing)| outgoing.to == Addressee::Manager);
        let (texted, mut outcome) = self.text(shop, texts, open).await;
        for (reason, message, became) in &texted {
            let (now, became) = (self.clock.now(), *became);
            let written = self.change(shop_id, *reason, |incident| incident.texted(message, became, now));
            outcome = outcome.and(written.await);
        }
        let waits = texted.iter().find_map(|(.., became)| match became {
            Texted::Waits { until } => Some(*until),
            _ => None,
        });
        if let Some(until) = waits {
            self.wake(shop_id, self.clock.now().duration_until(until)).await;
        }
        for (reason, mut outgoing) in alerts {
            let same = |(of, message, _): &&(Reason, Outgoing, Texted)| {
                *of == reason && message.is_same_news(&outgoing)
            };
            let became = texted.iter().find(same).map(|(.., became)| *became);
            outgoing.texted = became.or(outgoing.texted);
            let alert = ict::alert(needs, reason, shop, &outgoing, self.stage.as_deref());
            let sent = match self.alert(alert).await {
                Ok(()) => {
                    let now = self.clock.now();
                    self.change(shop_id, reason, |incident| incident.sent(&outgoing, now)).await
                }
                failed => failed,
            };
            outcome = outcome.and(sent);
        }
        outcome
    }

    async fn change(
        &self,
        shop: &ShopId,
        reason: Reason,
        mut change: impl FnMut(&mut Incident),
    ) -> Result<(), Retry> {
        let name = name(shop, reason);
        let changed = self.documents.update(INCIDENTS, &name, |incident: Option<Incident>| {
            let changed = incident.map(|mut incident| {
                change(&mut incident);
                incident
            });
            (changed, ())
        });
        Ok(changed.await?)
    }

    /// Sends the manager one text of all that is news to him, and says what became of each.
    async fn text(
        &self,
        shop: Option<&Shop>,
        texts: Claimed,
        open: bool,
    ) -> (Vec<(Reason, Outgoing, Texted)>, Result<(), Retry>) {
        let all =
            |texts: Claimed, became| texts.into_iter().map(move |(reason, text)| (reason, text, became));
        let (shop, phone) = match shop {
            None => return (all(texts, Texted::NotRegistered).collect(), Ok(())),
            Some(Shop { manager_phone: None, .. }) => return (all(texts, Texted::NoPhone).collect(), Ok(())),
            Some(shop @ Shop { manager_phone: Some(phone), .. }) => (shop, phone),
        };
        let (over, wrong): (Claimed, Claimed) =
            texts.into_iter().partition(|(_, text)| text.news == News::Over);
        // What was over before the last news was told is told after it.
        let (now, later) = match (wrong.is_empty(), open) {
            (false, _) => (wrong, over),
            (true, false) => (over, Vec::new()),
            (true, true) => (Vec::new(), over),
        };
        let (became, outcome) = self.send(shop, phone, &now).await;
        let until = self.clock.now() + self.policy.pace;
        let not_now = if open { Texted::OthersOpen } else { Texted::Waits { until } };
        (all(now, became).chain(all(later, not_now)).collect(), outcome)
    }

    /// One text message of all of these.
    async fn send(&self, shop: &Shop, phone: &Phone, about: &Claimed) -> (Texted, Result<(), Retry>) {
        let Some((reason, first)) = about.iter().min_by_key(|(reason, text)| (text.at, *reason)) else {
            return (Texted::NotYet, Ok(()));
        };
        match self.granted(shop, &format!("{reason} {}", first.id()), first.at).await {
            Ok(Answer::Granted) => {}
            Ok(Answer::Wait(until)) => return (Texted::Waits { until }, Ok(())),
            Ok(Answer::UsedUp | Answer::Refused) => {
                self.metrics.count_of(Metric::SmsOverBudget, &[(Dimension::Shop, shop.shop_id.as_str())], 1);
                return (Texted::OverBudget, Ok(()));
            }
            Err(why) => return (Texted::NotYet, Err(why)),
        }
        let news =
            if about.iter().any(|(_, text)| text.news == News::Opened) { News::Opened } else { first.news };
        let failures: Vec<_> = about.iter().map(|(reason, text)| (*reason, &text.failures)).collect();
        let text = manager::sms(shop, news, &failures, first.at).into();
        let sms = Sms { to: phone.to_string(), text, shop_id: shop.shop_id.clone() };
        match self.notifier.send(&Notice::Sms(sms)).await {
            Ok(()) => {
                self.metrics.count_of(Metric::SmsSent, &[(Dimension::Shop, shop.shop_id.as_str())], 1);
                (Texted::Sent { at: self.clock.now() }, Ok(()))
            }
            Err(why) => (Texted::NotYet, Err(why)),
        }
    }

    /// Whether a message may be sent now. That the month's are used up is told to ICT, once.
    async fn granted(&self, shop: &Shop, message: &str, at: Timestamp) -> Result<Answer, Retry> {
        let (day, now) = (at.to_zoned(shop.zone()).date(), self.clock.now());
        let month = format!("{}#{}", shop.shop_id, day.strftime("%Y-%m"));
        let asked = self.documents.update(BUDGETS, &month, |budget: Option<Budget>| {
            let mut budget = budget.unwrap_or_default();
            let answer = budget.ask(message, now, shop.sms_budget, self.policy.pace);
            (Some(budget), answer)
        });
        let answer = asked.await?;
        if answer == Answer::UsedUp {
            self.alert(ict::budget_used_up(shop, day)).await?;
        }
        Ok(answer)
    }

    async fn alert(&self, alert: Alert) -> Result<(), Retry> {
        self.notifier.send(&Notice::Alert(alert)).await?;
        self.metrics.count(Metric::AlertsSent, 1);
        Ok(())
    }
}
