use kassa_bus::attention::{NeedsAttention, UnbookedSales};
use kassa_bus::message::Reason;

/// Commands of the list, at most: a stranger can have sales rejected that are sealed with many shops' keys.
const COMMANDS: usize = 3;

/// What ICT is to know and to do about sales rejected for a reason, of what needs attention of the shop now.
#[must_use]
pub fn runbook(reason: Reason, needs: &NeedsAttention, stage: Option<&str>) -> String {
    let (means, remedy) = advice(reason);
    let shop = &needs.shop_id;
    let at = stage.map(|stage| format!(" --stage {stage}")).unwrap_or_default();
    let mut commands = vec![
        format!("kassa events --shop {shop}{at} | jq 'select(.kind == \"rejected\")'"),
        format!("kassa check{at}"),
    ];
    match reason {
        Reason::WrongKey => commands.insert(0, format!("kassa audit keys --shop {shop} --since 24h{at}")),
        Reason::Unsigned | Reason::BadSignature | Reason::UnknownTill | Reason::RevokedTill => {
            commands.insert(0, format!("kassa till list --shop {shop}{at}"));
        }
        Reason::UnknownShop if stage.is_some() => commands.insert(0, format!("kassa apply --dry-run{at}")),
        _ => {}
    }
    let begin = if reason.needs_attention() { begin(reason, needs, &at) } else { String::new() };
    format!(
        "What it means\n  {means}\n\nWhat to do\n  {remedy}\n\n{begin}Where to look\n  {}\n\n\
         Nothing is lost: each sale is kept as it came, and `kassa sale <sale id>{at}` shows it.",
        commands.join("\n  "),
    )
}

/// The commands of the list: those of the reason, or, where a retry moved all to other reasons, of those.
fn begin(reason: Reason, needs: &NeedsAttention, reach: &str) -> String {
    let shop = &needs.shop_id;
    let moved = !needs.sales.iter().any(|sales| sales.reason == reason);
    let (mut commands, mut drops) = (Vec::new(), Vec::new());
    for sales in needs.sales.iter().filter(|sales| moved || sales.reason == reason) {
        let UnbookedSales { reason, .. } = sales;
        commands.push(sales.command(shop, reach));
        drops.push(format!("kassa drop --shop {shop} --reason {reason} --why '...'{reach}"));
    }
    if commands.is_empty() {
        commands.push(format!("kassa rejected --shop {shop} --reason {reason}{reach}"));
        drops.push(format!("kassa drop --shop {shop} --reason {reason} --why '...'{reach}"));
    }
    let distinct = |mut lines: Vec<String>| {
        lines.sort();
        lines.dedup();
        lines.truncate(COMMANDS);
        lines.join("\n  ")
    };
    format!(
        "Begin with\n  {}\n\nWhat cannot be booked is given up with\n  {}\n\n",
        distinct(commands),
        distinct(drops),
    )
}

fn advice(reason: Reason) -> (&'static str, &'static str) {
    match reason {
        Reason::WrongKey => (
            "Sales come sealed with a key that is not the shop's, or not any more.",
            "See which key it is, and from which till. Restart the till, so that it fetches the shop's key\n  \
             (GET /shop/<shop>/key), or load that key by hand. A key nobody here has, from many sources, is\n  \
             somebody trying: block the sources.",
        ),
        Reason::UnknownShop => (
            "Sales come for a shop that is not registered, or whose key is gone.",
            "See whether shops.toml declares it, and apply shops.toml. Check that its key was not disabled.",
        ),
        Reason::Malformed => (
            "What comes in place of a sale is neither an RSA ciphertext nor a JWE.",
            "Look for a till with new software, or for a proxy on the way that changes what passes.",
        ),
        Reason::Tampered => (
            "The key is the shop's, but what was sealed does not open, or is another sale's.",
            "Look for what stands between the till and here. Should one till alone do it, replace it.",
        ),
        Reason::InvalidSale => (
            "What was sealed opens, but it is no sale: a field is missing or wrong.",
            "The rejected event's detail names the field. Tell whoever makes the till's software.",
        ),
        Reason::Conflict => (
            "A sale comes under an id that another sale was recorded under. The recorded one stands.",
            "Look for two tills that give the same ids, or for one that changes a sale after posting it.",
        ),
        Reason::Replayed => (
            "A sale that is recorded comes again under another id, in the very envelope it came in first. It counts once.",
            "Look at the source. A till that makes up an id for every try is to keep the first. If it is none of the\n  \
             shop's tills, somebody listens: use https, and have tills sign.",
        ),
        Reason::Unsigned => (
            "Sales come that no till signed, and the shop takes only what its tills sign. Whoever has the shop's\n  \
             public key can make such a sale.",
            "If it is a till of the shop, enrol it (kassa till enroll); while tills are being changed over, shops.toml\n  \
             can say unsigned = \"flag\". If it is none, it is somebody trying: look at the source.",
        ),
        Reason::BadSignature => (
            "Sales name a till that did not sign them: its key is another, or somebody pretends to be it.",
            "Look at the till. Was it replaced? Then revoke the old key and enrol the new one.",
        ),
        Reason::UnknownTill => (
            "Sales are signed by a till that is not enrolled for the shop.",
            "If it is a till of the shop, enrol it with its key (kassa till enroll), and its sales can be recorded.",
        ),
        Reason::RevokedTill => (
            "Sales are signed by a till after its key was revoked.",
            "Was it stolen, this is the thief or what the till still had in hand. Is it in use, make it a new key.",
        ),
        Reason::Dropped => (
            "Somebody dropped dead letters of these sales, and wrote why beside each.",
            "Read why (kassa rejected --reason dropped). If it no longer holds, kassa retry puts them through.",
        ),
    }
}
