//! Access rules that a token carries.

use serde_json::Value;

use crate::acl::Details;

/// Takes the claim with access rules, such as it is in the token, to what is known of the client.
///
/// # Errors
/// What is wrong with the rules. A client whose token limits it is never let in without the limits.
pub(super) fn add(claim: &Value, details: &mut Details) -> Result<(), String> {
    // The one place where rules of tokens enter: `details.rules = Some(Policy::from_claim(claim)?)`.
    let _ = (claim, details);
    Err("rules in tokens are not supported".into())
}
