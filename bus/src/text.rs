//! Texts that people write and that others keep. Each place they come to has room for them, because the type has a bound.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A shop's name.
pub type Name = Text<256>;

/// What an item is.
pub type Description = Text<1024>;

/// An e-mail address (RFC 5321 section 4.5.3.1.3).
pub type Contact = Text<254>;

/// A phone number that a text message can be sent to from anywhere: `+`, country, number (ITU-T E.164), as `+31600000001`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Phone(String);

/// Why that is no phone number. Does not repeat it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a phone number with its country: + and 7 to 15 digits, without blanks, as +31600000001")]
pub struct InvalidPhone;

impl FromStr for Phone {
    type Err = InvalidPhone;

    fn from_str(text: &str) -> Result<Self, InvalidPhone> {
        let digits = text.strip_prefix('+').unwrap_or_default();
        let right = (7..=15).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && !digits.starts_with('0');
        right.then(|| Self(text.to_owned())).ok_or(InvalidPhone)
    }
}

impl TryFrom<String> for Phone {
    type Error = InvalidPhone;

    fn try_from(text: String) -> Result<Self, InvalidPhone> {
        text.parse()
    }
}

impl From<Phone> for String {
    fn from(phone: Phone) -> Self {
        phone.0
    }
}

impl fmt::Display for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A language that a manager can be written to in, by its code (ISO 639-1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Language {
    #[default]
    English,
    Dutch,
}

/// Why a language cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be en or nl")]
pub struct UnknownLanguage;

impl Language {
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Dutch => "nl",
        }
    }
}

impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(code: &str) -> Result<Self, UnknownLanguage> {
        [Self::English, Self::Dutch].into_iter().find(|is| is.code() == code).ok_or(UnknownLanguage)
    }
}

impl TryFrom<String> for Language {
    type Error = UnknownLanguage;

    fn try_from(code: String) -> Result<Self, UnknownLanguage> {
        code.parse()
    }
}

impl From<Language> for String {
    fn from(language: Language) -> Self {
        language.code().to_owned()
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

/// A text of at most so many characters, none of them a control character.
///
/// ```
/// use kassa_bus::text::Name;
/// assert!("Café Zuid".parse::<Name>().is_ok());
/// assert!("Café\u{0}Zuid".parse::<Name>().is_err());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Text<const MAX: usize>(String);

/// Why a text cannot be taken. Does not repeat it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    #[error("must have at most {max} characters, and has {has}")]
    Long { max: usize, has: usize },
    #[error("must have no control characters, and has U+{0:04X}")]
    Control(u32),
}

impl<const MAX: usize> TryFrom<String> for Text<MAX> {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, InvalidText> {
        let has = text.chars().count();
        if has > MAX {
            return Err(InvalidText::Long { max: MAX, has });
        }
        match text.chars().find(|c| c.is_control()) {
            Some(control) => Err(InvalidText::Control(control.into())),
            None => Ok(Self(text)),
        }
    }
}

impl<const MAX: usize> FromStr for Text<MAX> {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        text.to_owned().try_into()
    }
}

impl<const MAX: usize> From<Text<MAX>> for String {
    fn from(text: Text<MAX>) -> Self {
        text.0
    }
}

impl<const MAX: usize> Deref for Text<MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_taken_up_to_its_length_in_characters_and_without_control_characters() {
        assert!("é".repeat(256).parse::<Name>().is_ok());
        assert_eq!("é".repeat(257).parse::<Name>(), Err(InvalidText::Long { max: 256, has: 257 }));
        for control in ['\0', '\t', '\n', '\u{7f}', '\u{85}'] {
            assert_eq!(
                format!("a{control}b").parse::<Name>(),
                Err(InvalidText::Control(control.into())),
                "{control:?}"
            );
        }
        assert!("".parse::<Name>().is_ok());
    }

    #[test]
    fn a_phone_number_is_one_that_a_text_message_can_be_sent_to() {
        for right in ["+31600000001", "+1234567", "+123456789012345"] {
            assert_eq!(right.parse::<Phone>().unwrap().to_string(), right);
        }
        for wrong in [
            "",
            "+",
            "0612345678",
            "31600000001",
            "+31 6 00000001",
            "+31-600000001",
            "+0600000001",
            "+123456",
            "+1234567890123456",
            "+3160000000a",
            "+31600000001\n",
            "+٣١٦٠٠٠٠٠٠٠١",
            "++31600000001",
            "call me",
        ] {
            assert_eq!(wrong.parse::<Phone>(), Err(InvalidPhone), "{wrong}");
        }
    }
}
