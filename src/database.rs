//! The ClickHouse that records go to: the embedded one in a child process, or a server that the user names.

use anyhow::Context;
use std::ffi::OsString;
use std::net::SocketAddr;
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
        let (child, url) = match place {
            Place::Url(url) => (None, url),
            Place::Embedded { data, listen, libchdb } => {
                let child =
                    Supervisor::start(SupervisorOptions::new(command(data, listen, libchdb)?)).await?;
                let url = child.url().to_owned();
                (Some(child), url)
            }
        };
        let database = Self { client: Client::new(&url)?, child };
        if let Err(error) = migrate(&database.client, &Retention::default()).await {
            database.stop().await;
            return Err(error.into());
        }
        Ok(database)
    }

    /// Stops the embedded engine and waits until it is gone.
    pub async fn stop(self) {
        if let Some(child) = self.child {
            child.stop().await;
        }
    }
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
