//! A new configuration while the broker runs.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use dunlin::{
    Broker, Config, QoS,
    config::{Loaded, Persistence},
    control::Plan,
    server::{Client, Reloading},
};
use tokio::time::timeout;

/// A broker whose configuration a test writes.
struct Bed {
    directory: PathBuf,
    broker: Broker,
    filters: Arc<Mutex<Vec<String>>>,
}

impl Bed {
    async fn start(name: &str, text: &str) -> Bed {
        let directory = std::env::temp_dir().join(format!("dunlin-reload-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let bed_directory = directory.clone();
        let load = move || -> Result<Loaded, String> {
            let text = fs::read_to_string(bed_directory.join("dunlin.toml")).unwrap();
            let text = text.replace("DIR", bed_directory.to_str().unwrap());
            let mut config = Config::from_toml(&text).map_err(|errors| errors.to_string())?;
            config.persistence = Persistence::Memory;
            config.listeners.clear();
            Ok(config.into())
        };
        fs::write(directory.join("acl.toml"), "[[rules]]\nallow = [\"all\"]\ntopics = [\"#\"]\n").unwrap();
        fs::write(directory.join("dunlin.toml"), text).unwrap();
        let filters = Arc::new(Mutex::new(Vec::new()));
        let told = filters.clone();
        let set_log_filter = Box::new(move |filter: &str| told.lock().unwrap().push(filter.to_owned()));
        let builder = Broker::builder().loaded(load().unwrap());
        let broker = builder.reloading(Reloading { load: Box::new(load), set_log_filter }).start().await;
        Bed { directory, broker: broker.unwrap(), filters }
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.directory.join(file), text).unwrap();
    }

    async fn reload(&self) -> Result<Plan, String> {
        self.broker.reload().await
    }

    async fn client(&self, id: &str) -> Client {
        self.broker.client(id).await.unwrap()
    }

    async fn stop(self) {
        self.broker.stop().await;
        fs::remove_dir_all(&self.directory).unwrap();
    }
}

const TEXT: &str = "data_dir = \"DIR\"\n[acl]\nfile = \"DIR/acl.toml\"\n";

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(60), test).await.unwrap() });
}

#[test]
fn limits_and_the_log_filter_change_at_once_and_the_rest_at_the_next_start() {
    run(async {
        let bed = Bed::start("limits", TEXT).await;
        let mut client = bed.client("c").await;
        client.subscribe("t", QoS::AtLeastOnce).await.unwrap();
        bed.write(
            "dunlin.toml",
            &format!("shards = 7\n{TEXT}[limits]\nsession_subscriptions_max = 1\n[log]\nfilter = \"warn\"\n"),
        );
        let plan = bed.reload().await.unwrap();
        assert_eq!(plan.live.len(), 2, "{plan:?}");
        assert!(plan.restart.iter().any(|change| change.starts_with("shards:")), "{plan:?}");
        assert_eq!(*bed.filters.lock().unwrap(), ["warn"]);
        assert!(
            client.subscribe("u", QoS::AtLeastOnce).await.is_err(),
            "a second subscription is too many now"
        );
        // What waits for the next start is told until then, what has changed is not told again.
        let plan = bed.reload().await.unwrap();
        assert_eq!((plan.live.len(), plan.restart.len()), (0, 1), "{plan:?}");
        bed.stop().await;
    });
}

#[test]
fn new_access_rules_end_subscriptions_and_decide_on_what_is_published() {
    run(async {
        let bed = Bed::start("acl", TEXT).await;
        let (mut one, mut two) = (bed.client("one").await, bed.client("two").await);
        one.subscribe("secret/x", QoS::AtLeastOnce).await.unwrap();
        one.subscribe("open", QoS::AtLeastOnce).await.unwrap();
        bed.write(
            "acl.toml",
            "[[rules]]\ndeny = [\"subscribe\"]\ntopics = [\"secret/#\"]\n[[rules]]\nallow = [\"all\"]\ntopics = [\"#\"]\n",
        );
        let plan = bed.reload().await.unwrap();
        assert_eq!(plan.unsubscribed, [("one".into(), "secret/x".into())]);
        two.publish("secret/x", b"1", QoS::AtLeastOnce).await.unwrap();
        two.publish("open", b"2", QoS::AtLeastOnce).await.unwrap();
        assert_eq!(one.receive().await.unwrap().payload, b"2");
        assert_eq!(bed.reload().await.unwrap().unsubscribed, []);
        bed.stop().await;
    });
}

#[test]
fn who_is_banned_is_cut_off_and_stays_out() {
    run(async {
        let bed = Bed::start("bans", TEXT).await;
        let (mut one, mut two) = (bed.client("one").await, bed.client("two").await);
        bed.write("bans.toml", "[[bans]]\nclient = \"one\"\nwhy = \"floods\"\n");
        let plan = bed.reload().await.unwrap();
        assert_eq!(plan.cut, [("one".into(), "client 'one' is banned".into())]);
        assert!(one.receive().await.is_err());
        assert!(bed.broker.client("one").await.is_err());
        two.publish("t", b"x", QoS::AtLeastOnce).await.unwrap();
        bed.write("bans.toml", "");
        bed.reload().await.unwrap();
        bed.client("one").await;
        bed.stop().await;
    });
}

#[test]
fn a_configuration_with_a_fault_changes_nothing_and_says_where_it_is() {
    run(async {
        let bed = Bed::start("fault", TEXT).await;
        let mut client = bed.client("c").await;
        let small = format!("{TEXT}[limits]\nsession_subscriptions_max = 1\n");
        for (file, text, place) in [
            ("dunlin.toml", format!("{small}shard = 3\n"), "shard"),
            ("acl.toml", "[[rules]]\nalow = [\"all\"]\n".to_owned(), "acl.toml:2"),
            ("bans.toml", "[[bans]]\nwhy = \"?\"\n".to_owned(), "bans.toml"),
        ] {
            let before = fs::read_to_string(bed.directory.join(file)).unwrap_or_default();
            if file != "dunlin.toml" {
                bed.write("dunlin.toml", &small);
            }
            bed.write(file, &text);
            let error = bed.reload().await.unwrap_err();
            assert!(error.contains(place), "{error}");
            bed.write(file, &before);
        }
        for filter in ["a", "b", "c"] {
            client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        }
        bed.stop().await;
    });
}
