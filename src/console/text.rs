use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use kassa_bus::amount::Amount;
use kassa_bus::registry::Shop;
use maud::{Markup, html};

/// Text from outside as it is, in a direction of its own. Characters that nobody sees, or that turn others round,
/// stand there by their numbers.
pub(super) fn outside(text: &str) -> Markup {
    html! { bdi { (shown(text, false)) } }
}

/// The same of more than one line.
pub(super) fn outside_lines(text: &str) -> Markup {
    html! { bdi { (shown(text, true)) } }
}

fn shown(text: &str, lines: bool) -> Markup {
    let hidden = |c: char| is_hidden(c) && !(lines && c == '\n');
    html! {
        @for piece in text.split_inclusive(hidden) {
            @match piece.chars().next_back().filter(|c| hidden(*c)) {
                None => (piece),
                Some(c) => {
                    (piece[..piece.len() - c.len_utf8()]) span class="hidden-character" { (number(c)) }
                },
            }
        }
    }
}

/// Text from outside where only text can stand, as in an attribute.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            plain.push_str(&number(c));
        } else {
            plain.push(c);
        }
    }
    plain
}

fn number(c: char) -> String {
    format!("U+{:04X}", u32::from(c))
}

/// Control characters, and what `Default_Ignorable_Code_Point` and `Bidi_Control` have that is used to deceive
/// (Unicode TR 36, UTS 39), but for the joiners that scripts and emoji need.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// A whole number with its thousands apart: 12,345.
pub(super) fn count(number: u64) -> String {
    thousands(&number.to_string())
}

fn thousands(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// An exact decimal with its thousands apart.
pub(super) fn amount(amount: Amount) -> String {
    decimal(&amount.to_string())
}

/// A sum of money.
pub(super) fn money(amount: Amount) -> String {
    decimal(&crate::show::money(amount))
}

fn decimal(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("−", digits));
    match digits.split_once('.') {
        Some((whole, decimals)) => format!("{sign}{}.{decimals}", thousands(whole)),
        None => format!("{sign}{}", thousands(digits)),
    }
}

/// A measured number in as few characters as tell it: 0.0021, 0.25, 3.1, 42, 1,234, 56k, 7.8M.
pub(super) fn measured(value: f64) -> String {
    let size = value.abs();
    let (value, unit) = match size {
        1e9.. => (value / 1e9, "G"),
        1e6.. => (value / 1e6, "M"),
        1e4.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        0.1.. => 2,
        0.01.. => 3,
        0.001.. => 4,
        _ => 5,
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    let text = if text == "-0" { "0" } else { text };
    format!("{}{unit}", decimal(text))
}

/// How long something took.
pub(super) fn took(time: SignedDuration) -> String {
    let millis = time.as_secs_f64() * 1_000.0;
    match millis {
        ..1.0 => format!("{:.0} µs", (millis * 1_000.0).max(0.0)),
        ..10.0 => format!("{millis:.1} ms"),
        ..1_000.0 => format!("{millis:.0} ms"),
        ..60_000.0 => format!("{:.1} s", millis / 1_000.0),
        _ => rough(time),
    }
}

/// A length of time in one unit.
pub(super) fn rough(time: SignedDuration) -> String {
    match time.as_secs() {
        seconds @ ..60 => format!("{} s", seconds.max(0)),
        seconds @ ..3_600 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// How long ago something was.
pub(super) fn ago(now: Timestamp, at: Timestamp) -> String {
    match now.duration_since(at) {
        time if time.as_secs() < 2 => "just now".to_owned(),
        time => format!("{} ago", rough(time)),
    }
}

/// The time of day, with the day if it is another.
pub(super) fn time(now: Timestamp, at: Timestamp, zone: &TimeZone) -> Markup {
    let (there, today) = (at.to_zoned(zone.clone()), now.to_zoned(zone.clone()).date());
    let form = if there.date() == today { "%H:%M:%S" } else { "%-d %b %H:%M" };
    html! { time datetime=(at.strftime("%FT%TZ")) { (there.strftime(form).to_string()) } }
}

/// A shop by its name, and its id beside it.
pub(super) fn shop(shop: &Shop) -> Markup {
    html! { (outside(&shop.name)) " " span.id { (shop.shop_id) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_stands_there_by_its_number() {
        assert_eq!(outside("a<b>&\"").into_string(), "<bdi>a&lt;b&gt;&amp;&quot;</bdi>");
        let shown = outside("a\u{202e}b\0").into_string();
        assert_eq!(
            shown,
            "<bdi>a<span class=\"hidden-character\">U+202E</span>b<span class=\"hidden-character\">U+0000</span></bdi>"
        );
        assert_eq!(plain("x\u{200b}y\n"), "xU+200ByU+000A");
        assert_eq!(outside_lines("a\nb\r").into_string().matches("U+").count(), 1);
        // What people write is left alone.
        for text in ["Café", "شوكولاتة", "👩‍🍳", "क्‍ष", "日本語"] {
            assert_eq!(plain(text), text);
        }
    }

    #[test]
    fn numbers_are_told_in_few_characters() {
        for (value, told) in [
            (0.0, "0"),
            (-0.0, "0"),
            (0.000_012_34, "0.00001"),
            (0.002_14, "0.0021"),
            (0.015_6, "0.016"),
            (0.256, "0.26"),
            (3.456, "3.46"),
            (42.04, "42"),
            (1234.4, "1,234"),
            (56_789.0, "56.8k"),
            (7_800_000.0, "7.8M"),
            (-12_000.0, "−12k"),
        ] {
            assert_eq!(measured(value), told);
        }
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(123), "123");
        assert_eq!(amount("-1234.5".parse().unwrap()), "−1,234.5");
        assert_eq!(money("1234.5".parse().unwrap()), "1,234.50");
    }

    #[test]
    fn lengths_of_time_are_told_in_one_unit() {
        for (millis, told) in
            [(0, "0 µs"), (3, "3.0 ms"), (250, "250 ms"), (1_500, "1.5 s"), (90_000, "1 min")]
        {
            assert_eq!(took(SignedDuration::from_millis(millis)), told);
        }
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        assert_eq!(ago(now, now), "just now");
        assert_eq!(ago(now, now - SignedDuration::from_hours(30)), "30 h ago");
        assert_eq!(ago(now, now - SignedDuration::from_hours(72)), "3 d ago");
    }
}
