//! What a reload changes.

use serde::{Deserialize, Serialize};

/// What a reload changes, or would change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Keys that take effect at once, with their values before and after.
    pub live: Vec<String>,
    /// Keys that take effect at the next start.
    pub restart: Vec<String>,
    /// Clients that lose their connection, with the reason.
    pub cut: Vec<(String, String)>,
    /// Clients that lose a subscription, with the filter.
    pub unsubscribed: Vec<(String, String)>,
}
