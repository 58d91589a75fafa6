use super::*;
use crate::message::Header;

fn outgoing(qos: QoS) -> Outgoing {
    let header = Header { qos, retain: false, expires_at: None, publisher: None };
    let message = Arc::new(Message::new("t".into(), b"", header));
    Outgoing { message, qos, retain: false, subscription_ids: None, share: None, record: None }
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

/// What each acknowledgement does in each state: `ok` settles or goes on, `?` is unknown, `!` is wrong.
fn row(make: impl Fn() -> Outbound) -> String {
    let name = |result: Result<(), AckError>| match result {
        Ok(()) => "ok",
        Err(AckError::Unknown) => "?",
        Err(AckError::WrongPacket) => "!",
    };
    let results = [
        name(make().on_pub_ack(id(1)).map(drop)),
        name(make().on_pub_rec(id(1)).map(drop)),
        name(make().on_pub_rec_refused(id(1)).map(drop)),
        name(make().on_pub_comp(id(1)).map(drop)),
    ];
    results.join(" ")
}

fn sent(qos: QoS) -> Outbound {
    let mut outbound = Outbound::default();
    outbound.enqueue(0, outgoing(qos));
    outbound.send();
    outbound
}

fn resumed(mut outbound: Outbound) -> Outbound {
    outbound.resume();
    outbound
}

fn received() -> Outbound {
    let mut outbound = sent(QoS::ExactlyOnce);
    outbound.on_pub_rec(id(1)).unwrap();
    outbound
}

fn settled() -> Outbound {
    let mut outbound = received();
    outbound.on_pub_comp(id(1)).unwrap();
    outbound
}

// [MQTT-4.3.2-3] [MQTT-4.3.3-3] [MQTT-4.3.3-5] [MQTT-4.4.0-2]
#[test]
fn every_acknowledgement_in_every_state() {
    let waiting = || {
        let mut outbound = Outbound::default();
        outbound.enqueue(0, outgoing(QoS::AtLeastOnce));
        outbound
    };
    //                                          PUBACK PUBREC refused PUBCOMP
    assert_eq!(row(Outbound::default), "? ? ? ?");
    assert_eq!(row(waiting), "? ? ? ?");
    assert_eq!(row(|| sent(QoS::AtLeastOnce)), "ok ! ! !");
    assert_eq!(row(|| sent(QoS::ExactlyOnce)), "! ok ok !");
    assert_eq!(row(received), "! ok ! ok");
    assert_eq!(row(settled), "? ? ? ?");
    assert_eq!(row(|| resumed(sent(QoS::AtLeastOnce))), "ok ! ! !");
    assert_eq!(row(|| resumed(sent(QoS::ExactlyOnce))), "! ok ok !");
    assert_eq!(row(|| resumed(received())), "! ok ! ok");
}

#[test]
fn an_acknowledgement_that_does_not_fit_changes_nothing() {
    for make in [|| sent(QoS::AtLeastOnce), || sent(QoS::ExactlyOnce), received] {
        let state = |outbound: &Outbound| format!("{} {:?}", outbound.inflight, outbound.window);
        let mut outbound = make();
        let before = state(&outbound);
        for wrong in [2, 65_535] {
            assert_eq!(outbound.on_pub_ack(id(wrong)).map(drop), Err(AckError::Unknown));
            assert_eq!(outbound.on_pub_comp(id(wrong)).map(drop), Err(AckError::Unknown));
        }
        for acknowledge in [Outbound::on_pub_ack, Outbound::on_pub_rec_refused] {
            if acknowledge(&mut make(), id(1)).is_err() {
                assert_eq!(acknowledge(&mut outbound, id(1)).map(drop), Err(AckError::WrongPacket));
            }
        }
        assert_eq!(state(&outbound), before);
    }
}

// [MQTT-2.2.1-4]
#[test]
fn identifiers_go_round_and_skip_none() {
    let mut outbound = Outbound::default();
    for number in 0..140_000 {
        outbound.enqueue(number, outgoing(QoS::AtLeastOnce));
        let (packet_id, _) = outbound.send().unwrap();
        assert_eq!(u64::from(packet_id.get()), 1 + number % 65_535);
        outbound.on_pub_ack(packet_id).unwrap();
    }
    assert_eq!((outbound.inflight(), outbound.window.len(), outbound.base), (0, 0, 140_000));
}

#[test]
fn numbers_that_come_late_keep_their_place() {
    let mut outbound = Outbound::default();
    for number in [1, 3, 0, 2] {
        outbound.enqueue(number, outgoing(QoS::AtLeastOnce));
    }
    let ids: Vec<u16> = std::iter::from_fn(|| outbound.send().map(|(id, _)| id.get())).collect();
    assert_eq!(ids, [1, 2, 3, 4]);
    outbound.settle(4);
    outbound.enqueue(5, outgoing(QoS::AtLeastOnce));
    assert_eq!(outbound.send().map(|(id, _)| id.get()), Some(6));
}

// [MQTT-4.8.2-5]
#[test]
fn messages_of_a_shared_subscription_are_taken_from_wherever_they_are() {
    let mut outbound = Outbound::default();
    for number in 0..6 {
        let share = (number != 3).then(|| "$share/g/t".into());
        outbound.enqueue(number, Outgoing { share, ..outgoing(QoS::AtLeastOnce) });
    }
    for _ in 0..5 {
        outbound.send();
    }
    let taken = outbound.take_shared(TakeSent::Yes, None);
    assert_eq!(taken.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 2, 4, 5]);
    assert_eq!((outbound.base(), outbound.inflight(), outbound.queued()), (3, 1, 0));
    outbound.on_pub_ack(id(4)).unwrap();
    assert_eq!(outbound.base(), 6);
}

#[test]
fn an_idle_session_keeps_no_room() {
    let mut outbound = sent(QoS::AtLeastOnce);
    outbound.enqueue(1, outgoing(QoS::AtLeastOnce));
    outbound.shrink();
    assert!(outbound.on_pub_ack(id(1)).is_ok(), "what is under way stays");
    assert!(outbound.send().is_some(), "what waits stays");
    assert!(outbound.on_pub_ack(id(2)).is_ok());
    outbound.shrink();
    assert_eq!((outbound.window.capacity(), outbound.queue.capacity()), (0, 0));
}
