//! What a run says at its end: one JSON object, or a text; and whether that is a success.

use std::fmt::Write;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    fault::Reasons,
    load::{Connecting, Load, Mode, Pace},
    run::{End, Outcome},
    tally::{Fate, Times},
};
use crate::codec::Version;

/// A thread that was on a processor for so much of the time may have been what limited the run.
const BUSY_MAX: f64 = 0.9;
/// Messages that were sent so late by this program alone make the run's latencies its own.
const LAG_US_MAX: f64 = 1000.0;

/// All that is known of a run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    mode: &'static str,
    settings: Settings,
    connections: Connections,
    messages: Messages,
    /// The measured part of the run in seconds; rates are of it.
    measured_secs: f64,
    rates: Rates,
    /// From when a message was due to its arrival.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_from_due: Option<Percentiles>,
    /// From when a message was sent to its arrival.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_from_send: Option<Percentiles>,
    /// From when a message was due to PUBACK or PUBCOMP.
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledgement: Option<Percentiles>,
    tool: Tool,
    /// What was not as it should be; empty if the run is a success.
    problems: Vec<String>,
    /// What the reader of the figures should know.
    remarks: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Settings {
    broker: String,
    tls: bool,
    mqtt: &'static str,
    publishers: u32,
    subscribers: u32,
    holders: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    layout: Option<&'static str>,
    topic: String,
    qos: u8,
    retain: bool,
    payload_bytes: usize,
    /// 0 in a closed loop.
    rate_per_sec: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    arrivals: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    window: u16,
    warmup_secs: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_secs: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_rate_per_sec: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_at_once: Option<u32>,
    threads: u32,
    seed: u64,
}

#[derive(Debug, Serialize)]
struct Connections {
    wanted: u32,
    connected: u64,
    failed: u64,
    failures: Reasons,
    /// Ended by the broker or the network during the run.
    ended: u64,
    endings: Reasons,
    /// From the beginning of the run to the last connection.
    connect_secs: f64,
    connects_per_sec: f64,
    connack: Option<Percentiles>,
}

#[derive(Debug, Serialize)]
struct Messages {
    sent: u64,
    /// Taken by the broker; of QoS 0, sent.
    taken: u64,
    refused: u64,
    refusals: Reasons,
    /// Sent, and neither taken nor refused.
    unsettled: u64,
    /// Due and never sent.
    unsent: u64,
    received: u64,
    received_bytes: u64,
    /// Deliveries of this run to itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<Delivery>,
}

#[derive(Debug, Serialize)]
struct Delivery {
    expected: u64,
    delivered: u64,
    lost: u64,
    duplicates: u64,
    out_of_order: u64,
    altered: u64,
    foreign: u64,
}

#[derive(Debug, Serialize)]
struct Rates {
    sent_per_sec: f64,
    sent_bytes_per_sec: f64,
    taken_per_sec: f64,
    received_per_sec: f64,
    received_bytes_per_sec: f64,
}

/// Whether the figures are the broker's or ours.
#[derive(Debug, Serialize)]
struct Tool {
    /// By thread, the part of the time that it was on a processor.
    busy: Vec<f64>,
    /// How late messages were sent that only this program kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag: Option<Percentiles>,
    /// Messages that were sent late because the window was full or the socket took no more.
    held: u64,
    was_the_limit: bool,
}

/// A distribution of times in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Percentiles {
    count: u64,
    min_us: f64,
    mean_us: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p99_9_us: f64,
    p99_99_us: f64,
    max_us: f64,
}

impl Percentiles {
    fn of(times: &Times) -> Option<Self> {
        let histogram: &Histogram<u64> = times.histogram();
        if histogram.is_empty() {
            return None;
        }
        let us = |ns: u64| ns as f64 / 1000.0;
        let at = |quantile| us(histogram.value_at_quantile(quantile));
        Some(Self {
            count: histogram.len(),
            min_us: us(histogram.min()),
            mean_us: histogram.mean() / 1000.0,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            p99_99_us: at(0.9999),
            max_us: us(histogram.max()),
        })
    }
}

