//! `wirespan store`: the embedded ClickHouse behind its own HTTP interface.

use std::net::SocketAddr;
use std::path::PathBuf;
use wirespan_store::ServeOptions;

/// Where ClickHouse's HTTP interface is by default.
pub const CLICKHOUSE_LISTEN: &str = "127.0.0.1:8123";

/// What `wirespan store` is asked for.
#[derive(clap::Args)]
pub struct StoreArgs {
    /// Data directory
    #[arg(long, value_name = "DIR", default_value_os_t = data_dir())]
    data: PathBuf,

    /// Address of ClickHouse's HTTP interface
    #[arg(long, value_name = "ADDRESS", default_value = CLICKHOUSE_LISTEN)]
    listen: SocketAddr,

    /// libchdb.so, when it is not where `make setup` puts it
    #[arg(long, value_name = "FILE", env = "WIRESPAN_LIBCHDB")]
    libchdb: Option<PathBuf>,

    /// Stop when standard input closes
    #[arg(long, hide = true)]
    supervised: bool,
}

/// Runs the command.
pub fn run(args: StoreArgs) -> anyhow::Result<()> {
    let options = ServeOptions {
        data: args.data,
        listen: args.listen,
        library: args.libchdb,
        supervised: args.supervised,
    };
    Ok(wirespan_store::serve(options)?)
}

/// Where data is kept unless told: the XDG data directory of the user.
pub fn data_dir() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(".local/share");
    std::env::var_os("XDG_DATA_HOME")
        .filter(|dir| !dir.is_empty())
        .map_or_else(home, PathBuf::from)
        .join("wirespan")
}
