//! The broker as part of a program: its builder, its clients in the same process, and the seams for
//! authentication and authorisation.

#![expect(clippy::disallowed_methods, reason = "tests have tasks of their own")]

use std::{future::Future, pin::pin, task::Poll, time::Duration};

use dunlin::{
    Broker, Client, ClientError, Config, Delivered, Publication, QoS,
    acl::{Action, Authorize, Decision, Principal, RuleId},
    auth::{Authenticate, BoxFuture, Credentials, Denial},
    codec::{ReasonCode, RetainHandling, SubscriptionOptions},
    config::Persistence,
};

const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// What `future` gives, or a failure if it hangs.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("does not hang")
}

async fn broker() -> Broker {
    broker_with(|_| {}).await
}

async fn broker_with(change: impl FnOnce(&mut Config)) -> Broker {
    let mut config = Config { shards: 2, persistence: Persistence::Memory, ..Config::default() };
    change(&mut config);
    Broker::builder().config(config).no_listeners().start().await.expect("a broker that listens nowhere")
}

async fn client(broker: &Broker, client_id: &str) -> Client {
    within(broker.client(client_id)).await.expect("the client is let in")
}

async fn receive(client: &mut Client) -> Delivered {
    within(client.receive()).await.expect("a message")
}

/// Gives `future` up at its first wait: true if it was over before that.
async fn is_ready(future: impl Future) -> bool {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

fn payload(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

#[tokio::test]
async fn messages_of_every_qos_arrive_in_order() {
    let broker = broker().await;
    assert!(broker.addresses().is_empty());
    let mut publisher = client(&broker, "publisher").await;
    for (index, qos) in ALL_QOS.into_iter().enumerate() {
        for granted in ALL_QOS {
            let mut subscriber = client(&broker, &format!("subscriber-{index}-{granted:?}")).await;
            assert_eq!(subscriber.subscribe("a/+", granted).await.unwrap(), granted);
            for number in 0..200_u32 {
                publisher.publish("a/b", &payload(number), qos).await.unwrap();
            }
            for number in 0..200_u32 {
                let message = receive(&mut subscriber).await;
                assert_eq!((message.topic.as_str(), &message.payload[..]), ("a/b", &payload(number)[..]));
                assert_eq!((message.qos, message.retain), (qos.min(granted), false));
            }
            subscriber.disconnect().await.unwrap();
        }
    }
    within(broker.stop()).await;
}

#[tokio::test]
async fn all_that_a_message_carries_arrives() {
    let broker = broker().await;
    let mut publisher = client(&broker, "publisher").await;
    let mut subscriber = client(&broker, "subscriber").await;
    subscriber.subscribe("all", QoS::ExactlyOnce).await.unwrap();
    let mut publication = Publication { qos: QoS::ExactlyOnce, ..Publication::new("all", b"payload") };
    publication.properties.content_type = Some("text/plain");
    publication.properties.response_topic = Some("answers");
    publication.properties.correlation_data = Some(b"7");
    let pairs = [("a", "1"), ("b", "2"), ("a", "3")];
    publication.properties.user_properties = dunlin::codec::UserProperties::from_list(&pairs);
    publisher.send(&publication).await.unwrap();
    let expected = Delivered {
        topic: "all".into(),
        payload: b"payload".to_vec(),
        qos: QoS::ExactlyOnce,
        retain: false,
        content_type: Some("text/plain".into()),
        response_topic: Some("answers".into()),
        correlation_data: Some(b"7".to_vec()),
        user_properties: pairs.map(|(name, value)| (name.into(), value.into())).into(),
    };
    assert_eq!(receive(&mut subscriber).await, expected);
}

#[tokio::test]
async fn retained_messages_are_there_for_later_subscribers_until_removed() {
    let broker = broker().await;
    let mut publisher = client(&broker, "publisher").await;
    for (qos, topic) in ALL_QOS.into_iter().zip(["kept/0", "kept/1", "kept/2"]) {
        publisher.publish_retained(topic, b"kept", qos).await.unwrap();
    }
    let mut late = client(&broker, "late").await;
    late.subscribe("kept/#", QoS::ExactlyOnce).await.unwrap();
    let mut topics = Vec::new();
    for _ in 0..3 {
        let message = receive(&mut late).await;
        assert!(message.retain && message.payload == b"kept");
        topics.push(message.topic);
    }
    topics.sort();
    assert_eq!(topics, ["kept/0", "kept/1", "kept/2"]);
    publisher.publish_retained("kept/0", b"", QoS::AtLeastOnce).await.unwrap();
    assert!(receive(&mut late).await.payload.is_empty());
    let mut later = client(&broker, "later").await;
    later.subscribe("kept/0", QoS::AtMostOnce).await.unwrap();
    publisher.publish("kept/0", b"new", QoS::AtLeastOnce).await.unwrap();
    assert_eq!(receive(&mut later).await.payload, b"new");
}

#[tokio::test]
async fn options_of_a_subscription_are_kept() {
    let broker = broker().await;
    let mut own = client(&broker, "own").await;
    own.publish_retained("t", b"kept", QoS::AtLeastOnce).await.unwrap();
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        no_local: true,
        retain_handling: RetainHandling::DoNotSend,
        ..SubscriptionOptions::default()
    };
    own.subscribe_with("t", options).await.unwrap();
    own.publish("t", b"own", QoS::AtLeastOnce).await.unwrap();
    client(&broker, "other").await.publish("t", b"other", QoS::AtLeastOnce).await.unwrap();
    assert_eq!(receive(&mut own).await.payload, b"other");
}

#[tokio::test]
async fn after_unsubscribe_nothing_comes() {
    let broker = broker().await;
    let mut publisher = client(&broker, "publisher").await;
    let mut subscriber = client(&broker, "subscriber").await;
    subscriber.subscribe("a", QoS::AtLeastOnce).await.unwrap();
    subscriber.subscribe("b", QoS::AtLeastOnce).await.unwrap();
    subscriber.unsubscribe("a").await.unwrap();
    subscriber.unsubscribe("never/#").await.unwrap();
    publisher.publish("a", b"x", QoS::AtLeastOnce).await.unwrap();
    publisher.publish("b", b"y", QoS::AtLeastOnce).await.unwrap();
    assert_eq!(receive(&mut subscriber).await.topic, "b");
}

/// Whatever is given up at whatever moment: nothing is lost, nothing comes twice or out of order.
#[tokio::test]
async fn receiving_may_be_given_up_at_any_moment() {
    const COUNT: u32 = 2000;
    let broker = broker().await;
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut publisher = client(&broker, "publisher").await;
        let mut subscriber = client(&broker, "subscriber").await;
        subscriber.subscribe("t", qos).await.unwrap();
        let publishing = tokio::spawn(async move {
            for number in 0..COUNT {
                // Large enough that the pipe is full again and again.
                let mut large = vec![0; 3000];
                large[..4].copy_from_slice(&payload(number));
                publisher.publish("t", &large, qos).await.unwrap();
            }
        });
        let mut given_up = 0;
        let mut expected = 0;
        while expected < COUNT {
            let mut received = None;
            let is_over = is_ready(async { received = Some(subscriber.receive().await.unwrap()) }).await;
            match received {
                Some(message) => {
                    assert_eq!(message.payload[..4], payload(expected));
                    expected += 1;
                }
                None => {
                    assert!(!is_over);
                    given_up += 1;
                    tokio::task::yield_now().await;
                }
            }
        }
        within(publishing).await.unwrap();
        assert!(given_up > 0, "the test gives up at least once");
    }
}

