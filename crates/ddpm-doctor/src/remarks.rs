//! Where ranks disagree or lack something, and what to do about it.

use std::collections::{BTreeMap, BTreeSet};

use ddpm_comm::Link;
use ddpm_model::ErrorKind;

use crate::facts::{Facts, Outcome};

/// Seconds by which clocks may differ: times in logs and credentials of stores rely on them.
const SKEW: f64 = 1.0;
/// MB of memory and of disk that each machine should have left.
const LEAST_MB: f64 = 1000.0;
/// A link is called slow if it carries this fraction of what others of its kind do.
const SLOW: f64 = 0.25;
/// Links of a kind that are enough to say what is usual.
const ENOUGH_LINKS: usize = 3;

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Remark {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, where, and how to fix it.
    pub text: String,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// Training would fail, or compute something else: with the kind of failure.
    Problem(ErrorKind),
    /// Training works, but may be slow or fail later.
    Warning,
}

/// All remarks on the ranks, in the order of ranks, and on the links between them.
pub(crate) fn remarks(facts: &[Facts], links: &[Link]) -> Vec<Remark> {
    let differs = |what: &str, value: fn(&Facts) -> Option<String>, severity: Severity, fix: &str| {
        let by_value = group(facts, value);
        let values = by_value.iter().map(|(value, ranks)| format!("{value} on {}", named(facts, ranks)));
        let values: Vec<String> = values.collect();
        let text = || format!("{what} differs: {}. {fix}", values.join("; "));
        (values.len() > 1).then(|| Remark { severity, text: text() })
    };
    let problem = Severity::Problem(ErrorKind::Internal);
    let mut all: Vec<Remark> = [
        differs(
            "the program",
            |facts| Some(facts.program.clone()),
            problem,
            "Install the same version on every machine",
        ),
        differs("libtorch", libtorch, problem, "Install the same one on every machine (scripts/setup.sh)"),
        differs(
            "the set of instructions",
            |facts| Some(facts.instructions.clone()),
            problem,
            "Ranks would round differently: set ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA on all ranks to the least \
             of these, or remove what sets them on some",
        ),
        differs(
            "the processor",
            |facts| Some(facts.processor.clone()),
            Severity::Warning,
            "The faster ones wait for the slower ones",
        ),
        differs(
            "the number of threads",
            |facts| Some(facts.threads.to_string()),
            Severity::Warning,
            "Ranks with fewer are slower: set OMP_NUM_THREADS to the same number for all, or give each as many \
             processors",
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    all.extend(skews(facts, links));
    all.extend(scarce(facts, "memory", |facts| facts.memory_mb, "End other programs there"));
    let disk = "space on the disk of the run";
    all.extend(scarce(facts, disk, |facts| facts.disk_mb, "Free some, or set run.dir to another disk"));
    let failed = |what: &str, failure: fn(&Facts) -> Option<String>| {
        let by_message = group(facts, failure);
        let remark = |(message, ranks): (&String, &Vec<usize>)| Remark {
            severity: Severity::Problem(ErrorKind::Storage),
            text: format!("{what} fails on {}: {message}", named(facts, ranks)),
        };
        by_message.iter().map(remark).collect::<Vec<_>>()
    };
    all.extend(failed("the store", |facts| failure(&facts.store)));
    all.extend(failed("the data set", |facts| failure(&facts.data)));
    let storage = Severity::Problem(ErrorKind::Storage);
    all.extend(differs("the data set", data_set, storage, "Make data.path the same files on every machine"));
    all.extend(slow_links(facts, links));
    all
}

/// One remark for each host that has less of something than is sensible.
fn scarce(facts: &[Facts], what: &str, free: fn(&Facts) -> Option<f64>, fix: &str) -> Vec<Remark> {
    let by_host = group(facts, |facts| (free(facts)? < LEAST_MB).then(|| facts.host.clone()));
    let remark = |(host, ranks): (&String, &Vec<usize>)| {
        let least = ranks.iter().filter_map(|rank| free(&facts[*rank])).fold(f64::INFINITY, f64::min);
        let text = format!("{host} has only {least:.0} MB of {what} left. {fix}");
        Remark { severity: Severity::Warning, text }
    };
    by_host.iter().map(remark).collect()
}

fn libtorch(facts: &Facts) -> Option<String> {
    Some(format!("{} of {} bytes", facts.libtorch, facts.libtorch_bytes))
}

fn failure<T>(outcome: &Outcome<T>) -> Option<String> {
    match outcome {
        Outcome::Failed(message) => Some(message.clone()),
        Outcome::NotAsked | Outcome::Fine(_) => None,
    }
}

/// The machines whose clock differs from that of rank 0.
fn skews(facts: &[Facts], links: &[Link]) -> Vec<Remark> {
    let mut by_host: BTreeMap<&str, f64> = BTreeMap::new();
    for link in links.iter().filter(|link| link.from == 0 && link.skew_s.abs() > SKEW) {
        by_host.entry(&facts[link.to].host).or_insert(link.skew_s);
    }
    let remark = |(host, skew): (&str, f64)| Remark {
        severity: Severity::Warning,
        text: format!(
            "the clock of {host} is {:.1} s {} that of {}. Synchronize the clocks, by chrony or systemd-timesyncd",
            skew.abs(),
            if skew > 0.0 { "ahead of" } else { "behind" },
            facts[0].host
        ),
    };
    by_host.into_iter().map(remark).collect()
}

/// The identity of the data set that a rank opened.
fn data_set(facts: &Facts) -> Option<String> {
    let Outcome::Fine(data) = &facts.data else { return None };
    Some(format!("{} images, fingerprint {:016x}, {}", data.images, data.fingerprint, data.description))
}

/// Links that carry far less than others between the same or between different machines.
fn slow_links(facts: &[Facts], links: &[Link]) -> Vec<Remark> {
    let within = |link: &Link| facts[link.from].host == facts[link.to].host;
    let mut all = Vec::new();
    for (kind, where_) in [(true, "within a machine"), (false, "between machines")] {
        let links: Vec<&Link> = links.iter().filter(|link| within(link) == kind).collect();
        if links.len() < ENOUGH_LINKS {
            continue;
        }
        let mut speeds: Vec<f64> = links.iter().map(|link| link.bytes_per_s).collect();
        speeds.sort_by(f64::total_cmp);
        let usual = speeds[speeds.len() / 2];
        all.extend(links.iter().filter(|link| link.bytes_per_s < SLOW * usual).map(|link| Remark {
            severity: Severity::Warning,
            text: format!(
                "the link of {} and {} carries {:.0} MB/s, and others {where_} {:.0}. Measure again while nothing else \
                 runs; if it stays slow, look at its cables, ports and drivers",
                named(facts, &[link.from]),
                named(facts, &[link.to]),
                link.bytes_per_s / 1e6,
                usual / 1e6
            ),
        }));
    }
    all
}

/// The ranks by what each of them has; ranks that have nothing are left out.
fn group(facts: &[Facts], value: impl Fn(&Facts) -> Option<String>) -> BTreeMap<String, Vec<usize>> {
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for facts in facts {
        if let Some(value) = value(facts) {
            groups.entry(value).or_default().push(facts.rank);
        }
    }
    groups
}

/// Ranks with their machines: `ranks 0-2, 5 (a, b)`.
fn named(facts: &[Facts], ranks: &[usize]) -> String {
    let mut spans: Vec<(usize, usize)> = Vec::new();
    for &rank in ranks {
        match spans.last_mut() {
            Some((_, last)) if *last + 1 == rank => *last = rank,
            _ => spans.push((rank, rank)),
        }
    }
    let span = |(first, last): &(usize, usize)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first}-{last}"),
    };
    let spans: Vec<String> = spans.iter().map(span).collect();
    let hosts: BTreeSet<&str> = ranks.iter().map(|rank| facts[*rank].host.as_str()).collect();
    let hosts: Vec<&str> = hosts.into_iter().collect();
    let noun = if ranks.len() == 1 { "rank" } else { "ranks" };
    format!("{noun} {} ({})", spans.join(", "), hosts.join(", "))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::facts::Data;

    /// A healthy rank on a machine of its own.
    pub(crate) fn facts(rank: usize, host: &str) -> Facts {
        Facts {
            rank,
            host: host.into(),
            program: "program 1".into(),
            libtorch: "2.13.0".into(),
            libtorch_bytes: 431_000_000,
            instructions: "avx2".into(),
            processor: "a processor".into(),
            threads: 4,
            processors: 4,
            memory_mb: Some(64_000.0),
            folder: "/runs".into(),
            disk_mb: Some(1e6),
            store: Outcome::Fine(()),
            data: Outcome::Fine(Data { images: 512, fingerprint: 7, description: "512 digits".into() }),
        }
    }

    pub(crate) fn link(from: usize, to: usize) -> Link {
        Link { from, to, latency_s: 2e-6, bytes_per_s: 5e9, skew_s: 1e-4 }
    }

    fn four() -> (Vec<Facts>, Vec<Link>) {
        let facts = (0..4).map(|rank| facts(rank, if rank < 2 { "a" } else { "b" })).collect();
        let pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)];
        (facts, pairs.map(|(from, to)| link(from, to)).to_vec())
    }

    #[test]
    fn ranks_that_agree_give_no_cause_for_remarks() {
        let (facts, links) = four();
        assert!(remarks(&facts, &links).is_empty() && remarks(&facts[..1], &[]).is_empty());
    }

    #[test]
    fn each_disagreement_is_named_with_its_ranks_and_a_fix() {
        type Change = fn(&mut Facts);
        let (internal, storage) = (Severity::Problem(ErrorKind::Internal), Severity::Problem(ErrorKind::Storage));
        let cases: [(Change, Severity, &str); 10] = [
            (
                |f| f.program = "program 2".into(),
                internal,
                "program 1 on ranks 0-2 (a, b); program 2 on rank 3 (b). Install",
            ),
            (|f| f.libtorch_bytes = 5, internal, "2.13.0 of 5 bytes on rank 3 (b). Install the same"),
            (
                |f| f.instructions = "any".into(),
                internal,
                "instructions differs: any on rank 3 (b); avx2 on ranks 0-2 (a, b). ",
            ),
            (|f| f.processor = "another".into(), Severity::Warning, "another on rank 3 (b). The faster ones"),
            (|f| f.threads = 1, Severity::Warning, "1 on rank 3 (b); 4 on ranks 0-2 (a, b). Ranks with fewer"),
            (|f| f.memory_mb = Some(12.0), Severity::Warning, "b has only 12 MB of memory left. End"),
            (|f| f.disk_mb = Some(12.0), Severity::Warning, "b has only 12 MB of space on the disk of the run left. "),
            (|f| f.store = Outcome::Failed("gone".into()), storage, "the store fails on rank 3 (b): gone"),
            (|f| f.data = Outcome::Failed("gone".into()), storage, "the data set fails on rank 3 (b): gone"),
            (
                |f| f.data = Outcome::Fine(Data { images: 9, fingerprint: 1, description: "9 digits".into() }),
                storage,
                "9 images, fingerprint 0000000000000001, 9 digits on rank 3 (b). Make data.path the same",
            ),
        ];
        for (change, severity, text) in cases {
            let (mut facts, links) = four();
            change(&mut facts[3]);
            let remarks = remarks(&facts, &links);
            assert_eq!(remarks.len(), 1, "{remarks:?}");
            assert!(remarks[0].severity == severity && remarks[0].text.contains(text), "{text} in {remarks:?}");
        }
    }

    #[test]
    fn clocks_and_links_are_compared() {
        let (facts, mut links) = four();
        for link in links.iter_mut().filter(|link| link.to >= 2) {
            link.skew_s = -3.0;
        }
        let skewed = remarks(&facts, &links);
        assert_eq!(skewed.len(), 1, "{skewed:?}");
        assert!(skewed[0].text.starts_with("the clock of b is 3.0 s behind that of a. "), "{skewed:?}");
        let (facts, mut links) = four();
        links[1].bytes_per_s = 1e8;
        let slow = remarks(&facts, &links);
        assert_eq!(slow.len(), 1, "{slow:?}");
        let text = "the link of rank 0 (a) and rank 2 (b) carries 100 MB/s, and others between machines 5000. ";
        assert!(slow[0].text.starts_with(text), "{slow:?}");
    }

    #[test]
    fn ranks_are_named_in_spans() {
        let facts: Vec<Facts> = (0..8).map(|rank| facts(rank, "a")).collect();
        assert_eq!(named(&facts, &[0, 1, 2, 5, 6]), "ranks 0-2, 5, 6 (a)");
        assert_eq!(named(&facts, &[7]), "rank 7 (a)");
    }
}
