//! Those who die, and strangers: connections that end as they should not.

use std::{rc::Rc, time::Duration};

use dunlin::codec::{QoS, ReasonCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{
    connection::{Connection, Gone, Keeps, PATIENCE, Who, WillOf},
    ledger::{Ledger, Phase},
};

/// Connects with a will and leaves, again and again.
pub(crate) async fn be_mortal(who: Who, ledger: Rc<Ledger>) {
    while ledger.phase.get() < Phase::Ending {
        if let Err(Gone(why)) = live(&who, &ledger).await {
            ledger.fail(format_args!("{}: {why}", who.id));
        }
        sleep(Duration::from_millis(ledger.below(1000))).await;
    }
    ledger.busy.set(ledger.busy.get() - 1);
}

async fn live(who: &Who, ledger: &Ledger) -> Result<(), Gone> {
    let is_v5 = who.version.is_v5();
    let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][ledger.below(2) as usize];
    let will = |delay_secs| WillOf {
        topic: format!("wills/{}", who.id),
        number: ledger.next_will(),
        qos,
        delay_secs,
    };
    let mut first = will(if ledger.below(2) == 0 { 0 } else { 1 });
    let mut who = who.clone();
    let way = ledger.below(if is_v5 { 4 } else { 2 });
    if way == 3 {
        first.delay_secs = 20;
        who.keeps = Keeps::Secs(20);
    }
    let connection = open(&who, &first, ledger).await?;
    match way {
        0 => connection.disconnect(ReasonCode::Success).await,
        1 => {
            ledger.expect_will(first.number);
            drop(connection);
            Ok(())
        }
        2 => {
            ledger.expect_will(first.number);
            connection.disconnect(ReasonCode::DisconnectWithWill).await
        }
        _ => {
            // Back before the delay is over: the first will is cancelled, and a clean start ends the session.
            drop(connection);
            open(&who, &will(0), ledger).await?.disconnect(ReasonCode::Success).await?;
            who.keeps = Keeps::Nothing;
            open(&who, &will(0), ledger).await?.disconnect(ReasonCode::Success).await
        }
    }
}

async fn open(who: &Who, will: &WillOf, ledger: &Ledger) -> Result<Connection, Gone> {
    let mut connection = Connection::open(who, Some(will)).await?;
    ledger.count(|counts| counts.connects += 1);
    for _ in connection.read(Instant::now() + Duration::from_millis(ledger.below(2000))).await? {
        ledger.fail(format_args!("{} got something", who.id));
    }
    Ok(connection)
}

/// Connects and says nothing, nonsense, or only half of something. The broker has to get rid of it.
pub(crate) async fn be_stranger(ledger: Rc<Ledger>) {
    // Nonsense; the beginning of a CONNECT; a request of HTTP.
    const WORDS: [&[u8]; 4] =
        [b"", b"\xff\xff\xff\xff\xff", b"\x10\x40\x00\x04MQTT", b"GET / HTTP/1.1\r\n\r\n"];
    while ledger.phase.get() < Phase::Ending {
        let words = WORDS[ledger.below(WORDS.len() as u64) as usize];
        if !is_dismissed(ledger.port, words).await {
            ledger.fail(format_args!("a connection that said {words:?} is not closed"));
        }
        sleep(Duration::from_millis(ledger.below(3000))).await;
    }
    ledger.busy.set(ledger.busy.get() - 1);
}

async fn is_dismissed(port: u16, words: &[u8]) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
    if stream.write_all(words).await.is_err() {
        return true;
    }
    let mut answer = Vec::new();
    // An error says as well that the connection is closed.
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.is_ok()
}