/// A publish or subscribe that was given up leaves a client that works.
#[tokio::test]
async fn a_call_that_was_given_up_does_no_harm_to_the_next() {
    // With a Receive Maximum this small, an exchange that is not finished would be noticed soon.
    let broker = broker_with(|config| config.limits.receive_maximum = 4).await;
    let mut subscriber = client(&broker, "subscriber").await;
    subscriber.subscribe("t/#", QoS::ExactlyOnce).await.unwrap();
    let mut hasty = client(&broker, "hasty").await;
    for round in 0..50_u32 {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            is_ready(hasty.publish("t/hasty", b"x", qos)).await;
            is_ready(hasty.subscribe("own", qos)).await;
            is_ready(hasty.receive()).await;
            hasty.publish("t/calm", &payload(round), qos).await.unwrap();
            loop {
                let message = receive(&mut subscriber).await;
                if message.topic == "t/calm" {
                    assert_eq!(message.payload, payload(round));
                    break;
                }
            }
        }
    }
    subscriber.publish("own", b"hello", QoS::AtLeastOnce).await.unwrap();
    assert_eq!(receive(&mut hasty).await.payload, b"hello");
}

/// A client that only publishes does not hang, though nobody takes what it gets itself.
#[tokio::test]
async fn a_client_may_publish_without_receiving() {
    let broker = broker_with(|config| config.limits.outbox_bytes_max = 1024).await;
    for qos in ALL_QOS {
        let mut echo = client(&broker, "echo").await;
        echo.subscribe("echo", qos).await.unwrap();
        for _ in 0..400 {
            within(echo.publish("echo", &[7; 50_000], qos)).await.unwrap();
        }
        assert_eq!(receive(&mut echo).await.payload, [7; 50_000]);
    }
}

