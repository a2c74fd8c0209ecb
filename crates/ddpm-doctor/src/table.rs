//! The ranks as a table, a row for each.

use ddpm_comm::Link;

use crate::facts::{Facts, Outcome};

const TITLES: [&str; 12] = [
    "rank",
    "host",
    "clock",
    "libtorch",
    "instructions",
    "threads",
    "memory",
    "disk",
    "latency",
    "bandwidth",
    "store",
    "data",
];

/// What a cell shows if there is nothing to show.
const NONE: &str = "-";

/// The titles and a line for each rank, in columns. Latencies are medians over a rank's links, and bandwidths are those
/// of its slowest one.
pub(crate) fn table(facts: &[Facts], links: &[Link]) -> Vec<String> {
    let titles = TITLES.map(str::to_owned);
    let rows: Vec<[String; 12]> = std::iter::once(titles).chain(facts.iter().map(|facts| row(facts, links))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..TITLES.len()).map(width).collect();
    let line = |row: &[String; 12]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn row(facts: &Facts, links: &[Link]) -> [String; 12] {
    let ours: Vec<&Link> = links.iter().filter(|link| link.from == facts.rank || link.to == facts.rank).collect();
    let mut latencies: Vec<f64> = ours.iter().map(|link| link.latency_s).collect();
    latencies.sort_by(f64::total_cmp);
    let latency = latencies.get(latencies.len() / 2).map_or(NONE.into(), |latency| format!("{:.1} us", latency * 1e6));
    let slowest = ours.iter().min_by(|a, b| a.bytes_per_s.total_cmp(&b.bytes_per_s));
    let bandwidth = slowest.map_or(NONE.into(), |link| format!("{:.0} MB/s", link.bytes_per_s / 1e6));
    let clock = match (facts.rank, ours.iter().find(|link| link.from == 0)) {
        (0, _) | (_, None) => NONE.into(),
        (_, Some(link)) => format!("{:+.1} ms", link.skew_s * 1e3),
    };
    let gigabytes = |megabytes: Option<f64>| megabytes.map_or(NONE.into(), |mb| format!("{:.1} GB", mb / 1e3));
    [
        facts.rank.to_string(),
        facts.host.clone(),
        clock,
        facts.libtorch.clone(),
        facts.instructions.clone(),
        format!("{} of {}", facts.threads, facts.processors),
        gigabytes(facts.memory_mb),
        gigabytes(facts.disk_mb),
        latency,
        bandwidth,
        outcome(&facts.store, |()| "ok".into()),
        outcome(&facts.data, |data| format!("{} images, {:016x}", data.images, data.fingerprint)),
    ]
}

fn outcome<T>(outcome: &Outcome<T>, shown: impl Fn(&T) -> String) -> String {
    match outcome {
        Outcome::NotAsked => NONE.into(),
        Outcome::Fine(found) => shown(found),
        Outcome::Failed(_) => "FAIL".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remarks::tests::{facts, link};

    #[test]
    fn columns_are_aligned_and_what_is_unknown_is_a_dash() {
        let mut second = facts(1, "another");
        second.store = Outcome::Failed("no".into());
        second.data = Outcome::NotAsked;
        let lines = table(&[facts(0, "a"), second], &[link(0, 1)]);
        assert_eq!(lines.len(), 3);
        let at = |title: &str| lines[0].find(title).unwrap();
        assert_eq!(&lines[1][at("clock")..][..1], "-");
        assert_eq!(&lines[2][at("clock")..][..7], "+0.1 ms");
        assert_eq!(&lines[2][at("threads")..][..6], "4 of 4");
        assert_eq!(&lines[1][at("latency")..][..6], "2.0 us");
        assert_eq!(&lines[2][at("bandwidth")..][..9], "5000 MB/s");
        assert_eq!(&lines[1][at("data")..], "512 images, 0000000000000007");
        assert!(lines[2].ends_with("FAIL   -"), "{lines:?}");
        assert!(table(&[facts(0, "a")], &[])[1].contains("  -"));
    }
}
