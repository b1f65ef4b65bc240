//! Which moment is restored, by what was asked for, what can be had, and what stands there already.

use jiff::Timestamp;

use super::RestoreError;

/// What has a copy's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    Nothing,
    /// A copy of that moment, made by an earlier run.
    Copy {
        of: Timestamp,
        kept: bool,
    },
    /// Something else, which is nobody's to touch.
    Foreign,
}

/// From when to when a table can be had.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub earliest: Timestamp,
    pub latest: Timestamp,
}

/// A table, its copy's name, what has that name, and what can be had of it, where that matters.
#[derive(Debug)]
pub(super) struct Candidate {
    pub table: String,
    pub copy: String,
    pub standing: Standing,
    pub window: Option<Window>,
}

/// The one moment for all of them. A copy that is there already is gone on with; it says which moment that is.
pub(super) fn moment(asked: Option<Timestamp>, of: &[Candidate]) -> Result<Timestamp, RestoreError> {
    let mut there: Option<(&str, Timestamp)> = None;
    for Candidate { table, copy, standing, .. } in of {
        match (standing, there) {
            (Standing::Nothing, _) => {}
            (Standing::Foreign, _) => {
                return Err(RestoreError::NameTaken { table: table.clone(), copy: copy.clone() });
            }
            (Standing::Copy { of, .. }, Some((_, other))) if *of != other => {
                return Err(RestoreError::TwoMoments(other, *of));
            }
            (Standing::Copy { of, .. }, _) => there = Some((copy, *of)),
        }
    }
    // To the second, as they are restored.
    let asked = asked.and_then(|at| Timestamp::from_second(at.as_second()).ok());
    let at = match (asked, there) {
        (Some(asked), Some((copy, is))) if asked != is => {
            return Err(RestoreError::OtherMoment { copy: copy.to_owned(), is });
        }
        (_, Some((_, is))) => is,
        (Some(asked), None) => asked,
        (None, None) => latest(of)?,
    };
    for Candidate { table, window, .. } in of.iter().filter(|one| one.standing == Standing::Nothing) {
        let Some(Window { earliest, latest }) = *window else { continue };
        if !(earliest..=latest).contains(&at) {
            return Err(RestoreError::OutOfReach { table: table.clone(), at, earliest, latest });
        }
    }
    Ok(at)
}

/// The latest moment that can be had of all.
fn latest(of: &[Candidate]) -> Result<Timestamp, RestoreError> {
    let all = || of.iter().map(|one| one.table.as_str()).collect::<Vec<_>>().join(", ");
    let latest = of.iter().filter_map(|one| Some(one.window?.latest)).min();
    latest.ok_or_else(|| RestoreError::NoMoment(all()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn candidate(table: &str, standing: Standing, window: Option<(i64, i64)>) -> Candidate {
        let window = window.map(|(earliest, latest)| Window { earliest: at(earliest), latest: at(latest) });
        Candidate { table: table.into(), copy: format!("{table}-restored"), standing, window }
    }

    fn copy(of: i64) -> Standing {
        Standing::Copy { of: at(of), kept: false }
    }

    #[test]
    fn without_a_moment_the_latest_is_restored_that_all_tables_have() {
        let tables = [
            candidate("events", Standing::Nothing, Some((10, 90))),
            candidate("shops", Standing::Nothing, Some((20, 80))),
        ];
        assert_eq!(moment(None, &tables).unwrap(), at(80));
    }

    #[test]
    fn a_moment_is_refused_that_one_table_has_not() {
        let tables = [
            candidate("events", Standing::Nothing, Some((10, 90))),
            candidate("shops", Standing::Nothing, Some((20, 80))),
        ];
        for (asked, right) in [(19, false), (20, true), (80, true), (81, false)] {
            let told = moment(Some(at(asked)), &tables);
            assert_eq!(told.is_ok(), right, "{asked}");
            if let Err(error) = told {
                let table = "shops can be had as it was from 1970-01-01T00:00:20Z to 1970-01-01T00:01:20Z";
                assert!(error.to_string().starts_with(table), "{error}");
            }
        }
        let within = at(50) + jiff::SignedDuration::from_millis(999);
        assert_eq!(moment(Some(within), &tables).unwrap(), at(50));
    }

    #[test]
    fn what_is_there_is_gone_on_with_and_the_rest_is_made_as_of_the_same_moment() {
        let tables = |there| [candidate("events", copy(50), None), candidate("shops", there, Some((20, 80)))];
        for asked in [None, Some(at(50))] {
            assert_eq!(moment(asked, &tables(Standing::Nothing)).unwrap(), at(50));
            assert_eq!(moment(asked, &tables(copy(50))).unwrap(), at(50));
        }
        let told = moment(Some(at(51)), &tables(Standing::Nothing)).unwrap_err().to_string();
        assert!(told.contains("--at 1970-01-01T00:00:50Z") && told.contains("--discard"), "{told}");
        assert!(matches!(moment(None, &tables(copy(51))), Err(RestoreError::TwoMoments(..))));
        // One that can no longer be made beside it.
        let tables =
            [candidate("events", copy(50), None), candidate("shops", Standing::Nothing, Some((60, 80)))];
        assert!(matches!(moment(None, &tables), Err(RestoreError::OutOfReach { .. })));
    }

    #[test]
    fn what_is_somebody_elses_is_not_touched() {
        let tables = [
            candidate("events", Standing::Foreign, Some((10, 90))),
            candidate("shops", Standing::Nothing, Some((20, 80))),
        ];
        let told = moment(Some(at(50)), &tables).unwrap_err().to_string();
        assert!(told.contains("events-restored that was not restored from events"), "{told}");
    }
}
