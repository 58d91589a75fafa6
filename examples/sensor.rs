//! A sensor: publishes readings as JSON, and whether it is there.
//!
//! ```sh
//! cargo run --example sensor -- [NAME [HOST [PORT]]]
//! ```
//!
//! Readings go to `sensors/NAME/telemetry`. `sensors/NAME/status` holds `online` or `offline`, retained; if
//! the sensor loses its connection, the broker publishes `offline` in its place, by the sensor's will. Watch
//! both with the example `dashboard`, or with `dunlin sub -t 'sensors/#' -v`.

use std::{env, error::Error, pin::pin, time::Duration};

use rumqttc::v5::{
    AsyncClient, Event, EventLoop, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{LastWill, Packet},
    },
};
use serde_json::json;
use tokio::time::{interval, timeout};

/// Time between two readings.
const PERIOD: Duration = Duration::from_secs(1);

/// Time between two attempts to connect.
const RETRY: Duration = Duration::from_secs(2);

/// Time to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// Readings that wait while there is no connection; later ones are lost, since old ones interest nobody.
const WAITING_MAX: usize = 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "kitchen".into());
    let host = arguments.next().unwrap_or_else(|| "127.0.0.1".into());
    let port = arguments.next().map_or(Ok(1883), |port| port.parse())?;
    let status = format!("sensors/{name}/status");

    let mut options = MqttOptions::new(format!("sensor-{name}"), host, port);
    options.set_keep_alive(Duration::from_secs(10));
    options.set_last_will(LastWill::new(&status, "offline", QoS::AtLeastOnce, true, None));
    options.set_outgoing_inflight_upper_limit(WAITING_MAX as u16);
    let (client, events) = AsyncClient::new(options, WAITING_MAX);

    let mut connection = pin!(stay_connected(events, &client, &status));
    tokio::select! {
        () = &mut connection => {}
        () = measure(&client, &name) => {
            client.try_publish(&status, QoS::AtLeastOnce, true, "offline")?;
            client.try_disconnect()?;
            // Without a connection there is nobody to say it to.
            let _ = timeout(GOODBYE, connection).await;
        }
    }
    Ok(())
}

/// Publishes a reading every second until Ctrl-C.
async fn measure(client: &AsyncClient, name: &str) {
    let topic = format!("sensors/{name}/telemetry");
    let mut ticks = interval(PERIOD);
    for number in 0_u32.. {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = tokio::signal::ctrl_c() => return,
        }
        let wave = (f64::from(number) / 20.0).sin();
        let reading = json!({
            "number": number,
            "temperature_celsius": (21.0 + 2.0 * wave).round(),
            "humidity_percent": (45.0 - 5.0 * wave).round(),
        });
        if client.try_publish(&topic, QoS::AtLeastOnce, false, reading.to_string()).is_err() {
            eprintln!("reading {number} is lost: no connection");
        }
    }
}

/// Drives the client, and connects again when the connection is lost, until the client has disconnected.
async fn stay_connected(mut events: EventLoop, client: &AsyncClient, status: &str) {
    let mut retry = interval(RETRY);
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                println!("connected; Ctrl-C ends");
                if client.try_publish(status, QoS::AtLeastOnce, true, "online").is_err() {
                    eprintln!("the status waits behind readings");
                }
            }
            Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect)) => return,
            Ok(Event::Incoming(_) | Event::Outgoing(_)) => {}
            Err(error) => {
                eprintln!("{error}; trying again");
                retry.reset();
                retry.tick().await;
            }
        }
    }
}
