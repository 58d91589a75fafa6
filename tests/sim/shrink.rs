//! Makes a failure small: fewer features, fewer acts, as long as the same check fails.

use std::fmt::Write as _;

use super::{Plan, Violation, features::Features, run, run_traced, trace::Trace};

/// Lines of the trace that are shown, if `DUNLIN_SIM_LINES` does not say otherwise.
const TAIL_LINES: usize = 80;

/// The smallest plan found that fails as this one does.
fn shrink(plan: Plan, violation: &Violation) -> Plan {
    let fails = |plan: Plan| run(plan).is_some_and(|other| other.check == violation.check);
    let mut best = plan;
    for feature in super::features::Feature::ALL {
        let smaller = Plan { off: best.off.with(feature), ..best };
        if fails(smaller) {
            best = smaller;
        }
    }
    let mut acts = plan.acts.unwrap_or(200);
    let mut step = 100;
    while step > 0 {
        let fewer = Plan { acts: Some(acts - step), ..best };
        if acts > step && fails(fewer) {
            (best, acts) = (fewer, acts - step);
        } else {
            step /= 2;
        }
    }
    best
}

/// Tells of a failure: one line that repeats it, and the end of the smallest run that shows it.
pub(crate) fn report(plan: Plan, violation: &Violation) -> String {
    let small = shrink(plan, violation);
    let (found, trace) = run_traced(small, Trace::on());
    let found = found.as_ref().unwrap_or(violation);
    let mut text = String::new();
    let lines = std::env::var("DUNLIN_SIM_LINES").ok().and_then(|lines| lines.parse().ok());
    for line in trace.tail(lines.unwrap_or(TAIL_LINES)) {
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(text, "{}: {}", found.check, found.what);
    let _ = write!(text, "repeat with: DUNLIN_SEED={}{}", small.seed, options(small));
    text
}

fn options(plan: Plan) -> String {
    let acts = plan.acts.map_or(String::new(), |acts| format!(" DUNLIN_SIM_ACTS={acts}"));
    let off = match plan.off == Features::default() {
        true => String::new(),
        false => format!(" DUNLIN_SIM_OFF={}", plan.off),
    };
    format!("{acts}{off} cargo test --test sim  # commit {}", commit())
}

/// The commit that is checked out, so that whoever reads the line later knows what it is about.
fn commit() -> String {
    let output = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let name = output.ok().filter(|output| output.status.success());
    name.map_or("unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().into())
}
