use std::str::FromStr;

/// The problems there are, as docs/problems.md tells them to clients. What stands here is what a till decides by, so that none
/// ever changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemType {
    Malformed,
    UnknownShop,
    UnknownSale,
    NoSuchPage,
    NoSuchMethod,
    TooLarge,
    TooMany,
    Unavailable,
    CutOff,
    Slow,
    Encoding,
    Misdirected,
}

/// What a `type` begins with that is ours: a name, at which nothing is to be fetched.
const OURS: &str = "urn:kassa:problem:";

impl ProblemType {
    pub const ALL: [Self; 12] = [
        Self::Malformed,
        Self::UnknownShop,
        Self::UnknownSale,
        Self::NoSuchPage,
        Self::NoSuchMethod,
        Self::TooLarge,
        Self::TooMany,
        Self::Unavailable,
        Self::CutOff,
        Self::Slow,
        Self::Encoding,
        Self::Misdirected,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownShop => "unknown-shop",
            Self::UnknownSale => "unknown-sale",
            Self::NoSuchPage => "no-such-page",
            Self::NoSuchMethod => "no-such-method",
            Self::TooLarge => "too-large",
            Self::TooMany => "too-many",
            Self::Unavailable => "unavailable",
            Self::CutOff => "cut-off",
            Self::Slow => "slow",
            Self::Encoding => "encoding",
            Self::Misdirected => "misdirected",
        }
    }

    /// The problem's `type` (RFC 9457 section 3.1.1).
    #[must_use]
    pub fn uri(self) -> String {
        format!("{OURS}{}", self.name())
    }

    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Malformed => "The request is malformed",
            Self::UnknownShop => "There is no such shop",
            Self::UnknownSale => "There is no such sale",
            Self::NoSuchPage => "There is no such page",
            Self::NoSuchMethod => "The method is not allowed",
            Self::TooLarge => "The request is too large",
            Self::TooMany => "Too many sales",
            Self::Unavailable => "Try again",
            Self::CutOff => "The body is cut off or badly framed",
            Self::Slow => "The body takes too long",
            Self::Encoding => "The content encoding is not taken",
            Self::Misdirected => "The request is meant for another site",
        }
    }

    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::CutOff => 400,
            Self::UnknownShop | Self::UnknownSale | Self::NoSuchPage => 404,
            Self::NoSuchMethod => 405,
            Self::TooLarge => 413,
            Self::TooMany => 429,
            Self::Unavailable => 503,
            Self::Slow => 408,
            Self::Encoding => 415,
            Self::Misdirected => 421,
        }
    }

    /// Whether the same sale, posted again, gets the same answer. Where nothing is served, somebody mistook the address; and
    /// what is wrong with how a body comes, its framing, its pace or its encoding, may be the doing of whatever stands between.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Malformed | Self::UnknownShop | Self::TooLarge)
    }
}

/// A `type` that is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a type of Kassa's problems")]
pub struct NotOurs;

impl FromStr for ProblemType {
    type Err = NotOurs;

    fn from_str(uri: &str) -> Result<Self, NotOurs> {
        let name = uri.strip_prefix(OURS).ok_or(NotOurs)?;
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or(NotOurs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_tells_what_clients_decide_by() {
        let catalogue = include_str!("../../docs/problems.md");
        let rows: Vec<&str> = catalogue.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(rows.len(), ProblemType::ALL.len());
        for (row, kind) in rows.into_iter().zip(ProblemType::ALL) {
            let is_final = if kind.is_final() { "yes" } else { "no" };
            let says = format!("| `{}` | {} | {is_final} |", kind.uri(), kind.status());
            assert!(row.starts_with(&says), "{row}");
            assert_eq!(kind.uri().parse(), Ok(kind));
        }
        for other in ["about:blank", "urn:kassa:problem:", "urn:kassa:problem:Malformed", "malformed"] {
            assert_eq!(other.parse::<ProblemType>(), Err(NotOurs), "{other}");
        }
    }
}
