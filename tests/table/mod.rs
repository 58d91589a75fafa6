//! A state machine as a text to read: a block for each state, a line for each event, and two where MQTT 3.1.1 and
//! MQTT 5 differ.

use dunlin::codec::Version;

/// What cannot happen: a packet on a connection that is not there.
const IMPOSSIBLE: &str = "—";

/// Every state with every event, in text. A cell is `None` where the version has no such state or event, or where
/// the event cannot happen.
pub(crate) fn table(
    states: &[&str],
    events: &[&str],
    cell: impl Fn(usize, usize, Version) -> Option<String>,
) -> String {
    let width = events.iter().map(|event| event.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (state, name) in states.iter().enumerate() {
        text.push_str(&format!("{}{name}\n", if state > 0 { "\n" } else { "" }));
        for (event, name) in events.iter().enumerate() {
            let cells = [cell(state, event, Version::V311), cell(state, event, Version::V5)];
            for (line, shown) in lines(cells).iter().enumerate() {
                let name = if line == 0 { name } else { "" };
                text.push_str(&format!("  {name:width$}  {shown}\n"));
            }
        }
    }
    text
}

fn lines(cells: [Option<String>; 2]) -> Vec<String> {
    match cells {
        [None, None] => vec![IMPOSSIBLE.into()],
        [Some(v311), Some(v5)] if v311 == v5 => vec![v5],
        [v311, v5] => {
            let v311 = v311.map(|cell| format!("3.1.1: {cell}"));
            v311.into_iter().chain(v5.map(|cell| format!("5: {cell}"))).collect()
        }
    }
}