impl Report {
    /// `broker` is how its place is shown.
    pub(super) fn new(load: &Load, version: Version, broker: String, tls: Tls, outcome: &Outcome) -> Self {
        let (fate, end) = (outcome.tally.fate(), outcome.end);
        let mut report = Self {
            mode: load.mode.name(),
            settings: settings(load, version, broker, tls),
            connections: connections(load, outcome),
            messages: messages(load, outcome, fate),
            measured_secs: outcome.measured_ns as f64 / 1e9,
            rates: rates(load, outcome),
            latency_from_due: Percentiles::of(&outcome.tally.from_due),
            latency_from_send: Percentiles::of(&outcome.tally.from_send),
            acknowledgement: Percentiles::of(&outcome.tally.acknowledged),
            tool: tool(outcome),
            problems: Vec::new(),
            remarks: Vec::new(),
        };
        report.problems = report.find_problems(load, end);
        report.remarks = report.find_remarks();
        report
    }

    /// Whether all was as it should be.
    pub(super) fn is_success(&self) -> bool {
        self.problems.is_empty()
    }

    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    fn find_problems(&self, load: &Load, end: End) -> Vec<String> {
        let Self { connections, messages, .. } = self;
        let mut problems = Vec::new();
        let mut add = |count: u64, what: &str| {
            if count > 0 {
                problems.push(format!("{count} {what}"));
            }
        };
        // In a storm of connections failures are what is measured, unless there is nothing else.
        let is_storm = load.mode == Mode::Connect && connections.connected > 0;
        for (reason, count) in connections.failures.iter().filter(|_| !is_storm) {
            add(count, &format!("of {} connections failed: {reason}", connections.wanted));
        }
        for (reason, count) in connections.endings.iter() {
            add(count, &format!("connections ended early: {reason}"));
        }
        for (reason, count) in messages.refusals.iter() {
            add(count, &format!("messages refused: {reason}"));
        }
        add(messages.unsettled, "messages were not acknowledged");
        if let Some(delivery) = &messages.delivery {
            // At QoS 0 loss is allowed, and at QoS 1 duplicates are.
            if self.settings.qos > 0 {
                add(delivery.lost, "messages lost");
            }
            if self.settings.qos == 2 {
                add(delivery.duplicates, "messages delivered twice at QoS 2");
            }
            add(delivery.out_of_order, "messages out of order");
            add(delivery.altered, "messages altered");
        }
        if end == End::Stalled {
            problems.push("no message moved any more before all were sent".into());
        }
        if connections.connected == 0 && problems.is_empty() {
            problems.push("nothing was connected".into());
        }
        problems
    }

