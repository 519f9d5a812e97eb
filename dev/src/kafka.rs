//! A private Apache Kafka: one node, plain Java, its jars through Maven.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::child::{self, Spec};
use crate::config;
use crate::error::{Attempt as _, Error};
use crate::identity;
use crate::packages::{self, Need};
use crate::ports;
use crate::stack::{Member, Readiness};
use crate::terminal::say;

/// The port that is tried first; the controller takes the next one.
const PORT_PREFERRED: u16 = 9092;
/// A controlled shutdown writes its logs out.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// Starting may have to recover the logs after a crash.
const START_WITHIN: Duration = Duration::from_secs(120);
/// The heap: 370 MB stay resident when idle, 430 MB after a million messages.
const JVM: [&str; 5] =
    ["-Xms256m", "-Xmx512m", "-XX:+UseG1GC", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true"];

const SETTINGS_TEMPLATE: &str = include_str!("../../deploy/kafka/server.properties");
const LOGGING: &str = include_str!("../../deploy/kafka/log4j2.xml");
const POM: &str = include_str!("../../deploy/kafka/pom.xml");

const NEED_JAVA: Need = Need {
    what: "Java 17 or newer",
    packages: &["default-jre-headless"],
    by_hand: "install the package default-jre-headless (macOS: brew install openjdk), or set KAFKA_BROKERS to a broker",
};
const NEED_MAVEN: Need = Need {
    what: "Maven",
    packages: &["maven"],
    by_hand: "install the package maven (it fetches Kafka's jars), or set KAFKA_BROKERS to a broker",
};

/// How a broker is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Wish<'a> {
    /// The directory for its data, its log and its pid file.
    pub(crate) home: &'a Path,
    /// The directory of its jars; they are fetched when they are not there.
    pub(crate) libs: &'a Path,
    /// Its port, when that was said; 0 for any.
    pub(crate) port: Option<u16>,
}

/// A broker that is ready to be started.
#[derive(Debug)]
pub(crate) struct Kafka {
    spec: Spec,
    port: u16,
    version: String,
}

/// What has to be installed first.
pub(crate) fn needs(libs: &Path) -> Vec<Need> {
    let mut needs = Vec::new();
    if java().is_none() {
        needs.push(NEED_JAVA);
    }
    if !are_complete(libs) && packages::find("mvn").is_none() {
        needs.push(NEED_MAVEN);
    }
    needs
}

impl Kafka {
    /// Fetches the jars when they are missing, ends what an earlier run left, chooses the ports, and formats
    /// the data where there is none.
    ///
    /// # Errors
    /// When Java is missing, the jars cannot be fetched, or a file cannot be written.
    pub(crate) async fn prepare(wish: &Wish<'_>) -> Result<Self, Error> {
        let java = java().ok_or_else(|| Error::Missing(format!("{}: {}", NEED_JAVA.what, NEED_JAVA.by_hand)))?;
        fetch(wish.libs).await?;
        let home = wish.home.join("kafka");
        fs::create_dir_all(&home).attempt(|| format!("create {}", home.display()))?;
        let pid_file = wish.home.join("kafka.pid");
        identity::stop_leftover("Kafka", &pid_file, Signal::SIGTERM, STOP_WITHIN).await;
        let port = choose_port(wish)?;
        let settings = home.join("server.properties");
        let logging = home.join("log4j2.xml");
        let data = home.join("data");
        let text = fill(SETTINGS_TEMPLATE, port, &data);
        fs::write(&settings, text).attempt(|| format!("write {}", settings.display()))?;
        fs::write(&logging, LOGGING).attempt(|| format!("write {}", logging.display()))?;
        let mut args: Vec<OsString> = JVM.iter().map(OsString::from).collect();
        args.push(option("-Dlog4j2.configurationFile=", &logging));
        args.push("-cp".into());
        args.push(wish.libs.join("*").into());
        if !data.join("meta.properties").exists() {
            format(&java, &args, &settings, &home).await?;
        }
        args.extend(["kafka.Kafka".into(), settings.into()]);
        let spec = Spec {
            name: "Kafka",
            program: java,
            args,
            envs: Vec::new(),
            account: None,
            directory: home,
            log: wish.home.join("logs/kafka.log"),
            pid_file,
            stop_signal: Signal::SIGTERM,
            stop_within: STOP_WITHIN,
        };
        Ok(Self { spec, port, version: version(wish.libs) })
    }

    /// What a client is given.
    pub(crate) fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its version and address, for the terminal.
    pub(crate) fn describe(&self) -> String {
        format!("Kafka {} on {}", self.version, self.brokers())
    }

    /// Hands it over to be started.
    pub(crate) fn member(self) -> Member {
        Member::new(self.spec, Readiness::Kafka(self.port), START_WITHIN)
    }
}

/// Fetches the jars into a new directory and moves that into place, so that what exists is whole.
async fn fetch(libs: &Path) -> Result<(), Error> {
    let parent = libs.parent().unwrap_or(libs);
    fs::create_dir_all(parent).attempt(|| format!("create {}", parent.display()))?;
    // Two runs at once fetch once; the second finds the jars when its turn comes.
    let lock_path = libs.with_extension("lock");
    let _lock = tokio::task::spawn_blocking(move || {
        let file = fs::File::create(&lock_path)?;
        file.lock().map(|()| file)
    })
    .await
    .map_err(std::io::Error::other)
    .flatten()
    .attempt(|| format!("lock {}", libs.display()))?;
    if are_complete(libs) {
        return Ok(());
    }
    let maven =
        packages::find("mvn").ok_or_else(|| Error::Missing(format!("{}: {}", NEED_MAVEN.what, NEED_MAVEN.by_hand)))?;
    say("fetching Kafka's jars (44 MB) …");
    let unfinished = libs.with_extension("new");
    for old in [libs, &unfinished] {
        if old.exists() {
            fs::remove_dir_all(old).attempt(|| format!("clear {}", old.display()))?;
        }
    }
    fs::create_dir_all(&unfinished).attempt(|| format!("create {}", unfinished.display()))?;
    let pom = unfinished.join("pom.xml");
    fs::write(&pom, POM).attempt(|| format!("write {}", pom.display()))?;
    let mut command = Command::new(maven);
    command.args(["-q", "-B", "--strict-checksums", "-f"]).arg(&pom);
    command.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
    command.arg(option("-DoutputDirectory=", &unfinished));
    child::run(command).await?;
    fs::rename(&unfinished, libs).attempt(|| format!("move Kafka's jars to {}", libs.display()))
}

