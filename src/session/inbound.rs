//! QoS 2 messages that a client has sent and not yet released.

use std::collections::BTreeMap;

use crate::codec::PacketId;

/// The receiver's half of QoS 2 and the client's use of our Receive Maximum.
///
/// A packet identifier is here from the PUBLISH to its PUBREL. While it is, a further PUBLISH with it is
/// the same message and is not delivered again. `[MQTT-4.3.3-10]`
#[derive(Debug, Default)]
pub struct Inbound {
    unreleased: BTreeMap<PacketId, Counted>,
    /// How many of them count against the Receive Maximum of this connection.
    counted: usize,
}

/// Whether a message counts against the Receive Maximum: only those sent on the present connection do,
/// for the sender's quota starts anew with each. `[MQTT-4.9.0-1]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Yes,
    No,
}

/// What a QoS 2 PUBLISH is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A new message.
    New,
    /// The same message once more.
    Repeated,
}

impl Inbound {
    /// What the store gives back: these identifiers await their PUBREL.
    pub fn restore(unreleased: &[PacketId]) -> Inbound {
        Inbound { unreleased: unreleased.iter().map(|id| (*id, Counted::No)).collect(), counted: 0 }
    }

    /// A new connection: the client's quota is whole again.
    pub fn attach(&mut self) {
        self.unreleased.values_mut().for_each(|counted| *counted = Counted::No);
        self.counted = 0;
    }

    /// Whether this identifier awaits its PUBREL.
    pub fn is_unreleased(&self, id: PacketId) -> bool {
        self.unreleased.contains_key(&id)
    }

    /// Messages that count against the Receive Maximum of this connection.
    pub fn counted(&self) -> usize {
        self.counted
    }

    /// Takes note of a QoS 2 PUBLISH.
    pub fn receive(&mut self, id: PacketId) -> Arrival {
        match self.unreleased.insert(id, Counted::Yes) {
            None => {
                self.counted += 1;
                Arrival::New
            }
            Some(Counted::No) => {
                self.counted += 1;
                Arrival::Repeated
            }
            Some(Counted::Yes) => Arrival::Repeated,
        }
    }

    /// Takes note of a PUBREL, or of a PUBREC with which we refused: the identifier is free.
    /// False if it was not in use.
    pub fn release(&mut self, id: PacketId) -> bool {
        let was = self.unreleased.remove(&id);
        if was == Some(Counted::Yes) {
            self.counted -= 1;
        }
        was.is_some()
    }

    /// Identifiers that await their PUBREL, in order.
    pub fn unreleased(&self) -> impl Iterator<Item = PacketId> {
        self.unreleased.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: u16) -> PacketId {
        PacketId::new(value).unwrap()
    }

    // [MQTT-4.3.3-10] [MQTT-4.3.3-12]
    #[test]
    fn an_identifier_means_one_message_until_it_is_released() {
        let mut inbound = Inbound::default();
        assert_eq!(inbound.receive(id(7)), Arrival::New);
        assert_eq!(inbound.receive(id(7)), Arrival::Repeated);
        assert_eq!(inbound.counted(), 1);
        assert!(inbound.release(id(7)));
        assert!(!inbound.release(id(7)));
        assert_eq!(inbound.receive(id(7)), Arrival::New);
    }

    #[test]
    fn a_new_connection_starts_with_a_whole_quota() {
        let mut inbound = Inbound::default();
        inbound.receive(id(1));
        inbound.receive(id(2));
        inbound.attach();
        assert_eq!(inbound.counted(), 0);
        assert_eq!(inbound.receive(id(1)), Arrival::Repeated);
        assert_eq!(inbound.counted(), 1);
        assert!(inbound.release(id(2)));
        assert_eq!(inbound.counted(), 1);
    }
}
