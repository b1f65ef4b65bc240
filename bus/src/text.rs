//! Texts that people write and that others keep. Each place they come to has room for them, because the type has a bound.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A shop's name.
pub type Name = Text<256>;

/// What an item is.
pub type Description = Text<1024>;

/// A phone number, or an e-mail address (RFC 5321 section 4.5.3.1.3).
pub type Contact = Text<254>;

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
}
