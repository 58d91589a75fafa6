//! WebSocket of a listener.

use super::{check::Checker, raw::RawListener};

/// WebSocket of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocket {
    /// The path of the URL, `/mqtt` by default; other paths get 404.
    pub path: String,
    /// The web sites whose pages may connect, as browsers name them in the header Origin: `https://example.org`,
    /// in lower case. A request with another Origin, or with none, gets 403. `None` allows all.
    pub allowed_origins: Option<Vec<String>>,
}

impl Default for WebSocket {
    fn default() -> Self {
        Self { path: "/mqtt".into(), allowed_origins: None }
    }
}

impl Checker<'_> {
    /// `key` is that of the listener.
    pub(super) fn web_socket(&mut self, key: &str, raw: &RawListener) -> WebSocket {
        let default = WebSocket::default();
        let path = raw.websocket_path.clone().unwrap_or(default.path);
        if !path.starts_with('/') || path.contains(['?', '#']) || !path.chars().all(|c| c.is_ascii_graphic())
        {
            let message = format!("\"{path}\" is not allowed; it is the path of a URL such as \"/mqtt\"");
            self.refuse(&format!("{key}.websocket_path"), message);
        }
        let Some(written) = &raw.allowed_origins else { return WebSocket { path, ..default } };
        let key = format!("{key}.allowed_origins");
        if written.is_empty() {
            self.refuse(&key, "is empty, so that nobody could connect; leave it out to allow all");
        }
        for origin in written.iter().filter(|origin| !is_origin(origin)) {
            let message = format!(
                "\"{origin}\" is not allowed; browsers send scheme, host and any port that is not the scheme's \
                 own: \"https://example.org\""
            );
            self.refuse(&key, message);
        }
        let origins = written.iter().map(|origin| origin.to_ascii_lowercase()).collect();
        WebSocket { path, allowed_origins: Some(origins) }
    }
}

/// `scheme://host`, perhaps with a port, and nothing behind it.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let is_host = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '?' | '#' | '@' | ',' | '*');
    !scheme.is_empty()
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
        && !host.is_empty()
        && host.chars().all(is_host)
}
