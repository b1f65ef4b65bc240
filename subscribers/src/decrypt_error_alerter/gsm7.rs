use std::fmt;

/// A text that is one short message: at most 160 characters of the GSM 7-bit default alphabet, those of its
/// extension counting twice (3GPP TS 23.038, section 6.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmsText(String);

const LENGTH: usize = 160;

/// So much of a shop's name tells it from others.
const NAME: usize = 15;

/// The alphabet without its line breaks, which no text of ours has.
const ALPHABET: &str = "@£$¥èéùìòÇØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡\
    ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";

const EXTENSION: &str = "^{}\\[~]|€";

/// What a phone cannot show, by what it can.
const NEAREST: [(&str, &str); 33] = [
    ("ÀÁÂÃĀĂĄ", "A"),
    ("áâãāăą", "a"),
    ("ĆČ", "C"),
    ("çćč", "c"),
    ("ÐĎĐ", "D"),
    ("ðďđ", "d"),
    ("ÈÊËĒĖĘĚ", "E"),
    ("êëēėęě", "e"),
    ("Ğ", "G"),
    ("ğ", "g"),
    ("ÌÍÎÏĪĮİ", "I"),
    ("íîïīįı", "i"),
    ("Ł", "L"),
    ("ł", "l"),
    ("ŃŇ", "N"),
    ("ńň", "n"),
    ("ÒÓÔÕŌŐ", "O"),
    ("óôõōő", "o"),
    ("Ř", "R"),
    ("ř", "r"),
    ("ŚŞŠȘ", "S"),
    ("śşšș", "s"),
    ("ŤȚ", "T"),
    ("ťț", "t"),
    ("ÙÚÛŪŮŰ", "U"),
    ("úûūůű", "u"),
    ("ÝŸ", "Y"),
    ("ýÿ", "y"),
    ("ŹŻŽ", "Z"),
    ("źżž", "z"),
    ("‘’‚`´", "'"),
    ("“”„«»", "\""),
    ("–—‐‑", "-"),
];

impl SmsText {
    /// `<name>: <news>`, of the first news that leaves room for the name, or else of the last; the name cut short if it
    /// must be.
    #[must_use]
    pub fn about(name: &str, news: &[impl AsRef<str>]) -> Self {
        let name = plain(name);
        let news = news.iter().map(|news| format!(": {}", plain(news.as_ref())));
        let room = |news: &String| LENGTH.saturating_sub(septets(news));
        let enough = septets(&name).min(NAME);
        let mut last = String::new();
        for one in news {
            let fits = room(&one) >= enough;
            last = one;
            if fits {
                break;
            }
        }
        let name = cut(&name, room(&last)).trim_end();
        Self(cut(&format!("{name}{last}"), LENGTH).to_owned())
    }
}

impl fmt::Display for SmsText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<SmsText> for String {
    fn from(text: SmsText) -> Self {
        text.0
    }
}

/// The text in the alphabet.
fn plain(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut plain, char| {
        match NEAREST.iter().find(|(odd, _)| odd.contains(char)) {
            Some((_, nearest)) => plain.push_str(nearest),
            None if width(char).is_some() => plain.push(char),
            None if char.is_whitespace() || char.is_control() => plain.push(' '),
            None => plain.push('?'),
        }
        plain
    })
}

fn width(char: char) -> Option<usize> {
    if ALPHABET.contains(char) { Some(1) } else { EXTENSION.contains(char).then_some(2) }
}

fn septets(text: &str) -> usize {
    text.chars().filter_map(width).sum()
}

/// As much of the text's beginning as there is room for.
fn cut(text: &str, room: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, char)| {
        used += width(*char).unwrap_or_default();
        used > room
    });
    end.map_or(text, |(at, _)| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_alphabet_is_the_standards() {
        // 128 places less the escape, line feed and carriage return.
        assert_eq!(ALPHABET.chars().count(), 125);
        assert_eq!(septets("[€]"), 6);
        for (odd, nearest) in NEAREST {
            assert!(odd.chars().all(|char| width(char).is_none()), "{odd}");
            assert_eq!(septets(nearest), 1);
        }
    }

    #[test]
    fn a_name_is_written_as_near_as_a_phone_can_and_cut_where_there_is_no_room() {
        assert_eq!(SmsText::about("Café “Łódź” ☕", &["gesloten"]).0, "Café \"Lodz\" ?: gesloten");
        let news = "n".repeat(150);
        assert_eq!(SmsText::about("AMIS Nieuwegein", &[&news]).0, format!("AMIS Nie: {news}"));
        // The first with room for the name is taken.
        assert_eq!(
            SmsText::about("AMIS Nieuwegein", &[news, "dicht".into(), "d".into()]).0,
            "AMIS Nieuwegein: dicht"
        );
        assert_eq!(SmsText::about("A", &["n".repeat(200)]).0.len(), 160);
    }

    proptest! {
        #[test]
        fn whatever_the_name_it_is_one_message(name in "\\PC{0,200}|[\\[€\\x00-\\x1f]{0,200}", news in ".{0,200}") {
            let text = SmsText::about(&name, &[&news]);
            prop_assert!(text.0.chars().all(|char| width(char).is_some()));
            prop_assert!(septets(&text.0) <= LENGTH);
        }
    }
}
