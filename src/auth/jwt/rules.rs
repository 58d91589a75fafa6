//! Access rules that a token carries.

use std::sync::Arc;

use serde_json::Value;

use crate::acl::{Details, Policy};

/// Takes the claim with access rules, such as it is in the token, to what is known of the client.
///
/// # Errors
/// What is wrong with the rules. A client whose token limits it is never let in without the limits.
pub(super) fn add(claim: &Value, details: &mut Details) -> Result<(), String> {
    details.policy = Some(Arc::new(Policy::from_claim(claim).map_err(|errors| errors.to_string())?));
    Ok(())
}
