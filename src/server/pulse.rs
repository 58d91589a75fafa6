//! Whether the shards still work.

use tokio::sync::oneshot;

use super::{Broker, mailbox::Mail};

impl Broker {
    /// Waits until every shard has answered, and returns whether all have. It does not return while one hangs, so
    /// that whoever asks again and again leaves at most one question in each mailbox.
    pub async fn pulse(&self) -> bool {
        let ask = |mailbox: &super::mailbox::Mailbox| {
            let (answer, answered) = oneshot::channel();
            mailbox.post([Mail::Step(Box::new(move |_, _, _| {
                // Nobody listens any more if the wait was given up.
                let _ = answer.send(());
            }))]);
            answered
        };
        // All are asked before the first is waited for.
        let answers: Vec<_> = self.common.mailboxes.iter().map(ask).collect();
        for answered in answers {
            if answered.await.is_err() {
                return false;
            }
        }
        true
    }
}
