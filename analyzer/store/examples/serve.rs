//! The embedded engine behind ClickHouse's HTTP interface, as `wirespan store` runs it:
//! `cargo run -p wirespan-store --example serve -- DIRECTORY ADDRESS [--supervised]`. The tests start it as a child process.

use wirespan_store::{ServeOptions, serve};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data, listen, flags @ ..] = arguments.as_slice() else {
        return Err("usage: serve DIRECTORY ADDRESS [--supervised]".into());
    };
    let supervised = flags.iter().any(|f| f == "--supervised");
    let options = ServeOptions { data: data.into(), listen: listen.parse()?, library: None, supervised };
    if let Err(error) = serve(options) {
        eprintln!("{error}");
        std::process::exit(1);
    }
    Ok(())
}