    fn find_remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let busy = self.tool.busy.iter().filter(|&&busy| busy > BUSY_MAX).count();
        if busy > 0 {
            remarks.push(format!(
                "{busy} of {} threads of this program were more than {:.0} % busy: it may be what was measured",
                self.tool.busy.len(),
                BUSY_MAX * 100.0
            ));
        }
        if let Some(lag) = self.tool.lag.as_ref().filter(|lag| lag.p99_us > LAG_US_MAX) {
            remarks.push(format!(
                "this program fell behind its schedule by itself: p99 {} late; use more threads, or another machine",
                time(lag.p99_us)
            ));
        }
        if self.tool.held > 0 || self.messages.unsent > 0 {
            remarks.push(format!(
                "the broker did not keep up with the schedule: {} messages were held back by the window or the socket, \
                 {} were never sent",
                self.tool.held, self.messages.unsent
            ));
        }
        remarks
    }

    /// The report for people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        self.write_text(&mut text).expect("a string takes all that is written to it");
        text
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let Self { settings, connections, messages, rates, tool, .. } = self;
        let layout = settings.layout.map_or(String::new(), |layout| format!(", {layout}"));
        let tls = if settings.tls { ", TLS" } else { "" };
        writeln!(
            out,
            "dunlin bench {}: {}, MQTT {}{tls}{layout}",
            self.mode, settings.broker, settings.mqtt
        )?;
        writeln!(
            out,
            "connections   {} of {} in {:.2} s, {:.0}/s; {} failed, {} ended early",
            connections.connected,
            connections.wanted,
            connections.connect_secs,
            connections.connects_per_sec,
            connections.failed,
            connections.ended
        )?;
        if self.mode != Mode::Connect.name() {
            write!(out, "measured      {:.2} s, QoS {}", self.measured_secs, settings.qos)?;
            let size = if settings.publishers > 0 {
                format!(", {} B", settings.payload_bytes)
            } else {
                String::new()
            };
            writeln!(out, "{size}")?;
        }
        if settings.publishers > 0 {
            writeln!(
                out,
                "sent          {:>12}  {:>12.0}/s  {:>9.2} MiB/s",
                messages.sent,
                rates.sent_per_sec,
                rates.sent_bytes_per_sec / 1_048_576.0
            )?;
        }
        if settings.subscribers > 0 {
            writeln!(
                out,
                "received      {:>12}  {:>12.0}/s  {:>9.2} MiB/s",
                messages.received,
                rates.received_per_sec,
                rates.received_bytes_per_sec / 1_048_576.0
            )?;
        }
        if let Some(delivery) = &messages.delivery {
            writeln!(
                out,
                "accounts      {} expected, {} lost, {} duplicates, {} out of order, {} altered, {} foreign",
                delivery.expected,
                delivery.lost,
                delivery.duplicates,
                delivery.out_of_order,
                delivery.altered,
                delivery.foreign
            )?;
        }
        self.write_times(out)?;
        let busy: Vec<String> = tool.busy.iter().map(|busy| format!("{:.0} %", busy * 100.0)).collect();
        writeln!(out, "this program  {} threads, busy {}", tool.busy.len(), busy.join(" "))?;
        for remark in &self.remarks {
            writeln!(out, "note: {remark}")?;
        }
        Ok(())
    }

    fn write_times(&self, out: &mut String) -> std::fmt::Result {
        let rows = [
            ("CONNACK", &self.connections.connack),
            ("from due", &self.latency_from_due),
            ("from send", &self.latency_from_send),
            ("acknowledged", &self.acknowledgement),
            ("sent late by", &self.tool.lag),
        ];
        if rows.iter().all(|(_, times)| times.is_none()) {
            return Ok(());
        }
        writeln!(
            out,
            "{:<13} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "", "p50", "p90", "p99", "p99.9", "p99.99", "max"
        )?;
        for (name, times) in rows {
            let Some(times) = times else { continue };
            write!(out, "{name:<13}")?;
            for us in
                [times.p50_us, times.p90_us, times.p99_us, times.p99_9_us, times.p99_99_us, times.max_us]
            {
                write!(out, " {:>9}", time(us))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// Whether the connections are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tls {
    On,
    Off,
}

/// A time in the unit that needs the fewest digits.
fn time(us: f64) -> String {
    match us {
        ..1000.0 => format!("{us:.0} us"),
        ..10_000.0 => format!("{:.2} ms", us / 1000.0),
        ..1_000_000.0 => format!("{:.0} ms", us / 1000.0),
        _ => format!("{:.2} s", us / 1e6),
    }
}

fn settings(load: &Load, version: Version, broker: String, tls: Tls) -> Settings {
    let secs = |ns: u64| ns as f64 / 1e9;
    let (rate_per_sec, arrivals) = match load.pace {
        Pace::Open { rate_per_sec, arrivals } => (rate_per_sec, Some(arrivals.name())),
        Pace::Closed => (0.0, None),
    };
    let (connect_rate_per_sec, connect_at_once) = match load.connecting {
        Connecting::Rate(rate) => (Some(rate), None),
        Connecting::AtOnce(count) => (None, Some(count)),
    };
    Settings {
        broker,
        tls: tls == Tls::On,
        mqtt: if version.is_v5() { "5" } else { "3.1.1" },
        publishers: load.publishers,
        subscribers: load.subscribers,
        holders: load.holders,
        layout: (load.mode == Mode::Latency).then(|| load.layout.name()),
        topic: load.topic.text().to_owned(),
        qos: load.manner.qos as u8,
        retain: load.manner.retain,
        payload_bytes: load.content.len(),
        rate_per_sec,
        arrivals,
        count: (load.messages_max != u64::MAX).then_some(load.messages_max),
        window: load.window_messages_max,
        warmup_secs: secs(load.warmup_ns),
        duration_secs: (load.duration_ns != u64::MAX).then(|| secs(load.duration_ns)),
        connect_rate_per_sec,
        connect_at_once,
        threads: load.threads,
        seed: load.seed,
    }
}

fn connections(load: &Load, outcome: &Outcome) -> Connections {
    let tally = &outcome.tally;
    let connected = tally.connected.histogram().len();
    let connect_secs = tally.last_connect_ns as f64 / 1e9;
    Connections {
        wanted: load.clients(),
        connected,
        failed: tally.failures.total(),
        failures: tally.failures.clone(),
        ended: tally.endings.total(),
        endings: tally.endings.clone(),
        connect_secs,
        connects_per_sec: per_sec(connected, connect_secs),
        connack: Percentiles::of(&tally.connected),
    }
}

fn messages(load: &Load, outcome: &Outcome, fate: Fate) -> Messages {
    let (counts, tally) = (&outcome.counts, &outcome.tally);
    Messages {
        sent: counts.sent,
        taken: counts.taken,
        refused: tally.refused.total(),
        refusals: tally.refused.clone(),
        unsettled: counts.sent.saturating_sub(counts.settled),
        unsent: tally.unsent,
        received: counts.received,
        received_bytes: counts.received_bytes,
        delivery: (load.mode == Mode::Latency).then_some(Delivery {
            expected: fate.expected,
            delivered: fate.distinct,
            lost: fate.lost,
            duplicates: fate.duplicates,
            out_of_order: fate.out_of_order,
            altered: tally.altered,
            foreign: tally.foreign,
        }),
    }
}

fn rates(load: &Load, outcome: &Outcome) -> Rates {
    let (measured, secs) = (&outcome.measured, outcome.measured_ns as f64 / 1e9);
    Rates {
        sent_per_sec: per_sec(measured.sent, secs),
        sent_bytes_per_sec: per_sec(measured.sent, secs) * load.content.len() as f64,
        taken_per_sec: per_sec(measured.taken, secs),
        received_per_sec: per_sec(measured.received, secs),
        received_bytes_per_sec: per_sec(measured.received_bytes, secs),
    }
}

fn tool(outcome: &Outcome) -> Tool {
    let lag = Percentiles::of(&outcome.tally.lag);
    let is_behind = lag.as_ref().is_some_and(|lag| lag.p99_us > LAG_US_MAX);
    let is_busy = outcome.busy.iter().any(|&busy| busy > BUSY_MAX);
    Tool { busy: outcome.busy.clone(), lag, held: outcome.tally.held, was_the_limit: is_behind || is_busy }
}

/// 0 where there was no time.
fn per_sec(count: u64, secs: f64) -> f64 {
    if secs > 0.0 { count as f64 / secs } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::bench::{
            load::{Layout, tests::load},
            tally::{Arrived, Counts, Tally},
        },
        codec::QoS,
    };

    fn report(qos: QoS, arrived: Arrived) -> Report {
        let mut load = load(Layout::Pairs, 1, 1);
        load.manner.qos = qos;
        let mut tally = Tally { taken: vec![(0, 10)], arrived: vec![(0, arrived)], ..Tally::default() };
        tally.connected.record(1_500_000);
        for us in 1..=1000 {
            tally.from_due.record(us * 1000);
        }
        let counts = Counts { sent: 10, taken: 10, settled: 10, received: 10, ..Counts::default() };
        let (measured_ns, end) = (500_000_000, End::Done);
        let outcome = Outcome { tally, counts, measured: counts, measured_ns, end, busy: vec![0.25, 0.95] };
        Report::new(&load, Version::V5, "localhost:1883".into(), Tls::Off, &outcome)
    }

    #[test]
    fn loss_and_duplicates_are_judged_by_qos_and_disorder_always() {
        let all = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
        let judge = |distinct, duplicates, out_of_order| {
            all.map(|qos| report(qos, Arrived { distinct, duplicates, out_of_order }).is_success())
        };
        assert_eq!(judge(10, 0, 0), [true, true, true]);
        assert_eq!(judge(9, 0, 0), [true, false, false]);
        assert_eq!(judge(10, 1, 0), [true, true, false]);
        assert_eq!(judge(10, 0, 1), [false, false, false]);
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let json = serde_json::to_value(report(QoS::AtMostOnce, Arrived::default())).unwrap();
        let times = &json["latency_from_due"];
        let near = |name: &str, us: f64| (times[name].as_f64().unwrap() / us - 1.0).abs() < 0.001;
        assert!(near("p50_us", 500.0) && near("p90_us", 900.0) && near("p99_us", 990.0), "{times}");
        assert!(near("max_us", 1000.0) && near("min_us", 1.0) && near("mean_us", 500.5), "{times}");
        assert_eq!(times["count"], 1000);
        assert_eq!(json["rates"]["sent_per_sec"], 20.0);
        assert_eq!(json["tool"]["was_the_limit"], true);
        assert_eq!(json["messages"]["delivery"]["lost"], 10);
    }

    #[test]
    fn the_text_has_a_row_for_each_distribution_and_says_if_the_tool_was_the_limit() {
        let text = report(QoS::AtMostOnce, Arrived { distinct: 10, ..Arrived::default() }).text();
        assert!(text.contains("sent                    10            20/s       0.00 MiB/s\n"), "{text}");
        assert!(text.contains("from due         500 us"), "{text}");
        assert!(text.contains("CONNACK         1.50 ms"), "{text}");
        assert!(text.contains("note: 1 of 2 threads"), "{text}");
        assert!(!text.contains("acknowledged"), "{text}");
    }
}
