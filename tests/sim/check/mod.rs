//! What must be true, one file per invariant.
//!
//! A check hears of every event, looks at the broker now and then, and draws its conclusions at the end, when all
//! clients have come back and got what was due to them.

mod accounts;
mod acknowledged;
mod exactly_once;
mod expired;
pub(crate) mod leaks;
mod limits;
mod one_link;
mod order;
mod retained;
mod sessions;
mod shared;
mod subscribed;
mod will;
mod window;

use super::{
    broker::{Broker, Rules},
    client::Client,
    event::Event,
    facts::Facts,
    features::Features,
};

pub(crate) use retained::PROBE;

/// One invariant. An error says how it is broken.
pub(crate) trait Check {
    /// Its name: that of its file.
    fn name(&self) -> &'static str;

    /// Something happened.
    fn event(&mut self, _event: &Event, _facts: &Facts) -> Result<(), String> {
        Ok(())
    }

    /// The broker as it is between two steps.
    fn look(&mut self, _broker: &Broker, _facts: &Facts) -> Result<(), String> {
        Ok(())
    }

    /// All is over.
    fn end(&mut self, _facts: &Facts, _clients: &[Client]) -> Result<(), String> {
        Ok(())
    }
}

/// All checks.
pub(crate) fn all(features: Features, rules: &Rules) -> Vec<Box<dyn Check>> {
    vec![
        Box::new(acknowledged::Acknowledged::new(rules)),
        Box::new(exactly_once::ExactlyOnce::default()),
        Box::new(order::Order::new(rules)),
        Box::new(window::Window::default()),
        Box::new(sessions::Sessions::default()),
        Box::new(one_link::OneLink),
        Box::new(will::Wills::new(rules)),
        Box::new(retained::Retained::new(features)),
        Box::new(subscribed::Subscribed),
        Box::new(shared::SharedOnce::new(rules)),
        Box::new(expired::Expired::new(features)),
        Box::new(limits::Limited::new(rules)),
        Box::new(accounts::Accounts),
    ]
}
