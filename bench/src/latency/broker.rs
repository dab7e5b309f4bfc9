//! The broker of a benchmark: one that runs, one that is brought up for it, or librdkafka's mock.

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    mocking::MockCluster,
    producer::DefaultProducerContext,
};

/// Names a broker that runs, as it does for the tests.
const ADDRESS: &str = "WHISPERER_KAFKA";

/// A broker, and what is left to do when nobody needs it any more.
pub struct Broker {
    /// `host:port`.
    pub address: String,
    mock: Option<MockCluster<'static, DefaultProducerContext>>,
    /// Whether it was brought up here, and is taken down in the end.
    own: bool,
}

/// Topics of one row: its input, its decisions, and the echo.
#[derive(Clone, Debug)]
pub struct Topics {
    /// Events.
    pub events: String,
    /// Decisions.
    pub decisions: String,
    /// The broker's echo.
    pub echo: String,
}

impl Broker {
    /// The mock, the broker that [`ADDRESS`] names, or one that `bin/broker` brings up.
    ///
    /// # Errors
    /// Where none can be had.
    pub fn find(mock: bool, repository: &Path) -> anyhow::Result<Broker> {
        if mock {
            let mock = MockCluster::new(1).context("cannot start the mock cluster")?;
            return Ok(Broker { address: mock.bootstrap_servers(), mock: Some(mock), own: false });
        }
        if let Some(address) = env::var(ADDRESS).ok().filter(|address| !address.is_empty()) {
            return Ok(Broker { address, mock: None, own: false });
        }
        let script = |verb: &str| {
            let mut command = Command::new(repository.join("bin").join("broker"));
            let output = command.arg(verb).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
            let output = output.context("cannot run bin/broker")?;
            let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            anyhow::Ok(output.status.success().then_some(said))
        };
        if let Some(address) = script("status")? {
            return Ok(Broker { address, mock: None, own: false });
        }
        match script("up")? {
            Some(address) => Ok(Broker { address, mock: None, own: true }),
            None => bail!("there is no broker: {ADDRESS}=HOST:PORT names one, and bin/broker says why it starts none"),
        }
    }

    /// What results call it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        if self.mock.is_some() { "librdkafka's mock cluster" } else { "Apache Kafka" }
    }

    /// Settings of every client.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address).set("client.id", "whisperer-bench");
        config
    }

    /// Makes a topic that keeps what it is given.
    ///
    /// # Errors
    /// What the broker answers.
    pub fn create(&self, topic: &str, partitions: i32) -> anyhow::Result<()> {
        let cannot = || format!("cannot make the topic \"{topic}\"");
        if let Some(mock) = &self.mock {
            // It knows no request for it.
            return mock.create_topic(topic, partitions, 1).with_context(cannot);
        }
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1))
            .set("retention.ms", "-1")
            .set("file.delete.delay.ms", "1000");
        let admin: AdminClient<DefaultClientContext> = self.client().create().with_context(cannot)?;
        let created = wait(admin.create_topics([&new], &AdminOptions::new()))?.with_context(cannot)?;
        match created.into_iter().find_map(Result::err) {
            Some((_, code)) => Err(anyhow::anyhow!("{code}")).with_context(cannot),
            None => Ok(()),
        }
    }

    /// Removes all topics of the bench whose names begin so, with those that the engine has made for them.
    ///
    /// # Errors
    /// What the broker answers.
    pub fn remove(&self, prefix: &str) -> anyhow::Result<()> {
        if self.mock.is_some() {
            return Ok(());
        }
        let consumer: BaseConsumer = self.client().create().context("cannot ask for topics")?;
        let metadata = consumer.fetch_metadata(None, std::time::Duration::from_secs(30));
        let metadata = metadata.context("cannot ask for topics")?;
        let names = metadata.topics().iter().map(rdkafka::metadata::MetadataTopic::name);
        let own: Vec<&str> = names.filter(|name| name.contains(prefix)).collect();
        let admin: AdminClient<DefaultClientContext> = self.client().create().context("cannot remove topics")?;
        wait(admin.delete_topics(&own, &AdminOptions::new()))?.context("cannot remove topics")?;
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.own {
            let script = crate::throughput::repository().join("bin").join("broker");
            // Left running it harms nobody.
            let _ = Command::new(script).args(["down", "--wipe"]).status();
        }
    }
}

impl Topics {
    /// Topics whose names begin so, made.
    ///
    /// # Errors
    /// What the broker answers.
    pub fn create(broker: &Broker, prefix: &str, partitions: i32) -> anyhow::Result<Topics> {
        let topics = Topics {
            events: format!("{prefix}.events"),
            decisions: format!("{prefix}.decisions"),
            echo: format!("{prefix}.echo"),
        };
        broker.create(&topics.events, partitions)?;
        broker.create(&topics.decisions, partitions)?;
        broker.create(&topics.echo, 1)?;
        Ok(topics)
    }
}

/// How names of topics begin that no other run has.
#[must_use]
pub fn prefix() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("whisperer-bench-{}", since.as_millis())
}

fn wait<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().context("cannot wait for the broker")?;
    Ok(runtime.block_on(future))
}
