//! What is printed, and what is judged by samples.

use crate::{broker::Sample, ledger::Counts};

/// Runs that are shorter are not judged by memory: what the broker keeps is still growing to its size.
const JUDGED_SECS: f64 = 600.0;

const MIB: f64 = 1024.0 * 1024.0;

/// The head of the table.
pub(crate) fn head() -> &'static str {
    "| minutes | RSS MiB mean (min–max) | open files mean (max) | threads | store MiB | broker CPU | messages in | \
     messages out | repeated | connections | wills | audits |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
}

/// A line of the table: the samples of a time, and what was counted in it.
pub(crate) fn line(samples: &[Sample], before: &Counts, after: &Counts) -> String {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return String::new() };
    let rss = Range::of(samples, |sample| sample.rss_bytes as f64 / MIB);
    let files = Range::of(samples, |sample| sample.files as f64);
    let threads = Range::of(samples, |sample| sample.threads as f64);
    let secs = last.at_secs - first.at_secs;
    format!(
        "| {:.0}–{:.0} | {:.1} ({:.1}–{:.1}) | {:.1} ({}) | {} | {:.1} | {:.1} % | {} | {} | {} | {} | {} | {} |",
        first.at_secs / 60.0,
        last.at_secs / 60.0,
        rss.mean,
        rss.min,
        rss.max,
        files.mean,
        files.max,
        threads.max,
        last.store_bytes as f64 / MIB,
        100.0 * (last.cpu_secs - first.cpu_secs) / secs,
        after.published - before.published,
        after.delivered - before.delivered,
        after.again - before.again,
        after.connects - before.connects,
        after.wills - before.wills,
        after.audits - before.audits,
    )
}

struct Range {
    min: f64,
    mean: f64,
    max: f64,
}

impl Range {
    fn of(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> Range {
        let values: Vec<f64> = samples.iter().map(value).collect();
        Range {
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            mean: values.iter().sum::<f64>() / values.len() as f64,
            max: values.iter().copied().fold(0.0, f64::max),
        }
    }
}

/// Compares the last third of a run with the one before. Says what is wrong.
pub(crate) fn judge(samples: &[Sample]) -> Vec<String> {
    let third = samples.len() / 3;
    let secs = samples.last().map_or(0.0, |last| last.at_secs);
    if secs < JUDGED_SECS {
        println!("memory and files are not judged: the run is shorter than {JUDGED_SECS} s");
        return Vec::new();
    }
    let (second, last) = (&samples[third..2 * third], &samples[samples.len() - third..]);
    let mut wrong = Vec::new();
    let rss = [second, last].map(|part| Range::of(part, |sample| sample.rss_bytes as f64 / MIB).mean);
    println!(
        "RSS: {:.1} MiB in the second third, {:.1} MiB in the last: {:+.1} %",
        rss[0],
        rss[1],
        growth(rss)
    );
    if growth(rss) > 10.0 {
        wrong.push("memory grows".into());
    }
    let files = [second, last].map(|part| Range::of(part, |sample| sample.files as f64).mean);
    println!("open files: {:.1} and {:.1}", files[0], files[1]);
    // Clients come and go, so that the mean is not the same at all times.
    if growth(files) > 10.0 {
        wrong.push("open files grow".into());
    }
    wrong
}

/// In percent.
fn growth([before, after]: [f64; 2]) -> f64 {
    100.0 * (after - before) / before
}