/// Whether the jars are there, and are those that our pom names: it is kept beside them.
fn are_complete(libs: &Path) -> bool {
    fs::read_to_string(libs.join("pom.xml")).is_ok_and(|pom| pom == POM)
}

/// The pair of the last run again if it is free; says so when the usual port is not to be had.
fn choose_port(wish: &Wish<'_>) -> Result<u16, Error> {
    let memory = wish.home.join("kafka.port");
    let remembered = fs::read_to_string(&memory).ok().and_then(|text| text.trim().parse().ok());
    let preferred = remembered.unwrap_or(PORT_PREFERRED);
    let port = ports::choose(wish.port, preferred, 2, "Kafka")?;
    if wish.port.is_none() && port != preferred {
        say(format!(
            "port {preferred} or {} is in use by something else, so Kafka takes {port} (set KAFKA_BROKERS to use yours)",
            preferred.saturating_add(1)
        ));
    }
    fs::write(&memory, format!("{port}\n")).attempt(|| format!("write {}", memory.display()))?;
    Ok(port)
}

async fn format(java: &Path, args: &[OsString], settings: &Path, home: &Path) -> Result<(), Error> {
    let mut command = Command::new(java);
    command.args(args).args(["kafka.tools.StorageTool", "format", "--ignore-formatted"]).current_dir(home);
    command.args(["-t", &cluster_id(uuid::Uuid::now_v7().into_bytes()), "-c"]).arg(settings);
    child::run(command).await.map(drop)
}

fn fill(template: &str, port: u16, data: &Path) -> String {
    template
        .replace("@BROKER_PORT@", &port.to_string())
        .replace("@CONTROLLER_PORT@", &port.saturating_add(1).to_string())
        .replace("@LOG_DIR@", &data.display().to_string())
}

/// A Kafka id: 16 bytes in URL-safe base64 without padding.
fn cluster_id(bytes: [u8; 16]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let number = u128::from_be_bytes(bytes);
    // Twenty-one groups of six bits, and the last two bits at the top of a twenty-second.
    let group = |index: u32| if index < 21 { number >> (122 - 6 * index) } else { number << 4 };
    (0..22).map(|index| char::from(ALPHABET[usize::from((group(index) & 63) as u8)])).collect()
}

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

fn java() -> Option<PathBuf> {
    let at_home = config::java_home().map(|home| home.join("bin/java")).filter(|java| packages::is_program(java));
    at_home.or_else(|| packages::find("java"))
}

fn version(libs: &Path) -> String {
    let names = fs::read_dir(libs).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names
        .filter_map(|name| Some(name.to_str()?.strip_prefix("kafka-clients-")?.strip_suffix(".jar")?.to_owned()))
        .next()
        .unwrap_or_else(|| "(unknown version)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_is_what_kafka_would_write() {
        // The example of KIP-631's reference: sixteen bytes 0x00..0x0f and all ones.
        let counting = std::array::from_fn(|index| u8::try_from(index).unwrap());
        assert_eq!(cluster_id(counting), "AAECAwQFBgcICQoLDA0ODw");
        assert_eq!(cluster_id([0xff; 16]), "_____________________w");
    }

    #[test]
    fn the_template_is_filled_completely() {
        let text = fill(SETTINGS_TEMPLATE, 9092, Path::new("/data"));
        let settings: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(settings.contains(&"advertised.listeners=PLAINTEXT://127.0.0.1:9092"));
        assert!(settings.contains(&"controller.quorum.voters=1@127.0.0.1:9093"));
        assert!(settings.iter().all(|line| !line.contains('@') || line.contains("1@127")), "{settings:?}");
    }

    /// The settings that have to differ between one process on loopback and a container.
    const PLACE: [&str; 6] = [
        "advertised.listeners",
        "controller.quorum.voters",
        "inter.broker.listener.name",
        "listener.security.protocol.map",
        "listeners",
        "log.dirs",
    ];

    #[test]
    fn the_composed_broker_has_our_settings() {
        let compose = fs::read_to_string(config::checkout().join("docker-compose.yml")).unwrap();
        for line in SETTINGS_TEMPLATE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, value) = line.split_once('=').unwrap();
            let variable = format!("KAFKA_{}:", name.replace('.', "_").to_uppercase());
            let theirs = compose.lines().find_map(|line| line.trim().strip_prefix(variable.as_str()));
            let theirs = theirs.map(|value| value.trim().trim_matches('"')).unwrap_or_default();
            if PLACE.contains(&name) {
                assert!(!theirs.is_empty(), "docker-compose.yml lacks {variable}");
            } else {
                assert_eq!(theirs, value, "{variable}");
            }
        }
        assert!(POM.contains(&format!("<kafka.version>{}<", image_version(&compose))));
    }

    fn image_version(compose: &str) -> &str {
        compose.split_once("apache/kafka:").unwrap().1.split_whitespace().next().unwrap()
    }
}
