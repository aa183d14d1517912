//! The ClickHouse that `up` writes to: the embedded one in a child process, or a server that the user names.

use super::UpArgs;
use anyhow::Context;
use std::ffi::OsString;
use wirespan_store::{Client, Retention, Supervisor, SupervisorOptions, migrate};

/// A ClickHouse with our tables in it.
pub struct Database {
    pub client: Client,
    child: Option<Supervisor>,
}

impl Database {
    /// Starts the embedded engine, or connects, and brings the tables up to date.
    pub async fn start(args: &UpArgs) -> anyhow::Result<Self> {
        let (child, url) = match &args.clickhouse_url {
            Some(url) => (None, url.clone()),
            None => {
                let child = Supervisor::start(SupervisorOptions::new(command(args)?)).await?;
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
fn command(args: &UpArgs) -> anyhow::Result<Vec<OsString>> {
    let program = std::env::current_exe().context("cannot find the wirespan program to start its store")?;
    let listen = args.clickhouse_listen.to_string();
    let mut command: Vec<OsString> =
        vec![program.into(), "store".into(), "--supervised".into(), "--listen".into(), listen.into()];
    command.extend(["--data".into(), args.data.clone().into()]);
    if let Some(library) = &args.libchdb {
        command.extend(["--libchdb".into(), library.into()]);
    }
    Ok(command)
}
