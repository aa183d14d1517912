//! The ClickHouse that records go to: the embedded one in a child process, or a server that the user names.

use anyhow::{Context, bail};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use wirespan_store::{Client, Retention, Supervisor, SupervisorOptions, migrate};

/// Which ClickHouse.
pub enum Place {
    /// A child process of this binary.
    Embedded { data: PathBuf, listen: SocketAddr, libchdb: Option<PathBuf> },
    /// A server.
    Url(String),
}

/// A ClickHouse with our tables in it.
pub struct Database {
    pub client: Client,
    child: Option<Supervisor>,
}

impl Database {
    /// Starts the embedded engine, or connects, and brings the tables up to date.
    pub async fn start(place: Place) -> anyhow::Result<Self> {
        let is_server = matches!(place, Place::Url(_));
        let (child, url) = match place {
            Place::Url(url) => (None, url),
            Place::Embedded { data, listen, libchdb } => {
                ensure_reachable(listen)?;
                let child =
                    Supervisor::start(SupervisorOptions::new(command(data, listen, libchdb)?)).await?;
                let url = child.url().to_owned();
                (Some(child), url)
            }
        };
        let database = Self { client: Client::new(&url)?, child };
        if let Err(error) = migrate(&database.client, &Retention::default()).await {
            database.stop().await;
            return match is_server {
                true => Err(error).context("the server of --clickhouse-url cannot be used"),
                false => Err(error.into()),
            };
        }
        Ok(database)
    }

    /// The addresses that the store is talked to at; none where its name is not known.
    pub async fn addresses(&self) -> Vec<SocketAddr> {
        let found = tokio::net::lookup_host(host_and_port(self.client.url())).await;
        found.map(Iterator::collect).unwrap_or_default()
    }

    /// Stops the embedded engine and waits until it is gone.
    pub async fn stop(self) {
        if let Some(child) = self.child {
            child.stop().await;
        }
    }
}

/// The store process is talked to over the network. Sends nothing.
fn ensure_reachable(listen: SocketAddr) -> anyhow::Result<()> {
    const DISCARD: u16 = 9;
    let connected =
        UdpSocket::bind((listen.ip(), 0)).and_then(|socket| socket.connect((listen.ip(), DISCARD)));
    match connected {
        Err(error) if error.kind() == ErrorKind::NetworkUnreachable => bail!(
            "the store cannot be reached at {}, as the loopback interface is down in this network namespace; set it up with \
             `ip link set lo up`",
            listen.ip()
        ),
        // What else is wrong with the address is said when it is listened on.
        _ => Ok(()),
    }
}

/// Of a URL `http://host[:port]`.
fn host_and_port(url: &str) -> String {
    let host = url.trim_start_matches("http://");
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { host.to_owned() } else { format!("{host}:80") }
}

/// The command line of the store process.
fn command(data: PathBuf, listen: SocketAddr, libchdb: Option<PathBuf>) -> anyhow::Result<Vec<OsString>> {
    let program = std::env::current_exe().context("cannot find the wirespan program to start its store")?;
    let mut command: Vec<OsString> = vec![program.into(), "store".into(), "--supervised".into()];
    command.extend(["--listen".into(), listen.to_string().into(), "--data".into(), data.into()]);
    if let Some(library) = libchdb {
        command.extend(["--libchdb".into(), library.into()]);
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_port_has_that_of_http() {
        let of = |url| host_and_port(url);
        assert_eq!(of("http://db:8123"), "db:8123");
        assert_eq!(of("http://db.example"), "db.example:80");
        assert_eq!(of("http://[::1]:8123"), "[::1]:8123");
        assert_eq!(of("http://[fd00::1]"), "[fd00::1]:80");
    }
}
