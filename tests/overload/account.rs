//! What the broker counts, as it tells it under `$SYS/broker`.

use std::collections::BTreeMap;

use dunlin::{QoS, codec::Packet};

use crate::{Broker, PATIENCE, connect};

/// Values by the end of their topic.
#[derive(Debug, Default)]
pub(crate) struct Account(BTreeMap<String, u64>);

impl Account {
    /// A counter; 0 as long as nothing is known of it.
    pub(crate) fn value(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// What was dropped for this reason.
    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        self.value(&format!("publish/messages/dropped/{reason}"))
    }

    /// All that was dropped.
    pub(crate) fn dropped_in_all(&self) -> u64 {
        self.value("publish/messages/dropped")
    }

    /// Whether every delivery that was accepted is completed, queued or dropped. Where nothing refused a message that
    /// the account would have to know of, all drops are ends of deliveries.
    fn is_closed(&self) -> bool {
        let queued = self.value("store/messages/count");
        let ended = self.value("deliveries/completed") + self.dropped_in_all();
        self.value("deliveries/accepted") == ended + queued
    }
}

/// Waits until the account of the broker is closed and says what is wanted. Its values are of the last second, so
/// that they may first be those of before.
pub(crate) async fn settled(broker: &Broker, is_wanted: impl Fn(&Account) -> bool) -> Account {
    let mut reader = broker.client(&connect("reader of the account")).await;
    reader.subscribe("$SYS/broker/#", QoS::AtMostOnce).await;
    let mut account = Account::default();
    let wait = async {
        while !(account.is_closed() && is_wanted(&account)) {
            let told = reader.next(|packet| match packet {
                Packet::Publish(publish) => {
                    let name = publish.topic.strip_prefix("$SYS/broker/").unwrap().to_owned();
                    (name, std::str::from_utf8(publish.payload).unwrap().parse::<u64>().ok())
                }
                other => panic!("{other:?} where a value was expected"),
            });
            if let (name, Some(value)) = told.await {
                account.0.insert(name, value);
            }
        }
    };
    let is_settled = tokio::time::timeout(PATIENCE, wait).await.is_ok();
    assert!(is_settled, "the account does not come out: {account:#?}");
    account
}
