//! Properties of MQTT 5: reading, writing, and which packet may hold which.

/// User properties in their order: borrowed from a packet, or a list to be written.
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a> {
    _raw: &'a [u8],
}

/// Subscription identifiers of a PUBLISH in their order.
#[derive(Clone, Copy, Default)]
pub struct SubscriptionIds<'a> {
    _raw: &'a [u8],
}
