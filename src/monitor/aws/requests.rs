use std::collections::HashMap;

use crate::monitor::{MonitorError, Query, What};

/// Queries that `GetMetricData` takes at once, at most
/// (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html>).
const MOST: usize = 500;

/// The queries in as few requests as they fit in, each with all that its expressions call.
///
/// # Errors
/// [`MonitorError::Query`] for an expression that hangs together with more than a request takes.
pub(super) fn split(queries: &[Query]) -> Result<Vec<Vec<&Query>>, MonitorError> {
    let mut requests: Vec<Vec<&Query>> = Vec::new();
    for together in connected(queries) {
        if together.len() > MOST {
            let query = together[0].id.clone();
            let why = format!("it hangs together with {} queries; CloudWatch takes {MOST}", together.len());
            return Err(MonitorError::Query { query, why });
        }
        match requests.iter_mut().find(|request| request.len() + together.len() <= MOST) {
            Some(request) => request.extend(together),
            None => requests.push(together),
        }
    }
    Ok(requests)
}

/// The queries in groups of which none calls another's.
fn connected(queries: &[Query]) -> Vec<Vec<&Query>> {
    let place: HashMap<&str, usize> = queries.iter().enumerate().map(|(n, q)| (q.id.as_str(), n)).collect();
    let mut group: Vec<usize> = (0..queries.len()).collect();
    for (n, query) in queries.iter().enumerate() {
        let What::Expression(expression) = &query.what else { continue };
        for called in called(expression, &place) {
            let (from, to) = (group[called], group[n]);
            group.iter_mut().filter(|of| **of == from).for_each(|of| *of = to);
        }
    }
    let mut groups: Vec<(usize, Vec<&Query>)> = Vec::new();
    for (query, of) in queries.iter().zip(group) {
        match groups.iter_mut().find(|(name, _)| *name == of) {
            Some((_, members)) => members.push(query),
            None => groups.push((of, vec![query])),
        }
    }
    groups.into_iter().map(|(_, members)| members).collect()
}

/// What an expression calls, and perhaps more, which does no harm: any word in it that is an id. `METRICS()` means
/// all metrics of the request, or those whose ids contain a text.
fn called(expression: &str, place: &HashMap<&str, usize>) -> Vec<usize> {
    if expression.contains("METRICS(") {
        return place.values().copied().collect();
    }
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter_map(|word| place.get(word).copied()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::monitor::{MetricId, Stat};

    fn metric(n: usize) -> Query {
        let id = MetricId { namespace: "n".into(), name: "m".into(), dimensions: BTreeMap::new() };
        let what = What::Metric(id, Stat::Sum);
        Query { id: format!("m{n}"), what, label: None, period: 60, shown: true }
    }

    fn expression(id: &str, text: &str) -> Query {
        Query { id: id.into(), what: What::Expression(text.into()), ..metric(0) }
    }

    #[test]
    fn what_fits_is_one_request_in_its_order() {
        let queries: Vec<_> = (0..MOST).map(metric).collect();
        let requests = split(&queries).unwrap();
        assert_eq!(requests.len(), 1);
        assert!(requests[0].iter().zip(&queries).all(|(a, b)| a.id == b.id));
    }

    #[test]
    fn an_expression_goes_with_what_it_calls_however_far_apart_they_stand() {
        let mut queries: Vec<_> = (0..1_200).map(metric).collect();
        queries.insert(600, expression("e1", "100*m3/m1199"));
        queries.push(expression("e2", "IF(e1 > 5, m77)"));
        let requests = split(&queries).unwrap();
        assert_eq!(requests.iter().map(Vec::len).sum::<usize>(), queries.len());
        assert!(requests.iter().all(|request| request.len() <= MOST));
        let with = requests.iter().find(|request| request.iter().any(|q| q.id == "e1")).unwrap();
        for id in ["m3", "m1199", "e2", "m77"] {
            assert!(with.iter().any(|q| q.id == id), "{id}");
        }
    }

    #[test]
    fn what_hangs_together_and_does_not_fit_is_the_querys_fault() {
        let mut queries: Vec<_> = (0..MOST).map(metric).collect();
        queries.push(expression("all", "SUM(METRICS())"));
        let Err(MonitorError::Query { why, .. }) = split(&queries) else { panic!("it fits") };
        assert!(why.contains("501"), "{why}");
    }
}
