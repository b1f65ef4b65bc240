use std::error::Error;

/// An error with everything that caused it, on one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.map(ToString::to_string).fold(error.to_string(), |told, cause| {
        // Some errors already tell their cause.
        if told.ends_with(&cause) { told } else { format!("{told}: {cause}") }
    })
}
