//! A broker inside a program, which talks through it to clients outside.
//!
//! ```sh
//! cargo run --example embed -- [ADDRESS:PORT]
//! ```
//!
//! The program is a small shop: it answers orders. Order something with any client, as `ann` or `bob`:
//!
//! ```sh
//! dunlin sub -p 1884 -u ann -P tulip -t 'shop/receipts/ann' -v
//! dunlin pub -p 1884 -u ann -P tulip -t 'shop/orders/ann' -m 'two pounds of flour' -q 1
//! ```

use std::{collections::HashMap, env, error::Error, net::SocketAddr};

use dunlin::{
    Broker, Client, QoS,
    acl::{Action, Authorize, Decision, Principal, RuleId},
    auth::{Authenticate, BoxFuture, Credentials, Denial},
    codec::ReasonCode,
    net::Peer,
};

/// Customers by name, with their passwords. A real shop would keep hashes.
struct Customers(HashMap<&'static str, &'static [u8]>);

impl Authenticate for Customers {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Result<Principal, Denial>> {
        Box::pin(async move {
            // The program's own clients have no need to prove who they are.
            if *credentials.peer == Peer::Memory {
                return Ok(Principal::named("shop"));
            }
            let user = credentials.user_name.unwrap_or_default();
            match self.0.get(user) {
                Some(password) if credentials.password == Some(password) => Ok(Principal::named(user)),
                Some(_) | None => Err(Denial {
                    code: ReasonCode::BadUserNameOrPassword,
                    why: format!("'{user}' is no customer, or has another password"),
                }),
            }
        })
    }
}

/// Customers order in their own name and read their own receipts; the shop does as it likes.
struct OwnAffairs;

impl Authorize for OwnAffairs {
    fn decide(&self, principal: &Principal, _: &str, action: Action, topic: &str) -> Decision {
        let name = match action {
            Action::Publish { .. } => topic.strip_prefix("shop/orders/"),
            Action::Subscribe { .. } | Action::Receive => topic.strip_prefix("shop/receipts/"),
        };
        match principal.user.as_deref() {
            Some("shop") => Decision::Allowed,
            Some(user) if name == Some(user) => Decision::Allowed,
            Some(_) | None => Decision::Denied(RuleId::DEFAULT),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1884".into());
    let address: SocketAddr = address.parse()?;
    let customers = Customers(HashMap::from([("ann", &b"tulip"[..]), ("bob", b"rose")]));
    let broker =
        Broker::builder().listen(address).authenticator(customers).authorizer(OwnAffairs).start().await?;
    for (_, address) in broker.addresses() {
        println!("the shop is open at {address}; Ctrl-C closes it");
    }
    let mut clerk = broker.client("clerk").await?;
    clerk.subscribe("shop/orders/+", QoS::ExactlyOnce).await?;
    tokio::select! {
        result = serve(&mut clerk) => result?,
        result = tokio::signal::ctrl_c() => result?,
    }
    broker.stop().await;
    println!("the shop is closed");
    Ok(())
}

/// Answers orders for as long as the broker runs.
async fn serve(clerk: &mut Client) -> Result<(), Box<dyn Error>> {
    loop {
        let order = clerk.receive().await?;
        let Some(customer) = order.topic.strip_prefix("shop/orders/") else { continue };
        let goods = String::from_utf8_lossy(&order.payload);
        println!("{customer} orders {goods}");
        let receipt = format!("thank you for ordering {goods}");
        clerk.publish(&format!("shop/receipts/{customer}"), receipt.as_bytes(), QoS::AtLeastOnce).await?;
    }
}