/// What a program leaves lying is bounded: QoS 0 is thrown away and counted.
#[tokio::test]
async fn messages_of_qos_0_that_nobody_takes_are_counted() {
    const COUNT: u64 = 30_000;
    let broker = broker().await;
    let mut lazy = client(&broker, "lazy").await;
    lazy.subscribe("t", QoS::AtMostOnce).await.unwrap();
    for _ in 0..COUNT / 100 {
        for _ in 0..99 {
            lazy.publish("t", b"x", QoS::AtMostOnce).await.unwrap();
        }
        // Takes in what has come.
        lazy.publish("t", b"x", QoS::AtLeastOnce).await.unwrap();
    }
    assert_eq!(lazy.missed(), COUNT - 10_000);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_and_the_client_goes_on() {
    let broker = broker_with(|config| {
        config.limits.packet_bytes_max = 1000;
        config.limits.topic_levels_max = 3;
    })
    .await;
    let mut client = client(&broker, "client").await;
    for topic in ["", "a/+", "a/#", "nul\0", &"x".repeat(70_000)] {
        let result = client.publish(topic, b"x", QoS::AtLeastOnce).await;
        assert!(matches!(result, Err(ClientError::Topic(_))), "{result:?}");
    }
    for filter in ["", "a#", "a/#/b", "$share//x", &"x".repeat(70_000)] {
        let result = client.subscribe(filter, QoS::AtLeastOnce).await;
        assert!(matches!(result, Err(ClientError::Topic(_))), "{result:?}");
        assert!(matches!(client.unsubscribe(filter).await, Err(ClientError::Topic(_))));
    }
    for qos in ALL_QOS {
        let result = client.publish("t", &[0; 1000], qos).await;
        assert!(matches!(result, Err(ClientError::TooLarge)), "{result:?}");
    }
    let mut long = Publication::new("t", b"x");
    let text = "x".repeat(70_000);
    long.properties.content_type = Some(&text);
    assert!(matches!(client.send(&long).await, Err(ClientError::TooLarge)));
    // What only the broker knows, it says itself.
    let result = client.publish("a/b/c/d", b"x", QoS::ExactlyOnce).await;
    assert!(matches!(result, Err(ClientError::Refused(ReasonCode::TopicNameInvalid))), "{result:?}");
    let result = client.publish("$SYS/x", b"x", QoS::AtLeastOnce).await;
    assert!(matches!(result, Err(ClientError::Refused(ReasonCode::NotAuthorized))), "{result:?}");
    client.subscribe("t", QoS::AtLeastOnce).await.unwrap();
    client.publish("t", &[7; 900], QoS::AtLeastOnce).await.unwrap();
    assert_eq!(receive(&mut client).await.payload, [7; 900]);
}

#[tokio::test]
async fn many_clients_talk_at_once() {
    const CLIENTS: usize = 50;
    let broker = broker().await;
    let mut tasks = Vec::new();
    let mut heads = Vec::new();
    for number in 0..CLIENTS {
        let mut client = client(&broker, &format!("client-{number}")).await;
        client.subscribe(&format!("ring/{number}"), QoS::ExactlyOnce).await.unwrap();
        if number == 0 {
            heads.push(client);
            continue;
        }
        tasks.push(tokio::spawn(async move {
            for _ in 0..10 {
                let message = client.receive().await.unwrap();
                let next = format!("ring/{}", (number + 1) % CLIENTS);
                client.publish(&next, &message.payload, QoS::ExactlyOnce).await.unwrap();
            }
        }));
    }
    let mut head = heads.remove(0);
    for round in 0..10 {
        head.publish("ring/1", &payload(round), QoS::ExactlyOnce).await.unwrap();
        assert_eq!(receive(&mut head).await.payload, payload(round));
    }
    for task in tasks {
        within(task).await.unwrap();
    }
}

#[tokio::test]
async fn clients_learn_that_the_broker_has_stopped_after_their_last_message() {
    let broker = broker().await;
    let mut waiting = client(&broker, "waiting").await;
    let mut behind = client(&broker, "behind").await;
    behind.subscribe("t", QoS::AtLeastOnce).await.unwrap();
    let mut publisher = client(&broker, "publisher").await;
    for number in 0..10 {
        publisher.publish("t", &payload(number), QoS::AtLeastOnce).await.unwrap();
    }
    let told = tokio::spawn(async move { waiting.receive().await });
    within(broker.stop()).await;
    let stopped = |result: Result<_, ClientError>| {
        let reason = result.map(|_: Delivered| ()).unwrap_err();
        assert!(matches!(reason, ClientError::Closed(Some(ReasonCode::ServerShuttingDown))), "{reason}");
    };
    stopped(within(told).await.unwrap());
    for number in 0..10 {
        assert_eq!(receive(&mut behind).await.payload, payload(number));
    }
    // Again and again.
    stopped(within(behind.receive()).await);
    stopped(within(behind.receive()).await);
    for qos in ALL_QOS {
        let result = within(publisher.publish("t", b"x", qos)).await;
        let is_told = matches!(result, Err(ClientError::Closed(Some(ReasonCode::ServerShuttingDown))));
        assert!(is_told, "{result:?}");
    }
}

#[tokio::test]
async fn a_second_client_with_the_same_identifier_takes_over() {
    let broker = broker().await;
    let mut first = client(&broker, "same").await;
    let mut second = client(&broker, "same").await;
    let result = within(first.receive()).await;
    assert!(matches!(result, Err(ClientError::Closed(Some(ReasonCode::SessionTakenOver)))), "{result:?}");
    second.publish("t", b"x", QoS::ExactlyOnce).await.unwrap();
    // Without an identifier each gets its own.
    let mut third = client(&broker, "").await;
    let mut fourth = client(&broker, "").await;
    third.publish("t", b"x", QoS::ExactlyOnce).await.unwrap();
    fourth.publish("t", b"x", QoS::ExactlyOnce).await.unwrap();
}

#[tokio::test]
async fn a_client_that_is_dropped_leaves_no_session() {
    let broker = broker_with(|config| config.limits.sessions_max = 1).await;
    for _ in 0..20 {
        let try_connect = async {
            loop {
                match broker.client("one").await {
                    Ok(client) => return client,
                    Err(ClientError::Refused(ReasonCode::QuotaExceeded)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        };
        drop(within(try_connect).await);
    }
}

/// Lets in whose identifier is the name of a friend.
struct Friends;

impl Authenticate for Friends {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Result<Principal, Denial>> {
        Box::pin(async move {
            match credentials.client_id {
                "ann" | "bob" => Ok(Principal::named(credentials.client_id)),
                other => Err(Denial { code: ReasonCode::Banned, why: format!("{other} is no friend") }),
            }
        })
    }
}

/// Each has a topic of its own to publish to.
struct OwnTopics;

impl Authorize for OwnTopics {
    fn decide(&self, principal: &Principal, _: &str, action: Action, topic: &str) -> Decision {
        match action {
            Action::Publish { .. } if principal.user.as_deref() == Some(topic) => Decision::Allowed,
            Action::Publish { .. } => Decision::Denied(RuleId::DEFAULT),
            Action::Subscribe { .. } if topic == "#" => Decision::Denied(RuleId::DEFAULT),
            Action::Subscribe { .. } | Action::Receive => Decision::Allowed,
        }
    }
}

#[tokio::test]
async fn the_program_decides_who_does_what() {
    let builder = Broker::builder().no_listeners().authenticator(Friends).authorizer(OwnTopics);
    let broker = builder.start().await.unwrap();
    let stranger = within(broker.client("eve")).await;
    assert!(matches!(stranger, Err(ClientError::Refused(ReasonCode::Banned))), "{stranger:?}");
    let mut ann = client(&broker, "ann").await;
    let mut bob = client(&broker, "bob").await;
    let result = ann.subscribe("#", QoS::AtMostOnce).await;
    assert!(matches!(result, Err(ClientError::Refused(ReasonCode::NotAuthorized))), "{result:?}");
    ann.subscribe("bob", QoS::ExactlyOnce).await.unwrap();
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let result = bob.publish("ann", b"forged", qos).await;
        assert!(matches!(result, Err(ClientError::Refused(ReasonCode::NotAuthorized))), "{result:?}");
        bob.publish("bob", b"mine", qos).await.unwrap();
        assert_eq!(receive(&mut ann).await.payload, b"mine");
    }
}

/// Clients in the process and clients on sockets are in one broker.
#[tokio::test]
async fn listeners_are_those_that_were_asked_for() {
    let any = "127.0.0.1:0".parse().unwrap();
    let broker = Broker::builder().listen(any).listen(any).start().await.unwrap();
    let ports: Vec<String> = broker.addresses().iter().map(|(_, address)| address.to_string()).collect();
    assert_eq!(ports.len(), 2);
    assert_ne!(ports[0], ports[1]);
    for port in &ports {
        within(tokio::net::TcpStream::connect(port)).await.unwrap();
    }
    within(broker.stop()).await;
    for port in &ports {
        assert!(within(tokio::net::TcpStream::connect(port)).await.is_err());
    }
}
