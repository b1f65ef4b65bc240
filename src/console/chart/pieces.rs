use std::collections::BTreeMap;

use super::Series;

/// A place on a chart: seconds since 1970, and a value.
pub(super) type Place = (i64, f64);

/// A series without its gaps. Of points that would stand in one column of pixels, `column` seconds wide, only the least
/// and the most are drawn.
pub(super) fn pieces(series: &Series, column: i64) -> Vec<Vec<Place>> {
    let mut pieces: Vec<Vec<Place>> = Vec::new();
    let gap = i64::from(series.period).max(1) * 3 / 2;
    for place in places(series) {
        match pieces.last_mut() {
            Some(piece) if piece.last().is_some_and(|last| place.0 - last.0 <= gap) => piece.push(place),
            _ => pieces.push(vec![place]),
        }
    }
    pieces.into_iter().map(|piece| thinned(piece, column)).collect()
}

fn places(series: &Series) -> impl Iterator<Item = Place> {
    let finite = series.points.iter().filter(|(_, value)| value.is_finite());
    finite.map(|(at, value)| (at.as_second(), *value))
}

fn thinned(piece: Vec<Place>, column: i64) -> Vec<Place> {
    if column < 2 {
        return piece;
    }
    piece
        .chunk_by(|one, other| one.0 / column == other.0 / column)
        .flat_map(|places| {
            let least = places.iter().copied().min_by(|one, other| one.1.total_cmp(&other.1));
            let most = places.iter().copied().max_by(|one, other| one.1.total_cmp(&other.1));
            let mut both: Vec<Place> = least.into_iter().chain(most).collect();
            both.sort_by_key(|place| place.0);
            both.dedup();
            both
        })
        .collect()
}

/// A series that stands on those before it.
pub(super) struct Layer {
    /// Which series it is.
    pub series: usize,
    pub below: Vec<Place>,
    pub above: Vec<Place>,
}

/// Series on each other. Where one has no value it adds nothing.
pub(super) fn stacked(series: &[Series]) -> Vec<Layer> {
    let mut sums: BTreeMap<i64, f64> = BTreeMap::new();
    for one in series {
        sums.extend(places(one).map(|(at, _)| (at, 0.0)));
    }
    let mut layers = Vec::new();
    for (n, one) in series.iter().enumerate() {
        let below: Vec<Place> = sums.iter().map(|(at, sum)| (*at, *sum)).collect();
        for (at, value) in places(one) {
            *sums.entry(at).or_default() += value;
        }
        let above: Vec<Place> = sums.iter().map(|(at, sum)| (*at, *sum)).collect();
        if !above.is_empty() {
            layers.push(Layer { series: n, below, above });
        }
    }
    layers
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::Ink;
    use super::*;

    fn series(points: &[(i64, f64)]) -> Series {
        let at = |second| Timestamp::from_second(second).unwrap();
        let points = points.iter().map(|(second, value)| (at(*second), *value)).collect();
        Series { label: String::new(), points, period: 60, right: false, ink: Ink::Palette(0) }
    }

    #[test]
    fn a_line_is_broken_where_there_is_nothing() {
        let with_gap = series(&[(0, 1.0), (60, 2.0), (180, 3.0), (240, f64::NAN)]);
        assert_eq!(pieces(&with_gap, 1), [vec![(0, 1.0), (60, 2.0)], vec![(180, 3.0)]]);
    }

    #[test]
    fn more_points_than_pixels_keep_their_peaks() {
        let minutes: Vec<(i64, f64)> =
            (0..1000).map(|n| (n * 60, if n == 500 { 99.0 } else { 1.0 })).collect();
        let drawn = pieces(&series(&minutes), 6_000).remove(0);
        assert!(drawn.len() <= 30 && drawn.contains(&(30_000, 99.0)), "{drawn:?}");
    }

    #[test]
    fn what_is_stacked_adds_up() {
        let layers = stacked(&[series(&[(0, 1.0), (60, 2.0)]), series(&[(60, 5.0)])]);
        assert_eq!(layers[1].below, [(0, 1.0), (60, 2.0)]);
        assert_eq!(layers[1].above, [(0, 1.0), (60, 7.0)]);
    }
}
